"""`forkresque pause`, `resume`, `drain`, `scale` and `reload`: orders to a master here.

A pause can be for every worker of a Redis, too.
"""

import re
import threading
from pathlib import Path
from typing import Any

import click

from forkresque.cli import output
from forkresque.cli.connecting import connected
from forkresque.cli.masters import one_master, which_master
from forkresque.cli.parameters import Command
from forkresque.cli.reports import size_of
from forkresque.cli.session import Session, pass_session
from forkresque.errors import ControlError
from forkresque.options import duration
from forkresque.processes import is_alive, start_of
from forkresque.queue import Queue
from forkresque.supervisor.control import ask

_POLL = 0.05  # seconds between two looks at a master that drains or reloads
_SIZE = re.compile("[+-]?[0-9]{1,5}")


def _whom() -> list[click.Parameter]:
    """Return the parameters that say who is to pause or resume."""
    return [
        click.Option(
            ["queues", "-q", "--queue"],
            multiple=True,
            metavar="NAME",
            help="This queue, for all forkresque workers of the Redis; may be repeated.",
        ),
        click.Option(
            ["everybody", "--all"],
            is_flag=True,
            help="All workers of the Redis: Ruby Resque's obey as well, node-resque's do not.",
        ),
        *which_master(),
    ]


@click.command(cls=Command, params=_whom())
@pass_session
def pause(session: Session, /, **whom: Any) -> None:
    """Let no new job start; those in hand go on. Without options: the local master's."""
    _switch(session, "pause", "paused", **whom)


@click.command(cls=Command, params=_whom())
@pass_session
def resume(session: Session, /, **whom: Any) -> None:
    """Let jobs start again after a pause. Without options: the local master's."""
    _switch(session, "resume", "resumed", **whom)


def _switch(
    session: Session,
    verb: str,
    past: str,
    *,
    queues: tuple[str, ...],
    everybody: bool,
    pid: int | None,
    control: str | None,
) -> None:
    if sum((bool(queues), everybody, pid is not None or control is not None)) > 1:
        raise click.UsageError("a queue, --all, or one master: give one of them")
    if queues or everybody:
        with connected(session) as app:
            _switch_in_redis(app.queue, verb, queues)
        fields: dict[str, object] = {"queues": list(queues)} if queues else {"all": True}
        text = ", ".join(queues) if queues else "all workers"
    else:
        socket, number = one_master(session, pid=pid, path=control)
        ask(socket, verb)
        fields, text = {"pid": number}, f"master {number}"
    if session.json:
        output.document(**{past: True}, **fields)
    elif not session.quiet:
        output.line(f"{past} {text}")


def _switch_in_redis(queue: Queue, verb: str, queues: tuple[str, ...]) -> None:
    store = queue.store
    match verb, bool(queues):
        case "pause", True:
            store.pause_queues(queues)
        case "pause", False:
            store.pause_all()
        case _, True:
            store.resume_queues(queues)
        case _:
            store.resume_all()


def _patience(text: str) -> float:
    try:
        seconds = duration(text)
    except ValueError:
        raise click.BadParameter(f"{text} is no length of time, such as 90 or 10m") from None
    if seconds < 0:
        raise click.BadParameter(f"{text} is less than nothing")
    return seconds


@click.command(cls=Command, params=which_master())
@click.option("--wait", "waits", is_flag=True, help="Return when the master is gone.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=_patience,
    help="What the jobs in hand may still take [default: the master's --shutdown-timeout].",
)
@pass_session
def drain(
    session: Session, *, pid: int | None, control: str | None, waits: bool, timeout: float | None
) -> None:
    """Let the local master take no more jobs, finish those in hand, and exit."""
    socket, number = one_master(session, pid=pid, path=control)
    began = start_of(number)
    ask(socket, "drain", **({} if timeout is None else {"timeout": timeout}))
    clock = threading.Event()
    while waits and began is not None and is_alive(number, began):
        clock.wait(_POLL)
    if session.json:
        output.document(draining=not waits, gone=waits, pid=number)
    elif not session.quiet:
        output.line(f"master {number} " + ("is gone" if waits else "drains"))


def _size(text: str) -> dict[str, int]:
    """Return what `6`, `+2` or `-2` asks of a master."""
    if not _SIZE.fullmatch(text) or not int(text):
        raise click.BadParameter(
            f"{text} is no number of workers: give 6, or +2 and -2 for more and fewer"
        )
    return {"to": int(text)} if text.isdigit() else {"by": int(text)}


# `-1` looks like an option, so what looks like one and is unknown is the number, or refused as one.
@click.command(
    cls=Command, params=which_master(), context_settings={"ignore_unknown_options": True}
)
@click.argument("change", metavar="N|+N|-N", type=_size)
@click.option("--pool", metavar="NAME", help="This pool, if the master has several.")
@pass_session
def scale(
    session: Session,
    *,
    change: dict[str, int],
    pool: str | None,
    pid: int | None,
    control: str | None,
) -> None:
    """Let the local master have N workers, or so many more or fewer; at least one stays.

    A pool with a minimum and a maximum gets another maximum, and goes on to scale itself.
    """
    socket, number = one_master(session, pid=pid, path=control)
    state = ask(socket, "status")
    if state["draining"]:
        raise ControlError(f"master {number} drains; it takes no more workers")
    before = _pool(state, pool)
    after = _pool(ask(socket, "scale", pool=before["name"], **change), before["name"])
    if session.json:
        sizes = {
            name: {key: each[key] for key in ("least", "most", "wanted")}
            for name, each in (("before", before), ("after", after))
        }
        output.document(pid=number, pool=after["name"], **sizes)
    elif not session.quiet:
        output.line(f"pool {after['name']}: size {size_of(after)}, was {size_of(before)}")


def _pool(state: dict[str, Any], name: str | None) -> dict[str, Any]:
    """Return what a master says of one pool. Raises ControlError if it is not clear which."""
    pools: dict[str, dict[str, Any]] = {pool["name"]: pool for pool in state["pools"]}
    known = "; ".join(pools)
    if name is None and len(pools) > 1:
        raise ControlError(
            f"master {state['pid']} has {len(pools)} pools: {known}", hint="say which: --pool NAME"
        )
    if name is not None and name not in pools:
        raise ControlError(f"there is no pool {name}", hint=f"there is {known}")
    return pools[name] if name is not None else next(iter(pools.values()))


@click.command(cls=Command, params=which_master())
@click.option(
    "--wait/--no-wait",
    "waits",
    default=True,
    help="Return when every worker runs the new code, or when it is refused [default: --wait].",
)
@pass_session
def reload(session: Session, *, pid: int | None, control: str | None, waits: bool) -> None:
    """Let the local master go on with the code and configuration that are there now.

    They are tried first. If they cannot be used, all stays as it is, and this exits with 1.
    Jobs in hand are finished by the old code.
    """
    socket, number = one_master(session, pid=pid, path=control)
    before = ask(socket, "status")["generation"]
    state = ask(socket, "reload")
    if not reload_is_over(state, before) and waits:
        state = _reloaded(session, socket, number, before)
    if session.json:
        output.document(pid=number, generation=state["generation"], reloaded=waits)
    elif not session.quiet:
        output.line(
            f"master {number} runs the new code, generation {state['generation']}"
            if waits
            else f"master {number} tries the new code"
        )


def reload_is_over(state: dict[str, Any], before: int) -> bool:
    """Return whether the new code has taken over from generation `before`.

    Raises ControlError if it never will.
    """
    if state["generation"] == before:
        if state["draining"]:
            raise ControlError(f"master {state['pid']} drains; it does not reload any more")
        if state["reload"]["state"] == "refused":
            raise ControlError(
                f"master {state['pid']} stays with the old code: {state['reload']['reason']}",
                hint="nothing was interrupted; mend that and reload again",
            )
        return False
    is_new = all(worker["generation"] >= state["generation"] for worker in state["workers"])
    return is_new and state["reload"]["state"] != "rolling"


def _reloaded(session: Session, socket: Path, number: int, before: int) -> dict[str, Any]:
    """Return the master's state once the new code has taken over."""
    began, clock, told = start_of(number), threading.Event(), False
    while True:
        try:
            state = ask(socket, "status")
        except ControlError:  # it may well be busy with becoming the new one
            if began is None or not is_alive(number, began):
                raise ControlError(
                    f"master {number} has ended during the reload", hint="its log says why"
                ) from None
        else:
            if reload_is_over(state, before):
                return state
            if state["generation"] > before and not told:
                session.say("the new code runs; workers of the old one finish their jobs")
                told = True
        clock.wait(_POLL)

"""`forkresque pause`, `resume` and `drain`: tell a master here, or every worker of a Redis."""

import threading
from typing import Any

import click

from forkresque.cli import output
from forkresque.cli.connecting import connected
from forkresque.cli.masters import one_master
from forkresque.cli.parameters import Command, declared
from forkresque.cli.session import Session, pass_session
from forkresque.options import SupervisorOptions, duration
from forkresque.processes import is_alive, start_of
from forkresque.queue import Queue
from forkresque.supervisor.control import ask

_POLL = 0.05  # seconds between two looks at a master that drains


def _which_master() -> list[click.Parameter]:
    return [
        click.Option(["--pid"], type=int, metavar="N", help="The local master with this pid."),
        *declared(SupervisorOptions, only=["control"]),
    ]


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
        *_which_master(),
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


@click.command(cls=Command, params=_which_master())
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

"""`forkresque workers`: who works, in every language; and the end of one that is ours."""

import sys
from pathlib import Path
from typing import Any

import click

from forkresque.cli import output
from forkresque.cli.connecting import connected
from forkresque.cli.masters import statuses
from forkresque.cli.parameters import Noun, declared
from forkresque.cli.session import Session, pass_session
from forkresque.errors import ControlError, InvalidPayload
from forkresque.options import SupervisorOptions
from forkresque.protocol.canonical import decode
from forkresque.protocol.registry import Registry
from forkresque.queue import Queue
from forkresque.supervisor.control import ask


@click.group(cls=Noun)
def workers() -> None:
    """Show the workers that are registered in Redis, also those of Ruby and node."""


@workers.command("list")
@pass_session
def list_workers(session: Session) -> None:
    """List all workers and the job that each has in hand."""
    with connected(session) as app:
        found = overview(app.queue)
    if session.json:
        output.document(workers=found)
        return
    fields = ("worker", "state", "queue", "job", "since")
    output.table(
        [name.upper() for name in fields], [[each[name] for name in fields] for each in found]
    )


def overview(queue: Queue) -> list[dict[str, str]]:
    """Return each worker's id, state, queue and job in hand, and since when."""
    registry = Registry(queue.store.client, queue.store.keys)
    return [_described(worker, record) for worker, record in registry.workers()]


def _described(worker: str, record: bytes | None) -> dict[str, str]:
    facts = {"worker": worker, "state": "idle", "queue": "", "job": "", "since": ""}
    if record is None:
        return facts
    facts["state"] = "working"
    try:
        told = decode(record)
    except InvalidPayload:
        told = None
    if not isinstance(told, dict):
        return facts | {"job": "(unreadable record)"}
    payload = told.get("payload")
    job = payload.get("class") if isinstance(payload, dict) else None
    return facts | {
        "queue": _text(told.get("queue")),
        "job": _text(job),
        "since": _text(told.get("run_at")),
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "?"


@workers.command("kill", params=declared(SupervisorOptions, only=["control"]))
@click.argument("pid", metavar="PID", type=click.IntRange(min=1))
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_session
def kill_worker(session: Session, *, pid: int, control: str | None, yes: bool) -> None:
    """Kill a worker of a master of this machine; another one takes its place.

    Its job is recovered as after a crash: it runs again, or fails if it has crashed too often.
    """
    master, worker = local_worker(statuses(session, path=control), pid)
    if worker["job"] and not yes:
        _confirm(f"Worker {pid} performs {worker['job']} for {output.brief(worker['job_seconds'])}")
    ask(Path(master["socket"]), "kill", pid=pid)
    if session.json:
        output.document(killed=pid, pid=master["pid"], job=worker["job"])
    elif not session.quiet:
        output.line(f"master {master['pid']} kills worker {pid}{_fate(worker['job'])}")


def local_worker(masters: list[dict[str, Any]], pid: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the state of a worker, after its master's. Raises ControlError."""
    answering = [master for master in masters if "error" not in master]
    for master in answering:
        for worker in master["workers"]:
            if worker["pid"] == pid:
                return master, worker
        if pid == master["pid"]:
            raise ControlError(
                f"{pid} is a master", hint=f"forkresque drain --pid {pid} ends it in good order"
            )
        if pid == master["clerk"]["pid"]:
            raise ControlError(f"{pid} is a clerk, which has no job; only workers are killed")
    raise ControlError(
        f"no master of this machine has a worker {pid}",
        hint="forkresque status --local lists those there are",
    )


def _confirm(what: str) -> None:
    """Ask whether a job may be cut. Raises UsageError when nobody is there to answer."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"{output.visible(what)}. Nobody is there to answer; give --yes.")
    click.confirm(f"{output.visible(what)}. Kill it?", abort=True, err=True)


def _fate(job: str) -> str:
    return f"; its job {job} is recovered as after a crash" if job else ""

"""`forkresque workers`: who works, in every language."""

from typing import Any

import click

from forkresque.cli import output
from forkresque.cli.connecting import connected
from forkresque.cli.parameters import Noun
from forkresque.cli.session import Session, pass_session
from forkresque.errors import InvalidPayload
from forkresque.protocol.canonical import decode
from forkresque.protocol.registry import Registry
from forkresque.queue import Queue


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

"""`forkresque queues`: what waits."""

import json
from typing import Any

import click

from forkresque.cli import output
from forkresque.cli.connecting import connected
from forkresque.cli.parameters import Noun
from forkresque.cli.session import Session, pass_session
from forkresque.errors import ForkresqueError, InvalidPayload
from forkresque.protocol.keys import to_text
from forkresque.protocol.payload import parse
from forkresque.queue import Queue


@click.group(cls=Noun)
def queues() -> None:
    """Show the queues, and the jobs that wait in one."""


@queues.command("list")
@pass_session
def list_queues(session: Session) -> None:
    """List all queues with the number of jobs that wait."""
    with connected(session) as app:
        found = overview(app.queue)
    if session.json:
        output.document(queues=found)
    else:
        print_overview(found)


def overview(queue: Queue) -> list[dict[str, Any]]:
    """Return each queue's name, depth, and whether our workers leave it alone."""
    paused = set(queue.store.paused_queues())
    lengths = queue.lengths()
    names = sorted(paused | set(lengths))
    return [
        {"name": name, "waiting": lengths.get(name, 0), "paused": name in paused} for name in names
    ]


def print_overview(found: list[dict[str, Any]]) -> None:
    """Print what `overview` returns."""
    rows = [(each["name"], each["waiting"], "paused" if each["paused"] else "") for each in found]
    output.table(("QUEUE", "WAITING", "STATE"), rows)


@queues.command("show")
@click.argument("name")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, metavar="N", help="At most N jobs."
)
@pass_session
def show_queue(session: Session, name: str, limit: int) -> None:
    """Show the first jobs of a queue; the next one to run comes first."""
    with connected(session) as app:
        if name not in app.queue.queues() and not app.queue.length(name):
            raise ForkresqueError(
                f"there is no queue {name!r}", hint="forkresque queues lists those there are"
            )
        waiting = app.queue.length(name)
        jobs = [_described(raw) for raw in app.queue.peek(name, 0, limit - 1)]
    if session.json:
        output.document(queue=name, waiting=waiting, jobs=jobs)
        return
    output.table(("JOB", "ARGUMENTS"), [(job["class"], _arguments(job)) for job in jobs])
    if waiting > len(jobs):
        session.say(f"{len(jobs)} of {waiting} shown; --limit shows more")


def _described(raw: bytes) -> dict[str, Any]:
    text = to_text(raw)
    try:
        job = parse(raw)
    except InvalidPayload as error:
        return {"class": "", "args": [], "raw": text, "problem": str(error)}
    return {"class": job.name, "args": job.args, "raw": text}


def _arguments(job: dict[str, Any]) -> str:
    if "problem" in job:
        return f"({job['problem']}) {job['raw']}"
    return json.dumps(job["args"], ensure_ascii=False)

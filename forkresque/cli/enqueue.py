"""`forkresque enqueue`: put a job on a queue by hand."""

import json
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from forkresque.cli import output
from forkresque.cli.connecting import connected
from forkresque.cli.parameters import Command
from forkresque.cli.session import Session, pass_session
from forkresque.errors import ForkresqueError, InvalidPayload
from forkresque.options import duration
from forkresque.protocol.canonical import decode
from forkresque.protocol.keys import to_bytes
from forkresque.queue import Queue


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be enqueued. `delay` is in seconds, `at` in epoch seconds."""

    queue: str
    job: str
    args: list[Any]
    delay: float | None
    at: float | None
    front: bool

    def send(self, queue: Queue) -> bool:
        """Enqueue it once; return False if a plugin vetoes."""
        if self.at is not None:
            return queue.enqueue_at(self.at, self.queue, self.job, self.args, unique=False)
        if self.delay is not None:
            return queue.enqueue_in(self.delay, self.queue, self.job, self.args, unique=False)
        return queue.enqueue(self.queue, self.job, self.args, front=self.front)

    def __str__(self) -> str:
        text = f"{self.job} on {self.queue}"
        if self.at is not None:
            moment = datetime.fromtimestamp(self.at, tz=UTC)
            return f"{text}, due at {moment.isoformat(timespec='seconds')}"
        return text if self.delay is None else f"{text}, due in {output.span(self.delay)}"


def _json(text: str) -> Any:
    try:
        return decode(to_bytes(text))
    except InvalidPayload as error:
        quoted = shlex.quote(json.dumps(text, ensure_ascii=False))
        raise click.BadParameter(f"{text} is {error}\nhint: a string is {quoted}") from error


def _json_list(text: str) -> list[Any]:
    value = _json(text)
    if not isinstance(value, list):
        raise click.BadParameter(f"{text} is no list; write it as '[1, \"text\"]'")
    return value


def _delay(text: str) -> float:
    try:
        seconds = duration(text)
    except ValueError:
        raise click.BadParameter(f"{text} is no length of time, such as 90, 10m or 2h") from None
    if seconds < 0:
        raise click.BadParameter(f"{text} lies in the past")
    return seconds


def _moment(text: str) -> float:
    if text.replace(".", "", 1).isdecimal():
        return float(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text} is no moment, such as 2026-11-24T08:00:00Z or 1795507200"
        ) from None
    if moment.tzinfo is None:
        raise click.BadParameter(f"{text} has no time zone; append Z for UTC, or such as +01:00")
    return moment.timestamp()


@click.command(cls=Command, context_settings={"ignore_unknown_options": True})
@click.argument("queue")
@click.argument("job")
@click.argument("words", metavar="[JSON-ARG]...", nargs=-1, type=_json)
@click.option(
    "--args", "listed", metavar="JSON", type=_json_list, help="All arguments, as one list."
)
@click.option("--in", "delay", metavar="TIME", type=_delay, help="Not before 90, 10m or 2h.")
@click.option(
    "--at", metavar="MOMENT", type=_moment, help="Not before: ISO 8601 with a zone, or epoch."
)
@click.option("--front", is_flag=True, help="At the head of the queue.")
@click.option("--count", type=click.IntRange(min=1), default=1, metavar="N", help="N times.")
@pass_session
def enqueue(
    session: Session,
    /,
    *,
    words: tuple[Any, ...],
    listed: list[Any] | None,
    count: int,
    **rest: Any,
) -> None:
    """Put JOB on QUEUE, with its arguments written as JSON: 1 true '"text"'."""
    if words and listed is not None:
        raise click.UsageError("give the arguments one by one or with --args, not both")
    order = Order(args=list(words) if listed is None else listed, **rest)
    if sum((order.delay is not None, order.at is not None, order.front)) > 1:
        raise click.UsageError("--in, --at and --front exclude each other")
    with connected(session) as app:
        stored = _send(order, app.queue, count)
    if session.json:
        output.document(
            enqueued=stored,
            vetoed=count - stored,
            queue=order.queue,
            job=order.job,
            args=order.args,
            at=order.at,
            delay=order.delay,
        )
    elif not session.quiet:
        times = "" if count == 1 else f" {stored} times"
        output.line(f"enqueued {order}{times}" if stored else f"not enqueued: {order}")
        if stored < count:
            output.line(f"vetoed by a plugin of the job: {count - stored}")


def _send(order: Order, queue: Queue, count: int) -> int:
    """Return how many were stored; plugins may veto the others."""
    done = stored = 0
    try:
        for done in range(count):  # noqa: B007 - how far it got
            stored += order.send(queue)
    except (ForkresqueError, KeyboardInterrupt):
        if done:
            click.echo(f"{done} of {count} were sent before this, {stored} enqueued", err=True)
        raise
    return stored

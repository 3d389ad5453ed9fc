"""`forkresque failed`: look at failed jobs, put them back on their queue, remove them."""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import click

from forkresque.cli import output
from forkresque.cli.connecting import connected
from forkresque.cli.parameters import Noun
from forkresque.cli.selection import Filters, named, newest_first
from forkresque.cli.session import Session, pass_session
from forkresque.errors import BadKey, ConfigError, ForkresqueError, InvalidArgs
from forkresque.jobs import check_queue_name
from forkresque.protocol.failure import Failure, parse_failure
from forkresque.protocol.keys import to_text
from forkresque.queue import Queue

_ID = re.compile("[0-9a-f]{4,12}")

Act = Callable[[Queue, Failure], bool]
Sweeping = Callable[[Queue, Iterable[Failure]], Iterator[list[bytes]]]
_FEW = 10  # failed jobs for which the lists are not gone through a second time


def _id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise click.BadParameter(f"{text} is no id: four to twelve of the digits 0-9 and a-f")
    return text


def _queue_name(name: str) -> str:
    try:
        check_queue_name(name)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from error
    return name


def _filters() -> list[click.Parameter]:
    return [
        click.Option(["queue", "--queue"], metavar="NAME", help="Only those of this queue."),
        click.Option(["name", "--class"], metavar="JOB", help="Only those of this job."),
        click.Option(["exception", "--exception"], metavar="NAME", help="Only this exception."),
        click.Option(
            ["match", "--match"],
            metavar="TEXT",
            help="Only those with TEXT in job, arguments, exception or error, in any case.",
        ),
    ]


def _choice() -> list[click.Parameter]:
    """Return the parameters of a command that changes failed jobs."""
    return [
        click.Argument(["ids"], metavar="[ID]...", nargs=-1, type=_id),
        click.Option(["everything", "--all"], is_flag=True, help="All, or all that filters pass."),
        *_filters(),
        click.Option(["--yes"], is_flag=True, help="Do not ask."),
        click.Option(["--dry-run"], is_flag=True, help="Change nothing, only tell."),
    ]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which failed jobs a command is to change, and how sure the user is."""

    ids: tuple[str, ...]
    everything: bool
    filters: Filters
    yes: bool
    dry_run: bool

    @classmethod
    def of(
        cls, *, ids: tuple[str, ...], everything: bool, yes: bool, dry_run: bool, **filters: Any
    ) -> "Choice":
        """Return the choice on a command line. Raises UsageError if nobody can tell what it is."""
        choice = cls(ids, everything, Filters(**filters), yes, dry_run)
        if bool(ids) == everything:
            raise click.UsageError("name failed jobs by their ids, or give --all")
        if ids and choice.filters:
            raise click.UsageError("filters go with --all, not with ids")
        return choice

    def entries(self, queue: Queue, *, retried: bool) -> list[bytes]:
        """Return the records of the chosen ones, oldest first, for there Redis finds them fast.

        Without `retried`, those that Ruby has retried and kept are chosen only by their ids.
        """
        if self.ids:
            chosen = [failure.raw_entry for failure in named(queue, self.ids)]
        else:
            passed = filter(self.filters.accept, newest_first(queue))
            chosen = [f.raw_entry for f in passed if retried or not f.retried_at]
        return chosen[::-1]

    def confirm(self, verb: str, number: int) -> None:
        """Ask whether all are meant. Raises UsageError when nobody is there to answer."""
        if self.ids or self.yes or not number:
            return
        question = f"{verb.capitalize()} {output.counted(number, 'failed job')}?"
        if not sys.stdin.isatty():
            raise click.UsageError(f"{question} Nobody is there to answer; give --yes.")
        click.confirm(question, abort=True, err=True)


@dataclass(slots=True)
class Tally:
    """What became of the chosen ones."""

    done: int = 0
    gone: int = 0
    refused: dict[str, str] = field(default_factory=dict)

    def add(self, queue: Queue, failure: Failure, act: Act) -> None:
        """Act on one failed job, and note what came of it."""
        try:
            if act(queue, failure):
                self.done += 1
            else:
                self.gone += 1
        except (InvalidArgs, BadKey) as error:
            self.refused[failure.id] = str(error)


@click.group(cls=Noun)
def failed() -> None:
    """Show failed jobs, retry them, remove them."""


@failed.command("list", params=_filters())
@click.option("--limit", type=click.IntRange(min=1), default=20, metavar="N", help="At most N.")
@pass_session
def list_failed(session: Session, /, *, limit: int, **filters: Any) -> None:
    """List failed jobs, the newest first."""
    wanted = Filters(**filters)
    with connected(session) as app:
        total = app.queue.failed_count()
        found = list(islice(filter(wanted.accept, newest_first(app.queue)), limit))
    if session.json:
        output.document(total=total, failed=[_facts(failure) for failure in found])
        return
    output.table(
        ("ID", "FAILED AT", "QUEUE", "JOB", "EXCEPTION", "ERROR"),
        [(f.id, f.failed_at, f.queue, f.name, f.exception, f.error) for f in found],
    )
    if len(found) == limit < total:
        session.say(f"the newest {limit} shown; --limit shows more")


def _facts(failure: Failure) -> dict[str, Any]:
    return {
        "id": failure.id,
        "failed_at": failure.failed_at,
        "queue": failure.queue,
        "class": failure.name,
        "args": failure.args,
        "exception": failure.exception,
        "error": failure.error,
        "worker": failure.worker,
        "retried_at": failure.retried_at,
    }


@failed.command("show")
@click.argument("identity", metavar="ID", type=_id)
@pass_session
def show_failed(session: Session, identity: str) -> None:
    """Show one failed job whole, with its backtrace."""
    with connected(session) as app:
        failure = named(app.queue, [identity])[0]
    facts = _facts(failure)
    if session.json:
        output.document(**facts, backtrace=failure.backtrace, payload=to_text(failure.payload))
        return
    facts["args"] = json.dumps(failure.args, ensure_ascii=False)
    for name, value in facts.items():
        first, *more = value.split("\n")
        output.line(f"{name + ':':<11}{first}")
        for each in more:
            output.line(f"{'':11}{each}")
    output.line("backtrace:")
    for each in failure.backtrace:
        output.line(f"  {each}")


@failed.command("retry", params=_choice())
@click.option(
    "--queue-to", metavar="NAME", type=_queue_name, help="On this queue instead of their own."
)
@pass_session
def retry_failed(session: Session, /, *, queue_to: str | None, **choice: Any) -> None:
    """Put failed jobs back on their queue, byte for byte, and remove their records.

    With --all, those that Ruby has retried and kept in the list are left alone.
    """
    _change(
        session,
        Choice.of(**choice),
        verb="retry",
        past="retried",
        act=lambda queue, failure: queue.retry_failed(failure, queue=queue_to),
        sweep=lambda queue, failures: queue.retry_each(failures, queue=queue_to),
    )


@failed.command("rm", params=_choice())
@pass_session
def remove_failed(session: Session, /, **choice: Any) -> None:
    """Remove the records of failed jobs. Their jobs are gone, then."""
    _change(
        session,
        Choice.of(**choice),
        verb="remove",
        past="removed",
        act=Queue.remove_failed,
        sweep=Queue.remove_each,
    )


def _change(
    session: Session, choice: Choice, *, verb: str, past: str, act: Act, sweep: Sweeping
) -> None:
    tally = Tally()
    with connected(session) as app:
        entries = choice.entries(app.queue, retried=verb != "retry")
        if choice.dry_run:
            _preview(session, entries, verb)
            return
        choice.confirm(verb, len(entries))
        try:
            left = Counter(entries)
            if len(entries) > _FEW:
                for taken in sweep(app.queue, map(parse_failure, entries)):
                    tally.done += len(taken)
                    left -= Counter(taken)
            for entry in left.elements():
                tally.add(app.queue, parse_failure(entry), act)
        except (ForkresqueError, KeyboardInterrupt):
            click.echo(f"{past} {tally.done} of {len(entries)} before this", err=True)
            raise
    _report(session, tally, past)


def _preview(session: Session, entries: list[bytes], verb: str) -> None:
    ids = [parse_failure(entry).id for entry in entries]
    if session.json:
        output.document(dry_run=True, count=len(ids), ids=ids)
        return
    output.line(f"would {verb} {output.counted(len(ids), 'failed job')}")
    for each in ids:
        output.line(f"  {each}")


def _report(session: Session, tally: Tally, past: str) -> None:
    if session.json:
        fields = {past: tally.done, "gone": tally.gone, "refused": tally.refused}
        output.document(**fields)
    elif not session.quiet:
        output.line(f"{past} {output.counted(tally.done, 'failed job')}")
    if tally.gone:
        session.say(f"{tally.gone} had moved or gone meanwhile")
    if tally.refused:
        reason = next(iter(tally.refused.values()))
        raise ForkresqueError(
            f"{output.counted(len(tally.refused), 'failed job')} stayed: {reason}",
            hint="forkresque failed show ID shows one whole",
        )

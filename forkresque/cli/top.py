"""`forkresque top`: what a master and its workers do, as they do it."""

import importlib.util
import shutil
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import click

from forkresque.cli import output, top_rows
from forkresque.cli.masters import one_master, which_master
from forkresque.cli.parameters import Command
from forkresque.cli.session import Session, pass_session
from forkresque.errors import ForkresqueError
from forkresque.options import duration
from forkresque.supervisor.control import ask

_LEAST_INTERVAL = 0.1  # seconds
_PAPER = 120  # columns of a frame that goes to no terminal


def _interval(text: str) -> float:
    try:
        seconds = duration(text)
    except ValueError:
        raise click.BadParameter(f"{text} is no length of time, such as 2 or 0.5") from None
    if seconds < _LEAST_INTERVAL:
        raise click.BadParameter(f"{text} is too short: at least {_LEAST_INTERVAL} seconds")
    return seconds


@click.command(cls=Command, params=which_master())
@click.option(
    "--interval",
    metavar="SECONDS",
    type=_interval,
    default="1",
    help="Between two looks, and what rates are measured over [default: 1].",
)
@click.option(
    "--sort",
    "by",
    type=click.Choice(top_rows.NAMES),
    default="seat",
    help="The workers' order [default: seat].",
)
@click.option("--once", is_flag=True, help="Print one frame, after one interval.")
@pass_session
def top(
    session: Session, *, pid: int | None, control: str | None, interval: float, by: str, once: bool
) -> None:
    """Watch the local master at work; its keys are on the screen.

    With --once or --json it prints one frame or document and needs no terminal.
    """
    if not (once or session.json):
        _refuse_what_cannot_be()
    socket, number = one_master(session, pid=pid, path=control)
    sorting = top_rows.Sorting(by)
    if once or session.json:
        _print(session, socket, interval, sorting)
        return
    from forkresque.cli.top_screen import TopApp, TopScreen  # the extra, which few commands need

    TopApp(TopScreen(socket, number, interval=interval, sorting=sorting)).run()


def _refuse_what_cannot_be() -> None:
    if importlib.util.find_spec("textual") is None:
        raise ForkresqueError(
            "top needs textual, which is not installed",
            hint="pip install 'forkresque[tui]'; or --once, which does without",
        )
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise click.UsageError("top needs a terminal; --once prints one frame without")


def _print(session: Session, socket: Path, interval: float, sorting: top_rows.Sorting) -> None:
    before = ask(socket, "status")
    threading.Event().wait(interval)
    report = ask(socket, "status")
    found = top_rows.rates(before, report)
    if session.json:
        report["workers"] = sorting.sort(report["workers"])
        output.document(master=report, rates=asdict(found) if found else None)
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PAPER
    for line in top_rows.frame(report, found, sorting, width=width):
        output.line(line)

"""`forkresque demo`: an embedded server, a master with workers, and jobs to watch."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

from forkresque import embedded
from forkresque.cli import logs
from forkresque.cli.parameters import Command
from forkresque.cli.sample import app
from forkresque.cli.session import Session, pass_session
from forkresque.configuration import resolve
from forkresque.errors import ConfigError
from forkresque.options import SupervisorOptions, duration, variable
from forkresque.supervisor import supervise

_WORKERS = 8
_FOREVER = 1e9


@click.command(cls=Command)
@click.option("--for", "limit", metavar="DURATION", help="Drain after 10s, 2m, …; for scripts.")
@click.option("-c", "--concurrency", type=click.IntRange(1, 64), default=_WORKERS, help="Workers.")
@pass_session
def demo(session: Session, /, limit: str | None, concurrency: int) -> None:
    """Run sample jobs on an embedded server: fast, slow, failing, delayed, deadly.

    Needs no Redis. Ctrl-C drains: jobs in hand are finished, and nothing is left behind.
    """
    seconds = _seconds(limit)
    logs.set_up(level="warning", form="plain")
    with embedded.start() as server:
        app.connect_to(url=server.url, namespace="resque", ack="primary")
        session.say(f"embedded server at {server.url}")
        session.say(f"one master, {concurrency} workers; Ctrl-C drains")
        given = {"queues": ("demo",), "concurrency": concurrency}
        options = resolve(SupervisorOptions, given=given, environ={})  # its pidfile is no demo's
        with _narrated(server.url, seconds):
            code = supervise(lambda: app, options, pinned="a demo has no newer code")
    session.say("drained; the server is stopped and its directory removed")
    sys.exit(code)


def _seconds(limit: str | None) -> float:
    try:
        return duration(limit) if limit else _FOREVER
    except ValueError:
        raise ConfigError(
            f"--for must be a length of time, got {limit!r}", hint="such as 10s, 2m or 1h"
        ) from None


@contextmanager
def _narrated(url: str, seconds: float) -> Iterator[None]:
    """Have the narrator speak meanwhile; it ends when its standard input does."""
    narrator = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", "forkresque.cli.narrator", str(seconds)],
        stdin=subprocess.PIPE,
        env={**os.environ, variable("redis"): url, variable("namespace"): "resque"},
    )
    try:
        yield
    finally:
        with suppress(BrokenPipeError):
            narrator.communicate(timeout=10)

"""The voice of `forkresque demo`: enqueues sample jobs and prints what becomes of them.

A process of its own, so that the master has no other thread and the demo runs the same master
as `forkresque start`. It ends when its standard input does, and so with the demo.
"""

import json
import os
import select
import signal
import sys
import time

import click

from forkresque.cli.output import visible
from forkresque.cli.sample import EVENTS, app, crash, delayed, failing, fast, slow
from forkresque.errors import ForkresqueError

_ROUND = 6.0  # seconds between two rounds of jobs
_ROUND_SIZE = 500  # fast jobs a round
_LOOK = 0.1  # seconds between two looks for events


def main() -> None:
    """Narrate until standard input ends; after argv[1] seconds, ask the demo to drain."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)  # the demo says when it is over
    started = time.monotonic()
    ends_at = started + float(sys.argv[1])
    next_round, asked = started, False
    while not _over(_LOOK):
        now = time.monotonic()
        try:
            if now >= next_round and not asked:
                next_round = now + _ROUND
                _enqueue()
            _print_events()
        except ForkresqueError as error:
            _line("demo", str(error))
        if now >= ends_at and not asked:
            asked = True
            _line("demo", "time is up, draining")
            os.kill(os.getppid(), signal.SIGTERM)
    _say_goodbye()


def _over(timeout: float) -> bool:
    """Wait a moment; return whether the demo has closed our standard input."""
    ready, _, _ = select.select([sys.stdin], [], [], timeout)
    return bool(ready) and not sys.stdin.readline()


def _enqueue() -> None:
    _line("demo", f"{_ROUND_SIZE} fast jobs, 2 slow, 1 failing, 1 delayed, 1 that kills its worker")
    for number in range(1, _ROUND_SIZE + 1):
        fast.enqueue(number)
    slow.enqueue(1.0)
    slow.enqueue(2.0)
    failing.enqueue(int(time.monotonic()))
    delayed.enqueue_in(2, time.strftime("%H:%M:%S"))
    crash.enqueue(os.urandom(4).hex())


def _print_events() -> None:
    events = app.queue.store.client.command("LPOP", EVENTS, 1000) or []
    for raw in events:
        event = json.loads(raw)
        _line(event["kind"], f"{event['text']} (pid {event['pid']})")


def _say_goodbye() -> None:
    try:
        _print_events()
        counts, failed = app.queue.store.counts(), app.queue.failed_count()
    except ForkresqueError:
        return  # the store is gone already
    _line("demo", f"{counts['processed']} jobs succeeded, {failed} are in the failed list")


def _line(kind: str, text: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')} {kind:8} {visible(text)}")


if __name__ == "__main__":
    main()

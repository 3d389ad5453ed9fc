"""Drain: a full queue is worked off, and what lies between a tenth of its jobs and nine is told.

The queue is full before anybody works, and the span begins when every worker has begun a job, so
start-up is left out. What a contestant's producer has put is kept as the server's dump, so that
the runs that follow need no producer.
"""

import atexit
import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

from bench.harness.contestant import Contestant
from bench.harness.stage import Reading, Span, Stage, between

SINCE, UNTIL = 0.1, 0.9  # the shares of the jobs between which is measured
_LATEST = 0.5  # the share at which the span begins even if a worker has not begun yet


def drain(
    contestant: Contestant, kind: str, jobs: int, *, workers: int, loops: str = "", places: int = 1
) -> Span:
    """Have a full queue worked off, each job exactly once; return the span in its middle.

    See `timed` for `places`.
    """
    environment = {"BENCH_LOOPS": loops} if loops else {}
    stock = _stock(contestant, kind, jobs)
    with Stage(contestant, workers=workers, environment=environment, stock=stock) as stage:
        stage.put_so_far = jobs
        stage.start()
        first = _first(stage, jobs)
        last = stage.await_records(int(jobs * UNTIL))
        stage.await_records(jobs)
        stage.demand_all()
        return timed(between(first, last), first, stage.records().moments(), places=places)


def _first(stage: Stage, jobs: int) -> Reading:
    reading = stage.await_records(int(jobs * SINCE))
    while reading.processes < stage.workers and reading.records < jobs * _LATEST:
        reading = stage.await_records(reading.records + 1)
    return reading


def timed(span: Span, first: Reading, moments: list[int], *, places: int = 1) -> Span:
    """Return the span with its seconds taken from the jobs' own records, not from our looks.

    Jobs that begin together, in so many places, are counted by whole rounds of them.
    """
    counted = max(1, span.records // places) * places
    begun = moments[first.records - 1]
    ended = moments[min(first.records - 1 + counted, len(moments) - 1)]
    return replace(span, seconds=(ended - begun) / 1e9 * span.records / counted)


_kept: dict[tuple[str, str, int], Path] = {}


def _stock(contestant: Contestant, kind: str, jobs: int) -> Path:
    """Return a folder with the dump of a server on which the contestant has put those jobs."""
    what = contestant.name, kind, jobs
    if what not in _kept:
        with Stage(contestant, workers=0) as stage, stage.server.client() as client:
            stage.put(kind, jobs)
            client.save()
            folder = _folder() / str(len(_kept))
            folder.mkdir()
            shutil.copy(stage.server.directory / "dump.rdb", folder)
        _kept[what] = folder
    return _kept[what]


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="forkresque-bench-stock-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder

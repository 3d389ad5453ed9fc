"""What does a reload cost a busy pool?

    python -m bench.reload --full

Eight workers on a queue that never gets empty; each job records when it began and takes 5 ms.
SIGHUP: the new code is checked in a process of its own, takes the master's place, and the workers
are replaced one after another. Told are jobs a second before, during and after, "during" being from
the signal to the last worker's replacement, and the longest time in which no job began. Beside it,
turn by turn, the same seconds without a signal: the gaps that the machine makes by itself.
"""

import os
import signal
import subprocess
import time
from contextlib import suppress
from itertools import pairwise

from bench.harness.ours import ALONE
from bench.harness.question import Plan, Question
from bench.harness.report import Report
from bench.harness.rounds import Spread, interleaved
from bench.harness.stage import RunFailed, Stage
from forkresque.errors import ControlError
from forkresque.supervisor.control import ask, runtime_directory

_STEADY = 2.0  # seconds of steady work before and after
_JOBS = 40_000
_AROUND_NS = 100_000_000
FIELDS = {
    "before": "jobs/s before",
    "during": "during",
    "after": "after",
    "seconds": "seconds",
    "gap_ms": "longest gap, ms",
}


def run(workers: int, *, reloads: bool) -> dict[str, float]:
    """Return what one run tells: rates in jobs a second, times in ms."""
    with Stage(ALONE, workers=workers) as stage, stage.server.client() as client:
        stage.put("work", _JOBS)
        stage.start()
        stage.await_records(workers)
        time.sleep(_STEADY)
        began = time.monotonic_ns()
        ended = _reloaded(stage.processes[0]) if reloads else _waited()
        time.sleep(_STEADY)
        stopped = time.monotonic_ns()
        if not client.llen("resque:queue:bench"):
            raise RunFailed("the queue got empty: more jobs are needed")
        starts = stage.records().moments()
    return _told(starts, began, ended, stopped)


def _reloaded(master: "subprocess.Popen[bytes]") -> int:
    """Reload, and return when the last worker was replaced."""
    path = runtime_directory(os.environ) / f"{master.pid}.sock"
    master.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(ControlError):  # between two images it is deaf
            state = ask(path, "status")
            if {worker["generation"] for worker in state["workers"]} == {2}:
                return time.monotonic_ns()
        time.sleep(0.02)
    raise RunFailed("the reload did not come to an end")


def _waited() -> int:
    time.sleep(1.0)
    return time.monotonic_ns()


def _told(starts: list[int], began: int, ended: int, stopped: int) -> dict[str, float]:
    def rate(since: int, until: int) -> float:
        return sum(since <= start < until for start in starts) / ((until - since) / 1e9)

    around = [start for start in starts if began - _AROUND_NS <= start <= ended + _AROUND_NS]
    gaps = [later - earlier for earlier, later in pairwise(around)]
    before = began - int(_STEADY * 0.75 * 1e9)
    return {
        "before": rate(before, began),
        "during": rate(began, ended),
        "after": rate(ended, stopped),
        "seconds": (ended - began) / 1e9,
        "gap_ms": max(gaps) / 1e6,
    }


def measure(plan: Plan, report: Report) -> None:
    """Run with and without a signal, by turns."""
    for workers in plan.counts(quick=(8,), full=(8,)):

        def once(name: str, workers: int = workers) -> dict[str, float]:
            return run(workers, reloads=name == "HUP")

        rows = []
        for name, runs in interleaved(("none", "HUP"), plan.rounds, once):
            spreads = {field: Spread.of([each[field] for each in runs]) for field in FIELDS}
            rows.append([name, *(spread.told(",.2f") for spread in spreads.values())])
            told = {field: spread.as_json() for field, spread in spreads.items()}
            report.figure("forkresque", workers=workers, signal=name, **told)
        report.table(f"{workers} workers", ["signal", *FIELDS.values()], rows)


QUESTION = Question("reload", "What does a reload cost a busy pool?", measure)

if __name__ == "__main__":
    QUESTION.main()

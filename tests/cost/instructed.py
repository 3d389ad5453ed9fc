"""Does each case again and again, with a mark between: run under callgrind, which counts.

`python -m tests.cost.instructed URL TIMES` says "ready" when all is warm, waits for a line, and
does each case TIMES times and then twice TIMES, so that what the marks themselves cost cancels.
Last comes a worker that drains no-op jobs from the Redis at URL, and marks as much as the cases.
"""

import gc
import os
import sys

from forkresque import aftermath
from forkresque.app import Forkresque
from forkresque.worker import Worker
from tests.cost.cases import Doing, cases

MARK = (
    "getsid"  # a call that nobody makes; callgrind writes down at each what was counted until then
)
WARM = 30  # times, in which caches are filled and code is specialised
A_JOB = "a worker's no-op job"


def mark() -> None:
    os.getsid(0)


def repeated(run: Doing, times: int) -> None:
    mark()
    for _ in range(times):
        run()
    mark()
    for _ in range(2 * times):
        run()
    mark()


def jobs_wanted(times: int) -> int:
    """Return how many jobs there must be for a worker."""
    return WARM + 3 * times + 2  # the last ones are not counted


def drain(url: str, times: int) -> None:
    """Be a worker until all jobs are done; the job itself marks."""
    app = Forkresque(url)
    aftermath._LONG_NS = 10**12  # a job under callgrind takes long
    marks, last = {WARM, WARM + times, WARM + 3 * times}, jobs_wanted(times)
    done = 0

    @app.job("noop", queue="cost")
    def noop() -> None:
        nonlocal done
        done += 1
        if done in marks:
            mark()
        if done == last:
            worker.stop()

    worker = Worker(url, app.jobs, queues=("cost",))
    worker.run()


def main() -> None:
    url, times = sys.argv[1], int(sys.argv[2])
    found = cases()
    for run in found.values():
        for _ in range(WARM):
            run()
    gc.collect()
    gc.freeze()
    gc.disable()
    print("ready", flush=True)
    sys.stdin.readline()
    for run in found.values():
        repeated(run, times)
    drain(url, times)


if __name__ == "__main__":
    main()

"""A program with a MultiWorker, for the tests of the suite that needs one.

`python -m tests.conformance.pool idle 2` has a pool of one to four workers for two seconds after it
has had the most, or has told of a failure, if that is what its jobs are for. It prints how many
workers it wanted, look by look. It runs in a process of its own, because a MultiWorker forks, and
may not do so beside the threads of a test runner.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import NoReturn

from redis import Redis

from forkresque import Forkresque, MultiWorker

MOST = 4
_EVERY = 0.05
_PATIENCE = 12.0

app = Forkresque()


@app.job("sleeping", queue="q")
def sleeping() -> None:
    """Take time, and no processor."""
    time.sleep(0.3)


@app.job("spinning", queue="q")
def spinning() -> None:
    """Take all of a processor for a while."""
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass


@app.job("failing", queue="q")
def failing(_mark: str) -> NoReturn:
    """Fail."""
    raise ValueError("BUSTED")


def tell(*told: object) -> None:
    """Put what a listener heard where the test looks: the listener is in a worker."""
    with Redis.from_url(app.url) as client:
        client.rpush("told", json.dumps(told, default=str))


def main() -> None:
    """Have a pool for a while, and print its sizes."""
    case, seconds = sys.argv[1], float(sys.argv[2])
    if case == "spinning":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if case != "idle":
        for _ in range(200):
            app.queue.enqueue("q", case, ["mark"] if case == "failing" else [])
    app.queue.end()
    pool = MultiWorker(app, queues=["q"], min=1, max=MOST, shutdown_timeout=1.0)
    pool.on("failure", tell)
    with pool:
        sizes = list(looks(pool, seconds, case))
    print(json.dumps(sizes))


def looks(pool: MultiWorker, seconds: float, case: str) -> Iterator[int]:
    """Yield how many workers are wanted, until what the jobs are for has been seen, and longer."""
    patience = time.monotonic() + _PATIENCE
    end = 0.0
    with Redis.from_url(app.url) as client:
        while not end or time.monotonic() < end:
            wanted: int = pool.status()["wanted"]
            yield wanted
            seen = {"sleeping": wanted == MOST, "failing": bool(client.exists("told"))}
            if not end and (seen.get(case, True) or time.monotonic() > patience):
                end = time.monotonic() + seconds
            time.sleep(_EVERY)


if __name__ == "__main__":
    main()

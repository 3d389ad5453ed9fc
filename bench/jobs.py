"""The jobs that the bench scripts have performed, as an application: `-A bench.jobs`.

Moments are `time.monotonic_ns()`, which all processes of one machine share.
"""

import os
import time
from functools import cache

import redis

from forkresque import Forkresque

QUEUE = "bench"
RESULTS = "bench:results"

app = Forkresque(os.environ.get("BENCH_REDIS"))


@cache
def client() -> "redis.Redis":
    """Return this process' connection for results; opened after the moment is taken."""
    return redis.Redis.from_url(os.environ["BENCH_REDIS"])


@app.job("noop", queue=QUEUE)
def noop() -> None:
    pass


@app.job("stamp", queue=QUEUE)
def stamp(sent_ns: int, hold: float) -> None:
    """Tell how long after `sent_ns` this began, and keep the worker for `hold` seconds."""
    began_ns = time.monotonic_ns()
    if hold:
        time.sleep(hold)
    client().rpush(RESULTS, began_ns - sent_ns)


@app.job("note", queue=QUEUE)
def note(path: str) -> None:
    """Add the moment at which this began to a file; cheaper than a question to Redis."""
    began_ns = time.monotonic_ns()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, b"%d\n" % began_ns)
    os.close(file)


@app.job("work", queue=QUEUE)
def work(path: str, hold: float) -> None:
    """Note the moment, and take `hold` seconds."""
    note(path)
    time.sleep(hold)


@app.job("last", queue=QUEUE)
def last(seconds: float) -> None:
    """Tell when this began, take `seconds`, and tell when it ended."""
    client().rpush(RESULTS, time.monotonic_ns())
    time.sleep(seconds)
    client().rpush(RESULTS, time.monotonic_ns())


@app.job("victim", queue=QUEUE)
def victim(number: int) -> None:
    """Tell when and where this began. The first time, wait to be killed."""
    began_ns = time.monotonic_ns()
    first = client().incr(f"bench:victim:{number}") == 1
    client().rpush(RESULTS, f"{os.getpid()} {began_ns}")
    if first:
        time.sleep(60)

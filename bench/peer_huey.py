"""Huey's side of throughput.py, run by --peer-python: fill the queue with COUNT no-ops."""

import os

from huey import RedisHuey

huey = RedisHuey("bench", url=os.environ["BENCH_REDIS"])


@huey.task(name="noop")  # type: ignore[untyped-decorator]
def noop() -> None:
    pass


def fill(count: int) -> None:
    """Enqueue one at a time: Huey has no call for many."""
    for _ in range(count):
        noop()

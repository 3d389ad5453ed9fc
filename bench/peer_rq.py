"""RQ's side of throughput.py, run by --peer-python: fill the queue with COUNT no-ops."""

import os

import redis
from rq import Queue


def noop() -> None:
    pass


def fill(count: int) -> None:
    """Enqueue in bulk, a thousand at a time."""
    queue = Queue("bench", connection=redis.Redis.from_url(os.environ["BENCH_REDIS"]))
    for start in range(0, count, 1000):
        size = min(1000, count - start)
        queue.enqueue_many([Queue.prepare_data("bench.peer_rq.noop") for _ in range(size)])

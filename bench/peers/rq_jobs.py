"""RQ's jobs are functions by their path; this is its producer. BENCH_RQ=retry has them retried."""

import os
from collections.abc import Sequence

from redis import Redis
from rq import Queue, Retry

from bench.peers.kinds import KINDS, QUEUE
from bench.peers.producing import produce

queue = Queue(QUEUE, connection=Redis.from_url(os.environ["BENCH_REDIS"]))
_PORTION = 1000
_RETRY = Retry(max=3) if os.environ.get("BENCH_RQ") == "retry" else None


def put(kind: str, number: int) -> None:
    queue.enqueue(KINDS[kind], number, retry=_RETRY)


def put_many(kind: str, numbers: Sequence[int]) -> None:
    for first in range(0, len(numbers), _PORTION):
        portion = numbers[first : first + _PORTION]
        queue.enqueue_many(
            [Queue.prepare_data(KINDS[kind], (each,), retry=_RETRY) for each in portion]
        )


if __name__ == "__main__":
    produce(put, put_many)

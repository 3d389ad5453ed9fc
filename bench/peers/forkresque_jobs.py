"""forkresque's jobs, and its producer."""

import os
from collections.abc import Sequence

from bench.peers.kinds import KINDS, QUEUE
from bench.peers.producing import produce
from forkresque import Forkresque

app = Forkresque(os.environ.get("BENCH_REDIS"))
for name, function in KINDS.items():
    app.job(name, queue=QUEUE)(function)


def put(kind: str, number: int) -> None:
    app.queue.enqueue(QUEUE, kind, [number])


def put_many(kind: str, numbers: Sequence[int]) -> None:
    app.queue.bulk((QUEUE, kind, [number]) for number in numbers)


if __name__ == "__main__":
    produce(put, put_many)

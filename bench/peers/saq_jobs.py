"""SAQ's functions, its worker's settings, and its producer."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from saq import Queue

from bench.peers.kinds import ASYNC_KINDS, QUEUE
from bench.peers.producing import produce_async

queue = Queue.from_url(os.environ["BENCH_REDIS"], name=QUEUE)


def _of(function: Callable[[int], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def call(_context: Any, *, number: int) -> None:
        await function(number)

    return call


settings = {
    "queue": queue,
    "functions": [(name, _of(function)) for name, function in ASYNC_KINDS.items()],
    "concurrency": 10,
}


async def put(kind: str, number: int) -> None:
    await queue.enqueue(kind, number=number, ttl=-1)


async def main() -> None:
    await produce_async(put)
    await queue.disconnect()


if __name__ == "__main__":
    asyncio.run(main())

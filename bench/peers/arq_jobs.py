"""arq's functions, its worker's settings, and its producer."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

from arq import create_pool, func
from arq.connections import RedisSettings

from bench.peers.kinds import ASYNC_KINDS
from bench.peers.producing import produce_async

REDIS = RedisSettings.from_dsn(os.environ["BENCH_REDIS"])

logging.getLogger("arq.worker").setLevel(logging.WARNING)  # else it logs two lines a job


def _of(function: Callable[[int], Awaitable[None]]) -> Callable[[Any, int], Awaitable[None]]:
    async def call(_context: Any, number: int) -> None:
        await function(number)

    return call


class WorkerSettings:
    functions = tuple(
        func(_of(function), name=name, keep_result=0) for name, function in ASYNC_KINDS.items()
    )
    redis_settings = REDIS
    max_jobs, poll_delay = (100, 0.01) if os.environ.get("BENCH_ARQ") == "eager" else (10, 0.5)


async def main() -> None:
    pool = await create_pool(REDIS)
    await produce_async(pool.enqueue_job)
    await pool.aclose()


if __name__ == "__main__":
    asyncio.run(main())

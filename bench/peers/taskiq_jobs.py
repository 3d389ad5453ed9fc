"""taskiq's tasks, and its producer.

redis-py 8 gives up reading after 5 s unless told otherwise, and the broker's BRPOP waits for
ever: without `socket_timeout=None` idle workers crash every 5 s.
"""

import asyncio
import os

from taskiq_redis import ListQueueBroker

from bench.peers.kinds import ASYNC_KINDS, QUEUE
from bench.peers.producing import produce_async

broker = ListQueueBroker(os.environ["BENCH_REDIS"], queue_name=QUEUE, socket_timeout=None)
tasks = {name: broker.task(task_name=name)(function) for name, function in ASYNC_KINDS.items()}


async def put(kind: str, number: int) -> None:
    await tasks[kind].kiq(number)


async def main() -> None:
    await broker.startup()
    await produce_async(put)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main())

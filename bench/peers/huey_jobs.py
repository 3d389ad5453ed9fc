"""Huey's tasks, and its producer."""

import os

from huey import RedisHuey

from bench.peers.kinds import KINDS, QUEUE
from bench.peers.producing import produce

huey = RedisHuey(QUEUE, url=os.environ["BENCH_REDIS"], results=False)
tasks = {name: huey.task(name=name)(function) for name, function in KINDS.items()}


def put(kind: str, number: int) -> None:
    tasks[kind](number)


if __name__ == "__main__":
    produce(put)

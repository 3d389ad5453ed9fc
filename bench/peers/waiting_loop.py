"""The least a wake-up can cost: processes that stand in BLPOP and run what they get.

Not a product: a job that it takes is lost if it dies then. Resque's own keys, so that
forkresque's producer feeds it.

    python -m bench.peers.waiting_loop
"""

import os
from typing import Any

import redis

from bench.peers.kinds import QUEUE
from bench.peers.limit_loop import perform


def main() -> None:
    client = redis.Redis.from_url(os.environ["BENCH_REDIS"], socket_timeout=None)
    while True:
        answer: Any = client.blpop([f"resque:queue:{QUEUE}"], timeout=0)
        perform(answer[1])


if __name__ == "__main__":
    main()

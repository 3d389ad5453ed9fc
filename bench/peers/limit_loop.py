"""The bare loop: what a prefork of one script call a job reaches when it is spared all else.

Not a product. Each process pops a job and writes it down in one script, on redis-py's
`Connection` with hiredis and a command packed once, and runs it. There is no slot, no token, no
registration, no signal, no restart: a killed process takes its job along. With "full", a
timeout is armed for each job and a line is logged. Resque's own keys, so that forkresque's
producer feeds it.

    python -m bench.peers.limit_loop WORKERS bare|full
"""

import json
import logging
import os
import signal
import sys
import time
from typing import Any, NoReturn

from redis.connection import Connection
from redis.utils import HIREDIS_AVAILABLE

from bench.peers.kinds import KINDS, QUEUE

POP_AND_RECORD = """
local job = redis.call("LPOP", KEYS[1])
if not job then
  redis.call("DEL", KEYS[2])
  return false
end
redis.call("SET", KEYS[2], ARGV[1] .. job .. "}")
redis.call("INCR", KEYS[3])
redis.call("INCR", KEYS[4])
return job
"""
_REST = 0.005  # seconds between two looks at an empty queue

log = logging.getLogger("bench.limit")


def work(url: str, *, full: bool) -> NoReturn:
    """Pop and run jobs for ever."""
    connection, packed = connected(url)
    while True:
        connection.send_packed_command(packed, check_health=False)
        raw = connection.read_response()
        if raw is None:
            time.sleep(_REST)
            continue
        if full:
            perform_in_full(raw)
        else:
            perform(raw)


def connected(url: str) -> tuple[Any, list[bytes]]:
    """Return a connection, and the command that pops a job and writes down who has it."""
    host, _, port = url.removeprefix("redis://").partition("/")[0].partition(":")
    of_redis: Any = Connection  # which has no types
    connection = of_redis(host=host, port=int(port), protocol=2, socket_timeout=None)
    connection.connect()
    connection.send_command("SCRIPT", "LOAD", POP_AND_RECORD)
    digest = connection.read_response()
    worker = f"limit:{os.getpid()}"
    keys = [f"resque:queue:{QUEUE}", f"resque:worker:{worker}:{QUEUE}"]
    keys += ["resque:stat:processed", f"resque:stat:processed:{worker}"]
    record = f'{{"queue":"{QUEUE}","run_at":"2026-11-24T00:00:00Z","payload":'
    return connection, connection.pack_command("EVALSHA", digest, len(keys), *keys, record)


def perform(raw: bytes) -> None:
    """Run one job."""
    job = json.loads(raw)
    KINDS[job["class"]](*job["args"])


def perform_in_full(raw: bytes) -> None:
    """Run one job under a time limit, and log it."""
    signal.setitimer(signal.ITIMER_REAL, 30.0)
    perform(raw)
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    log.info("done job=%s", raw)


def main() -> None:
    """Fork the workers and wait for them."""
    workers, mode = int(sys.argv[1]), sys.argv[2]
    if not HIREDIS_AVAILABLE:
        raise SystemExit("the limit is measured with hiredis")
    logging.basicConfig(level=logging.INFO, filename=os.devnull, format="%(asctime)s %(message)s")
    children = []
    for _ in range(workers):
        pid = os.fork()
        if not pid:
            work(os.environ["BENCH_REDIS"], full=mode == "full")
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()

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
from collections.abc import Iterator
from typing import Any

from redis.connection import Connection
from redis.utils import HIREDIS_AVAILABLE

from bench.peers.classic_script import CLASSIC
from bench.peers.kinds import KINDS, QUEUE
from forkresque.protocol.canonical import encode
from forkresque.protocol.claims import WorkerId
from forkresque.protocol.keys import Keys
from forkresque.protocol.payload import record_head
from forkresque.protocol.script import Call

_REST = 0.005  # seconds between two looks at an empty queue

log = logging.getLogger("bench.limit")


def work(url: str, *, full: bool) -> None:
    """Pop and run jobs for ever."""
    run = perform_in_full if full else perform
    for raw in popped(url):
        run(raw)


def popped(url: str) -> Iterator[bytes]:
    """Yield jobs for ever; a job is counted as done when the next one is asked for."""
    host, _, port = url.removeprefix("redis://").partition("/")[0].partition(":")
    of_redis: Any = Connection  # which has no types
    connection = of_redis(host=host, port=int(port), protocol=2, socket_timeout=None)
    connection.connect()
    uncounted, counting = (_packed(done) for done in "01")
    connection.send_packed_command([uncounted.by_source])  # which loads the script for the rest
    raw = connection.read_response()
    first, next_one = [uncounted.by_digest], [counting.by_digest]
    while True:
        if raw is not None:
            yield raw
        else:
            time.sleep(_REST)
        connection.send_packed_command(first if raw is None else next_one, check_health=False)
        raw = connection.read_response()


def _packed(done: str) -> Call:
    worker, keys = WorkerId("limit", os.getpid(), (QUEUE,)), Keys("resque")
    return CLASSIC.pack(
        record=keys.worker(str(worker)),
        processed=keys.stat("processed"),
        processed_by=keys.stat("processed", worker.name),
        list=[keys.queue(QUEUE)],
        done=done,
        head=record_head(worker.name, int(time.time())),
        label=encode(QUEUE),
    )


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

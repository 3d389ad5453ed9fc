"""How long after enqueue does a job start, in an idle pool of eight?

    python bench/latency.py

Single jobs: enqueue to the job's first line, in ms, 300 times, and beside it, turn by turn, the
same for a bare process that stands in BLPOP on a queue of its own. Bursts: eight jobs arrive in
one RPUSH and each keeps its worker for 50 ms; when has the k-th of the eight started? Beside it
eight bare processes. Both sides are sent by the same call, so that only waiting differs. The
clock is CLOCK_MONOTONIC, which all processes share, read before the sending.

2026-11-24, 2 cores (AMD EPYC, KVM), Python 3.11.7, redis-py 8.1.0, Redis 7.0.15;
shared machine, load average 3.8. Single jobs p50 / p99 / max: forkresque 0.68 / 1.31 / 1.39 ms,
bare 0.34 / 0.60 / 0.72. Bursts, the 1st / 4th / 8th: 1.12 / 2.36 / 4.03 ms, bare 0.63 / 0.98 /
1.38.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any

import redis

from bench import jobs, support
from forkresque.protocol.payload import encode_job
from tests.support.servers import Server

WORKERS = 8
HOLD = 0.05  # seconds a job of a burst keeps its worker
BARE = "bare"


def bare(url: str) -> None:
    """Be a process that does nothing but wait, and tell when it was woken."""
    import json

    client = redis.Redis.from_url(url, socket_timeout=None)
    while True:
        answer: Any = client.blpop([f"resque:queue:{BARE}"], timeout=0)
        began_ns = time.monotonic_ns()
        sent_ns, hold = json.loads(answer[1])["args"]
        if hold:
            time.sleep(hold)
        client.rpush(jobs.RESULTS, began_ns - sent_ns)


@contextmanager
def pools(server: Server, url: str, workers: int) -> Iterator["redis.Redis"]:
    """Run a pool of forkresque and as many bare processes; yield a client."""
    with ExitStack() as stack:
        client = stack.enter_context(server.client())
        client.sadd("resque:queues", jobs.QUEUE, BARE)
        stack.enter_context(support.running(support.start_command(workers), url))
        argv = [sys.executable, __file__, "--bare"]
        for _ in range(workers):
            stack.enter_context(support.running(argv, url))
        support.wait_for_pool(client, workers)
        while int(client.info("clients")["blocked_clients"]) < workers:
            time.sleep(0.05)
        for queue in (jobs.QUEUE, BARE):  # each opens its connection for results
            send(client, queue, workers, hold=0.2)
            results(client, workers)
        yield client


def send(client: "redis.Redis", queue: str, count: int, *, hold: float) -> None:
    """Send `count` jobs in one command."""
    raw = encode_job(queue, "stamp", [time.monotonic_ns(), hold])
    client.rpush(f"resque:queue:{queue}", *[raw] * count)


def results(client: "redis.Redis", count: int) -> list[float]:
    """Wait for the delays of `count` jobs, in ms, the shortest first."""
    found: list[float] = []
    while len(found) < count:
        answer: Any = client.blpop([jobs.RESULTS], timeout=10)
        if answer is None:
            raise SystemExit(f"{count - len(found)} of {count} jobs did not run in 10 s")
        found.append(int(answer[1]) / 1e6)
    return sorted(found)


def singles(client: "redis.Redis", count: int) -> None:
    """Measure and print single jobs, one of each kind in turn."""
    enqueue = jobs.app.queue.enqueue
    enqueue(jobs.QUEUE, "stamp", [time.monotonic_ns(), 0])  # opens its connection
    results(client, 1)
    delays: dict[str, list[float]] = {
        "forkresque": [],
        "bare BLPOP": [],
        "forkresque, Queue.enqueue": [],
    }
    for _ in range(count):
        for name, queue in (("forkresque", jobs.QUEUE), ("bare BLPOP", BARE)):
            send(client, queue, 1, hold=0)
            delays[name] += results(client, 1)
            time.sleep(0.01)
        enqueue(jobs.QUEUE, "stamp", [time.monotonic_ns(), 0])
        delays["forkresque, Queue.enqueue"] += results(client, 1)
        time.sleep(0.01)
    pairs = zip(delays["forkresque"], delays["bare BLPOP"], strict=True)
    print(f"single jobs, ms ({count} of each, in turn)")
    rows = [[name, *support.quantiles(values)] for name, values in delays.items()]
    support.table(["", "min", "p50", "p99", "max"], rows)
    print(f"forkresque - bare, paired: median {median(a - b for a, b in pairs):+.3f} ms\n")


def bursts(client: "redis.Redis", count: int, workers: int) -> None:
    """Measure and print bursts, one of each kind in turn."""
    starts: dict[str, list[list[float]]] = {"forkresque": [], "bare BLPOP": []}
    for _ in range(count):
        for name, queue in (("forkresque", jobs.QUEUE), ("bare BLPOP", BARE)):
            send(client, queue, workers, hold=HOLD)
            starts[name].append(results(client, workers))
            time.sleep(0.03)
    print(f"bursts of {workers}: ms until the k-th has started, median of {count}")
    rows = []
    for name, bursts_of_it in starts.items():
        ranks = list(zip(*bursts_of_it, strict=True))
        rows.append([name, *[f"{median(rank):.2f}" for rank in ranks], f"{max(ranks[-1]):.2f}"])
    head = ["", *[f"k={k}" for k in range(1, workers + 1)], f"worst k={workers}"]
    support.table(head, rows)


def main() -> None:
    """Run and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--singles", type=int, default=300, help="single jobs (300)")
    parser.add_argument("--bursts", type=int, default=30, help="bursts (30)")
    parser.add_argument("--workers", type=int, default=WORKERS, help="workers (8)")
    parser.add_argument("--unix", action="store_true", help="over a Unix socket, not TCP")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        bare(os.environ["BENCH_REDIS"])
    support.preamble("From enqueue to the job's first line, idle pool")
    with support.server() as server:
        url = server.url if options.unix else f"{server.tcp_url}/0"
        jobs.app.connect_to(url=url)
        with pools(server, url, options.workers) as client:
            singles(client, options.singles)
            bursts(client, options.bursts, options.workers)


if __name__ == "__main__":
    main()

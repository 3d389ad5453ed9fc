"""How long after its worker is killed does a job run again?

    python bench/recovery.py

A job tells where and when it began and waits; its worker gets SIGKILL; the time from the kill
to the first line of the second run, 200 times. With four workers another one stands by; with
one, the job waits for the replacement: the master's fork, its connection and its claim. Every
kill must bring exactly one second run.

2026-11-24, 2 cores (AMD EPYC, KVM), Python 3.11.7, redis-py 8.1.0, Redis 7.0.15;
shared machine, load average 3.2. p50 / p99 / max in ms: four workers 7.5 / 13.1 / 15.2, one
worker 13.8 / 19.8 / 22.5.
"""

import argparse
import os
import signal
import time
from typing import Any

import redis

from bench import jobs, support
from tests.support.servers import Server


def recoveries(server: Server, workers: int, kills: int) -> list[float]:
    """Return how many ms each recovery took."""
    found = []
    with server.client() as client:
        client.flushall()
        with support.running(support.start_command(workers), f"{server.tcp_url}/0"):
            support.wait_for_pool(client, workers)
            for number in range(kills):
                support.fill(client, "victim", 1, number)
                pid, _ = _began(client)
                time.sleep(0.02)
                killed_ns = time.monotonic_ns()
                os.kill(pid, signal.SIGKILL)
                _, began_ns = _began(client)
                found.append((began_ns - killed_ns) / 1e6)
                _whole_again(client, workers)
            runs = {int(client.get(f"bench:victim:{n}") or 0) for n in range(kills)}
            left = int(client.llen(support.QUEUE_KEY)) + int(client.llen("resque:failed"))
    if runs != {2} or left:
        raise SystemExit(f"each job should run twice; some ran {runs} times, {left} are left")
    return found


def _began(client: "redis.Redis") -> tuple[int, int]:
    answer: Any = client.blpop([jobs.RESULTS], timeout=20)
    if answer is None:
        raise SystemExit("the job did not run in 20 s")
    pid, began_ns = answer[1].split()
    return int(pid), int(began_ns)


def _whole_again(client: "redis.Redis", workers: int) -> None:
    deadline = time.monotonic() + 20
    while int(client.scard("resque:workers")) != workers:
        if time.monotonic() > deadline:
            raise SystemExit("the dead worker was not replaced in 20 s")
        time.sleep(0.005)
    time.sleep(0.02)


def main() -> None:
    """Run and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=200, help="kills for each count (200)")
    parser.add_argument("--workers", default="4,1", help="worker counts (4,1)")
    options = parser.parse_args()
    support.preamble("From SIGKILL to the job's second run, ms")
    rows = []
    with support.server() as server:
        for workers in map(int, options.workers.split(",")):
            found = recoveries(server, workers, options.kills)
            rows.append([str(workers), str(len(found)), *support.quantiles(found, ".1f")])
    print("every job ran exactly twice, and none is left\n")
    support.table(["workers", "kills", "min", "p50", "p99", "max"], rows)


if __name__ == "__main__":
    main()

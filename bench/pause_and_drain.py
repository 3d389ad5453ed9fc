"""How fast do pause, stop, start and drain take effect?

    python bench/pause_and_drain.py

Pause: with a queue that never gets empty, SIGUSR1 to the master; until when do jobs begin (the
last job's first line minus the signal; 0 if none came after it)? Stop: SIGTERM to an idle pool
until the master has exited. Start: from spawning `forkresque start` to the first line of a job
that waits, with an application that imports nothing but forkresque and redis; beside it, turn
by turn, a Python that imports both and does nothing. Drain: SIGTERM 0.3 s into a job of 2 s;
the master's exit minus the job's end.

2026-11-24, 2 cores (AMD EPYC, KVM), Python 3.11.7, redis-py 8.1.0, Redis 7.0.15;
shared machine, load average 4.6. Eight workers, p50 / max in ms: pause 0.8 / 2.9, stop 26 / 34,
first job 249 / 267 (Python alone 124 / 130), drain 23 / 24.
"""

import argparse
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import redis

from bench import jobs, support
from tests.support.servers import Server

_STORM = 20_000  # jobs that a pause meets


def pauses(server: Server, url: str, workers: int, count: int) -> list[float]:
    """Return how many ms after SIGUSR1 the last job began, `count` times."""
    found = []
    with tempfile.TemporaryDirectory() as folder, server.client() as client:
        client.flushall()
        path = Path(folder) / "starts"
        with support.running(support.start_command(workers), url) as master:
            support.wait_for_pool(client, workers)
            for _ in range(count):
                path.unlink(missing_ok=True)
                support.fill(client, "note", _STORM, str(path))
                time.sleep(0.3)
                signalled_ns = time.monotonic_ns()
                master.send_signal(signal.SIGUSR1)
                time.sleep(0.3)
                starts = [int(line) for line in path.read_text().splitlines()]
                before = sum(start <= signalled_ns for start in starts)
                if not before or not client.llen(support.QUEUE_KEY):
                    raise SystemExit("the storm was over, or had not begun, at the signal")
                found.append(max(0, max(starts) - signalled_ns) / 1e6)
                client.delete(support.QUEUE_KEY)
                master.send_signal(signal.SIGCONT)
                time.sleep(0.1)
    return found


def stops(server: Server, url: str, workers: int, count: int) -> list[float]:
    """Return how many ms an idle pool takes to exit after SIGTERM, `count` times."""
    found = []
    with server.client() as client:
        for _ in range(count):
            client.flushall()
            with support.running(support.start_command(workers), url) as master:
                support.wait_for_pool(client, workers)
                signalled_ns = time.monotonic_ns()
                found.append((_stop(master) - signalled_ns) / 1e6)
    return found


def _stop(master: "subprocess.Popen[bytes]") -> int:
    """Send SIGTERM, and return the moment of the exit. `Popen.wait` would look every 50 ms."""
    pidfd = os.pidfd_open(master.pid)
    master.send_signal(signal.SIGTERM)
    select.select([pidfd], [], [], 20)
    now_ns = time.monotonic_ns()
    os.close(pidfd)
    if code := master.wait(1):
        raise SystemExit(f"the master exited with {code}")
    return now_ns


def starts(server: Server, url: str, workers: int, count: int) -> tuple[list[float], list[float]]:
    """Return how many ms pass until a waiting job begins, and until a bare Python has ended."""
    ours, bare = [], []
    with server.client() as client:
        for _ in range(count):
            client.flushall()
            support.fill(client, "last", 1, 0)
            began_ns = time.monotonic_ns()
            with _unguarded(support.start_command(workers), url):
                ours.append((_result(client) - began_ns) / 1e6)
            began_ns = time.monotonic_ns()
            with _unguarded([sys.executable, "-c", "import redis, forkresque"], url) as process:
                process.wait()
                bare.append((time.monotonic_ns() - began_ns) / 1e6)
    return ours, bare


@contextmanager
def _unguarded(argv: list[str], url: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command without the launcher in front of it, which is an interpreter more."""
    process = subprocess.Popen(argv, cwd=support.ROOT, env=support.environment(url))
    try:
        yield process
    finally:
        support.end(process)


def drains(server: Server, url: str, workers: int, count: int) -> list[float]:
    """Return how many ms after the end of its last job a master exits, `count` times."""
    found = []
    with server.client() as client:
        for _ in range(count):
            client.flushall()
            with support.running(support.start_command(workers), url) as master:
                support.wait_for_pool(client, workers)
                support.fill(client, "last", 1, 2.0)
                _result(client)
                time.sleep(0.3)
                exited_ns = _stop(master)
                found.append((exited_ns - _result(client)) / 1e6)
    return found


def _result(client: "redis.Redis") -> int:
    answer: Any = client.blpop([jobs.RESULTS], timeout=20)
    if answer is None:
        raise SystemExit("the job did not run in 20 s")
    return int(answer[1])


def main() -> None:
    """Run and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=20, help="pauses; the rest in proportion")
    parser.add_argument("--workers", default="2,8", help="worker counts (2,8)")
    options = parser.parse_args()
    support.preamble("Pause, stop, start and drain, ms")
    rows = []
    with support.server() as server:
        url = f"{server.tcp_url}/0"
        for workers in map(int, options.workers.split(",")):
            ours, bare = starts(server, url, workers, options.rounds // 2)
            measured = {
                "SIGUSR1 to the last start": pauses(server, url, workers, options.rounds),
                "idle: SIGTERM to exit": stops(server, url, workers, options.rounds // 2),
                "start to the first job": ours,
                "a bare Python with imports": bare,
                "drain: end of the job to exit": drains(server, url, workers, options.rounds // 4),
            }
            rows += [
                [name, str(workers), str(len(values)), *support.quantiles(values, ".1f")]
                for name, values in measured.items()
            ]
            ratio = median(a / b for a, b in zip(ours, bare, strict=True))
            print(f"{workers} workers: first job after {ratio:.2f} x a bare Python (paired)")
    print(f"load average after: {os.getloadavg()[0]:.2f}\n")
    support.table(["", "workers", "runs", "min", "p50", "p99", "max"], rows)


if __name__ == "__main__":
    main()

"""How many no-op jobs a second, with 1, 2, 4 and 8 workers, beside RQ and Huey?

    python bench/throughput.py --peers rq,huey --peer-python /path/to/venv/bin/python

The queue is filled first, then the workers start. The rate is that between 10 % and 90 % of the
jobs: for forkresque by `stat:processed`, for the peers by the length of their queue. One round
runs every contestant once, and rounds repeat, so that a disturbance meets all; ratios are taken
within a round. CPU is that of the whole process tree, Redis' own beside it.

2026-11-24, 2 cores (AMD EPYC, KVM), Python 3.11.7, redis-py 8.1.0, Redis 7.0.15, RQ 3.0.0
and Huey 3.5.4 with hiredis; shared machine, load average 2.6 to 4.2, noisy (README.md):

    workers                 1        2        4        8
    forkresque          6,166   10,411   12,730   13,638
    over a Unix socket  6,436   12,213   13,891   12,768
    Huey                4,175    5,873    6,658    6,651
    RQ SimpleWorker       388      574      633      603
    RQ                     84      117      132       76
    forkresque / Huey     2.0      2.0      2.0      1.9   (paired)
"""

import argparse
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import redis

from bench import support
from tests.support.servers import Server

_LIMIT = 90.0  # seconds for one run


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who competes: how its queue is filled, what runs, and how many jobs are done."""

    name: str
    jobs: int
    fill: Callable[[Server, int], None]
    argv: Callable[[int], list[str]]
    done: Callable[["redis.Redis", int], int]
    tcp: bool = True


@dataclass(frozen=True, slots=True)
class Result:
    """One run."""

    rate: float
    worker_us: float  # CPU of the process tree, per job
    redis_us: float  # CPU of the server, per job


def forkresque(*, tcp: bool, jobs: int) -> Contestant:
    """Return forkresque, over loopback TCP or over a Unix socket."""

    def fill(server: Server, count: int) -> None:
        with server.client() as client:
            support.fill(client, "noop", count)

    return Contestant(
        "forkresque" if tcp else "forkresque unix",
        jobs,
        fill,
        support.start_command,
        lambda client, _jobs: int(client.get(support.PROCESSED) or 0),
        tcp,
    )


def rq(python: Path, *, simple: bool, jobs: int) -> Contestant:
    """Return RQ with its default worker, which forks for each job, or with SimpleWorker."""
    kind = ["-w", "rq.worker.SimpleWorker"] if simple else []
    return Contestant(
        "rq SimpleWorker" if simple else "rq",
        jobs,
        lambda server, count: _fill_peer(python, "bench.peer_rq", server, count),
        lambda workers: [
            *(str(python.parent / "rq"), "worker-pool", "bench", "-n", str(workers)),
            *("-q", "-l", "ERROR", "-b", *kind),
        ],
        lambda client, jobs: jobs - int(client.llen("rq:queue:bench")),
    )


def huey(python: Path, *, jobs: int) -> Contestant:
    """Return Huey with process workers."""
    return Contestant(
        "huey",
        jobs,
        lambda server, count: _fill_peer(python, "bench.peer_huey", server, count),
        lambda workers: [
            *(str(python.parent / "huey_consumer"), "bench.peer_huey.huey"),
            *("-k", "process", "-w", str(workers), "-q", "-n"),
        ],
        lambda client, jobs: jobs - int(client.llen("huey.redis.bench")),
    )


def _fill_peer(python: Path, module: str, server: Server, count: int) -> None:
    subprocess.run(
        [str(python), "-c", f"from {module} import fill; fill({count})"],
        cwd=support.ROOT,
        env=support.environment(f"{server.tcp_url}/0"),
        check=True,
        timeout=_LIMIT,
    )


def run(contestant: Contestant, workers: int) -> Result:
    """Fill a fresh server, drain it, and measure the middle of the drain."""
    with support.server() as server, server.client() as client:
        contestant.fill(server, contestant.jobs)
        url = f"{server.tcp_url}/0" if contestant.tcp else server.url
        with support.running(contestant.argv(workers), url) as process:
            first = _reached(contestant, client, 0.1)
            before = _cpu(process.pid, server)
            last = _reached(contestant, client, 0.9)
            after = _cpu(process.pid, server)
    jobs = last[1] - first[1]
    rate = jobs / (last[0] - first[0])
    return Result(rate, *((b - a) / jobs * 1e6 for a, b in zip(before, after, strict=True)))


def _reached(contestant: Contestant, client: "redis.Redis", share: float) -> tuple[float, int]:
    """Wait until `share` of the jobs are done; return the moment and how many are."""
    deadline = time.monotonic() + _LIMIT
    while time.monotonic() < deadline:
        done = contestant.done(client, contestant.jobs)
        if done >= share * contestant.jobs:
            return time.monotonic(), done
        time.sleep(0.01)
    raise SystemExit(f"{contestant.name}: {share:.0%} of the jobs not done in {_LIMIT:g} s")


def _cpu(pid: int, server: Server) -> tuple[float, float]:
    return support.cpu_seconds(pid), support.cpu_seconds(server.process.pid)


def contestants(options: argparse.Namespace) -> list[Contestant]:
    """Return who was asked for, forkresque first."""
    found = [forkresque(tcp=True, jobs=options.jobs), forkresque(tcp=False, jobs=options.jobs)]
    peers = [name for name in options.peers.split(",") if name]
    if peers and not options.peer_python:
        raise SystemExit("--peers needs --peer-python, of a venv in which they are installed")
    for peer in peers:
        if peer == "huey":
            found.append(huey(options.peer_python, jobs=options.jobs // 2))
        elif peer == "rq":
            found.append(rq(options.peer_python, simple=False, jobs=options.jobs // 100))
            found.append(rq(options.peer_python, simple=True, jobs=options.jobs // 25))
        else:
            raise SystemExit(f"unknown peer {peer!r}; known are rq and huey")
    return found


def main() -> None:
    """Run and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--workers", default="1,2,4,8", help="worker counts (1,2,4,8)")
    parser.add_argument("--jobs", type=int, default=20_000, help="jobs a run (20000)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--peers", default="", help="rq,huey")
    parser.add_argument("--peer-python", type=Path, help="the Python of the peers' venv")
    options = parser.parse_args()
    everyone = contestants(options)
    support.preamble("No-op jobs a second: median (min-max)")
    for workers in map(int, options.workers.split(",")):
        results: dict[str, list[Result]] = {each.name: [] for each in everyone}
        for _ in range(options.rounds):
            for each in everyone:
                results[each.name].append(run(each, workers))
        tell(workers, results)


def tell(workers: int, results: dict[str, list[Result]]) -> None:
    """Print one table: the first contestant is what the others are compared with."""
    ours = next(iter(results.values()))
    print(f"workers: {workers}")
    rows = []
    for name, runs in results.items():
        ratios = [mine.rate / theirs.rate for mine, theirs in zip(ours, runs, strict=True)]
        rows.append(
            [
                name,
                support.spread([each.rate for each in runs]),
                support.spread(ratios, ".2f"),
                f"{median(each.worker_us for each in runs):.0f}",
                f"{median(each.redis_us for each in runs):.0f}",
            ]
        )
    head = ["", "jobs/s", "forkresque is faster by", "worker CPU us/job", "Redis CPU us/job"]
    support.table(head, rows)


if __name__ == "__main__":
    main()

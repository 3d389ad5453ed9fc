"""The jobs that all contestants run, as plain functions of the job's number.

Runs inside a peer's own environment: the standard library and nothing else. The same kinds in
another language live beside its contestant. BENCH_HEAVY=1 loads an application of 100 MB with
this module, BENCH_LOOPS is how much a `cpu` job computes.

    python -m bench.peers.kinds calibrate          prints the loops that take about 5 ms here
    python -m bench.peers.kinds alone LOOPS COUNT  prints the seconds one such job takes, alone
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable

from bench.peers.recording import BEGAN, ENDED, record

QUEUE = "bench"
LOOPS = int(os.environ.get("BENCH_LOOPS", "50000"))
CPU_SECONDS, IO_SECONDS, STORM_SECONDS, LONG_SECONDS = 0.005, 0.05, 0.02, 2.0
_HEAVY_OBJECTS = 400_000  # entries: together 100 MB (of 2**20 bytes) in CPython

HEAVY: dict[str, tuple[int, str]] = {}
if os.environ.get("BENCH_HEAVY"):
    HEAVY = {f"key-{each}": (each, f"value-{each}") for each in range(_HEAVY_OBJECTS)}


def spin(loops: int) -> int:
    """Compute, without allocating much."""
    total = 0
    for each in range(loops):
        total = (total + each * each) & 0xFFFF
    return total


def noop(number: int) -> None:
    record(BEGAN, number)


def cpu(number: int) -> None:
    """Compute for about 5 ms."""
    record(BEGAN, number)
    spin(LOOPS)


def io(number: int) -> None:
    """Wait for 50 ms, as for an answer from elsewhere."""
    record(BEGAN, number)
    time.sleep(IO_SECONDS)


def storm(number: int) -> None:
    """Take 20 ms and tell of the end, too."""
    record(BEGAN, number)
    time.sleep(STORM_SECONDS)
    record(ENDED, number)


def long(number: int) -> None:
    """Take 2 s and tell of the end, too."""
    record(BEGAN, number)
    time.sleep(LONG_SECONDS)
    record(ENDED, number)


def read(number: int) -> None:
    """Read all of the heavy application, which writes its reference counts."""
    record(BEGAN, number)
    sum(len(text) for _, text in HEAVY.values())


async def async_noop(number: int) -> None:
    record(BEGAN, number)


async def async_cpu(number: int) -> None:
    cpu(number)


async def async_io(number: int) -> None:
    record(BEGAN, number)
    await asyncio.sleep(IO_SECONDS)


async def async_storm(number: int) -> None:
    record(BEGAN, number)
    await asyncio.sleep(STORM_SECONDS)
    record(ENDED, number)


async def async_long(number: int) -> None:
    record(BEGAN, number)
    await asyncio.sleep(LONG_SECONDS)
    record(ENDED, number)


async def async_read(number: int) -> None:
    read(number)


KINDS: dict[str, Callable[[int], None]] = {
    each.__name__: each for each in (noop, cpu, io, storm, long, read)
}
ASYNC_KINDS: dict[str, Callable[[int], Awaitable[None]]] = {
    "noop": async_noop,
    "cpu": async_cpu,
    "io": async_io,
    "storm": async_storm,
    "long": async_long,
    "read": async_read,
}


def alone(loops: int, count: int) -> float:
    """Return the seconds that one `cpu` job takes, the best half of `count` runs on average."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        spin(loops)
        taken.append(time.perf_counter() - began)
    best = sorted(taken)[: (count + 1) // 2]
    return sum(best) / len(best)


def calibrate() -> int:
    """Return the loops that take about 5 ms."""
    return round(LOOPS * CPU_SECONDS / alone(LOOPS, 20))


if __name__ == "__main__":
    if sys.argv[1] == "calibrate":
        print(calibrate())
    else:
        print(alone(int(sys.argv[2]), int(sys.argv[3])))

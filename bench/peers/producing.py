"""The producer's side of every contestant: put jobs, and tell what it took.

Runs inside a peer's own environment. A contestant's producer is a command that takes four words,
the same in every language:

    KIND COUNT FIRST HOW

It puts COUNT jobs of KIND, numbered from FIRST: `one` at a time, each answered before the next;
in `bulk`, by the peer's own call for many; or one every so many seconds when HOW is a number,
with a SENT record before each. Then it prints one line of JSON: `jobs`, `seconds` and the `cpu`
seconds of the process. The first job of `one` and `bulk` opens the connection and is neither
timed nor counted.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

from bench.peers.recording import SENT, record

Put = Callable[[str, int], object]
PutMany = Callable[[str, Sequence[int]], object]


def produce(put: Put, put_many: PutMany | None = None) -> None:
    """Do what the command line says with a peer's calls."""
    kind, count, first, how = _asked()
    numbers = range(first, first + count)
    if how not in ("one", "bulk"):
        for number in numbers:
            record(SENT, number)
            put(kind, number)
            time.sleep(float(how))
        return
    put(kind, first)
    began = _clocks()
    if how == "bulk" and put_many:
        put_many(kind, numbers[1:])
    else:
        for number in numbers[1:]:
            put(kind, number)
    _tell(count - 1, began)


async def produce_async(put: Callable[[str, int], Awaitable[object]]) -> None:
    """Do the same for a peer whose calls are awaited. It has no call for many."""
    kind, count, first, how = _asked()
    numbers = range(first, first + count)
    if how not in ("one", "bulk"):
        for number in numbers:
            record(SENT, number)
            await put(kind, number)
            await asyncio.sleep(float(how))
        return
    await put(kind, first)
    began = _clocks()
    for number in numbers[1:]:
        await put(kind, number)
    _tell(count - 1, began)


def _asked() -> tuple[str, int, int, str]:
    kind, count, first, how = sys.argv[1:]
    return kind, int(count), int(first), how


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _tell(jobs: int, began: tuple[float, float]) -> None:
    seconds, cpu = (now - then for now, then in zip(_clocks(), began, strict=True))
    print(json.dumps({"jobs": jobs, "seconds": seconds, "cpu": cpu}))

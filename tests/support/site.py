"""What a process test does with Redis and the ledger: put jobs in, hold them, count them.

A gate job that has told `started:<name>` waits until it is released, so a signal lands in
exactly the moment that a test is about.
"""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
from redis import Redis

from forkresque.errors import ControlError
from forkresque.protocol.keys import Keys
from forkresque.protocol.payload import encode_job
from forkresque.supervisor.control import ask
from tests.support.processes import Start, title
from tests.support.waiting import wait_until

KEYS = Keys("resque")
APP = ("-A", "tests.support.jobs", "-q", "math")


class Site:
    """The Redis under test and the ledger, in the words of a test."""

    def __init__(self, redis: Redis, ledger: Redis) -> None:
        self.redis: Any = redis
        self.ledger: Any = ledger

    def enqueue(self, name: str, *args: object, queue: str = "math") -> bytes:
        """Push one job, as any Resque does; return its bytes."""
        raw = encode_job(queue, name, args)
        with self.redis.pipeline() as pipe:
            pipe.sadd(KEYS.queues(), queue)
            pipe.rpush(KEYS.queue(queue), raw)
            pipe.execute()
        return raw

    def gates(self, *names: str) -> list[int]:
        """Enqueue gate jobs and wait until all have started; return their workers' pids."""
        for name in names:
            self.enqueue("gate", name)
        return [self.started(name) for name in names]

    def started(self, name: str, times: int = 1) -> int:
        """Wait until the job `name` has started so many times; return its last worker's pid."""
        key = f"started:{name}"
        wait_until(lambda: self.ledger.llen(key) >= times, f"start {times} of {name}")
        return int(self.ledger.lindex(key, -1))

    def starts(self, name: str) -> int:
        """Return how often the job `name` has started."""
        return int(self.ledger.llen(f"started:{name}"))

    def release(self, *names: str) -> None:
        """Let gate jobs end."""
        for name in names:
            self.ledger.rpush(f"release:{name}", "go")

    def runs(self) -> list[str]:
        """Return what the jobs told, in this order."""
        return [mark.decode() for mark in self.ledger.lrange("runs", 0, -1)]

    def waiting(self, queue: str = "math") -> list[bytes]:
        """Return the payloads in a queue, the head first."""
        return list(self.redis.lrange(KEYS.queue(queue), 0, -1))

    def count(self, counter: str) -> int:
        """Return the counter `processed` or `failed`."""
        return int(self.redis.get(KEYS.stat(counter)) or 0)

    def failures(self) -> list[dict[str, Any]]:
        """Return the failure records, oldest first."""
        return [json.loads(raw) for raw in self.redis.lrange(KEYS.failed(), 0, -1)]

    def slots(self) -> int:
        """Return how many jobs are in hand."""
        return sum(1 for _ in self.redis.scan_iter(match=KEYS.slot("") + b"*", count=1000))

    def await_processed(self, number: int, timeout: float = 10.0) -> None:
        """Wait until exactly this many jobs have succeeded."""
        wait_until(lambda: self.count("processed") >= number, f"{number} jobs done", timeout)
        assert self.count("processed") == number


def idle_workers(master: Start, number: int, timeout: float = 10.0) -> list[psutil.Process]:
    """Wait until a master has exactly so many workers and all are idle; return them."""

    def idle() -> list[psutil.Process]:
        workers = master.children("worker")
        ready = [worker for worker in workers if title(worker).endswith(" idle")]
        return ready if len(ready) == len(workers) == number else []

    return wait_until(idle, f"{number} idle workers", timeout)


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended; a zombie has."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True


def stays(fact: Callable[[], object], what: str, seconds: float) -> None:
    """Fail if `fact` is no longer true at any look within so many seconds."""
    end = time.monotonic() + seconds

    def over() -> bool:
        assert fact(), f"no longer so: {what}"
        return time.monotonic() >= end

    wait_until(over, f"{seconds} s of {what}", seconds + 5.0)


def ticks(every: float, seconds: float) -> Iterator[int]:
    """Yield a number at each tick; a late tick comes at once, so none is left out."""
    began = time.monotonic()
    for number in range(round(seconds / every)):
        due = began + number * every
        wait_until(lambda due=due: time.monotonic() >= due, "the next tick", every + 5.0, 0.002)  # type: ignore[misc]
        yield number


def state(master: Start) -> dict[str, Any]:
    """Return what a master says of itself over its control socket."""
    return ask(master.runtime_directory / "forkresque" / f"{master.pid}.sock", "status")


def told(master: Start, pid: int = 0) -> dict[str, Any]:
    """Return what a master says of itself, nothing while it is between two images."""
    try:
        return ask(master.runtime_directory / "forkresque" / f"{pid or master.pid}.sock", "status")
    except ControlError:
        return {}


def phases(master: Start) -> dict[int, str]:
    """Return what each worker of a master does, by pid."""
    return {worker["pid"]: worker["phase"] for worker in state(master)["workers"]}


def on_call(master: Start) -> list[int]:
    """Return the pids of the workers that claim, or wait for Redis to tell of a job."""
    return [pid for pid, phase in phases(master).items() if phase == "call"]


def await_rest(master: Start, number: int, timeout: float = 10.0) -> None:
    """Wait until a master has so many workers, all idle and at least one of them on call."""
    idle_workers(master, number, timeout)
    seen = [""]

    def resting() -> bool:
        seen[:] = sorted(phases(master).values())
        return len(seen) == number and "call" in seen and set(seen) <= {"call", "idle"}

    try:
        wait_until(resting, "a worker on call and all others asleep", timeout)
    except AssertionError as error:
        raise AssertionError(f"{error}: {seen}") from None

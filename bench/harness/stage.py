"""Stage: one run of one contestant on a fresh server, with everything about it to be read.

    with Stage(contestant, workers=2) as stage:
        stage.put("noop", 20_000)               # the queue is full before anybody works
        stage.start()
        first = stage.await_records(2_000)      # a Reading: when, how many, who used what CPU
        last = stage.await_records(18_000)
        stage.await_records(20_000)
        span = between(first, last)             # jobs/s, CPU per job, noise
        stage.demand_all()                      # or the run fails: lost or doubled jobs
        records = stage.records()               # each event, with moment and pid

`stage.warm_up()` after `start` gives a pool that has worked and is idle now. `stage.put("noop",
300, how=0.02)` puts one every 20 ms with SENT records: `stage.records().latencies()`.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from bench.harness import processes
from bench.harness.contestant import Command, Contestant
from bench.harness.machine import Clocks, Noise, clocks, noise
from bench.harness.records import BEGAN, Records, count, load
from bench.harness.servers import server

LIMIT = 120.0  # seconds that anything may take
_STALL = 15.0  # seconds without a new record, or over what a producer needs: something hangs
_LOOK = 0.005  # seconds between two looks at the records
_MANY = 10_000  # jobs that a slow producer puts in less than `_STALL`
_TWICE = ("storm", "long")  # kinds that write a record at their end, too
_WARM = 4  # jobs a worker, before it counts as warm


class RunFailed(Exception):
    """A run that tells nothing: a job got lost or doubled, or the contestant did not work."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was true at a moment: records written, CPU seconds used, the machine's clocks."""

    records: int
    processes: int  # that have written one
    workers: float
    redis: float
    clocks: Clocks


@dataclass(frozen=True, slots=True)
class Span:
    """What lies between two readings."""

    seconds: float
    records: int
    workers: float  # CPU seconds of all processes of the contestant
    redis: float  # CPU seconds of the server
    noise: Noise

    @property
    def rate(self) -> float:
        """Return records a second."""
        return self.records / self.seconds

    @property
    def worker_us(self) -> float:
        """Return the workers' CPU, in us a record."""
        return self.workers / max(1, self.records) * 1e6

    @property
    def redis_us(self) -> float:
        """Return the server's CPU, in us a record."""
        return self.redis / max(1, self.records) * 1e6

    @property
    def cpu_us(self) -> float:
        """Return the CPU of workers and server, in us a record."""
        return self.worker_us + self.redis_us


def between(first: Reading, last: Reading) -> Span:
    """Return what lies between two readings of one run."""
    workers, redis = last.workers - first.workers, last.redis - first.redis
    return Span(
        seconds=last.clocks.at - first.clocks.at,
        records=last.records - first.records,
        workers=workers,
        redis=redis,
        noise=noise(first.clocks, last.clocks, known=workers + redis, load=os.getloadavg()[0]),
    )


@dataclass(frozen=True, slots=True)
class Produced:
    """What a producer told of itself: jobs that were timed, their seconds, its CPU seconds."""

    jobs: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Return jobs a second."""
        return self.jobs / self.seconds


class Stage:
    """One run. Nothing works until `start`; leaving kills whatever is still there."""

    def __init__(
        self,
        contestant: Contestant,
        *,
        workers: int,
        environment: Mapping[str, str] | None = None,
        stock: Path | None = None,
    ) -> None:
        """Prepare a run. `stock` is a folder with a server's dump, of which it begins."""
        self.contestant = contestant
        self.workers = workers
        self.processes: list[subprocess.Popen[bytes]] = []
        self.put_so_far = 0
        self._extra = dict(environment or {})
        self._stock = stock
        self._twice = False

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="forkresque-bench-"))
        self.records_folder, self.sent_folder = self.folder / "records", self.folder / "sent"
        self.records_folder.mkdir()
        self.sent_folder.mkdir()
        self.log = self.folder / "log"
        self.server = server(self._stock)
        self.url = f"{self.server.tcp_url}/0"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        self.server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self, records: Path) -> dict[str, str]:
        """Return the environment of the contestant's processes, whose records go there."""
        return {
            **self.contestant.environment,
            **self._extra,
            "BENCH_REDIS": self.url,
            "REDIS_URL": self.url,
            "BENCH_DIR": str(records),
        }

    def put(
        self, kind: str, jobs: int, *, how: float | Literal["one", "bulk"] | None = None
    ) -> Produced | None:
        """Put the next `jobs` jobs, and return when they are there.

        `how` is the producer's fourth word; without it, in bulk where the contestant can. Only
        `one` and `bulk` tell what they took.
        """
        producer = self.putting(kind, jobs, how=how)
        try:
            pauses = how * jobs if isinstance(how, float) else 0.0
            said, _ = producer.communicate(timeout=pauses + (_STALL if jobs < _MANY else LIMIT))
        finally:
            producer.kill()
        if producer.returncode:
            raise RunFailed(f"the producer failed:\n{self.said()}")
        return Produced(**json.loads(said.splitlines()[-1])) if said.strip() else None

    def putting(
        self, kind: str, jobs: int, *, how: float | Literal["one", "bulk"] | None = None
    ) -> "subprocess.Popen[bytes]":
        """Start to put jobs, and return the producer; whoever asks for it waits for it."""
        how = how if how is not None else "bulk" if self.contestant.bulk else "one"
        words = [kind, str(jobs), str(self.put_so_far), str(how)]
        self.put_so_far += jobs
        self._twice |= kind in _TWICE
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*self.contestant.produce, *words],
                cwd=processes.ROOT,
                env=processes.environment(self.environment(self.sent_folder)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def start(self, *, guarded: bool = True) -> None:
        """Start the workers. See `processes.spawn` for `guarded`."""
        for command in self.contestant.start(self.workers):
            self.spawn(command, guarded=guarded)

    def spawn(self, command: Command, *, guarded: bool = True) -> "subprocess.Popen[bytes]":
        """Start one command as part of the contestant."""
        words = [word.replace("{url}", self.url) for word in command]
        process = processes.spawn(
            words, self.environment(self.records_folder), self.log, guarded=guarded
        )
        self.processes.append(process)
        return process

    def warm_up(self, *, rest: float = 0.5) -> None:
        """Have every worker run some jobs, and leave the pool idle for `rest` seconds."""
        self.put("io", _WARM * self.workers)
        self.await_records(self.put_so_far)
        time.sleep(rest)

    def kill(self) -> None:
        """End the contestant at once."""
        for process in self.processes:
            processes.kill(process)
        self.processes.clear()

    def pids(self) -> list[int]:
        """Return the contestant's processes that live."""
        return [pid for root in self.processes for pid in processes.family(root.pid)]

    def read(self) -> Reading:
        """Read everything now."""
        return Reading(
            records=self.recorded(),
            processes=sum(1 for _ in self.records_folder.iterdir()),
            workers=processes.cpu_seconds(self.pids()),
            redis=processes.cpu_seconds([self.server.process.pid]),
            clocks=clocks(),
        )

    def recorded(self) -> int:
        """Return how many jobs have begun; one that begins again counts again."""
        if self._twice:
            return len(self.records().of(BEGAN))
        return count(self.records_folder)

    def await_records(self, wanted: int, *, stall: float = _STALL) -> Reading:
        """Wait until so many jobs have begun, and read everything then.

        RunFailed if no job has begun for `stall` seconds.
        """
        seen, deadline = -1, 0.0
        while (recorded := self.recorded()) < wanted:
            now = time.monotonic()
            if recorded > seen:
                seen, deadline = recorded, now + stall
            if now > deadline:
                raise RunFailed(
                    f"{self.workers} workers: {recorded} of {wanted} jobs had begun when nothing "
                    f"came for {stall:g} s\n{self.said()}"
                )
            time.sleep(_LOOK)
        return self.read()

    def records(self) -> Records:
        """Return all events so far, those of the producers among them."""
        return load(self.records_folder, self.sent_folder)

    def demand_all(self) -> None:
        """Raise RunFailed unless every job put so far has begun exactly once."""
        tally = self.records().tally(range(self.put_so_far))
        if not tally.is_clean:
            raise RunFailed(f"{self.workers} workers: {tally}")

    def said(self) -> str:
        """Return the end of what the contestant's processes have printed."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

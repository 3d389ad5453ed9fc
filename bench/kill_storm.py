"""What remains of 1,000 jobs when workers are killed all the time?

    python -m bench.kill_storm --quick

Four workers, jobs of 20 ms; every 100 ms, for 5 s, SIGKILL to the process that runs the job
which began last. A command that ends is started again at once, as a service manager would. A
minute after the first job (with --quick, twenty seconds) each job has ended, or its number is still
somewhere in Redis (stuck), or nowhere (lost). Everybody has default settings; rq-retry, for whom
jobs are to be retried, is the best of the peers.
"""

import os
import re
import signal
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from threading import Lock
from typing import Any

from bench.harness.contestant import Contestant, Group
from bench.harness.heats import attempt
from bench.harness.question import Plan, Question
from bench.harness.records import BEGAN, ENDED, Event, Records
from bench.harness.report import Report, at_least, at_most
from bench.harness.stage import Stage

WORKERS, JOBS = 4, 1_000
EVERY, STORM = 0.1, 5.0  # seconds
PATIENCE = 20.0, 60.0  # seconds for all the jobs, short and full
_MOMENT = 1.5  # seconds after the storm that still belong to its turn
_WAITING = 8  # storms at a time, of which one rages
_ONE_AT_A_TIME = Lock()
FIRST = 1_700_000_000  # of the jobs' numbers: long enough to be found in anybody's payload


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one storm left."""

    kills: int
    restarts: int
    done: int
    twice_begun: int
    twice_done: int
    stuck: int
    lost: int
    where: str  # the keys in which the stuck ones stand, without what is particular
    after: float | None  # seconds from the last kill to the last first end; None: not all ended


class Storm:
    """One run."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._commands = stage.contestant.start(WORKERS)
        self._roots = [stage.spawn(command) for command in self._commands]
        self._killed: set[tuple[int, int]] = set()
        self._restarts = 0
        self._last_kill = 0

    def rage(self) -> None:
        """Kill for a while, and look a moment longer."""
        self._stage.await_records(1)
        self._began = time.monotonic()
        while time.monotonic() < self._began + STORM:
            self._restart_the_dead()
            self._kill_the_newest()
            time.sleep(EVERY)
        self.wait(STORM + _MOMENT)

    def wait(self, patience: float) -> None:
        """Wait until all is done, or so many seconds since the first job have passed."""
        while time.monotonic() < self._began + patience and not self._is_done():
            self._restart_the_dead()
            time.sleep(EVERY)

    def _restart_the_dead(self) -> None:
        for index, root in enumerate(self._roots):
            if root.poll() is not None:
                self._stage.processes.remove(root)
                self._roots[index] = self._stage.spawn(self._commands[index])
                self._restarts += 1

    def _kill_the_newest(self) -> None:
        alive = set(self._stage.pids())
        running = [each for each in in_hand(self._stage.records()) if each.process in alive]
        if not running:
            return
        newest = max(running)
        moment = time.monotonic_ns()
        os.kill(newest.process, signal.SIGKILL)
        self._killed.add((newest.process, newest.number))
        self._last_kill = moment

    def _is_done(self) -> bool:
        return len({each.number for each in self._stage.records().of(ENDED)}) == JOBS

    def outcome(self) -> Outcome:
        """Count what is left."""
        records = self._stage.records()
        numbers = range(FIRST, FIRST + JOBS)
        ended = records.tally(numbers, ENDED)
        with self._stage.server.client() as client:
            places = {
                key: found
                for key, numbers_there in numbers_in(client)
                if (found := numbers_there & set(ended.lost))
            }
        somewhere = set[int]().union(*places.values())
        firsts: dict[int, int] = {}
        for each in records.of(ENDED):
            firsts.setdefault(each.number, each.moment)
        after = (max(firsts.values(), default=0) - self._last_kill) / 1e9
        return Outcome(
            kills=len(self._killed),
            restarts=self._restarts,
            done=len(firsts),
            twice_begun=len(records.tally(numbers, BEGAN).doubled),
            twice_done=len(ended.doubled),
            stuck=len(somewhere),
            lost=len(ended.lost) - len(somewhere),
            where=" ".join(sorted({re.sub(r"[0-9a-f-]{3,}", "*", key) for key in places})),
            after=None if ended.lost else after,
        )


def in_hand(records: Records) -> list[Event]:
    """Return the beginning of each run that has no end."""
    ended = {(each.process, each.number) for each in records.of(ENDED)}
    return [each for each in records.of(BEGAN) if (each.process, each.number) not in ended]


def numbers_in(client: Any) -> Iterator[tuple[str, set[int]]]:
    """Yield each key, and the jobs' numbers that stand in it, as text or pickled."""
    for key in client.scan_iter(count=1_000):
        yield key.decode(errors="replace"), numbers_of(key) | numbers_of(_value(client, key))


def numbers_of(content: bytes) -> set[int]:
    """Return the jobs' numbers in some bytes."""
    written = {int(each) for each in re.findall(rb"(?<!\d)17000\d{5}(?!\d)", content)}
    pickled = (struct.unpack("<i", each)[0] for each in re.findall(rb"J(....)", content, re.DOTALL))
    return {each for each in (*written, *pickled) if FIRST <= each < FIRST + JOBS}


def _value(client: Any, key: bytes) -> bytes:
    readers: dict[bytes, Callable[[bytes], Any]] = {
        b"string": client.get,
        b"list": lambda name: client.lrange(name, 0, -1),
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"zset": lambda name: client.zrange(name, 0, -1),
        b"stream": client.xrange,
        b"none": lambda _name: b"",  # it has expired meanwhile
    }
    value = readers[client.type(key)](key)
    return value if isinstance(value, bytes) else b" ".join(_flat(value))


def _flat(value: Any) -> list[bytes]:
    if isinstance(value, bytes):
        return [value]
    parts = [part for pair in value.items() for part in pair] if isinstance(value, dict) else value
    return [piece for part in parts or () for piece in _flat(part)]


def storm(contestant: Contestant, patience: float) -> Outcome:
    """Let a storm come over a contestant. Storms have turns; they overlap while waiting."""
    with Stage(contestant, workers=WORKERS) as stage:
        with _ONE_AT_A_TIME:
            stage.put_so_far = FIRST
            stage.put("storm", JOBS)
            raging = Storm(stage)
            raging.rage()
        raging.wait(patience)
        return raging.outcome()


def measure(plan: Plan, report: Report) -> None:
    """Ask everybody; for --quick the peers once, and first, so that ours come while they wait."""
    patience = plan.lasting(*PATIENCE)
    peers = [each for each in plan.contestants if each.group is not Group.OURS]
    rounds = plan.rounds if plan.full else 1
    laps = [*peers * rounds, *plan.group(Group.OURS) * plan.rounds]
    with ThreadPoolExecutor(_WAITING) as threads:
        asked = [(each, threads.submit(storm, each, patience)) for each in laps]
    found: dict[str, list[Outcome]] = {each.name: [] for each in plan.contestants}
    for each, asking in asked:
        found[each.name] += attempt(each, asking.result, report)
    for name, outcomes in found.items():
        for outcome in outcomes:
            report.figure(name, **{field: getattr(outcome, field) for field in _FIELDS})
    report.table(
        f"{JOBS:,} jobs of 20 ms, {WORKERS} workers, a SIGKILL every {EVERY * 1000:.0f} ms, "
        f"at most {patience:g} s",
        ["", *(name.replace("_", " ") for name in _FIELDS)],
        [_row(name, outcome) for name, outcomes in found.items() for outcome in outcomes],
    )
    _judge(report, found, patience)


_FIELDS = tuple(Outcome.__dataclass_fields__)


def _row(name: str, outcome: Outcome) -> list[str]:
    told = [str(getattr(outcome, field)) for field in _FIELDS[:-1]]
    return [name, *told, "-" if outcome.after is None else f"{outcome.after:.2f}"]


def _judge(report: Report, everybody: dict[str, list[Outcome]], patience: float) -> None:
    peers = dict(everybody)
    found = peers.pop("forkresque")
    after = [each.after if each.after is not None else patience for each in found]
    worst = {name: max(getattr(each, name) for each in found) for name in ("lost", "stuck")}
    reruns = max(each.twice_begun - each.kills for each in found)
    told = {field: _beside(peers, field) for field in _FIELDS}
    done = min(each.done for each in found)
    report.verdict(
        at_least("kills: done", done, JOBS, form=",.0f", against=told["done"]),
        at_most("kills: lost", worst["lost"], 0, form=".0f", against=told["lost"]),
        at_most("kills: stuck", worst["stuck"], 0, form=".0f", against=told["stuck"]),
        at_most(
            *("kills: jobs begun again, more than kills", reruns, 0),
            form=".0f",
            against=f"begun again by {told['twice_begun']}",
        ),
        at_most(
            *("kills: all done after the last", median(after), 1.0),
            unit=" s",
            against=told["after"],
        ),
    )


def _beside(peers: dict[str, list[Outcome]], field: str) -> str:
    """Tell each peer's worst."""
    told = []
    for name, outcomes in peers.items():
        values = [getattr(each, field) for each in outcomes]
        if values:
            worst = (min if field == "done" else max)(
                values, key=lambda each: float("inf") if each is None else each
            )
            shown = "never" if worst is None else f"{worst:.1f}" if field == "after" else str(worst)
            told.append(f"{name}: {shown}")
    return ", ".join(told)


_RUN = (
    *("forkresque", "rq", "rq-retry", "rq-simple", "celery", "dramatiq", "huey"),
    *("arq", "saq", "taskiq", "node-resque", "sidekiq", "sidekiq-c10"),
)
QUESTION = Question("kill_storm", "1,000 jobs in a storm of SIGKILL", measure, ("rq-retry",), _RUN)

if __name__ == "__main__":
    QUESTION.main()

"""What remains of 1,000 jobs when workers are killed all the time?

    python -m bench.kill_storm --quick

Four workers, jobs of 20 ms; every 100 ms, for 5 s, SIGKILL to the process that runs the job
which began last. A command that ends is started again at once, as a service manager would. A
minute after the first job each job has ended, or its number is still somewhere in Redis (stuck),
or nowhere (lost). Everybody has default settings.
"""

import os
import re
import signal
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.harness.contestant import Contestant, Group
from bench.harness.question import Plan, Question
from bench.harness.records import BEGAN, ENDED, Event, Records
from bench.harness.report import Report, at_least, at_most
from bench.harness.rounds import Spread
from bench.harness.stage import Stage

WORKERS, JOBS = 4, 1_000
EVERY, STORM, PATIENCE = 0.1, 5.0, 60.0  # seconds
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

    def run(self) -> Outcome:
        """Kill for a while, wait, and count."""
        self._stage.await_records(1)
        began = time.monotonic()
        while (now := time.monotonic()) < began + PATIENCE:
            self._restart_the_dead()
            if now < began + STORM:
                self._kill_the_newest()
            elif self._is_done():
                break
            time.sleep(EVERY)
        return self._outcome()

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

    def _outcome(self) -> Outcome:
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
    readers = {
        b"string": client.get,
        b"list": lambda name: client.lrange(name, 0, -1),
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"zset": lambda name: client.zrange(name, 0, -1),
        b"stream": client.xrange,
    }
    value = readers[client.type(key)](key)
    return value if isinstance(value, bytes) else b" ".join(_flat(value))


def _flat(value: Any) -> list[bytes]:
    if isinstance(value, bytes):
        return [value]
    parts = [part for pair in value.items() for part in pair] if isinstance(value, dict) else value
    return [piece for part in parts or () for piece in _flat(part)]


def storm(contestant: Contestant) -> Outcome:
    """Let a storm come over a contestant."""
    with Stage(contestant, workers=WORKERS) as stage:
        stage.put_so_far = FIRST
        stage.put("storm", JOBS)
        return Storm(stage).run()


def measure(plan: Plan, report: Report) -> None:
    """Ask forkresque as often as there are rounds, and the others once, for it takes a minute."""
    rows = []
    for each in plan.contestants:
        ours = each.group is Group.OURS
        found = [storm(each) for _ in range(plan.rounds if ours else 1)]
        rows += [_row(each.name, outcome) for outcome in found]
        for outcome in found:
            report.figure(each.name, **{name: getattr(outcome, name) for name in _FIELDS})
        if ours:
            _judge(report, found)
    report.table(
        f"{JOBS:,} jobs of 20 ms, {WORKERS} workers, a SIGKILL every {EVERY * 1000:.0f} ms",
        ["", *(name.replace("_", " ") for name in _FIELDS)],
        rows,
    )


_FIELDS = tuple(Outcome.__dataclass_fields__)


def _row(name: str, outcome: Outcome) -> list[str]:
    told = [str(getattr(outcome, field)) for field in _FIELDS[:-1]]
    return [name, *told, "-" if outcome.after is None else f"{outcome.after:.2f}"]


def _judge(report: Report, found: list[Outcome]) -> None:
    after = [each.after if each.after is not None else PATIENCE for each in found]
    worst = {name: max(getattr(each, name) for each in found) for name in ("lost", "stuck")}
    reruns = max(each.twice_begun - each.kills for each in found)
    report.verdict(
        at_least("kills: done", min(each.done for each in found), JOBS, form=",.0f"),
        at_most("kills: lost", worst["lost"], 0, form=".0f"),
        at_most("kills: stuck", worst["stuck"], 0, form=".0f"),
        at_most("kills: jobs begun again, more than kills", reruns, 0, form=".0f"),
        at_most("kills: all done after the last", Spread.of(after).median, 1.0, unit=" s"),
    )


_RUN = (
    *("forkresque", "rq", "rq-simple", "celery", "dramatiq", "huey", "arq", "saq", "taskiq"),
    *("node-resque", "sidekiq", "sidekiq-c10"),
)
QUESTION = Question("kill_storm", "1,000 jobs in a storm of SIGKILL", measure, full=_RUN)

if __name__ == "__main__":
    QUESTION.main()

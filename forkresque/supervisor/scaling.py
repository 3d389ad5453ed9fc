"""The sizes of elastic pools: what is known goes to `policy.autoscale`, its word to the pool."""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from forkresque.policy.autoscale import Autoscaler, Memory, Sample
from forkresque.policy.child import Doing, Facts, Kind
from forkresque.policy.crew import Crew
from forkresque.policy.pool import Pool
from forkresque.scoreboard import Depth, Role, Scoreboard, Seat
from forkresque.supervisor import resources
from forkresque.supervisor.gauges import Gauges

SAMPLE_EVERY = 0.25  # seconds, while something waits or works
REST = 1.0  # seconds between looks whether pools at rest have work again
OLD = 0.75  # seconds after which a count of waiting jobs is too old: the clerk makes four a second
_IN_HAND = (Doing.RUN, Doing.SETTLE)
_REMEMBERED = 20  # decisions of each pool


class Scaled(NamedTuple):
    """A change of a pool's size, at a moment of the monotonic clock."""

    at: float
    pool: Pool
    before: int
    after: int
    reason: str


@dataclass(slots=True)
class _Work:
    """What a pool's workers have done, in seconds and jobs. It only grows."""

    busy: float = 0.0
    served: float = 0.0
    completed: int = 0


@dataclass(slots=True)
class _Tally:
    """Adds up what seats count, over the lives of those who sit in them."""

    work: _Work = field(default_factory=_Work)
    seen: dict[int, tuple[float, float, int]] = field(default_factory=dict)  # by pid


class Scaling:
    """The autoscalers of one master."""

    def __init__(self, board: Scoreboard, crew: Crew, gauges: Gauges, latency: float) -> None:
        self._board = board
        self._crew = crew
        self._gauges = gauges
        self._latency = latency
        self._scalers: dict[int, Autoscaler] = {}
        self._tallies: dict[int, _Tally] = {}
        self._due_at = -math.inf
        self._histories: dict[int, deque[Scaled]] = {}

    @property
    def history(self) -> list[Scaled]:
        """Return the last changes, the oldest of a pool first; each pool has its own memory."""
        return [change for history in self._histories.values() for change in history]

    def due_at(self) -> float:
        """Return the moment of the next sample, infinity if no pool is elastic."""
        return self._due_at if any(pool.is_elastic for pool in self._crew.pools) else math.inf

    def step(self, now: float, facts: Mapping[int, Facts]) -> list[Scaled]:
        """Look at the elastic pools, if it is time to; return what was changed."""
        if now < self.due_at() or self._crew.stopping:
            return []
        idle = self._is_idle(facts)
        if idle and all(pool.target == pool.least for pool in self._crew.pools):
            self._due_at = now + REST  # there is nothing to decide, so nothing is sampled
            return []
        self._due_at = now + SAMPLE_EVERY
        if not idle:  # who is idle uses nothing: that a pool shrinks need not cost CPU
            self._gauges.look(now)
        return [
            change
            for index, pool in enumerate(self._crew.pools)
            if pool.is_elastic and (change := self._decide(index, pool, facts, now))
        ]

    def _decide(
        self, index: int, pool: Pool, facts: Mapping[int, Facts], now: float
    ) -> Scaled | None:
        if self._is_held_up(self._board.depths[index], now):
            return None
        scaler = self._scalers.setdefault(index, Autoscaler(pool.least, pool.most, self._latency))
        scaler.resize(pool.least, pool.most)
        scaler.target = pool.target  # another image of this process, or an operator, has set it
        decision = scaler.step(self._sample(index, pool, facts, now))
        if decision is None or decision.target == pool.target:
            return None
        before = pool.target
        pool.want(decision.target)
        change = Scaled(now, pool, before, pool.target, decision.reason)
        self._histories.setdefault(index, deque(maxlen=_REMEMBERED)).append(change)
        return change

    def _sample(self, index: int, pool: Pool, facts: Mapping[int, Facts], now: float) -> Sample:
        doings = [facts[child.seat].doing for child in self._crew.staying(index) if not child.held]
        booting = doings.count(Doing.BOOT)
        idle = doings.count(Doing.IDLE) + doings.count(Doing.CALL)
        work, depth = self._tally(index, now), self._board.depths[index]
        return Sample(
            now=now,
            waiting=self._waiting(depth),
            busy=len(doings) - booting - idle,
            idle=idle,
            booting=booting,
            leaving=self._leaving(index, facts),
            held=self._crew.paused or pool.births.broken,
            share=self._share(index, depth),
            busy_seconds=work.busy,
            served=work.served,
            completed=work.completed,
            age=self._age_of_jobs(index, now),
            cores=resources.usable_cores(),
            cpu_used=resources.cpu_used() or sum(self._gauges.run.values()),
            run=self._gauges.run[index],
            wait=self._gauges.wait[index],
            pressure=resources.pressure(),
            pools=sum(other.most > 0 for other in self._crew.pools),
            others=sum(used for other, used in self._gauges.run.items() if other != index),
            memory=self._memory(),
        )

    def _leaving(self, index: int, facts: Mapping[int, Facts]) -> int:
        """Return how many carry out their last job."""
        return sum(
            child.dismissed and child.pool == index and facts[child.seat].doing in _IN_HAND
            for child in self._crew.of(Kind.WORKER)
        )

    def _memory(self) -> Memory | None:
        memory, growth = resources.memory(), self._gauges.growth()
        if memory is None:
            return None
        mean = sum(growth.values()) // len(growth) if growth else 0
        return Memory(memory.limit_bytes, memory.used_bytes, mean)

    def _waiting(self, depth: Depth) -> int | None:
        known = depth.seen_ns and self._board.books.reached_ns
        return int(depth.waiting) if known else None

    def _is_held_up(self, depth: Depth, now: float) -> bool:
        """Return whether the clerk should have looked again at what waits: Redis may be silent."""
        return bool(depth.waiting and depth.seen_ns and now - depth.seen_ns / 1e9 > OLD)

    def _share(self, index: int, depth: Depth) -> float:
        own = max(1, len(self._crew.staying(index)))
        return float(own / (own + depth.rivals))

    def _tally(self, index: int, now: float) -> _Work:
        tally = self._tallies.setdefault(index, _Tally())
        seen = {}
        for seat in self._seats(index):
            served, completed = seat.busy_ns / 1e9, int(seat.done + seat.failed)
            since = seat.job_started_ns
            busy = served + (max(0.0, now - since / 1e9) if since else 0.0)
            before = tally.seen.get(seat.pid, (0.0, 0.0, 0))
            tally.work.busy += max(0.0, busy - before[0])
            tally.work.served += max(0.0, served - before[1])
            tally.work.completed += max(0, completed - before[2])
            # A job that ends while we look may be in both words of its seat, or count as over
            # but not as done: what was seen once is not counted again.
            seen[int(seat.pid)] = (
                max(before[0], busy),
                max(before[1], served),
                max(before[2], completed),
            )
        tally.seen = seen
        return tally.work

    def _age_of_jobs(self, index: int, now: float) -> float:
        ages = [
            now - seat.job_started_ns / 1e9 for seat in self._seats(index) if seat.job_started_ns
        ]
        return sum(ages) / len(ages) if ages else 0.0

    def _seats(self, index: int) -> Iterable[Seat]:
        return (seat for seat in self._board.taken(Role.WORKER) if seat.pool == index)

    def _is_idle(self, facts: Mapping[int, Facts]) -> bool:
        """Return whether no job waits and no worker has one, or boots to get one."""
        waits = any(depth.waiting for depth in self._board.depths[: len(self._crew.pools)])
        doings = {facts[child.seat].doing for child in self._crew.of(Kind.WORKER)}
        return not waits and doings <= {Doing.IDLE, Doing.CALL}

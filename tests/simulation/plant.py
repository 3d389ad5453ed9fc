"""A toy of machines, queues and workers, to try scaling rules on, from event to event.

The cores of a machine are shared fairly by all whose present slice of work is CPU; waiting for
I/O costs nothing. There is no context switch, cache or Redis in here, and a fork is free: what a
rule does in the toy it may do worse in the world, but hardly better.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Protocol

from forkresque.policy.autoscale import Decision, Memory, Sample
from forkresque.policy.births import Births

Job = tuple[tuple[float, float], ...]  # slices: seconds of CPU, then of waiting for something
Arrivals = Iterable[tuple[float, Job]]  # in the order of their moments


class Scaler(Protocol):
    """What decides: our controller, or a rival."""

    def step(self, sample: Sample) -> Decision | None: ...


class State(Enum):
    BOOT, IDLE, BUSY = range(3)


@dataclass(eq=False, slots=True)
class Worker:
    pool: "Pool"
    born_at: float
    state: State = State.BOOT
    leaving: bool = False
    began_at: float = 0.0
    slices: deque[tuple[float, float]] = field(default_factory=deque)


@dataclass(slots=True)
class Queue:
    """First in, first out; keeps how long each job has waited."""

    jobs: deque[tuple[float, Job]] = field(default_factory=deque)
    waits: list[tuple[float, float]] = field(default_factory=list)  # enqueued at, seconds
    pools: list["Pool"] = field(default_factory=list)

    def share(self, pool: "Pool") -> float:
        """Return the part of a pool in all the workers of this queue."""
        return pool.size / max(1, sum(one.size for one in self.pools))


class Machine:
    """Some cores, and who wants them."""

    def __init__(self, cores: float) -> None:
        self.cores = cores
        self.stolen = 0.0  # cores that neighbours have, which no quota tells
        self.used = self.pressed = 0.0
        self.wanting = 0
        self._clock = 0.0  # CPU seconds that each who wants some has got so far
        self._ends: list[tuple[float, int, Worker]] = []
        self._numbers = itertools.count()

    @property
    def share(self) -> float:
        """Return the part of a core that each who wants one gets."""
        return min(1.0, (self.cores - self.stolen) / max(1, self.wanting))

    def start(self, worker: Worker, seconds: float) -> None:
        heapq.heappush(self._ends, (self._clock + seconds, next(self._numbers), worker))
        self.wanting += 1
        worker.pool.wanting += worker.state is State.BUSY

    def next_end(self, now: float) -> float:
        if not self._ends:
            return float("inf")
        return now + (self._ends[0][0] - self._clock) / self.share

    def advance(self, seconds: float) -> None:
        share = self.share
        self._clock += share * seconds
        self.used += share * seconds * self.wanting
        self.pressed += seconds * (share < 1.0)

    def ended(self) -> Iterable[Worker]:
        """Yield those whose slice of CPU is over."""
        while self._ends and self._ends[0][0] <= self._clock + 1e-9:
            worker = heapq.heappop(self._ends)[2]
            self.wanting -= 1
            worker.pool.wanting -= worker.state is State.BUSY
            yield worker


class World:
    """Time, and what happens next."""

    def __init__(self) -> None:
        self.now = 0.0
        self.machines: list[Machine] = []
        self.pools: list[Pool] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, moment: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._numbers), act))

    def feed(self, queue: Queue, arrivals: Arrivals) -> None:
        """Have jobs come to a queue."""
        coming = iter(arrivals)

        def arrive(moment: float, job: Job) -> None:
            queue.jobs.append((moment, job))
            for pool in queue.pools:
                pool.claim()
            expect()

        def expect() -> None:
            if (following := next(coming, None)) is not None:
                self.at(following[0], lambda: arrive(*following))

        expect()

    def run(self, until: float) -> None:
        self.at(until, lambda: None)
        while self.now < until:
            moment = self._events[0][0]
            ends = [machine.next_end(self.now) for machine in self.machines]
            self._advance(max(self.now, min(moment, *ends)))
            for machine in self.machines:
                for worker in machine.ended():
                    worker.pool.go_on(worker)
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()

    def _advance(self, moment: float) -> None:
        seconds, self.now = moment - self.now, moment
        for pool in self.pools:
            pool.advance(seconds)
        for machine in self.machines:
            machine.advance(seconds)


class Pool:
    """The workers of one master, as its scaler wants them.

    With `births` it keeps the size that was decided, as ours does; without, those who die are
    missed only at the next decision.
    """

    def __init__(
        self,
        world: World,
        machine: Machine,
        queue: Queue,
        scaler: Scaler,
        *,
        least: int,
        period: float = 0.25,
        boot: tuple[float, float] = (0.02, 0.05),
        births: Births | None = None,
        chance: Random | None = None,
    ) -> None:
        self.world, self.machine, self.queue, self.scaler = world, machine, queue, scaler
        self.boot, self.births, self.chance = boot, births, chance or Random(0)
        self.wanted, self._period = least, period
        self.workers: list[Worker] = []
        self._staying = dict.fromkeys(State, 0)
        self._in_jobs, self._began = 0, 0.0  # how many are busy; the sum of when they began
        self.wanting = 0  # the busy ones that want a core
        self.paused = self.silent = self.boots_fail = False
        self.slept = 0.0  # seconds that this machine stood still: only clocks have noticed
        self.limit = self.own = self.ballast = 0  # bytes: of memory, of a worker, of all else
        self.run = self.wait = self.busy_seconds = self.served = self.worker_seconds = 0.0
        self.finished_at = 0.0  # the last job
        self.completed = self.forks = self.crashes = self.busy_retired = 0
        self.decisions: list[tuple[float, int, Decision]] = []  # with the moment, and size before
        self.history: list[tuple[float, Sample]] = []
        queue.pools.append(self)
        world.pools.append(self)
        if machine not in world.machines:
            world.machines.append(machine)
        self._fork(least)
        world.at(0.0, self._tick)

    # -- what is seen ------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Return how many workers there are, without those that leave."""
        return sum(self._staying.values())

    @property
    def _beside(self) -> list["Pool"]:
        return [one for one in self.world.pools if one.machine is self.machine and one is not self]

    @property
    def memory(self) -> int:
        """Return the bytes in use: a worker that boots owns nothing yet."""
        ready = sum(worker.state is not State.BOOT for worker in self.workers)
        return self.ballast + ready * self.own

    def sample(self) -> Sample:
        now, jobs = self.world.now, self._in_jobs
        return Sample(
            now=now + self.slept,
            waiting=None if self.silent else len(self.queue.jobs),
            busy=self._staying[State.BUSY],
            idle=self._staying[State.IDLE],
            booting=self._staying[State.BOOT],
            leaving=jobs - self._staying[State.BUSY],
            held=self.paused or (self.births is not None and self.births.broken),
            share=self.queue.share(self),
            busy_seconds=self.busy_seconds,
            served=self.served,
            completed=self.completed,
            age=now - self._began / jobs if jobs else 0.0,
            cores=self.machine.cores,
            pools=len(self._beside) + 1,
            cpu_used=self.machine.used,
            others=sum(pool.run for pool in self._beside),
            run=self.run,
            wait=self.wait,
            pressure=self.machine.pressed,
            memory=Memory(self.limit, self.memory, self.own) if self.limit else None,
        )

    # -- what happens ------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        share = self.machine.share
        self.run += self.wanting * share * seconds
        self.wait += self.wanting * (1.0 - share) * seconds
        self.busy_seconds += self._in_jobs * seconds
        self.worker_seconds += len(self.workers) * seconds

    def claim(self) -> None:
        """Have idle workers take what waits."""
        while self.queue.jobs and self._staying[State.IDLE] and not (self.silent or self.paused):
            idle = (one for one in self.workers if one.state is State.IDLE)
            worker, (came_at, job) = next(idle), self.queue.jobs.popleft()
            self.queue.waits.append((came_at, self.world.now - came_at))
            self._turn(worker, State.BUSY)
            self._in_jobs += 1
            self._began += self.world.now
            worker.began_at, worker.slices = self.world.now, deque(job)
            self._next_slice(worker)

    def go_on(self, worker: Worker) -> None:
        """Let a worker wait for I/O after its CPU, if that is next."""
        waiting = worker.slices.popleft()[1]
        if waiting:
            self.world.at(self.world.now + waiting, lambda: self._next_slice(worker))
        else:
            self._next_slice(worker)

    def _next_slice(self, worker: Worker) -> None:
        if worker.slices:
            self.machine.start(worker, worker.slices[0][0])
        elif worker.state is State.BOOT:
            self._booted(worker)
        else:
            self._finished(worker)

    def _booted(self, worker: Worker) -> None:
        if self.boots_fail:
            self.crashes += 1
            self._remove(worker)
            if self.births:
                self.births.failed(self.world.now, jitter=self.chance.random())
                self._fill()
            return
        if self.births:
            self.births.succeeded()
        self._turn(worker, State.IDLE)
        self.claim()

    def _finished(self, worker: Worker) -> None:
        self.completed, self.finished_at = self.completed + 1, self.world.now
        self.served += self.world.now - worker.began_at
        self._in_jobs -= 1
        self._began -= worker.began_at
        if worker.leaving:
            self._remove(worker)
            return
        self._turn(worker, State.IDLE)
        self.claim()

    def _turn(self, worker: Worker, state: State) -> None:
        self._staying[worker.state] -= 1
        self._staying[state] += 1
        worker.state = state

    def _remove(self, worker: Worker) -> None:
        self.workers.remove(worker)
        self._staying[worker.state] -= not worker.leaving

    # -- what is decided ---------------------------------------------------------------------

    def _tick(self) -> None:
        sample, before = self.sample(), self.size
        self.history.append((self.world.now, sample))
        if decision := self.scaler.step(sample):
            self.decisions.append((self.world.now, before, decision))
            self.wanted = decision.target
            if self.births:
                self.births.size = self.wanted
            self._retire(self.size - self.wanted, busy_too=decision.retire_busy)
        if decision or self.births:
            self._fill()
        self.world.at(self.world.now + self._period, self._tick)

    def _retire(self, surplus: int, *, busy_too: bool) -> None:
        """Idle ones first, the oldest first; busy ones leave after their job."""
        order = [State.IDLE, State.BUSY] if busy_too else [State.IDLE]
        chosen = [one for state in order for one in self._oldest(state)][: max(0, surplus)]
        for worker in chosen:
            if worker.state is State.BUSY:
                self._staying[State.BUSY] -= 1
                worker.leaving = True
                self.busy_retired += 1
            else:
                self._remove(worker)

    def _oldest(self, state: State) -> list[Worker]:
        found = [one for one in self.workers if one.state is state and not one.leaving]
        return sorted(found, key=lambda worker: worker.born_at)

    def _fill(self) -> None:
        missing = self.wanted - self.size
        for _ in range(missing):
            booting = self._staying[State.BOOT]
            if not self.births or self.births.allowed(self.world.now, booting=booting):
                self._fork(1)

    def _fork(self, number: int) -> None:
        for _ in range(number):
            worker = Worker(self, self.world.now, slices=deque([self.boot]))
            self.forks += 1
            self.workers.append(worker)
            self._staying[State.BOOT] += 1
            self._next_slice(worker)

"""What a master, a kernel, children and Redis are to a crew, without any of them.

The plant knows the truth, carries out what the crew plans, and judges every action by that truth
at the moment of the action. After each plan it looks whether something was left undone.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from random import Random

from forkresque.options import PoolSpec
from forkresque.policy.child import (
    Action,
    Baton,
    Child,
    Dismiss,
    Doing,
    Dump,
    Facts,
    Fault,
    Interrupt,
    Kill,
    Kind,
    Release,
    Rouse,
    Spawn,
)
from forkresque.policy.crew import ABORT_GRACE, BOOKS_GRACE, Crew
from forkresque.policy.judgement import (
    CLERK_SILENCE,
    DUMP_GRACE,
    FROZEN_AFTER,
    REPORT_AFTER,
    ROUSE_GRACE,
    Judge,
)
from forkresque.policy.pool import Pool
from forkresque.policy.renewal import EARLIEST, Renewal
from forkresque.supervisor.estate import pools_after

TICK = 1.0  # the longest pause of a master
BOOT_TIMEOUT = 20.0
MEGABYTE = 1 << 20
_SEATS = 32
_DEAF_AFTER = 6.0
_NAMES = ("high", "low", "mail", "slow", "batch")
_ORDERS = 60  # one in so many steps is an order, for each kind of order


@dataclass(slots=True)
class Process:
    """A child as it truly is. `busy_until` is when its boot, job or settling is over."""

    spawn: Spawn
    generation: int
    born_at: float
    beat_at: float
    busy_until: float
    crash_at: float = math.inf
    doing: Doing = Doing.BOOT
    epoch: int = 0
    jobs: int = 0
    grown: int = 0  # after its last job
    grows: int = 0
    soft_at: float = math.inf
    hard_at: float = math.inf
    held: bool = False
    leaves: bool = False
    frozen: bool = False  # hears and beats no more
    stopped: bool = False  # frozen by a signal that another one undoes
    mute: bool = False  # its job lets it beat no more
    stubborn: bool = False  # its job does not care for interrupts
    dead: bool = False
    killed: bool = False
    fault: Fault = Fault.NONE
    condemned_at: float = math.inf
    ordered_at: float = math.inf
    dismissed_at: float = math.inf
    withdrawn_at: float = math.inf
    roused: bool = False
    reported: set[int] = field(default_factory=set)
    interrupts: Counter[tuple[int, bool]] = field(default_factory=Counter)

    @property
    def seat(self) -> int:
        return self.spawn.seat

    @property
    def kind(self) -> Kind:
        return self.spawn.kind

    @property
    def stays(self) -> bool:
        return self.dismissed_at == math.inf


class Plant:
    """One crew and its world. `seen` counts what has happened to it."""

    def __init__(self, seed: int) -> None:
        self.chance = chance = Random(seed)
        self.judge = Judge(
            BOOT_TIMEOUT, chance.choice([0.0, 40.0, 300.0]), chance.choice([0, 100 * MEGABYTE])
        )
        self.renewal = Renewal(
            chance.choice([0, 0, 3, 8]), chance.choice([0.0, 0.0, 150.0]), self.judge.max_memory
        )
        pools = pools_after([], self._specs())
        watched = chance.random() < 0.3
        self.crew = Crew(_SEATS, pools, judge=self.judge, renewal=self.renewal, watched=watched)
        self.now = chance.uniform(0.0, 1e6)
        self.processes: dict[int, Process] = {}
        self.pipes: Counter[int] = Counter()  # the batons in each pool's
        self.unsettled: list[float] = []  # moments from which each death can be settled
        self.trouble = self.standstills = True
        self.redis_answers = self.code_is_good = True
        self.cut_off = False
        self.abort_at = self.ended_at = math.inf
        self.alone_since = math.inf  # since when a stopping crew has no worker any more
        self.ready_at = self.now  # when a worker was ready for the last time
        self.deadlines: dict[int, float] = {}
        self.seen: Counter[str] = Counter()

    def _specs(self) -> list[PoolSpec]:
        names = self.chance.sample(_NAMES, self.chance.randint(1, 3))
        bounds = [sorted(self.chance.choices(range(1, 7), k=2)) for _ in names]
        return [
            PoolSpec((name,), low if self.chance.random() < 0.5 else high, high)
            for name, (low, high) in zip(names, bounds, strict=True)
        ]

    # -- time ----------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def run_in_trouble(self, steps: int) -> None:
        for _ in range(steps):
            self.disturb()
            self.step()

    def run_until(self, done: Callable[[], bool], within: float) -> None:
        deadline = self.now + within
        while not done():
            assert self.now <= deadline, f"not done after {within:g} s: {self.state()}"
            self.step()

    def step(self) -> None:
        """Live through one pass of a master's loop."""
        late = self.standstills and self._strikes(0.002)
        pause = min(TICK, max(0.0, self.crew.next_step_at(self.now, self.facts()) - self.now))
        if late:
            self.now += self.chance.uniform(5.0, 500.0)  # everybody stood still
        elif self.chance.random() < 0.5:
            self.now += self.chance.uniform(0.0, pause)  # something woke the master
        else:
            self.now += pause
        if late:  # the master is the first to wake
            self.decide(late=True)
        for process in list(self.processes.values()):
            self._live(process)
        self._reap()
        if not self.crew.finished:
            self.decide(late=False)

    def decide(self, *, late: bool) -> None:
        """Let the crew plan, carry it out, and look whether all is as it should be."""
        cut = {seat for seat, child in self.crew.children.items() if child.fault is Fault.CUT_OFF}
        actions = self.crew.plan(self.now, self.facts(), late=late, cut_off=self.cut_off)
        if late:
            assert not [action for action in actions if isinstance(action, Dump)]
        owed = [self._owed(index) for index in range(len(self.crew.pools))]
        for action in actions:
            self.seen[type(action).__name__] += 1
            self._act(action)
        self._check_counts()
        self._check_deadlines()
        self._check_giving_up()
        for index, (held, places) in enumerate(owed):
            done = sum(not process.held or not process.stays for process in held)
            assert done >= min(places, len(held)), "a held worker could work"
            self._check_pool(index)
            self._check_baton(index)
        for process in self.processes.values():
            self._check_dismissed(process)
            if not late and process.seat not in cut:  # these were forgiven just now
                self._check_judged(process)

    def facts(self) -> dict[int, Facts]:
        return {
            process.seat: Facts(
                doing=process.doing,
                silent=self.now - process.beat_at,
                epoch=process.epoch,
                soft_in=process.soft_at - self.now,
                hard_in=process.hard_at - self.now,
                jobs=process.jobs,
                grown=process.grown,
                grows=process.grows,
            )
            for process in self.processes.values()
        }

    # -- what children do ----------------------------------------------------------------------

    def _live(self, process: Process) -> None:
        if process.crash_at <= self.now or self._strikes(0.0005):
            process.dead = True
        elif self._strikes(0.0005):
            process.frozen, process.stopped = True, self.chance.random() < 0.5
        if process.dead or process.frozen:
            return
        if not (process.mute and process.doing is Doing.RUN) and process.doing is not Doing.BOOT:
            process.beat_at = self.now
        lives = {
            Doing.BOOT: self._boot,
            Doing.IDLE: self._watch if process.kind is Kind.WATCHER else self._wait,
            Doing.CALL: self._wait,
            Doing.RUN: self._work,
            Doing.SETTLE: self._keep_books if process.kind is Kind.CLERK else self._settle,
        }
        lives[process.doing](process)

    def _boot(self, process: Process) -> None:
        if process.busy_until > self.now:
            return
        process.beat_at = self.now
        process.doing = Doing.SETTLE if process.kind is Kind.CLERK else Doing.IDLE
        process.busy_until = math.inf
        self.crew.got_ready(process.seat)

    def _watch(self, process: Process) -> None:
        process.dead = process.leaves

    def _wait(self, process: Process) -> None:
        pool = process.spawn.pool
        if process.leaves:
            self._go_on(process, Doing.SETTLE, self.chance.uniform(0.0, 0.2))
        elif self.crew.paused:
            process.doing = Doing.IDLE
        elif process.doing is Doing.IDLE and self.pipes[pool] and not process.held:
            self.pipes[pool] -= 1
            process.doing = Doing.CALL
        elif process.doing is Doing.CALL and self.chance.random() < 0.3:
            self.pipes[pool] += 1
            self._begin(process)

    def _begin(self, process: Process) -> None:
        process.epoch += 1
        length = self.chance.choice([0.01, 0.1, 0.5, 5.0] + [60.0, 1000.0] * self.trouble)
        self._go_on(process, Doing.RUN, length)
        process.mute, process.stubborn = self._strikes(0.1), self._strikes(0.3)
        if self.chance.random() < 0.3:
            process.soft_at = self.now + self.chance.choice([0.1, 3.0, 30.0])
            process.hard_at = process.soft_at + 10.0

    def _work(self, process: Process) -> None:
        if self._strikes(0.01):
            process.grows += 150 * MEGABYTE
        if process.busy_until <= self.now:
            process.mute = process.stubborn = False
            process.soft_at = process.hard_at = math.inf
            process.jobs += 1
            process.grows += self.chance.randrange(10 * MEGABYTE) * self._strikes(0.5)
            process.grown = process.grows
            self._go_on(process, Doing.SETTLE, self.chance.uniform(0.0, 0.2))

    def _settle(self, process: Process) -> None:
        if process.busy_until > self.now or not self.redis_answers:
            return
        if process.leaves or 0 < self.renewal.max_jobs <= process.jobs:
            process.dead = True
        else:
            process.doing = Doing.CALL

    def _keep_books(self, process: Process) -> None:
        if process.leaves:
            process.dead = True
        elif self.redis_answers:
            self.unsettled = [moment for moment in self.unsettled if moment > self.now]
            self.crew.unsettled_deaths = len(self.unsettled)

    def _go_on(self, process: Process, doing: Doing, seconds: float) -> None:
        process.doing, process.busy_until = doing, self.now + seconds

    def _strikes(self, probability: float) -> bool:
        return self.trouble and self.chance.random() < probability

    def _reap(self) -> None:
        if any(child.ready for child in self.crew.of(Kind.WORKER)):
            self.ready_at = self.now
        for process in [process for process in self.processes.values() if process.dead]:
            del self.processes[process.seat]
            self.deadlines.pop(process.seat, None)
            child = self.crew.died(process.seat, self.now, jitter=self.chance.random())
            assert (child.seat, child.kind) == (process.seat, process.kind)
            if process.kind is Kind.WORKER:
                self.unsettled.append(self.now + self.chance.uniform(0.0, 0.1))
                self.crew.unsettled_deaths = len(self.unsettled)
        self._look_for_workers()

    def _look_for_workers(self) -> None:
        if not self.crew.stopping or self.workers():
            self.alone_since = math.inf
        else:
            self.alone_since = min(self.alone_since, self.now)

    # -- what a master does, and whether it should ---------------------------------------------

    def _act(self, action: Action) -> None:
        match action:
            case Spawn():
                self._spawn(action)
            case Dismiss(seat=seat):
                self._dismiss(self.processes[seat])
            case Release(seat=seat):
                self._release(self.processes[seat])
            case Interrupt():
                self._interrupt(action)
            case Dump(seat=seat):
                self._dump(self.processes[seat], action.fault)
            case Rouse(seat=seat):
                self._rouse(self.processes[seat])
            case Kill(seat=seat):
                self._kill(self.processes[seat], action)
            case _:
                raise AssertionError(f"{action} comes from elsewhere")

    def _spawn(self, action: Spawn) -> None:
        assert 0 <= action.seat < self.crew.seats
        assert action.seat not in self.processes
        assert action.kind is Kind.CLERK or not self.crew.stopping
        if action.kind is Kind.WORKER:
            self._check_place(action)
        if self._strikes(0.05):
            failures = [pool.births.failures for pool in self.crew.pools]
            self.crew.spawn_failed(action, self.now, jitter=self.chance.random())
            assert [pool.births.failures for pool in self.crew.pools] == failures
            return
        boot = self.chance.choice([0.05, 0.05, 1.0, 1.0, 1.0, 3.0] + [math.inf] * self.trouble)
        breaks = self._strikes(0.15) or (action.kind is Kind.WORKER and not self.code_is_good)
        self.processes[action.seat] = Process(
            action,
            self.crew.generation,
            self.now,
            self.now,
            self.now + boot,
            self.now + self.chance.uniform(0.0, 2.0) if breaks else math.inf,
            held=action.replaces is not None,
        )
        self.crew.spawned(action, self.now, chance=self.chance.random())

    def _check_place(self, action: Spawn) -> None:
        """Judge the birth of a worker: is there a place for it, or will there be?"""
        target = self.crew.pools[action.pool].target
        assert len(self.working(action.pool)) <= target
        if action.replaces is None:
            assert self.load(action.pool) < target, f"{action} has no place"
            return
        before = self.processes[action.replaces]
        assert (before.kind, before.spawn.pool) == (Kind.WORKER, action.pool)
        if before.stays:
            assert self._is_due(before), f"{action} of {before}"
            assert not self.successors(before), f"{action} is a second one"
            waiting = sum(map(self.waits, self.members(action.pool)))
            assert waiting < max(1, target // 10), f"{action}, with {waiting} before it"
            self.seen[f"renewed, {action.reason.split(' ')[1]}"] += 1
        else:
            assert len(self.working(action.pool)) < target

    def _is_due(self, process: Process) -> bool:
        jobs, age = self.renewal.max_jobs, self.renewal.max_age
        return (
            process.generation < self.crew.generation
            or 5 <= jobs <= process.jobs / EARLIEST + 1
            or 0 < age * EARLIEST <= self.now - process.born_at
            or 0 < self.renewal.max_memory < process.grown
        )

    def _dismiss(self, process: Process) -> None:
        assert process.stays, f"{process} twice"
        if process.kind is Kind.WORKER:
            self._check_dismissal(process)
        else:
            is_old = process.generation < self.crew.generation
            assert is_old or self.crew.stopping
            assert is_old or process.kind is Kind.WATCHER or not self.workers()
        process.dismissed_at, process.leaves = self.now, True
        self.crew.dismissed(process.seat, self.now)

    def _check_dismissal(self, process: Process) -> None:
        index = process.spawn.pool
        if self.waits(process):
            assert self.crew.pools[index].target == 0
        elif len(self.working(index)) > self.crew.pools[index].target:
            others = [other for other in self.working(index) if not self._is_to_go_along(other)]
            idle = [other for other in others if other.doing is not Doing.RUN]
            assert process.doing is not Doing.RUN or not idle, "the idle ones go first"
        else:
            ready = [other.doing is not Doing.BOOT for other in self.successors(process)]
            assert ready == [True], f"{process} is not surplus and has no successor"

    def _is_to_go_along(self, process: Process) -> bool:
        """Return whether it has lost its sense just now, with whom it was to replace."""
        before = self._predecessor(process)
        return before is not None and before.dismissed_at == self.now

    def _release(self, process: Process) -> None:
        assert process.held
        assert process.stays
        assert not self.waits(process), "its predecessor works on"
        target = self.crew.pools[process.spawn.pool].target
        assert self.load(process.spawn.pool) < target, "it has no place yet"
        process.held = False

    def _interrupt(self, action: Interrupt) -> None:
        process = self.processes[action.seat]
        assert process.doing is Doing.RUN
        assert process.epoch == action.epoch
        is_time = (process.soft_at if action.overdue else self.abort_at) <= self.now
        assert is_time or (self.cut_off and not action.overdue)
        if not is_time:
            process.withdrawn_at = self.now
        process.interrupts[action.epoch, action.overdue] += 1
        withdrawn = process.withdrawn_at < math.inf and not action.overdue
        assert process.interrupts[action.epoch, action.overdue] <= 1 + withdrawn, f"{action} twice"
        if not process.stubborn and not process.mute and not process.frozen:
            process.busy_until = self.now

    def _dump(self, process: Process, fault: Fault) -> None:
        assert process.fault is Fault.NONE, f"{process} has dumped, and will be killed"
        if fault:
            assert fault in self.faults(process), f"{fault} of {process}"
            process.fault, process.condemned_at = fault, self.now
            self.seen[fault.name] += 1
        else:
            assert process.doing is Doing.RUN
            assert self.now - process.beat_at > REPORT_AFTER
            assert process.epoch not in process.reported, "it was reported"
            process.reported.add(process.epoch)
            self.seen["reported"] += 1

    def _rouse(self, process: Process) -> None:
        assert process.kind is Kind.WORKER
        assert process.fault is Fault.SILENT
        assert not process.roused
        assert self.now >= process.condemned_at + DUMP_GRACE
        process.roused = True
        if process.stopped:
            process.frozen, process.leaves = False, True

    def _kill(self, process: Process, action: Kill) -> None:
        assert not process.killed, f"{action} twice"
        is_silent = process.kind is Kind.WORKER and process.fault is Fault.SILENT
        grace = ROUSE_GRACE if is_silent else DUMP_GRACE
        over = [self.ended_at, process.condemned_at + grace, process.ordered_at]
        if process.kind is Kind.WORKER:
            over += [self.abort_at + ABORT_GRACE, process.withdrawn_at + ABORT_GRACE]
        else:
            over += [process.dismissed_at + BOOKS_GRACE, self.alone_since + BOOKS_GRACE]
        assert min(over) <= self.now + 1e-6, f"{action} before its time: {process}"
        process.killed = process.dead = True

    # -- what is so, by the truth --------------------------------------------------------------

    def workers(self) -> list[Process]:
        return [process for process in self.processes.values() if process.kind is Kind.WORKER]

    def members(self, index: int) -> list[Process]:
        """Return a pool's workers that were not asked to leave."""
        return [each for each in self.workers() if each.spawn.pool == index and each.stays]

    def waits(self, process: Process) -> bool:
        """Return whether a process is to replace one that was not asked to leave yet."""
        before = self._predecessor(process)
        return before is not None and before.stays

    def _predecessor(self, process: Process) -> Process | None:
        """Return whom it replaces, if that one is there still: its seat may be another's now."""
        seat = process.spawn.replaces
        before = None if seat is None else self.processes.get(seat)
        is_older = before is not None and before.born_at < process.born_at
        return before if process.held and is_older else None

    def successors(self, process: Process) -> list[Process]:
        """Return who is to replace a process, and stays."""
        return [
            each for each in self.members(process.spawn.pool) if self._predecessor(each) is process
        ]

    def working(self, index: int) -> list[Process]:
        """Return those who make up a pool."""
        return [process for process in self.members(index) if not self.waits(process)]

    def load(self, index: int) -> int:
        """Return how many jobs a pool may have in hand: claimants, and those who finish theirs."""
        claiming = [process for process in self.members(index) if not process.held]
        leaving = [
            process
            for process in self.workers()
            if process.spawn.pool == index and not process.stays and process.doing is not Doing.BOOT
        ]
        return len(claiming) + len(leaving)

    def _owed(self, index: int) -> tuple[list[Process], int]:
        """Return who is held in a pool and waits for nobody, and how many places are free."""
        held = [process for process in self.working(index) if process.held]
        return held, self.crew.pools[index].target - self.load(index)

    def faults(self, process: Process) -> list[Fault]:
        """Return what a process is guilty of."""
        silent, is_worker = self.now - process.beat_at, process.kind is Kind.WORKER
        timeout, memory = self.judge.heartbeat_timeout, self.judge.max_memory
        frozen = min(FROZEN_AFTER, max(10.0, timeout)) if timeout else FROZEN_AFTER
        is_running = process.doing is Doing.RUN
        is_booting = process.doing is Doing.BOOT
        guilty = {
            Fault.BOOT: is_booting and self.now - process.born_at > BOOT_TIMEOUT,
            Fault.SILENT: not (is_running or is_booting)
            and silent > (frozen if is_worker else CLERK_SILENCE),
            Fault.STUCK: is_running and 0 < timeout < silent,
            Fault.OVERDUE: is_running and process.hard_at <= self.now,
            Fault.TOO_LARGE: is_worker and not is_booting and 0 < 2 * memory < process.grows,
        }
        judged = process.kind is not Kind.WATCHER
        return [fault for fault, found in guilty.items() if found and judged]

    # -- what must hold after each plan --------------------------------------------------------

    def _check_counts(self) -> None:
        assert self.crew.children.keys() == self.processes.keys()
        kinds = Counter(process.kind for process in self.processes.values())
        assert kinds[Kind.CLERK] <= 1
        assert kinds[Kind.WATCHER] <= self.crew.watched
        assert self.crew.target <= self.crew.seats - 2
        assert not self.crew.finished or not self.processes

    def _check_pool(self, index: int) -> None:
        pool, working = self.crew.pools[index], self.working(index)
        assert pool.least <= pool.target <= pool.most
        assert len(working) <= pool.target
        assert sum(not process.held for process in self.members(index)) <= pool.target
        assert not self.crew.stopping or pool.target == 0
        assert pool.births.next_at <= self.now + 30.0

    def _check_deadlines(self) -> None:
        assert self.crew.abort_at <= self.abort_at + 1e-9
        for seat, child in self.crew.children.items():
            before = self.deadlines.get(seat, math.inf)
            may_be_forgiven = self.processes[seat].withdrawn_at < math.inf
            assert child.kill_at <= max(before, self.now) or may_be_forgiven, f"more time: {child}"
            self.deadlines[seat] = child.kill_at

    def _check_giving_up(self) -> None:
        failing_for = self.crew.failing_for(self.now)
        if any(child.ready for child in self.crew.of(Kind.WORKER)):
            assert failing_for == 0.0
        assert 0.0 <= failing_for <= self.now - self.ready_at
        self.seen["failing"] += failing_for > 0

    def _check_dismissed(self, process: Process) -> None:
        """Look whether somebody stays who should not."""
        if process.kind is not Kind.WORKER and not self.crew.stopping:
            assert process.generation == self.crew.generation or not process.stays
        if self.crew.stopping and process.kind is not Kind.CLERK:
            assert not process.stays
        assert process.ordered_at == math.inf or process.killed

    def _check_judged(self, process: Process) -> None:
        """Look whether a fault was overlooked."""
        known = process.fault or self.crew.children[process.seat].fault
        assert known or not self.faults(process), f"{process} is {self.faults(process)}"
        is_strange = process.doing is Doing.RUN and self.now - process.beat_at > REPORT_AFTER
        assert known or not is_strange or process.epoch in process.reported

    def _check_baton(self, index: int) -> None:
        facts = self.facts()
        batons = self.crew.baton(index, facts, pipe_empty=not self.pipes[index])
        seen = [facts[process.seat] for process in self.members(index)]
        on_call = any(one.doing is Doing.CALL and one.silent < _DEAF_AFTER for one in seen)
        at_rest = self.crew.paused or self.crew.stopping
        wanted = bool(seen) and not on_call and not self.pipes[index] and not at_rest
        assert batons == [Baton(index)] * wanted
        self.pipes[index] += len(batons)

    # -- orders --------------------------------------------------------------------------------

    def disturb(self) -> None:
        """Give, now and then, one of the orders that people and controllers give."""
        pool = self.chance.choice(self.crew.pools)
        match self.chance.randrange(_ORDERS):
            case 0 | 1 if pool.most:
                self.allow(pool, pool.most + self.chance.choice([-3, -1, +1, +3]))
            case 2 | 3 | 4 if pool.is_elastic:
                pool.want(self.chance.randint(pool.least, pool.most))
            case 5:
                self.crew.paused = not self.crew.paused
            case 6:
                self.redis_answers = not self.redis_answers
            case 7 | 8:
                self.cut_off = not self.cut_off and self.chance.random() < 0.2
            case 9 if workers := self.workers():
                process = self.chance.choice(workers)
                process.ordered_at = self.now
                self.crew.condemn(process.seat, Fault.ORDERED, self.now)
            case 10 if self.chance.random() < 0.3:
                self.reload()

    def allow(self, pool: Pool, most: int) -> None:
        self.crew.allow(pool, most)
        assert 1 <= pool.most == pool.target or pool.is_elastic
        assert sum(each.most for each in self.crew.pools) <= self.crew.seats - 2

    def reload(self) -> None:
        """Go on with newer code, other pools, and what is known of the children."""
        before = [{"queues": pool.queues, "target": pool.target} for pool in self.crew.pools]
        crew = Crew(
            _SEATS,
            pools_after(before, self._specs()),
            judge=self.judge,
            renewal=self.renewal,
            watched=self.crew.watched,
            generation=self.crew.generation + 1,
            paused=self.crew.paused,
            unsettled_deaths=self.crew.unsettled_deaths,
            ever_ready=True,
        )
        for child in self.crew.children.values():
            crew.children[child.seat] = Child(**asdict(child))
        self.crew = crew
        self.code_is_good = self.chance.random() < 0.7
        self.seen["abolished"] += sum(not pool.most for pool in crew.pools)

    def heal(self) -> None:
        """End all trouble; who is frozen or hangs stays so, if anybody looks after that."""
        self.trouble = self.cut_off = self.crew.paused = False
        self.redis_answers = self.code_is_good = True
        for process in self.processes.values():
            if process.doing is Doing.RUN:
                process.busy_until = min(process.busy_until, self.now + 5.0)
                process.frozen &= self.judge.heartbeat_timeout > 0
            if process.kind is Kind.WATCHER:
                process.frozen = False

    def stop(self, within: float) -> None:
        self.standstills = False  # the machine's, which no deadline of ours survives
        self.abort_at = min(self.abort_at, self.now + within)
        self.crew.stop(self.now, within)
        self._look_for_workers()

    def end(self) -> None:
        self.standstills = False
        self.abort_at = min(self.abort_at, self.now)
        self.ended_at = min(self.ended_at, self.now)
        self.crew.end(self.now)
        self._look_for_workers()

    def whole(self) -> bool:
        """Return whether there are as many live workers as wanted, of the newest code."""
        clerks = [process for process in self.processes.values() if process.kind is Kind.CLERK]
        if not (clerks and all(map(self._is_well, clerks))) or self.crew.is_rolling:
            return False
        return all(
            len([each for each in self.working(index) if self._is_well(each)]) == pool.target
            for index, pool in enumerate(self.crew.pools)
        )

    def _is_well(self, process: Process) -> bool:
        ready = self.crew.children[process.seat].ready
        return ready and not process.frozen and not process.mute

    def state(self) -> str:
        return f"now={self.now} crew={self.crew} processes={list(self.processes.values())}"

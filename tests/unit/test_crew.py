"""The pool's decisions: a plant that carries them out and lives through trouble, then exact cases.

The plant is what a master, a kernel, children and Redis are to the pool. It knows the truth, and
judges every action by it at the moment of the action.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

import pytest

from forkresque.policy.pool import (
    ABORT_GRACE,
    BOOKS_GRACE,
    CLERK_SILENCE,
    DUMP_GRACE,
    FROZEN_AFTER,
    Action,
    Baton,
    Dismiss,
    Doing,
    Dump,
    Facts,
    Fault,
    Interrupt,
    Kill,
    Kind,
    Pool,
    Spawn,
)

SEEDS = range(60)
TICK = 1.0  # the longest pause of a master
SLACK = 2.5  # seconds by which a stop may be late: one tick at the abort, one at the books
BOOT_TIMEOUT, HEARTBEAT_TIMEOUT = 20.0, 40.0


# -- the plant ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Process:
    """A child as it truly is. `busy_until` is when its boot, job or settling is over."""

    seat: int
    kind: Kind
    born_at: float
    beat_at: float
    busy_until: float
    crash_at: float = math.inf
    doing: Doing = Doing.BOOT
    epoch: int = 0
    soft_at: float = math.inf
    hard_at: float = math.inf
    leaves: bool = False
    frozen: bool = False  # hears and beats no more; only a kill ends it
    mute: bool = False  # its job lets it beat no more
    stubborn: bool = False  # its job does not care for interrupts
    dead: bool = False
    condemned_at: float = math.inf
    dismissed_at: float = math.inf
    killed: bool = False
    interrupts: Counter[tuple[int, bool]] = field(default_factory=Counter)


class Plant:
    """Carries out what a pool plans, and asserts that each step was right."""

    def __init__(self, seed: int, *, size: int = 0) -> None:
        self.chance = Random(seed)
        size = size or self.chance.randint(1, 9)
        self.pool = Pool(
            seats=size + 6,
            target=size,
            boot_timeout=BOOT_TIMEOUT,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
        )
        self.now = self.chance.uniform(0.0, 1e6)
        self.processes: dict[int, Process] = {}
        self.pipe = 0
        self.unsettled: list[float] = []  # moments from which each death can be settled
        self.trouble = self.standstills = True
        self.redis_answers = True
        self.abort_at = math.inf
        self.ended_at = math.inf
        self.alone_since = math.inf  # since when a stopping pool has no worker any more
        self.deadlines: dict[int, float] = {}

    # -- time ----------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def run_until(self, done: Callable[[], bool], within: float) -> None:
        deadline = self.now + within
        while not done():
            assert self.now <= deadline, f"not done after {within:g} s: {self.state()}"
            self.step()

    def step(self) -> None:
        """Live through one pass of a master's loop."""
        late = self.standstills and self._strikes(0.002)
        pause = min(TICK, max(0.0, self.pool.next_step_at(self.now, self.facts()) - self.now))
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
        if not self.pool.finished:
            self.decide(late=False)

    def decide(self, *, late: bool) -> None:
        """Let the pool plan, and carry it out."""
        actions = self.pool.plan(self.now, self.facts(), late=late)
        if late:
            assert not [action for action in actions if isinstance(action, Dump)]
        for action in actions:
            self._act(action)
        self._check_counts()
        self._check_deadlines()
        self._check_baton()

    def facts(self) -> dict[int, Facts]:
        return {
            process.seat: Facts(
                doing=process.doing,
                silent=self.now - process.beat_at,
                epoch=process.epoch,
                soft_in=process.soft_at - self.now,
                hard_in=process.hard_at - self.now,
            )
            for process in self.processes.values()
        }

    # -- what children do --------------------------------------------------------------------

    def _live(self, process: Process) -> None:
        if process.crash_at <= self.now or self._strikes(0.0005):
            process.dead = True
        elif self._strikes(0.0005):
            process.frozen = True
        if process.dead or process.frozen:
            return
        if not (process.mute and process.doing is Doing.RUN) and process.doing is not Doing.BOOT:
            process.beat_at = self.now
        lives = {
            Doing.BOOT: self._boot,
            Doing.IDLE: self._wait,
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
        self.pool.got_ready(process.seat)

    def _wait(self, process: Process) -> None:
        if process.leaves:
            self._go_on(process, Doing.SETTLE, self.chance.uniform(0.0, 0.2))
        elif self.pool.paused:
            process.doing = Doing.IDLE
        elif process.doing is Doing.IDLE and self.pipe:
            self.pipe -= 1
            process.doing = Doing.CALL
        elif process.doing is Doing.CALL and self.chance.random() < 0.3:
            self.pipe += 1
            self._begin(process)

    def _begin(self, process: Process) -> None:
        process.epoch += 1
        length = self.chance.choice([0.01, 0.5, 5.0] + [60.0, 1000.0] * self.trouble)
        self._go_on(process, Doing.RUN, length)
        process.mute, process.stubborn = self._strikes(0.02), self._strikes(0.3)
        if self.chance.random() < 0.3:
            process.soft_at = self.now + self.chance.choice([0.1, 3.0, 30.0])
            process.hard_at = process.soft_at + 10.0

    def _work(self, process: Process) -> None:
        if process.busy_until <= self.now:
            process.mute = process.stubborn = False
            process.soft_at = process.hard_at = math.inf
            self._go_on(process, Doing.SETTLE, self.chance.uniform(0.0, 0.2))

    def _settle(self, process: Process) -> None:
        if process.busy_until > self.now or not self.redis_answers:
            return
        if process.leaves:
            process.dead = True
        else:
            process.doing = Doing.CALL

    def _keep_books(self, process: Process) -> None:
        if process.leaves:
            process.dead = True
        elif self.redis_answers:
            self.unsettled = [moment for moment in self.unsettled if moment > self.now]
            self.pool.unsettled_deaths = len(self.unsettled)

    def _go_on(self, process: Process, doing: Doing, seconds: float) -> None:
        process.doing, process.busy_until = doing, self.now + seconds

    def _strikes(self, probability: float) -> bool:
        return self.trouble and self.chance.random() < probability

    def _reap(self) -> None:
        for process in [process for process in self.processes.values() if process.dead]:
            del self.processes[process.seat]
            self.deadlines.pop(process.seat, None)
            child = self.pool.died(process.seat, self.now, jitter=self.chance.random())
            assert (child.seat, child.kind) == (process.seat, process.kind)
            if process.kind is Kind.WORKER:
                self.unsettled.append(self.now + self.chance.uniform(0.0, 0.1))
                self.pool.unsettled_deaths = len(self.unsettled)
        if not self.pool.stopping or self._workers():
            self.alone_since = math.inf
        else:
            self.alone_since = min(self.alone_since, self.now)

    # -- what a master does, and whether it should --------------------------------------------

    def _act(self, action: Action) -> None:
        match action:
            case Spawn():
                self._spawn(action)
            case Dismiss(seat=seat):
                process = self.processes[seat]
                assert process.dismissed_at == math.inf, f"{action} twice"
                assert process.kind is Kind.WORKER or not self._workers(), "the clerk leaves last"
                process.dismissed_at, process.leaves = self.now, True
                self.pool.dismissed(seat, self.now)
            case Interrupt():
                self._interrupt(action)
            case Dump(seat=seat):
                self._check_condemnation(self.processes[seat], action)
                self.processes[seat].condemned_at = self.now
            case Kill(seat=seat):
                self._check_kill(self.processes[seat], action)
                self.processes[seat].killed = self.processes[seat].dead = True
            case Baton():
                raise AssertionError("plan gives no batons")

    def _spawn(self, action: Spawn) -> None:
        assert 0 <= action.seat < self.pool.seats
        assert action.seat not in self.processes
        assert action.kind is Kind.CLERK or not self.pool.stopping
        if self._strikes(0.05):
            self.pool.spawn_failed(action.kind, self.now, jitter=self.chance.random())
            return
        boot = self.chance.choice([0.05, 1.0, 1.0, 3.0] + [math.inf] * self.trouble)
        crash = self.chance.uniform(0.0, 2.0) if self._strikes(0.3) else math.inf
        self.processes[action.seat] = Process(
            action.seat, action.kind, self.now, self.now, self.now + boot, self.now + crash
        )
        self.pool.spawned(action.seat, action.kind, self.now)

    def _interrupt(self, action: Interrupt) -> None:
        process = self.processes[action.seat]
        assert process.doing is Doing.RUN
        assert process.epoch == action.epoch
        assert (process.soft_at if action.overdue else self.abort_at) <= self.now
        process.interrupts[action.epoch, action.overdue] += 1
        assert process.interrupts[action.epoch, action.overdue] == 1, f"{action} twice"
        if not process.stubborn and not process.mute and not process.frozen:
            process.busy_until = self.now

    def _check_condemnation(self, process: Process, action: Dump) -> None:
        silent = self.now - process.beat_at
        just = {
            Fault.BOOT: process.doing is Doing.BOOT and self.now - process.born_at > BOOT_TIMEOUT,
            Fault.SILENT: process.doing is not Doing.RUN
            and silent > (CLERK_SILENCE if process.kind is Kind.CLERK else FROZEN_AFTER),
            Fault.STUCK: process.doing is Doing.RUN and silent > HEARTBEAT_TIMEOUT,
            Fault.OVERDUE: process.doing is Doing.RUN and process.hard_at <= self.now,
        }
        assert just[action.fault], f"{action} of {process}"

    def _check_kill(self, process: Process, action: Kill) -> None:
        assert not process.killed, f"{action} twice"
        over = [self.ended_at, process.condemned_at + DUMP_GRACE]
        if process.kind is Kind.WORKER:
            over.append(self.abort_at + ABORT_GRACE)
        else:
            over += [process.dismissed_at + BOOKS_GRACE, self.alone_since + BOOKS_GRACE]
        assert min(over) <= self.now + 1e-6, f"{action} before its time: {process}"

    def _workers(self) -> list[Process]:
        return [process for process in self.processes.values() if process.kind is Kind.WORKER]

    def staying(self) -> list[Process]:
        return [process for process in self._workers() if process.dismissed_at == math.inf]

    def _check_counts(self) -> None:
        assert self.pool.children.keys() == self.processes.keys()
        assert len(self.processes) - len(self._workers()) <= 1, "two clerks"
        assert len(self.staying()) <= self.pool.target
        assert self.pool.stopping or 1 <= self.pool.target <= self.pool.seats - 2
        assert not self.pool.finished or not self.processes
        births = self.pool.births[Kind.WORKER]
        assert births.next_at <= self.now + 30.0

    def _check_deadlines(self) -> None:
        assert self.pool.abort_at <= self.abort_at + 1e-9
        for seat, child in self.pool.children.items():
            before = self.deadlines.get(seat, math.inf)
            assert child.kill_at <= max(before, self.now), f"more time for {child}"
            self.deadlines[seat] = child.kill_at

    def _check_baton(self) -> None:
        facts = self.facts()
        batons = self.pool.baton(facts, pipe_empty=not self.pipe)
        workers = [facts[process.seat] for process in self.staying()]
        on_call = any(seen.doing is Doing.CALL and seen.silent < 6.0 for seen in workers)
        at_rest = self.pool.paused or self.pool.stopping
        wanted = bool(workers) and not on_call and not self.pipe and not at_rest
        assert batons == [Baton()] * wanted
        self.pipe += len(batons)

    # -- orders ------------------------------------------------------------------------------

    def disturb(self) -> None:
        """Give one of the orders that people give."""
        match self.chance.randrange(40):
            case 0:
                self.pool.resize(+1)
            case 1:
                self.pool.resize(-1)
            case 2:
                self.pool.paused = not self.pool.paused
            case 3:
                self.redis_answers = not self.redis_answers
            case _:
                pass

    def heal(self) -> None:
        """End all trouble; who is frozen or hangs stays so."""
        self.trouble, self.redis_answers, self.pool.paused = False, True, False
        for process in self.processes.values():
            if process.doing is Doing.RUN:
                process.busy_until = min(process.busy_until, self.now + 5.0)

    def stop(self, within: float) -> None:
        self.standstills = False  # the machine's, which no deadline of ours survives
        self.abort_at = min(self.abort_at, self.now + within)
        self.pool.stop(self.now, within)

    def end(self) -> None:
        self.standstills = False
        self.abort_at = min(self.abort_at, self.now)
        self.ended_at = min(self.ended_at, self.now)
        self.pool.end(self.now)

    def whole(self) -> bool:
        """Return whether there are as many live workers as wanted, and a clerk."""
        alive = [process for process in self.staying() if self._is_well(process)]
        clerks = [process for process in self.processes.values() if process.kind is Kind.CLERK]
        return len(alive) == self.pool.target and len(clerks) == 1 and self._is_well(clerks[0])

    def _is_well(self, process: Process) -> bool:
        ready = self.pool.children[process.seat].ready
        return ready and not process.frozen and not process.mute

    def state(self) -> str:
        return f"now={self.now} pool={self.pool} processes={list(self.processes.values())}"


# -- what must hold after any trouble ----------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pool_in_trouble_keeps_its_rules_and_is_whole_again_when_trouble_ends(seed: int) -> None:
    plant = Plant(seed)
    for _ in range(700):
        plant.disturb()
        plant.step()

    plant.heal()
    # The longest way back: a boot or a job that hangs, and after it the longest back-off.
    plant.run_until(plant.whole, FROZEN_AFTER + BOOT_TIMEOUT + 30.0 + 30.0)
    plant.run(100)

    assert plant.whole()
    assert plant.pool.target == len(plant.staying())


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stop_in_any_trouble_ends_in_its_time(seed: int) -> None:
    plant = Plant(seed)
    for _ in range(plant.chance.randrange(300)):
        plant.disturb()
        plant.step()
    within = plant.chance.choice([0.0, 1.0, 5.0, 25.0])

    plant.stop(within)
    plant.run_until(lambda: plant.pool.finished, within + ABORT_GRACE + BOOKS_GRACE + SLACK)

    assert not plant.processes


@pytest.mark.parametrize("seed", SEEDS)
def test_who_stops_a_healthy_pool_twice_waits_for_the_shorter_time(seed: int) -> None:
    plant = Plant(seed)
    plant.heal()
    plant.run(plant.chance.randrange(300))
    first, second = plant.chance.choice([(25.0, 1.0), (math.inf, 3.0), (1.0, 25.0)])

    plant.stop(first)
    plant.run(plant.chance.randrange(3))
    deadline = min(first, second) + ABORT_GRACE + BOOKS_GRACE + SLACK
    plant.stop(second)
    plant.run_until(lambda: plant.pool.finished, deadline)

    assert not plant.processes


@pytest.mark.parametrize("seed", SEEDS)
def test_an_end_in_any_trouble_leaves_only_the_books_to_do(seed: int) -> None:
    plant = Plant(seed)
    for _ in range(plant.chance.randrange(300)):
        plant.disturb()
        plant.step()
    if plant.chance.random() < 0.5:
        plant.stop(25.0)
        plant.run(plant.chance.randrange(10))

    if not plant.pool.finished:
        plant.end()
    plant.run_until(lambda: plant.pool.finished, BOOKS_GRACE + SLACK)

    assert not plant.processes


# -- exact cases -------------------------------------------------------------------------------


CLERK = 0  # the clerk's seat in the pools below; the workers sit from 1 on


def ready_pool(size: int = 2, *, heartbeat_timeout: float = 300.0, seats: int = 0) -> Pool:
    """Return a pool whose children were all born and ready at 0."""
    pool = Pool(seats=seats or size + 4, target=size, heartbeat_timeout=heartbeat_timeout)
    births = pool.plan(0.0, {})
    assert births == [
        Spawn(CLERK, Kind.CLERK),
        *(Spawn(seat, Kind.WORKER) for seat in range(1, size + 1)),
    ]
    for birth in births:
        assert isinstance(birth, Spawn)
        pool.spawned(birth.seat, birth.kind, 0.0)
        pool.got_ready(birth.seat)
    return pool


def idle(silent: float = 0.0) -> Facts:
    return Facts(Doing.IDLE, silent)


def running(
    epoch: int = 1, *, silent: float = 0.0, soft_in: float = math.inf, hard_in: float = math.inf
) -> Facts:
    return Facts(Doing.RUN, silent, epoch, soft_in, hard_in)


def facts_of(pool: Pool, seen: dict[int, Facts] | None = None) -> dict[int, Facts]:
    """Return facts of all children: a clerk at work and idle workers, but for those in `seen`."""
    usual = {Kind.CLERK: Facts(Doing.SETTLE, 0.0), Kind.WORKER: idle()}
    return {seat: usual[child.kind] for seat, child in pool.children.items()} | (seen or {})


def planned(pool: Pool, now: float, seen: dict[int, Facts] | None = None) -> list[Action]:
    """Return the pool's plan, after taking note of the dismissals in it."""
    actions = pool.plan(now, facts_of(pool, seen))
    for action in actions:
        if isinstance(action, Dismiss):
            pool.dismissed(action.seat, now)
    return actions


def test_a_pool_whose_children_are_well_has_nothing_to_do() -> None:
    pool = ready_pool()

    assert planned(pool, 10.0) == []
    assert pool.next_step_at(10.0, facts_of(pool)) == math.inf


def test_a_crashed_worker_that_was_ready_is_replaced_at_once() -> None:
    pool = ready_pool()

    pool.died(1, 10.0, jitter=0.5)

    assert planned(pool, 10.0) == [Spawn(1, Kind.WORKER)]


def test_a_worker_that_dies_in_boot_is_replaced_after_a_pause() -> None:
    pool = Pool(seats=5, target=1)
    pool.spawned(0, Kind.CLERK, 0.0)
    pool.got_ready(0)
    pool.spawned(1, Kind.WORKER, 0.0)

    pool.died(1, 1.0, jitter=1.0)

    assert planned(pool, 1.0) == []
    assert pool.next_step_at(1.0, facts_of(pool)) == pytest.approx(1.1)
    assert planned(pool, 1.1) == [Spawn(1, Kind.WORKER)]


def test_the_first_worker_that_gets_ready_ends_the_pause_for_all() -> None:
    pool = Pool(seats=8, target=4)
    pool.spawned(0, Kind.CLERK, 0.0)
    pool.got_ready(0)
    for seat in range(1, 5):
        pool.spawned(seat, Kind.WORKER, 0.0)
        pool.died(seat, 1.0, jitter=1.0)
    booting = {1: Facts(Doing.BOOT, 0.0)}
    assert planned(pool, 10.0) == [Spawn(1, Kind.WORKER)]
    pool.spawned(1, Kind.WORKER, 10.0)
    assert planned(pool, 10.1, booting) == []

    pool.got_ready(1)

    assert planned(pool, 10.2) == [Spawn(seat, Kind.WORKER) for seat in (2, 3, 4)]


def test_a_worker_that_was_dismissed_in_boot_is_no_boot_failure() -> None:
    pool = ready_pool(1)
    pool.resize(+1)
    pool.spawned(2, Kind.WORKER, 1.0)
    pool.resize(-1)
    pool.dismissed(2, 1.0)
    pool.died(2, 1.1, jitter=1.0)

    pool.resize(+1)

    assert planned(pool, 1.1) == [Spawn(2, Kind.WORKER)]


def test_a_fork_that_the_kernel_refuses_is_tried_again_after_a_pause() -> None:
    pool = Pool(seats=5, target=1)
    pool.spawned(0, Kind.CLERK, 0.0)

    pool.spawn_failed(Kind.WORKER, 1.0, jitter=0.0)

    assert planned(pool, 1.049) == []
    assert planned(pool, 1.051) == [Spawn(1, Kind.WORKER)]


def test_a_stop_lets_jobs_run_for_its_time_then_interrupts_and_then_kills_them() -> None:
    pool, job = ready_pool(), {1: running(epoch=7)}

    pool.stop(100.0, 5.0)

    assert planned(pool, 100.0, job) == [Dismiss(2), Dismiss(1)]
    assert pool.next_step_at(100.0, facts_of(pool)) == 105.0
    pool.died(2, 100.1, jitter=0.5)
    assert planned(pool, 104.9, job) == []
    assert planned(pool, 105.0, job) == [Interrupt(1, 7, overdue=False)]
    assert planned(pool, 105.1, job) == []
    assert planned(pool, 106.9, job) == []
    assert pool.next_step_at(106.9, facts_of(pool)) == 107.0
    assert planned(pool, 107.0, job) == [Kill(1, Fault.CUT)]
    assert planned(pool, 107.1, job) == []
    assert pool.died(1, 107.2, jitter=0.5).cut
    assert pool.cuts == 1


def test_the_clerk_leaves_last_when_the_deaths_are_settled() -> None:
    pool = ready_pool(1)
    pool.stop(0.0, 5.0)
    planned(pool, 0.0)

    pool.died(1, 1.0, jitter=0.5)
    pool.unsettled_deaths = 1
    assert planned(pool, 1.0) == []
    pool.unsettled_deaths = 0
    assert planned(pool, 1.1) == [Dismiss(CLERK)]
    assert planned(pool, 1.2) == []
    assert not pool.finished
    pool.died(CLERK, 1.2, jitter=0.5)

    assert pool.finished
    assert pool.cuts == 0


def test_a_clerk_that_does_not_leave_is_killed() -> None:
    pool = ready_pool(1)
    pool.stop(0.0, 5.0)
    planned(pool, 0.0)
    pool.died(1, 1.0, jitter=0.5)

    assert planned(pool, 1.0) == [Dismiss(CLERK)]
    assert planned(pool, 1.0 + BOOKS_GRACE) == [Kill(CLERK, Fault.BOOKS)]


def test_a_clerk_that_dies_during_a_drain_is_replaced() -> None:
    pool, job = ready_pool(1), {1: running()}
    pool.stop(0.0, 25.0)
    planned(pool, 0.0, job)

    pool.died(CLERK, 1.0, jitter=0.5)

    assert planned(pool, 1.0, job) == [Spawn(CLERK, Kind.CLERK)]


def test_a_stop_does_not_wait_for_books_that_nobody_can_finish() -> None:
    pool = ready_pool(1)
    pool.stop(0.0, 5.0)
    planned(pool, 0.0)
    pool.died(1, 1.0, jitter=0.5)
    pool.unsettled_deaths = 1  # and Redis is away, so it stays so

    actions: list[Action] = []
    for tenth in range(10, 10 + 50):
        actions += planned(pool, tenth / 10)

    assert actions[-1] == Kill(CLERK, Fault.BOOKS)


def test_a_stop_does_not_wait_for_a_boot_that_hangs() -> None:
    pool = ready_pool(1)
    pool.spawned(2, Kind.WORKER, 0.0)
    pool.stop(1.0, 5.0)
    booting = {2: Facts(Doing.BOOT, 1.0)}
    planned(pool, 1.0, booting)
    pool.died(1, 1.1, jitter=0.5)

    actions = [action for second in range(2, 11) for action in planned(pool, second, booting)]

    assert Kill(2, Fault.CUT) in actions


def test_a_second_stop_shortens_the_first() -> None:
    pool, job = ready_pool(1), {1: running()}
    pool.stop(0.0, 25.0)
    planned(pool, 0.0, job)

    pool.stop(3.0, 1.0)

    assert planned(pool, 3.9, job) == []
    assert planned(pool, 4.0, job) == [Interrupt(1, 1, overdue=False)]
    assert planned(pool, 6.0, job) == [Kill(1, Fault.CUT)]


def test_a_second_stop_never_gives_more_time() -> None:
    pool, job = ready_pool(1), {1: running()}
    pool.stop(0.0, 5.0)
    planned(pool, 0.0, job)

    pool.stop(1.0, math.inf)
    pool.stop(2.0, 25.0)

    assert planned(pool, 5.0, job) == [Interrupt(1, 1, overdue=False)]


def test_a_stop_without_a_limit_waits_for_the_job_however_long_it_takes() -> None:
    pool, job = ready_pool(1), {1: running()}
    pool.stop(0.0, math.inf)

    assert planned(pool, 0.0, job) == [Dismiss(1)]
    assert planned(pool, 1e6, job) == []


def test_an_end_kills_all_workers_at_once_and_leaves_the_clerk_its_books() -> None:
    pool, job = ready_pool(), {1: running()}

    pool.end(3.0)

    assert planned(pool, 3.0, job) == [
        Dismiss(2),
        Dismiss(1),
        Kill(1, Fault.CUT),
        Kill(2, Fault.CUT),
    ]
    pool.died(1, 3.0, jitter=0.5)
    pool.died(2, 3.0, jitter=0.5)
    assert planned(pool, 3.0) == [Dismiss(CLERK)]


def test_an_end_during_a_drain_kills_at_once() -> None:
    pool, job = ready_pool(1), {1: running()}
    pool.stop(0.0, 25.0)
    planned(pool, 0.0, job)

    pool.end(3.0)

    assert planned(pool, 3.0, job) == [Kill(1, Fault.CUT)]


def test_a_worker_that_leaves_when_asked_has_not_been_cut() -> None:
    pool = ready_pool(1)
    pool.stop(0.0, 0.0)

    planned(pool, 0.0)
    planned(pool, 0.1, {1: Facts(Doing.LEAVE, 0.0)})  # it unregisters
    pool.died(1, 0.2, jitter=0.5)

    assert pool.cuts == 0


def test_a_dismissal_gives_a_silent_clerk_no_more_time() -> None:
    pool, silent = ready_pool(1), {CLERK: Facts(Doing.SETTLE, CLERK_SILENCE + 0.1)}
    pool.stop(0.0, 5.0)
    planned(pool, 0.0)

    assert planned(pool, 1.0, silent) == [Dump(CLERK, Fault.SILENT)]
    pool.died(1, 1.1, jitter=0.5)
    planned(pool, 1.1, silent)

    last = planned(pool, 1.0 + DUMP_GRACE, silent)
    assert [type(action) for action in last] == [Kill]


def test_a_job_over_its_limit_is_interrupted_once_and_killed_at_the_hard_limit() -> None:
    pool = ready_pool(1)

    assert planned(pool, 1.0, {1: running(4, soft_in=0.1, hard_in=10.1)}) == []
    assert planned(pool, 1.1, {1: running(4, soft_in=0.0, hard_in=10.0)}) == [
        Interrupt(1, 4, overdue=True)
    ]
    assert planned(pool, 2.0, {1: running(4, soft_in=-1.0, hard_in=9.0)}) == []
    assert planned(pool, 11.0, {1: running(4, soft_in=-10.0, hard_in=0.0)}) == [
        Dump(1, Fault.OVERDUE)
    ]
    assert planned(pool, 11.4, {1: running(4, soft_in=-10.4, hard_in=-0.4)}) == []
    assert planned(pool, 11.5, {1: running(4, soft_in=-10.5, hard_in=-0.5)}) == [
        Kill(1, Fault.OVERDUE)
    ]
    assert not pool.died(1, 11.6, jitter=0.5).cut


def test_each_job_over_its_limit_is_interrupted_once() -> None:
    pool = ready_pool(1)

    interrupts = [
        planned(pool, float(epoch), {1: running(epoch, soft_in=-0.1)}) for epoch in (1, 1, 2, 2, 3)
    ]

    assert interrupts == [
        [Interrupt(1, 1, overdue=True)],
        [],
        [Interrupt(1, 2, overdue=True)],
        [],
        [Interrupt(1, 3, overdue=True)],
    ]


def test_a_job_without_a_sign_of_life_is_stuck_after_the_timeout() -> None:
    pool = ready_pool(1, heartbeat_timeout=300.0)

    assert planned(pool, 300.0, {1: running(silent=300.0)}) == []
    assert planned(pool, 301.0, {1: running(silent=301.0)}) == [Dump(1, Fault.STUCK)]
    assert planned(pool, 301.5, {1: running(silent=301.5)}) == [Kill(1, Fault.STUCK)]


def test_without_a_heartbeat_timeout_no_job_is_stuck() -> None:
    pool = ready_pool(1, heartbeat_timeout=0.0)

    assert planned(pool, 1e6, {1: running(silent=1e6)}) == []


def test_a_boot_that_takes_too_long_ends_in_a_kill() -> None:
    pool = ready_pool(1)
    pool.spawned(2, Kind.WORKER, 10.0)
    pool.resize(+1)
    booting = {2: Facts(Doing.BOOT, 0.0)}

    assert planned(pool, 70.0, booting) == []
    assert planned(pool, 70.1, booting) == [Dump(2, Fault.BOOT)]
    assert planned(pool, 70.6, booting) == [Kill(2, Fault.BOOT)]


@pytest.mark.parametrize("doing", [Doing.IDLE, Doing.CALL, Doing.SETTLE, Doing.LEAVE])
def test_a_worker_that_is_frozen_between_jobs_is_killed(doing: Doing) -> None:
    pool = ready_pool(1)

    assert planned(pool, 60.0, {1: Facts(doing, FROZEN_AFTER)}) == []
    assert planned(pool, 60.1, {1: Facts(doing, FROZEN_AFTER + 0.1)}) == [Dump(1, Fault.SILENT)]
    assert planned(pool, 60.6, {1: Facts(doing, FROZEN_AFTER + 0.6)}) == [Kill(1, Fault.SILENT)]


def test_a_silent_clerk_is_killed_after_ten_seconds_and_replaced_at_once() -> None:
    pool = ready_pool(1)

    assert planned(pool, 10.0, {CLERK: Facts(Doing.SETTLE, 10.0)}) == []
    assert planned(pool, 10.1, {CLERK: Facts(Doing.SETTLE, 10.1)}) == [Dump(CLERK, Fault.SILENT)]
    assert planned(pool, 10.6, {CLERK: Facts(Doing.SETTLE, 10.6)}) == [Kill(CLERK, Fault.SILENT)]
    pool.died(CLERK, 10.7, jitter=0.5)
    assert planned(pool, 10.7) == [Spawn(CLERK, Kind.CLERK)]


@pytest.mark.parametrize(
    "seen",
    [
        {1: Facts(Doing.BOOT, 1e4)},
        {1: idle(1e4)},
        {1: running(silent=1e4)},
        {1: running(silent=1e4, hard_in=-1e4)},
        {CLERK: Facts(Doing.SETTLE, 1e4)},
    ],
)
def test_a_machine_that_stood_still_condemns_nobody(seen: dict[int, Facts]) -> None:
    pool = ready_pool(1)

    assert pool.plan(1e4, facts_of(pool, seen), late=True) == []
    assert pool.next_step_at(1e4, facts_of(pool)) == math.inf
    assert [type(action) for action in planned(pool, 1e4, seen)] == [Dump]


def test_one_worker_more_is_forked_at_once() -> None:
    pool = ready_pool()

    pool.resize(+1)

    assert planned(pool, 1.0) == [Spawn(3, Kind.WORKER)]


def test_one_worker_fewer_is_one_that_is_idle_and_the_oldest_of_these() -> None:
    pool = ready_pool(3)
    pool.children[2].born_at = 2.0
    pool.children[3].born_at = 1.0

    pool.resize(-1)

    assert planned(pool, 5.0, {1: running()}) == [Dismiss(3)]
    assert planned(pool, 5.1, {1: running()}) == []


def test_when_all_are_busy_one_leaves_after_its_job_and_is_not_cut() -> None:
    pool = ready_pool()
    busy = {1: running(), 2: running()}

    pool.resize(-1)

    assert planned(pool, 1.0, busy) == [Dismiss(1)]
    assert planned(pool, 1e4, busy) == []
    assert not pool.died(1, 1e4, jitter=0.5).cut
    assert planned(pool, 1e4, {2: running()}) == []


def test_a_pool_never_wants_fewer_than_one_worker_nor_more_than_it_has_seats() -> None:
    pool = ready_pool(2, seats=6)

    for _ in range(5):
        pool.resize(-1)
    assert pool.target == 1
    for _ in range(9):
        pool.resize(+1)
    assert pool.target == 4


def test_a_pool_that_stops_cannot_be_resized() -> None:
    pool = ready_pool()
    pool.stop(0.0, 5.0)

    pool.resize(+1)

    assert pool.target == 0


def test_a_seat_is_kept_free_for_the_clerk() -> None:
    pool = ready_pool(2, seats=4)
    busy = {seat: running() for seat in (1, 2, 3)}
    pool.resize(-1)
    assert planned(pool, 1.0, {1: running(), 2: running()}) == [Dismiss(1)]
    pool.resize(+1)
    assert planned(pool, 2.0, {1: running(), 2: running()}) == [Spawn(3, Kind.WORKER)]
    pool.spawned(3, Kind.WORKER, 2.0)
    pool.got_ready(3)
    pool.resize(-1)
    assert planned(pool, 3.0, busy) == [Dismiss(2)]
    pool.resize(+1)
    pool.children[CLERK].ready = False  # it dies in boot, so its successor has to wait

    pool.died(CLERK, 4.0, jitter=1.0)

    assert planned(pool, 4.0, busy) == []
    assert planned(pool, 5.0, busy) == [Spawn(CLERK, Kind.CLERK)]


def test_a_pool_whose_workers_are_idle_with_nobody_on_call_gets_one_baton() -> None:
    pool = ready_pool()

    assert pool.baton(facts_of(pool), pipe_empty=True) == [Baton()]
    assert pool.baton(facts_of(pool), pipe_empty=False) == []


@pytest.mark.parametrize(("silent", "batons"), [(0.0, 0), (5.9, 0), (6.0, 1), (60.0, 1)])
def test_who_is_on_call_counts_while_it_gives_signs_of_life(silent: float, batons: int) -> None:
    pool = ready_pool()

    given = pool.baton(facts_of(pool, {1: Facts(Doing.CALL, silent)}), pipe_empty=True)

    assert given == [Baton()] * batons


@pytest.mark.parametrize("doing", [Doing.BOOT, Doing.RUN, Doing.SETTLE, Doing.LEAVE])
def test_one_baton_waits_in_the_pipe_for_the_first_who_is_idle(doing: Doing) -> None:
    pool = ready_pool(1)
    facts = facts_of(pool, {1: Facts(doing, 0.0)})

    assert pool.baton(facts, pipe_empty=True) == [Baton()]
    assert pool.baton(facts, pipe_empty=False) == []


def test_a_worker_that_was_dismissed_is_not_on_call() -> None:
    pool = ready_pool()
    pool.resize(-1)
    planned(pool, 1.0, {2: running()})
    leaving = {1: Facts(Doing.CALL, 0.0)}

    assert pool.baton(facts_of(pool, leaving), pipe_empty=True) == [Baton()]


def test_a_pool_without_workers_gets_no_baton() -> None:
    pool = ready_pool(1)
    pool.died(1, 1.0, jitter=0.5)

    assert pool.baton(facts_of(pool), pipe_empty=True) == []


def test_a_paused_or_stopping_pool_gets_no_baton() -> None:
    paused, stopping = ready_pool(), ready_pool()
    paused.paused = True
    stopping.stop(0.0, 5.0)

    assert paused.baton(facts_of(paused), pipe_empty=True) == []
    assert stopping.baton(facts_of(stopping), pipe_empty=True) == []


def test_a_pause_dismisses_nobody() -> None:
    pool = ready_pool()
    pool.paused = True

    assert planned(pool, 1.0, {1: running()}) == []


def test_a_pool_that_cannot_boot_a_worker_forks_them_ever_more_slowly() -> None:
    pool, forks = Pool(seats=12, target=8), []
    pool.spawned(0, Kind.CLERK, 0.0)
    pool.got_ready(0)
    now = 0.0
    while now < 600.0:
        for action in planned(pool, now):
            assert isinstance(action, Spawn)
            forks.append(now)
            pool.spawned(action.seat, action.kind, now)
        for seat in _booting(pool.children):
            pool.died(seat, now, jitter=1.0)
        now = pool.next_step_at(now, facts_of(pool))

    assert forks[:8] == [0.0] * 8
    assert len(forks) <= 8 + 600 / 30 + 1
    assert len(set(forks[8:])) == len(forks[8:]), "more than one probe at a time"


def cut_off(pool: Pool, now: float, seen: dict[int, Facts]) -> list[Action]:
    return pool.plan(now, facts_of(pool, seen), cut_off=True)


def test_a_job_of_a_host_that_is_cut_off_is_stopped_and_its_worker_lives_on() -> None:
    pool, job = ready_pool(), {1: running(epoch=7)}

    assert cut_off(pool, 100.0, job) == [Interrupt(1, 7, overdue=False)]
    assert cut_off(pool, 101.0, job) == []
    assert (
        cut_off(pool, 101.5, {1: Facts(Doing.SETTLE, 0.0)}) == []
    )  # it asks Redis to take it back

    assert planned(pool, 200.0) == []
    assert pool.children[1].fault is Fault.NONE
    assert pool.cuts == 0


def test_a_job_that_does_not_stop_when_its_host_is_cut_off_is_killed_without_blame() -> None:
    pool, job = ready_pool(), {1: running(epoch=7)}

    cut_off(pool, 100.0, job)

    assert cut_off(pool, 101.9, job) == []
    assert cut_off(pool, 102.0, job) == [Kill(1, Fault.CUT_OFF)]
    assert pool.died(1, 102.1, jitter=0.5).cut
    assert pool.cuts == 0, "the exit code tells of drains"


def test_a_host_that_is_in_touch_again_too_late_kills_what_did_not_stop() -> None:
    pool, job = ready_pool(), {1: running(epoch=7)}

    cut_off(pool, 100.0, job)

    assert planned(pool, 101.0, job) == []
    assert planned(pool, 102.0, job) == [Kill(1, Fault.CUT_OFF)]


def test_a_drain_ends_what_a_cut_has_begun() -> None:
    pool, job = ready_pool(1), {1: running(epoch=7)}
    cut_off(pool, 100.0, job)

    pool.stop(100.5, 1.0)
    settling = {1: Facts(Doing.SETTLE, 0.0)}

    assert cut_off(pool, 101.0, settling) == [Dismiss(1)]
    pool.dismissed(1, 101.0)
    cut_off(pool, 101.5, settling)
    assert Kill(1, Fault.CUT) in cut_off(pool, 103.5, settling)


def _booting(seats: Iterable[int]) -> list[int]:
    return [seat for seat in seats if seat != CLERK]

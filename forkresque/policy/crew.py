"""Which children a master has, which it should have, and the next step from one to the other.

Facts go in, actions come out. There is no fork, signal or clock in here, so tests can live
through a week of crashes in a millisecond.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from forkresque.policy.births import Births
from forkresque.policy.child import (
    Action,
    Baton,
    Child,
    Dismiss,
    Doing,
    Facts,
    Fault,
    Interrupt,
    Kind,
    Spawn,
)
from forkresque.policy.judgement import Judge
from forkresque.policy.pool import Pool
from forkresque.policy.renewal import Renewal
from forkresque.policy.roster import Roster

_SPARE = 2  # seats for the clerk and for one replacement; a watcher needs one more
CLERK_SEAT = 0  # nobody else's: listeners know by it who speaks for all
ABORT_GRACE = 2.0  # seconds from a job's soft end to the kill
BOOKS_GRACE = 0.75  # seconds the clerk may take to settle the last deaths
_DEAF_AFTER = 6.0  # seconds without a beat after which whoever is on call does not count


@dataclass(slots=True)
class Crew:
    """The children of one master: a clerk, the workers of its pools, and perhaps a watcher."""

    seats: int
    pools: Sequence[Pool]
    judge: Judge = field(default_factory=Judge)
    renewal: Renewal = field(default_factory=Renewal)
    watched: bool = False
    generation: int = 1
    paused: bool = False
    stopping: bool = False
    abort_at: float = math.inf
    books_until: float = math.inf
    unsettled_deaths: int = 0
    books_open: bool = False  # the last clerk has left before the last worker
    ever_ready: bool = False
    unready_since: float = -math.inf  # when a worker was lost that had been ready
    cuts: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    children: dict[int, Child] = field(default_factory=dict)
    _births: dict[Kind, Births] = field(
        default_factory=lambda: {Kind.CLERK: Births(1), Kind.WATCHER: Births(1)}
    )

    # -- what is wanted ----------------------------------------------------------------------

    @property
    def target(self) -> int:
        """Return how many workers there should be, of all pools."""
        return sum(pool.target for pool in self.pools)

    def allow(self, pool: Pool, most: int) -> None:
        """Let a pool have so many workers, at least one, and as far as there are seats."""
        if not self.stopping:
            others = sum(other.most for other in self.pools if other is not pool)
            pool.allow(max(1, min(self.seats - _SPARE - self.watched - others, most)))

    def stop(self, now: float, within: float) -> None:
        """Want no children. Jobs in hand get `within` seconds; asking again can only shorten."""
        self.stopping = True
        for pool in self.pools:
            pool.close()
        self.abort_at = min(self.abort_at, now + within)
        self._close_books(now)

    def end(self, now: float) -> None:
        """Want no children, now: jobs in hand are cut."""
        self.stop(now, 0.0)
        for child in self.of(Kind.WORKER):
            child.cut = True
            child.fault, child.kill_at = Fault.CUT, now

    def condemn(self, seat: int, fault: Fault, now: float) -> None:
        """Have a child killed at once."""
        child = self.children[seat]
        if child.fault is Fault.CUT_OFF:  # which would be forgiven if its job ended now
            child.fault = fault
        child.fault, child.kill_at = child.fault or fault, now

    # -- what has happened -------------------------------------------------------------------

    def spawned(self, spawn: Spawn, now: float, *, chance: float = 1.0) -> Child:
        """Take note of a fork. `chance` spreads the limits of workers that are born together."""
        jobs, age = self.renewal.limits(chance)
        self.children[spawn.seat] = child = Child(
            spawn.seat,
            spawn.kind,
            now,
            pool=spawn.pool,
            generation=self.generation,
            replaces=spawn.replaces,
            held=spawn.replaces is not None,
            max_jobs=jobs,
            max_age=age,
        )
        self.counts["born"] += 1
        old = None if spawn.replaces is None else self.children[spawn.replaces]
        self.counts["recycled"] += old is not None and old.stays
        self._close_books(now)
        return child

    def got_ready(self, seat: int) -> None:
        """Take note of a child that has booted."""
        child = self.children[seat]
        child.ready = self.ever_ready = True

    def spawn_failed(self, spawn: Spawn, now: float, *, jitter: float) -> None:
        """Take note of a fork that the kernel refused."""
        self._births_of(spawn.kind, spawn.pool).refused(now, jitter=jitter)
        self.counts["fork_failures"] += 1

    def dismissed(self, seat: int, now: float) -> None:
        """Take note that a child was asked to leave."""
        child = self.children[seat]
        child.dismissed = True
        if child.kind is not Kind.WORKER:
            late = Fault.BOOKS if child.kind is Kind.CLERK else Fault.DEAF
            child.fault = child.fault or late
            child.kill_at = min(child.kill_at, now + BOOKS_GRACE)

    def died(self, seat: int, now: float, *, jitter: float, booted: bool = True) -> Child:
        """Take note of a death, and return what was known of the child.

        One that said it was ready has not `booted` if it never came to wait for work.
        """
        child = self.children.pop(seat)
        for other in self.children.values():
            if other.replaces == seat:
                other.replaces = None
        if child.ready and booted and child.kind is Kind.WORKER:
            self.unready_since = now
        if child.ready and booted:
            self._note_work(child)
        elif not child.dismissed:
            self._births_of(child.kind, child.pool).failed(now, jitter=jitter)
        if child.kind is Kind.CLERK and child.ready:
            self.books_open = bool(self.of(Kind.WORKER))
        self.cuts += child.cut and child.fault is not Fault.CUT_OFF
        self.counts["died"] += 1
        self.counts["killed"] += child.killed
        self._close_books(now)
        return child

    def _note_work(self, child: Child) -> None:
        """Take note, once, that a birth was a success; what older children do is none of it."""
        if not child.at_work:
            child.at_work = True
            self._births_of(child.kind, child.pool).succeeded()

    def _births_of(self, kind: Kind, pool: int) -> Births:
        return self.pools[pool].births if kind is Kind.WORKER else self._births[kind]

    def _close_books(self, now: float) -> None:
        """Once the last worker is gone, give the clerk a limited time to settle what it left."""
        if self.stopping and not self.of(Kind.WORKER):
            self.books_until = min(self.books_until, now + BOOKS_GRACE)
            for clerk in self.of(Kind.CLERK):
                clerk.fault = clerk.fault or Fault.BOOKS
                clerk.kill_at = min(clerk.kill_at, self.books_until)

    # -- what is so --------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Return whether nobody is left and nobody is wanted."""
        return self.stopping and not self.children and not self.books_open

    @property
    def is_rolling(self) -> bool:
        """Return whether a child of an older generation is left."""
        return any(child.generation < self.generation for child in self.children.values())

    def of(self, kind: Kind) -> list[Child]:
        """Return the children of one kind."""
        return [child for child in self.children.values() if child.kind is kind]

    def staying(self, pool: int) -> list[Child]:
        """Return a pool's workers that were not asked to leave."""
        return [child for child in self.of(Kind.WORKER) if child.pool == pool and child.stays]

    def ready(self, pool: int) -> int:
        """Return how many workers of a pool have booted and stay."""
        return sum(child.ready for child in self.staying(pool))

    def failing_for(self, now: float) -> float:
        """Return for how many seconds workers have died in boot while none was ready."""
        if any(child.ready for child in self.of(Kind.WORKER)):
            return 0.0
        failing = [pool.births.failing_since for pool in self.pools if pool.target]
        return max(0.0, now - max(min(failing, default=math.inf), self.unready_since))

    # -- what is to be done ------------------------------------------------------------------

    def plan(
        self,
        now: float,
        facts: Mapping[int, Facts],
        *,
        late: bool = False,
        cut_off: bool = False,
    ) -> list[Action]:
        """Return the steps that bring the crew nearer to what is wanted.

        `late` says that this machine stood still: then silence proves nothing. `cut_off` says that
        jobs in hand have to stop, because other hosts may take them.
        """
        self.books_open &= now < self.books_until
        for child in self.children.values():
            if child.ready and facts[child.seat].doing is not Doing.BOOT:
                self._note_work(child)
        rosters = [
            Roster(pool, index, self.children, facts) for index, pool in enumerate(self.pools)
        ]
        for roster in rosters:
            roster.appoint()
        parting = dict.fromkeys(self._partings(rosters))
        births = [*self._spawns(now, rosters)]
        actions: list[Action] = [*map(Dismiss, parting)]
        for roster in rosters:
            actions += roster.releases(parting)
        actions += births  # last: each takes as long as all the rest
        for child in self.children.values():
            seen = facts[child.seat]
            if not late:
                actions += self.judge.judge(child, seen, now)
            actions += self._interruptions(child, seen, now)
            if child.kind is Kind.WORKER and (cut_off or child.fault is Fault.CUT_OFF):
                actions += self._withdraw(child, seen, now)
            actions += self.judge.carry_out(child, seen, now)
        return actions

    def baton(self, pool: int, facts: Mapping[int, Facts], *, pipe_empty: bool) -> list[Action]:
        """Return a baton if nobody of a pool is on call and none is on its way.

        It does not matter whether somebody is idle now: in the pipe it waits for the first who
        is. One too many is harmless, too: whoever is on call takes it, and claims once more.
        """
        if self.paused or self.stopping or not pipe_empty:
            return []
        staying = [facts[child.seat] for child in self.staying(pool)]
        on_call = any(seen.doing is Doing.CALL and seen.silent < _DEAF_AFTER for seen in staying)
        return [Baton(pool)] if staying and not on_call else []

    def next_step_at(self, now: float, facts: Mapping[int, Facts]) -> float:
        """Return the moment at which `plan` may have something new to say by time alone."""
        moments = [self.abort_at, self.books_until]
        for child in self.children.values():
            moments += [child.kill_at, child.rouse_at]
        for seen in facts.values():
            moments += [now + seen.soft_in, now + seen.hard_in]
        moments += [births.next_at for births in self._births.values()]
        moments += [pool.births.next_at for pool in self.pools]
        return min((moment for moment in moments if moment > now), default=math.inf)

    def rest_until(self, now: float, facts: Mapping[int, Facts]) -> float:
        """Return until when time alone gives nothing to do, as long as no job begins.

        That is `now` unless everybody is there, waits for work and is to stay.
        """
        missing = any(len(self.staying(at)) != pool.target for at, pool in enumerate(self.pools))
        if missing or self.stopping or self.unsettled_deaths or self.is_rolling:
            return now
        moments = [self.next_step_at(now, facts)]
        for child in self.children.values():
            seen = facts.get(child.seat)
            if seen is None or seen.doing not in (Doing.IDLE, Doing.CALL):
                return now
            if not (child.ready and child.stays):
                return now
            moments.append(child.born_at + child.max_age)
            deaf_after = _DEAF_AFTER if seen.doing is Doing.CALL else math.inf
            moments.append(now - seen.silent + min(deaf_after, self.judge.patience(child.kind)))
        return max(now, min(moments))

    def _spawns(self, now: float, rosters: Sequence[Roster]) -> Iterable[Spawn]:
        if self._is_missing(Kind.CLERK, now) and self._births[Kind.CLERK].allowed(now, booting=0):
            yield Spawn(CLERK_SEAT, Kind.CLERK)
        free = [seat for seat in range(CLERK_SEAT + 1, self.seats) if seat not in self.children]
        kept = 0
        if self._is_missing(Kind.WATCHER, now):
            if free and self._births[Kind.WATCHER].allowed(now, booting=0):
                yield Spawn(free.pop(0), Kind.WATCHER)
            else:
                kept = 1  # a seat for it, as long as it has to wait
        reason = partial(self.renewal.reason, generation=self.generation, now=now)
        for index, roster in enumerate(rosters):
            births, booting = roster.pool.births, roster.booting
            for replaces, why in roster.wishes(reason):
                if len(free) <= kept or not births.allowed(now, booting=booting):
                    break
                yield Spawn(free.pop(0), Kind.WORKER, index, replaces, why)
                booting += 1

    def _is_missing(self, kind: Kind, now: float) -> bool:
        if self.of(kind):
            return False
        if kind is Kind.WATCHER:
            return self.watched and not self.stopping
        # The clerk outlives the workers: it settles what the last of them leave behind, and gives
        # up the lease, which one that is replaced in a reload cannot.
        return (self.books_open or not self._clerk_may_go) and now < self.books_until

    @property
    def _clerk_may_go(self) -> bool:
        return self.stopping and not self.of(Kind.WORKER) and not self.unsettled_deaths

    def _partings(self, rosters: Sequence[Roster]) -> Iterable[int]:
        """Yield the seats of those who should leave; one that has two reasons comes twice."""
        for roster in rosters:
            yield from roster.surplus()
            yield from roster.replaced()
        for child in self.children.values():
            if child.stays and self._is_out_of_place(child):
                yield child.seat

    def _is_out_of_place(self, child: Child) -> bool:
        """Return whether a child is of no use any more, apart from the workers of a pool."""
        if child.kind is Kind.WORKER:
            return False
        is_old = child.generation < self.generation and not self.stopping
        if child.kind is Kind.CLERK:
            return self._clerk_may_go or is_old
        return self.stopping or is_old

    def _interruptions(self, child: Child, seen: Facts, now: float) -> Iterable[Interrupt]:
        cut = now >= self.abort_at and not child.cut and child.kind is Kind.WORKER
        if cut:
            child.cut = seen.doing is Doing.RUN
            child.fault = child.fault or Fault.CUT
            child.kill_at = min(child.kill_at, now + ABORT_GRACE)
        overdue = seen.soft_in <= 0 and child.interrupted != seen.epoch
        if seen.doing is Doing.RUN and (cut or overdue):
            child.interrupted = seen.epoch
            yield Interrupt(child.seat, seen.epoch, overdue=not cut)

    def _withdraw(self, child: Child, seen: Facts, now: float) -> Iterable[Interrupt]:
        """Stop a job in hand; its worker lives on if the job obeys."""
        if seen.doing is Doing.RUN:
            if not child.fault:
                child.fault, child.kill_at = Fault.CUT_OFF, min(child.kill_at, now + ABORT_GRACE)
                child.interrupted = seen.epoch
                yield Interrupt(child.seat, seen.epoch, overdue=False)
        elif child.fault is Fault.CUT_OFF and not child.killed and now < self.abort_at:
            child.fault, child.kill_at = Fault.NONE, math.inf

"""Which children exist, how many there should be, and the next step from one to the other.

Facts go in, actions come out. There is no fork, signal or clock in here, so tests can live
through a week of crashes in a millisecond.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from forkresque.policy.births import Births

ABORT_GRACE = 2.0  # seconds from a job's soft end to the kill
BOOKS_GRACE = 0.75  # seconds the clerk may take to settle the last deaths
CLERK_SILENCE = 10.0  # seconds without a beat after which the clerk is killed
FROZEN_AFTER = 60.0  # the same for a worker that has no job in hand
DUMP_GRACE = 0.5  # seconds from asking for a stack dump to the kill


class Kind(StrEnum):
    """What a child is for."""

    CLERK = "clerk"
    WORKER = "worker"


class Fault(StrEnum):
    """Why a child is killed, in words for the log and the failure record."""

    NONE = ""
    BOOT = "it did not boot in time"
    SILENT = "it gave no sign of life"
    STUCK = "its job gave no sign of life"
    OVERDUE = "its job went on after its time limit"
    CUT = "the time to finish was over"
    CUT_OFF = "this host is cut off from Redis, and others may start its job"
    BOOKS = "it did not finish its books in time"


class Doing(StrEnum):
    """What a child does, as far as it matters here."""

    BOOT = "boot"
    IDLE = "idle"  # waits for its turn
    CALL = "call"  # on call, or claiming
    RUN = "run"
    SETTLE = "settle"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the scoreboard says of a child: ages in seconds, limits in seconds from now."""

    doing: Doing
    silent: float
    epoch: int = 0
    soft_in: float = math.inf
    hard_in: float = math.inf


@dataclass(frozen=True, slots=True)
class Spawn:
    """Fork a child into `seat`."""

    seat: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class Dismiss:
    """Ask a child to finish its job in hand and leave."""

    seat: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Raise an exception in job number `epoch`: it is over its limit, or has to be cut."""

    seat: int
    epoch: int
    overdue: bool


@dataclass(frozen=True, slots=True)
class Dump:
    """Have a child write down its stacks: it will be killed for `fault`."""

    seat: int
    fault: Fault


@dataclass(frozen=True, slots=True)
class Kill:
    """End a child and all that its job started."""

    seat: int
    fault: Fault


@dataclass(frozen=True, slots=True)
class Baton:
    """Give the idle workers one more turn."""


Action = Spawn | Dismiss | Interrupt | Dump | Kill | Baton


@dataclass(slots=True)
class Child:
    """One child, from fork to reaping."""

    seat: int
    kind: Kind
    born_at: float
    ready: bool = False
    dismissed: bool = False
    interrupted: int = 0  # epoch of the last job that was interrupted
    cut: bool = False  # its job was not left to finish
    fault: Fault = Fault.NONE
    kill_at: float = math.inf
    killed: bool = False


@dataclass(slots=True)
class Pool:
    """The children of one master."""

    seats: int
    target: int
    boot_timeout: float = 60.0
    heartbeat_timeout: float = 300.0
    children: dict[int, Child] = field(default_factory=dict)
    stopping: bool = False
    abort_at: float = math.inf
    books_until: float = math.inf
    unsettled_deaths: int = 0
    cuts: int = 0
    ever_ready: bool = False
    paused: bool = False
    births: dict[Kind, Births] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.births |= {Kind.WORKER: Births(self.target), Kind.CLERK: Births(1)}

    # -- what is wanted ----------------------------------------------------------------------

    def resize(self, by: int) -> None:
        """Want more or fewer workers, at least one."""
        if not self.stopping:
            self.target = max(1, min(self.seats - 2, self.target + by))
            self.births[Kind.WORKER].size = self.target

    def stop(self, now: float, within: float) -> None:
        """Want no children. Jobs in hand get `within` seconds; asking again can only shorten."""
        self.stopping, self.target = True, 0
        self.abort_at = min(self.abort_at, now + within)
        self._close_books(now)

    def end(self, now: float) -> None:
        """Want no children, now: jobs in hand are cut."""
        self.stop(now, 0.0)
        for child in self.of(Kind.WORKER):
            child.cut = True
            child.fault, child.kill_at = Fault.CUT, now

    # -- what has happened -------------------------------------------------------------------

    def spawned(self, seat: int, kind: Kind, now: float) -> None:
        """Take note of a fork."""
        self.children[seat] = Child(seat, kind, now)
        self._close_books(now)

    def got_ready(self, seat: int) -> None:
        """Take note of a child that has booted."""
        child = self.children[seat]
        child.ready = self.ever_ready = True
        self.births[child.kind].succeeded()

    def spawn_failed(self, kind: Kind, now: float, *, jitter: float) -> None:
        """Take note of a fork that the kernel refused."""
        self.births[kind].failed(now, jitter=jitter)

    def dismissed(self, seat: int, now: float) -> None:
        """Take note that a child was asked to leave."""
        child = self.children[seat]
        child.dismissed = True
        if child.kind is Kind.CLERK:
            child.fault = child.fault or Fault.BOOKS
            child.kill_at = min(child.kill_at, now + BOOKS_GRACE)

    def died(self, seat: int, now: float, *, jitter: float) -> Child:
        """Take note of a death, and return what was known of the child."""
        child = self.children.pop(seat)
        if not child.ready and not child.dismissed:
            self.births[child.kind].failed(now, jitter=jitter)
        self.cuts += child.cut and child.fault is not Fault.CUT_OFF
        self._close_books(now)
        return child

    def _close_books(self, now: float) -> None:
        """Once the last worker is gone, give the clerk a limited time to settle what it left."""
        if self.stopping and not self.of(Kind.WORKER):
            self.books_until = min(self.books_until, now + BOOKS_GRACE)
            for clerk in self.of(Kind.CLERK):
                clerk.fault = clerk.fault or Fault.BOOKS
                clerk.kill_at = min(clerk.kill_at, self.books_until)

    # -- what is to be done ------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Return whether nobody is left and nobody is wanted."""
        return self.stopping and not self.children

    def of(self, kind: Kind) -> list[Child]:
        """Return the children of one kind."""
        return [child for child in self.children.values() if child.kind is kind]

    def plan(
        self,
        now: float,
        facts: Mapping[int, Facts],
        *,
        late: bool = False,
        cut_off: bool = False,
    ) -> list[Action]:
        """Return the steps that bring the pool nearer to what is wanted.

        `late` says that this machine stood still: then silence proves nothing. `cut_off` says that
        jobs in hand have to stop, because other hosts may take them.
        """
        actions: list[Action] = [*self._spawns(now), *self._dismissals(facts)]
        for child in self.children.values():
            seen = facts[child.seat]
            if not late:
                actions += self._judge(child, seen, now)
            actions += self._interruptions(child, seen, now)
            if child.kind is Kind.WORKER and (cut_off or child.fault is Fault.CUT_OFF):
                actions += self._withdraw(child, seen, now)
            actions += self._kill(child, seen, now)
        return actions

    def baton(self, facts: Mapping[int, Facts], *, pipe_empty: bool) -> list[Action]:
        """Return a baton if nobody is on call and none is on its way.

        It does not matter whether somebody is idle now: in the pipe it waits for the first who
        is. One too many is harmless, too: whoever is on call takes it, and claims once more.
        """
        if self.paused or self.stopping or not pipe_empty:
            return []
        staying = [facts[child.seat] for child in self.of(Kind.WORKER) if not child.dismissed]
        on_call = any(seen.doing is Doing.CALL and seen.silent < 6.0 for seen in staying)
        return [Baton()] if staying and not on_call else []

    def next_step_at(self, now: float, facts: Mapping[int, Facts]) -> float:
        """Return the moment at which `plan` may have something new to say by time alone."""
        moments = [child.kill_at for child in self.children.values()]
        for seen in facts.values():
            moments += [now + seen.soft_in, now + seen.hard_in]
        moments += [births.next_at for births in self.births.values()]
        moments.append(self.abort_at)
        return min((moment for moment in moments if moment > now), default=math.inf)

    def _spawns(self, now: float) -> Iterable[Spawn]:
        free = [seat for seat in range(self.seats) if seat not in self.children]
        missing = {
            # The clerk outlives the workers: it settles what the last of them leave behind.
            Kind.CLERK: int(
                not self._clerk_may_go and now < self.books_until and not self.of(Kind.CLERK)
            ),
            Kind.WORKER: self.target - sum(not child.dismissed for child in self.of(Kind.WORKER)),
        }
        kept = 0
        for kind, number in missing.items():
            births, booting = self.births[kind], sum(not child.ready for child in self.of(kind))
            while number > 0 and len(free) > kept and births.allowed(now, booting=booting):
                yield Spawn(free.pop(0), kind)
                number, booting = number - 1, booting + 1
            kept = number  # a seat for the clerk, as long as it has to wait

    @property
    def _clerk_may_go(self) -> bool:
        return self.stopping and not self.of(Kind.WORKER) and not self.unsettled_deaths

    def _dismissals(self, facts: Mapping[int, Facts]) -> Iterable[Dismiss]:
        staying = [child for child in self.of(Kind.WORKER) if not child.dismissed]
        surplus = len(staying) - self.target
        if surplus > 0:
            # Those who have nothing in hand first, the oldest first.
            staying.sort(key=lambda child: (facts[child.seat].doing is Doing.RUN, child.born_at))
            yield from (Dismiss(child.seat) for child in staying[:surplus])
        if self._clerk_may_go:
            yield from (Dismiss(child.seat) for child in self.of(Kind.CLERK) if not child.dismissed)

    def _judge(self, child: Child, seen: Facts, now: float) -> Iterable[Dump]:
        """Condemn a child that will not boot, is frozen, stuck or over its limit."""
        fault = self._fault(child, seen, now)
        if fault and not child.fault:
            child.fault, child.kill_at = fault, min(child.kill_at, now + DUMP_GRACE)
            yield Dump(child.seat, fault)

    def _fault(self, child: Child, seen: Facts, now: float) -> Fault:
        if seen.doing is Doing.BOOT:
            return Fault.BOOT if now - child.born_at > self.boot_timeout else Fault.NONE
        if child.kind is Kind.CLERK:
            return Fault.SILENT if seen.silent > CLERK_SILENCE else Fault.NONE
        if seen.doing is not Doing.RUN:
            return Fault.SILENT if seen.silent > FROZEN_AFTER else Fault.NONE
        if seen.hard_in <= 0:
            return Fault.OVERDUE
        stuck = 0 < self.heartbeat_timeout < seen.silent
        return Fault.STUCK if stuck else Fault.NONE

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

    def _kill(self, child: Child, seen: Facts, now: float) -> Iterable[Kill]:
        if now >= child.kill_at and not child.killed:
            child.killed = True
            cut = child.fault in (Fault.CUT, Fault.CUT_OFF)
            child.cut |= cut and seen.doing in (Doing.RUN, Doing.SETTLE)
            yield Kill(child.seat, child.fault)

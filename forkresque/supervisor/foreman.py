"""Carries out what the crew's plan says: forks, asks to leave, interrupts, dumps, kills."""

import contextlib
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import assert_never

from forkresque.app import Forkresque
from forkresque.errors import ConfigError, ForkresqueError
from forkresque.events import Emitter
from forkresque.options import SupervisorOptions
from forkresque.policy.child import (
    Action,
    Baton,
    Dismiss,
    Dump,
    Fault,
    Interrupt,
    Kill,
    Kind,
    Release,
    Rouse,
    Spawn,
)
from forkresque.policy.judgement import REPORT_AFTER
from forkresque.supervisor import resources
from forkresque.supervisor.child import SOFT, Inheritance
from forkresque.supervisor.children import Body, Children
from forkresque.supervisor.clerk import Clerk
from forkresque.supervisor.estate import Estate
from forkresque.supervisor.hand import work
from forkresque.supervisor.messages import Interrupted, Leave
from forkresque.supervisor.watch import watch

log = logging.getLogger("forkresque.master")

COMPLAIN_EVERY = 60.0  # seconds between two lines that say the same


class Foreman:
    """The hands of a master. `let_go` closes, in a new child, what is the master's own.

    `reasons` say, by name, how many workers load wanted a pool to have, and why; for who listens.
    """

    def __init__(
        self,
        estate: Estate,
        children: Children,
        load: Callable[[], Forkresque],
        options: SupervisorOptions,
        events: Emitter,
        *,
        let_go: Callable[[], None],
    ) -> None:
        self._estate = estate
        self._crew = estate.crew
        self._children = children
        self._load = load
        self._options = options
        self._events = events
        self.reasons: dict[str, tuple[int, str]] = {}
        self._let_go = let_go
        self._complained_at = -math.inf
        self._dumps_asked: set[int] = set()

    def prepare(self) -> None:
        """Make what every worker would make first, if the application is here."""
        if self._options.preload:
            with contextlib.suppress(ForkresqueError):  # each child will say what is wrong
                self._load().prepare()

    def carry_out(self, plan: Sequence[Action]) -> None:
        """Carry out a plan; whoever is to be born, last and in one go."""
        births = [action for action in plan if isinstance(action, Spawn)]
        for action in plan:
            if not isinstance(action, Spawn):
                self.act(action)
        if births:
            self._spawn(births)

    def act(self, action: Action) -> None:
        """Carry out one step."""
        match action:
            case Spawn():
                self._spawn([action])
            case Dismiss(seat=seat):
                self._dismiss(seat)
            case Release(seat=seat):
                self._children.release(seat)
            case Baton(pool=pool):
                self._estate.batons[pool].give()
            case Interrupt() | Dump() | Rouse() | Kill():
                self._correct(action)
            case _:
                assert_never(action)

    def ask_for_dumps(self) -> None:
        """Have every child write its stacks down, to be logged."""
        for member in self._children.members:
            self._children.dump(member.seat)
            self._dumps_asked.add(member.seat)

    def log_dumps(self) -> None:
        """Log the stacks one pass after they were asked for: the children need a moment."""
        for name, line in self._children.dumps(sorted(self._dumps_asked)):
            log.warning("%s %s", name, line)
        self._dumps_asked.clear()

    def _correct(self, action: Interrupt | Dump | Rouse | Kill) -> None:
        children = self._children
        match action:
            case Interrupt(seat=seat, epoch=epoch, overdue=overdue):
                children.tell(seat, Interrupted(epoch, overdue))
                children.signal(seat, SOFT)
            case Dump(seat=seat, fault=fault):
                self._dump(seat, fault)
            case Rouse(seat=seat):
                children.signal(seat, signal.SIGTERM)
                children.signal(seat, signal.SIGCONT)
            case Kill(seat=seat, fault=fault):
                log.warning("%s is killed: %s", children.describe(seat), fault)
                if self._crew.children[seat].kind is Kind.WORKER:
                    self._events.emit("multi_worker_action", "-", f"killed: {fault}")
                children.signal(seat, signal.SIGKILL)

    def _spawn(self, births: Sequence[Spawn]) -> None:
        now = time.monotonic()
        for wanted in births:
            if wanted.replaces is not None:
                old = self._children.describe(wanted.replaces)
                each_job = self._options.max_jobs == 1  # what happens for each of them is no news
                level = logging.DEBUG if each_job else logging.INFO
                log.log(level, "%s is replaced: %s", old, wanted.reason)
        born = [(wanted, self._body(wanted)) for wanted in births]
        refusals: Sequence[OSError | ConfigError | None]
        try:
            refusals = self._children.spawn(born, self._crew.generation, let_go=self._let_go)
        except ConfigError as error:  # a listener has started a thread
            refusals = [error] * len(births)
        for wanted, refusal in zip(births, refusals, strict=True):
            if refusal is None:
                self._note_birth(wanted, now)
            else:
                self._note_refusal(wanted, refusal, now)

    def _note_birth(self, wanted: Spawn, now: float) -> None:
        child = self._crew.spawned(wanted, now, chance=chance())
        if child.max_jobs < math.inf:
            self._estate.board.seats[child.seat].due_jobs = int(child.max_jobs)
        if wanted.kind is Kind.WORKER and "multi_worker_action" in self._events.heard:
            reason = wanted.reason or self._reason(wanted.pool)
            self._events.emit("multi_worker_action", "+", reason)

    def _note_refusal(self, wanted: Spawn, error: OSError | ConfigError, now: float) -> None:
        self._crew.spawn_failed(wanted, now, jitter=chance())
        if now - self._complained_at > COMPLAIN_EVERY:
            self._complained_at = now
            log.error("cannot fork a %s: %s", wanted.kind, error)
            self._events.emit("multi_worker_action", "x", f"cannot fork: {error}")
            self._events.emit("error", error, 0, None, None)

    def _body(self, wanted: Spawn) -> Body:
        """Return what the new child will do."""
        match wanted.kind:
            case Kind.CLERK:
                return self._be_clerk
            case Kind.WORKER:
                return lambda inherited: self._be_worker(inherited, wanted.pool)
            case Kind.WATCHER:
                return watch
            case _:
                assert_never(wanted.kind)

    def _be_clerk(self, inherited: Inheritance) -> int:
        for signum in (signal.SIGTERM, signal.SIGQUIT):
            signal.signal(signum, signal.SIG_IGN)  # managers signal everybody; it leaves last
        app, estate = self._application(inherited), self._estate
        return Clerk(
            app, self._options, estate.board, inherited, estate.identity, self._events
        ).run()

    def _be_worker(self, inherited: Inheritance, pool: int) -> int:
        resources.become_subreaper()  # so that what its jobs let go of stays in its sight
        app, estate = self._application(inherited), self._estate
        return work(
            app,
            self._options,
            estate.board,
            estate.batons[pool],
            inherited,
            estate.identity,
            self._events,
        )

    def _application(self, inherited: Inheritance) -> Forkresque:
        """Return the application; a child whose master has not imported it does so here."""
        if self._options.preload:
            return self._load()
        with inherited.importing():
            return self._load()

    def _dismiss(self, seat: int) -> None:
        self._crew.dismissed(seat, time.monotonic())
        if self._crew.children[seat].kind is Kind.CLERK:
            self._children.tell(seat, Leave())
        else:
            self._tell_dismissal(seat)
            self._children.signal(seat, signal.SIGTERM)

    def _tell_dismissal(self, seat: int) -> None:
        """Tell who listens that a worker goes; of a drain they know already."""
        crew, child = self._crew, self._crew.children[seat]
        if child.kind is Kind.WORKER and not crew.stopping:
            replaced = any(other.replaces == seat for other in crew.children.values())
            reason = "it is replaced" if replaced else self._reason(child.pool)
            self._events.emit("multi_worker_action", "-", reason)

    def _reason(self, index: int) -> str:
        """Return why a pool has as many workers as it has."""
        if index >= len(self._crew.pools):
            return "there is no such pool any more"
        pool = self._crew.pools[index]
        wanted = f"{pool.name}: {pool.target} wanted"
        number, why = self.reasons.get(pool.name, (0, ""))
        return f"{wanted}, {why}" if number == pool.target else wanted

    def _dump(self, seat: int, fault: Fault) -> None:
        name = self._children.describe(seat)
        if fault:
            log.warning("%s %s; its stacks are dumped", name, fault)
        else:
            log.warning("%s is silent in its job for %g s; it is here:", name, REPORT_AFTER)
            self._dumps_asked.add(seat)
        self._children.dump(seat)


def chance() -> float:
    """Return a number from 0 to 1."""
    return os.urandom(1)[0] / 255

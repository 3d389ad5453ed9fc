"""The clerk: all that this host tells Redis apart from jobs.

It renews the lease and the workers' pings, settles deaths, looks after dead masters, samples
how much waits, and leads or follows with its Promoter. It never waits for Redis longer than its
socket timeout, and beats between two questions; the master replaces it when it is silent.
"""

import logging
import math
import os
import select
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from forkresque.app import Forkresque
from forkresque.errors import BadKey, ExitCode, ForkresqueError, RedisRefused, RedisUnavailable
from forkresque.events import Emitter
from forkresque.neighbours import Neighbours
from forkresque.options import SupervisorOptions
from forkresque.policy import queues as patterns
from forkresque.policy.backoff import Backoff
from forkresque.policy.verdicts import look_pause
from forkresque.promoter import EARLY, Promoter
from forkresque.protocol.connection import FLUSHED, RedisClock
from forkresque.protocol.delayed import Delayed, Lead
from forkresque.protocol.keys import to_bytes, to_text
from forkresque.protocol.locks import renew_locks
from forkresque.protocol.registry import Registry
from forkresque.protocol.script import load
from forkresque.scoreboard import Phase, Role, Scoreboard
from forkresque.supervisor.child import ORPHANED, Inheritance
from forkresque.supervisor.identity import Identity
from forkresque.supervisor.messages import (
    BatonWanted,
    Died,
    Leave,
    Ready,
    Redialled,
    Settled,
    receive,
    send,
)
from forkresque.supervisor.recovery import Coroner
from forkresque.supervisor.titles import set_title
from forkresque.supervisor.wakeups import Wakeups

log = logging.getLogger("forkresque.clerk")

SOCKET_TIMEOUT = 2.0
BEAT = 5.0  # seconds between two signs of life; silence is judged after ten
SAMPLE_EVERY = 0.25  # seconds between samples while something waits
STANDING_TOO_LONG = 1.0  # seconds for which jobs may wait beside an idle worker


@dataclass(slots=True)
class Duty:
    """Something that is to be done again and again. `perform` returns the pause until then.

    It is done up to `early` seconds sooner when the clerk is awake: a wake-up costs more than it.
    """

    name: str
    perform: Callable[[], float]
    early: float = 0.0
    due_at: float = -math.inf
    backoff: Backoff = field(default_factory=lambda: Backoff(first=0.1, most=2.0))


class Clerk:
    """The clerk of one master."""

    def __init__(
        self,
        app: Forkresque,
        options: SupervisorOptions,
        board: Scoreboard,
        inherited: Inheritance,
        identity: Identity,
        events: Emitter,
    ) -> None:
        self._events = events
        self._board = board
        self._inherited = inherited
        self._identity = identity
        self._keys = app.connection.keys
        self._link = app.connection.within(SOCKET_TIMEOUT).link(tracking=True)
        self._registry = Registry(self._link, self._keys, audit=options.audit)
        self._clock = RedisClock(self._link)
        delayed = Delayed(self._link, self._keys)
        name = f"{identity.host}:{os.getpid()}"
        self._promoter = Promoter(delayed, name=name, interval=options.interval)
        self._coroner = Coroner(self._registry, self._clock, app.jobs, identity.lease)
        self._neighbours = Neighbours(
            self._registry,
            self._clock,
            token=self._promoter.token,
            host=identity.host,
            timeout=options.stuck_worker_timeout,
        )
        self._wakeups = Wakeups((ORPHANED,))
        self._deaths: list[Died] = []
        self._existing: tuple[str, ...] | None = None  # queues, while Redis tells of new ones
        self._counts_rivals = any(spec.least < spec.most for spec in options.pool_specs(1))
        self._sampled_at = -math.inf
        self._has_been_in_touch = False
        self._leaving = False
        self._refused: set[str] = set()  # duties that Redis answers and refuses
        self._has_news = True  # of the schedule, as far as we know
        self._is_alone = False
        self._take_up_duties(visits=bool(options.stuck_worker_timeout))

    def _take_up_duties(self, *, visits: bool) -> None:
        self._early = self._identity.lease.renewal * EARLY
        self._renewal = Duty("lease", self._renew)
        self._funerals = Duty("deaths", self._settle_deaths)
        self._lookout = Duty("masters", self._look_around, self._early)
        self._promotion = Duty("schedule", self._promote, self._early)
        self._sampling = Duty("depth", self._sample)
        first = -math.inf if visits else math.inf
        self._visits = Duty("node-resque", self._visit, due_at=first)

    def run(self) -> int:
        """Do the duties until the master says to leave, or is gone."""
        self._wakeups.install()
        self._inherited.listen()
        set_title("clerk")
        self._board.books.reached_ns = 0
        self._board.books.leads = 0
        self._board.books.recovered = self._board.books.refusals = 0
        self._board.books.ahead_us = 0
        for depth in self._board.depths:
            depth.seen_ns = depth.waiting = depth.standing_ns = 0
        send(self._inherited.pair, Ready())
        while not self._may_leave:
            self._wait()
            self._hear()
            for duty in self._duties():
                self._do(duty)
        self._leave()
        return ExitCode.OK

    # -- the loop ----------------------------------------------------------------------------

    @property
    def _orphaned(self) -> bool:
        return os.getppid() != self._inherited.parent

    @property
    def _may_leave(self) -> bool:
        return self._orphaned or (self._leaving and not self._deaths)

    def _duties(self) -> list[Duty]:
        """Return the duties by importance; deaths come before promotions."""
        return [
            self._renewal,
            self._funerals,
            self._lookout,
            self._promotion,
            self._sampling,
            self._visits,
        ]

    def _do(self, duty: Duty) -> None:
        now = time.monotonic()
        if duty.due_at - duty.early > now:
            return
        self._inherited.seat.enter(Phase.RUN, time.monotonic_ns())
        asked = self._link.asked
        try:
            pause = duty.perform()
        except (RedisUnavailable, RedisRefused) as error:
            self._lost_touch(duty, error)
            pause = duty.backoff.next(jitter=os.urandom(1)[0] / 255)
        else:
            duty.backoff.reset()
            self._note_refusal(duty, refused=False)
            if self._link.asked != asked:
                self._had_answer(duty)
        duty.due_at = time.monotonic() + pause

    def _had_answer(self, duty: Duty) -> None:
        """After a loss of touch only a renewed lease is proof: a replica can be read from."""
        if duty is self._renewal or self._board.books.reached_ns:
            self._in_touch()
        else:
            self._renewal.due_at = time.monotonic()

    def _in_touch(self) -> None:
        books = self._board.books
        if books.reached_ns:
            return
        books.reached_ns = time.monotonic_ns()
        self._existing = None
        # What Redis was to tell over the last connection it will not tell over this one.
        self._sampling.due_at = self._promotion.due_at = time.monotonic()
        self._has_news = True
        if self._has_been_in_touch:
            books.redials += 1  # connections that did not notice may be deaf
            send(self._inherited.pair, Redialled())
        self._has_been_in_touch = True

    def _note_refusal(self, duty: Duty, *, refused: bool) -> None:
        (self._refused.add if refused else self._refused.discard)(duty.name)
        self._board.books.refusals = len(self._refused)

    def _lost_touch(self, duty: Duty, error: ForkresqueError) -> None:
        self._note_refusal(duty, refused=isinstance(error, RedisRefused))
        if isinstance(error, RedisUnavailable):
            self._board.books.reached_ns = self._board.books.ahead_us = 0
            self._link.close()
            for depth in self._board.depths:
                depth.seen_ns = 0
        level = logging.WARNING if duty.backoff.attempts in (0, 20) else logging.DEBUG
        log.log(level, "duty=%s waits for Redis: %s", duty.name, error)

    def _wait(self) -> None:
        """Wait until a duty is due, or for word from the master, the kernel or Redis."""
        self._inherited.seat.enter(Phase.IDLE, time.monotonic_ns())
        if self._link.ringing:
            return
        due_at = min(duty.due_at for duty in self._duties())
        poll = select.poll()
        for number in (
            self._inherited.pair.fileno(),
            self._wakeups.fileno(),
            self._link.fileno(),
        ):
            if number is not None:
                poll.register(number, select.POLLIN)
        poll.poll(max(0.0, min(BEAT, due_at - time.monotonic())) * 1000)

    def _hear(self) -> None:
        self._wakeups.take()
        for message in receive(self._inherited.pair):
            if isinstance(message, Died) and message not in self._deaths:
                self._deaths.append(message)
                self._funerals.due_at = -math.inf
            elif isinstance(message, Leave):
                self._leaving = True
        try:
            pushed = self._link.pushed()
        except RedisUnavailable as error:
            self._lost_touch(self._sampling, error)
            pushed = set()
        if not pushed:
            return
        if not pushed.isdisjoint((FLUSHED, self._keys.schedule())):
            self._promotion.due_at, self._has_news = -math.inf, True
        if not pushed.isdisjoint((FLUSHED, self._keys.queues())):
            self._existing = None
        self._sample_soon()

    def _sample_soon(self) -> None:
        """Look at the queues again: Redis does not tell us of what we have put there ourselves."""
        soon = max(time.monotonic(), self._sampled_at + SAMPLE_EVERY)
        self._sampling.due_at = min(self._sampling.due_at, soon)

    # -- the duties --------------------------------------------------------------------------

    def _renew(self) -> float:
        lease, sent_ns = self._identity.lease, time.monotonic_ns()
        workers = [
            self._identity.worker(seat.pid, seat.pool) for seat in self._board.taken(Role.WORKER)
        ]
        back = self._registry.beat(lease, workers, now=self._clock.now())
        self._board.books.ahead_us = int(self._clock.offset * 1e6)
        if back is None:
            raise RedisRefused(f"the lease of {lease.master} is somebody else's")
        for worker in back:
            log.warning("worker=%s was unregistered by another client; it is back", worker)
        if self._counts_rivals:
            self._count_rivals()
        books = self._board.books
        if 0 < books.trusted_ns < sent_ns:  # who wakes may be here before the master looks
            books.lapses += 1
        # It counts from the question on, and ends early enough to stop a job before others begin.
        books.trusted_ns = sent_ns + int((lease.term - max(3.0, lease.renewal)) * 1e9)
        self._tell_pings()
        self._renew_locks()
        return lease.renewal

    def _renew_locks(self) -> None:
        """Have the locks of jobs last as long as those; an idle worker has none."""
        lease = self._identity.lease
        busy = [seat for seat in self._board.taken(Role.WORKER) if seat.phase == Phase.RUN]
        workers = [str(self._identity.worker(seat.pid, seat.pool)) for seat in busy]
        renew_locks(self._link, self._keys, workers, lease.term)

    def _tell_pings(self) -> None:
        if "ping" in self._events.heard:
            for number, seat in enumerate(self._board.seats):
                if seat.pid and seat.role == Role.WORKER:
                    self._events.emit("ping", number, int(self._clock.guess()))

    def _count_rivals(self) -> None:
        """Count who else works on the queues of our pools: with them the load is shared."""
        names = self._link.command("SMEMBERS", self._keys.workers())
        everybody = Counter(to_text(name).split(":", 2)[-1] for name in names)
        own = Counter(seat.pool for seat in self._board.taken(Role.WORKER))
        for index, queues in enumerate(self._identity.pools):
            known = everybody[",".join(patterns.shown(queues))]
            self._board.depths[index].rivals = max(0, known - own[index])

    def _settle_deaths(self) -> float:
        for died in list(self._deaths):
            try:
                self._coroner.settle(died)
            except BadKey as error:
                log.warning("worker=%s waits to be recovered: %s", died.worker, error)
                continue
            self._deaths.remove(died)
            send(self._inherited.pair, Settled(died.worker, died.owner))
            self._inherited.seat.enter(Phase.RUN, time.monotonic_ns())
        self._note_recoveries()
        return 1.0 if self._deaths else math.inf

    def _note_recoveries(self) -> None:
        if self._board.books.recovered != self._coroner.recovered:
            self._board.books.recovered = self._coroner.recovered
            self._sample_soon()

    def _look_around(self) -> float:
        if self._knows_to_be_alone():
            return self._identity.lease.renewal
        since = self._board.books.reached_ns
        reached_for = (time.monotonic_ns() - since) / 1e9 if since else 0.0
        orphans = self._coroner.look_around(reached_for=reached_for)
        self._note_recoveries()
        missing, renewal = self._coroner.misses, self._identity.lease.renewal
        self._lookout.early = 0.0 if missing else self._early  # see `look_pause`
        return look_pause(missing=missing, orphans=orphans, renewal=renewal)

    def _knows_to_be_alone(self) -> bool:
        """Return whether there is no other master, and Redis tells when one comes."""
        key = self._keys.masters()
        if self._link.heard(key):
            self._is_alone = False
            self._link.forget(key)
            names = self._link.command("SMEMBERS", key, armed=True)
            self._is_alone = {to_text(name) for name in names} <= {self._identity.lease.master}
        return self._is_alone and self._link.tracking

    def _visit(self) -> float:
        """While node-resque's own leaders are kept out, look after its workers."""
        if self._promoter.state is Lead.PROMOTE:
            self._neighbours.look(time.monotonic())
        return self._neighbours.pause

    def _promote(self) -> float:
        before = self._promoter.state
        result = self._promoter.step(news=self._has_news)
        self._has_news = False
        books = self._board.books
        if result.promoted:
            books.promoted += result.promoted
            self._sample_soon()
        books.leads = _LEADS[self._promoter.state]
        if self._promoter.state is not before:
            set_title("clerk" if self._promoter.state is Lead.FOLLOW else "clerk leader")
        return result.pause

    def _sample(self) -> float:
        """Count what waits for each pool. While nothing does, Redis tells when that changes."""
        if self._existing is None or not self._link.tracking:
            names = self._link.command("SMEMBERS", self._keys.queues(), armed=True)
            self._existing = tuple(map(to_text, names))
        waiting = 0
        for pool, wanted in enumerate(self._identity.pools):
            number = self._waiting(patterns.expand(wanted, self._existing))
            self._note_waiting(pool, number)
            waiting += number
        self._sampled_at = time.monotonic()
        if waiting or not self._link.tracking:
            return SAMPLE_EVERY if waiting else 1.0
        return math.inf

    def _waiting(self, queues: Sequence[str]) -> int:
        """Return how many jobs may be claimed from these queues."""
        question = load("waiting").pack(
            pause=self._keys.pause_all(),
            paused=self._keys.paused_queues(),
            queues=self._keys.queues(),
            list=[self._keys.queue(name) for name in queues],
            name=[to_bytes(name) for name in queues],
        )
        return int(self._link.call(question, armed=True))

    def _note_waiting(self, pool: int, waiting: int) -> None:
        depth, now_ns = self._board.depths[pool], time.monotonic_ns()
        depth.waiting, depth.seen_ns = waiting, now_ns
        if not waiting:
            depth.standing_ns = 0
        elif not depth.standing_ns:
            depth.standing_ns = now_ns
        elif now_ns - depth.standing_ns > STANDING_TOO_LONG * 1e9 and self._somebody_is_idle(pool):
            depth.standing_ns = now_ns
            send(self._inherited.pair, BatonWanted(pool))

    def _somebody_is_idle(self, pool: int) -> bool:
        return any(
            seat.pool == pool and not seat.held and seat.phase in (Phase.IDLE, Phase.CALL)
            for seat in self._board.taken(Role.WORKER)
        )

    def _leave(self) -> None:
        """Give up the lead, and the lease if nobody needs it; an orphan's workers still do."""
        try:
            self._promoter.resign()
            if not self._orphaned and not self._registry.kids(self._identity.lease.master):
                self._registry.forget_master(self._identity.lease.master)
        except (RedisUnavailable, RedisRefused) as error:
            log.warning("the clerk could not resign: %s", error)
        self._link.close()


_LEADS = {Lead.FOLLOW: 0, Lead.BLOCKED: 1, Lead.PROMOTE: 2}

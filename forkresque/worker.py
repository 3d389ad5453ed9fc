"""Worker: claim a job, perform it, settle it, one at a time. Knows no processes.

A job in hand stays in Redis until it is settled, in the worker's slot. Every question to Redis
that takes or moves a job carries a token and is asked again until it is answered, so an answer
that got lost neither loses a job nor doubles it.
"""

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any, TypeVar

from setproctitle import setproctitle

from forkresque import processes
from forkresque.aftermath import Aftermath
from forkresque.connection import Connectable, Connection
from forkresque.errors import RedisRefused, RedisUnavailable
from forkresque.events import WORKER_EVENTS, Emitter, Observable
from forkresque.idle import Alone, Bell, Station
from forkresque.inquest import Finding, verdict
from forkresque.jobs import close_loop, definitions
from forkresque.keeper import LeaseKeeper
from forkresque.patience import Patience
from forkresque.performer import Ended, Performer
from forkresque.plugins.lending import Lender
from forkresque.policy import queues as patterns
from forkresque.policy.verdicts import Blame
from forkresque.protocol.claims import Claimed, Claims, Nothing, Tokens, WorkerId
from forkresque.protocol.connection import RedisClock
from forkresque.protocol.keys import to_text
from forkresque.protocol.registry import Lease, Owner, Registry, Verdict
from forkresque.queue import Queue
from forkresque.rota import Rota
from forkresque.scoreboard import Phase, Role, Scoreboard, Seat
from forkresque.settling import Settler

log = logging.getLogger("forkresque.worker")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Post:
    """Who a worker is: its id, the process that carries it, and its master's lease."""

    worker: WorkerId
    owner: Owner
    lease: Lease
    nonce: str

    @classmethod
    def alone(cls, queues: Sequence[str], *, host: str = "") -> "Post":
        """Return the post of a worker that is its own master, in this process."""
        pid, nonce = os.getpid(), secrets.token_hex(8)
        label = processes.host_label(host)
        master = f"{label}:{pid}:{nonce}"
        return cls(
            WorkerId(label, pid, patterns.shown(queues)),
            Owner(master, pid, processes.start_of(pid) or 0),
            Lease(master, processes.describe(pid)),
            nonce,
        )


class Worker(Observable):
    """One worker, in the process and thread that call `run`.

    `connection` is what `Connection.of` takes. `queues` are names or patterns by priority;
    `interval` is in seconds, for servers that cannot tell of new jobs; `audit` is how many ends
    of jobs to keep a record of.
    Without a `station`, the worker stands alone: it keeps its own lease and runs until `stop`.
    `events` are told instead of those who listen by `on`. Of `ping`, and of trouble with the
    lease, a worker that stands alone tells in a thread of its own. `jobs` are definitions, or jobs
    as node-resque describes them; see `forkresque.jobs.definitions`.
    """

    def __init__(
        self,
        connection: Connectable,
        jobs: Mapping[str, Any],
        *,
        queues: Sequence[str] = ("*",),
        interval: float = 1.0,
        post: Post | None = None,
        station: Station | None = None,
        seat: Seat | None = None,
        titled: Callable[[str], None] = lambda _doing: None,
        audit: int = 0,
        events: Emitter | None = None,
    ) -> None:
        self.events = events or Emitter(WORKER_EVENTS)
        self._heard = self.events.heard
        self.connection = Connection.of(connection)
        self._jobs = definitions(jobs)
        self._keys = self.connection.keys
        self._post = post or Post.alone(queues)
        self._alone = Alone() if station is None else None
        self._station: Station = station or self._alone or Alone()
        self._seat = seat or Scoreboard(1, shared=False).seats[0]
        self._titled = titled
        self._pid = os.getpid()
        name, master = str(self._post.worker), self._post.lease.master
        self._link = self.connection.link(tracking=True)
        self._claims = Claims(self._link, self._keys, self._post.worker, master=master, audit=audit)
        self._rota = Rota(queues, self._link, self._keys, self._claims, interval=interval)
        self._registry = Registry(self._link, self._keys, audit=audit)
        self._clock = RedisClock(self._link)
        self._tokens = Tokens(self._post.nonce)
        self._bell = Bell(self._link, self._keys, master=master, interval=interval)
        self._patience = Patience(name, self._station, self._seat, self._bell, self.events)
        self.performer = Performer(self._jobs, self._seat, titled, self.events, self._lender().lend)
        self._settler = Settler(
            name, self._claims, self._clock, self.performer, self._patience, self.events
        )
        self._registered = False
        self._doubtful = False  # a job may stand in our slot that nobody would look for
        self._redials = self._looked_at = self._station.redials
        self._warned: set[bytes] = set()

    def run(self) -> None:
        """Work until the station says to leave; the job in hand is finished first."""
        keeper = None
        if self._alone is not None:
            self._seat.take(Role.WORKER, time.monotonic_ns())
            self._seat.pid = self._pid
            keeper = LeaseKeeper(self.connection, self._post.worker, self._post.lease, self.events)
        try:
            self._patience.ask(self._register)
            self.events.emit("start", self._now())
            with closing(Aftermath(self._link.parts(), footing=self._station.footing)) as aftermath:
                while not self._station.leaving:
                    job = self._await_job()
                    while job is not None:
                        job = self._carry_out(job, aftermath)
                self._leave()
        finally:
            if keeper is not None:
                keeper.stop()
            if self._alone is not None:
                self._alone.close()
            close_loop()
            self._link.close()
            if "_queue" in self.__dict__:
                self._queue.store.client.close()
            self.events.emit("end", self._now())

    def _lender(self) -> Lender:
        return Lender(
            self._link,
            self._claims,
            self._keys,
            self._clock,
            worker=str(self._post.worker),
            ask=self._persist,
            queues=lambda: self._queue,
        )

    @cached_property
    def _queue(self) -> Queue:
        """Return what the plugins enqueue with, over connections of its own."""
        return Queue(self.connection, self._jobs)

    def stop(self) -> None:
        """Finish the job in hand, then leave. For a worker that stands alone."""
        if self._alone is not None:
            self._alone.stop()

    # -- between jobs ------------------------------------------------------------------------

    def _await_job(self) -> Claimed | None:
        """Wait for this worker's turn and for a job; None when it was woken for another reason."""
        self._seat.enter(Phase.IDLE, time.monotonic_ns())
        self._titled("idle")
        self.events.emit("pause")
        if self._doubtful or self._looked_at != self._station.redials:
            self._look_into_own_slot()
        if not self._station.turn():
            return None
        armed = False  # whoever was woken finds a job, mostly: the first claim is a plain one
        while self._station.open:
            self._seat.enter(Phase.CALL, time.monotonic_ns())
            answer = self._patience.ask(partial(self._claim, self._tokens.fresh(), armed=armed))
            if self._claims.skipped:
                self._warn_of(self._claims.skipped)
            if isinstance(answer, Claimed):
                self._station.pass_on()
                return self._kept(answer)
            self._doubtful = answer is None  # given up before the answer came
            if armed or not self._link.tracking:
                if self._station.is_surplus():
                    return None
                self._come_to_terms(answer)
            armed = not armed and self._link.tracking
        return None

    def _look_into_own_slot(self) -> None:
        """Put back what Redis gave us and we never heard of, or gave us again when it fell back.

        A Redis that lost the last it was told, and may have forgotten that a job has ended, is
        a Redis that was away.
        """
        self._looked_at = self._station.redials
        self._patience.ask_until(lambda: self._station.leaving, self._recover_own_slot)
        self._doubtful = False

    def _claim(self, token: bytes, *, armed: bool) -> Claimed | Nothing:
        if self._redials != self._station.redials:
            self._redials = self._station.redials
            self._link.close()  # it may lead to a server that is no primary any more
        if not self._registered:
            self._register()
        if armed:
            self._link.pushed()  # what has come until now will be in the answer
        self._rota.refresh()
        self.events.emit("poll", self._claims.queues)
        return self._claims.claim(token, now=self._clock.now(), armed=armed)

    def _come_to_terms(self, answer: Nothing | None) -> None:
        """Do what the answer asks for, so that the next claim may bring a job."""
        match answer:
            case Nothing.UNREGISTERED:
                log.warning("worker=%s was unregistered by another client", self._post.worker)
                self._registered = False
            case Nothing.BUSY:
                self._patience.ask(self._recover_own_slot)
            case Nothing.EMPTY | Nothing.PAUSED | Nothing.ORPHAN:
                with contextlib.suppress(RedisUnavailable):  # the next claim connects again
                    self._bell.wait(self._station, answer)
            case _:
                pass  # time to leave, or to pause

    def _warn_of(self, key: bytes) -> None:
        if key not in self._warned:
            self._warned.add(key)
            log.warning("key=%s holds another type than a queue and is passed over", to_text(key))

    def _register(self) -> None:
        post = self._post
        while held := self._registry.register(
            post.worker, post.owner, post.lease, now=self._clock.now()
        ):
            account = f"worker {post.worker} has the id of a process that is gone: {held.owner}"
            log.warning("%s", account)
            finding = Finding(Blame.HOST, bool(held.token), account)
            ruling = verdict(held, finding, self._jobs, now=self._clock.now())
            self._registry.recover(held, ruling)
            self.events.emit("cleaning_worker", str(post.worker), post.worker.pid)
        self._registered = True
        self.events.emit("ping", int(self._clock.guess()))

    def _recover_own_slot(self) -> None:
        """Put back a job that Redis says is ours and of which we know nothing."""
        held = self._registry.held(str(self._post.worker))
        if held.token:
            log.warning("worker=%s finds an unknown job in its slot", self._post.worker)
            self._registry.recover(held, INNOCENT)
            self._registered = False

    def _leave(self) -> None:
        """Unregister, if Redis answers; if it does not, the clerk or another master will do it."""
        self._seat.enter(Phase.DRAIN, time.monotonic_ns())
        if not self._registered:
            return
        try:
            if not self._registry.unregister(str(self._post.worker), self._post.owner):
                self._recover_own_slot()  # the answer to a claim was lost, and the job is there
        except (RedisUnavailable, RedisRefused) as error:
            log.warning("worker=%s could not unregister: %s", self._post.worker, error)
            self._patience.complain(error)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.guess(), UTC)

    # -- a job in hand -----------------------------------------------------------------------

    def _carry_out(self, job: Claimed, aftermath: Aftermath) -> Claimed | None:
        """Perform and settle `job`; return the next one, if it came along."""
        connection = self._link.socket
        aftermath.begin(connection)
        ended = self.performer.perform(job)
        if fault := aftermath.clear():
            log.warning("worker=%s after job=%s: %s", self._post.worker, self._seat.title, fault)
            if connection is self._link.socket and not aftermath.holds_connection:
                self._link.abandon()
        if self.performer.begun is not None:
            ended = self.performer.conclude(ended)
        self._station.look_round(fit=not fault)
        log.debug("job=%s queue=%s outcome=%s", self._seat.title, job.queue, ended.outcome)
        return self._settle(job, ended)

    def _settle(self, job: Claimed, ended: Ended) -> Claimed | None:
        self._seat.enter(Phase.SETTLE, time.monotonic_ns())
        settled = self._settler.settle(job, ended, self._next_token)
        if settled.lost:
            log.warning("worker=%s: its job was recovered by others meanwhile", self._post.worker)
            self._registered = False
            self._doubtful = True
        if self._claims.skipped:
            self._warn_of(self._claims.skipped)
        if settled.next is Nothing.UNREGISTERED:
            self._registered = False
        return self._kept(settled.next) if isinstance(settled.next, Claimed) else None

    def _next_token(self) -> bytes:
        """Return the token to claim the next job with, or b"" if none may be claimed."""
        if not self._station.open:
            return b""
        if self._rota.may_have_changed:
            self._patience.ask(self._rota.refresh)
        if self._heard:
            self.events.emit("poll", self._claims.queues)
        return self._tokens.fresh()

    def _kept(self, job: Claimed) -> Claimed | None:
        """Return `job`, unless a pause or a drain was asked for: then it goes back, unstarted."""
        if self._station.open:
            return job
        self._settler.put_back(job)
        return None

    def _persist(self, question: Callable[[], T]) -> T:
        """Ask for a plugin of the job in hand, which no interrupt may cut off from the answer."""
        return self.performer.uninterrupted(lambda: self._patience.persist(question))


INNOCENT = Verdict(suspect="", limit=1, fail=False, poison=b"", entry=b"")


def set_title(text: str) -> None:
    """Set what `ps` shows.

    `resque-<digit>` in it keeps Ruby workers of this host from pruning ours, unless it holds
    `resque-web`, by which they know what is no worker.
    """
    from forkresque import __version__

    setproctitle(f"forkresque-{__version__}: {text.replace('resque-web', 'resque_web')}")

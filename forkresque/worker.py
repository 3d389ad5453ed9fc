"""Worker: claim a job, perform it, settle it, one at a time. Knows no processes.

A job in hand stays in Redis until it is settled, in the worker's slot. Every question to Redis
that takes or moves a job carries a token and is asked again until it is answered, so an answer
that got lost neither loses a job nor doubles it.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import cached_property, partial
from secrets import SystemRandom
from typing import Any, TypeVar

from forkresque import processes
from forkresque.aftermath import Aftermath
from forkresque.connection import Connectable, Connection
from forkresque.course import Course
from forkresque.enrolment import Enrolment
from forkresque.errors import ConfigError, RedisUnavailable
from forkresque.events import WORKER_EVENTS, Emitter, Observable
from forkresque.idle import INTERVAL, Alone, Bell, Once, Station, polling
from forkresque.inline import Inline
from forkresque.jobs import close_loop, definitions
from forkresque.keeper import LeaseKeeper, warn_of_limits
from forkresque.naming import Names
from forkresque.order import Order
from forkresque.patience import Patience
from forkresque.performer import Ended, Performer
from forkresque.plugins.lending import Lender
from forkresque.plugins.settings import Duration, seconds
from forkresque.policy.orders import Turns, ordered
from forkresque.policy.queues import listed
from forkresque.post import Post
from forkresque.protocol.claims import Claimed, Claims, Nothing, Tokens
from forkresque.protocol.connection import RedisClock
from forkresque.protocol.payload import decoded
from forkresque.protocol.registry import Registry
from forkresque.queue import Queue
from forkresque.rota import Rota
from forkresque.scoreboard import Phase, Role, Scoreboard, Seat
from forkresque.settling import Chance, Settler

log = logging.getLogger("forkresque.worker")

T = TypeVar("T")

NAMES = Names()  # of the workers of this process


class Worker(Observable):
    """One worker: `run` works in the calling thread, `start` in a thread of the worker's own.

    `connection` is what `Connection.of` takes. `jobs` are definitions, or jobs as node-resque
    describes them; see `forkresque.jobs.definitions`. `queues` are names or patterns by priority, a
    list or a text with commas; `order` may let them take turns instead, "round_robin", or weigh
    them, {"high": 6, "low": 1}. `name` is `host:pid` with this process' pid; the default numbers
    the workers of one process. `interval`, or node's `timeout`, is what lies between polls where
    Redis cannot tell of new jobs. With `looping=False` it does one job, if there is one, and ends.
    `audit` is how many ends of jobs to keep a record of. Raises ConfigError.

    Without a `station` the worker stands alone: it keeps its own lease, works until `end` or
    `stop`, and keeps no time limits of jobs, since only another process can end a job for sure.
    Of `ping`, and of trouble with the lease, it tells in a thread of its own. `events` are told
    instead of those who listen by `on`.
    """

    def __init__(
        self,
        connection: Connectable,
        jobs: Mapping[str, Any],
        *,
        queues: str | Sequence[str] = ("*",),
        order: Order | Mapping[str, int] | str = "strict",
        name: str = "",
        interval: Duration = INTERVAL,
        timeout: Duration | None = None,
        looping: bool = True,
        audit: int = 0,
        post: Post | None = None,
        station: Station | None = None,
        seat: Seat | None = None,
        titled: Callable[[str], None] = lambda _doing: None,
        events: Emitter | None = None,
    ) -> None:
        self.events = events or Emitter(WORKER_EVENTS)
        self._heard = self.events.heard
        self.connection = Connection.of(connection)
        self._jobs = definitions(jobs)
        self._keys = self.connection.keys
        self._listed, self._order = listed(queues), ordered(order)
        pause = polling(interval, timeout)
        self._post = post or Post.alone(self._listed, host=self._called(name))
        self._alone = None if station else Alone() if looping else Once()
        self._station: Station = station or self._alone or Alone()
        self._looping = looping
        self._seat = seat or Scoreboard(1, shared=False).seats[0]
        self._pid = os.getpid()
        self._wire(pause, audit, titled)
        self._course = Course(self.name, self._work, self.stop)
        self._job: Claimed | None = None
        self._ended: Ended | None = None
        self._found_nothing = False  # when it last looked
        self._redials = self._station.redials

    def _called(self, name: str) -> str:
        return NAMES.take(name, self, host=processes.host_label())

    def _wire(self, interval: float, audit: int, titled: Callable[[str], None]) -> None:
        """Make what speaks to Redis, over one connection of this worker's."""
        worker, master = str(self._post.worker), self._post.lease.master
        self._link = self.connection.link(tracking=True)
        self._claims = Claims(self._link, self._keys, self._post.worker, master=master, audit=audit)
        turns = Turns(self._order, SystemRandom().random)
        self._rota = Rota(
            self._listed, turns, self._link, self._keys, self._claims, interval=interval
        )
        self._clock = RedisClock(self._link, offset=self._station.ahead)
        registry = Registry(self._link, self._keys, audit=audit)
        self._enrolment = Enrolment(
            self._post, registry, self._clock, self._jobs, self._station, self.events
        )
        self._tokens = Tokens(self._post.nonce)
        self._bell = Bell(self._link, self._claims, self._keys, master=master, interval=interval)
        self._patience = Patience(worker, self._station, self._seat, self._bell, self.events)
        self.performer = Performer(self._jobs, self._seat, titled, self.events, self._lender().lend)
        self.performer.keeps_result = not self._looping
        self._settler = Settler(
            worker, self._claims, self._clock, self.performer, self._patience, self.events
        )

    # -- what it is and has ------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Return `host:pid`."""
        return self._post.worker.name

    @property
    def queues(self) -> tuple[str, ...]:
        """Return the queues that it looks at now; before its first look, as they were given."""
        return self._claims.queues or self._listed

    @property
    def working(self) -> bool:
        """Return whether it has a job in hand."""
        return self._job is not None

    @property
    def job(self) -> dict[str, Any] | None:
        """Return the decoded payload of the job in hand, None for none."""
        job = self._job
        return None if job is None else decoded(job.raw)

    @property
    def queue(self) -> str | None:
        """Return the queue of the job in hand, None for none."""
        job = self._job
        return None if job is None else job.queue

    @property
    def error(self) -> BaseException | None:
        """Return what the job in hand has raised; with `looping=False`, also afterwards."""
        return None if self._ended is None else self._ended.error

    @property
    def result(self) -> object:
        """Return the job's result: to who listens to `success`, and with `looping=False`."""
        return self.performer.result

    # -- its life ----------------------------------------------------------------------------

    def connect(self) -> None:
        """Reach Redis now, and refuse one on which jobs would get lost.

        Nobody has to: a worker connects when it runs, and waits for a Redis that is away. Raises
        RedisUnavailable and RedisRefused.
        """
        self.connection.connect()

    def run(self) -> None:
        """Work in this thread until it is to leave; the job in hand is finished first.

        Raises ConfigError for a worker that has run before.
        """
        self._course.run()

    def start(self) -> None:
        """Work in a thread of its own. A process that ends waits for the job in hand.

        Raises ConfigError for a worker that has run before.
        """
        self._course.start()

    def stop(self) -> None:
        """Have it finish the job in hand and leave, and return at once. For one that stands alone.

        A signal handler may call this.
        """
        if self._alone is not None:
            self._alone.stop()

    def end(self, timeout: Duration | None = None) -> bool:
        """Finish the job in hand, and leave; return whether it has left within `timeout`.

        It leaves later when it did not. A job or a listener cannot wait for its own worker: there
        the answer is False, at once. Raises what ended a worker that was started and failed.
        """
        patience = None if timeout is None else seconds("the timeout of end", timeout)
        if not self._course.begun:
            self._close()
        return self._course.end(patience)

    def perform_inline(self, name: str, args: object = ()) -> object:
        """Perform a job here and now within its hooks, without Redis but for what those ask of it.

        Returns its result, None if a plugin does not let it pass. Raises what the job raises unless
        a plugin clears it, UnknownJob, InvalidArgs, and ConfigError on a worker that has begun.
        """
        self._course.check_process()
        if self._course.begun:
            raise ConfigError(
                f"worker {self.name} was started or has ended, and performs nothing inline",
                hint="make another one to perform a job inline",
            )
        worker = str(self._post.worker)
        inline = Inline(self._jobs, name=self.name, worker=worker, queue=lambda: self._queue)
        return inline.perform(name, args)

    def _work(self) -> None:
        keeper = None
        if self._alone is not None:
            self._seat.take(Role.WORKER, time.monotonic_ns())
            self._seat.pid = self._pid
            warn_of_limits(self._post.worker, self._jobs.values())
        try:
            if self._alone is not None:
                keeper = LeaseKeeper(
                    self.connection, self._post.worker, self._post.lease, self.events
                )
                self._course.helper = keeper.thread
            self._patience.ask(self._enrolment.register)
            self.events.emit("start", self._now())
            with closing(Aftermath(self._link.parts(), footing=self._station.footing)) as aftermath:
                while not self._station.leaving:
                    job = self._await_job()
                    while job is not None:
                        job = self._carry_out(job, aftermath)
                self._seat.enter(Phase.DRAIN, time.monotonic_ns())
                if error := self._enrolment.leave():
                    self._patience.complain(error)
                self._seat.gone = int(self._enrolment.gone)
        finally:
            if keeper is not None:
                keeper.stop()
            self._close()
            close_loop()
            self.events.emit("end", self._now())

    def _close(self) -> None:
        if self._alone is not None:
            self._alone.close()
        self._link.close()
        if "_queue" in self.__dict__:
            self._queue.store.client.close()
        NAMES.free(self.name)

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

    # -- between jobs ------------------------------------------------------------------------

    def _await_job(self) -> Claimed | None:
        """Wait for this worker's turn and for a job; None when it was woken for another reason."""
        self._seat.enter(Phase.IDLE, time.monotonic_ns())
        self.performer.rest()
        self.events.emit("pause")
        self._enrolment.clear_doubts(self._patience)
        if (said := self._station.turn()) is None:
            return None
        # Whoever is told of jobs, or woken by Redis, finds one mostly: such a claim is a plain one.
        armed = self._link.tracking and self._found_nothing and not said
        while self._station.open:
            self._seat.enter(Phase.CALL, time.monotonic_ns())
            answer = self._patience.ask(partial(self._claim, self._tokens.fresh(), armed=armed))
            self._rota.warn_of_skipped()
            if isinstance(answer, Claimed):
                self._station.pass_on(self._claims.left)
                return self._kept(answer)
            self._found_nothing = answer is Nothing.EMPTY
            self._enrolment.doubtful = answer is None  # given up before the answer came
            if armed or not self._link.tracking:
                if self._station.is_surplus():
                    return None
                self._come_to_terms(answer)
            armed = not armed and self._link.tracking
        return None

    def _claim(self, token: bytes, *, armed: bool) -> Claimed | Nothing:
        if self._redials != self._station.redials:
            self._redials = self._station.redials
            self._link.close()  # it may lead to a server that is no primary any more
        if not self._enrolment.stands:
            self._enrolment.register()
        if armed:
            self._link.pushed()  # what has come until now will be in the answer
        self._rota.refresh()
        self.events.emit("poll", self._claims.queues)
        now, places = self._clock.now(), self._rota.turns.places()
        return self._claims.claim(token, now=now, armed=armed, places=places)

    def _come_to_terms(self, answer: Nothing | None) -> None:
        """Do what the answer asks for, so that the next claim may bring a job."""
        match answer:
            case Nothing.UNREGISTERED:
                log.warning("worker=%s was unregistered by another client", self._post.worker)
                self._enrolment.stands = False
            case Nothing.BUSY:
                self._patience.ask(self._enrolment.recover_own_slot)
            case Nothing.EMPTY | Nothing.PAUSED | Nothing.ORPHAN:
                with contextlib.suppress(RedisUnavailable):  # the next claim connects again
                    self._bell.wait(self._station, answer)
            case _:
                pass  # time to leave, or to pause

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.guess(), UTC)

    # -- a job in hand -----------------------------------------------------------------------

    def _carry_out(self, job: Claimed, aftermath: Aftermath) -> Claimed | None:
        """Perform and settle `job`; return the next one, if it came along."""
        self._job, self._ended = job, None
        self._rota.turns.served(job.queue)
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
        if log.isEnabledFor(logging.DEBUG):
            log.debug("job=%s queue=%s outcome=%s", self._seat.title, job.queue, ended.outcome)
        self._ended = ended
        following = self._settle(job, ended)
        self._job = None
        if self._looping:  # else they are asked for afterwards
            self._ended = self.performer.result = None
        return following

    def _settle(self, job: Claimed, ended: Ended) -> Claimed | None:
        self._seat.enter(Phase.SETTLE, time.monotonic_ns())
        settled = self._settler.settle(job, ended, self._chance)
        if settled.lost:
            log.warning("worker=%s: its job was recovered by others meanwhile", self._post.worker)
            self._enrolment.stands = False
            self._enrolment.doubtful = True
        self._rota.warn_of_skipped()
        if settled.next is Nothing.UNREGISTERED:
            self._enrolment.stands = False
        self._found_nothing = settled.next is Nothing.EMPTY
        return self._kept(settled.next) if isinstance(settled.next, Claimed) else None

    def _chance(self) -> Chance:
        """Return the token and the order of the claim that comes with a settle."""
        if not self._station.open:
            return b"", ()
        if self._rota.may_have_changed:
            self._patience.ask(self._rota.refresh)
        if self._heard:
            self.events.emit("poll", self._claims.queues)
        return self._tokens.fresh(), self._rota.turns.places()

    def _kept(self, job: Claimed) -> Claimed | None:
        """Return `job`, unless a pause or a drain was asked for: then it goes back, unstarted."""
        if self._station.open:
            return job
        self._settler.put_back(job)
        return None

    def _persist(self, question: Callable[[], T]) -> T:
        """Ask for a plugin of the job in hand, which no interrupt may cut off from the answer."""
        return self.performer.uninterrupted(lambda: self._patience.persist(question))

"""The body of a worker child: a Worker, its turn to claim, and its master's word.

Idle workers share a pipe. Whoever reads a byte, the baton, is on call: it claims, and waits for
Redis to tell of a job. When it gets one it writes the byte back before it starts, so the next
sleeper takes its place; a burst wakes as many workers as there are jobs, and one more. The byte
says how many jobs are left: who knows of one for itself and of others passes it on at once, and
goes and claims without being on call.
"""

import _thread
import contextlib
import math
import os
import select
import signal
import threading
import time
from collections.abc import Container, Mapping
from dataclasses import replace
from typing import NamedTuple

from forkresque import processes
from forkresque.app import Forkresque
from forkresque.connection import Connection
from forkresque.errors import ExitCode, JobAborted, JobTimeout, RedisRefused, RedisUnavailable
from forkresque.events import Emitter
from forkresque.idle import BEAT
from forkresque.jobs import Definition
from forkresque.options import SupervisorOptions
from forkresque.policy.judgement import frozen_after
from forkresque.post import Post
from forkresque.protocol.registry import Registry
from forkresque.scoreboard import Phase, Role, Scoreboard, Seat
from forkresque.supervisor import resources
from forkresque.supervisor.child import SOFT, Inheritance
from forkresque.supervisor.identity import Identity
from forkresque.supervisor.messages import Due, Interrupted, Ready, receive, send
from forkresque.supervisor.titles import set_title
from forkresque.supervisor.wakeups import Wakeups
from forkresque.worker import Worker

_BATON = ord("b")  # without jobs, which is how those before had it, too
_MOST_LEFT = 255 - _BATON
NAP = 20.0  # seconds between two signs of life, at most, of a worker that is not on call
_OFTEN, _SELDOM = 1.0, 10.0  # seconds between two looks of a Pulse, with and without a job


class Pipe(NamedTuple):
    """The baton pipe of a pool."""

    reader: int
    writer: int

    @classmethod
    def create(cls) -> "Pipe":
        """Return a new pipe, without a baton in it."""
        return cls(*os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK))

    def give(self, left: int = 0) -> None:
        """Put a baton in, on which so many jobs are told of. A full pipe has enough of them."""
        with contextlib.suppress(BlockingIOError):
            os.write(self.writer, bytes((_BATON + min(left, _MOST_LEFT),)))

    def take(self) -> int | None:
        """Take a baton out; return the jobs it tells of, or None if somebody else was first."""
        try:
            return max(0, os.read(self.reader, 1)[0] - _BATON)
        except BlockingIOError:
            return None


class Limits(NamedTuple):
    """After how many jobs a worker leaves, and by how many bytes it may grow; 0 is no limit."""

    max_jobs: int
    max_memory: int

    def begin(self, seat: Seat) -> None:
        """Take note of what a new worker has: when memory is short, who has grown most goes."""
        seat.own_at_ready = resources.anonymous_memory()

    def are_reached(self, seat: Seat) -> bool:
        """Return whether a worker must not take another job; take note of its growth."""
        if self.max_memory:
            seat.grown = self._growth(seat)
        return bool(0 < self.max_jobs <= seat.done + seat.failed)

    def are_near(self, seat: Seat) -> bool:
        """Return whether this was the job after which a worker should be replaced."""
        return bool(self.max_jobs and seat.due_jobs == seat.done + seat.failed)

    def _growth(self, seat: Seat) -> int:
        """Return by how much a worker has grown, not counting what is free in it."""
        most = seat.own_at_ready + self.max_memory
        if (own := resources.anonymous_memory()) > most:
            resources.give_free_memory_back()
            own = resources.anonymous_memory()
        return max(0, own - int(seat.own_at_ready))


class Pooled:
    """The station of a worker among others."""

    def __init__(
        self,
        board: Scoreboard,
        baton: Pipe,
        inherited: Inheritance,
        wakeups: Wakeups,
        limits: Limits,
        *,
        nap: float = NAP,
    ) -> None:
        self._nap = nap  # seconds between two signs of life of one that sleeps
        self._board = board
        self._orders = board.orders
        self._seat: Seat = inherited.seat
        self._baton = baton
        self._pair = inherited.pair
        self._parent = inherited.parent
        self._wakeups = wakeups
        self._limits = limits
        self._told_to_leave = False
        self._spent = False  # it has carried out as many jobs as it may
        self.footing = (self._pair.fileno(), wakeups.fileno())
        self._unfit = False  # a job has done to this process what cannot be undone
        self._sleepers = select.epoll()
        self._sleepers.register(baton.reader, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        self._sleepers.register(self._pair.fileno(), select.EPOLLIN)
        self._sleepers.register(wakeups.fileno(), select.EPOLLIN)

    def begin(self) -> None:
        """Take note of what the worker has before its first job."""
        self._limits.begin(self._seat)

    @property
    def orphaned(self) -> bool:
        """Return whether the master is gone."""
        return os.getppid() != self._parent

    @property
    def leaving(self) -> bool:
        """Return whether the worker should finish."""
        if self._told_to_leave or self._unfit or self._spent or self._orders.draining:
            return True
        return self.orphaned

    @property
    def open(self) -> bool:
        """Return whether a job may be claimed."""
        return not (self._orders.paused or self.leaving)

    @property
    def redials(self) -> int:
        """Return how often the clerk had to connect anew: our connection may be deaf, too."""
        return int(self._board.books.redials)

    @property
    def ahead(self) -> float | None:
        """Return by how many seconds Redis' clock is ahead, as the clerk has found lately."""
        return self._board.books.ahead_us / 1e6 or None

    def turn(self) -> int | None:
        """Sleep until the baton comes; None when it is time to leave, or Redis was away."""
        self._seat.on_call = 0
        redials = self.redials
        while not self.leaving and self.redials == redials:
            self._seat.enter(Phase.IDLE, time.monotonic_ns())
            if self._seat.held:  # it must not even be woken in place of one who may work
                self.rest(BEAT)
                continue
            ready = dict(self._sleepers.poll(self._nap))
            self._hear(ready)
            if self._baton.reader in ready:
                # Said before it is done, so that the master never takes the baton for lost.
                self._seat.enter(Phase.CALL, time.monotonic_ns())
                self._seat.turns += 1
                # A paused worker drops the baton: the master gives one when all go on.
                left = self._baton.take()
                if left is not None and self.open:
                    self._go(left)
                    return left
        return None

    def _go(self, left: int) -> None:
        """Go on call; or claim one of the jobs that are left, while others wake up for the rest."""
        if left > 1:
            self._baton.give(left - 1)
        else:
            self._seat.on_call = 1

    def pass_on(self, left: int = 0) -> None:
        """Let the next sleeper go on call, or several go for the jobs that are left."""
        if self._seat.on_call:
            self._seat.on_call = 0
            self._baton.give(min(left, self._sleeping()) if left > 1 else left)
        if self._limits.max_jobs == 1:
            self._seat.last = 1
            if not self._has_successor():
                send(self._pair, Due())  # while the job runs there is time to give birth

    def _sleeping(self) -> int:
        """Return how many wait for the baton: on one that tells of more, nobody would end it."""
        return sum(
            seat.pool == self._seat.pool and seat.phase is Phase.IDLE and not seat.held
            for seat in self._board.taken(Role.WORKER)
        )

    def _has_successor(self) -> bool:
        """Return whether some worker of this pool waits for a place already: one is enough."""
        taken = self._board.taken(Role.WORKER)
        return any(seat.held and seat.pool == self._seat.pool for seat in taken)

    def take_leave(self) -> None:
        """Tell the master of an end that it does not expect: it may have a place for another."""
        if self._spent and self._seat.gone:
            send(self._pair, Due())

    def is_surplus(self) -> bool:
        """Return whether somebody else is on call as well, and shall stay so: the first seat."""
        if not self._seat.on_call:  # it was, and has passed that on
            return True
        fresh_ns = time.monotonic_ns() - int(2 * BEAT * 1e9)
        first = next(
            (
                seat
                for seat in self._board.taken(Role.WORKER)
                if seat.pool == self._seat.pool
                and seat.on_call
                and seat.phase is Phase.CALL
                and seat.beat_ns > fresh_ns
            ),
            None,
        )
        return first is not None and first is not self._seat

    def look_round(self, *, fit: bool) -> None:
        """Hear what was said during a job. A worker that is not fit for another one retires.

        It asks its descriptors nothing any more: their numbers may be anybody's now.
        """
        self._spent = self._limits.are_reached(self._seat)
        if fit and not self._spent and self._limits.are_near(self._seat):
            send(self._pair, Due())  # the master would look only at its next pass
        if not fit:
            self._unfit = True
        elif self._wakeups.has_news:
            self._hear(self.footing)

    def rest(self, timeout: float, fd: int | None = None) -> bool:
        """Wait for `fd`, for `timeout` seconds, or for word from outside; return True for word."""
        self._seat.enter(self._seat.phase, time.monotonic_ns())
        if self._unfit:
            threading.Event().wait(timeout)
            return True
        poll = select.poll()
        numbers = [self._wakeups.fileno(), fd]
        if not self.orphaned:  # the end of a pair is always readable
            numbers.append(self._pair.fileno())
        if self._seat.on_call:  # one baton too many; those of others are not ours to take
            numbers.append(self._baton.reader)
        for number in numbers:
            if number is not None and number >= 0:
                poll.register(number, select.POLLIN)
        redials = self.redials
        ready = dict(poll.poll(max(0.0, timeout) * 1000))
        heard = self._hear(ready)
        if fd in ready and not heard:  # a job, mostly, and each look at the rest holds it up
            return False
        baton = self._baton.reader in ready and self._baton.take() is not None
        return heard or baton or not self.open or redials != self.redials

    def _hear(self, ready: Container[int]) -> bool:
        """Take note of what the master or the kernel says; return whether it said anything.

        Only those of our descriptors that are `ready` are asked.
        """
        pair, wakeups = self.footing
        if wakeups in ready or self._wakeups.has_news:
            signals = self._wakeups.take()
            self._told_to_leave |= bool(signals & {signal.SIGTERM, signal.SIGQUIT})
            if signals:
                return True
        return pair in ready and bool(receive(self._pair))


class Pulse:
    """Beats while a job runs, and looks after a job whose master is gone.

    A thread with all signals blocked, of which `threading` knows nothing: nobody waits for it. A
    job that waits lets it beat; one that holds the GIL in a C call for minutes does not, and that
    is what "stuck" means. While there is no job it only looks seldom whether there is one: the
    beginning of a job is a beat, too. After `silence` seconds without a beat a job counts as stuck;
    an orphan's job may take `patience` more.
    """

    def __init__(
        self,
        worker: Post,
        station: Pooled,
        seat: Seat,
        *,
        connection: Connection,
        silence: float,
        patience: float,
    ) -> None:
        self._patience = patience
        self._post = worker
        self._station = station
        self._seat = seat
        self._connection = connection
        self._idle = min(_SELDOM, 2 * worker.lease.renewal, silence / 3)
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def start(self) -> None:
        """Start beating."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        _thread.start_new_thread(self._run, ())
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def rouse(self) -> None:
        """Have it see now whether the master of a job is gone. For a signal handler.

        A lock, and not an event, within which one handler could wait for another for ever. A job
        without any time is not left the moment until the thread runs: it could do its work in it.
        """
        if not self._seat.job_started_ns:
            return
        if not self._patience and self._station.orphaned:
            os.kill(os.getpid(), SOFT)
        with contextlib.suppress(RuntimeError):
            self._asleep.release()

    def _run(self) -> None:
        while not self._station.orphaned:
            working = self._seat.job_started_ns
            if working:
                self._seat.beat_ns = time.monotonic_ns()
            self._sleep(_OFTEN if working else self._idle)
        deadline = time.monotonic() + self._patience
        registry = Registry(self._connection.link(), self._connection.keys)
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(RedisUnavailable, RedisRefused):
                registry.renew_own_lease(str(self._post.worker), self._post.lease)
            self._sleep(min(self._post.lease.renewal, left))
        os.kill(os.getpid(), SOFT)
        self._sleep(2.0)
        os._exit(ExitCode.CUT)

    def _sleep(self, timeout: float) -> None:
        """Wait so long, or until roused; either way the lock is held again."""
        self._asleep.acquire(timeout=timeout)


def work(
    app: Forkresque,
    options: SupervisorOptions,
    board: Scoreboard,
    baton: Pipe,
    inherited: Inheritance,
    identity: Identity,
    events: Emitter,
) -> int:
    """Be a worker until the master says to leave, or is gone."""
    seat, pid = inherited.seat, os.getpid()
    seat.pid = pid  # its parent may be slower to write it
    post = identity.post(pid, processes.start_of(pid) or 0, seat.pool)
    patterns = identity.pools[seat.pool]
    queues = ",".join(patterns)
    set_title(f"worker {queues} booting")
    wakeups = Wakeups((signal.SIGTERM, signal.SIGQUIT))
    limits = Limits(options.max_jobs, options.max_memory)
    nap = min(NAP, frozen_after(options.heartbeat_timeout) / 3)
    station = Pooled(board, baton, inherited, wakeups, limits, nap=nap)
    worker = Worker(
        app.connection,
        limited(app.jobs, options.job_timeout),
        queues=patterns,
        order=options.order,
        interval=options.interval,
        post=post,
        station=station,
        seat=seat,
        titled=lambda doing: set_title(f"worker {queues} {doing}"),
        audit=options.audit,
        events=events.numbered(board.seats.index(seat)),
    )
    silence = options.heartbeat_timeout or math.inf
    patience = options.shutdown_timeout
    pulse = Pulse(
        post, station, seat, connection=app.connection, silence=silence, patience=patience
    )
    _serve(worker, pulse, station, wakeups, inherited)
    return ExitCode.OK


def _serve(
    worker: Worker, pulse: Pulse, station: Pooled, wakeups: Wakeups, inherited: Inheritance
) -> None:
    """Hear signals from now on, tell the master, and work to the end."""
    wakeups.install(pulse.rouse)
    signal.signal(SOFT, lambda _signum, _frame: _interrupt(worker, station, inherited))
    inherited.listen()
    pulse.start()
    station.begin()
    send(inherited.pair, Ready())
    worker.run()
    station.take_leave()
    inherited.seat.enter(Phase.LEFT, time.monotonic_ns())


def limited(jobs: Mapping[str, Definition], timeout: float) -> Mapping[str, Definition]:
    """Return the jobs, with `timeout` seconds for those without a limit of their own; 0: none."""
    if not timeout:
        return jobs
    return {
        name: job if job.timeout is not None else replace(job, timeout=timeout)
        for name, job in jobs.items()
    }


def _interrupt(worker: Worker, station: Pooled, inherited: Inheritance) -> None:
    """Raise in the job what the master ordered, or what an orphan owes its next master."""
    for order in receive(inherited.pair):
        if isinstance(order, Interrupted):
            error = JobTimeout("over its time limit") if order.overdue else JobAborted("cut")
            worker.performer.interrupt(order.epoch, error)
    if station.orphaned:
        worker.performer.interrupt(inherited.seat.epoch, JobAborted("the master is gone"))

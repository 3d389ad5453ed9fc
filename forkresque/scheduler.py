"""Scheduler: node-resque's, standing alone: without a master, in a thread or a process of its own.

A master needs none, for its clerk does the same.
"""

import logging
import os
import threading
from typing import Self

from forkresque.connection import Connectable, Connection
from forkresque.errors import ConfigError, ForkresqueError, InvalidArgs
from forkresque.events import SCHEDULER_EVENTS, Emitter, Observable
from forkresque.idle import Alone
from forkresque.lookout import Lookout
from forkresque.processes import host_label
from forkresque.producer import Duration, seconds
from forkresque.promoter import TERM
from forkresque.queue import Queue

log = logging.getLogger("forkresque.scheduler")


class Scheduler(Observable):
    """Moves delayed jobs to their queues when their second comes, if it leads; one of all does.

    `connection` is what `Connection.of` takes, and `name` is shown to others, `host:pid` if it is
    not given; two of the same name do not lead together. `timeout` is the longest time between two
    looks: Redis tells of what is new, so most come earlier, and where it cannot there is one each
    second. `stuck_worker_timeout` is how long a worker of node-resque may be silent, 0 or None for
    ever. Silence is what was seen from here: a first look judges nobody, nor do looks that are
    further apart than half of that time, or than two minutes. `leader_lock_timeout` is how long
    the lead lasts without being renewed. With `retry_stuck_jobs` the leader also puts back the jobs
    that have failed because their workers died, again and again; see `Queue.retry_stuck_jobs`.

    `jobs` is taken for the sake of node-resque's signature: no hooks run when a job is promoted,
    for a veto at that moment would lose it. The jobs of dead workers of ours are brought back by
    the clerks of masters, not from here.

    Lengths of time are seconds or a timedelta. Any thread may call any method. What `on` can
    listen to is in `forkresque.events`. Raises ConfigError for options that cannot be meant.
    """

    def __init__(
        self,
        connection: Connectable,
        jobs: object = None,  # noqa: ARG002 - node-resque's signature
        *,
        name: str = "",
        timeout: Duration = 5.0,
        stuck_worker_timeout: Duration | None = 3600.0,
        leader_lock_timeout: Duration = TERM,
        retry_stuck_jobs: bool = False,
    ) -> None:
        self.events = Emitter(SCHEDULER_EVENTS)
        self.connection = Connection.of(connection)
        self.name = name or f"{host_label()}:{os.getpid()}"
        self._queue = Queue(self.connection)
        silence = stuck_worker_timeout or 0.0
        self._lookout = Lookout(
            self.connection,
            self.events,
            name=self.name,
            timeout=_length("timeout", timeout, at_least=0.01),
            term=_length("leader_lock_timeout", leader_lock_timeout, at_least=1.0),
            silence=_length("stuck_worker_timeout", silence, at_least=0.1) if silence else 0.0,
            retry=self._queue.retry_stuck_jobs if retry_stuck_jobs else None,
        )
        self._station: Alone | None = None
        self._runner: threading.Thread | None = None
        self._lock = threading.RLock()  # one look at a time, and an end when there is none
        self._is_looking = False
        self._is_ending = False
        self._is_finishing = False
        self._ended = threading.Event()
        self._looker: threading.Thread | None = None  # who looks now
        self._pid = os.getpid()

    @property
    def leader(self) -> bool:
        """Return whether this one leads, and no other scheduler of any language.

        For those who enqueue by a clock of their own: what each process of many does only
        `if scheduler.leader` is done by one. It is False as soon as the lead is known to be lost,
        when Redis could not be asked for `leader_lock_timeout`, and from `end` on.
        """
        return self._lookout.leads and not self._is_ending and os.getpid() == self._pid

    @property
    def token(self) -> str:
        """Return what the locks in Redis hold while this one leads: its name and more."""
        return self._lookout.token

    @property
    def running(self) -> bool:
        """Return whether it was told to run, and has not ended."""
        return self._runner is not None

    def connect(self) -> None:
        """Reach Redis now, and refuse one on which jobs would get lost.

        Nobody has to: the first look connects. Raises RedisUnavailable and RedisRefused.
        """
        self._queue.connect()

    # -- looking -------------------------------------------------------------------------------

    def poll(self) -> int:
        """Look once: seek or renew the lead, and do what is to be done by who leads.

        Returns how many jobs were promoted. It need not have been started. Trouble is logged and
        told by `error`, never raised. Does nothing after the end, nor when a listener asks for it.
        """
        self._check_process()
        with self._lock:
            if self._is_looking or self._is_finishing:
                return 0
            self._is_looking, self._looker = True, threading.current_thread()
            try:
                return self._lookout.look(until=lambda: self._is_ending)
            finally:
                self._is_looking, self._looker = False, None
                if self._is_ending and self._runner is None:
                    self._finish()

    def run(self) -> None:
        """Lead or follow until `end`, in this thread; not at all if that was called before.

        Raises ConfigError for one that runs already.
        """
        self._check_process()
        thread = threading.current_thread()
        if self._runner is not thread:
            if self._is_ending:
                return
            self._engage(thread)
        try:
            log.info("scheduler=%s started", self.name)
            self.events.emit("start", self._lookout.now())
            while not self._is_ending:
                self.poll()
                self._rest()
        finally:
            self._is_ending = True
            with self._lock:
                self._finish()

    def start(self) -> None:
        """Run in a thread. Raises ConfigError for one that runs already, or has ended."""
        self._check_process()
        if self._is_ending:
            raise ConfigError("this scheduler has ended", hint="make another one")
        thread = threading.Thread(target=self.run, name="scheduler", daemon=True)
        self._engage(thread)
        try:
            thread.start()
        except RuntimeError:  # there may be no more threads
            self._runner = None
            raise

    def _check_process(self) -> None:
        """Raise ConfigError in a forked copy: it would take the original's lead for its own."""
        if os.getpid() != self._pid:
            raise ConfigError(
                f"this scheduler was made in process {self._pid}, this is {os.getpid()}",
                hint="make the scheduler in the process that runs it",
            )

    def _engage(self, thread: threading.Thread) -> None:
        self._check_process()
        with self._lock:
            if self._runner is not None:
                raise ConfigError("this scheduler runs already", hint="make another one")
            self._runner, self._station = thread, Alone()
        if self._is_ending:
            self._station.stop()

    def _rest(self) -> None:
        """Wait until it is time for the next look, or until there is news from Redis."""
        with self._lock:
            if self._station is None or self._lookout.has_news():
                return
            pause, number = self._lookout.pause, self._lookout.fileno()
        self._station.rest(pause, number)

    # -- the end -------------------------------------------------------------------------------

    def end(self, timeout: Duration | None = None) -> bool:
        """Give up the lead at once, and end; return whether it has ended within `timeout`.

        Waits for the look that is going on, which takes no longer than Redis' answer and what the
        listeners do. A listener, or a signal's handler in the thread that runs, cannot wait for
        it: there the answer is False, and the end comes with that of the look.
        """
        patience = None if timeout is None else max(0.0, seconds(timeout))
        if os.getpid() != self._pid:
            return False  # a forked copy has nothing to end
        self._is_ending = True
        if self._station is not None:
            self._station.stop()
        runner = self._runner
        if runner is threading.current_thread():
            return False
        if runner is not None:
            if self._looker is threading.current_thread():
                return False  # the thread that runs waits for this look
            return self._ended.wait(patience)
        if not self._lock.acquire(timeout=-1 if patience is None else patience):
            return False
        try:
            if not self._is_looking:
                self._finish()
        finally:
            self._lock.release()
        return self._ended.is_set()

    def _finish(self) -> None:
        """Give up the lead and all connections, once."""
        if self._is_finishing:
            return
        self._is_finishing = True
        try:
            self._lookout.close()
            self._queue.end()
            if self._station is not None:
                self._station.close()
            log.info("scheduler=%s ended", self.name)
            self.events.emit("end", self._lookout.now())
        finally:
            self._runner = None
            self._ended.set()

    def __enter__(self) -> Self:
        """Connect, and run in a thread. Raises RedisUnavailable and RedisRefused."""
        try:
            self.connect()
        except ForkresqueError:
            self.end()
            raise
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """End."""
        self.end()


def _length(name: str, given: Duration, *, at_least: float) -> float:
    """Return an option in seconds. Raises ConfigError for what is none, or too short."""
    try:
        value = seconds(given)
    except (InvalidArgs, TypeError, ValueError) as error:
        raise ConfigError(
            f"{name} must be seconds or a timedelta, got {given!r}", hint="5.0, for example"
        ) from error
    if value < at_least:
        raise ConfigError(f"{name} must be at least {at_least:g} seconds, got {given!r}")
    return value

"""How an idle worker waits for a job: what wakes it, and whose turn it is to claim.

A claim that found nothing has read every queue inside its script, and Redis pushes a message
when one of them changes: no polling, no blocking pop, no second connection. Where Redis cannot
or may not do that, the one worker on call polls.
"""

import contextlib
import math
import os
import select
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from forkresque.errors import ConfigError
from forkresque.plugins.settings import Duration, seconds
from forkresque.protocol.claims import Claims, Nothing
from forkresque.protocol.connection import FLUSHED, Link
from forkresque.protocol.keys import Keys

HEARING_TEST = 6.0  # seconds; the lease is renewed every 5, and a live bell hears that
_DEAF_AFTER = 2  # hearing tests failed before this connection is polled on
INTERVAL = 1.0  # seconds between polls where Redis cannot tell of new jobs
BEAT = 3.0  # seconds between two signs of life of a worker on call, who counts as deaf after 6


def polling(interval: Duration, timeout: Duration | None) -> float:
    """Return the seconds between polls, by either name, ours or node-resque's. Raises ConfigError.

    `interval` counts as not given when it is the default.
    """
    if timeout is not None and interval != INTERVAL:
        raise ConfigError("timeout is node-resque's name of interval: give one of them, not both")
    label, given = ("interval", interval) if timeout is None else ("timeout", timeout)
    return seconds(f"a worker's {label}", given, least=0.001)


class Station(Protocol):
    """Where a worker stands between jobs. Whoever runs workers provides it."""

    @property
    def open(self) -> bool:
        """Return whether a job may be claimed: not leaving, and not paused."""

    @property
    def leaving(self) -> bool:
        """Return whether the worker should finish."""

    @property
    def footing(self) -> Sequence[int]:
        """Return the descriptors that this stands on, which no job may close."""

    @property
    def redials(self) -> int:
        """Return how often connections to Redis should have been made anew."""

    @property
    def ahead(self) -> float | None:
        """Return by how many seconds Redis' clock is ahead of the monotonic one, if known."""

    def turn(self) -> int | None:
        """Wait until it is this worker's turn to claim; None when woken for something else.

        Returns how many jobs are said to wait, 0 if nobody says.
        """

    def pass_on(self, left: int = 0) -> None:
        """Let the next idle worker have the turn: this one has a job.

        `left` are the jobs that wait for it and others in the same queue.
        """

    def is_surplus(self) -> bool:
        """Return whether another worker is on call as well, and one of them is enough."""

    def look_round(self, *, fit: bool) -> None:
        """Hear what was said during a job, after which this process may be unfit for another."""

    def rest(self, timeout: float, fd: int | None = None) -> bool:
        """Wait for `fd`, for `timeout` seconds, or for word from outside; return True for word."""


class Bell:
    """Redis' word that a claim may find something, heard over the worker's own connection."""

    def __init__(
        self, link: Link, claims: Claims, keys: Keys, *, master: str, interval: float
    ) -> None:
        self._link = link
        self._claims = claims
        self._keys = keys
        self._interval = interval
        self._lease = keys.lease(master)
        self._quiet = {self._lease, keys.workers()}
        self._failed_tests = 0

    def wait(self, station: Station, answer: Nothing) -> None:
        """Return when it may be worth claiming again, or when there is word from outside.

        Raises RedisUnavailable when the connection breaks. A connection over which not even
        the renewal of the lease is heard is polled on from the second time.
        """
        if not self._link.tracking or self._failed_tests >= _DEAF_AFTER:
            station.rest(self._interval * (0.75 + os.urandom(1)[0] / 512))
            return
        test_until = time.monotonic() + HEARING_TEST
        marks = [b"\r\n%b\r\n" % self._keys.queue(name) for name in self._claims.queues]
        while True:
            pushed = self._link.pushed()
            if self._lease in pushed:
                self._failed_tests = 0
                test_until = math.inf
            if self._rings(pushed, answer):
                return
            if station.rest(min(BEAT, test_until - time.monotonic()), self._link.fileno()):
                return
            if self._link.sees(marks):  # it is read with the claim's answer, and holds up nothing
                return
            if time.monotonic() >= test_until:
                self._failed_tests += 1
                return

    def redialled(self) -> None:
        """Start over: the connection is a new one."""
        self._failed_tests = 0

    def _rings(self, pushed: set[bytes], answer: Nothing) -> bool:
        """Return whether what was pushed since the answer makes another claim worth while."""
        if answer is Nothing.ORPHAN:
            return bool(pushed)
        return FLUSHED in pushed or bool(pushed - self._quiet)


class Alone:
    """The station of a worker without a master: always on call, and told to leave by `stop`."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.leaving = False
        self.redials = 0
        self.ahead: float | None = None
        self.footing = (self._reader, self._writer)
        self._closed = False
        self._lock = threading.RLock()  # the number of a closed pipe is soon somebody else's

    @property
    def open(self) -> bool:
        """Return whether a job may be claimed."""
        return not self.leaving

    def __del__(self) -> None:
        self.close()  # of a worker that has never run

    def stop(self) -> None:
        """Have the worker finish its job in hand and leave. May be called by a signal handler."""
        self.leaving = True
        with self._lock, contextlib.suppress(BlockingIOError):
            if not self._closed:
                os.write(self._writer, b"!")

    def turn(self) -> int | None:
        """Return at once: nobody else is there."""
        return 0 if self.open else None

    def pass_on(self, left: int = 0) -> None:
        """Do nothing: nobody else is there."""

    def is_surplus(self) -> bool:
        """Return False: nobody else is there."""
        return False

    def look_round(self, *, fit: bool) -> None:
        """Do nothing: nobody would replace this process."""

    def rest(self, timeout: float, fd: int | None = None) -> bool:
        """Wait for `fd`, for `timeout` seconds, or for `stop`; return True for `stop`."""
        poll = select.poll()
        for number in (self._reader, fd):
            if number is not None:
                poll.register(number, select.POLLIN)
        ready = dict(poll.poll(max(0.0, timeout) * 1000))
        if self._reader in ready:
            os.read(self._reader, 64)  # once heard it must not make the next rest a short one
        return self._reader in ready

    def close(self) -> None:
        """Close the pipe; `stop` has nobody to tell any more."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._reader)
                os.close(self._writer)


class Once(Alone):
    """The station of a worker that is to do one job, if there is one, and to leave."""

    def is_surplus(self) -> bool:
        """Return True, and leave: every queue was read, and there is nothing to wait for."""
        self.leaving = True
        return True

    def look_round(self, *, fit: bool) -> None:  # noqa: ARG002 - it leaves either way
        """Leave: the one job is done."""
        self.leaving = True

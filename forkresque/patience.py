"""Patience: ask Redis until it answers, and tell of the trouble meanwhile."""

import logging
import os
import time
from collections.abc import Callable
from typing import TypeVar

from forkresque.errors import RedisRefused, RedisUnavailable
from forkresque.events import Emitter
from forkresque.idle import Bell, Station
from forkresque.policy.backoff import Backoff
from forkresque.protocol.claims import Claimed
from forkresque.protocol.payload import decoded
from forkresque.scoreboard import Seat

log = logging.getLogger("forkresque.worker")

T = TypeVar("T")


class Patience:
    """How the worker of that id asks Redis, over the connection of its `bell`."""

    def __init__(
        self, worker: str, station: Station, seat: Seat, bell: Bell, events: Emitter
    ) -> None:
        self._worker = worker
        self._station = station
        self._seat = seat
        self._bell = bell
        self._events = events

    def ask(self, question: Callable[[], T]) -> T | None:
        """Ask until there is an answer; None when a job may not be claimed any more."""
        return self.ask_until(lambda: not self._station.open, question)

    def insist(self, question: Callable[[], T], job: Claimed) -> T:
        """Ask until there is an answer about the job in hand, however long it takes."""
        answer = self.ask_until(_never, question, job=job)
        if answer is None:
            raise AssertionError("a settle always has an answer")
        return answer

    def persist(self, question: Callable[[], T]) -> T:
        """Ask for a plugin until there is an answer; what Redis refuses is the plugin's to see."""
        answers: list[T] = []

        def ask() -> bool:
            answers.append(question())
            return True

        self.ask_until(_never, ask, bear=(RedisUnavailable,))
        return answers[0]

    def ask_until(
        self,
        over: Callable[[], bool],
        question: Callable[[], T],
        *,
        job: Claimed | None = None,
        bear: tuple[type[Exception], ...] = (RedisUnavailable, RedisRefused),
    ) -> T | None:
        """Ask until there is an answer, or it is `over`: then None. `job` is what it is about."""
        backoff = None
        while True:
            try:
                return question()
            except bear as error:
                backoff = backoff or Backoff(first=0.05, most=1.0)
                self._seat.enter(self._seat.phase, time.monotonic_ns())
                level = logging.WARNING if backoff.attempts in (0, 5) else logging.DEBUG
                log.log(level, "worker=%s waits for Redis: %s", self._worker, error)
                self.complain(error, job)
                self._bell.redialled()
            if over():
                return None
            self._station.rest(backoff.next(jitter=os.urandom(1)[0] / 255))

    def complain(self, error: Exception, job: Claimed | None = None) -> None:
        """Tell who listens of trouble, and of the job that it is about."""
        if "error" in self._events.heard:
            about = (None, None) if job is None else (job.queue, decoded(job.raw))
            self._events.emit("error", error, *about)


def _never() -> bool:
    return False

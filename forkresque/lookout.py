"""What a scheduler without a master does at each look, and whom it tells.

It never gives up: whatever goes wrong is logged, told by `error` and tried again soon.
"""

import logging
import math
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from forkresque.connection import Connection
from forkresque.errors import BadKey, ForkresqueError, InvalidPayload, RedisUnavailable
from forkresque.events import Emitter
from forkresque.neighbours import Neighbours
from forkresque.policy.backoff import Backoff
from forkresque.processes import host_label
from forkresque.promoter import Promoter
from forkresque.protocol.connection import FLUSHED
from forkresque.protocol.delayed import Bucket, Delayed, Due
from forkresque.protocol.payload import decoded
from forkresque.protocol.registry import Registry

log = logging.getLogger("forkresque.scheduler")

T = TypeVar("T")

Retry = Callable[[int], int]

_STUCK = 100  # jobs put back at a time, between two looks at whether to end
_LONGEST = 1.0  # seconds for which one look promotes
_UNTOLD = 1.0  # seconds between looks, at most, where Redis cannot tell of changes


class Lookout:
    """Looks after the delayed jobs, and as leader after the workers of node-resque.

    For one thread at a time, but for `leads`. `timeout` is the longest pause between two looks,
    `term` how long the lead lasts, and `silence` after how long a worker is stuck, 0 for never.
    `retry` puts back so many jobs that have failed for their dead workers, and returns how many.
    """

    def __init__(
        self,
        connection: Connection,
        events: Emitter,
        *,
        name: str,
        timeout: float,
        term: float,
        silence: float,
        retry: Retry | None = None,
    ) -> None:
        self._name = name
        self._events = events
        self._timeout = timeout
        self._link = connection.link(tracking=True)
        self._delayed = Delayed(self._link, connection.keys)
        self._promoter = Promoter(
            self._delayed, name=name, interval=min(_UNTOLD, timeout), term=term
        )
        self.token = self._promoter.token
        self._neighbours = Neighbours(
            Registry(self._link, connection.keys),
            self._delayed.clock,
            token=self.token,
            host=host_label(),
            timeout=silence or math.inf,
            tell=self._tell_of_worker,
        )
        self._judges = bool(silence)
        self._retry = retry
        self._visit_at = -math.inf if silence or retry else math.inf
        self._backoff = Backoff(first=0.1, most=2.0)
        self._news: set[bytes] = set()  # keys that have changed since the last look
        self._leads_told = 0
        self._second_told: int | None = None  # whose jobs were told of last in this look
        self.pause = 0.0  # seconds until the next look

    @property
    def leads(self) -> bool:
        """Return whether this one leads, and no other scheduler of any language."""
        return self._promoter.leads

    def look(self, *, until: Callable[[], bool]) -> int:
        """Seek or renew the lead, and do what its holder has to do, but no more `until`.

        Returns how many jobs were promoted.
        """
        self.pause = self._timeout
        promoted = self._attempt(lambda: self._promote(until)) or 0
        now = time.monotonic()
        if self.leads and not until():
            if now >= self._visit_at:
                self._visit_at = now + self._neighbours.pause
                self._look_after_workers(now, until)
            self.pause = min(self.pause, self._visit_at - now)
        return promoted

    def _look_after_workers(self, now: float, until: Callable[[], bool]) -> None:
        if self._judges:
            self._attempt(lambda: self._neighbours.look(now))
        if self._retry is not None:
            retry = self._retry
            if not until() and self._attempt(lambda: retry(_STUCK)) == _STUCK:
                self._visit_at = now  # there may be more, but what is due comes first

    def has_news(self) -> bool:
        """Return whether something has changed of what the last look has read."""
        self._news |= self._attempt(self._link.pushed) or set()
        return bool(self._news)

    def fileno(self) -> int | None:
        """Return what is readable when Redis tells of a change, or None without a connection."""
        return self._link.fileno()

    def now(self) -> datetime:
        """Return the time by Redis' clock as it was seen last, or by this machine's."""
        return datetime.fromtimestamp(self._delayed.clock.guess(), UTC)

    def close(self) -> None:
        """Give up the lead, if Redis answers, and the connection."""
        if self._link.asked:  # also when we follow: the answer that we lead may have been lost
            self._attempt(self._promoter.resign)
        self._link.close()

    # -- delayed jobs --------------------------------------------------------------------------

    def _promote(self, until: Callable[[], bool]) -> int:
        """Seek or renew the lead, and promote what is due; return how many jobs that was.

        When that is very much, the next look goes on with it: the leader has other duties, too.
        """
        self._promoter.renew(now=self._may_have_changed())
        self._note_lead()
        if self.leads:
            self._events.emit("poll")
        self._second_told = None
        promoted, ends_at = 0, time.monotonic() + _LONGEST
        while not until():
            result = self._promoter.step()
            self._note_lead()
            if not result.buckets:
                self.pause = min(self.pause, result.pause)
                break
            for bucket in result.buckets:
                self._tell_of_jobs(bucket)
            promoted += result.promoted
            if time.monotonic() > ends_at:
                self.pause = 0.0
                break
        self._look_at_locks()
        self._backoff.reset()
        return promoted

    def _may_have_changed(self) -> bool:
        """Return whether a lock has changed since the last look, and forget all news."""
        told = self.has_news() and not self._news.isdisjoint((FLUSHED, *self._delayed.locks()))
        self._news.clear()
        return told

    def _look_at_locks(self) -> None:
        """See who holds the locks; from now on Redis tells when that changes, if it can.

        What has changed since the lead was sought, it would not tell.
        """
        before, holders = self.leads, set(self._delayed.holders())
        if holders != {self.token} if before else holders <= {self.token, ""}:
            self._promoter.renew(now=True)
            self._note_lead()
            if self.leads is not before:
                self.pause = 0.0

    # -- telling -------------------------------------------------------------------------------

    def _note_lead(self) -> None:
        """Tell when this one has begun to lead, or again after it could not be sure."""
        if self._leads_told != self._promoter.leads_taken:
            self._leads_told = self._promoter.leads_taken
            self._events.emit("leader")

    def _tell_of_jobs(self, bucket: Bucket) -> None:
        if bucket.second != self._second_told:
            self._second_told = bucket.second
            self._events.emit("working_timestamp", bucket.second)
        is_heard = "transferred_job" in self._events.heard
        for job in bucket.jobs:
            if job.entry:
                self._events.emit("error", _refusal(job, bucket.second))
            elif is_heard:
                self._events.emit("transferred_job", bucket.second, decoded(job.payload))

    def _tell_of_worker(self, name: str, entry: bytes, silent_for: float) -> None:
        if "clean_stuck_worker" in self._events.heard:
            failure = decoded(entry) if entry else None
            self._events.emit("clean_stuck_worker", name, failure, silent_for)

    # -- trouble -------------------------------------------------------------------------------

    def _attempt(self, duty: Callable[[], T]) -> T | None:
        try:
            return duty()
        except Exception as error:  # noqa: BLE001 - whatever it was, there has to be a next look
            self._complain(error)
            return None

    def _complain(self, error: Exception) -> None:
        """Tell of trouble, and have the next look come soon, but not at once."""
        if isinstance(error, RedisUnavailable):
            self._link.close()
        level = logging.WARNING if self._backoff.attempts in (0, 20) else logging.DEBUG
        unexpected = None if isinstance(error, ForkresqueError) else error
        log.log(level, "scheduler=%s: %s", self._name, error, exc_info=unexpected)
        self.pause = self._backoff.next(jitter=os.urandom(1)[0] / 255)
        self._events.emit("error", error)


def _refusal(job: Due, second: int) -> ForkresqueError:
    """Return the error of a delayed job that could be put on no queue."""
    account = f"what was due at {second} is in the failed list: {job.refusal}"
    return BadKey(account) if job.queue else InvalidPayload(account)

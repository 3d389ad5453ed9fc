"""Promoter: one of all leads, and moves delayed jobs to their queues when their second comes.

The oldest go first. While those that are late are many, every second batch takes the newest second
of the last minute instead: a job that is due now does not wait for a million that are overdue,
and these go on at half the pace at least.
"""

import logging
import math
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from forkresque.errors import BadKey
from forkresque.protocol.delayed import Bucket, Delayed, Lead, Leadership

log = logging.getLogger("forkresque.scheduler")

TERM = 15.0  # seconds the lead lasts without being renewed
RENEWAL = 5.0
EARLY = 0.2  # of its period: how much sooner the lead is renewed when its holder is awake
LOOK = 1.0  # seconds between a follower's looks whether the lead is free
SWEEP_EVERY = 55.0  # seconds between searches for stray buckets
LATE = 2.0  # seconds after which what is still due holds up what has come due since
RECENT = 60  # seconds for which a second is among the newest
_SWEEP_PAUSE = 0.05  # seconds between two pages of a search, to leave Redis to others


class Pass(NamedTuple):
    """What one look brought: the jobs promoted, and how long nothing more will be due.

    The jobs are told by their second; one with an `entry` has moved to the failed list.
    """

    pause: float
    buckets: tuple[Bucket, ...] = ()

    @property
    def promoted(self) -> int:
        """Return how many jobs have moved."""
        return sum(len(bucket.jobs) for bucket in self.buckets)


class Promoter:
    """Leads or follows. Whoever runs it calls `step`, again and again.

    `name` is what other schedulers see as the holder of the lock: `host:pid`. What follows it
    there is of this object alone, so two of one name do not take each other's lead for theirs.
    Promotion is fenced: every batch compares the locks inside Redis, so one who has lost the lead
    without knowing it moves nothing. The lead lasts for `term` seconds without being renewed.
    """

    def __init__(
        self,
        delayed: Delayed,
        *,
        name: str,
        interval: float = 1.0,
        sweep_every: float = SWEEP_EVERY,
        term: float = TERM,
    ) -> None:
        self._delayed = delayed
        self.token = f"{name}:{secrets.token_hex(8)}"
        self._interval = interval
        self._term = term
        self._renewal = min(RENEWAL, term / 3)
        self._renew_at = -math.inf
        self._lapses_at = -math.inf
        self._state = Leadership(Lead.FOLLOW)
        self.leads_taken = 0  # how often `leads` has become true
        self._passed_over: set[int] = set()
        self._newest_next = False
        self._sweep_every = sweep_every
        self._sweep_at = -math.inf
        self._look_at = -math.inf  # when the schedule is to be looked at without news of it
        self._cursor = 0

    @property
    def state(self) -> Lead:
        """Return what this scheduler may do, as far as it knows."""
        return self._state.state

    @property
    def leads(self) -> bool:
        """Return whether nobody else can lead, in any language: no longer than the term lasts.

        Any thread may ask. It is counted from the question, on the monotonic clock, so that the
        locks in Redis last longer.
        """
        return self._state.state is Lead.PROMOTE and time.monotonic() < self._lapses_at

    def step(self, *, news: bool = True) -> Pass:
        """Renew or seek the lead, and promote one batch of what is due if it is ours to do.

        Without `news` of the schedule nothing is asked until the second that was next at the last
        look. Returns without waiting. Raises RedisUnavailable and RedisRefused.
        """
        self.renew()
        if self.state is not Lead.PROMOTE:
            return Pass(max(0.0, self._renew_at - time.monotonic()))
        if not news and time.monotonic() < self._look_at:
            return Pass(self._pause())
        self._look_at = -math.inf  # until Redis has agreed to tell of changes
        for seconds in self._due():
            buckets = self._promote(seconds)
            if buckets:
                return Pass(0.0, buckets)
            if self.state is not Lead.PROMOTE:
                return Pass(0.0)
        self._sweep()
        self._look_at = time.monotonic() + self._until_next()
        return Pass(self._pause())

    def renew(self, *, now: bool = False) -> None:
        """Renew or seek the lead, if it is about time to; with `now`, whatever the time.

        A renewal may come a little early, to go with whatever else is asked of Redis.
        """
        early = 0.0 if self.state is Lead.FOLLOW else self._renewal * EARLY
        if time.monotonic() < self._renew_at - early and not now:
            return
        before, asked_at = self.state, time.monotonic()
        answer = self._delayed.lead(self.token, term=self._term)
        led = self.leads  # until the answer came
        self._state, self._lapses_at = answer, asked_at + self._term
        self.leads_taken += self.leads and not led
        holds = self.state is not Lead.FOLLOW
        self._renew_at = time.monotonic() + (self._renewal if holds else LOOK)
        if self.state is not before:
            self._look_at = -math.inf
            holder = f" holder={self._state.holder}" if self._state.holder else ""
            log.info("scheduler=%s%s", self.state.lower(), holder)

    def resign(self) -> None:
        """Give up the lead, so that another scheduler need not wait for it to run out."""
        self._forget_lead()
        self._delayed.resign(self.token)

    def _forget_lead(self) -> None:
        self._state, self._renew_at = Leadership(Lead.FOLLOW), -math.inf

    def _due(self) -> Iterator[Sequence[int]]:
        """Yield the seconds to look at, in their order; see the module."""
        pages = self._delayed.due()
        oldest = next(pages, [])
        is_late = bool(oldest) and self._delayed.looked_at - oldest[0] > LATE
        self._newest_next = is_late and not self._newest_next
        if self._newest_next:
            yield self._delayed.newest(RECENT)
        yield oldest
        yield from pages

    def _promote(self, seconds: Sequence[int]) -> tuple[Bucket, ...]:
        """Promote the first batch of these seconds of which something moves."""
        while seconds:
            batch, troubles = self._delayed.batch(seconds)
            seconds = seconds[len(batch) + len(troubles) :]
            batch.sort(key=lambda bucket: bucket.second)
            result = self._delayed.promote(batch, token=self.token)
            self._complain({**troubles, **result.troubles})
            if result.fenced:
                log.warning("the lead was lost before its term was over")
                self._forget_lead()
            if result.buckets or result.fenced:
                return tuple(result.buckets)
        return ()

    def _complain(self, troubles: Mapping[int, BadKey]) -> None:
        for second, error in troubles.items():
            if second not in self._passed_over:
                log.error("second=%s is passed over: %s", second, error)
                self._passed_over.add(second)

    def _sweep(self) -> None:
        """Look at one page of all keys for buckets that are not in the schedule; adopt those.

        Ruby's resque-scheduler writes bucket and schedule by two commands and can die between.
        """
        now = time.monotonic()
        if now < self._sweep_at:
            return
        self._cursor, strays = self._delayed.strays(self._cursor)
        for second in strays:
            if self._delayed.adopt(second):
                log.warning("second=%s had jobs and was not in the schedule; it is now", second)
        self._sweep_at = now + (_SWEEP_PAUSE if self._cursor else self._sweep_every)

    def _pause(self) -> float:
        """Return for how long there is nothing to do, unless the schedule changes."""
        return max(0.0, min(self._renew_at, self._look_at) - time.monotonic())

    def _until_next(self) -> float:
        """Return for how long nothing more will be due, unless the schedule changes.

        Where Redis does not tell of a change that is one interval, else until the next second.
        """
        pause = max(0.0, self._sweep_at - time.monotonic())
        second = self._delayed.next_second()
        if second is not None:
            # By Redis' clock when it was asked what is due, so it cannot have come since unseen.
            left = second - self._delayed.looked_at
            # What is due and was not promoted cannot be; looking at it all the time is no help.
            pause = min(pause, left if left > 0 else self._interval)
        return pause if self._delayed.told else min(pause, self._interval)

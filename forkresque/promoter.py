"""Promoter: one of all leads, and moves delayed jobs to their queues when their second comes."""

import logging
import math
import secrets
import time
from dataclasses import dataclass

from forkresque.errors import BadKey
from forkresque.protocol.delayed import Delayed, Due, Lead, Leadership

log = logging.getLogger("forkresque.scheduler")

TERM = 15.0  # seconds the lead lasts without being renewed
RENEWAL = 5.0
LOOK = 1.0  # seconds between a follower's looks whether the lead is free
SWEEP_EVERY = 55.0  # seconds between searches for stray buckets
_SWEEP_PAUSE = 0.05  # seconds between two pages of a search, to leave Redis to others


@dataclass(frozen=True, slots=True)
class Pass:
    """What one look brought: the jobs promoted, and how long nothing more will be due.

    `jobs` are those of `second` that have moved; one with an `entry`, to the failed list.
    """

    pause: float
    second: int = 0
    jobs: tuple[Due, ...] = ()

    @property
    def promoted(self) -> int:
        """Return how many jobs have moved."""
        return len(self.jobs)


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
        self._sweep_every = sweep_every
        self._sweep_at = -math.inf
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

    def step(self) -> Pass:
        """Renew or seek the lead, and promote one batch of what is due if it is ours to do.

        Returns without waiting. Raises RedisUnavailable and RedisRefused.
        """
        self.renew()
        if self.state is not Lead.PROMOTE:
            return Pass(max(0.0, self._renew_at - time.monotonic()))
        for second in self._delayed.due():
            jobs = self._promote(second)
            if jobs:
                return Pass(0.0, second, jobs)
            if self.state is not Lead.PROMOTE:
                return Pass(0.0)
        self._sweep()
        return Pass(self._until_next())

    def renew(self, *, now: bool = False) -> None:
        """Renew or seek the lead, if it is time to; with `now`, whatever the time."""
        if time.monotonic() < self._renew_at and not now:
            return
        before, asked_at = self.state, time.monotonic()
        answer = self._delayed.lead(self.token, term=self._term)
        led = self.leads  # until the answer came
        self._state, self._lapses_at = answer, asked_at + self._term
        self.leads_taken += self.leads and not led
        holds = self.state is not Lead.FOLLOW
        self._renew_at = time.monotonic() + (self._renewal if holds else LOOK)
        if self.state is not before:
            holder = f" holder={self._state.holder}" if self._state.holder else ""
            log.info("scheduler=%s%s", self.state.lower(), holder)

    def resign(self) -> None:
        """Give up the lead, so that another scheduler need not wait for it to run out."""
        self._forget_lead()
        self._delayed.resign(self.token)

    def _forget_lead(self) -> None:
        self._state, self._renew_at = Leadership(Lead.FOLLOW), -math.inf

    def _promote(self, second: int) -> tuple[Due, ...]:
        try:
            jobs = self._delayed.batch(second)
            result = self._delayed.promote(second, jobs, token=self.token)
        except BadKey as error:
            if second not in self._passed_over:
                log.error("second=%s is passed over: %s", second, error)  # noqa: TRY400
                self._passed_over.add(second)
            return ()
        if result.fenced:
            log.warning("the lead was lost before its term was over")
            self._forget_lead()
        return result.jobs

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

    def _until_next(self) -> float:
        """Return for how long there is nothing to do, unless the schedule changes.

        Where Redis does not tell of a change that is one interval, else until the next second.
        """
        pause = max(0.0, min(self._renew_at, self._sweep_at) - time.monotonic())
        second = self._delayed.next_second()
        if second is not None:
            # By Redis' clock when it was asked what is due, so it cannot have come since unseen.
            left = second - self._delayed.looked_at
            # What is due and was not promoted cannot be; looking at it all the time is no help.
            pause = min(pause, left if left > 0 else self._interval)
        return pause if self._delayed.told else min(pause, self._interval)

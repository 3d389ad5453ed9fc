"""When the next child may be forked, so that what cannot boot does not fork for ever.

A child that was ready and dies is replaced at once. One that dies in boot makes its seat wait,
longer each time; when many do and none gets ready, a breaker opens, and one probe at a time
finds out whether the cause is gone.
"""

import math
from dataclasses import dataclass, field

from forkresque.policy.backoff import Backoff

FIRST_DELAY, LONGEST_DELAY = 0.1, 30.0


@dataclass(slots=True)
class Births:
    """The boot failures of one kind of child. `size` is how many are wanted."""

    size: int
    failures: int = 0  # in a row, without a single child that got ready
    failing_since: float = math.inf  # the first of them
    next_at: float = -math.inf
    _backoff: Backoff = field(default_factory=lambda: Backoff(FIRST_DELAY, LONGEST_DELAY))

    @property
    def broken(self) -> bool:
        """Return whether so many failed that only one at a time may try."""
        return self.failures >= max(3, self.size / 2)

    def allowed(self, now: float, *, booting: int) -> bool:
        """Return whether a child may be forked now, while `booting` others are on their way."""
        return now >= self.next_at and not (self.broken and booting)

    def failed(self, now: float, *, jitter: float) -> None:
        """Take note of a child that never got ready."""
        self.failures += 1
        self.failing_since = min(self.failing_since, now)
        self.refused(now, jitter=jitter)

    def refused(self, now: float, *, jitter: float) -> None:
        """Take note that the kernel did not fork: that says nothing of the application."""
        self.next_at = now + self._backoff.next(jitter=jitter)

    def succeeded(self) -> None:
        """Take note of a child that got ready."""
        self.failures = 0
        self.failing_since = math.inf
        self.next_at = -math.inf
        self._backoff.reset()

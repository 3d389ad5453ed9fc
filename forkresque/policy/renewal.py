"""Which workers should be replaced by new ones, though nothing is wrong with them.

A worker that is due goes on until its replacement has booted. One that has carried out as many
jobs as it may leaves by itself, so it is due a little before that; if it may do but one, it is due
when it has that in hand, and not as long as it waits.
"""

import math
from typing import NamedTuple

from forkresque.policy.child import Child, Facts

EARLIEST = 0.8  # of a limit: each worker draws its own between this and all of it
AT_ONCE = 0.1  # of a pool, and at least one worker, waits for its replacement at the same time
_EXACT = 5  # with fewer jobs than that nobody is due before the last


class Renewal(NamedTuple):
    """When workers are due: after so many jobs, seconds, or bytes of growth; 0 is never."""

    max_jobs: int = 0
    max_age: float = 0.0
    max_memory: int = 0

    def limits(self, chance: float) -> tuple[float, float]:
        """Return the jobs and the age at which a new worker will be due; `chance` is 0 to 1."""
        part = EARLIEST + (1.0 - EARLIEST) * chance
        jobs = min(math.floor(self.max_jobs * part), self.max_jobs - 1)
        return (
            jobs if self.max_jobs >= _EXACT else math.inf,
            self.max_age * part if self.max_age else math.inf,
        )

    def reason(self, child: Child, seen: Facts, *, generation: int, now: float) -> str:
        """Return why a worker is due, or ""."""
        if child.generation < generation:
            return "it runs older code"
        if seen.last:
            return "it has its last job in hand"
        if seen.jobs >= child.max_jobs:
            return f"it has carried out {seen.jobs} jobs"
        if now - child.born_at >= child.max_age:
            return f"it is {now - child.born_at:.0f} s old"
        if 0 < self.max_memory < seen.grown:
            return f"its own memory has grown by {seen.grown >> 20} MB"
        return ""


def room(size: int, under_way: int) -> int:
    """Return how many more workers of a pool may be replaced now."""
    return max(1, int(size * AT_ONCE)) - under_way

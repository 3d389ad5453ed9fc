"""Who takes too much memory, and whom the kernel has killed for want of it."""

import math
from collections.abc import Mapping

from forkresque.policy.crowding import WATCHFUL, most_to_blame
from forkresque.policy.oom import OomKills
from forkresque.supervisor import resources
from forkresque.supervisor.gauges import Gauges

EVERY = 1.0  # seconds between looks at workers, where their memory is limited
SELDOM = 5.0  # the same where there is room, and no limit but the control group's
RARELY = 15.0  # the same where there is no limit at all: one may be set


class MemoryGuard:
    """Looks at the memory of workers and of our control group, as often as it must.

    `limited` says that each worker has a limit of its own.
    """

    def __init__(self, gauges: Gauges, *, limited: bool) -> None:
        self._gauges = gauges
        self._limited = limited
        self.every = EVERY  # seconds until the next look is wanted
        self._due_at = -math.inf
        self._kills = OomKills(resources.oom_kills())

    def look(self, now: float) -> int | None:
        """Look, if it is time to; return the seat of the worker that has to go for the others."""
        if now < self._due_at:
            return None
        self._kills.observe(resources.oom_kills(), now)
        group = resources.group_memory()
        is_tight = group is not None and group.used_bytes >= WATCHFUL * group.limit_bytes
        roomy = SELDOM if group else RARELY
        self.every = EVERY if self._limited or is_tight else roomy
        self._due_at = now + self.every
        if self._limited or is_tight:
            self._gauges.look(now)
        if group is None or not is_tight:
            return None
        return most_to_blame(
            limit=group.limit_bytes, used=group.used_bytes, growth=self._gauges.growth()
        )

    def growth(self) -> Mapping[int, int] | None:
        """Return by how many bytes workers have grown, None where nobody needs to know."""
        return self._gauges.growth() if self._limited else None

    def explains_a_kill(self, now: float) -> bool:
        """Return whether a SIGKILL that nobody here has ordered was the kernel's, of late."""
        self._kills.observe(resources.oom_kills(), now)
        return self._kills.explain_one()

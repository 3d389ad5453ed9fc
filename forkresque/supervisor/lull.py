"""How a master sleeps: between two passes of its loop, and longer while everybody waits for work.

A pass costs a millisecond. So when nothing is under way there is but a glance now and then, at what
nobody tells: that a job has begun, which may have a limit, or that a process came to us, which
would be taken for a dead worker's if it was seen only after that one.
"""

import math
import os
import selectors
import time
from collections.abc import Callable, Iterable

from forkresque.app import Forkresque
from forkresque.errors import ForkresqueError
from forkresque.options import SupervisorOptions
from forkresque.policy.crew import Crew
from forkresque.supervisor.children import Children
from forkresque.supervisor.strays import Leftovers

TICK = 1.0  # the longest sleep while something is under way, in seconds
GLANCE = 5.0  # the longest sleep
LONGEST = 30.0  # seconds between two passes of the loop, at most
STANDSTILL = 5.0  # who wakes up this much too late was on a machine that stood still

Ready = list[tuple[selectors.SelectorKey, int]]


def unnoticed(load: Callable[[], Forkresque], options: SupervisorOptions) -> float:
    """Return for how many seconds a job may run before this master has to know of it.

    A second where Redis' word that the lease is lost must stop it, where jobs are not known here,
    and for PID 1, to which any orphan of a container comes.
    """
    if options.on_partition == "stop" or not options.preload or os.getpid() == 1:
        return TICK
    try:
        jobs = load().jobs.values()
    except ForkresqueError:  # this image could not import them, see `Reload.reason`
        return TICK
    limits = [options.heartbeat_timeout, options.job_timeout]
    return within([*limits, *(job.timeout or 0.0 for job in jobs)])


def within(limits: Iterable[float]) -> float:
    """Return when to look whether a job has begun: before the shortest limit is over; 0: none."""
    return max(TICK, min([GLANCE, *filter(None, limits)]))


def nap(now: float, rest_until: float, glance: float) -> float:
    """Return for how long to sleep until the next glance; who rests sleeps to the end of that."""
    return max(TICK, min(glance, rest_until - now))


class Lull:
    """The sleep of one master. `look` does what is to be done now and then, and says if it did.

    `glance` says how long that, or the beginning of a job, may wait.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        crew: Crew,
        children: Children,
        leftovers: Leftovers,
        look: Callable[[float], bool],
        glance: Callable[[], float],
    ) -> None:
        self._selector = selector
        self._crew = crew
        self._children = children
        self._leftovers = leftovers
        self._look = look
        self._glance = glance
        self._begun = 0
        self._rest_until = 0.0
        self._awake_at = math.inf  # since when we are awake, or will be
        self.late_until = -math.inf  # after a standstill the children need a moment to beat again

    def notice(self) -> None:
        """See whether this machine stood still, in a sleep or in a pass, since the last call."""
        now = time.monotonic()
        if now - self._awake_at > STANDSTILL:
            self.late_until = now + STANDSTILL
        self._awake_at = now

    def expect(self, now: float) -> None:
        """Take note of what a pass is going to see; what begins from now on is news."""
        self._begun = self._children.begun
        self._rest_until = now

    def length(self, now: float, pause: float) -> float:
        """Return for how long to sleep, if there is nothing to do for `pause` seconds."""
        self._rest_until = self._crew.rest_until(now, self._children.facts())
        return min(pause, LONGEST if self._rest_until > now else TICK)

    def sleep(self, timeout: float) -> Ready:
        """Return what can be heard; nothing when the time is over, or there is something to do."""
        self.notice()
        deadline = time.monotonic() + timeout
        while True:
            asleep = min(timeout, nap(deadline - timeout, self._rest_until, self._glance()))
            self._awake_at = time.monotonic() + asleep
            ready = self._selector.select(asleep)
            self.notice()
            timeout = deadline - time.monotonic()
            if ready or timeout <= 0 or self._has_news(deadline - timeout):
                return ready

    def _has_news(self, now: float) -> bool:
        if self._begun != self._children.begun or not self._leftovers.are_as_before():
            return True
        if now >= self._rest_until:  # mostly there were signs of life since
            self._rest_until = self._crew.rest_until(now, self._children.facts())
        return now >= self._rest_until or self._look(now)

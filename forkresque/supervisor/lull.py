"""How a master sleeps: between two passes of its loop, and longer while everybody waits for work.

A pass costs a millisecond. So when nothing is under way there is but a glance each second, at what
nobody tells: that a job has begun, which may have a limit, or that a process came to us, which
would be taken for a dead worker's if it was seen only after that one.
"""

import selectors
import time
from collections.abc import Callable

from forkresque.policy.crew import Crew
from forkresque.supervisor.children import Children
from forkresque.supervisor.strays import Leftovers

TICK = 1.0  # the longest sleep, in seconds
LONGEST = 15.0  # seconds between two passes of the loop, at most

Ready = list[tuple[selectors.SelectorKey, int]]


class Lull:
    """The sleep of one master. `look` does what is to be done now and then, and says if it did."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        crew: Crew,
        children: Children,
        leftovers: Leftovers,
        look: Callable[[float], bool],
    ) -> None:
        self._selector = selector
        self._crew = crew
        self._children = children
        self._leftovers = leftovers
        self._look = look
        self._begun = 0
        self._rest_until = 0.0

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
        deadline = time.monotonic() + timeout
        while True:
            ready = self._selector.select(min(TICK, timeout))
            timeout = deadline - time.monotonic()
            if ready or timeout <= 0 or self._has_news(deadline - timeout):
                return ready

    def _has_news(self, now: float) -> bool:
        if self._begun != self._children.begun or not self._leftovers.are_as_before():
            return True
        if now >= self._rest_until:  # mostly there were signs of life since
            self._rest_until = self._crew.rest_until(now, self._children.facts())
        return now >= self._rest_until or self._look(now)

"""Deaths of workers that the clerk has not settled yet."""

import math
from collections.abc import Iterable, Iterator

from forkresque.policy.child import Kind
from forkresque.policy.crew import Crew
from forkresque.supervisor.children import Children
from forkresque.supervisor.messages import Died, Settled

REPEAT_AFTER = 1.0  # seconds without an answer after which the clerk is told again


class Obituaries:
    """Told to the clerk until it has settled them; a new clerk is told what the old one has not."""

    def __init__(self, children: Children, crew: Crew, deaths: Iterable[Died]) -> None:
        self._children = children
        self._crew = crew
        self._deaths = {(died.worker, died.owner): died for died in deaths}
        self._told_at = -math.inf
        self._count()

    def __iter__(self) -> Iterator[Died]:
        return iter(self._deaths.values())

    def note(self, died: Died, now: float) -> None:
        """Have the clerk settle a death."""
        self._deaths[died.worker, died.owner] = died
        self._told_at = now
        self._count()
        self._children.tell_all(Kind.CLERK, died)

    def settled(self, message: Settled) -> None:
        """Take note that a death is settled."""
        self._deaths.pop((message.worker, message.owner), None)
        self._count()

    def tell(self, clerk: int) -> None:
        """Tell a clerk that has just booted."""
        for died in self._deaths.values():
            self._children.tell(clerk, died)

    def repeat(self, now: float) -> None:
        """Tell the clerk again what it has not settled: it may not have listened."""
        if self._deaths and now - self._told_at > REPEAT_AFTER:
            self._told_at = now
            for died in self._deaths.values():
                self._children.tell_all(Kind.CLERK, died)

    def _count(self) -> None:
        self._crew.unsettled_deaths = len(self._deaths)

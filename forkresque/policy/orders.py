"""In which order a worker looks at its queues, claim after claim.

A claim looks at every queue, whatever comes first, so an answer that there is no job is true of
all; and a queue that is looked at first but is empty costs nothing. Strict order lets a lower queue
wait for as long as a higher one has jobs, by design; the other orders let none wait for ever.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from math import log

from forkresque.errors import ConfigError
from forkresque.order import Kind, Order
from forkresque.policy.queues import matcher

Places = tuple[int, ...]


def ordered(given: Order | Mapping[str, int] | str) -> Order:
    """Return an order as a caller may give it. Raises ConfigError."""
    try:
        return Order.of(given)
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(
            f"order must be 'strict', 'round_robin' or weights, got {given!r}",
            hint="weights are {'high': 6, 'low': 1} or 'high=6,low=1', whole numbers from 1",
        ) from None


def rotated(number: int, start: int) -> Places:
    """Return the places of so many queues, beginning with `start`."""
    return (*range(start, number), *range(start))


def drawn(weights: Sequence[int], chance: Callable[[], float]) -> Places:
    """Return the places of queues in an order drawn by weight; `chance` is from 0 to below 1.

    Each place holds one of the queues that are left with a probability in proportion to its
    weight. So, when the first ones are empty, those behind are served in proportion as well.
    """
    arrivals = [-log(1.0 - chance()) / weight for weight in weights]
    return tuple(sorted(range(len(weights)), key=arrivals.__getitem__))


def weigh(weights: Sequence[tuple[str, int]], queues: Sequence[str]) -> tuple[int, ...]:
    """Return what each queue weighs: what the first name or pattern says that fits it, else 1."""
    known = [(matcher(pattern), weight) for pattern, weight in weights]
    return tuple(next((w for fits, w in known if fits(queue)), 1) for queue in queues)


class Turns:
    """Gives the places of the queues for each claim. `chance` is from 0 to below 1."""

    def __init__(self, order: Order, chance: Callable[[], float]) -> None:
        self._order = order
        self._chance = chance
        self._queues: tuple[str, ...] = ()
        self._weights: tuple[int, ...] = ()
        self._after: str | None = None  # the queue that had its turn last

    def poll(self, queues: Sequence[str]) -> None:
        """Go on with these queues."""
        self._queues = tuple(queues)
        self._weights = weigh(self._order.weights, queues)

    def served(self, queue: str) -> None:
        """Take note that a job was claimed from `queue`."""
        self._after = queue

    def places(self) -> Places:
        """Return the places of the queues in the order to look at them; empty: as they come."""
        number = len(self._queues)
        if number < 2 or self._order.kind is Kind.STRICT:
            return ()
        if self._order.kind is Kind.WEIGHTED:
            return drawn(self._weights, self._chance)
        return rotated(number, self._start(number))

    def _start(self, number: int) -> int:
        """Return the place that follows the last one served.

        A new worker begins anywhere: else one that is replaced after each job would serve the
        first queue alone.
        """
        if self._after is None:
            return int(self._chance() * number)
        if self._after in self._queues:
            return (self._queues.index(self._after) + 1) % number
        # It is no more: go on where it would stand, if the names are sorted, as a pattern's are.
        return bisect_left(self._queues, self._after) % number

"""One pool: how many workers of the same queues there should be."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from forkresque.policy.births import Births


@dataclass(slots=True)
class Pool:
    """The wish for between `least` and `most` workers; `target` is how many now."""

    queues: Sequence[str]
    least: int
    most: int
    target: int = 0
    closed: bool = False
    births: Births = field(init=False)
    _floor: int | None = field(init=False)  # the first `least` of a pool that is not fixed

    def __post_init__(self) -> None:
        self._floor = self.least if self.least < self.most else None
        self.target = min(max(self.target, self.least), self.most)
        self.births = Births(self.target)

    @property
    def name(self) -> str:
        """Return how operators name it: by its queues."""
        return ",".join(self.queues)

    @property
    def is_elastic(self) -> bool:
        """Return whether load decides how many there are."""
        return self.least < self.most and not self.closed

    def want(self, number: int) -> None:
        """Want so many workers, as far as the bounds allow."""
        if not self.closed:
            self.target = self.births.size = min(max(number, self.least), self.most)

    def allow(self, most: int) -> None:
        """Set how many there may be: the size of a fixed pool, the upper bound of another.

        That one stays elastic: its lower bound only gives way as long as it has to.
        """
        self.most = most
        self.least = most if self._floor is None else min(self._floor, most)
        self.want(self.target)

    def close(self) -> None:
        """Want no workers any more, whatever the load."""
        self.closed = True
        self.least = self.target = 0

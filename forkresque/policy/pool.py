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
    births: Births = field(init=False)

    def __post_init__(self) -> None:
        self.target = min(max(self.target, self.least), self.most)
        self.births = Births(self.target)

    @property
    def name(self) -> str:
        """Return how operators name it: by its queues."""
        return ",".join(self.queues)

    @property
    def is_elastic(self) -> bool:
        """Return whether load decides how many there are."""
        return self.least < self.most

    def want(self, number: int) -> None:
        """Want so many workers, as far as the bounds allow."""
        self.target = self.births.size = min(max(number, self.least), self.most)

    def allow(self, most: int) -> None:
        """Set how many there may be: the size of a fixed pool, the upper bound of another."""
        if not self.is_elastic:
            self.least = most
        self.most, self.least = most, min(self.least, most)
        self.want(self.target)

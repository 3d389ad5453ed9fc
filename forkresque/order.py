"""Which queues a worker has, and in which order: how both are written.

`strict` is the order of the list, as in every Resque. With `round_robin` each queue has its turn.
`high=6,low=1` are weights: of seven jobs six are taken from `high` while both have some. A queue
weighs what the first name or pattern says that fits it, and 1 if none does. What follows the last
`=` is the weight, so a queue called `a=5` is written `a=5=1`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

_MOST_WEIGHT = 1_000_000


class Refused(ValueError):
    """A text that can be read, and holds a value that cannot be. The message ends a sentence."""


def names(text: str) -> tuple[str, ...]:
    """Return the parts of a comma-separated list, without blanks; `{a,b}` is one part."""
    parts = re.findall(r"(?:\{[^{}]*\}|[^,])+", text)
    return tuple(part.strip() for part in parts if part.strip())


def queue_names(given: str | Iterable[str]) -> tuple[str, ...]:
    """Return a list of queues and patterns, also of one written with commas. Raises Refused."""
    items = (given,) if isinstance(given, str) else tuple(given)
    for item in items:
        if not isinstance(item, str):
            raise Refused(f"must be texts, got {item!r}")
    found = tuple(name for item in items for name in names(item))
    for trouble in troubles(found):
        raise Refused(trouble)
    return found


def troubles(queues: tuple[str, ...]) -> Iterator[str]:
    """Yield what is wrong with a list of queues."""
    if not queues:
        yield "must name at least one queue, got none"
    for pattern in queues:
        if not pattern.lstrip("!"):
            yield f"must not hold an empty name, got {pattern!r}"


class Kind(StrEnum):
    """What decides on the queue that is looked at first."""

    STRICT = "strict"
    ROUND_ROBIN = "round_robin"
    WEIGHTED = "weighted"


@dataclass(frozen=True, slots=True)
class Order:
    """An order of queues. `weights` are names or patterns and their weights."""

    kind: Kind = Kind.STRICT
    weights: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, given: "Order | Mapping[str, int] | str") -> "Order":
        """Return the order that is given, as such, as weights or as a text. Raises ValueError."""
        if isinstance(given, Order):
            return given
        if isinstance(given, Mapping):
            return cls._weighted([(name, _weight(name, weight)) for name, weight in given.items()])
        return cls.parse(given)

    @classmethod
    def parse(cls, text: str) -> "Order":
        """Read `strict`, `round_robin` or `QUEUE=WEIGHT,…`. Raises ValueError."""
        word = text.strip().lower().replace("-", "_")
        if word in (Kind.STRICT, Kind.ROUND_ROBIN):
            return cls(Kind(word))
        parts = [part.rpartition("=") for part in names(text)]
        return cls._weighted([(name, _weight(name, weight)) for name, _, weight in parts])

    @classmethod
    def _weighted(cls, weights: list[tuple[str, int]]) -> "Order":
        if not weights:
            raise ValueError("there is no weight")
        return cls(Kind.WEIGHTED, tuple(weights))

    def __str__(self) -> str:
        if self.kind is not Kind.WEIGHTED:
            return str(self.kind)
        return ",".join(f"{name}={weight}" for name, weight in self.weights)


def _weight(name: str, given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise ValueError(f"{given!r} is no weight")  # noqa: TRY004 - one error for all texts
    weight = int(given)
    if not name.strip() or name.startswith("!") or not 1 <= weight <= _MOST_WEIGHT:
        raise ValueError(f"{name}={weight} is no weight of a queue")
    return weight

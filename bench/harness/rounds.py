"""Rounds: everybody once, then everybody again, and figures that are compared within a round.

A disturbance of the machine meets everybody in its round, so ratios are taken within a round and
their median is told. Who goes first moves on by one each round.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TypeVar

C = TypeVar("C")
R = TypeVar("R")


def turns(who: Sequence[C], rounds: int) -> Iterator[C]:
    """Yield everybody `rounds` times, each round begun by the next one."""
    for number in range(rounds):
        first = number % max(1, len(who))
        yield from (*who[first:], *who[:first])


def interleaved(who: Sequence[C], rounds: int, run: Callable[[C], R]) -> list[tuple[C, list[R]]]:
    """Run everybody in every round; return each one's results, round by round."""
    found: dict[int, list[R]] = {id(each): [] for each in who}
    for each in turns(who, rounds):
        found[id(each)].append(run(each))
    return [(each, found[id(each)]) for each in who]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some runs, and the extremes."""

    median: float
    low: float
    high: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of some figures."""
        return cls(median(values), min(values), max(values), len(values))

    def told(self, form: str = ",.0f") -> str:
        """Return the median and the extremes."""
        if self.runs == 1:
            return f"{self.median:{form}}"
        return f"{self.median:{form}} ({self.low:{form}}-{self.high:{form}})"

    def as_json(self) -> dict[str, float]:
        """Return what a report keeps."""
        return asdict(self)


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Return the ratio of ours to theirs, taken round by round."""
    return Spread.of([a / b for a, b in zip(ours, theirs, strict=True)])


def beside(
    ours: Sequence[float],
    rivals: Mapping[str, Sequence[float]],
    *,
    best: Callable[[Iterable[float]], float],
    form: str = ",.0f",
) -> str:
    """Tell of the best rival, by `min` or `max` of the medians, and of the ratio of ours to it."""
    medians = {name: median(figures) for name, figures in rivals.items() if figures}
    if not medians:
        return "nobody measured beside"
    name = next(each for each in medians if medians[each] == best(medians.values()))
    theirs = rivals[name]
    told = f"{name}: {medians[name]:{form}}"
    if not all(theirs):
        return told
    if len(ours) == len(theirs):
        return f"{told}, ratio {paired(ours, theirs).median:.2f}"
    return f"{told}, ratio {median(ours) / medians[name]:.2f}"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile; `share` is between 0 and 1."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

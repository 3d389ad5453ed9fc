"""Heats: rounds in which a peer may fail, and is left out from then on. We may not."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from bench.harness.contestant import Contestant, Group
from bench.harness.report import Report
from bench.harness.rounds import turns
from bench.harness.stage import RunFailed

R = TypeVar("R")
Heats = list[tuple[Contestant, list[R]]]


def heats(
    who: Sequence[Contestant], rounds: int, run: Callable[[Contestant], R], report: Report
) -> Heats[R]:
    """Run everybody in every round; return each one's results, of whom nothing failed."""
    found: dict[str, list[R]] = {each.name: [] for each in who}
    for each in turns(who, rounds):
        if each.name not in found:
            continue
        try:
            found[each.name].append(run(each))
        except RunFailed as failure:
            if each.group is Group.OURS:
                raise
            report.note(f"left out: {str(failure).splitlines()[0]}")
            del found[each.name]
    return [(each, found[each.name]) for each in who if each.name in found]

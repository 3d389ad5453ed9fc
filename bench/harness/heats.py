"""Heats: rounds in which a peer may fail, and is left out from then on. We may not."""

import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from bench.harness.contestant import Group
from bench.harness.report import Report
from bench.harness.rounds import turns
from bench.harness.stage import RunFailed

# What a product can do to a run: fail it, not start, hang, end too early, write what nobody reads.
FAILURES = (RunFailed, subprocess.SubprocessError, OSError, LookupError, ValueError, StopIteration)


class Entrant(Protocol):
    """Who runs in a heat: a contestant, or one with a number of workers."""

    @property
    def name(self) -> str:
        """What it is called; no two share it."""

    @property
    def group(self) -> Group:
        """Whom it is compared with."""


E = TypeVar("E", bound=Entrant)
R = TypeVar("R")


def heats(
    who: Sequence[E], rounds: int, run: Callable[[E], R], report: Report
) -> list[tuple[E, list[R]]]:
    """Run everybody in every round; return each one's results, of whom nothing failed."""
    found: dict[str, list[R]] = {each.name: [] for each in who}
    for each in turns(who, rounds):
        if each.name not in found:
            continue
        results = attempt(each, partial(run, each), report)
        found[each.name] += results
        if not results:
            del found[each.name]
    return [(each, found[each.name]) for each in who if each.name in found]


def attempt(who: Entrant, act: Callable[[], R], report: Report) -> list[R]:
    """Return what an act with an entrant brings; note its failure and return [], but not ours."""
    try:
        return [act()]
    except FAILURES as failure:
        if who.group is Group.OURS:
            raise
        told = str(failure).splitlines()[0] if str(failure) else type(failure).__name__
        report.note(f"left out: {who.name}: {told}")
        return []

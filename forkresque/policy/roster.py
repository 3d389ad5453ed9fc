"""The workers of one pool at one moment: who makes it up, who waits for a place, and who leaves.

A worker that was asked to leave keeps its place until it is gone, and whoever comes after it is
held so long: a pool never does more jobs at once than it should have workers. One that has left
Redis keeps nothing: it has no job, and to end takes it some milliseconds more.
"""

from collections.abc import Callable, Container, Iterable, Mapping

from forkresque.policy.child import Child, Doing, Facts, Kind, Release
from forkresque.policy.pool import Pool
from forkresque.policy.renewal import room


class Roster:
    """A view of pool number `index`; `children` are all of the master's."""

    def __init__(
        self, pool: Pool, index: int, children: Mapping[int, Child], facts: Mapping[int, Facts]
    ) -> None:
        self.pool = pool
        self._children = children
        self._facts = facts
        mine = [
            child
            for child in children.values()
            if child.kind is Kind.WORKER and child.pool == index and not facts[child.seat].gone
        ]
        self._staying = [child for child in mine if child.stays]
        self._leaving = [  # who boots has no job that would keep a place
            child for child in mine if child.dismissed and not self._boots(child)
        ]
        # A replacement counts once its predecessor was asked to leave.
        self._working = [child for child in self._staying if not self._waits(child)]

    @property
    def booting(self) -> int:
        """Return how many have not booted yet."""
        return sum(not child.ready for child in self._staying)

    def appoint(self) -> None:
        """Give a free place to who waits for that of a worker with its last job in hand.

        Whoever of those workers ends first makes room for it; for the others there will be another.
        """
        waiting = [
            child
            for child in self._staying
            if child.replaces is not None and child.ready and self._waits(child)
            if self._facts[child.replaces].last
        ]
        free = self.pool.target - len(self._working) - len(self._leaving)
        for child in waiting[: max(0, free)]:
            child.replaces = None
            self._working.append(child)

    def wishes(self, reason: Callable[[Child, Facts], str]) -> Iterable[tuple[int | None, str]]:
        """Yield, for each worker that the pool should get, whom it replaces and why.

        `reason` says why a worker is due, if it is.
        """
        missing = self.pool.target - len(self._working)
        if missing < 0:
            return
        leaving = self._leaving[:missing]
        yield from [(None, "")] * (missing - len(leaving))
        yield from ((child.seat, "it is leaving") for child in leaving)
        due = [
            (child, why)
            for child in self._working
            if child.ready and not child.held and not self._is_being_replaced(child)
            if (why := reason(child, self._facts[child.seat]))
        ]
        due.sort(key=lambda each: (self._is_busy(each[0]), each[0].born_at))
        for child, why in due[: max(0, room(self.pool.target, self._under_way()))]:
            yield child.seat, why

    def surplus(self) -> Iterable[int]:
        """Yield whom the pool has too many: who waits for a place first, then who has no job.

        The oldest come first. Whoever was to replace them is of no use, either.
        """
        target = self.pool.target
        surplus = sorted(self._working if target else self._staying, key=self._rank)
        seats = [child.seat for child in surplus[: max(0, len(surplus) - target)]]
        yield from seats
        yield from (child.seat for child in self._staying if child.replaces in seats)

    def replaced(self) -> Iterable[int]:
        """Yield those whose replacements could claim at once: booted, and known to Redis."""
        for child in self._staying:
            able = child.ready and not self._boots(child) and not child.fault
            if child.replaces is None or not able or not self._waits(child):
                continue
            if not self._facts[child.replaces].last:  # which leaves by itself
                yield child.replaces

    def releases(self, parting: Container[int]) -> Iterable[Release]:
        """Let held workers work, as far as there are places that nobody has, or has still."""
        held = [
            child
            for child in self._staying
            if child.held and not self._waits(child) and child.seat not in parting
        ]
        held.sort(key=lambda child: (not child.ready, child.born_at))
        taken = sum(not child.held for child in self._staying) + len(self._leaving)
        for child in held[: max(0, self.pool.target - taken)]:
            child.held, child.replaces = False, None
            yield Release(child.seat)

    def _under_way(self) -> int:
        """Return how many are being replaced, but for those who still have a job in hand."""
        waiting = len(self._staying) - len(self._working)
        return waiting + sum(not self._is_busy(child) for child in self._leaving)

    def _waits(self, child: Child) -> bool:
        """Return whether a child replaces one that was not asked to leave yet."""
        before = None if child.replaces is None else self._children.get(child.replaces)
        return before is not None and before.stays and not self._facts[before.seat].gone

    def _is_being_replaced(self, child: Child) -> bool:
        return any(other.replaces == child.seat for other in self._children.values())

    def _rank(self, child: Child) -> tuple[bool, bool, bool, float]:
        has_place = not child.held
        return has_place, self._is_busy(child), self._is_being_replaced(child), child.born_at

    def _is_busy(self, child: Child) -> bool:
        return self._facts[child.seat].doing is Doing.RUN

    def _boots(self, child: Child) -> bool:
        return self._facts[child.seat].doing is Doing.BOOT

"""Which processes that a dead child's job has left behind are to be killed.

A process that leaves its job's process group survives the job's end; when its worker dies it
becomes a child of the master, which is a subreaper. So a new stranger below the master is the doing
of whoever has died just then. All others are guests: what was there before us, such as a
companion started by the entry point of a container, or an orphan that came to PID 1 by itself.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

GRACE = 2.0  # seconds in which it may end by itself
LATE = 1.0  # seconds by which a death and what it leaves may be seen apart, either way round


class Process(NamedTuple):
    """A process; `start` is in clock ticks since boot, so that no other is ever the same."""

    pid: int
    start: int


@dataclass(slots=True)
class Strays:
    """The strangers below one master, as they come and go."""

    _deaths: dict[Process, float] = field(default_factory=dict)  # when each was noted
    _first_seen: dict[Process, float] = field(default_factory=dict)
    _condemned: dict[Process, float] = field(default_factory=dict)  # when the grace is over

    @property
    def condemned(self) -> list[Process]:
        """Return the strays that are to be killed, soon or already."""
        return sorted(self._condemned)

    @property
    def guests(self) -> list[Process]:
        """Return the strangers that have nothing to fear."""
        return sorted(self._first_seen.keys() - self._condemned.keys())

    def condemn(self, strays: Iterable[Process], now: float) -> None:
        """Give strays their grace, from now."""
        self._condemned.update(dict.fromkeys(strays, now + GRACE))

    def welcome(self, guests: Iterable[Process]) -> None:
        """Let strangers be for good, also if they were condemned."""
        for guest in guests:
            self._condemned.pop(guest, None)
            self._first_seen[guest] = -math.inf

    def died(self, child: Process, now: float) -> None:
        """Take note that a child of the master is dead."""
        self._deaths[child] = now

    def due(
        self, strangers: Collection[Process], now: float, *, at_once: bool = False
    ) -> list[Process]:
        """Return those of the strangers seen now that are to be killed now.

        Look every second: what was not there the last time has come since.
        """
        self._forget(strangers, now)
        for stranger in strangers:
            seen = self._first_seen.setdefault(stranger, now)
            if stranger not in self._condemned and self._is_left_behind(stranger, seen):
                self._condemned[stranger] = now + GRACE
        return sorted(stray for stray, end in self._condemned.items() if at_once or end <= now)

    def next_at(self) -> float:
        """Return when the next grace is over, infinity if there is none."""
        return min(self._condemned.values(), default=math.inf)

    def _forget(self, strangers: Collection[Process], now: float) -> None:
        """Drop who is gone. A stray's own children come to the master as well."""
        self._first_seen = {one: at for one, at in self._first_seen.items() if one in strangers}
        for gone in self._condemned.keys() - set(strangers):
            del self._condemned[gone]
            self._deaths[gone] = now
        self._deaths = {one: at for one, at in self._deaths.items() if now - at <= LATE}

    def _is_left_behind(self, stranger: Process, seen: float) -> bool:
        """Return whether it came with a death of one that was there before it."""
        return any(
            abs(at - seen) <= LATE and death.start <= stranger.start
            for death, at in self._deaths.items()
        )

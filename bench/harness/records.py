"""What was recorded of every job: which have begun, which got lost or doubled, how late.

The files are written by `bench.peers.recording` and its like in other languages. Nothing here
asks Redis, so that counting costs every contestant the same: nothing.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.peers.recording import BEGAN, ENDED, RECORD, SENT, SHIFT

__all__ = ["BEGAN", "ENDED", "SENT", "Event", "Records", "Tally", "count", "decode", "load"]


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """One record: the moment in ns of CLOCK_MONOTONIC, and the pid that wrote it."""

    moment: int
    kind: int
    number: int
    process: int


@dataclass(frozen=True, slots=True)
class Tally:
    """Which numbers never came, came more than once, or were never put."""

    lost: tuple[int, ...]
    doubled: tuple[int, ...]
    strange: tuple[int, ...]

    @property
    def is_clean(self) -> bool:
        """Return whether each job was run exactly once."""
        return not (self.lost or self.doubled or self.strange)

    def __str__(self) -> str:
        return f"{len(self.lost)} lost, {len(self.doubled)} doubled, {len(self.strange)} strange"


class Records:
    """All events of a run, the earliest first."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = sorted(events)

    def of(self, kind: int) -> list[Event]:
        """Return the events of one kind."""
        return [event for event in self.events if event.kind == kind]

    def moments(self, kind: int = BEGAN) -> list[int]:
        """Return the moments of one kind, in order."""
        return [event.moment for event in self.events if event.kind == kind]

    def tally(self, numbers: range, kind: int = BEGAN) -> Tally:
        """Compare what was put with what came."""
        seen = Counter(event.number for event in self.of(kind))
        return Tally(
            lost=tuple(number for number in numbers if number not in seen),
            doubled=tuple(number for number, times in seen.items() if times > 1),
            strange=tuple(number for number in seen if number not in numbers),
        )

    def latencies(self, jobs: range | None = None) -> list[float]:
        """Return the ms from SENT to the first BEGAN of each job that has both, in job order.

        Of `jobs` only, if given; KeyError if one of these has not both.
        """
        sent = {event.number: event.moment for event in self.of(SENT)}
        began: dict[int, int] = {}
        for event in self.of(BEGAN):
            began.setdefault(event.number, event.moment)
        wanted = jobs if jobs is not None else sorted(job for job in sent if job in began)
        return [(began[job] - sent[job]) / 1e6 for job in wanted]

    def rate(self, since: float = 0.1, until: float = 0.9) -> float:
        """Return jobs a second, from the job at one share of those begun to that at another."""
        return rate(self.moments(), since, until)


def rate(moments: Sequence[int], since: float = 0.1, until: float = 0.9) -> float:
    """Return events a second between two shares of them. `moments` are in ns and in order."""
    first, last = int(since * len(moments)), int(until * len(moments)) - 1
    if last <= first:
        raise ValueError(f"{len(moments)} moments are too few for a rate")
    return (last - first) / ((moments[last] - moments[first]) / 1e9)


def decode(written: bytes, process: int) -> list[Event]:
    """Return the events of one file; a record that is not whole yet is left out."""
    whole = len(written) - len(written) % RECORD.size
    mask = (1 << SHIFT) - 1
    return [
        Event(moment, word >> SHIFT, word & mask, process)
        for word, moment in RECORD.iter_unpack(written[:whole])
    ]


def load(*folders: Path) -> Records:
    """Read all the files of some folders, each named by the pid that wrote it."""
    return Records(
        [
            event
            for folder in folders
            for path in sorted(folder.iterdir())
            for event in decode(path.read_bytes(), int(path.name))
        ]
    )


def count(folder: Path) -> int:
    """Return how many records there are, without reading them."""
    with os.scandir(folder) as entries:
        return sum(entry.stat().st_size for entry in entries) // RECORD.size

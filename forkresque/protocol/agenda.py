"""Delayed jobs, as clients see and delete them. Who promotes them is in delayed.py.

Each spelling of a job has a set of its own with the seconds at which it is due, so a job in a known
spelling is found at once. One that is spelled otherwise is found by looking at all delayed jobs.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from forkresque.errors import BadKey
from forkresque.protocol.connection import Client
from forkresque.protocol.keys import Keys, second_of
from forkresque.protocol.payload import decoded
from forkresque.protocol.script import load
from forkresque.protocol.spellings import Sought

PAGE = 100  # seconds whose jobs are read in one go


class DelayedAt(NamedTuple):
    """The jobs due at one second, decoded; `timestamp` is in epoch seconds."""

    tasks: list[dict[str, Any]]
    timestamp: int


class Agenda:
    """The delayed jobs of one namespace."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def seconds(self) -> list[int]:
        """Return the seconds at which something is due, sorted; what is no number is left out."""
        members = self._client.command("ZRANGE", self._keys.schedule(), 0, -1)
        return sorted(at for member in members if (at := second_of(member)) is not None)

    def at(self, second: int) -> DelayedAt:
        """Return the jobs due at `second`, oldest first."""
        raws = self._client.command("LRANGE", self._keys.delayed(second), 0, -1)
        return DelayedAt([decoded(raw) for raw in raws], second)

    def all(self) -> Iterator[DelayedAt]:
        """Yield what is due at each second, sorted; a second without jobs is left out."""
        for second, raws in self._buckets(self.seconds()):
            yield DelayedAt([decoded(raw) for raw in raws], second)

    def scheduled(self, job: Sought) -> list[int]:
        """Return the seconds at which jobs equal to `job` are due, sorted.

        O(all delayed jobs) if it is due at none in a known spelling.
        """
        marked = {second for seconds in self._marked(job.delayed()) for second in seconds}
        if marked:
            return sorted(marked)
        buckets = self._buckets(self.seconds())
        return [second for second, raws in buckets if any(job.fits(raw) for raw in raws)]

    def delete(self, job: Sought) -> list[int]:
        """Delete all jobs equal to `job`; return the seconds at which they were due, sorted.

        O(all delayed jobs), of which every one is read in case it is spelled in a way of its own.
        """
        known, scheduled = job.delayed(), self.seconds()
        gone: set[int] = set()
        for raw, seconds in zip(known, self._marked(known), strict=True):
            gone |= self._delete(raw, seconds)
        others: dict[bytes, list[int]] = {}
        for second, raws in self._buckets(scheduled):
            for raw in set(filter(job.fits, raws)):
                others.setdefault(raw, []).append(second)
        for raw, seconds in others.items():
            gone |= self._delete(raw, seconds)
        return sorted(gone)

    def _marked(self, raws: Sequence[bytes]) -> list[list[int]]:
        """Return for each payload the seconds that its set names."""
        answers = self._client.attempts(*(("SMEMBERS", self._keys.timestamps(r)) for r in raws))
        return [[] if isinstance(marks, BadKey) else _seconds(marks) for marks in answers]

    def _delete(self, raw: bytes, seconds: Sequence[int]) -> set[int]:
        if not seconds:
            return set()
        numbers = self._client.call(
            load("delete_delayed").pack(
                timestamps=self._keys.timestamps(raw),
                schedule=self._keys.schedule(),
                bucket=[self._keys.delayed(second) for second in seconds],
                payload=raw,
                second=seconds,
            )
        )
        return {second for second, number in zip(seconds, numbers, strict=True) if number}

    def _buckets(self, seconds: Sequence[int]) -> Iterator[tuple[int, list[bytes]]]:
        for start in range(0, len(seconds), PAGE):
            page = seconds[start : start + PAGE]
            lists = self._client.attempts(
                *(("LRANGE", self._keys.delayed(second), 0, -1) for second in page)
            )
            for second, raws in zip(page, lists, strict=True):
                if raws and not isinstance(raws, BadKey):
                    yield second, raws


def _seconds(marks: Iterable[bytes]) -> list[int]:
    """Return the seconds that marks such as `delayed:10` name; others are passed over."""
    found = (second_of(mark.removeprefix(b"delayed:")) for mark in marks)
    return sorted(second for second in found if second is not None)

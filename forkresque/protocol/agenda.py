"""Delayed jobs, as clients see and delete them. Who promotes them is in delayed.py.

Each spelling of a job has a set of its own with the seconds at which it is due, so a job in a known
spelling is found at once. One that is spelled otherwise is found by looking at all delayed jobs.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

from forkresque.errors import BadKey
from forkresque.protocol.connection import Client
from forkresque.protocol.keys import Keys, second_of
from forkresque.protocol.pages import PAGE as LONG
from forkresque.protocol.pages import pages_of_schedule, whole_list
from forkresque.protocol.payload import decoded
from forkresque.protocol.script import load
from forkresque.protocol.spellings import Sought

PAGE = 100  # seconds whose jobs are read or deleted in one go


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
        return sorted(chain.from_iterable(pages_of_schedule(self._client, self._keys)))

    def at(self, second: int) -> DelayedAt:
        """Return the jobs due at `second`, oldest first."""
        raws = whole_list(self._client, self._keys.delayed(second))
        return DelayedAt([decoded(raw) for raw in raws], second)

    def all(self) -> Iterator[DelayedAt]:
        """Yield what is due at each second, sorted; a second without jobs is left out."""
        for second, raws in self._buckets():
            yield DelayedAt([decoded(raw) for raw in raws], second)

    def scheduled(self, job: Sought) -> list[int]:
        """Return the seconds at which jobs equal to `job` are due, sorted.

        O(all delayed jobs) if it is due at none in a known spelling.
        """
        marked = {second for seconds in self._marked(job.delayed()) for second in seconds}
        if marked:
            return sorted(marked)
        buckets = self._buckets()
        return sorted(second for second, raws in buckets if any(map(job.fits, raws)))

    def delete(self, job: Sought) -> list[int]:
        """Delete all jobs equal to `job`; return the seconds at which they were due, sorted.

        O(all delayed jobs), of which every one is read in case it is spelled in a way of its own.
        """
        found: dict[bytes, set[int]] = {}
        for second, raws in self._buckets():
            for raw in set(filter(job.fits, raws)):
                found.setdefault(raw, set()).add(second)
        known = job.delayed()
        for raw, seconds in zip(known, self._marked(known), strict=True):
            found.setdefault(raw, set()).update(seconds)
        gone: set[int] = set()
        for raw, where in found.items():
            gone |= self._delete(raw, sorted(where))
        return sorted(gone)

    def _marked(self, raws: Sequence[bytes]) -> list[list[int]]:
        """Return for each payload the seconds that its set names."""
        answers = self._client.attempts(*(("SMEMBERS", self._keys.timestamps(r)) for r in raws))
        return [[] if isinstance(marks, BadKey) else _seconds(marks) for marks in answers]

    def _delete(self, raw: bytes, seconds: Sequence[int]) -> set[int]:
        found: set[int] = set()
        for start in range(0, len(seconds), PAGE):
            found |= self._delete_page(raw, seconds[start : start + PAGE])
        return found

    def _delete_page(self, raw: bytes, seconds: Sequence[int]) -> set[int]:
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

    def _buckets(self) -> Iterator[tuple[int, list[bytes]]]:
        """Yield each second at which something is due, and what."""
        for seconds in pages_of_schedule(self._client, self._keys):
            for start in range(0, len(seconds), PAGE):
                yield from self._page_of_buckets(seconds[start : start + PAGE])

    def _page_of_buckets(self, seconds: Sequence[int]) -> Iterator[tuple[int, list[bytes]]]:
        keys = [self._keys.delayed(second) for second in seconds]
        heads = self._client.attempts(*(("LRANGE", key, 0, LONG - 1) for key in keys))
        for second, key, raws in zip(seconds, keys, heads, strict=True):
            if raws and not isinstance(raws, BadKey):
                yield second, raws if len(raws) < LONG else whole_list(self._client, key)


def _seconds(marks: Iterable[bytes]) -> list[int]:
    """Return the seconds that marks such as `delayed:10` name; others are passed over."""
    found = (second_of(mark.removeprefix(b"delayed:")) for mark in marks)
    return sorted(second for second in found if second is not None)

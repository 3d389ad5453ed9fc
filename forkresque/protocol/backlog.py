"""Jobs that wait in their queues, as clients see and delete them. Workers claim elsewhere.

A job is found in every spelling, and deleted by the very bytes that are there.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from secrets import token_hex
from typing import Any

from forkresque.protocol.connection import Client
from forkresque.protocol.keys import Keys
from forkresque.protocol.payload import decoded, name_of
from forkresque.protocol.script import load
from forkresque.protocol.spellings import Sought

PAGE = 1000  # jobs that one look at a queue brings, and that one script deletes


class Backlog:
    """The waiting jobs of one namespace."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def shown(self, queue: str, start: int, stop: int) -> list[dict[str, Any]]:
        """Return jobs decoded; see `payload.decoded` for what cannot be."""
        return [decoded(raw) for raw in self._range(queue, start, stop)]

    def delete(self, job: Sought, limit: int) -> Counter[bytes]:
        """Delete the jobs equal to `job`; return how many there were of each spelling.

        At most `limit`, those nearest to the head, or to the tail if it is negative; 0 for all.
        The known spellings come first; what is spelled otherwise costs a look at the whole queue.
        """
        gone = self._delete(job.queue, job.waiting(), limit)
        left = abs(limit) - gone.total()
        if limit and not left:
            return gone
        others = [raw for raw in self._walk(job.queue) if job.fits(raw)]
        if not limit:
            return gone + self._delete_all(job.queue, others)
        nearest = others[-left:] if limit > 0 else others[:left]
        jobs = sorted(set(nearest))
        return gone + self._delete(job.queue, jobs, left if limit > 0 else -left)

    def delete_named(self, queue: str, name: str, start: int, stop: int) -> Counter[bytes]:
        """Delete the jobs called `name` from a stretch of a queue; return how many of each.

        Of the whole queue (0 to -1) those that are pushed or claimed meanwhile are no hindrance.
        """
        if (start, stop) == (0, -1):
            found = (raw for raw in self._walk(queue) if name_of(raw) == name)
            return self._delete_all(queue, found)
        found = (raw for raw in self._range(queue, start, stop) if name_of(raw) == name)
        return self._delete_range(queue, sorted(set(found)), start, stop)

    def delete_queue(self, queue: str, *, tell: bool) -> list[bytes]:
        """Delete a queue with its jobs; return these if we want to be told, else nothing."""
        call = load("delete_queue").pack(
            queue=self._keys.queue(queue),
            queues=self._keys.queues(),
            name=queue,
            tell="1" if tell else "",
        )
        return list(self._client.call(call))

    def _delete(self, queue: str, jobs: Sequence[bytes], limit: int) -> Counter[bytes]:
        if not jobs:
            return Counter()
        call = load("delete_jobs").pack(queue=self._keys.queue(queue), count=limit, spelling=jobs)
        return _counted(jobs, self._client.call(call))

    def _delete_all(self, queue: str, jobs: Iterable[bytes]) -> Counter[bytes]:
        found = sorted(set(jobs))
        gone: Counter[bytes] = Counter()
        for at in range(0, len(found), PAGE):
            gone += self._delete_range(queue, found[at : at + PAGE], 0, -1)
        return gone

    def _delete_range(
        self, queue: str, jobs: Sequence[bytes], start: int, stop: int
    ) -> Counter[bytes]:
        if not jobs:
            return Counter()
        call = load("delete_range").pack(
            queue=self._keys.queue(queue),
            start=start,
            stop=stop,
            gone=f"deleted {token_hex(16)}",
            job=jobs,
        )
        return _counted(jobs, self._client.call(call))

    def _range(self, queue: str, start: int, stop: int) -> list[bytes]:
        return list(self._client.command("LRANGE", self._keys.queue(queue), start, stop))

    def _walk(self, queue: str) -> Iterator[bytes]:
        """Yield the jobs of a queue from the tail.

        Counted from there no claim and no push moves a job to where it would be passed over; at
        worst one comes twice.
        """
        for stop in count(-1, -PAGE):
            page = self._range(queue, stop - PAGE + 1, stop)
            yield from reversed(page)
            if len(page) < PAGE:
                return


def _counted(jobs: Iterable[bytes], numbers: Iterable[int]) -> Counter[bytes]:
    return +Counter(dict(zip(jobs, numbers, strict=True)))

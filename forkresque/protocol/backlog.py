"""Jobs that wait in their queues, as clients see and delete them. Workers claim elsewhere.

A job is found in every spelling, and deleted by the very bytes that are there.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from secrets import token_hex
from typing import Any

from forkresque.protocol.connection import Client
from forkresque.protocol.keys import Keys
from forkresque.protocol.pages import PAGE, pages_from_tail, stretch
from forkresque.protocol.payload import decoded, name_of
from forkresque.protocol.script import load
from forkresque.protocol.spellings import Sought


class Backlog:
    """The waiting jobs of one namespace."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def shown(self, queue: str, start: int, stop: int) -> list[dict[str, Any]]:
        """Return jobs decoded; see `payload.decoded` for what cannot be."""
        waiting = stretch(self._client, self._keys.queue(queue), start, stop)
        return [decoded(raw) for raw in waiting]

    def delete(self, job: Sought, limit: int) -> Counter[bytes]:
        """Delete the jobs equal to `job`; return how many there were of each spelling.

        At most `limit`, those nearest to the head, or to the tail if it is negative; 0 for all.
        The known spellings come first; what is spelled otherwise costs a look at the whole queue.
        """
        if not limit:
            return self._delete_fitting(job.queue, job.fits, -1)
        gone = self._delete(job.queue, job.waiting(), limit)
        left = abs(limit) - gone.total()
        if not left:
            return gone
        others = [raw for page in self._pages(job.queue) for raw in page[::-1] if job.fits(raw)]
        nearest = others[-left:] if limit > 0 else others[:left]
        jobs = sorted(set(nearest))
        return gone + self._delete(job.queue, jobs, left if limit > 0 else -left)

    def delete_named(self, queue: str, name: str, start: int, stop: int) -> Counter[bytes]:
        """Delete the jobs called `name` from a stretch of a queue; return how many of each.

        The stretch is counted from the tail, whatever is claimed meanwhile. Of the whole queue (0
        to -1) those that are pushed meanwhile are no hindrance, either.
        """

        def fits(raw: bytes) -> bool:
            return name_of(raw) == name

        if (start, stop) == (0, -1):
            return self._delete_fitting(queue, fits, -1)
        length = self._client.command("LLEN", self._keys.queue(queue))
        first = start if start < 0 else start - length
        last = stop if stop < 0 else min(stop - length, -1)
        return self._delete_fitting(queue, fits, last, first=max(first, -length))

    def delete_queue(self, queue: str, *, tell: bool) -> list[bytes]:
        """Delete a queue with its jobs; return these if we want to be told, else nothing.

        To be told, they are taken a page at a time, and what is pushed meanwhile goes as well.
        """
        gone: list[bytes] = []
        number = PAGE if tell else 0
        call = load("delete_queue").pack(
            queue=self._keys.queue(queue),
            queues=self._keys.queues(),
            name=queue,
            tell=number,
        )
        while jobs := self._client.call(call):
            gone += jobs
            if len(jobs) < number:
                break
        return gone

    def _delete(self, queue: str, jobs: Sequence[bytes], limit: int) -> Counter[bytes]:
        gone: Counter[bytes] = Counter()
        while jobs and (left := abs(limit) - gone.total()):
            most = min(left, PAGE)
            call = load("delete_jobs").pack(
                queue=self._keys.queue(queue),
                count=most if limit > 0 else -most,
                gone=f"deleted {token_hex(16)}",
                spelling=jobs,
            )
            deleted = _counted(jobs, self._client.call(call))
            gone += deleted
            if deleted.total() < most:
                break
        return gone

    def _delete_fitting(
        self, queue: str, fits: Callable[[bytes], bool], stop: int, *, first: int | None = None
    ) -> Counter[bytes]:
        """Delete what fits, from `stop` towards the head, `first` at most; both are negative.

        Page by page from the tail, so that what is left to be searched does not move. A script
        deletes what fits of a page; it looks a page further, for others may have pushed.
        """
        gone: Counter[bytes] = Counter()
        while True:
            start = stop - PAGE + 1 if first is None else max(stop - PAGE + 1, first)
            if start > stop:
                return gone
            page = self._range(queue, start, stop)
            deleted = self._delete_range(
                queue,
                sorted(set(filter(fits, page))),
                start - PAGE if first is None else start,
                stop,
            )
            gone += deleted
            if len(page) <= stop - start:  # it ends at the head
                return gone
            stop -= max(len(page) - deleted.total(), 0)
            first = None if first is None else first + deleted.total()

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

    def _pages(self, queue: str) -> Iterator[list[bytes]]:
        return pages_from_tail(self._client, self._keys.queue(queue))


def _counted(jobs: Iterable[bytes], numbers: Iterable[int]) -> Counter[bytes]:
    return +Counter(dict(zip(jobs, numbers, strict=True)))

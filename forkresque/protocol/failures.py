"""The failed lists: one for all jobs, or with `failed_by_queue` one for each queue.

A record is found by its bytes and never by its place, which moves when others remove some. With
lists by queue that of all jobs is read as well: node-resque knows no other, and what names no
queue fails there.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, count, islice

from forkresque.errors import BadKey
from forkresque.protocol.failure import parse_failure
from forkresque.protocol.keys import FAILED, is_failed_list, to_text
from forkresque.protocol.script import load
from forkresque.protocol.store import REMEMBER_REQUESTS, Request, Store, refuse_bad_key

PAGE = 500  # records that one answer holds while a list is searched


class Failures:
    """The failure records of one namespace."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._client = store.client
        self._keys = store.keys

    # -- looking around ----------------------------------------------------------------------

    def lists(self) -> list[bytes]:
        """Return the keys of all failed lists, that of all jobs first and the others by name.

        What the set holds beside names of failed lists is passed over: a queue of jobs, above all.
        """
        if not self._keys.failed_by_queue:
            return [self._keys.failed()]
        known = map(to_text, self._client.command("SMEMBERS", self._keys.failed_lists()))
        names = [FAILED, *sorted(filter(is_failed_list, known))]
        return [self._keys.failed_named(name) for name in names]

    def lengths(self, lists: Sequence[bytes]) -> list[int]:
        """Return how many records each list has; among several, one of another type has none."""
        if len(lists) == 1:
            return [int(self._client.command("LLEN", lists[0]))]
        answers = self._client.attempts(*(("LLEN", key) for key in lists))
        return [0 if isinstance(answer, BadKey) else int(answer) for answer in answers]

    def count(self, queue: str | None = None) -> int:
        """Return the number of records; with one list for all, those of a queue are searched."""
        if queue is None:
            return sum(self.lengths(self.lists()))
        if not self._keys.failed_by_queue:
            return sum(1 for _ in self._search(queue))
        return sum(self.lengths([self._keys.failed(queue)]))

    def entries(self, start: int, stop: int, queue: str | None = None) -> list[bytes]:
        """Return records from `start` to `stop`, both included; negative from the newest.

        Lists by queue are counted through, one behind the other, each from its oldest record.
        """
        if queue is None:
            return self._across(self.lists(), start, stop)
        if self._keys.failed_by_queue:
            return self.page(self._keys.failed(queue), start, stop)
        found = self._search(queue)
        if start >= 0 and stop >= 0:
            return list(islice(found, start, stop + 1))
        every = list(found)
        first, last = _span(start, stop, len(every))
        return every[first : last + 1]

    def page(self, key: bytes, start: int, stop: int) -> list[bytes]:
        """Return the records of one list from `start` to `stop`, oldest first, both included."""
        return list(self._client.command("LRANGE", key, start, stop))

    def _across(self, lists: Sequence[bytes], start: int, stop: int) -> list[bytes]:
        if len(lists) == 1:
            return self.page(lists[0], start, stop)
        sizes = self.lengths(lists)
        first, last = _span(start, stop, sum(sizes))
        wanted, before = [], 0
        for key, size in zip(lists, sizes, strict=True):
            low, high = max(first - before, 0), min(last - before, size - 1)
            if low <= high:
                wanted.append(("LRANGE", key, low, high))
            before += size
        return list(chain.from_iterable(self._client.commands(*wanted))) if wanted else []

    def _search(self, queue: str) -> Iterator[bytes]:
        """Yield the records of a queue's jobs from the list of all."""
        for start in count(0, PAGE):
            page = self.page(self._keys.failed(), start, start + PAGE - 1)
            yield from (entry for entry in page if parse_failure(entry).queue == queue)
            if len(page) < PAGE:
                return

    # -- changing ----------------------------------------------------------------------------

    def remove(self, entry: bytes) -> bool:
        """Remove one record by its bytes; return whether there was one."""
        return any(self._remove_from(lists, entry) for lists in self._places(entry))

    def _remove_from(self, lists: Sequence[bytes], entry: bytes) -> bool:
        if not lists:
            return False
        answer = self._client.call(load("remove_failed").pack(failed=lists, entry=entry))
        refuse_bad_key(answer)
        return bool(answer[0] == b"OK")

    def requeue(self, entry: bytes, payload: bytes, queue: str, *, request: Request) -> bool:
        """Put a failed job back on `queue`; return False if its record is gone."""
        return any(
            self.requeue_from(lists, entry, payload, queue, request=request)
            for lists in self._places(entry)
        )

    def requeue_from(
        self,
        lists: Sequence[bytes],
        entry: bytes,
        payload: bytes,
        queue: str,
        *,
        request: Request,
        from_tail: bool | None = None,
    ) -> bool:
        """Put a failed job from one of these lists back on `queue`; see lua/requeue_failed.lua.

        `from_tail` says at which end to begin to look for it, if the caller knows.
        """
        answer = self._store.put(
            load("requeue_failed").pack(
                queue=self._keys.queue(queue),
                queues=self._keys.queues(),
                producer=self._keys.producer(request.producer),
                failed=lists,
                entry=entry,
                payload=payload,
                name=queue,
                sequence=request.sequence,
                remember=REMEMBER_REQUESTS,
                seek=0 if from_tail is None else -1 if from_tail else 1,
            )
        )
        refuse_bad_key(answer)
        return bool(answer[0] != b"MOVED")

    def _places(self, entry: bytes) -> Iterator[list[bytes]]:
        """Yield the lists that may hold a record: those where it should be, then all others."""
        likely = [self._keys.failed()]
        if self._keys.failed_by_queue:
            likely = list({self._keys.failed(parse_failure(entry).queue): 0, likely[0]: 0})
        yield likely
        if self._keys.failed_by_queue:
            lists = self.lists()
            sizes = zip(lists, self.lengths(lists), strict=True)
            yield [key for key, size in sizes if size and key not in likely]


def _span(start: int, stop: int, size: int) -> tuple[int, int]:
    """Return the places that LRANGE means, in a list of this size."""
    first = start if start >= 0 else max(size + start, 0)
    last = stop if stop >= 0 else size + stop
    return first, min(last, size - 1)

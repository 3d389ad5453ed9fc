"""Sweep: many failure records are taken at once, a portion of a list after another, oldest first.

One at a time each of them costs Redis a look at all that stand before it. What is taken is found
by its bytes, as often as it is wanted and no more; what others do meanwhile makes nothing be
passed over that stays, and nothing be taken twice.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from secrets import token_hex

from forkresque.protocol.failure import Failure, parse_failure
from forkresque.protocol.failures import Failures
from forkresque.protocol.pages import Walk
from forkresque.protocol.script import Scalar, load
from forkresque.protocol.store import REMEMBER_REQUESTS, Request, Store

PORTION = 200  # records that one script looks at
_SLACK = 50  # places by which others may move them between our look and the script

Send = Callable[[Callable[[Request], list[bytes]]], list[bytes]]


class Sweep:
    """Takes records from the failed lists; `send` asks with one request until it is answered."""

    def __init__(self, store: Store, failures: Failures, send: Send) -> None:
        self._store, self._client, self._keys = store, store.client, store.keys
        self._failures = failures
        self._send = send

    def take(
        self, entries: Iterable[bytes], target: Callable[[Failure], str | None]
    ) -> Iterator[list[bytes]]:
        """Take records, and put each job on the queue that `target` says; "" is for none.

        Yields those of a portion that were there. Where `target` says None, and where a queue of
        the portion is of another type, records are left alone.
        """
        left = Counter(entries)
        lists = self._failures.lists()
        for key, length in zip(lists, self._failures.lengths(lists), strict=True):
            walk = Walk(self._client, key, length, page=PORTION)
            while left and length and (page := walk.page()):
                chosen = map(parse_failure, (Counter(page) & left).elements())
                aims = [(each, name) for each in chosen if (name := target(each)) is not None]
                taken = self._take(walk, len(page), aims) if aims else []
                walk.pass_by(_without(page, taken))
                left -= Counter(taken)
                if taken:
                    yield taken

    def _take(self, walk: Walk, size: int, aims: Sequence[tuple[Failure, str]]) -> list[bytes]:
        key, start, stop = walk.key, max(walk.place - _SLACK, 0), walk.place + size - 1
        names = list(dict.fromkeys(name for _, name in aims if name))
        records: list[Scalar] = []
        for failure, name in aims:
            place = names.index(name) if name else ""
            records += (failure.raw_entry, failure.payload, place, name)

        def ask(request: Request) -> list[bytes]:
            call = load("take_failed").pack(
                failed=key,
                queues=self._keys.queues(),
                producer=self._keys.producer(request.producer),
                queue=[self._keys.queue(name) for name in names],
                start=start,
                stop=stop,
                gone=f"taken {token_hex(16)}",
                sequence=request.sequence,
                remember=REMEMBER_REQUESTS,
                record=records,
            )
            word, *numbers = self._store.put(call)
            if word == b"DUP":  # the first answer got lost: who is not there now was taken
                there = Counter(self._failures.page(key, start, stop))
                return list((Counter(each.raw_entry for each, _ in aims) - there).elements())
            if word == b"BADKEY":
                return []
            return [aims[number - 1][0].raw_entry for number in numbers]

        return self._send(ask)


def _without(page: Sequence[bytes], taken: Sequence[bytes]) -> list[bytes]:
    """Return what stays of a page, in order."""
    gone = Counter(taken)
    kept = []
    for entry in page:
        if gone[entry]:
            gone[entry] -= 1
        else:
            kept.append(entry)
    return kept

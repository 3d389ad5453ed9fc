"""Which failed jobs are meant: by id, or all that filters let through."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import merge

from forkresque.errors import ForkresqueError
from forkresque.protocol.failure import Failure, failed_second, parse_failure
from forkresque.queue import Queue

PAGE = 500
SMALLEST_PAGE = 20  # where there are many lists, of which the newest are compared
SHOWN_IDS = 5


@dataclass(frozen=True, slots=True)
class Filters:
    """What a failed job must be like; None lets everything through."""

    queue: str | None = None
    name: str | None = None
    exception: str | None = None
    match: str | None = None

    def __bool__(self) -> bool:
        return any(each is not None for each in (self.queue, self.name, self.exception, self.match))

    def accept(self, failure: Failure) -> bool:
        """Return whether this failed job is meant."""
        pairs = (
            (self.queue, failure.queue),
            (self.name, failure.name),
            (self.exception, failure.exception),
        )
        if any(wanted not in (None, found) for wanted, found in pairs):
            return False
        return self.match is None or self.match.casefold() in _searched(failure).casefold()


def _searched(failure: Failure) -> str:
    args = json.dumps(failure.args, ensure_ascii=False)
    return "\n".join([failure.name, args, failure.exception, failure.error])


def newest_first(queue: Queue) -> Iterator[Failure]:
    """Yield the failed jobs there are now, in pages.

    Those that come meanwhile are left out. One that is yielded may be gone, and when others
    remove some, one may come twice; none is passed over.
    """
    lists = queue.failures.lists()
    lengths = queue.failures.lengths(lists)
    page = max(PAGE // len(lists), SMALLEST_PAGE)
    every = [
        _newest_of(queue, key, length, page) for key, length in zip(lists, lengths, strict=True)
    ]
    return every[0] if len(every) == 1 else merge(*every, key=lambda each: -failed_second(each))


def _newest_of(queue: Queue, key: bytes, length: int, page: int) -> Iterator[Failure]:
    stop = length - 1
    while stop >= 0:
        start = max(0, stop - page + 1)
        yield from map(parse_failure, reversed(queue.failures.page(key, start, stop)))
        stop = start - 1


def named(queue: Queue, prefixes: Sequence[str]) -> list[Failure]:
    """Return the failed jobs with these ids, or beginnings of ids; equal records share an id.

    Raises ForkresqueError for one that is unknown or fits several.
    """
    found: dict[str, dict[str, list[Failure]]] = {prefix: {} for prefix in prefixes}
    for failure in newest_first(queue):
        identity = failure.id
        for prefix, candidates in found.items():
            if identity.startswith(prefix):
                candidates.setdefault(identity, []).append(failure)
    meant: dict[str, list[Failure]] = {}
    for prefix, candidates in found.items():
        if len(candidates) != 1:
            raise _not_one(prefix, list(candidates))
        meant |= candidates
    return [failure for failures in meant.values() for failure in failures]


def _not_one(prefix: str, ids: list[str]) -> ForkresqueError:
    if not ids:
        return ForkresqueError(
            f"there is no failed job {prefix}", hint="forkresque failed lists those there are"
        )
    shown = ", ".join(ids[:SHOWN_IDS]) + (", …" if len(ids) > SHOWN_IDS else "")
    return ForkresqueError(f"{prefix} fits {len(ids)} failed jobs", hint=f"say which: {shown}")

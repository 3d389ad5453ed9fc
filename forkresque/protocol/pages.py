"""Long lists and the schedule, read a page at a time: no question keeps Redis from others for long.

What others push, claim or promote meanwhile makes nothing be passed over.
"""

from collections.abc import Iterator, Sequence
from itertools import count

from forkresque.protocol.connection import Client
from forkresque.protocol.keys import Keys, second_of
from forkresque.protocol.script import Scalar, load

PAGE = 1000  # members or jobs that one answer holds


def pages_of_schedule(client: Client, keys: Keys) -> Iterator[list[int]]:
    """Yield the seconds at which something is due, sorted by score; what is no number is left out.

    Counted by score, for places move when others promote.
    """
    low: Scalar = "-inf"
    passed = 0  # members of the score `low`, which another client may give to any number of them
    while True:
        limits = (low, "+inf", "WITHSCORES", "LIMIT", passed, PAGE)
        page = client.command("ZRANGEBYSCORE", keys.schedule(), *limits)
        yield [second for member, _ in page if (second := second_of(member)) is not None]
        if len(page) < PAGE:
            return
        last = page[-1][1]
        alike = sum(score == last for _, score in page)
        passed = alike + (passed if repr(last) == low else 0)
        low = repr(last)


def pages_from_tail(client: Client, key: bytes) -> Iterator[list[bytes]]:
    """Yield what a list holds, page by page from its tail, each page in the list's order.

    Counted from there no pop and no push moves anything to where it would be passed over; at
    worst something comes twice.
    """
    for stop in count(-1, -PAGE):
        page = list(client.command("LRANGE", key, stop - PAGE + 1, stop))
        yield page
        if len(page) < PAGE:
            return


def whole_list(client: Client, key: bytes) -> list[bytes]:
    """Return all that a list holds, its head first. Something pushed meanwhile may come twice."""
    pages = list(pages_from_tail(client, key))
    return [raw for page in reversed(pages) for raw in page]


def stretch(client: Client, key: bytes, start: int, stop: int) -> list[bytes]:
    """Return what a list holds from `start` to `stop`, as LRANGE does; a long stretch by pages.

    That one is counted from the tail as it is at first: nothing that is claimed meanwhile makes
    anything be passed over. When something is pushed meanwhile, something may come twice.
    """
    if (start < 0) == (stop < 0) and stop - start < PAGE:
        return list(client.command("LRANGE", key, start, stop))
    length = int(client.command("LLEN", key))
    first = max(start if start < 0 else start - length, -length)
    last = stop if stop < 0 else min(stop - length, -1)
    pages = [
        client.command("LRANGE", key, max(end - PAGE + 1, first), end)
        for end in range(last, first - 1, -PAGE)
    ]
    return [raw for page in reversed(pages) for raw in page]


class Walk:
    """A way through a list from its head, that passes nothing over.

    Who walks says what he leaves behind. When others have removed something before the place
    that was reached, what was last left behind no longer stands there, and the walk begins anew.
    """

    def __init__(self, client: Client, key: bytes, length: int, *, page: int) -> None:
        self._page = page
        self._client = client
        self.key = key
        self._length = length
        self._at = 0
        self._behind: list[bytes] = []  # what was left at the place before, if anything was

    @property
    def place(self) -> int:
        """Return where in the list the page stands that was last read, or did when it was."""
        return self._at

    @property
    def is_nearer_tail(self) -> bool:
        """Return from which end Redis finds sooner what comes next."""
        return self._at > self._length // 2

    def page(self) -> list[bytes]:
        """Return what comes next; nothing at the end."""
        while True:
            first = self._at - len(self._behind)
            found = self._client.command("LRANGE", self.key, first, self._at + self._page - 1)
            if found[: len(self._behind)] == self._behind:
                return list(found[len(self._behind) :])
            self._at, self._behind = 0, []

    def pass_by(self, kept: Sequence[bytes]) -> None:
        """Go on behind the last page, of which these stay."""
        self._at += len(kept)
        self._behind = list(kept[-1:]) or self._behind


def total_length(client: Client, keys: Keys) -> int:
    """Return how many jobs wait for their second. O(seconds), a page of them a question."""
    return sum(
        int(client.call(load("total_length").pack(list=[keys.delayed(second) for second in page])))
        for page in pages_of_schedule(client, keys)
        if page
    )

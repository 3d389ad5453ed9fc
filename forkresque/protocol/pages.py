"""Long lists and the schedule, read a page at a time: no question keeps Redis from others for long.

What others push, claim or promote meanwhile makes nothing be passed over.
"""

from collections.abc import Iterator
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


def total_length(client: Client, keys: Keys) -> int:
    """Return how many jobs wait for their second. O(seconds), a page of them a question."""
    return sum(
        int(client.call(load("total_length").pack(list=[keys.delayed(second) for second in page])))
        for page in pages_of_schedule(client, keys)
        if page
    )

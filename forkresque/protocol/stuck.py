"""Stuck jobs: those that failed because their worker died, not because they raised.

They are known by what the cleaner wrote: node-resque's leader leaves a mark in the backtrace, Ruby
names the exception. Our own dead are no such jobs: those that may run again went back to their
queue at once, and what is in the failed list must not run again unasked. A record that Ruby has
retried since stands in the list still, with the time; its job is not put back once more.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial

from forkresque.errors import BadKey
from forkresque.protocol.connection import Client
from forkresque.protocol.failure import Failure, parse_failure
from forkresque.protocol.failures import PAGE, Failures
from forkresque.protocol.foreign import NODE_MARK, RUBY_DEATHS
from forkresque.protocol.store import Request

log = logging.getLogger("forkresque.queue")

# Every name that Ruby gives a death holds the second: what has neither need not be parsed.
_SIGNS = (NODE_MARK.encode(), b"DirtyExit")

Send = Callable[[Callable[[Request], bool]], bool]


def is_stuck(failure: Failure) -> bool:
    """Return whether the job failed with its worker, and may be put back."""
    if failure.retried_at or not failure.payload or not failure.queue:
        return False
    return failure.exception in RUBY_DEATHS or failure.backtrace[1:2] == [NODE_MARK]


def retry_stuck(failures: Failures, client: Client, send: Send, *, limit: int | None) -> int:
    """Put stuck jobs back on their queues, at most `limit`; return how many.

    `send` asks with one request until there is an answer. A job that cannot go back stays failed.
    """
    done = 0
    lists = failures.lists()
    for key, length in zip(lists, failures.lengths(lists), strict=True):
        walk = Walk(client, key, length)
        while length and (page := walk.page()):
            kept = []
            for entry in page:
                if done == limit:
                    return done
                moved = _retry(failures, walk, entry, send)
                done += moved is True
                if moved is None:
                    kept.append(entry)
            walk.pass_by(kept)
    return done


def _retry(failures: Failures, walk: "Walk", entry: bytes, send: Send) -> bool | None:
    """Return whether the job was put back; False if its record is gone, None if it stays."""
    if not any(sign in entry for sign in _SIGNS):
        return None
    failure = parse_failure(entry)
    if not is_stuck(failure):
        return None
    requeue = partial(
        failures.requeue_from,
        [walk.key],
        entry,
        failure.payload,
        failure.queue,
        from_tail=walk.is_nearer_tail,
    )
    try:
        return send(lambda request: requeue(request=request))
    except BadKey as error:
        log.warning("failed=%s cannot be put back: %s", failure.id, error)
        return None


class Walk:
    """A way through a list from its head, that passes nothing over.

    Who walks says what he leaves behind. When others have removed something before the place
    that was reached, what was last left behind no longer stands there, and the walk begins anew.
    """

    def __init__(self, client: Client, key: bytes, length: int) -> None:
        self._client = client
        self.key = key
        self._length = length
        self._at = 0
        self._behind: list[bytes] = []  # what was left at the place before, if anything was

    @property
    def is_nearer_tail(self) -> bool:
        """Return from which end Redis finds sooner what comes next."""
        return self._at > self._length // 2

    def page(self) -> list[bytes]:
        """Return what comes next; nothing at the end."""
        while True:
            first = self._at - len(self._behind)
            found = self._client.command("LRANGE", self.key, first, self._at + PAGE - 1)
            if found[: len(self._behind)] == self._behind:
                return list(found[len(self._behind) :])
            self._at, self._behind = 0, []

    def pass_by(self, kept: Sequence[bytes]) -> None:
        """Go on behind the last page, of which these stay."""
        self._at += len(kept)
        self._behind = list(kept[-1:]) or self._behind

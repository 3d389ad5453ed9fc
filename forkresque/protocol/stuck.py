"""Stuck jobs: those that failed because their worker died, not because they raised.

They are known by what the cleaner wrote: node-resque's leader leaves a mark in the backtrace, Ruby
names the exception. Our own dead are no such jobs: those that may run again went back to their
queue at once, and what is in the failed list must not run again unasked. A record that Ruby has
retried since stands in the list still, with the time; its job is not put back once more.
"""

import logging
from collections.abc import Callable
from functools import partial

from forkresque.errors import BadKey
from forkresque.protocol.connection import Client
from forkresque.protocol.failure import Failure, parse_failure
from forkresque.protocol.failures import PAGE, Failures
from forkresque.protocol.foreign import NODE_MARK, RUBY_DEATHS
from forkresque.protocol.pages import Walk
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
        walk = Walk(client, key, length, page=PAGE)
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


def _retry(failures: Failures, walk: Walk, entry: bytes, send: Send) -> bool | None:
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

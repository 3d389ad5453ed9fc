"""Rota: the queues that a worker's names and patterns mean now, and whose turn it is."""

import logging
import time
from collections.abc import Sequence

from forkresque.policy import queues as patterns
from forkresque.policy.orders import Turns
from forkresque.protocol.claims import Claims
from forkresque.protocol.connection import Link
from forkresque.protocol.keys import Keys, to_text

log = logging.getLogger("forkresque.worker")


class Rota:
    """Keeps the queues that `claims` polls up to date.

    `interval` is in seconds: how long a change may go unseen where Redis cannot tell of one.
    """

    def __init__(
        self,
        listed: Sequence[str],
        turns: Turns,
        link: Link,
        keys: Keys,
        claims: Claims,
        *,
        interval: float,
    ) -> None:
        self.patterns = tuple(listed)
        self._varies = any(map(patterns.is_pattern, self.patterns))
        self.turns = turns
        self._link = link
        self._key = keys.queues()
        self._claims = claims
        self._interval = interval
        self._refreshed_at = float("-inf")
        self._warned: set[bytes] = set()

    @property
    def may_have_changed(self) -> bool:
        """Return whether Redis has told of a change; where it cannot, after each interval."""
        if self._link.tracking:
            return self._link.heard(self._key)
        return time.monotonic() - self._refreshed_at > self._interval

    def refresh(self) -> None:
        """Find out which queues the patterns mean now, if that may have changed."""
        if not self._varies:
            self._link.forget(self._key)  # a new queue is no news for a list of names
            if not self._claims.queues:
                self._poll(self.patterns)
            return
        if self.may_have_changed:
            self._link.forget(self._key)
            names = self._link.command("SMEMBERS", self._key, armed=True)
            self._poll(patterns.expand(self.patterns, map(to_text, names)))
            self._refreshed_at = time.monotonic()

    def warn_of_skipped(self) -> None:
        """Warn, once, of a key of the wrong type that the last answer had to do without."""
        key = self._claims.skipped
        if key and key not in self._warned:
            self._warned.add(key)
            log.warning("key=%s holds another type than a queue and is passed over", to_text(key))

    def _poll(self, queues: Sequence[str]) -> None:
        self._claims.poll(queues)
        self.turns.poll(queues)

"""The duty of node-resque's leader towards its own workers, while we hold its lock.

Nobody else can do it then. Only workers that ping and are not ours are looked at, so Ruby's are
never touched, and a job is only ever recorded as failed, as its owner's system would.
"""

import logging

from forkresque.policy.silence import Silence
from forkresque.protocol.connection import RedisClock
from forkresque.protocol.foreign import cleaning_entry
from forkresque.protocol.registry import Cleaning, Registry, name_of

log = logging.getLogger("forkresque.clerk")

_LOOKS = 4  # within the timeout; a worker is judged after at least so many
_SELDOM = 60.0  # seconds between looks, at most


class Neighbours:
    """Cleans up after workers of node-resque that have not pinged for `timeout` seconds."""

    def __init__(
        self, registry: Registry, clock: RedisClock, *, token: str, host: str, timeout: float
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._token = token
        self._host = host
        self.pause = min(_SELDOM, timeout / _LOOKS)
        self._silence = Silence(timeout, patience=2 * self.pause + 1.0)

    def look(self, now: float) -> None:
        """Look at everybody's ping, and clean up after the silent; `now` is monotonic time."""
        signs = self._registry.foreign_signs()
        pings = {worker: sign.ping for worker, sign in signs.items()}
        for worker in self._silence.judge(now, pings):
            sign, entry = signs[worker], b""
            if sign.record:
                entry = cleaning_entry(
                    sign.record, name_of(worker), host=self._host, failed_at=self._clock.now()
                )
            result = self._registry.clean_foreign(worker, sign, entry, token=self._token)
            if result is Cleaning.CLEANED:
                log.warning("worker=%s of node-resque was silent and is removed", worker)

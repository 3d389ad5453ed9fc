"""The duty of node-resque's leader towards its own workers, while we hold its lock.

Nobody else can do it then. Only workers that ping and are not ours are looked at, so Ruby's are
never touched, and a job is only ever recorded as failed, as its owner's system would.
"""

import logging
from collections.abc import Callable

from forkresque.errors import BadKey
from forkresque.policy.silence import Silence
from forkresque.protocol.connection import RedisClock
from forkresque.protocol.foreign import cleaning_entry
from forkresque.protocol.ownership import name_of
from forkresque.protocol.registry import Cleaning, Registry, Sign

log = logging.getLogger("forkresque.scheduler")

Tell = Callable[[str, bytes, float], None]

_LOOKS = 4  # within the timeout; a worker is judged after at least so many
_SELDOM = 60.0  # seconds between looks, at most


class Neighbours:
    """Cleans up after workers of node-resque that have not pinged for `timeout` seconds.

    They are judged by what was seen from here, by this machine's monotonic clock: a ping that did
    not change. So a first look removes nobody, and neither does one after a long pause. `tell` is
    called for each that is removed: its `host:pid`, the failure record of the job that it had, or
    nothing, and for how many seconds it was seen to be silent.
    """

    def __init__(
        self,
        registry: Registry,
        clock: RedisClock,
        *,
        token: str,
        host: str,
        timeout: float,
        tell: Tell = lambda _name, _entry, _seconds: None,
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._token = token
        self._host = host
        self._tell = tell
        self.pause = min(_SELDOM, timeout / _LOOKS)
        self._silence = Silence(timeout, patience=2 * self.pause + 1.0)

    def look(self, now: float) -> None:
        """Look at everybody's ping, and clean up after the silent; `now` is monotonic time.

        Raises RedisUnavailable and RedisRefused. What cannot be done for one of them is raised
        when all others had their turn.
        """
        signs = self._registry.foreign_signs()
        pings = {worker: sign.ping for worker, sign in signs.items()}
        trouble: BadKey | None = None
        for worker, seconds in self._silence.judge(now, pings).items():
            try:
                self._clean(worker, signs[worker], seconds)
            except BadKey as error:
                trouble = error
        if trouble is not None:
            raise trouble

    def _clean(self, worker: str, sign: Sign, seconds: float) -> None:
        name, entry = name_of(worker), b""
        if sign.record:
            entry = cleaning_entry(sign.record, name, host=self._host, failed_at=self._clock.now())
        result = self._registry.clean_foreign(worker, sign, entry, token=self._token)
        if result is Cleaning.CLEANED:
            log.warning("worker=%s of node-resque was silent and is removed", worker)
            self._tell(name, entry, seconds)

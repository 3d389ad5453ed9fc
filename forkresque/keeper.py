"""The lease of a worker that stands alone: renewed from a thread, so that a long job keeps it.

So are the locks of the job in hand.

Workers of a master have their leases renewed by its clerk.
"""

import contextlib
import logging
import threading
from collections.abc import Iterable

from forkresque.connection import Connection
from forkresque.errors import RedisRefused, RedisUnavailable
from forkresque.events import Emitter
from forkresque.jobs import Definition
from forkresque.protocol.claims import WorkerId
from forkresque.protocol.connection import RedisClock
from forkresque.protocol.locks import renew_locks
from forkresque.protocol.ownership import Lease
from forkresque.protocol.registry import Registry

log = logging.getLogger("forkresque.worker")


def warn_of_limits(worker: WorkerId, jobs: Iterable[Definition]) -> None:
    """Say which jobs have a time limit that a worker without a master does not keep."""
    limited = [job.name for job in jobs if job.timeout is not None]
    if limited:
        log.warning(
            "worker=%s stands alone and keeps no time limits, which %s have: "
            "only a master, as of `forkresque start`, can end a job",
            worker,
            ", ".join(sorted(limited)),
        )


class LeaseKeeper:
    """Renews a lease, its worker's ping and its job's locks over its own link, until `stop`."""

    def __init__(
        self, connection: Connection, worker: WorkerId, lease: Lease, events: Emitter
    ) -> None:
        self._link = connection.link()
        self._keys = connection.keys
        self._registry = Registry(self._link, self._keys)
        self._clock = RedisClock(self._link)
        self._worker = worker
        self._lease = lease
        self._events = events
        self._stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Renew no more, and give the lease up if nothing depends on it."""
        self._stopped.set()
        self.thread.join()
        with contextlib.suppress(RedisUnavailable, RedisRefused):
            if not self._registry.kids(self._lease.master):
                self._registry.forget_master(self._lease.master)
        self._link.close()

    def _run(self) -> None:
        while not self._stopped.wait(self._lease.renewal):
            try:
                self._registry.beat(self._lease, [self._worker], now=self._clock.now())
                renew_locks(self._link, self._keys, [str(self._worker)], self._lease.term)
                self._events.emit("ping", int(self._clock.guess()))
            except (RedisUnavailable, RedisRefused) as error:
                log.warning("lease of %s was not renewed: %s", self._lease.master, error)
                self._events.emit("error", error, None, None)

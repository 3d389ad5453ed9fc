"""Queue: put jobs on queues, look at what is there, and remove it.

What node-resque's Queue can do, by the same names. Safe to use from any number of threads.
"""

from forkresque.errors import InvalidArgs
from forkresque.producer import Producer
from forkresque.protocol.failure import Failure, parse_failure
from forkresque.protocol.store import check_server


class Queue(Producer):
    """The queues of one namespace, for producers and for those who look; see `Producer`."""

    def connect(self) -> None:
        """Reach Redis now, and refuse one on which jobs would get lost.

        Nobody has to: the first question connects. Raises RedisUnavailable and RedisRefused.
        """
        check_server(self.store.client, self.store.keys.namespace)

    def end(self) -> None:
        """Close all connections. The next question opens one again."""
        self.store.client.close()

    # -- waiting jobs ------------------------------------------------------------------------

    def queues(self) -> list[str]:
        """Return the names of all queues, sorted."""
        return self.store.queues()

    def length(self, queue: str) -> int:
        """Return how many jobs wait in `queue`; delayed ones do not count."""
        return self.store.lengths([queue])[0]

    def lengths(self) -> dict[str, int]:
        """Return how many jobs wait in each queue."""
        names = self.queues()
        return dict(zip(names, self.store.lengths(names), strict=True))

    def peek(self, queue: str, start: int = 0, stop: int = -1) -> list[bytes]:
        """Return the payloads from `start` to `stop`, both included, without taking them."""
        return self.store.peek(queue, start, stop)

    # -- delayed jobs ------------------------------------------------------------------------

    def delayed_count(self) -> int:
        """Return how many jobs wait for their second."""
        return self.store.delayed_count()

    # -- failed jobs -------------------------------------------------------------------------

    def failed_count(self) -> int:
        """Return how many failure records there are."""
        return self.store.failed_count()

    def failed(self, start: int = 0, stop: int = -1) -> list[Failure]:
        """Return failed jobs, oldest first, from `start` to `stop`, both included."""
        return [parse_failure(entry) for entry in self.store.failed(start, stop)]

    def retry_failed(self, failure: Failure, *, queue: str | None = None) -> bool:
        """Put a failed job back on its queue, bytes unchanged; return False if it is gone."""
        target = queue or failure.queue
        if not failure.payload or not target:
            raise InvalidArgs(
                f"failed job {failure.id} has no readable payload or no queue",
                hint="name a queue, or look at it and remove it",
            )
        return self._send(
            lambda request: self.store.requeue_failed(
                failure.raw_entry, failure.payload, target, request=request
            ),
            None,
        )

    def remove_failed(self, failure: Failure) -> bool:
        """Remove a failed job; return False if it is gone."""
        return self.store.remove_failed(failure.raw_entry)

    # -- workers -----------------------------------------------------------------------------

    # -- locks and numbers -------------------------------------------------------------------

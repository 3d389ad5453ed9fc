"""A job performed here and now, within its hooks: for tests, consoles, and calls that cannot wait.

It is on no queue and in no worker's slot. So nobody counts it or its failures, and nobody would
retry it: who asked for it gets its result or its error.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from secrets import token_hex

from forkresque.errors import JobAborted, JobTimeout, RedisRefused, RedisUnavailable, UnknownJob
from forkresque.jobs import Definition
from forkresque.plugins.base import Performance
from forkresque.plugins.hooks import Begun, Hooks
from forkresque.producer import Producer, listed
from forkresque.protocol.connection import Caller
from forkresque.protocol.keys import Keys, to_text
from forkresque.protocol.locks import keep_lock, take_lock
from forkresque.protocol.payload import encode_job

log = logging.getLogger("forkresque.worker")


class Inline:
    """Performs the `jobs` of the worker of that name and id. Plugins ask Redis by its `queue`."""

    def __init__(
        self,
        jobs: Mapping[str, Definition],
        *,
        name: str,
        worker: str,
        queue: Callable[[], Producer],
    ) -> None:
        self._jobs = jobs
        self._name = name
        self._worker = worker
        self._queue = queue

    def perform(self, name: str, arguments: object) -> object:
        """Return what the job returns, None if a plugin does not let it pass.

        Raises UnknownJob, InvalidArgs, and what the job raises unless a plugin clears it.
        """
        definition = self._jobs.get(name)
        if definition is None:
            raise UnknownJob(f"no job is registered under the name {name!r}")
        args = listed(arguments)
        definition.check(args)
        if definition.hooks is None:
            return definition.run(args)
        return self._within(definition.hooks, definition, args)

    def _within(self, wanted: Hooks, definition: Definition, args: Sequence[object]) -> object:
        queue = self._queue()
        hand = _NoSlot(queue.store.client, queue.store.keys, queue.store.clock.now)
        label = f"_direct-queue-{self._name}"  # as node-resque's plugins see it
        context = Performance(
            worker=self._worker,
            hand=hand,
            queue=label,
            name=definition.name,
            payload=encode_job(label, definition.name, args),
            keys=queue.store.keys,
            redis=queue.store.client,
            now=queue.store.clock.now,
            queues=lambda: queue,
        )
        begun = wanted.begin(context)
        try:
            return _ended(begun, partial(definition.run, args))
        finally:
            hand.free()


def _ended(begun: Begun, run: Callable[[], object]) -> object:
    context = begun.context
    try:
        if not begun.before():
            return None
        context.worker.result = begun.perform(run)
    except (KeyboardInterrupt, JobTimeout, JobAborted):
        raise  # it is meant for who waits for the result
    except BaseException as error:  # noqa: BLE001 - raised below, unless a plugin clears it
        context.error = error
    begun.after()
    raised = context.error if context.later is None else context.later.error
    if raised is not None:
        raise raised
    return context.worker.result


class _NoSlot:
    """What plugins are lent where there is no claim: locks that end with the performance."""

    def __init__(self, redis: Caller, keys: Keys, now: Callable[[], float]) -> None:
        self._redis, self._keys, self._now = redis, keys, now
        self._locks: dict[bytes, bytes] = {}

    def take_lock(self, lock: bytes, seconds: int) -> bool:
        """Take a lock, which nobody renews: that is why it lasts as long as a vanished worker's."""
        if lock in self._locks:
            return True
        value = b"%d.%b" % (int(self._now()) + seconds + 1, token_hex(12).encode())
        self._locks[lock] = value  # before the question: its answer may get lost
        if take_lock(self._redis, self._keys, lock, value, seconds):
            return True
        del self._locks[lock]
        return False

    def free(self) -> None:
        """Free the locks that still are ours. One that cannot be freed ends by itself."""
        for lock, value in self._locks.items():
            try:
                keep_lock(self._redis, self._keys, lock, value, 0)
            except (RedisUnavailable, RedisRefused) as error:
                log.warning("lock=%s stays until it runs out: %s", to_text(lock), error)

    def count_attempt(
        self,
        counter: bytes,  # noqa: ARG002 - for those who count
        attempt: int,
        *,
        record: tuple[bytes, bytes],  # noqa: ARG002
        keep: int,  # noqa: ARG002
    ) -> int:
        """Count nothing: the counter belongs to the jobs on queues."""
        return attempt

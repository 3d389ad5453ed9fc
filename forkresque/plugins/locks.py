"""Locks: no two equal jobs at work at once, or waiting at once. Keys and values as node-resque's.

Equal are jobs of one name and queue whose arguments are the same JSON. Whoever holds such a lock
is respected, whichever client it is; what is released is only what was taken.
"""

from collections.abc import Callable
from secrets import token_hex
from typing import ClassVar, TypeVar

from forkresque.errors import ConfigError
from forkresque.plugins.base import Context, Performance
from forkresque.plugins.settings import Configured, Duration, seconds, whole_seconds
from forkresque.protocol.canonical import reencode
from forkresque.protocol.keys import to_bytes
from forkresque.protocol.locks import free_lock, keep_lock, take_lock
from forkresque.protocol.spellings import Sought

C = TypeVar("C", bound=Context)
Key = str | bytes | Callable[[C], str | bytes] | None

_UNTIL_STORED = 30  # seconds a lock lasts while its job is on the way, more than an enqueue takes


def _key(given: "Key[C]", context: C, default: Callable[[str, str, bytes], bytes]) -> bytes:
    """Return a lock's key: what was given as it stands, without a namespace, or node's."""
    key = given(context) if callable(given) else given
    if key is None:
        return default(context.name, context.queue, reencode(context.args))
    return to_bytes(key) if isinstance(key, str) else key


def _checked(label: str, key: "Key[C]") -> "Key[C]":
    if key is None or callable(key) or (isinstance(key, str | bytes) and key):
        return key
    raise ConfigError(f"{label} must be a key of Redis or a function that returns one, got {key!r}")


class JobLock(Configured):
    """Perform no two equal jobs at once; put the second off by `enqueue_timeout`, or drop it.

    `lock_timeout`, in seconds, is for workers that vanish unseen: while the job runs the lock is
    renewed, every five seconds, so ten are the least that is of use. `key` is another key than
    name, queue and arguments give, without a namespace, or a function of the context that returns
    it. The lock belongs to the claim: what ends that frees it, also a death of the worker, and
    nobody else does.
    """

    node_ms: ClassVar = frozenset({"enqueue_timeout"})

    def __init__(
        self,
        *,
        lock_timeout: Duration = 3600,
        enqueue_timeout: Duration = 1.001,
        re_enqueue: bool = True,
        key: Key[Performance] = None,
    ) -> None:
        super().__init__(
            lock_timeout=lock_timeout,
            enqueue_timeout=enqueue_timeout,
            re_enqueue=re_enqueue,
            key=key,
        )
        self._lock_timeout = whole_seconds("JobLock's lock_timeout", lock_timeout)
        self._enqueue_timeout = seconds("JobLock's enqueue_timeout", enqueue_timeout, least=0.001)
        self._re_enqueue = re_enqueue
        self._key = _checked("JobLock's key", key)

    def before_perform(self, context: Performance) -> bool:
        """Take the lock, or have the job back later."""
        lock = _key(self._key, context, context.keys.job_lock)
        if context.hand.take_lock(lock, self._lock_timeout):
            return True
        if self._re_enqueue:
            context.put_off(self._enqueue_timeout)
        return False


class QueueLock(Configured):
    """Let no two equal jobs wait in a queue: while one does, `enqueue` returns False.

    The lock ends when a job begins, or after `lock_timeout`. Delayed jobs neither take nor heed it,
    also when their second comes. `key` as for JobLock.
    """

    def __init__(self, *, lock_timeout: Duration = 3600, key: Key[Context] = None) -> None:
        super().__init__(lock_timeout=lock_timeout, key=key)
        self._lock_timeout = whole_seconds("QueueLock's lock_timeout", lock_timeout)
        self._key = _checked("QueueLock's key", key)

    def before_enqueue(self, context: Context) -> bool:
        """Take the lock for as long as the job is on its way, and keep it once it has arrived.

        So a producer that dies in between, or is told nothing, does not keep equal jobs out for
        an hour.
        """
        lock = _key(self._key, context, context.keys.queue_lock)
        value = b"%d.%b" % (int(context.now()) + self._lock_timeout + 1, token_hex(12).encode())
        brief = min(_UNTIL_STORED, self._lock_timeout)
        if not take_lock(context.redis, context.keys, lock, value, brief):
            return False

        def keep(stored: bool) -> None:  # noqa: FBT001 - of `when_enqueued`
            keep_lock(context.redis, context.keys, lock, value, self._lock_timeout if stored else 0)

        context.when_enqueued(keep)
        return True

    def before_perform(self, context: Performance) -> None:
        """Free the lock: another such job may wait while this one runs."""
        context.redis.command("DEL", _key(self._key, context, context.keys.queue_lock))

    def after_delete(self, context: Context) -> None:
        """Free the lock of a job that was deleted, unless an equal one waits still."""
        lock = _key(self._key, context, context.keys.queue_lock)
        queue = context.keys.queue(context.queue)
        waiting = Sought(context.queue, context.name, context.args).waiting()
        free_lock(context.redis, lock, queue, [*waiting, context.payload], brief=_UNTIL_STORED)


class DelayQueueLock(Configured):
    """Do not enqueue a job of which an equal one is delayed, by whichever client.

    Whether one is, is known by its bytes: those of node-resque and those of Ruby's
    resque-scheduler are looked for.
    """

    def __init__(self) -> None:
        super().__init__()

    def before_enqueue(self, context: Context) -> bool:
        """Look for the job among the delayed ones."""
        known = {*Sought(context.queue, context.name, context.args).delayed(), context.payload}
        marks = sorted(map(context.keys.timestamps, known))
        return not any(context.redis.command("EXISTS", mark) for mark in marks)

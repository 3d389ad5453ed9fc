"""Every key in Redis, spelled once.

Keys are bytes, because queue names and whole payloads are part of them. Text is UTF-8; a
name that another client wrote in other bytes survives as surrogate escapes. Nothing is
escaped, as in Resque. What begins with `fr:` is ours alone: no other client reads it.
"""

import re
from collections.abc import Sequence

FAILED = "failed"  # the list of all failures, and its name where there are several

_LOCKS = (b"lock:", b"workerslock:")
_SECOND = re.compile(rb"-?[0-9]{1,18}")


def to_bytes(text: str) -> bytes:
    """Return a name as it stands in Redis."""
    return text.encode("utf-8", "surrogateescape")


def to_text(raw: bytes) -> str:
    """Return a name from Redis as text; `to_bytes` gives the same bytes back."""
    return raw.decode("utf-8", "surrogateescape")


def second_of(member: bytes) -> int | None:
    """Return the second that a member of the schedule names; None for what no Resque puts there."""
    return int(member) if _SECOND.fullmatch(member) else None


def is_failed_list(name: str) -> bool:
    """Return whether a name in `failed_lists` can be that of a queue's failed list.

    What begins with `queue:` would be a queue, and its jobs no failures.
    """
    return name.endswith("_failed") and not name.startswith("queue:")


class Keys:
    """The keys of one namespace. `namespace` may be empty, or a sequence joined by colons.

    With `failed_by_queue` the failures of each queue go to a list of their own, as Ruby's
    Resque::Failure::RedisMultiQueue has them.
    """

    def __init__(
        self, namespace: str | Sequence[str] = "resque", *, failed_by_queue: bool = False
    ) -> None:
        parts = [namespace] if isinstance(namespace, str) else list(namespace)
        self.namespace = ":".join(part for part in parts if part.strip())
        self.failed_by_queue = failed_by_queue
        self._prefix = to_bytes(self.namespace) + b":" if self.namespace else b""

    @property
    def hash_tag(self) -> str:
        """Return the part of every key that says where in a Redis Cluster it lives, or nothing.

        It is what stands in the first braces, if anything does.
        """
        _, _, rest = self.namespace.partition("{")
        tag, closed, _ = rest.partition("}")
        return tag if closed else ""

    def _key(self, *parts: bytes) -> bytes:
        return self._prefix + b":".join(parts)

    def _family(self, prefix: bytes) -> bytes:
        return re.sub(rb"([*?\[\]\\])", rb"\\\1", self._key(prefix)) + b"*"

    def named(self, name: str) -> bytes:
        """Return any key of this namespace by its name without it."""
        return self._key(to_bytes(name))

    def name_of(self, key: bytes) -> str:
        """Return the name of a key without the namespace."""
        return to_text(key.removeprefix(self._prefix))

    # -- shared with every Resque ----------------------------------------------------------

    def queues(self) -> bytes:
        """Set: the names of all queues."""
        return self._key(b"queues")

    def queue(self, name: str) -> bytes:
        """List: payloads; RPUSH at the tail, LPOP at the head."""
        return self._key(b"queue", to_bytes(name))

    def failed(self, queue: str = "") -> bytes:
        """List: failure records, newest last; of all jobs, or of those from `queue`."""
        return self.failed_named(self.failed_name(queue) or FAILED)

    def failed_named(self, name: str) -> bytes:
        """List: failure records, by the name that `failed_lists` knows."""
        return self._key(to_bytes(name))

    def failed_lists(self) -> bytes:
        """Set: the names of failed lists, if each queue has its own: `<queue>_failed`."""
        return self._key(b"failed_queues")

    def failed_name(self, queue: str) -> str:
        """Return what `failed_lists` is to call the failed list of `queue`; "" for nothing.

        A job that names no queue fails into the list of all. So does one whose queue begins with
        `queue:`, for Ruby would put its failure among the jobs of another queue.
        """
        if not self.failed_by_queue:
            return ""
        name = f"{queue}_failed"
        return name if queue and is_failed_list(name) else FAILED

    def failing(self, queue: str) -> dict[str, bytes | str]:
        """Return what scripts take to record a failure of a job from `queue`."""
        return {
            "failed": self.failed(queue),
            "failed_lists": self.failed_lists(),
            "failed_name": self.failed_name(queue),
        }

    def delayed_family(self) -> bytes:
        """Return a pattern for SCAN that matches every `delayed`, and little else."""
        return self._family(b"delayed:")

    def delayed_second(self, key: bytes) -> int | None:
        """Return the second of a key that `delayed_family` matches; None for what is no bucket."""
        return second_of(key.removeprefix(self._key(b"delayed:")))

    def schedule(self) -> bytes:
        """Sorted set: every second at which something is due, member and score alike."""
        return self._key(b"delayed_queue_schedule")

    def delayed(self, second: int) -> bytes:
        """List: payloads due at one second, oldest first."""
        return self._key(b"delayed", b"%d" % second)

    def timestamps(self, payload: bytes) -> bytes:
        """Set: `delayed:<second>` for each second at which this very payload is due."""
        return self._key(b"timestamps", payload)

    def workers(self) -> bytes:
        """Set: worker ids `host:pid:queues`."""
        return self._key(b"workers")

    def worker(self, worker_id: str) -> bytes:
        """String: what the worker performs now, as JSON; absent when it is idle."""
        return self._key(b"worker", to_bytes(worker_id))

    def started(self, worker_id: str) -> bytes:
        """String: since when the worker runs, `2026-11-24 02:34:34 +0000`."""
        return self._key(b"worker", to_bytes(worker_id), b"started")

    def ping(self, name: str) -> bytes:
        """String with a TTL: node-resque's sign of life of the worker `host:pid`."""
        return self._key(b"worker", b"ping", to_bytes(name))

    def stat(self, counter: str, name: str = "") -> bytes:
        """Counter: `processed` or `failed`, in all or by one worker `host:pid`."""
        parts = [b"stat", to_bytes(counter)]
        return self._key(*parts, to_bytes(name)) if name else self._key(*parts)

    def stat_family(self) -> bytes:
        """Return a pattern for SCAN that matches every `stat`."""
        return self._family(b"stat:")

    def heartbeats(self) -> bytes:
        """Hash: Ruby's signs of life, worker id to a moment."""
        return self._key(b"workers", b"heartbeat")

    def persistent_schedules(self) -> bytes:
        """Hash: recurring schedules that resque-scheduler stores, name to JSON."""
        return self._key(b"persistent_schedules")

    def queue_lock(self, name: str, queue: str, args: bytes) -> bytes:
        """String with a TTL: an equal job waits. `args` are JSON."""
        return self._key(b"lock", to_bytes(name), to_bytes(queue), args)

    def job_lock(self, name: str, queue: str, args: bytes) -> bytes:
        """String with a TTL: an equal job is being performed."""
        return self._key(b"workerslock", to_bytes(name), to_bytes(queue), args)

    def lock_families(self) -> list[bytes]:
        """Return patterns for SCAN that match every `queue_lock` and `job_lock`."""
        return [self._family(prefix) for prefix in _LOCKS]

    def is_lock(self, key: bytes) -> bool:
        """Return whether a key is named as a lock is."""
        return key.removeprefix(self._prefix).startswith(_LOCKS)

    def retry(self, name: str, args: bytes) -> bytes:
        """Counter with a TTL: how often a job has failed, less one. `args` as in retries.py."""
        return self._key(b"resque-retry", to_bytes(name), *([args] if args else []))

    def retry_failure(self, name: str, args: bytes, *, bare: bool = False) -> bytes:
        """String with a TTL: how it failed last. Without args node leaves a colon at the end."""
        rest = [args] if args or not bare else []
        return self._key(b"failure-resque-retry", to_bytes(name), *rest)

    def pause_all(self) -> bytes:
        """String: `true` (any case) pauses every worker. Ruby Resque's key."""
        return self._key(b"pause-all-workers")

    def node_leader(self) -> bytes:
        """String with a TTL: the lock of node-resque's scheduler."""
        return self._key(b"resque_scheduler_leader_lock")

    def node_master(self) -> bytes:
        """String with a TTL: the lock of older node-resque schedulers."""
        return self._key(b"resque_scheduler_master_lock")

    def ruby_master(self) -> bytes:
        """String with a TTL: resque-scheduler's lock. It applies the namespace twice."""
        return self._key(self._key(b"resque_scheduler_master_lock"))

    # -- our own ---------------------------------------------------------------------------

    def slot(self, worker_id: str) -> bytes:
        """String: token, queue and bytes of the job in hand; the source of truth."""
        return self._key(b"fr:slot", to_bytes(worker_id))

    def last(self, worker_id: str) -> bytes:
        """String, one hour: the last token settled, or `-` and the token recovered."""
        return self._key(b"fr:last", to_bytes(worker_id))

    def owner(self, worker_id: str) -> bytes:
        """String: which process carries this worker id: `master pid start`."""
        return self._key(b"fr:owner", to_bytes(worker_id))

    def masters(self) -> bytes:
        """Set: the ids of the masters that ever took a lease and were not yet buried."""
        return self._key(b"fr:masters")

    def lease(self, master_id: str) -> bytes:
        """String with a TTL: this master's right to its workers' jobs; value describes it."""
        return self._key(b"fr:master", to_bytes(master_id))

    def kids(self, master_id: str) -> bytes:
        """Set: the worker ids of one master."""
        return self._key(b"fr:kids", to_bytes(master_id))

    def own_lease(self, worker_id: str) -> bytes:
        """String with a TTL: the right of a worker whose master is gone to its last job."""
        return self._key(b"fr:lease", to_bytes(worker_id))

    def paused_queues(self) -> bytes:
        """Set: queues that our workers leave alone until they are resumed."""
        return self._key(b"fr:paused")

    def suspects(self) -> bytes:
        """Hash: digest of a payload whose worker died, to the number of deaths and the first."""
        return self._key(b"fr:suspects")

    def locks(self, worker_id: str) -> bytes:
        """Hash with a TTL: the job locks that a worker holds, key to value."""
        return self._key(b"fr:locks", to_bytes(worker_id))

    def audit(self) -> bytes:
        """Stream, if wanted: one entry for each settle and each recovery."""
        return self._key(b"fr:audit")

    def proto(self) -> bytes:
        """String: the highest protocol number of those who keep this namespace."""
        return self._key(b"fr:proto")

    def leader(self) -> bytes:
        """String with a TTL: the one forkresque scheduler that leads."""
        return self._key(b"fr:leader")

    def epoch(self) -> bytes:
        """Counter: how often the lead has changed."""
        return self._key(b"fr:epoch")

    def cron(self, name: str) -> bytes:
        """String: the last moment for which a recurring schedule has enqueued, epoch seconds."""
        return self._key(b"fr:cron", to_bytes(name))

    def producer(self, producer_id: str) -> bytes:
        """String, ten minutes: the last request of one producer that was carried out."""
        return self._key(b"fr:enq", to_bytes(producer_id))

"""Who works, and what becomes of the jobs of those who are gone.

A worker is registered under its classic id, with a ping, and belongs to a master, whose lease
is the right to its jobs. What a worker has in hand is in its slot until it settles or somebody
recovers it.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from forkresque import processes
from forkresque.errors import BadKey, RedisRefused
from forkresque.protocol.claims import WorkerId
from forkresque.protocol.connection import Caller
from forkresque.protocol.failure import parse_failure
from forkresque.protocol.foreign import is_cleaning_of
from forkresque.protocol.keys import Keys, to_text
from forkresque.protocol.ownership import Held, Lease, Owner, master_of, name_of, slot_parts
from forkresque.protocol.payload import digest, ping, ruby_second
from forkresque.protocol.script import load

PROTOCOL = 1  # raised when older ones could not work beside us on one namespace
PING_TTL = 60  # seconds; below every sane limit for stuck workers, so nobody prunes us
REMEMBER_DEATHS = 72 * 3600
_BATCH = 100


class Verdict(NamedTuple):
    """What is to become of a recovered job.

    `suspect` is the field that counts this death, or "" when the job is not to blame; at `limit`
    deaths it goes to the failed list with `poison`. With `fail` it goes there at once.
    """

    suspect: str
    limit: int
    fail: bool
    poison: bytes
    entry: bytes


class Recovery(StrEnum):
    """What came of an attempt to recover."""

    REQUEUED = "REQUEUED"
    FAILED = "FAILED"
    POISON = "POISON"
    FOREIGN = "FOREIGN"  # a foreign tool has recorded it as failed already
    NONE = "NONE"
    ALIVE = "ALIVE"
    CHANGED = "CHANGED"


class Cleaning(StrEnum):
    """What came of an attempt to clean up after a worker of node-resque."""

    CLEANED = "CLEANED"
    ALIVE = "ALIVE"
    OURS = "OURS"
    FENCED = "FENCED"


class Sign(NamedTuple):
    """A worker's ping and record, as they stand in Redis; `record` is empty for an idle one."""

    ping: bytes
    record: bytes


class Registry:
    """The workers of one namespace. `audit` is how many entries to keep in the audit stream."""

    def __init__(self, caller: Caller, keys: Keys, *, audit: int = 0) -> None:
        self._caller = caller
        self._keys = keys
        self._audit = audit

    def register(self, worker: WorkerId, owner: Owner, lease: Lease, *, now: float) -> Held | None:
        """Make `worker` known. Return what must be recovered first, or None when it is done."""
        wid, seen = str(worker), ""  # a pid is new, nearly always: we look when it is not
        for _ in range(10):
            answer = self._caller.call(
                load("register").pack(
                    slot=self._keys.slot(wid),
                    owner=self._keys.owner(wid),
                    workers=self._keys.workers(),
                    ping=self._keys.ping(worker.name),
                    started=self._keys.started(wid),
                    kids=self._keys.kids(lease.master),
                    masters=self._keys.masters(),
                    lease=self._keys.lease(lease.master),
                    other_kids=self._keys.kids(master_of(seen) or lease.master),
                    worker=wid,
                    master=lease.master,
                    claim=str(owner),
                    seen=seen,
                    since=ruby_second(now),
                    sign=ping(worker.name, ",".join(worker.queues), int(now)),
                    ping_ttl=PING_TTL,
                    lease_value=lease.value,
                    lease_ms=int(lease.term * 1000),
                    proto=self._keys.proto(),
                    protocol=PROTOCOL,
                )
            )
            if answer[0] == b"BADKEY":
                raise BadKey(f"{to_text(answer[1])} holds another type; {wid} is not registered")
            if answer[0] == b"OK":
                return None
            if answer[0] == b"PROTO":
                raise newer_protocol(answer[1])
            if answer[0] == b"BUSY":
                return self.held(wid)
            seen = self._owner(wid)
            if self._lives_elsewhere(seen, lease):
                raise RedisRefused(
                    f"the id of worker {wid} is in use elsewhere, by {seen}",
                    hint="give one of the two a --host-label",
                )
        raise RedisRefused(f"the owner of worker {wid} keeps changing; is its id used twice?")

    def _lives_elsewhere(self, owner: str, lease: Lease) -> bool:
        """Return whether an owner's master, which cannot be seen from here, renews its lease.

        The age of its last renewal is told by what is left of it, so no clocks are compared.
        """
        master = master_of(owner)
        if not owner or master == lease.master:
            return False
        value = self.lease_value(master)
        if value is None or processes.is_ours_to_judge(value):
            return False
        left_ms = self._caller.command("PTTL", self._keys.lease(master))
        return bool(left_ms > 1000 * (lease.term - 2 * lease.renewal))

    def unregister(self, worker: str, owner: Owner) -> bool:
        """Forget a worker that leaves; return False while its slot holds a job."""
        answer = self._caller.call(
            load("unregister").pack(
                **self._worker_keys(worker, owner.master), worker=worker, claim=str(owner)
            )
        )
        return bool(answer[0] != b"BUSY")

    def held(self, worker: str) -> Held:
        """Look at a worker's slot and owner. What is seen is compared again by `recover`.

        Raises BadKey for a slot that none of us has written.
        """
        owner = self._owner(worker)
        slot = self._caller.command("GET", self._keys.slot(worker))
        locks = tuple(self._caller.command("HKEYS", self._keys.locks(worker)))
        if slot is None:
            return Held(worker, owner, "", "", b"", locks)
        token, name, raw = slot_parts(slot)
        foreign = self._is_cleaned(worker, name, raw)
        return Held(worker, owner, token, name, raw, locks, foreign)

    def recover(self, held: Held, verdict: Verdict, *, heed_lease: bool = False) -> Recovery:
        """Bring back the job that `held` shows, if it is there still. See lua/recover.lua."""
        master = master_of(held.owner)
        answer = self._caller.call(
            load("recover").pack(
                last=self._keys.last(held.worker),
                lease=self._keys.lease(master),
                own_lease=self._keys.own_lease(held.worker),
                suspects=self._keys.suspects(),
                queues=self._keys.queues(),
                queue=self._keys.queue(held.queue),
                failures=self._keys.stat("failed"),
                **self._keys.failing(held.queue),
                **self._worker_keys(held.worker, master),
                worker=held.worker,
                expected=held.token,
                claim=held.owner,
                heed_lease="1" if heed_lease else "",
                suspect=verdict.suspect,
                limit=verdict.limit,
                remember=REMEMBER_DEATHS,
                policy="fail" if verdict.fail else "requeue",
                name=held.queue,
                poison=verdict.poison,
                entry=verdict.entry,
                foreign="1" if held.foreign else "",
                locks=self._keys.locks(held.worker),
                lock=list(held.locks),
                audit=self._keys.audit(),
                keep=self._audit,
            )
        )
        if answer[0] == b"BADKEY":
            raise BadKey(f"{to_text(answer[1])} holds another type; its job stays in the slot")
        return Recovery(answer[0].decode())

    def _is_cleaned(self, worker: str, queue: str, raw: bytes) -> bool:
        """Return whether a foreign tool has removed `worker` and recorded its job as failed."""
        try:
            if self._caller.command("SISMEMBER", self._keys.workers(), worker):
                return False
            # node fails into the list of all, always.
            lists = {self._keys.failed(), self._keys.failed(queue)}
            told = [e for key in lists for e in self._caller.command("LRANGE", key, -_BATCH, -1)]
        except BadKey:
            return False  # who has no such set or list cannot have told
        names = (worker, name_of(worker))
        return any(is_cleaning_of(parse_failure(entry), names, queue, raw) for entry in told)

    def beat(self, lease: Lease, workers: Sequence[WorkerId], *, now: float) -> list[str] | None:
        """Renew a lease and its workers' pings.

        Returns the ids that a stranger had removed and that are back, or None if somebody else
        holds a lease of this name.
        """
        back: list[str] = []
        for start in range(0, max(len(workers), 1), _BATCH):
            batch = workers[start : start + _BATCH]
            answer = self._caller.call(
                load("beat").pack(
                    lease=self._keys.lease(lease.master),
                    masters=self._keys.masters(),
                    workers=self._keys.workers(),
                    kids=self._keys.kids(lease.master),
                    ping_and_started=[
                        key
                        for worker in batch
                        for key in (
                            self._keys.ping(worker.name),
                            self._keys.started(str(worker)),
                        )
                    ],
                    since=ruby_second(now),
                    master=lease.master,
                    value=lease.value,
                    lease_ms=int(lease.term * 1000),
                    ping_ttl=PING_TTL,
                    worker_and_sign=[
                        text
                        for worker in batch
                        for text in (
                            str(worker),
                            ping(worker.name, ",".join(worker.queues), int(now)),
                        )
                    ],
                )
            )
            if answer[0] == b"STOLEN":
                return None
            back += map(to_text, answer[1:])
        return back

    def renew_own_lease(self, worker: str, lease: Lease) -> None:
        """Hold on to the job of a worker whose master is gone, as long as its lease would last."""
        term_ms = int(lease.term * 1000)
        key = self._keys.own_lease(worker)
        if not self._caller.command("PEXPIRE", key, term_ms):  # works when memory is full, too
            self._caller.command("SET", key, "1", "PX", term_ms)

    # -- masters -----------------------------------------------------------------------------

    def masters(self) -> list[str]:
        """Return the ids of all masters that were not yet forgotten."""
        return sorted(map(to_text, self._caller.command("SMEMBERS", self._keys.masters())))

    def lease_value(self, master: str) -> str | None:
        """Return which process a master is, or None when its lease has run out."""
        value = self._caller.command("GET", self._keys.lease(master))
        return None if value is None else to_text(value)

    def kids(self, master: str) -> list[str]:
        """Return the ids of a master's workers."""
        return sorted(map(to_text, self._caller.command("SMEMBERS", self._keys.kids(master))))

    def forget_master(self, master: str) -> None:
        """Give up a lease whose workers are all gone."""
        self._caller.command("DEL", self._keys.lease(master))
        self._caller.command("SREM", self._keys.masters(), master)

    def workers(self) -> list[tuple[str, bytes | None]]:
        """Return each worker's id, of all languages, and its record, None when it is idle."""
        ids = sorted(map(to_text, self._caller.command("SMEMBERS", self._keys.workers())))
        if not ids:
            return []
        records = self._caller.command("MGET", *(self._keys.worker(wid) for wid in ids))
        return list(zip(ids, records, strict=True))

    # -- workers of node-resque ----------------------------------------------------------------

    def foreign_signs(self) -> dict[str, Sign]:
        """Return ping and record of each worker that pings and is none of ours: node-resque's."""
        ids = sorted(map(to_text, self._caller.command("SMEMBERS", self._keys.workers())))
        if not ids:
            return {}
        keys = [
            (self._keys.ping(name_of(wid)), self._keys.worker(wid), self._keys.owner(wid))
            for wid in ids
        ]
        found = self._caller.command("MGET", *(key for three in keys for key in three))
        threes = zip(ids, found[::3], found[1::3], found[2::3], strict=True)
        return {
            wid: Sign(ping, record or b"")
            for wid, ping, record, owner in threes
            if ping and not owner
        }

    def clean_foreign(self, worker: str, sign: Sign, entry: bytes, *, token: str) -> Cleaning:
        """Record the job of a silent worker of node-resque as failed, and remove the worker.

        Only while `token` holds the lock of node's scheduler, whose duty this is, and only if
        ping and record still are `sign`. `entry` is the failure record, empty without a job.
        """
        name = name_of(worker)
        answer = self._caller.call(
            load("clean_foreign").pack(
                lock=self._keys.node_leader(),
                ping=self._keys.ping(name),
                owner=self._keys.owner(worker),
                record=self._keys.worker(worker),
                workers=self._keys.workers(),
                started=self._keys.started(worker),
                processed_by=self._keys.stat("processed", name),
                failures_by=self._keys.stat("failed", name),
                failures=self._keys.stat("failed"),
                **self._keys.failing(parse_failure(entry).queue),
                token=token,
                worker=worker,
                sign=sign.ping,
                seen=sign.record,
                entry=entry,
            )
        )
        if answer[0] == b"BADKEY":
            raise BadKey(f"{to_text(answer[1])} holds another type; {worker} is not cleaned")
        return Cleaning(answer[0].decode())

    def _owner(self, worker: str) -> str:
        return to_text(self._caller.command("GET", self._keys.owner(worker)) or b"")

    def _worker_keys(self, worker: str, master: str) -> dict[str, bytes]:
        name = name_of(worker)
        return {
            "slot": self._keys.slot(worker),
            "owner": self._keys.owner(worker),
            "workers": self._keys.workers(),
            "record": self._keys.worker(worker),
            "ping": self._keys.ping(name),
            "started": self._keys.started(worker),
            "processed_by": self._keys.stat("processed", name),
            "failures_by": self._keys.stat("failed", name),
            "kids": self._keys.kids(master),
        }


def newer_protocol(number: bytes) -> RedisRefused:
    """Return the error of a namespace that a newer forkresque keeps."""
    return RedisRefused(
        f"this namespace is kept by a newer forkresque (protocol {to_text(number)}, ours is "
        f"{PROTOCOL})",
        hint="upgrade this one, or give it a namespace of its own",
    )


def suspect_field(raw: bytes, *, host: bool = False) -> str:
    """Return where deaths with this payload are counted; those of whole hosts count apart."""
    return f"{digest(raw)}:host" if host else digest(raw)

"""Who works, and what becomes of the jobs of those who are gone.

A worker is registered under its classic id, with a ping, and belongs to a master, whose lease
is the right to its jobs. What a worker has in hand is in its slot until it settles or somebody
recovers it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from forkresque.errors import BadKey, RedisRefused
from forkresque.protocol.claims import WorkerId
from forkresque.protocol.connection import Caller
from forkresque.protocol.keys import Keys, to_text
from forkresque.protocol.payload import digest, ping, ruby_second
from forkresque.protocol.script import load

LEASE = 30.0  # seconds a master's right to its workers' jobs lasts without being renewed
PING_TTL = 60  # seconds; below every sane limit for stuck workers, so nobody prunes us
REMEMBER_DEATHS = 72 * 3600
_BATCH = 100


@dataclass(frozen=True, slots=True)
class Lease:
    """A master's id, and the value that says which process it is."""

    master: str
    value: str


@dataclass(frozen=True, slots=True)
class Owner:
    """Which process carries a worker id: its master, its pid and the start of the process."""

    master: str
    pid: int
    start: int

    def __str__(self) -> str:
        return f"{self.master} {self.pid} {self.start}"

    @classmethod
    def parse(cls, text: str) -> "Owner":
        """Return the owner that `str` gave. Raises ValueError for any other text."""
        master, pid, start = text.rsplit(" ", 2)
        return cls(master, int(pid), int(start))


@dataclass(frozen=True, slots=True)
class Held:
    """What a worker's slot and owner key held when somebody looked; `token` is "" for no job."""

    worker: str
    owner: str
    token: str
    queue: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
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
    NONE = "NONE"
    ALIVE = "ALIVE"
    CHANGED = "CHANGED"


class Registry:
    """The workers of one namespace."""

    def __init__(self, caller: Caller, keys: Keys) -> None:
        self._caller = caller
        self._keys = keys

    def register(self, worker: WorkerId, owner: Owner, lease: Lease, *, now: float) -> Held | None:
        """Make `worker` known. Return what must be recovered first, or None when it is done."""
        wid = str(worker)
        for _ in range(10):
            seen = self._owner(wid)
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
                    other_kids=self._keys.kids(_master_of(seen) or lease.master),
                    worker=wid,
                    master=lease.master,
                    claim=str(owner),
                    seen=seen,
                    since=ruby_second(now),
                    sign=ping(worker.name, ",".join(worker.queues), int(now)),
                    ping_ttl=PING_TTL,
                    lease_value=lease.value,
                    lease_ms=int(LEASE * 1000),
                )
            )
            if answer[0] == b"OK":
                return None
            if answer[0] == b"BUSY":
                return self.held(wid)
        raise RedisRefused(f"the owner of worker {wid} keeps changing; is its id used twice?")

    def unregister(self, worker: str, owner: Owner) -> bool:
        """Forget a worker that leaves; return False while its slot holds a job."""
        answer = self._caller.call(
            load("unregister").pack(
                **self._worker_keys(worker, owner.master), worker=worker, claim=str(owner)
            )
        )
        return bool(answer[0] != b"BUSY")

    def held(self, worker: str) -> Held:
        """Look at a worker's slot and owner. What is seen is compared again by `recover`."""
        owner = self._owner(worker)
        slot = self._caller.command("GET", self._keys.slot(worker))
        if slot is None:
            return Held(worker, owner, "", "", b"")
        token, size, rest = slot.split(b"\n", 2)
        name, raw = rest[: int(size)], rest[int(size) :]
        return Held(worker, owner, token.decode(), to_text(name), raw)

    def recover(self, held: Held, verdict: Verdict, *, heed_lease: bool = False) -> Recovery:
        """Bring back the job that `held` shows, if it is there still. See lua/recover.lua."""
        master = _master_of(held.owner)
        answer = self._caller.call(
            load("recover").pack(
                last=self._keys.last(held.worker),
                lease=self._keys.lease(master),
                own_lease=self._keys.own_lease(held.worker),
                suspects=self._keys.suspects(),
                queues=self._keys.queues(),
                queue=self._keys.queue(held.queue),
                failures=self._keys.stat("failed"),
                failed=self._keys.failed(),
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
            )
        )
        if answer[0] == b"BADKEY":
            raise BadKey(f"{to_text(answer[1])} holds another type; its job stays in the slot")
        return Recovery(answer[0].decode())

    def beat(
        self, lease: Lease, workers: Sequence[WorkerId], *, now: float, term: float = LEASE
    ) -> list[str] | None:
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
                    lease_ms=int(term * 1000),
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

    def renew_own_lease(self, worker: str, *, term: float = LEASE) -> None:
        """Hold on to the job of a worker whose master is gone."""
        self._caller.command("SET", self._keys.own_lease(worker), "1", "PX", int(term * 1000))

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


def name_of(worker: str) -> str:
    """Return the `host:pid` of a worker id."""
    return ":".join(worker.split(":", 2)[:2])


def suspect_field(raw: bytes, *, host: bool = False) -> str:
    """Return where deaths with this payload are counted; those of whole hosts count apart."""
    return f"{digest(raw)}:host" if host else digest(raw)


def _master_of(owner: str) -> str:
    return owner.rsplit(" ", 2)[0]

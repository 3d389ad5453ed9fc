"""The removal of workers by those who hold them for dead: node-resque's forceCleanWorker.

A worker of node or Ruby has no slot, so its job is recorded as failed, in node's words, by which
its retryStuckJobs knows it. One of ours is recovered, and never removed while it lives.
"""

import logging
from collections.abc import Callable, Iterator

from forkresque import processes
from forkresque.errors import BadKey, InvalidArgs, RedisRefused
from forkresque.protocol.connection import Client, RedisClock
from forkresque.protocol.failure import parse_failure
from forkresque.protocol.foreign import cleaning_entry, ping_second, run_second
from forkresque.protocol.keys import Keys, to_text
from forkresque.protocol.ownership import Held, carrier_lives, master_of, name_of
from forkresque.protocol.registry import Recovery, Registry, Verdict
from forkresque.protocol.script import load

log = logging.getLogger("forkresque.queue")

_TRIES = 10

# Says what becomes of the job of a lost worker of ours, at some epoch second.
Judge = Callable[[Held, float], Verdict]


class Cleaner:
    """Removes workers of one namespace; `host` is who is said to have done it."""

    def __init__(self, client: Client, keys: Keys, judge: Judge, *, host: str) -> None:
        self._client = client
        self._keys = keys
        self._judge = judge
        self._host = host
        self._registry = Registry(client, keys)
        self._clock = RedisClock(client)

    def clean(self, name: str) -> bytes | None:
        """Remove the worker `host:pid`; return the failure record of its job, if that failed.

        An unknown worker changes nothing. Raises InvalidArgs for one of ours that lives.
        """
        entry = b""
        for worker, record in self._registry.workers():
            if name in (worker, name_of(worker)):
                entry = self._force(worker, record) or entry
        return entry or None

    def clean_old(self, age: float) -> dict[str, bytes]:
        """Remove who has had its job for over `age` seconds; return the failure records by name.

        Told by Redis' clock. Workers of node go as well when they have not pinged for so long, idle
        or not. Ours that live are passed over, and so is an unreadable beginning.
        """
        before, entries = self._clock.look() - age, {}
        for worker, record, sign in self._older(before):
            try:
                entry = self._once(worker, record, sign)
            except (InvalidArgs, BadKey) as reason:  # one of ours lives, or it cannot be done
                log.warning("worker=%s is not cleaned: %s", worker, reason)
                continue
            if entry:  # who has begun another job meanwhile has not had it for long
                entries[name_of(worker)] = entry
        return entries

    def _older(self, moment: float) -> Iterator[tuple[str, bytes | None, bytes]]:
        """Yield who has begun its job, or has last pinged, before `moment`.

        With its record, and with its ping if that was the reason.
        """
        pings = self._registry.foreign_signs()
        for worker, record in self._registry.workers():
            began = run_second(record) if record else None
            pinged = ping_second(pings[worker].ping) if worker in pings else None
            if began is not None and began < moment:
                yield worker, record, b""
            elif pinged is not None and pinged < moment:
                yield worker, record, pings[worker].ping

    def _force(self, worker: str, record: bytes | None) -> bytes:
        for _ in range(_TRIES):
            entry = self._once(worker, record)
            if entry is not None:
                return entry
            record = self._client.command("GET", self._keys.worker(worker))
        raise RedisRefused(
            f"worker {worker} begins one job after the other and is not cleaned",
            hint="it lives; stop its process first",
        )

    def _once(self, worker: str, record: bytes | None, sign: bytes = b"") -> bytes | None:
        """Remove a worker that performs `record`; return the failure record, or nothing.

        None when it does something else by now, or has pinged since `sign`; it is left alone then.
        """
        held = self._registry.held(worker)
        if held.owner:
            return self._recover(held)
        entry = b""
        if record:
            now, name = self._clock.look(), name_of(worker)
            entry = cleaning_entry(record, name, host=self._host, failed_at=now)
        return entry if self.remove(worker, record or b"", entry, sign=sign) else None

    def _recover(self, held: Held) -> bytes | None:
        """Bring back the job of a lost worker of ours, of which the slot tells, not the record."""
        lease = self._registry.lease_value(master_of(held.owner))
        lost = lease is None or _is_dead_here(lease)
        if not lost or carrier_lives(held.owner):
            raise _living(held.worker)
        verdict = self._judge(held, self._clock.look())
        result = self._registry.recover(held, verdict, heed_lease=lease is None)
        if result is Recovery.ALIVE:
            raise _living(held.worker)
        if result is Recovery.CHANGED:
            return None
        return verdict.entry if result in (Recovery.FAILED, Recovery.POISON) else b""

    def remove(self, worker: str, seen: bytes, entry: bytes, *, sign: bytes = b"") -> bool:
        """Remove a worker that is none of ours, if its record is still `seen`, and its ping `sign`.

        `entry` is the failure record of its job, empty without one. See lua/force_clean.lua.
        """
        name, keys = name_of(worker), self._keys
        answer = self._client.call(
            load("force_clean").pack(
                record=keys.worker(worker),
                owner=keys.owner(worker),
                workers=keys.workers(),
                started=keys.started(worker),
                ping=keys.ping(name),
                heartbeats=keys.heartbeats(),
                processed_by=keys.stat("processed", name),
                failures_by=keys.stat("failed", name),
                processed_by_id=keys.stat("processed", worker),
                failures_by_id=keys.stat("failed", worker),
                failures=keys.stat("failed"),
                **keys.failing(parse_failure(entry).queue),
                worker=worker,
                seen=seen,
                sign=sign,
                entry=entry,
            )
        )
        if answer[0] == b"BADKEY":
            raise BadKey(f"{to_text(answer[1])} holds another type; {worker} is not cleaned")
        return bool(answer[0] == b"CLEANED")


def _is_dead_here(lease: str) -> bool:
    """Return whether a lease is that of a process which would be seen from here, and is not."""
    return processes.is_ours_to_judge(lease) and not processes.is_described_alive(lease)


def _living(worker: str) -> InvalidArgs:
    return InvalidArgs(
        f"worker {worker} is one of forkresque, and its master holds on to it: it is not cleaned",
        hint="stop it on its host: forkresque workers kill PID",
    )

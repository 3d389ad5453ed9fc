"""Jobs that wait for their second, and who may move them when it has come."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import count

from forkresque.errors import BadKey, InvalidPayload
from forkresque.protocol.connection import Link, RedisClock
from forkresque.protocol.failure import failure_entry
from forkresque.protocol.keys import Keys, second_of, to_text
from forkresque.protocol.payload import parse
from forkresque.protocol.script import load

BATCH = 100  # the most that one script moves
PAGE = 1000  # keys that one step of a search looks at
FOREIGN_TERM = 180  # seconds; what Ruby and node give their own scheduler locks


class Lead(StrEnum):
    """What a scheduler may do now."""

    FOLLOW = "FOLLOW"  # another forkresque scheduler leads
    BLOCKED = "BLOCKED"  # we lead, but a scheduler of another language holds its lock
    PROMOTE = "PROMOTE"


@dataclass(frozen=True, slots=True)
class Leadership:
    """What a scheduler may do now, and who is in the way of more."""

    state: Lead
    holder: str = ""


@dataclass(frozen=True, slots=True)
class Due:
    """A job whose second has come.

    `entry` is the failure record of one that can be put on no queue, and `refusal` says why.
    """

    payload: bytes
    queue: str
    entry: bytes = b""
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Promotion:
    """What a batch brought: the jobs that moved, and how many are left at that second."""

    jobs: tuple[Due, ...]
    left: int
    fenced: bool = False

    @property
    def moved(self) -> int:
        """Return how many jobs moved."""
        return len(self.jobs)


class Tick(StrEnum):
    """What came of enqueueing for one moment of a recurring schedule."""

    OK = "OK"
    SEEN = "SEEN"  # this moment or a later one was carried out before
    FENCED = "FENCED"  # another scheduler leads


class Delayed:
    """The delayed jobs of one namespace."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self.clock = RedisClock(link)
        self.looked_at = 0.0  # Redis' time when it was last asked what is due

    @property
    def told(self) -> bool:
        """Return whether Redis tells when the schedule changes."""
        return self._link.tracking

    def lead(self, token: str, *, term: float) -> Leadership:
        """Take or renew the lead for `term` seconds. See lua/lead.lua."""
        answer = self._link.call(
            load("lead").pack(
                leader=self._keys.leader(),
                epoch=self._keys.epoch(),
                foreign=self._foreign_locks(),
                token=token,
                term_ms=int(term * 1000),
                foreign_term=FOREIGN_TERM,
            )
        )
        if answer[0] == b"FOLLOW":
            return Leadership(Lead.FOLLOW, to_text(answer[1]))
        state = Lead.PROMOTE if answer[1] == b"1" else Lead.BLOCKED
        return Leadership(state, to_text(answer[2]))

    def locks(self) -> list[bytes]:
        """Return the keys of all locks that a leader needs."""
        return [self._keys.leader(), *self._foreign_locks()]

    def holders(self) -> list[str]:
        """Return the token that each of `locks` holds, "" for one that is free.

        With a tracking link, Redis tells when one of them changes.
        """
        found = self._link.command("MGET", *self.locks(), armed=True)
        return [to_text(token or b"") for token in found]

    def resign(self, token: str) -> int:
        """Give up every lock that is ours; return how many there were."""
        return int(self._link.call(load("resign").pack(lock=self.locks(), token=token)))

    def leader(self) -> str:
        """Return the token of the scheduler that leads, or ""."""
        return to_text(self._link.command("GET", self._keys.leader()) or b"")

    def due(self) -> Iterator[int]:
        """Yield the seconds that have come, oldest first.

        A member that is not a number was not put there by a Resque; it is passed over.
        """
        now, microseconds = self._link.command("TIME")
        self.looked_at = int(now) + int(microseconds) / 1e6
        for offset in count(0, BATCH):
            page = self._link.command(
                "ZRANGEBYSCORE", self._keys.schedule(), "-inf", now, "LIMIT", offset, BATCH
            )
            yield from (second for member in page if (second := second_of(member)) is not None)
            if len(page) < BATCH:
                return

    def next_second(self) -> float | None:
        """Return the first second at which something is due, or None.

        With a tracking link, Redis tells when the schedule changes.
        """
        found = self._link.command("ZRANGE", self._keys.schedule(), 0, 0, "WITHSCORES", armed=True)
        if not found:
            return None
        first = found[0]
        return float(first[1] if isinstance(first, list) else found[1])

    def batch(self, second: int) -> list[Due]:
        """Read the first jobs due at `second`. Anything that is not a job is due to fail."""
        found = self._link.command("LRANGE", self._keys.delayed(second), 0, BATCH - 1)
        return [self._judged(raw) for raw in found]

    def promote(self, second: int, jobs: Sequence[Due], *, token: str) -> Promotion:
        """Move `jobs`, the first of their second, while `token` leads. See lua/promote.lua."""
        targets = [self._target(job) for job in jobs]
        answer = self._link.call(
            load("promote").pack(
                node_leader=self._keys.node_leader(),
                node_master=self._keys.node_master(),
                ruby_master=self._keys.ruby_master(),
                schedule=self._keys.schedule(),
                bucket=self._keys.delayed(second),
                queues=self._keys.queues(),
                failures=self._keys.stat("failed"),
                failed_lists=self._keys.failed_lists(),
                target_and_timestamps=[
                    key
                    for (target, _), job in zip(targets, jobs, strict=True)
                    for key in (target, self._keys.timestamps(job.payload))
                ],
                token=token,
                second=second,
                payload_and_name_and_entry=[
                    text
                    for (_, name), job in zip(targets, jobs, strict=True)
                    for text in (job.payload, name, job.entry)
                ],
            )
        )
        if answer[0] == b"BADKEY":
            raise BadKey(f"{to_text(answer[1])} holds another type; its jobs are not promoted")
        if answer[0] in (b"FENCED", b"EARLY"):
            return Promotion((), len(jobs), fenced=answer[0] == b"FENCED")
        if answer[0] == b"BADQUEUE":
            # Nothing can be put there, and what is due behind that job must not wait for it.
            rest = list(jobs[answer[1] :])
            reason = f"{to_text(answer[2])} holds another type than a queue"
            rest[0] = self._refused(rest[0].payload, "BadKey", reason, queue=rest[0].queue)
            after = self.promote(second, rest, token=token)
            return replace(after, jobs=(*jobs[: answer[1]], *after.jobs))
        return Promotion(tuple(jobs[: answer[1]]), answer[2])

    def tick(self, name: str, moment: int, queue: str, payload: bytes, *, token: str) -> Tick:
        """Enqueue `payload` for one moment of a recurring schedule, once. See lua/tick.lua."""
        answer = self._link.call(
            load("tick").pack(
                leader=self._keys.leader(),
                cron=self._keys.cron(name),
                queues=self._keys.queues(),
                queue=self._keys.queue(queue),
                token=token,
                moment=moment,
                name=queue,
                payload=payload,
            )
        )
        if answer[0] == b"BADKEY":
            raise BadKey(f"{to_text(answer[1])} holds another type; {name} cannot be enqueued")
        return Tick(answer[0].decode())

    def strays(self, cursor: int) -> tuple[int, list[int]]:
        """Look at one page of all keys; return the next cursor, 0 at the end, and stray seconds.

        A second is stray when it has jobs and is not in the schedule, so that nobody would look.
        """
        pattern = self._keys.delayed_family()
        after, found = self._link.command("SCAN", cursor, "MATCH", pattern, "COUNT", PAGE)
        seconds = [at for key in found if (at := self._keys.delayed_second(key)) is not None]
        if not seconds:
            return int(after), []
        scores = self._link.command("ZMSCORE", self._keys.schedule(), *seconds)
        return int(after), [at for at, score in zip(seconds, scores, strict=True) if score is None]

    def adopt(self, second: int) -> bool:
        """Put a stray second into the schedule; return False if it was no stray any more."""
        return bool(
            self._link.call(
                load("adopt_bucket").pack(
                    schedule=self._keys.schedule(),
                    bucket=self._keys.delayed(second),
                    second=second,
                )
            )
        )

    def _target(self, job: Due) -> tuple[bytes, str]:
        """Return the key and the name of where a job goes."""
        if not job.entry:
            return self._keys.queue(job.queue), job.queue
        return self._keys.failed(job.queue), self._keys.failed_name(job.queue)

    def _foreign_locks(self) -> list[bytes]:
        return [self._keys.node_leader(), self._keys.node_master(), self._keys.ruby_master()]

    def _judged(self, raw: bytes) -> Due:
        try:
            queue = parse(raw).queue
            reason = "" if queue else "a delayed job that names no queue"
        except InvalidPayload as error:
            queue, reason = None, str(error)
        return Due(raw, queue) if queue else self._refused(raw, "InvalidPayload", reason)

    def _refused(self, raw: bytes, exception: str, reason: str, *, queue: str = "") -> Due:
        entry = failure_entry(
            raw=raw,
            exception=exception,
            error=reason,
            backtrace=[],
            worker="",
            queue=queue,
            failed_at=self.clock.now(),
        )
        return Due(raw, queue, entry, reason)

"""Jobs that wait for their second, and who may move them when it has come."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from typing import NamedTuple

from forkresque.errors import BadKey, InvalidPayload
from forkresque.protocol.connection import Link, RedisClock
from forkresque.protocol.failure import failure_entry
from forkresque.protocol.keys import Keys, second_of, to_text
from forkresque.protocol.payload import parse
from forkresque.protocol.script import Call, Scalar, load

BATCH = 100  # jobs; the most that one script moves
_BATCH_BYTES = 1_000_000  # about the most that one batch reads: Redis must not copy for long
PAGE = 1000  # keys that one step of a search looks at
FOREIGN_TERM = 180  # seconds; what Ruby and node give their own scheduler locks


class Lead(StrEnum):
    """What a scheduler may do now."""

    FOLLOW = "FOLLOW"  # another forkresque scheduler leads
    BLOCKED = "BLOCKED"  # we lead, but a scheduler of another language holds its lock
    PROMOTE = "PROMOTE"


class Leadership(NamedTuple):
    """What a scheduler may do now, and who is in the way of more."""

    state: Lead
    holder: str = ""


class Due(NamedTuple):
    """A job whose second has come.

    `entry` is the failure record of one that can be put on no queue, and `refusal` says why.
    """

    payload: bytes
    queue: str
    entry: bytes = b""
    refusal: str = ""


class Bucket(NamedTuple):
    """The first jobs of one second."""

    second: int
    jobs: tuple[Due, ...]


@dataclass(slots=True)
class Promotion:
    """What a batch brought: the jobs that moved, by their second, and what was in the way.

    `left` is how many more are due at the last second that was looked at, and `troubles` why
    those at some seconds cannot move. With `fenced`, another scheduler leads.
    """

    buckets: list[Bucket] = field(default_factory=list)
    left: int = 0
    fenced: bool = False
    troubles: dict[int, BadKey] = field(default_factory=dict)

    @property
    def moved(self) -> int:
        """Return how many jobs moved."""
        return sum(len(bucket.jobs) for bucket in self.buckets)

    def add(self, second: int, jobs: Sequence[Due]) -> None:
        """Take note of jobs that moved."""
        if jobs:
            self.buckets.append(Bucket(second, tuple(jobs)))


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

    def due(self) -> Iterator[list[int]]:
        """Yield the seconds that have come, oldest first, in pages.

        A member that is not a number was not put there by a Resque; it is passed over.
        """
        now, microseconds = self._link.command("TIME")
        self.looked_at = int(now) + int(microseconds) / 1e6
        for offset in count(0, BATCH):
            page = self._link.command(
                "ZRANGEBYSCORE", self._keys.schedule(), "-inf", now, "LIMIT", offset, BATCH
            )
            yield _seconds(page)
            if len(page) < BATCH:
                return

    def newest(self, within: int) -> list[int]:
        """Return the last seconds that have come, newest first, of the last `within` seconds.

        Seen from the last look at what is `due`.
        """
        now = int(self.looked_at)
        limits = (now, f"({now - within}", "BYSCORE", "REV", "LIMIT", 0, BATCH)
        return _seconds(self._link.command("ZRANGE", self._keys.schedule(), *limits))

    def next_second(self) -> float | None:
        """Return the first second at which something is due, or None.

        With a tracking link, Redis tells when the schedule changes.
        """
        found = self._link.command("ZRANGE", self._keys.schedule(), 0, 0, "WITHSCORES", armed=True)
        if not found:
            return None
        first = found[0]
        return float(first[1] if isinstance(first, list) else found[1])

    def batch(self, seconds: Sequence[int]) -> tuple[list[Bucket], dict[int, BadKey]]:
        """Read what is due first at these seconds, of as many of them as make one batch.

        Anything that is not a job is due to fail. Also returns the troubles with seconds at which
        nothing can be read. See lua/read_due.lua.
        """
        keys = [self._keys.delayed(second) for second in seconds]
        call = load("read_due").pack(bucket=keys, jobs=BATCH, bytes=_BATCH_BYTES)
        buckets, troubles = [], {}
        for second, key, found in zip(seconds, keys, self._link.call(call), strict=False):
            if isinstance(found, list):
                buckets.append(Bucket(second, tuple(map(self._judged, found))))
            else:
                troubles[second] = _trouble(key)
        return buckets, troubles

    def promote(self, batch: Sequence[Bucket], *, token: str) -> Promotion:
        """Move jobs, the first of their seconds, while `token` leads. See lua/promote.lua."""
        promotion, rest = Promotion(), list(batch)
        while rest:
            answer = self._link.call(self._moving(rest, token))
            if answer[0] == b"FENCED":
                promotion.fenced = True
                return promotion
            numbers, stopped = answer[2:], answer[0] != b"OK"
            *done, (last, moved) = zip(rest, numbers[::2], strict=False)
            for bucket, number in [*done, (last, moved)]:
                promotion.add(bucket.second, bucket.jobs[:number])
            promotion.left = len(last.jobs) - moved if stopped else numbers[-1]
            if not stopped or answer[0] == b"EARLY":
                return promotion
            rest = rest[len(done) :]
            rest[:1] = self._without(answer, last, moved, promotion)
        return promotion

    def _without(
        self, answer: Sequence[bytes], bucket: Bucket, moved: int, promotion: Promotion
    ) -> Iterable[Bucket]:
        """Return what of a second can still be promoted, when something was in the way."""
        if answer[0] == b"BADKEY":
            promotion.troubles[bucket.second] = _trouble(answer[1])
            return ()
        # Nothing can be put there, and what is due behind that job must not wait for it.
        job, *others = bucket.jobs[moved:]
        reason = f"{to_text(answer[1])} holds another type than a queue"
        refused = self._refused(job.payload, "BadKey", reason, queue=job.queue)
        return (bucket._replace(jobs=(refused, *others)),)

    def _moving(self, batch: Sequence[Bucket], token: str) -> Call:
        places: list[Scalar] = []
        words: list[Scalar] = []
        for bucket in batch:
            places.append(self._keys.delayed(bucket.second))
            words += (bucket.second, len(bucket.jobs))
            for job in bucket.jobs:
                target, name = self._target(job)
                places += (target, self._keys.timestamps(job.payload))
                words += (job.payload, name, job.entry)
        return load("promote").pack(
            node_leader=self._keys.node_leader(),
            node_master=self._keys.node_master(),
            ruby_master=self._keys.ruby_master(),
            schedule=self._keys.schedule(),
            queues=self._keys.queues(),
            failures=self._keys.stat("failed"),
            failed_lists=self._keys.failed_lists(),
            bucket_and_targets=places,
            token=token,
            second_and_count_and_jobs=words,
        )

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


def _seconds(members: Iterable[bytes]) -> list[int]:
    return [second for member in members if (second := second_of(member)) is not None]


def _trouble(key: bytes) -> BadKey:
    return BadKey(f"{to_text(key)} holds another type; its jobs are not promoted")

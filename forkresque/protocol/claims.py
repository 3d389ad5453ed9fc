"""What one worker says to Redis about its jobs: claim and settle, packed beforehand.

A worker's next job comes with the answer to the last one, so a job costs one round trip, and
packing forty words for it would cost as much as the trip itself. Only what changes from job to
job is filled in.
"""

import secrets
from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import cached_property
from itertools import count
from typing import Any, Final, NamedTuple

from forkresque.errors import BadKey, JobLost
from forkresque.protocol.canonical import encode
from forkresque.protocol.connection import Link
from forkresque.protocol.keys import Keys, to_bytes, to_text
from forkresque.protocol.payload import record_head
from forkresque.protocol.script import VARYING, Prepared, Value, Varying, load

_DETOUR: Final = 64  # settles in full after one that had to be: what was unusual may last


class WorkerId(NamedTuple):
    """A worker as all Resques know it. `queues` are the patterns it was started with."""

    host: str
    pid: int
    queues: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return `host:pid`."""
        return f"{self.host}:{self.pid}"

    def __str__(self) -> str:
        return f"{self.name}:{','.join(self.queues)}"


class Claimed(NamedTuple):  # which is made in half the time, as all that is made for each job
    """A job in hand. `suspect` says that some worker died with some payload lately."""

    token: bytes
    queue: str
    raw: bytes
    suspect: bool

    @property
    def number(self) -> int:
        """Return the number at the end of the token, which is the claim's of its worker."""
        digits = self.token[self.token.rfind(b".") + 1 :]
        return int(digits) if digits.isdigit() else 0


class Nothing(StrEnum):
    """Why a claim brought no job."""

    EMPTY = "EMPTY"  # no queue has one
    PAUSED = "PAUSED"  # Ruby Resque's `pause-all-workers`
    ORPHAN = "ORPHAN"  # the master's lease has run out
    UNREGISTERED = "UNREG"  # a stranger removed this worker's records
    BUSY = "BUSY"  # the slot holds a job that this process does not know
    UNASKED = "NONE"  # the settle was not asked to claim


class Outcome(StrEnum):
    """How a job ended."""

    DONE = "DONE"
    FAIL = "FAIL"  # to the failed list
    RETRY = "RETRY"  # to the delayed jobs or the tail of its queue, counted as a failure
    REQUEUE = "REQUEUE"  # likewise, not counted
    RELEASE = "RELEASE"  # to the head of its queue, not counted
    DROP = "DROP"  # nowhere, not counted


_MOVING: Final = (Outcome.RETRY, Outcome.REQUEUE, Outcome.RELEASE)  # to a queue, or a bucket


class Settled(NamedTuple):
    """The answer to a settle. `lost`: someone else has recovered the job; nothing changed."""

    lost: bool
    next: Claimed | Nothing


class Tokens:
    """Names for claims that no two claims share, whatever is forked, restarted or resent."""

    def __init__(self, master_nonce: str) -> None:
        self._head = f"{master_nonce}.{secrets.token_hex(8)}."
        self._counter: Iterator[int] = count(1)

    def fresh(self) -> bytes:
        """Return a new token. It holds neither spaces nor line ends."""
        return f"{self._head}{next(self._counter)}".encode()


class Claims:
    """The slot of one worker, over its own connection."""

    def __init__(
        self, link: Link, keys: Keys, worker: WorkerId, *, master: str, audit: int = 0
    ) -> None:
        self._link = link
        self._keys = keys
        self._worker = worker
        self._locks: dict[bytes, bytes] = {}  # of the job in hand: key to value
        self.skipped = b""  # a key that the last answer had to do without, for its type
        self.left = 0  # jobs in the queue from which the last claim took one
        self._detour = 0
        self._slot_keys: dict[str, Value | Varying] = {
            "slot": keys.slot(str(worker)),
            "record": keys.worker(str(worker)),
            "workers": keys.workers(),
            "lease": keys.lease(master),
            "pause": keys.pause_all(),
            "paused": keys.paused_queues(),
            "suspects": keys.suspects(),
            "queues": keys.queues(),
        }
        self._settle_keys: dict[str, Value | Varying] = {
            "last": keys.last(str(worker)),
            "processed": keys.stat("processed"),
            "processed_by": keys.stat("processed", worker.name),
            "failures": keys.stat("failed"),
            "failures_by": keys.stat("failed", worker.name),
            **keys.failing(""),
            "schedule": keys.schedule(),
            "audit": keys.audit(),
            "keep": audit,
        }
        self.poll(())

    def poll(self, queues: Sequence[str]) -> None:
        """Take jobs from these queues from now on, the first before the second."""
        self.queues = tuple(queues)
        self._lists: dict[str, Value | Varying] = {
            "worker": str(self._worker),
            "list": [self._keys.queue(name) for name in queues],
            "name_and_label": [text for name in queues for text in (to_bytes(name), encode(name))],
        }
        for name in ("_claim", "_done", "_settle"):
            self.__dict__.pop(name, None)  # of other queues

    @cached_property
    def _claim(self) -> Prepared:
        return load("claim").prepare(
            token=VARYING, order=VARYING, head=VARYING, **self._slot_keys, **self._lists
        )

    @cached_property
    def _done(self) -> Prepared:
        given = {**self._slot_keys, **self._settle_keys, **self._lists}
        usual = {name: given[name] for name in load("done").names if name in given}
        return load("done").prepare(token=VARYING, next=VARYING, head=VARYING, **usual)

    @cached_property
    def _settle(self) -> Prepared:
        """Settle a job that moves nowhere: DONE, FAIL and DROP."""
        # Any key of ours will do for its target, so that a cluster finds all keys in one place.
        slot = self._keys.slot(str(self._worker))
        return self._prepare_settle(target=slot, timestamps=slot, second=0)

    def _prepare_settle(self, *, forget: Sequence[bytes] = (), **place: Value) -> Prepared:
        lists: Any = self._lists["list"]
        held = [self._keys.locks(str(self._worker)), *self._locks, *forget]
        if len(held) == 1:
            held = []
        return load("settle").prepare(
            token=VARYING,
            outcome=VARYING,
            entry=VARYING,
            digest=VARYING,
            next=VARYING,
            order=VARYING,
            head=VARYING,
            forget=len(forget),
            **self._slot_keys,
            **(self._settle_keys | place),
            **(self._lists | {"list": [*lists, *held]}),
        )

    def claim(
        self, token: bytes, *, now: float, armed: bool = False, places: Sequence[int] = ()
    ) -> Claimed | Nothing:
        """Claim the next job; with `armed`, have Redis tell when an EMPTY is no longer true.

        `places` are all the queues' places from 0, in the order to look at them, if that is not
        the order of `poll`. Sending it again with the same token brings the same job.
        """
        head = record_head(self._worker.name, int(now))
        call = self._claim.fill(token, _spelt(places), head)
        *answer, self.skipped, self.left = self._link.call(call, armed=armed)
        return _claimed(token, *answer)

    def settle(
        self,
        job: Claimed,
        outcome: Outcome,
        *,
        now: float,
        next_token: bytes = b"",
        places: Sequence[int] = (),
        entry: bytes = b"",
        digest: str = "",
        due: int = 0,
        until: int = 0,
        moved: bytes = b"",
        forget: Sequence[bytes] = (),
    ) -> Settled:
        """Write how `job` ended, and claim the next one if there is a `next_token` for it.

        `places` are as for `claim`.
        `entry` is the failure record of FAIL, `due` the second of RETRY and `until` that of
        REQUEUE; 0 for the tail of its queue at once. A job that RETRY or REQUEUE cannot move as
        it came goes as the bytes `moved`. The keys to `forget` are deleted with the job's end.
        Sending it again changes nothing more. Raises BadKey, with nothing changed, if the job
        cannot go there.
        """
        plain = not (self._locks or places or digest or forget)
        if plain and next_token and outcome is Outcome.DONE:
            following = self._finish(job, next_token, now)
            if following is not None:
                return Settled(lost=False, next=following)
        second = due if outcome is Outcome.RETRY else until
        prepared = self._prepared_for(job.queue, outcome, moved or job.raw, second, forget)
        answer = self._link.call(
            prepared.fill(
                job.token,
                outcome.encode(),
                moved if outcome in _MOVING else entry,
                digest.encode(),
                next_token,
                _spelt(places),
                record_head(self._worker.name, int(now)),
            )
        )
        if answer[0] == b"BADKEY":
            raise BadKey(f"{to_text(answer[1])} holds another type; {outcome} must wait")
        return self._settled(answer, next_token)

    def _settled(self, answer: list[Any], next_token: bytes) -> Settled:
        self._locks.clear()
        if answer[0] == b"LOST":
            return Settled(lost=True, next=Nothing.UNASKED)
        self.skipped = answer[1]
        return Settled(lost=False, next=_claimed(next_token, *answer[2:6]))

    def _prepared_for(
        self, queue: str, outcome: Outcome, payload: bytes, second: int, forget: Sequence[bytes]
    ) -> Prepared:
        """Return a settle for this outcome: mostly the one that was prepared beforehand."""
        failed_apart = outcome is Outcome.FAIL and self._keys.failed_by_queue
        if self._locks or forget or outcome in _MOVING or failed_apart:
            return self._prepare_settle(forget=forget, **self._place(queue, payload, second))
        return self._settle

    def _finish(self, job: Claimed, next_token: bytes, now: float) -> Claimed | Nothing | None:
        """Do what settle does for a job that is done, in less time; None, if anything is unusual.

        What it did is not done again by a settle with the same tokens.
        """
        if self._detour:
            self._detour -= 1
            return None
        head = record_head(self._worker.name, int(now))
        answer = self._link.call(self._done.fill(job.token, next_token, head))
        if answer is None:
            self._detour = _DETOUR
            return None
        self.skipped = answer[0]
        if len(answer) == 1:
            return Nothing.EMPTY
        return Claimed(next_token, self.queues[answer[1] - 1], answer[2], suspect=False)

    def take_lock(self, job: Claimed, lock: bytes, seconds: int, *, now: float) -> bool:
        """Take a job lock for as long as `job` is in hand, at most `seconds`.

        Returns False when another holds it. Whatever ends the claim frees the lock: settle, or
        recovery when this worker is gone. Raises JobLost if the job is not in hand any more. The
        value begins with an epoch second, as node-resque's does; see lua/lock_take.lua.
        """
        value = self._locks.get(lock) or b"%d.%b" % (int(now) + seconds + 1, job.token)
        self._locks[lock] = value  # before the question: its answer may get lost
        taken = self._link.call(
            load("lock_take").pack(
                lock=lock,
                locks=self._keys.locks(str(self._worker)),
                slot=self._keys.slot(str(self._worker)),
                token=job.token,
                value=value,
                seconds=seconds,
            )
        )
        if taken != 1:
            del self._locks[lock]
        if taken < 0:
            raise JobLost(f"the job on queue {job.queue} is in other hands by now")
        return bool(taken)

    def count_attempt(
        self, job: Claimed, counter: bytes, attempt: int, *, record: tuple[bytes, bytes], keep: int
    ) -> int:
        """Note that `job` has failed for the `attempt`th time, 0 the first; return what is counted.

        `record` is the key and the value of what is kept about the failure; both live `keep`
        seconds. Sending it again changes nothing. Raises JobLost if the job is in other hands.
        """
        counted = self._link.call(
            load("count_attempt").pack(
                slot=self._keys.slot(str(self._worker)),
                counter=counter,
                failure=record[0],
                token=job.token,
                attempt=attempt,
                keep=keep,
                record=record[1],
            )
        )
        if counted < 0:
            raise JobLost(f"the job on queue {job.queue} is in other hands by now")
        return int(counted)

    def drop_lock(self, lock: bytes) -> bool:
        """Free a job lock before the job ends; return False if it was not ours any more.

        Asked again after a lost answer it is False as well: then the first question freed it.
        """
        value = self._locks.get(lock)
        if value is None:
            return False
        dropped = self._link.call(
            load("lock_drop").pack(
                lock=lock, locks=self._keys.locks(str(self._worker)), value=value
            )
        )
        del self._locks[lock]
        return bool(dropped)

    def _place(self, queue: str, payload: bytes, second: int) -> dict[str, Value]:
        return {
            "target": self._keys.delayed(second) if second else self._keys.queue(queue),
            "timestamps": self._keys.timestamps(payload),
            "second": second,
            **self._keys.failing(queue),
        }


def _claimed(
    token: bytes, word: bytes, queue: bytes = b"", raw: bytes = b"", suspects: Any = 0
) -> Claimed | Nothing:
    if word in (b"JOB", b"SAME"):
        return Claimed(token, to_text(queue), raw, suspect=bool(suspects))
    return Nothing(word.decode())


def _spelt(places: Sequence[int]) -> bytes:
    return ",".join(map(str, places)).encode() if places else b""

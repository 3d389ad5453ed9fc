"""Jobs as Redis keeps them: queued and delayed. One method for each atomic operation.

A request carries its producer's id and number, so that sending it again adds nothing. What
only looks around (sizes, pages of a list) is here too.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from itertools import count
from secrets import token_hex
from typing import Any, NamedTuple

from forkresque.errors import AlreadyScheduled, BadKey, RedisRefused, RedisUnavailable
from forkresque.protocol.connection import Client, RedisClock
from forkresque.protocol.keys import Keys, to_text
from forkresque.protocol.pages import stretch, total_length
from forkresque.protocol.registry import PROTOCOL, newer_protocol
from forkresque.protocol.script import VARYING, Call, Prepared, Scalar, load

REMEMBER_REQUESTS = 600  # seconds for which a request sent again adds nothing
ACK_TIMEOUT_MS = 1000  # for a replica or the disk, before the request is sent again

_PREPARED = 256  # queues for which an enqueue is kept packed

_DIGITS = 18  # of any number that a Resque writes
_NUMBER = re.compile(rb"[0-9]{1,%d}" % _DIGITS)


class Ack(StrEnum):
    """What must have a job before its enqueue returns."""

    PRIMARY = "primary"
    REPLICA = "replica"  # WAIT: a replica as well, so that a fail-over does not lose it
    DISK = "disk"  # WAITAOF, Redis 7.2: the primary's disk as well


class Request(NamedTuple):
    """One thing that one producer asks for. `str(request)` can be kept and parsed again."""

    producer: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.producer}:{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> "Request":
        """Return the request that `str` gave. Raises ValueError for any other text."""
        producer, _, sequence = text.rpartition(":")
        request = cls(producer, int(sequence))
        if str(request) != text:
            raise ValueError(f"{text!r} is no request")
        return request


class Requests:
    """The requests of one producer. It must ask for one thing at a time: keep one for each thread.

    When an answer got lost the producer must not ask for anything else, so that its last request
    can be sent again at any time; take a new one.
    """

    def __init__(self) -> None:
        self._id = token_hex(12)
        self._numbers: Iterator[int] = count(1)

    def next(self) -> Request:
        """Return the next request."""
        return Request(self._id, next(self._numbers))


class Store:
    """The jobs of one namespace. `ack` says what must have what is put there."""

    def __init__(self, client: Client, keys: Keys, *, ack: Ack = Ack.PRIMARY) -> None:
        self.client = client
        self.keys = keys
        self._ack = ack
        self._has_aof = False
        self.clock = RedisClock(client)
        self._enqueue = lru_cache(_PREPARED)(self._prepare_enqueue)
        self._producer = lru_cache(_PREPARED)(keys.producer)

    def enqueue(self, queue: str, payload: bytes, *, request: Request, front: bool = False) -> None:
        """Put `payload` on `queue`, once. See lua/enqueue.lua."""
        answer = self.put(
            self._enqueue(queue, "1" if front else "").fill(
                self._producer(request.producer), payload, b"%d" % request.sequence
            )
        )
        if isinstance(answer, list):
            refuse_bad_key(answer)

    def _prepare_enqueue(self, queue: str, front: str) -> Prepared:
        return load("enqueue").prepare(
            queue=self.keys.queue(queue),
            queues=self.keys.queues(),
            producer=VARYING,
            payload=VARYING,
            name=queue,
            sequence=VARYING,
            remember=REMEMBER_REQUESTS,
            front=front,
        )

    def bulk(self, jobs: Mapping[str, Sequence[bytes]], *, request: Request) -> None:
        """Put payloads on each of several queues, at most 1000 in all, once. See lua/bulk.lua."""
        words: list[Scalar] = []
        for name, payloads in jobs.items():
            words += (name, len(payloads), *payloads)
        answer = self.put(
            load("bulk").pack(
                queues=self.keys.queues(),
                producer=self.keys.producer(request.producer),
                queue=[self.keys.queue(name) for name in jobs],
                sequence=request.sequence,
                remember=REMEMBER_REQUESTS,
                name_and_count_and_payloads=words,
            )
        )
        refuse_bad_key(answer)

    def enqueue_at(
        self,
        second: int,
        payload: bytes,
        *,
        request: Request,
        unique: bool = False,
        spellings: Sequence[bytes] = (),
    ) -> None:
        """Keep `payload` until `second`. See lua/enqueue_at.lua.

        Raises AlreadyScheduled if it is to be `unique` and an equal one waits for that second, in
        these bytes or in one of the other `spellings`.
        """
        answer = self.put(
            load("enqueue_at").pack(
                bucket=self.keys.delayed(second),
                schedule=self.keys.schedule(),
                timestamps=self.keys.timestamps(payload),
                producer=self.keys.producer(request.producer),
                twin=[self.keys.timestamps(other) for other in spellings if other != payload],
                payload=payload,
                second=second,
                unique="1" if unique else "",
                sequence=request.sequence,
                remember=REMEMBER_REQUESTS,
            )
        )
        refuse_bad_key(answer)
        if answer[0] == b"EXISTS":
            raise AlreadyScheduled(
                f"Job already enqueued at this time with same arguments: second {second}",
                hint="pass unique=False to have both, or suppress_duplicate_task_error=True",
            )

    def put(self, call: Call) -> Any:
        """Call a script that stores something, and wait for whoever must have it as well.

        Raises RedisUnavailable when they do not say so in time. Asking again with the same
        request adds nothing and waits again.
        """
        if self._ack is Ack.PRIMARY:
            return self.client.call(call)
        self._expect_disk()
        wait = ("WAIT", 1) if self._ack is Ack.REPLICA else ("WAITAOF", 1, 0)
        answer, acknowledged = self.client.call_then(call, *wait, ACK_TIMEOUT_MS)
        number = acknowledged[0] if isinstance(acknowledged, list) else acknowledged
        if not isinstance(number, int) or number < 1:
            whose = "no replica" if self._ack is Ack.REPLICA else "the disk has not"
            raise RedisUnavailable(
                f"stored, but {whose} acknowledged it within {ACK_TIMEOUT_MS} ms: {number}"
            )
        return answer

    def _expect_disk(self) -> None:
        """Refuse, before anything is stored, a server that cannot tell what its disk has."""
        if self._ack is not Ack.DISK or self._has_aof:
            return
        try:
            self.client.command("WAITAOF", 1, 0, 1)
        except RedisRefused as error:
            raise RedisRefused(
                f"this Redis cannot tell when a job is on disk: {error}",
                hint="ack=disk needs Redis 7.2 or newer with appendonly yes",
            ) from error
        self._has_aof = True

    # -- looking around ----------------------------------------------------------------------

    def queues(self) -> list[str]:
        """Return the names of all queues, sorted."""
        return sorted(map(to_text, self.client.command("SMEMBERS", self.keys.queues())))

    def lengths(self, queues: Sequence[str]) -> list[int]:
        """Return how many jobs wait in each queue; a key of another type holds none."""
        return self._lengths([self.keys.queue(name) for name in queues])

    def peek(self, queue: str, start: int, stop: int) -> list[bytes]:
        """Return the payloads from `start` to `stop`, both included; negative from the tail."""
        return stretch(self.client, self.keys.queue(queue), start, stop)

    def delayed_count(self) -> int:
        """Return how many jobs wait for their second."""
        return total_length(self.client, self.keys)

    def counts(self) -> dict[str, int]:
        """Return how many jobs succeeded (`processed`) and `failed`, ever.

        What some client made of a counter that is no number counts as 0.
        """
        names = ("processed", "failed")
        values = self.client.commands(*(("GET", self.keys.stat(name)) for name in names))
        return {name: counted(value) for name, value in zip(names, values, strict=True)}

    def _lengths(self, lists: Sequence[bytes]) -> list[int]:
        answers = self.client.attempts(*(("LLEN", key) for key in lists))
        return [0 if isinstance(answer, BadKey) else answer for answer in answers]

    # -- pausing for everybody ---------------------------------------------------------------

    def pause_all(self) -> None:
        """Pause every worker of this namespace: ours, and Ruby Resque's."""
        self.client.command("SET", self.keys.pause_all(), "true")

    def resume_all(self) -> None:
        """Let every worker of this namespace claim again."""
        self.client.command("DEL", self.keys.pause_all())

    def pause_queues(self, queues: Sequence[str]) -> None:
        """Have our workers leave these queues alone; other clients know nothing of it."""
        self.client.command("SADD", self.keys.paused_queues(), *queues)

    def resume_queues(self, queues: Sequence[str]) -> None:
        """Have our workers take from these queues again."""
        self.client.command("SREM", self.keys.paused_queues(), *queues)

    def paused_queues(self) -> list[str]:
        """Return the queues that our workers leave alone, sorted."""
        return sorted(map(to_text, self.client.command("SMEMBERS", self.keys.paused_queues())))

    def all_paused(self) -> bool:
        """Return whether Ruby Resque's pause key says `true`."""
        word = self.client.command("GET", self.keys.pause_all())
        return bool(word) and word.strip().lower() == b"true"


def counted(value: object) -> int:
    """Return what a counter says; 0 for what is no number."""
    return int(value) if isinstance(value, bytes) and _NUMBER.fullmatch(value) else 0


def refuse_bad_key(answer: list[bytes]) -> None:
    """Raise BadKey if that is what a script says."""
    if answer[0] == b"BADKEY":
        raise BadKey(
            f"{to_text(answer[1])} holds another type than Resque keeps there; nothing was changed",
            hint="look at it with the TYPE command, and rename or delete it",
        )


def check_server(client: Client, namespace: str) -> None:
    """Refuse a Redis on which jobs would get lost or nothing would work. Raises RedisRefused."""
    info = client.command("INFO")
    text = info.decode("utf-8", "replace") if isinstance(info, bytes) else str(info)
    facts = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    if facts.get("role", "master") != "master":
        raise RedisRefused("this Redis is a replica", hint="give the address of its primary")
    if facts.get("cluster_enabled") == "1" and not Keys(namespace).hash_tag:
        raise RedisRefused(
            f"this is a Redis Cluster and the namespace {namespace!r} has no hash tag",
            hint="use a namespace such as {resque}, so that all keys live on one node",
        )
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise RedisRefused(
            f"this Redis may throw jobs away: maxmemory-policy is {policy}",
            hint="CONFIG SET maxmemory-policy noeviction",
        )
    known = client.command("GET", Keys(namespace).proto())
    if known and known.isdigit() and (len(known) > _DIGITS or int(known) > PROTOCOL):
        raise newer_protocol(known)

"""What a worker lends the plugins of the job in hand: its connection, its claim, its clock."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from forkresque.plugins.base import Enqueuer, Performance
from forkresque.protocol.claims import Claimed, Claims
from forkresque.protocol.connection import Caller, RedisClock
from forkresque.protocol.keys import Keys
from forkresque.protocol.script import Call, Scalar

T = TypeVar("T")


class Ask(Protocol):
    """Asks Redis until it answers."""

    def __call__(self, question: Callable[[], T], /) -> T:
        """Return the answer, or raise RedisRefused."""


class Lender:
    """Makes the context of a job in hand. `ask` asks Redis over the worker's own connection."""

    def __init__(
        self,
        link: Caller,
        claims: Claims,
        keys: Keys,
        clock: RedisClock,
        *,
        worker: str,
        ask: Ask,
        queues: Callable[[], Enqueuer],
    ) -> None:
        self._claims, self._keys, self._clock = claims, keys, clock
        self._worker = worker
        self._ask = ask
        self._queues = queues
        self._redis = _Asking(link, ask)

    def lend(self, job: Claimed, name: str) -> Performance:
        """Return what the hooks of `job` are told."""
        return Performance(
            worker=self._worker,
            hand=_JobInHand(job, self._claims, self._clock, self._ask),
            queue=job.queue,
            name=name,
            payload=job.raw,
            keys=self._keys,
            redis=self._redis,
            now=lambda: self._ask(self._clock.now),
            queues=self._queues,
        )


class _Asking:
    """A Caller that asks again."""

    def __init__(self, caller: Caller, ask: Ask) -> None:
        self._caller, self._ask = caller, ask

    def call(self, call: Call) -> Any:
        return self._ask(lambda: self._caller.call(call))

    def command(self, *words: Scalar) -> Any:
        return self._ask(lambda: self._caller.command(*words))


class _JobInHand:
    def __init__(self, job: Claimed, claims: Claims, clock: RedisClock, ask: Ask) -> None:
        self._job, self._claims, self._clock, self._ask = job, claims, clock, ask

    def take_lock(self, lock: bytes, seconds: int) -> bool:
        now = self._ask(self._clock.now)
        return self._ask(lambda: self._claims.take_lock(self._job, lock, seconds, now=now))

    def count_attempt(
        self, counter: bytes, attempt: int, *, record: tuple[bytes, bytes], keep: int
    ) -> int:
        return self._ask(
            lambda: self._claims.count_attempt(
                self._job, counter, attempt, record=record, keep=keep
            )
        )

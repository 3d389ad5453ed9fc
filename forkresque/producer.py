"""Put jobs on queues: now, later, in bulk. Safe to use from any number of threads.

Every request carries an id, so that asking again after a lost answer adds nothing twice.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import Any, TypeVar

from forkresque.bulk import Job, Portion, portions
from forkresque.connection import Connectable, Connection
from forkresque.errors import (
    AlreadyScheduled,
    ConfigError,
    EnqueueUnknown,
    ForkresqueError,
    InvalidArgs,
    RedisUnavailable,
)
from forkresque.jobs import Definition, check_queue_name, definitions
from forkresque.plugins.base import Context
from forkresque.plugins.hooks import Hooks
from forkresque.policy.backoff import Backoff
from forkresque.protocol.connection import Client
from forkresque.protocol.payload import PAYLOAD_LIMIT_BYTES, encode_job
from forkresque.protocol.script import Call, Scalar
from forkresque.protocol.spellings import Sought
from forkresque.protocol.store import Ack, Request, Requests, Store

_LAST_MOMENT = 253_402_300_799  # the end of the year 9999, which no count of milliseconds is below
ENQUEUE_TIMEOUT = 5.0  # seconds for which an enqueue is tried again before it raises

T = TypeVar("T")
Duration = float | timedelta
Moment = float | datetime


def seconds(duration: Duration) -> float:
    """Return a length of time in seconds. Raises InvalidArgs for one that is not finite."""
    value = duration.total_seconds() if isinstance(duration, timedelta) else _number(duration)
    if not math.isfinite(value):
        raise InvalidArgs(f"a duration must be finite seconds or a timedelta, got {duration!r}")
    return value


def epoch(moment: Moment) -> float:
    """Return a moment as epoch seconds. Raises InvalidArgs for a datetime without a zone."""
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise InvalidArgs(
                f"{moment!r} has no time zone, so it names no moment",
                hint="use datetime(..., tzinfo=timezone.utc) or epoch seconds",
            )
        return moment.timestamp()
    value = _number(moment)
    if not 0 <= value <= _LAST_MOMENT:
        raise InvalidArgs(
            f"a moment must be epoch seconds from 0 to {_LAST_MOMENT}, got {moment!r}",
            hint="seconds, not milliseconds, or a datetime with a zone",
        )
    return value


def _number(given: object) -> float:
    """Return a number, also of a text; NaN for what is none."""
    try:
        return float(given)  # type: ignore[arg-type]  # whatever a caller gave
    except (TypeError, ValueError, OverflowError):
        return math.nan


def listed(args: object) -> list[Any] | tuple[Any, ...]:
    """Return a job's arguments; what is no list and no tuple is the only one, as in node-resque."""
    return args if isinstance(args, list | tuple) else [args]


def due_second(moment: Moment) -> int:
    """Return the second at which what is to happen at `moment` is due: never early."""
    return max(0, math.ceil(epoch(moment)))


class Producer:
    """Puts jobs on the queues of one namespace; `connection` is what `Connection.of` takes.

    `jobs` are definitions, or jobs as node-resque describes them; their plugins decide what is
    enqueued. Without them no hooks run. `ack` says what must have a job before its enqueue
    returns; `allow_bigint` lets integers beyond 2**53 pass, which JavaScript readers would change.
    """

    def __init__(
        self,
        connection: Connectable,
        jobs: Mapping[str, Any] | None = None,
        *,
        ack: Ack = Ack.PRIMARY,
        allow_bigint: bool = False,
    ) -> None:
        self.connection = Connection.of(connection)
        self.store = Store(self.connection.client(), self.connection.keys, ack=ack)
        self._jobs: Mapping[str, Definition] = {} if jobs is None else definitions(jobs)
        self._allow_bigint = allow_bigint
        self._local = _Numbering()

    def enqueue(
        self,
        queue: str,
        name: str,
        args: object = (),
        *,
        front: bool = False,
        request_id: str | None = None,
    ) -> bool:
        """Put a job on `queue`, and return True once Redis has it; False if a plugin vetoed.

        `args` are a list or a tuple; anything else is the only argument, as in node-resque. Raises
        InvalidArgs for what JSON cannot carry, RedisUnavailable when nothing was stored, and
        EnqueueUnknown when the answer got lost; its `request_id` makes asking again safe. With one
        no plugin is asked again.
        """
        payload = self._payload(queue, name, args)
        hooks = self._hooks_at_enqueue(name)
        if hooks is None:
            self._push(queue, payload, request_id, front=front)
            return True
        push = partial(self._push, queue, payload, request_id, front=front)
        context = self._context(queue, name, payload)
        return _enqueue_within(hooks, context, push, asked=request_id is not None)

    def enqueue_in(
        self,
        delay: Duration,
        queue: str,
        name: str,
        args: object = (),
        *,
        suppress_duplicate_task_error: bool = False,
        unique: bool = True,
        request_id: str | None = None,
    ) -> bool:
        """Put a job on `queue` when `delay` has passed by Redis' clock; see `enqueue_at`."""
        return self.enqueue_at(
            self._retrying(self.store.clock.now) + seconds(delay),
            queue,
            name,
            args,
            suppress_duplicate_task_error=suppress_duplicate_task_error,
            unique=unique,
            request_id=request_id,
        )

    def enqueue_at(
        self,
        moment: Moment,
        queue: str,
        name: str,
        args: object = (),
        *,
        suppress_duplicate_task_error: bool = False,
        unique: bool = True,
        request_id: str | None = None,
    ) -> bool:
        """Put a job on `queue` at `moment`, rounded up to a whole second: never early.

        An equal job at that second, by whichever client, raises AlreadyScheduled as in node-resque,
        or with `suppress_duplicate_task_error` makes this return False; without `unique` there may
        be several, as in Ruby. No plugin is asked.
        """
        payload = self._payload(queue, name, args)
        spellings = Sought(queue, name, listed(args)).delayed() if unique else ()
        second = due_second(moment)
        try:
            self._send(
                lambda request: self.store.enqueue_at(
                    second, payload, request=request, unique=unique, spellings=spellings
                ),
                request_id,
            )
        except AlreadyScheduled:
            if not suppress_duplicate_task_error:
                raise
            return False
        return True

    def bulk(self, jobs: Iterable[Job], *, request_id: str | None = None) -> int:
        """Put many jobs on their queues, in their order; return how many plugins did not veto.

        Each is a queue, a name and arguments. They go in portions of up to 1000, each of which is
        stored as a whole or not at all; a job whose plugins have hooks at enqueueing is a portion
        of its own. Raises what `enqueue` does, with a note how many jobs were done. After an
        EnqueueUnknown asking again with its `request_id` and the very same jobs goes on where that
        was, and counts from there.
        """
        begun = None if request_id is None else _parsed(request_id)
        first = begun or Requests().next()
        parts = portions(jobs, encode=self._payload, hooked=self._hooks_at_enqueue)
        number = done = stored = 0
        try:
            for number, portion in enumerate(parts, start=1):
                if number >= first.sequence:
                    request = first._replace(sequence=number)
                    stored += self._put(portion, request, again=request == begun)
                done += portion.size
        except ForkresqueError as error:
            error.add_note(f"the first {done} jobs of this bulk were done before")
            raise
        if begun is not None and number < begun.sequence:
            raise InvalidArgs(
                f"{request_id} asks for portion {begun.sequence} of a bulk, and these jobs "
                f"make {number}; nothing was sent",
                hint="give the very same jobs as before",
            )
        return stored

    # -- asking until there is an answer -----------------------------------------------------

    def _hooks(self, name: str) -> Hooks | None:
        definition = self._jobs.get(name)
        return None if definition is None else definition.hooks

    def _hooks_at_enqueue(self, name: str) -> Hooks | None:
        """Return the hooks of a job if one of them is asked, or told, when it is enqueued."""
        hooks = self._hooks(name)
        return hooks if hooks is not None and hooks.at_enqueue else None

    def _payload(self, queue: str, name: str, args: object) -> bytes:
        if not isinstance(queue, str):
            raise InvalidArgs(f"a queue's name must be a string, got {queue!r}")
        _check_queue(queue)
        payload = encode_job(queue, name, listed(args), allow_bigint=self._allow_bigint)
        if len(payload) > PAYLOAD_LIMIT_BYTES:
            raise InvalidArgs(
                f"the arguments of {name} take {len(payload)} bytes, at most "
                f"{PAYLOAD_LIMIT_BYTES} are read again",
                hint="store the data elsewhere and send its address",
            )
        return payload

    def _push(self, queue: str, payload: bytes, request_id: str | None, *, front: bool) -> None:
        self._send(
            lambda request: self.store.enqueue(queue, payload, request=request, front=front),
            request_id,
        )

    def _context(self, queue: str, name: str, payload: bytes) -> Context:
        return Context(
            queue=queue,
            name=name,
            payload=payload,
            keys=self.store.keys,
            redis=_Patient(self.store.client, self._retrying),
            now=lambda: self._retrying(self.store.clock.now),
            queues=lambda: self,
        )

    def _put(self, portion: Portion, request: Request, *, again: bool) -> int:
        """Store one portion of a bulk; return how many jobs of it were not vetoed."""

        def send() -> None:
            self._ask(
                lambda request: self.store.bulk(portion.queues, request=request),
                request,
                known=again or request.sequence > 1,
            )

        hooks = self._hooks_at_enqueue(portion.alone)
        if hooks is None:
            send()
            return portion.size
        queue, payload = portion.first
        context = self._context(queue, portion.alone, payload)
        return int(_enqueue_within(hooks, context, send, asked=again))

    def _send(self, send: Callable[[Request], T], request_id: str | None) -> T:
        """Ask with one request until Redis answers or patience ends."""
        request = self._local.next() if request_id is None else _parsed(request_id)
        try:
            return self._ask(send, request, known=request_id is not None)
        except EnqueueUnknown:
            self._local.retire()
            raise

    def _ask(self, send: Callable[[Request], T], request: Request, *, known: bool) -> T:
        """Send until Redis answers. Without an answer, one who may know the request is told it."""
        try:
            return self._retrying(send, request)
        except RedisUnavailable as error:
            if not error.sent and not known:
                raise
            raise EnqueueUnknown(
                f"the job may or may not be stored: {error}",
                request_id=str(request),
                hint="enqueue again with this request_id; within ten minutes it adds nothing twice",
            ) from error

    def _retrying(self, ask: Callable[..., T], *given: Request) -> T:
        """Ask until there is an answer or patience ends; `sent` if any attempt may have been."""
        backoff, sent = None, False
        deadline = time.monotonic() + ENQUEUE_TIMEOUT
        while True:
            try:
                return ask(*given)
            except RedisUnavailable as error:
                sent = error.sent = error.sent or sent
                backoff = backoff or Backoff(first=0.05, most=1.0)
                pause = backoff.next(jitter=os.urandom(1)[0] / 255)
                if time.monotonic() + pause > deadline:
                    raise
                threading.Event().wait(pause)


@lru_cache(maxsize=256)
def _check_queue(queue: str) -> None:
    """Raise InvalidArgs for a bad name of a queue; a good one is looked at once."""
    try:
        check_queue_name(queue)
    except ConfigError as error:
        raise InvalidArgs(str(error), hint=error.hint) from error


def _parsed(request_id: str) -> Request:
    try:
        return Request.parse(request_id)
    except ValueError:
        raise InvalidArgs(
            f"{request_id!r} is no request id", hint="give that of an EnqueueUnknown"
        ) from None


def _enqueue_within(
    hooks: Hooks, context: Context, send: Callable[[], None], *, asked: bool
) -> bool:
    """Enqueue inside the hooks; return False if one of them vetoes. `asked`: none is to."""
    try:
        if not asked and not hooks.may_enqueue(context):
            context.enqueued(stored=False)
            return False
        send()
    except EnqueueUnknown:
        raise
    except BaseException:
        context.enqueued(stored=False)
        raise
    context.enqueued(stored=True)
    hooks.after_enqueue(context)
    return True


class _Patient:
    """A Caller for hooks, that asks until there is an answer or patience ends."""

    def __init__(self, client: Client, retrying: Callable[[Callable[[], Any]], Any]) -> None:
        self._client, self._retrying = client, retrying

    def call(self, call: Call) -> Any:
        return self._retrying(lambda: self._client.call(call))

    def command(self, *words: Scalar) -> Any:
        return self._retrying(lambda: self._client.command(*words))


class _Numbering(threading.local):
    """Requests of one thread; a forked child begins anew, or both would number alike."""

    def __init__(self) -> None:
        self.retire()

    def retire(self) -> None:
        self._pid = os.getpid()
        self._requests = Requests()

    def next(self) -> Request:
        if self._pid != os.getpid():
            self.retire()
        return self._requests.next()

"""Connections to Redis: where it is, how to ask, and what its errors mean to us.

Nothing here asks twice. redis-py's own retries send a pop again when its reply was lost, and
so lose a job; our callers ask again with the same token instead. A connection is closed when
anything goes wrong between a question and its answer, so no answer is ever read by the next.
"""

import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from forkresque.errors import BadKey, ForkresqueError, RedisUnavailable
from forkresque.protocol.address import Address, refusing
from forkresque.protocol.cluster import ELSEWHERE
from forkresque.protocol.direct import direct
from forkresque.protocol.script import Call, Scalar, pack
from forkresque.protocol.spares import Ear, Spares, ear
from forkresque.protocol.trouble import TROUBLE, is_busy, translated

SOCKET_TIMEOUT = 5.0
_UNLIMITED = 2**31  # connections of a pool: who has many threads asks by them all
_KEEPALIVE_IDLE, _KEEPALIVE_INTERVAL, _KEEPALIVE_PROBES = 4, 5, 6  # Linux: TCP_KEEPIDLE and so on

_PARTS = ("connect", "disconnect", "exchange", "send_packed_command", "read_response", "can_read")
_GLANCE_BYTES = 4096
_TRACKING = pack("CLIENT", "TRACKING", "ON", "OPTIN", "NOLOOP")
_CACHING = pack("CLIENT", "CACHING", "YES")  # track what the next command reads

T = TypeVar("T")

FLUSHED = b""  # stands for "every key" among the keys that a push names


class Caller(Protocol):
    """Whatever sends a command and returns Redis' answer: a Link or a Client."""

    def call(self, call: Call) -> Any:
        """Call a script. Raises RedisUnavailable or RedisRefused."""

    def command(self, *words: Scalar) -> Any:
        """Send one command. Raises RedisUnavailable or RedisRefused."""


class Target:
    """Which Redis, and how to connect to it: `address`, or its URL; `timeout` in seconds."""

    def __init__(self, address: Address | str, *, timeout: float = SOCKET_TIMEOUT) -> None:
        self.address = Address.of_url(address) if isinstance(address, str) else address
        self.timeout = timeout
        self._ready: list[Any] = []
        self.pool()  # a bad address is reported here, not at the first job

    def within(self, timeout: float) -> "Target":
        """Return the same Redis with another patience, in seconds."""
        return Target(self.address, timeout=timeout)

    def pool(self) -> redis.ConnectionPool:
        """Return a pool that has not connected yet."""
        settings: dict[str, Any] = {
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.timeout,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 3,
            "driver_info": None,
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        }
        if "path" not in self.address.settings:
            settings |= {
                "socket_keepalive": True,
                "socket_keepalive_options": {
                    _KEEPALIVE_IDLE: 5,
                    _KEEPALIVE_INTERVAL: 5,
                    _KEEPALIVE_PROBES: 3,
                },
            }
        with refusing(self.address.place):
            settings |= dict(self.address.settings)
            pool = redis.ConnectionPool(**settings, max_connections=_UNLIMITED)
            pool.connection_class = direct(pool.connection_class)
            pool.connection_class(**pool.connection_kwargs)
        return pool

    def prepare(self) -> None:
        """Make what the next connection needs, so that each child forked from now on has it.

        To make it touches a fifth of the pages that a child touches in its life, and each page is
        copied at the first touch.
        """
        if not self._ready:
            self._ready.append(self._made())

    def connection(self) -> Any:
        """Return a connection of redis-py for one thread, not connected yet."""
        try:
            connection = self._ready.pop()
        except IndexError:
            return self._made()
        connection.pid = os.getpid()  # else it would not be shut down at its end
        return connection

    def _made(self) -> Any:
        pool = self.pool()
        return pool.connection_class(**pool.connection_kwargs)

    def link(self, *, tracking: bool = False) -> "Link":
        """Return one connection for one thread, not connected yet."""
        return Link(self, tracking=tracking)

    def client(self) -> "Client":
        """Return what any number of threads may use, before and after a fork."""
        return Client(self)


class Link:
    """One connection, for one thread of one process.

    With `tracking`, Redis remembers what an `armed` call has read and pushes one message when
    any of it changes. It remembers nothing else (OPTIN), so that a busy worker is not told of
    every pop of its neighbours, and nothing of what this connection writes itself (NOLOOP).
    """

    def __init__(self, target: Target, *, tracking: bool = False) -> None:
        self._address = target.address
        self._connection: Any = target.connection()
        self._wants_tracking = tracking
        self.tracking = False  # whether Redis tells of changes, as far as it was asked to
        self._listens = False  # whether it was asked to, over this connection
        self.asked = 0  # questions so far
        self._pushed: set[bytes] = set()
        self._heard: set[bytes] = {FLUSHED}  # whatever was read before this connection is old
        self._ear: Ear | None = None  # None for TLS, which may have read what is to be heard

    def call(self, call: Call, *, armed: bool = False) -> Any:
        """Call a script. Raises RedisUnavailable or RedisRefused.

        With `armed`, Redis pushes a message when a key that the script read changes, if it
        agreed to; see `tracking`.
        """
        try:
            try:
                return self._ask(call.by_digest, armed=armed)
            except NoScriptError:
                return self._ask(call.by_source, armed=armed)
        except TROUBLE as error:
            raise translated(error, self._address) from error

    def command(self, *words: Scalar, armed: bool = False) -> Any:
        """Send one command; see `call`."""
        try:
            return self._ask(pack(*words), armed=armed)
        except TROUBLE as error:
            raise translated(error, self._address) from error

    def heard(self, key: bytes) -> bool:
        """Return whether `key` has changed since it was last forgotten, by what was pushed."""
        return key in self._heard or FLUSHED in self._heard

    def forget(self, key: bytes) -> None:
        """Take note that `key` is about to be read again."""
        self._heard -= {key, FLUSHED}

    @property
    def ringing(self) -> bool:
        """Return whether `pushed` has something to tell, or will fail, without any waiting.

        A push that came with the answer to a question is no longer in the socket.
        """
        if self._pushed:
            return True
        try:
            return bool(self._connection.is_connected and self._connection.can_read(0))
        except TROUBLE:
            return True

    def sees(self, marks: Sequence[bytes]) -> bool:
        """Return whether one of `marks` stands in what is to be read. In TLS nothing is seen."""
        sock = self.socket
        if self._ear is None or sock is None or not self._ear(0):
            return False
        try:
            received = sock.recv(_GLANCE_BYTES, socket.MSG_PEEK)
        except OSError:  # of which whoever reads is told
            return False
        return any(mark in received for mark in marks)

    def pushed(self) -> set[bytes]:
        """Return the keys that have changed since this was last asked, FLUSHED for all.

        Reads whatever has arrived, in the socket and in the parser, and does not wait: a push
        can come in the same read as the answer before it, where `select` does not see it.
        """
        connection = self._connection
        try:
            if connection.is_connected and self._has_unread():
                connection.read_response(push_request=True)
                # What comes after that read is told next time; to ask for it delays this.
                while connection._parser._reader.has_data():  # noqa: SLF001
                    connection.read_response(push_request=True)
        except TROUBLE as error:
            self.close()  # redis-py leaves a connection open that its peer has closed
            raise translated(error, self._address) from error
        keys, self._pushed = self._pushed, set()
        return keys

    def _has_unread(self) -> bool:
        """Return whether something, or the end, was received and not read yet.

        redis-py's `can_read` makes a poll object for each of its two looks at the socket.
        """
        if self._ear is None:
            return bool(self._connection.can_read(0))
        return self._connection._parser._reader.has_data() or bool(self._ear(0))  # noqa: SLF001

    @property
    def socket(self) -> socket.socket | None:
        """The socket, or None while there is no connection."""
        sock: socket.socket | None = self._connection._sock  # noqa: SLF001 - there is no public way
        return sock

    def fileno(self) -> int | None:
        """Return the socket's descriptor, or None while there is no connection."""
        return None if self.socket is None else self.socket.fileno()

    def parts(self) -> list[tuple[object, str]]:
        """Return the methods of redis-py that this stands on: who patches them, breaks it."""
        return [(type(self._connection), name) for name in _PARTS]

    def abandon(self) -> None:
        """Forget a connection whose descriptor was closed: the number is somebody else's now."""
        if self.socket is not None:
            self.socket.detach()
        self.close()

    def close(self) -> None:
        """Close the connection. The next call opens it again."""
        self._connection.disconnect()
        self.tracking = False
        self._pushed.clear()
        self._heard.add(FLUSHED)

    def _connect(self) -> None:
        if self._connection.is_connected:
            return
        self._pushed.clear()
        self._heard.add(FLUSHED)
        self.tracking = False
        self._connection.connect()
        self._ear = None if hasattr(self.socket, "pending") else ear(self.socket)
        self._connection._parser.set_invalidation_push_handler(self._note)  # noqa: SLF001
        self.tracking, self._listens = self._wants_tracking, False

    def _ask(self, packed: bytes, *, armed: bool) -> Any:
        self._connect()
        self.asked += 1
        connection = self._connection
        try:
            if armed and self.tracking and not self._listens:
                self._listen()
            if not (armed and self.tracking):
                return connection.exchange(packed)
            connection.send_packed_command([_CACHING + packed])  # two would be two packets
            caching = _answer(connection)
            if isinstance(caching, ResponseError) and not is_busy(caching):
                self._wants_tracking = self.tracking = False  # not allowed: the caller polls
            return connection.read_response()
        except ELSEWHERE:
            self.close()
            raise

    def _listen(self) -> None:
        """Have Redis tell of changes, with the first question that needs it: many never ask one."""
        try:
            self._connection.exchange(_TRACKING)
            self._listens = True
        except ResponseError as error:
            if is_busy(error):
                self.close()
                raise
            self._wants_tracking = self.tracking = False  # too old or not allowed: the caller polls

    def _note(self, push: list[Any]) -> None:
        keys = push[1] if push[1] is not None else (FLUSHED,)
        self._pushed.update(keys)
        self._heard.update(keys)


class Client:
    """Connections for any number of threads. After a fork the child opens its own."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._spares = Spares(target.pool())

    def call(self, call: Call) -> Any:
        """Call a script. Raises RedisUnavailable or RedisRefused."""
        return self._over_one(_called, call)

    def call_then(self, call: Call, *words: Scalar) -> tuple[Any, Any]:
        """Call a script, then send a command over the same connection; return both answers.

        That of the command may be an error. Raises RedisUnavailable or RedisRefused.
        """

        def ask(connection: Any) -> tuple[Any, Any]:
            answer = _called(connection, call)
            connection.send_packed_command([pack(*words)])
            return answer, _answer(connection)

        return self._over_one(ask)

    def command(self, *words: Scalar) -> Any:
        """Send one command. Raises RedisUnavailable or RedisRefused."""
        return self._over_one(_exchanged, pack(*words))

    def commands(self, *commands: tuple[Scalar, ...]) -> list[Any]:
        """Send several commands in one go and return their answers; not a transaction."""
        answers = self.attempts(*commands)
        for answer in answers:
            if isinstance(answer, BadKey):
                raise answer
        return answers

    def attempts(self, *commands: tuple[Scalar, ...]) -> list[Any]:
        """Send several commands in one go; an answer is a BadKey where a key has another type."""
        lost = 0

        def ask(connection: Any) -> list[Any]:
            nonlocal lost
            connection.send_packed_command([pack(*words) for words in commands])
            answers = [_answer(connection) for _ in commands]
            if lost := sum(isinstance(answer, ELSEWHERE) for answer in answers):
                connection.disconnect()
            return answers

        answers = self._over_one(ask)
        told = [self._told(answer) for answer in answers]
        for error in told:
            if isinstance(error, ForkresqueError) and not isinstance(error, BadKey):
                if isinstance(error, RedisUnavailable):
                    error.sent = lost < len(answers)  # what came before it was done
                raise error
        return told

    def _told(self, answer: Any) -> Any:
        if isinstance(answer, ResponseError):
            return translated(answer, self._target.address)
        return answer

    def close(self) -> None:
        """Close all connections, those in use when they are free. The next call opens one again."""
        self._spares.close()

    def _over_one(self, ask: Callable[..., T], *given: object) -> T:
        """Ask over a connection that nobody else uses meanwhile."""
        address = self._target.address
        try:
            spare = self._spares.take()
        except TROUBLE as error:
            raise translated(error, address, sent=False) from error
        try:
            return ask(spare.connection, *given)
        except TROUBLE as error:
            if isinstance(error, ELSEWHERE) or not isinstance(error, ResponseError):
                spare.connection.disconnect()
            raise translated(error, address) from error
        except BaseException:
            spare.connection.disconnect()
            raise
        finally:
            self._spares.give(spare)


def _called(connection: Any, call: Call) -> Any:
    try:
        return connection.exchange(call.by_digest)
    except NoScriptError:
        return connection.exchange(call.by_source)


def _exchanged(connection: Any, packed: bytes) -> Any:
    return connection.exchange(packed)


def _answer(connection: Any) -> Any:
    """Return the next answer, or the error that it is: the answers after it are to be read too."""
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


class RedisClock:
    """Redis' time between two looks at it, by this machine's monotonic clock.

    Good for what is shown and for where a job is put; what is due is decided in Redis. `offset` is
    what somebody else has found it to be ahead of the monotonic clock, just now.
    """

    def __init__(
        self, caller: Caller, *, fresh_for: float = 60.0, offset: float | None = None
    ) -> None:
        self._caller = caller
        self._fresh_for = fresh_for
        self.offset = time.time() - time.monotonic() if offset is None else offset
        self._asked_at = float("-inf") if offset is None else time.monotonic()

    def now(self) -> float:
        """Return epoch seconds. Asks Redis when the last look is old, and raises as it does."""
        if time.monotonic() - self._asked_at > self._fresh_for:
            return self.look()
        return self.guess()

    def look(self) -> float:
        """Return epoch seconds as Redis sees them now, and raise as it does."""
        asked_at = time.monotonic()
        seconds, microseconds = self._caller.command("TIME")
        # By the time of the question, not of the answer: never behind Redis' own clock.
        self._asked_at = asked_at
        self.offset = int(seconds) + int(microseconds) / 1e6 - asked_at
        return self.guess()

    def guess(self) -> float:
        """Return epoch seconds without asking, by the last look or by this machine's clock."""
        return self.offset + time.monotonic()

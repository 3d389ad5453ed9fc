"""Processes that die, or lose their connection, at one exact command to Redis.

A `CrashTarget` is given to whatever talks to Redis in place of a `Target`. Its connections number
every command of their process, those of the handshake too, and strike at one instant of one of
them. What is to be struck runs in a fork, which tells over a pipe what it did and that the fault
fired; only the way it ended proves that it was killed.
"""

import ctypes
import gc
import json
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from socket import SHUT_RDWR
from typing import Any, NoReturn

import hiredis
from redis import ConnectionPool
from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from forkresque.protocol.connection import Target
from tests.support.waiting import wait_until

_PR_SET_PDEATHSIG = 1
_CHUNK_BYTES = 65_536
_MISSING = object()


class Instant(StrEnum):
    """When, in the life of one command."""

    BEFORE = "before"  # nothing of it was sent
    SENT = "sent"  # Redis has carried it out, and nothing of the answer was read
    HALF = "half"  # half of the answer was read
    READ = "read"  # all of it was, and the caller has not seen it


class Action(StrEnum):
    """What happens then."""

    KILL = "kill"  # the process dies by SIGKILL
    CUT = "cut"  # the connection breaks, and the caller goes on by its own rules


@dataclass(frozen=True, slots=True)
class Blow:
    """What happens, and at which instant."""

    instant: Instant
    action: Action

    def __str__(self) -> str:
        return f"{self.action}-{self.instant}"


BLOWS = (
    *(Blow(instant, Action.KILL) for instant in (Instant.BEFORE, Instant.SENT, Instant.READ)),
    *(Blow(instant, Action.CUT) for instant in Instant),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A blow at the command of this number, counted from 1."""

    number: int
    blow: Blow


Tell = Callable[[str, object], None]
Act = Callable[[Target, Callable[[object], None]], None]


class Wire:
    """Numbers the commands of one process, and strikes when the fault is due."""

    def __init__(self, fault: Fault | None, tell: Tell) -> None:
        self.commands = 0
        self._fault = fault
        self._tell = tell

    def next(self) -> Instant | None:
        """Count one command; return at which instant of it the fault is due, if it is."""
        self.commands += 1
        if self._fault is None or self._fault.number != self.commands:
            return None
        return self._fault.blow.instant

    def strike(self) -> None:
        """Tell that the fault fires. Returns only if the process is to live on."""
        assert self._fault is not None
        self._tell("fired", self.commands)
        if self._fault.blow.action is Action.KILL:
            os.kill(os.getpid(), signal.SIGKILL)


class FaultyConnection(AbstractConnection):
    """Sends one command at a time, when its answer is asked for, so that each has its instants.

    A mixin for the connection class of a pool; `wire` is set in the subclass made for it.
    """

    wire: Wire

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.unsent: deque[bytes] = deque()
        super().__init__(*args, **kwargs)

    def disconnect(self, *args: Any, **kwargs: Any) -> None:
        self.unsent.clear()
        super().disconnect(*args, **kwargs)  # type: ignore[no-untyped-call]

    def exchange(self, packed: bytes) -> Any:
        self.send_packed_command([packed])
        return self.read_response()

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - as in redis-py
        self.unsent += commands(b"".join(command))

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        if not self.unsent:
            return super().read_response(*args, **kwargs)  # a push, which answers nothing
        due = self.wire.next()
        if due is Instant.BEFORE:
            self._cut()
        super().send_packed_command(  # type: ignore[no-untyped-call]
            [self.unsent.popleft()], check_health=False
        )
        if due in (Instant.SENT, Instant.HALF):
            answer = self._answer()
            self.wire.strike()
            self._starve(answer[: len(answer) // 2] if due is Instant.HALF else b"")
        try:
            return super().read_response(*args, **kwargs)
        finally:
            if due is Instant.READ:
                self._cut()

    def _cut(self) -> NoReturn:
        self.wire.strike()
        self.disconnect()
        raise RedisConnectionError("cut by the test")

    def _answer(self) -> bytes:
        """Take a whole answer from the socket, where the parser will not find it."""
        sock: Any = self._sock
        reader, answer = hiredis.Reader(notEnoughData=_MISSING), b""
        while reader.gets() is _MISSING:
            chunk = sock.recv(_CHUNK_BYTES)
            assert chunk, "Redis closed the connection before the fault did"
            reader.feed(chunk)
            answer += chunk
        return answer

    def _starve(self, rest: bytes) -> None:
        """Let the parser find `rest` and then the end of the connection."""
        sock: Any = self._sock
        self._parser._reader.feed(rest)
        sock.shutdown(SHUT_RDWR)


class CrashTarget(Target):
    """A target all of whose connections are counted and struck by one wire."""

    def __init__(self, url: str, wire: Wire) -> None:
        self._wire = wire
        super().__init__(url)

    def pool(self) -> ConnectionPool:
        pool = super().pool()
        bases = (FaultyConnection, pool.connection_class)
        pool.connection_class = type("Faulty", bases, {"wire": self._wire})
        return pool


def commands(packet: bytes) -> Iterator[bytes]:
    """Yield the commands of a packet, one after the other."""
    start = at = 0
    while at < len(packet):
        end = packet.index(b"\r\n", at)
        words, at = int(packet[at + 1 : end]), end + 2
        for _ in range(words):
            end = packet.index(b"\r\n", at)
            at = end + 2 + int(packet[at + 1 : end]) + 2
        yield packet[start:at]
        start = at


# -- in a fork ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Account:
    """What a process told before it ended, and how it ended.

    `commands` counts those of a process that lived on; `answers` are what its calls returned.
    """

    status: int
    commands: int = 0
    fired: int = 0  # at which command the fault fired, 0 for never
    answers: list[Any] = field(default_factory=list)
    error: str = ""

    @property
    def was_killed(self) -> bool:
        """Return whether it died by SIGKILL."""
        return os.WIFSIGNALED(self.status) and os.WTERMSIG(self.status) == signal.SIGKILL


def perform(
    act: Act, url: str, fault: Fault | None, *, meanwhile: Callable[[], bool] | None = None
) -> Account:
    """Let a fork `act` under a fault; return its account when it is gone.

    `meanwhile` is asked until it says that all is done, or the fork is gone.
    """
    threads = len(list(Path("/proc/self/task").iterdir()))
    known = 1 + ("PYTEST_XDIST_WORKER" in os.environ)  # its receiver, which only waits for orders
    assert threads <= known, f"a process with {threads} threads cannot be forked safely"
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _live(act, url, fault, writer)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as pipe:
            if meanwhile is not None:
                wait_until(lambda: _is_gone(pid) or meanwhile(), "the fork", every=0.002)
            lines = pipe.read().splitlines()
    except BaseException:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    account = Account(os.waitpid(pid, 0)[1])
    for line in lines:
        kind, value = json.loads(line)
        if kind == "answer":
            account.answers.append(value)
        else:
            setattr(account, kind, value)
    return account


def _is_gone(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _live(act: Act, url: str, fault: Fault | None, writer: int) -> NoReturn:
    """Be the fork: act, tell, and leave without a word to the runner's own machinery."""

    def tell(kind: str, value: object) -> None:
        os.write(writer, json.dumps([kind, value]).encode() + b"\n")

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    gc.disable()  # it would copy the runner's memory, page by page
    status = 1
    try:
        wire = Wire(fault, tell)
        act(CrashTarget(url, wire), lambda answer: tell("answer", answer))
        tell("commands", wire.commands)
        status = 0
    except BaseException:  # noqa: BLE001 - the parent shows it
        tell("error", traceback.format_exc())
    finally:
        os._exit(status)

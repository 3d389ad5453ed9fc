"""From fork to exit: the only place that forks.

Four rules. Refuse while another thread is alive. Block all signals across the fork, so that
none is lost before the child can hear it. In the child, let go of what is the parent's before
anything else. Leave by `os._exit`, never up the parent's stack.
"""

import _signal  # type: ignore[import-not-found]  # `signal` makes enums of what it is told
import contextlib
import ctypes
import errno
import faulthandler
import gc
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from forkresque import processes
from forkresque.errors import ConfigError, ExitCode, ForkresqueError
from forkresque.scoreboard import Seat

SOFT = signal.SIGRTMIN + 1  # to a worker: look into the pair, there is an order for the job
DUMP = signal.SIGRTMIN + 2  # to any child: write the stacks down
ORPHANED = signal.SIGRTMIN + 3  # to the clerk, from the kernel: the master is gone
# A terminal and a service manager signal everybody; what they mean is the master's to say.
_IGNORED = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGTSTP,
)
_PR_SET_PDEATHSIG = 1
_OOM_SCORE = 500
_NO_PIDFD = (errno.ENOSYS, errno.EPERM)  # an old kernel; a container that forbids what it ignores

# Looked up here and not in each child: what a child does first writes to pages, which are copied.
_prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)
_ALL_SIGNALS = frozenset(_signal.valid_signals())


class Forked(NamedTuple):
    """A new child, as its parent knows it. `start` is in clock ticks since boot."""

    pid: int
    start: int
    pidfd: int | None
    pair: socket.socket
    dump: int

    @classmethod
    def adopt(cls, pid: int, start: int, pair: int, dump: int) -> "Forked":
        """Return a child that the image before this one has forked, by its descriptors."""
        for number in (pair, dump):
            os.set_inheritable(number, False)
        return cls(pid, start, _pidfd(pid), socket.socket(fileno=pair), dump)

    def close(self) -> None:
        """Close the parent's descriptors."""
        self.pair.close()
        os.close(self.dump)
        if self.pidfd is not None:
            os.close(self.pidfd)


class Inheritance(NamedTuple):
    """What a child gets from its parent. Until it calls `listen` it hears no signal but DUMP."""

    parent: int
    pair: socket.socket
    seat: Seat
    mask: set[int]

    def listen(self) -> None:
        """Let signals in: the handlers are in place."""
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self.mask)

    @contextlib.contextmanager
    def importing(self) -> Iterator[None]:
        """Let signals in while an application is imported: what it starts inherits the mask.

        A child that is asked to leave meanwhile ends at once; it has nothing in hand.
        """
        self.listen()
        try:
            yield
        finally:
            _signal.pthread_sigmask(_signal.SIG_BLOCK, _ALL_SIGNALS)


def freeze_memory() -> None:
    """Make what is loaded now shared with all children for good.

    A full collection in a child writes to every object that it visits, and so copies every
    page; frozen objects are not visited.
    """
    gc.collect()
    gc.freeze()


def other_tasks() -> list[str]:
    """Return the names of this process' threads but the main one, also those of C libraries."""
    try:
        tasks = os.listdir("/proc/self/task")  # noqa: PTH208 - asked before each fork
    except OSError:
        return sorted(thread.name for thread in threading.enumerate())[1:]
    if len(tasks) == 1:
        return []
    known = {str(thread.native_id): thread.name for thread in threading.enumerate()}
    others = [Path("/proc/self/task", task) for task in tasks if task != str(os.getpid())]
    return sorted(known.get(task.name) or (task / "comm").read_text().strip() for task in others)


class Cradle(NamedTuple):
    """What a child needs that is not there yet: its seat, what it will do, and descriptors."""

    seat: Seat
    body: Callable[[Inheritance], int]
    death_signal: int
    ours: socket.socket
    theirs: socket.socket
    dump: int

    @classmethod
    def make(cls, seat: Seat, body: Callable[[Inheritance], int], *, death_signal: int) -> "Cradle":
        """Return one for a child that runs `body`. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.setblocking(False)
        try:
            dump = os.memfd_create("forkresque-dump")
        except OSError:
            ours.close()
            theirs.close()
            raise
        return cls(seat, body, death_signal, ours, theirs, dump)

    def close(self) -> None:
        """Close everything: there is no child, or it is not this process."""
        self.theirs.close()
        self.ours.close()
        os.close(self.dump)


def refuse_threads() -> None:
    """Raise ConfigError while another thread is alive: its locks would stay locked in a child."""
    if others := other_tasks():
        raise ConfigError(
            f"cannot fork while other threads are alive: {', '.join(others)}",
            hint="start with --no-preload, or start threads in the jobs, not at import",
        )


def spawn(
    seat: Seat,
    body: Callable[[Inheritance], int],
    *,
    let_go: Callable[[], None],
    death_signal: int,
) -> Forked:
    """Fork a child that runs `body` and exits with what it returns.

    `let_go` closes, in the child, what is the parent's own. Raises as `refuse_threads`, and
    OSError when the kernel refuses.
    """
    refuse_threads()
    (born,) = spawn_all([Cradle.make(seat, body, death_signal=death_signal)], let_go=let_go)
    if isinstance(born, OSError):
        raise born
    return born


def spawn_all(cradles: Sequence[Cradle], *, let_go: Callable[[], None]) -> list[Forked | OSError]:
    """Fork a child for each cradle, in a process of one thread; return each, or the refusal.

    All in one go: what their parent writes between two forks, an earlier child has for itself.
    """
    parent = os.getpid()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    pids: list[int | OSError] = []
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, _ALL_SIGNALS)
    try:
        for cradle in cradles:
            try:
                pid = os.fork()
            except OSError as error:
                pids.append(error)
                continue
            if pid == 0:
                _live(
                    Inheritance(parent, cradle.theirs, cradle.seat, before), cradle, cradles, let_go
                )
            pids.append(pid)
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
    return [_as_seen_by_parent(*each) for each in zip(pids, cradles, strict=True)]


def _as_seen_by_parent(pid: int | OSError, cradle: Cradle) -> Forked | OSError:
    if isinstance(pid, OSError):
        cradle.close()
        return pid
    with contextlib.suppress(OSError):  # the child does the same; whoever is first
        os.setpgid(pid, pid)
    start, pidfd = processes.start_of_child(pid), None
    try:
        pidfd = None if start is None else _pidfd(pid)
    except OSError:
        start = None
    if start is None:  # out of descriptors, most likely: its death could not be settled
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        cradle.close()
        return OSError(f"child {pid} cannot be looked after")
    cradle.theirs.close()
    cradle.seat.pid = pid
    return Forked(pid, start, pidfd, cradle.ours, cradle.dump)


def _pidfd(pid: int) -> int | None:
    """Return a descriptor that tells of a child's end, or None where only SIGCHLD does."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in _NO_PIDFD:
            return None
        raise


def _live(
    inherited: Inheritance, mine: Cradle, cradles: Sequence[Cradle], let_go: Callable[[], None]
) -> None:
    """Be the child, to its end. All `cradles` but `mine` are those of siblings."""
    code: int = ExitCode.INTERNAL
    try:
        die_with(inherited.parent, mine.death_signal)
        let_go()
        mine.ours.close()
        for cradle in cradles:
            if cradle is not mine:
                cradle.close()
        _settle_in(mine.dump)
        code = mine.body(inherited)
    except ForkresqueError as error:
        code = error.exit_code
        sys.stderr.write(f"error: {error}\n")
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else ExitCode.INTERNAL
    except BaseException:  # noqa: BLE001 - nothing may climb up the parent's stack
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)


def _settle_in(dump: int) -> None:
    """Make this process one of its own. The order matters."""
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    for signum in _IGNORED:
        _signal.signal(signum, _signal.SIG_IGN)
    faulthandler.register(DUMP, file=dump, all_threads=True)
    faulthandler.enable(file=dump, all_threads=True)
    # At once: a child that hangs in the import of its application must be able to say where.
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {DUMP})
    _let_the_kernel_choose_us()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def die_with(parent: int, signum: int) -> None:
    """Have the kernel send us `signum` when `parent` ends; leave at once if it has."""
    if _prctl is not None and sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(ExitCode.OK)  # it died before the kernel could know that we care


def _let_the_kernel_choose_us() -> None:
    """When memory runs out, a leaking child should go, and not the master."""
    with contextlib.suppress(OSError):
        score = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(score, b"%d" % min(1000, int(os.read(score, 16)) + _OOM_SCORE), 0)
        finally:
            os.close(score)

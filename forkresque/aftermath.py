"""What a job leaves behind in its process, put in order before the next one.

What can be restored for certain is restored. What cannot, or may have been used meanwhile,
makes the process unfit for more jobs. After every job we look at what a job changes in passing;
at what takes longer to look at, after jobs that took longer.
"""

import _signal  # type: ignore[import-not-found]  # `signal` makes an enum of every answer, which takes twenty times as long
import faulthandler
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from _thread import _count as running
from collections.abc import Iterable, Iterator
from time import monotonic_ns  # a job may patch the module
from typing import Any

Name = tuple[object, str]  # an object and the name of its attribute

_LONG_NS = 200_000  # a look takes a tenth of it, and hardly anything shorter starts a process
_EVERY = 64  # so that what short jobs have changed does not stay for ever
_TRIES = 5  # a handler that the job has left may raise in here
_NAMES: tuple[Name, ...] = (
    (time, "time"),
    (time, "sleep"),
    (time, "monotonic"),
    (time, "monotonic_ns"),
    (json, "loads"),
    (json, "dumps"),
    (socket, "socket"),
)
_CPU_TIMERS = (signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_LIMITS = (
    resource.RLIMIT_NOFILE,
    resource.RLIMIT_AS,
    resource.RLIMIT_DATA,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_CPU,
)
_REAL_TIME = range(signal.SIGRTMIN, signal.SIGRTMIN + 4)  # those that we use ourselves
_SIGNALS = (
    *sorted(signum for signum in map(int, signal.valid_signals()) if signum < 32),
    *_REAL_TIME,
)
# C code may have handled these, where Python's table does not tell.
_LOW_LEVEL = {
    signal.SIGSEGV,
    signal.SIGFPE,
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGILL,
    *_REAL_TIME,
}
_LOOP_THREADS = "asyncio_"  # of the event loop, which all jobs of a worker share


class Aftermath:
    """The state of this process before the first job, and how to get back to it.

    `names` are attributes, apart from some of the standard library, that no job may patch, and
    `footing` descriptors that none may close. Made in a thread other than the main one it does
    nothing: there the process is others'.
    """

    def __init__(self, names: Iterable[Name] = (), *, footing: Iterable[int] = ()) -> None:
        self._active = threading.current_thread() is threading.main_thread()
        self._names = [(owner, name, getattr(owner, name)) for owner, name in (*_NAMES, *names)]
        self._handlers = [*map(_signal.getsignal, _SIGNALS)]
        self._mask = _signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._umask = os.umask(0o77)
        os.umask(self._umask)
        self._directory = _directory()
        self._interpreter = _interpreter()
        self._streams = (sys.stdout, sys.stderr)
        self._files = _files()
        self._threads, self._running = threading.enumerate(), running()
        self._standing = _standing()
        self._childless = _is_childless()
        self._tells_of_crashes = faulthandler.is_enabled()
        self._alarm_is_free = not any(signal.getitimer(signal.ITIMER_REAL))
        self._cpu_timers = [which for which in _CPU_TIMERS if not any(signal.getitimer(which))]
        self._wakeup = -1
        if self._active:
            self._wakeup = signal.set_wakeup_fd(-1)
            signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        self._held = select.epoll()
        self._footing = tuple(footing)
        for number in self._footing:
            self._held.register(number, 0)
        self._ours = self._footing
        self._connection: socket.socket | None = None
        self._began_ns = 0
        self._jobs = 0

    def begin(self, connection: socket.socket | None) -> None:
        """Take note that a job begins; it must not close this `connection` either."""
        if connection is not self._connection:
            self._connection, self._ours = connection, self._footing
            if connection is not None:
                self._held.register(connection, 0)
                self._ours += (connection.fileno(),)
        self._began_ns = monotonic_ns()
        self._jobs += 1

    @property
    def holds_connection(self) -> bool:
        """Return whether the job has left the connection open, if there was one."""
        return self._connection is None or self.holds(self._connection.fileno())

    def holds(self, *numbers: int) -> bool:
        """Return whether descriptors are what they were, not closed and not used anew."""
        try:
            for number in numbers:
                self._held.modify(number, 0)  # the kernel knows it by its number and its file
        except (OSError, ValueError):  # a closed socket has the number -1
            return False
        return True

    def clear(self) -> str:
        """Restore what the job has changed; return why the process is unfit now, or ""."""
        if not self._active:
            return ""
        trouble = ""
        for _ in range(_TRIES):
            try:
                return ", ".join(self._restore())
            except BaseException as error:  # noqa: BLE001 - of a handler that the job has left
                trouble = f"it cannot be cleared: {type(error).__name__}"
        return trouble

    def close(self) -> None:
        """Let go of the descriptors."""
        self._held.close()

    def _restore(self) -> list[str]:
        faults: list[str] = []
        if [*map(_signal.getsignal, _SIGNALS)] != self._handlers:
            faults += self._restore_handlers()
        self._restore_signals()
        os.umask(self._umask)
        if _directory() != self._directory:
            faults += self._restore_directory()
        if _interpreter() != self._interpreter:
            self._restore_interpreter()
        if self._tells_of_crashes and not faulthandler.is_enabled():
            faults.append("it has switched the fault handler off")
        if running() != self._running:
            faults += self._strange_threads()
        if not self.holds(*self._ours):
            signal.set_wakeup_fd(-1)  # or a signal would write into whatever has the number
            return [*faults, "it has closed our descriptors"]
        if monotonic_ns() - self._began_ns > _LONG_NS or self._jobs % _EVERY == 0:
            faults += self._look_closely()
        return faults

    def _look_closely(self) -> Iterator[str]:
        if self._wakeup >= 0:
            signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        for which in self._cpu_timers:
            signal.setitimer(which, 0)
        sys.stdout, sys.stderr = self._streams
        if sys.stdout.closed or sys.stderr.closed:
            yield "it has closed its streams"
        for owner, name, original in self._names:
            if getattr(owner, name) is not original:
                setattr(owner, name, original)
                yield f"it has patched {name}"
        yield from self._strange_threads()
        yield from self._dealings()

    def _dealings(self) -> Iterator[str]:
        """Name what has changed between this process and the system."""
        if self._childless and not _is_childless(reaped=True):
            yield "it has left a process"
        if _standing() != self._standing:
            yield "it has changed its limits or privileges"
        if _files() != self._files:
            yield "it has closed its input or output"
        if self._is_crowded():
            yield "it has left too many files open"

    def _is_crowded(self) -> bool:
        """Return whether every second descriptor is taken."""
        try:
            lowest = os.dup(self._held.fileno())
        except OSError:
            return True
        os.close(lowest)
        return lowest > resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2

    def _restore_handlers(self) -> Iterator[str]:
        for signum, handler in zip(_SIGNALS, self._handlers, strict=True):
            if _signal.getsignal(signum) != handler:
                if handler is not None:
                    signal.signal(signum, handler)
                if handler is None or signum in _LOW_LEVEL:
                    yield f"it has replaced the handler of signal {signum}"

    def _restore_signals(self) -> None:
        if self._alarm_is_free:
            signal.alarm(0)
        if _signal.pthread_sigmask(signal.SIG_BLOCK, ()) == self._mask:
            return
        for signum in signal.sigpending() - self._mask:
            if signal.getsignal(signum) is signal.SIG_DFL:
                signal.sigtimedwait({signum}, 0)  # it was the job's, and would be the end of us
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _restore_interpreter(self) -> None:
        trace, profile, collects, depth = self._interpreter
        sys.settrace(trace)
        sys.setprofile(profile)
        (gc.enable if collects else gc.disable)()
        sys.setrecursionlimit(depth)

    def _restore_directory(self) -> Iterator[str]:
        try:
            os.chdir(self._directory)
        except OSError as error:
            yield f"there is no way back to its directory: {error}"

    def _strange_threads(self) -> Iterator[str]:
        """Name new threads. A daemon thread is meant to stay, by whoever started it."""
        threads = threading.enumerate()
        for thread in threads:
            known = thread in self._threads or thread.daemon
            if not known and not thread.name.startswith(_LOOP_THREADS):
                yield f"it has left the thread {thread.name}"
        self._threads, self._running = threads, running()


def _directory() -> str:
    """Return the working directory, "" when it is gone."""
    try:
        return os.getcwd()  # noqa: PTH109 - asked after every job, and half as long
    except OSError:
        return ""


def _interpreter() -> tuple[Any, Any, bool, int]:
    """Return what traces and profiles this thread, whether garbage is collected, and the limit."""
    return sys.gettrace(), sys.getprofile(), gc.isenabled(), sys.getrecursionlimit()


def _standing() -> tuple[object, ...]:
    """Return what this process may do in the eyes of the kernel."""
    limits = tuple(map(resource.getrlimit, _LIMITS))
    return os.geteuid(), os.getegid(), os.getpriority(os.PRIO_PROCESS, 0), limits


def _files() -> list[tuple[int, int]]:
    """Return which files standard input, output and error are; none are told if one is closed."""
    try:
        found = [os.fstat(number) for number in range(3)]
    except OSError:
        return []
    return [(file.st_dev, file.st_ino) for file in found]


def _is_childless(*, reaped: bool = False) -> bool:
    """Return whether this process has no child, not even a dead one that is not `reaped` here.

    A worker is a subreaper: what has lost its parent in a job, and ended, is a dead child of it.
    """
    how = os.WEXITED | os.WNOHANG | (0 if reaped else os.WNOWAIT)
    try:
        while os.waitid(os.P_ALL, 0, how) and reaped:
            pass
    except ChildProcessError:
        return True
    return False

"""What one image of a master leaves to the next, which runs the same pid with newer code.

An `execve` keeps the process, its children and the descriptors that are inheritable, and nothing
else. So the state goes, as JSON, into a descriptor that the next image finds by its name.
"""

import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forkresque.scoreboard import LAYOUT

_NAME = "forkresque-handover"
_DESCRIPTORS = Path("/proc/self/fd")
_NOT_NOTED = {  # cannot be caught; harms nobody; is the fault of the instruction that runs
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGSEGV, signal.SIGBUS),
    *(signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS),
}

State = dict[str, Any]


@contextmanager
def left(state: State, descriptors: Iterable[int]) -> Iterator[None]:
    """Leave `state` and descriptors to the image that is executed inside; else take them back."""
    memory = os.memfd_create(_NAME)
    numbers = [*descriptors, memory]
    try:
        os.write(memory, json.dumps({"layout": LAYOUT, **state}).encode())
        for number in numbers:
            os.set_inheritable(number, True)
        yield
    finally:
        for number in numbers:
            os.set_inheritable(number, False)
        os.close(memory)


def found() -> State | None:
    """Return what the image before this one has left, once; None in a process of its own."""
    state = _state()
    if (memory := _descriptor()) is not None:
        os.close(memory)
    return state


def is_left() -> bool:
    """Return whether this process was somebody before, who has left something."""
    return _descriptor() is not None


@contextmanager
def hearing() -> Iterator[None]:
    """Have signals wait in this process, and not in the kernel, while an application is imported.

    In the next image they are blocked until it can obey them, and what the import starts would
    inherit that: a helper that no TERM could ever end. Those noted inside are pending afterwards.
    """
    state = _state()
    if state is None:
        yield
        return
    noted: list[int] = []
    signals = signal.valid_signals() - _NOT_NOTED
    before = {int(signum): signal.getsignal(signum) for signum in signals}
    before = {number: was for number, was in before.items() if was not in (None, signal.SIG_IGN)}
    for number in before:
        signal.signal(number, lambda number, _frame: noted.append(number))
    signal.pthread_sigmask(signal.SIG_SETMASK, state["mask"])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        for number in set(noted):
            os.kill(os.getpid(), number)
        for number, was in before.items():
            signal.signal(number, was)


def _state() -> State | None:
    memory = _descriptor()
    if memory is None:
        return None
    state: State = json.loads(os.pread(memory, os.fstat(memory).st_size, 0))
    return state


def _descriptor() -> int | None:
    if not _DESCRIPTORS.exists():
        return None
    for entry in _DESCRIPTORS.iterdir():
        try:
            target = os.readlink(entry)  # noqa: PTH115 - there is no file at the other end
        except OSError:  # the descriptor by which we list
            continue
        if target.startswith(f"/memfd:{_NAME} "):
            return int(entry.name)
    return None


def execute(
    state: State, descriptors: Iterable[int], argv: list[str], *, heard: Callable[[], Iterable[int]]
) -> None:
    """Become the next image. Returns only by raising OSError, with everything as it was.

    Signals stay blocked until that image can hear them, so none is lost meanwhile. `heard` returns
    those that this image has heard and not obeyed: they are sent again, for the next one.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    mask = sorted(map(int, before))
    try:
        for signum in heard():
            os.kill(os.getpid(), signum)
        with left({**state, "mask": mask}, descriptors):
            os.execv(argv[0], argv)  # noqa: S606 - our own interpreter and arguments
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

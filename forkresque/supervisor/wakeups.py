"""Signals as bytes in a pipe, so that one `select` hears them with everything else.

The handler only takes a note; the byte is a hint, and may be lost in a full pipe without harm.
A pipe and not a socket pair, which holds only some 278 bytes.
"""

import _signal  # type: ignore[import-not-found]  # `signal` makes enums of what it is told
import contextlib
import os
import signal
from collections.abc import Callable, Iterable
from types import FrameType


class Wakeups:
    """Hears signals, for the main thread of one process."""

    def __init__(self, signals: Iterable[int]) -> None:
        self._signals = tuple(signals)
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._pending: set[int] = set()
        self._also: Callable[[], None] | None = None

    def install(self, also: Callable[[], None] | None = None) -> None:
        """Hear the signals from now on; call `also` for each, in its handler."""
        self._also = also
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for signum in self._signals:
            signal.signal(signum, self._note)

    def fileno(self) -> int:
        """Return what is readable when a signal has come."""
        return self._reader

    def take(self) -> set[int]:
        """Return the signals that have come, each once, and forget them."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass
        pending, self._pending = self._pending, set()
        return pending

    @property
    def has_news(self) -> bool:
        """Return whether a signal has come, without asking the kernel."""
        return bool(self._pending)

    def close_in_child(self) -> None:
        """Let go of a parent's wakeups after a fork: its signals are none of ours."""
        signal.set_wakeup_fd(-1)
        for signum in self._signals:
            _signal.signal(signum, _signal.SIG_DFL)
        os.close(self._reader)
        os.close(self._writer)

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        self._pending.add(signum)
        if self._also is not None:
            self._also()

"""What a program needs that has a master beside it, or is one for a while."""

import gc
import os
import select
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from setproctitle import getproctitle, setproctitle

from forkresque.supervisor.child import Forked

_LONGEST_DIRECTORY = 80  # bytes; the address of a Unix socket may have some 100


@dataclass(slots=True)
class Started:
    """A master that was started, as its owner knows it."""

    forked: Forked
    owner: int
    undo: ExitStack
    ended: bool = False
    exit_code: int | None = None

    def look(self) -> bool:
        """Return whether the master is there still; collect its status if it is not."""
        if self.ended or os.getpid() != self.owner:
            return not self.ended
        try:
            pid, status = os.waitpid(self.forked.pid, os.WNOHANG)
        except ChildProcessError:  # somebody else has collected it
            self.ended = True
            return False
        if pid:
            self.ended, self.exit_code = True, os.waitstatus_to_exitcode(status)
        return not self.ended

    def rest(self, timeout: float) -> None:
        """Wait so long, or until the master ends, where that can be heard."""
        if self.forked.pidfd is None:
            threading.Event().wait(timeout)
        else:
            poll = select.poll()
            poll.register(self.forked.pidfd, select.POLLIN)
            poll.poll(timeout * 1000)


def private_directory() -> Path:
    """Return a new directory for a control socket, where its path is short enough for one."""
    directory = Path(tempfile.mkdtemp(prefix="forkresque-"))
    if len(os.fsencode(directory)) <= _LONGEST_DIRECTORY:
        return directory
    directory.rmdir()
    return Path(tempfile.mkdtemp(prefix="forkresque-", dir="/tmp"))


def oom_score() -> str:
    """Return how readily the kernel ends this process when memory runs out, or ""."""
    try:
        return Path("/proc/self/oom_score_adj").read_text()
    except OSError:
        return ""


@contextmanager
def borrowed_process() -> Iterator[None]:
    """Give this process its signals, title and garbage collector back at the end."""
    handlers = {signum: signal.getsignal(signum) for signum in signal.valid_signals()}
    wakeup, title, frozen = signal.set_wakeup_fd(-1), getproctitle(), gc.get_freeze_count()
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            if handler is not None and signal.getsignal(signum) is not handler:
                signal.signal(signum, handler)
        signal.set_wakeup_fd(wakeup)
        setproctitle(title)
        if not frozen:
            gc.unfreeze()

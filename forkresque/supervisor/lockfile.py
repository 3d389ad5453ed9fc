"""The lock beside a file that only one master may use.

It decides alone who that is. What the file holds proves nothing: a socket or a pid may be a dead
master's, and the kernel may have given the pid to another process meanwhile.
"""

import contextlib
import fcntl
import os
from pathlib import Path

from forkresque.errors import ExitCode, ForkresqueError

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Locked(ForkresqueError):
    """Another master holds a file that only one may use."""

    exit_code = ExitCode.LOCKED


class LockFile:
    """The lock of `guarded`, in a file of that name and `.lock`. `fd` holds it; None without it.

    It survives an `execve` if `fd` is made inheritable before it and given to a new object after
    it. `flag` is the option that names the file.
    """

    def __init__(self, guarded: Path, *, flag: str, fd: int | None = None) -> None:
        self.path = guarded.with_name(guarded.name + ".lock")
        self.fd = fd
        self._guarded = guarded
        self._flag = flag
        if fd is not None:
            os.set_inheritable(fd, False)

    def take(self) -> None:
        """Take the lock, unless we have it. Raises Locked, or OSError where there can be none."""
        if self.fd is not None and self._is_current(self.fd):
            return
        self.close_in_child()  # of a file that somebody has removed: it guards nothing
        while self.fd is None:
            fd = os.open(self.path, _FLAGS, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_current(fd):
                    self.fd = fd
            except BlockingIOError:
                raise Locked(
                    f"another master holds {self._guarded}",
                    hint=f"stop it with forkresque drain, or give another {self._flag} PATH",
                ) from None
            finally:
                if self.fd is None:
                    os.close(fd)

    def give_up(self) -> None:
        """Remove the lock's file and let go of it."""
        if self.fd is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()  # while we hold it: who opened it before looks again
        self.close_in_child()

    def close_in_child(self) -> None:
        """Let go of it in a new child, which would otherwise hold it after our death."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def _is_current(self, fd: int) -> bool:
        """Return whether an open file is the lock's still, and not one that was removed."""
        ours = os.fstat(fd)
        try:
            found = self.path.stat(follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (ours.st_dev, ours.st_ino) == (found.st_dev, found.st_ino)

"""A file with the master's pid, and the lock that makes it the only one.

The lock comes first and decides alone: a pid in the file proves nothing, since the kernel may
have given it to another process meanwhile. The file is for people and old scripts.
"""

import contextlib
import errno
import fcntl
import logging
import os
from pathlib import Path

from forkresque.errors import ConfigError
from forkresque.supervisor.control import Locked

log = logging.getLogger("forkresque.pidfile")

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOLCK)
_LONGEST = 32  # bytes of a pidfile
_READ_ONLY_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not hold us up


class Pidfile:
    """The pidfile of this process. `fd` holds its lock; None without one.

    The lock survives an `execve` if `fd` is made inheritable before it and given to a new
    object after it, which takes the file over by `reopen`.
    """

    def __init__(self, path: Path, *, fd: int | None = None) -> None:
        self._path = path
        self._lock = path.with_name(path.name + ".lock")
        self.fd = fd
        if fd is not None:
            os.set_inheritable(fd, False)

    def open(self) -> None:
        """Take the lock and write the file; warn and go on if the disk does not take them.

        Raises Locked if another process has the lock, and ConfigError if the path cannot be
        meant; neither changes a file.
        """
        if self.fd is not None and not self._is_lock(self.fd):
            self.close_in_child()  # somebody has removed the file: it guards nothing
        if self.fd is None and not self._take_lock():
            return
        try:
            self._refuse_what_is_no_pidfile()
            self._write()
        except ConfigError:
            self.close()
            raise
        except OSError as error:
            log.warning("runs without pidfile: cannot write %s: %s", self._path, error)

    def reopen(self) -> None:
        """Go on with the file after an `execve`: what is in the way now costs only the file."""
        try:
            self.open()
        except (ConfigError, Locked) as error:
            log.warning("runs without pidfile: %s", error)

    def close(self) -> None:
        """Remove the file if it is ours, and give up the lock."""
        if self.fd is None:
            return
        with contextlib.suppress(OSError):
            if _content(self._path).strip() == str(os.getpid()).encode():
                self._path.unlink()
        with contextlib.suppress(OSError):
            self._lock.unlink()  # while we hold it: who opened it before looks again
        self.close_in_child()

    def close_in_child(self) -> None:
        """Let go of the lock in a new child, which would otherwise hold it after our death."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def _take_lock(self) -> bool:
        """Return whether we have the lock now, or False if the disk does not take one."""
        while True:
            try:
                fd = os.open(
                    self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
                )
            except OSError as error:
                return self._go_without(error)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_lock(fd):
                    self.fd = fd
                    return True
            except BlockingIOError:
                os.close(fd)
                raise self._locked() from None
            except OSError as error:
                os.close(fd)
                return self._go_without(error)
            os.close(fd)  # its last holder has removed it: it guards nothing

    def _is_lock(self, fd: int) -> bool:
        """Return whether an open file is the lock still, and not one that was removed."""
        ours = os.fstat(fd)
        try:
            found = self._lock.stat(follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (ours.st_dev, ours.st_ino) == (found.st_dev, found.st_ino)

    def _locked(self) -> Locked:
        return Locked(
            f"another master holds {self._path}",
            hint="stop it with forkresque drain, or give another --pidfile PATH",
        )

    def _go_without(self, error: OSError) -> bool:
        """Warn, and return False; raise ConfigError for a path that cannot be meant."""
        if error.errno not in _NO_ROOM or os.path.lexists(self._lock):
            raise ConfigError(
                f"cannot lock {self._lock}: {error.strerror}",
                hint="give a --pidfile PATH in a directory of this user",
            ) from error
        log.warning("runs without pidfile: cannot lock %s: %s", self._lock, error.strerror)
        return False

    def _refuse_what_is_no_pidfile(self) -> None:
        """Raise ConfigError for what somebody else may need; a stale pid is nobody's."""
        with contextlib.suppress(FileNotFoundError):
            if self._path.is_file():
                content = _content(self._path).strip()
                if not content or (content.isdigit() and len(content) < _LONGEST):
                    return
            elif not self._path.exists() and not self._path.is_symlink():
                return
            raise ConfigError(
                f"{self._path} is there already, and is no pidfile",
                hint="remove it, or give another --pidfile PATH",
            )

    def _write(self) -> None:
        """Replace the file in one step. Raises OSError."""
        fresh = self._path.with_name(self._path.name + ".new")
        fresh.unlink(missing_ok=True)  # a dead master's; we hold the lock
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(b"%d\n" % os.getpid())
            fresh.rename(self._path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise


def _content(path: Path) -> bytes:
    fd = os.open(path, _READ_ONLY_FLAGS)
    with os.fdopen(fd, "rb") as file:
        return file.read(_LONGEST)

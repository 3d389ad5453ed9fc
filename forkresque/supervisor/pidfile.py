"""A file with the master's pid, for people and old scripts.

What it says decides nothing: its lock does.
"""

import contextlib
import errno
import logging
import os
from pathlib import Path

from forkresque.errors import ConfigError
from forkresque.supervisor.lockfile import Locked, LockFile

log = logging.getLogger("forkresque.pidfile")

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOLCK)
_LONGEST = 32  # bytes of a pidfile
_READ_ONLY_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not hold us up


class Pidfile:
    """The pidfile of this process. `fd` holds its lock, as in LockFile.

    After an `execve` a new object takes the file over by `reopen`.
    """

    def __init__(self, path: Path, *, fd: int | None = None) -> None:
        self._path = path
        self._lock = LockFile(path, flag="--pidfile", fd=fd)

    @property
    def fd(self) -> int | None:
        """Return the descriptor that holds the lock, or None without one."""
        return self._lock.fd

    def open(self) -> None:
        """Take the lock and write the file; warn and go on if the disk does not take them.

        Raises Locked if another process has the lock, and ConfigError if the path cannot be
        meant; neither changes a file.
        """
        try:
            self._lock.take()
        except OSError as error:
            self._go_without(error)
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
        if self.fd is not None:
            with contextlib.suppress(OSError):
                if _content(self._path).strip() == str(os.getpid()).encode():
                    self._path.unlink()
        self._lock.give_up()

    def close_in_child(self) -> None:
        """Let go of the lock in a new child, which would otherwise hold it after our death."""
        self._lock.close_in_child()

    def _go_without(self, error: OSError) -> None:
        """Warn of a disk that takes no lock; raise ConfigError for a path that cannot be meant."""
        if error.errno not in _NO_ROOM or os.path.lexists(self._lock.path):
            raise ConfigError(
                f"cannot lock {self._lock.path}: {error.strerror}",
                hint="give a --pidfile PATH in a directory of this user",
            ) from error
        log.warning("runs without pidfile: cannot lock %s: %s", self._lock.path, error.strerror)

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

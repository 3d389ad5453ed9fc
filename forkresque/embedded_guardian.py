"""What stands by an embedded server: launches it, waits for its last user to leave, stops it.

`embedded.py` runs this file by its path, in a Python without site-packages, and imports from
it what both sides must agree on. Standard library only, and little: it lives as long as the
server does.

Five locks (flock) and a rule say who may do what:

    start.lock     exclusive while somebody joins, launches or stops; all else is decided under it
    users.lock     shared, by every user; asked for exclusively only under start.lock
    bell.lock      shared, by every user; the guardian sleeps on it, so that nobody else meets
                   the guardian's sleep when asking whether users.lock is free
    guardian.lock  exclusive, by the guardian, until all that it stops and removes is gone
    server.lock    exclusive, by the server, which inherited it; free means no server runs

The kernel drops a lock with the last descriptor of it, so no SIGKILL leaves one behind.
"""

import fcntl
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

START, USERS, BELL = "start.lock", "users.lock", "bell.lock"
GUARDIAN, SERVER = "guardian.lock", "server.lock"
PID, LOG, ADDRESS, TEMPORARY = "server.pid", "server.log", "server.address", "temporary"

TERM_PATIENCE = 5.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open the lock file at `path`; closing it gives up what is held through it."""
    lock = open_lock(path)
    try:
        yield lock
    finally:
        os.close(lock)


def open_lock(path: Path) -> int:
    """Return a new descriptor of the lock file at `path`, not locked and not inheritable."""
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def try_lock(lock: int) -> bool:
    """Take an exclusive lock if nobody is in the way; tell whether it is ours."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for(condition: Callable[[], bool], *, deadline: float) -> bool:
    """Ask `condition` until it holds or `deadline` (monotonic) has passed; tell which."""
    while not condition():
        if time.monotonic() >= deadline:
            return False
        select.select([], [], [], 0.005)
    return True


def is_at(lock: int, path: Path) -> bool:
    """Tell whether `path` still names the file that `lock` is a descriptor of."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(lock), path.stat())
    return False


def write_address(home: Path, address: Path) -> None:
    """Note where the server in `home` can be reached."""
    (home / ADDRESS).write_bytes(os.fsencode(f"{home}\n{address}"))


def read_address(home: Path) -> Path | None:
    """Return where the server in `home` can be reached, if one was launched here.

    A note that came with a copy of another directory means that one's server, not ours.
    """
    with suppress(FileNotFoundError):
        noted, _, address = os.fsdecode((home / ADDRESS).read_bytes()).rpartition("\n")
        return Path(address) if noted == str(home) else None
    return None


def read_pid(home: Path) -> int:
    """Return the pid that the server in `home` wrote, or 0 if it has written none."""
    with suppress(FileNotFoundError):
        return int((home / PID).read_text() or 0)
    return 0


def clear(home: Path) -> None:
    """Remove what belongs to one run of a server: its socket, its address, its pid."""
    if address := read_address(home):
        address.unlink(missing_ok=True)
        if address.parent != home:
            with suppress(OSError):
                address.parent.rmdir()
    (home / ADDRESS).unlink(missing_ok=True)
    (home / PID).unlink(missing_ok=True)


def main(home: Path, guardian: int, server: int, command: list[str]) -> None:
    """Guard the server in `home`; with a `command`, launch it first.

    `guardian` and `server` are inherited descriptors of the locks with these names. Without
    a command a server runs already, and the guardian that launched it was killed.
    """
    os.set_inheritable(guardian, False)
    # Opened now, because somebody may delete the directory under a running server.
    with opened(home / START) as start, opened(home / SERVER) as lock:
        # A service manager sends TERM to everybody at once; the last user is yet to leave.
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_IGN)
        child = launch(command, server)
        wait_until_unused(home, start)
        stop(home, lock, child=child)
        if is_at(start, home / START):
            tidy(home)
        # This before start.lock: who joins next must not take us for its guardian.
        os.close(guardian)
        os._exit(0)


def launch(command: list[str], lock: int) -> int:
    """Run `command` with `lock` as its heirloom and return its pid, or 0 when nothing runs.

    Why it could not be run goes to the log. The starter learns it from the lock being free.
    """
    child = 0
    try:
        if command:
            # We ignore what stops a server, and a supervisor that starts us may block it.
            child = os.posix_spawn(
                command[0], command, os.environ, setsigmask=(), setsigdef=SIGNALS
            )
    except OSError as error:
        sys.stderr.write(f"{error}\n")
    os.close(lock)
    return child


def wait_until_unused(home: Path, start: int) -> None:
    """Return when the server has no user, with the lock `start` held so that none can come."""
    with opened(home / BELL) as bell, opened(home / USERS) as users:
        while True:
            fcntl.flock(bell, fcntl.LOCK_EX)
            fcntl.flock(bell, fcntl.LOCK_UN)  # a joiner waits for this one holding start.lock
            fcntl.flock(start, fcntl.LOCK_EX)
            if try_lock(users):
                return
            fcntl.flock(start, fcntl.LOCK_UN)


def stop(home: Path, lock: int, *, child: int) -> None:
    """Stop the server that holds `lock`, politely for five seconds; return when it is gone.

    `child` is the server that this process launched, or 0.
    """
    for signum in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + TERM_PATIENCE
        wait_for(lambda: try_lock(lock) or bool(read_pid(home) or child), deadline=deadline)
        # While the lock is held, the pid is the server's: it wrote it, and it lives.
        if not try_lock(lock) and (pid := read_pid(home) or child):
            with suppress(ProcessLookupError):
                os.kill(pid, signum)
        if wait_for(lambda: try_lock(lock), deadline=deadline):
            break
    if child:
        os.waitpid(child, 0)


def tidy(home: Path) -> None:
    """Remove the traces of the run, and all of `home` if it was made for this run only."""
    clear(home)
    if (home / TEMPORARY).exists():
        # Renamed first: who comes to this path meanwhile finds all of it or nothing.
        shutil.rmtree(home.rename(f"{home}.gone"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])

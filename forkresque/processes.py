"""Which process is which, so that a pid used twice is never taken for the first one."""

import os
import re
import socket
from functools import cache
from pathlib import Path

_PROCESS = re.compile("[0-9]{1,18} [0-9]{1,18}")


def start_of(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot, or None if there is none.

    A zombie counts as none: it runs nothing any more.
    """
    state, start = _look(pid)
    return None if state in (b"Z", b"X") else start


def start_of_child(pid: int) -> int | None:
    """Return the same for a child that was not reaped yet, though it be dead: it may have worked.

    Its pid is nobody else's. None means that we could not look, for want of a descriptor.
    """
    return _look(pid)[1]


def describe(pid: int) -> str:
    """Return a text that no other process of any host ever has: boot, PID namespace, pid, start."""
    return f"{_boot()} {_namespace()} {pid} {start_of(pid) or 0}"


def is_ours_to_judge(described: str) -> bool:
    """Return whether a described process would be visible from here: same boot and namespace.

    Of what `describe` has not written, nothing is known.
    """
    here = f"{_boot()} {_namespace()} "
    return described.startswith(here) and bool(_PROCESS.fullmatch(described[len(here) :]))


def is_alive(pid: int, start: int) -> bool:
    """Return whether the process with this pid is the one that started then."""
    return start_of(pid) == start


def is_described_alive(described: str) -> bool:
    """Return whether a process described here is alive still."""
    pid, start = described.split(" ")[2:]
    return is_alive(int(pid), int(start))


def host_label(configured: str = "") -> str:
    """Return what names this host in Redis: the first part of the ids of its workers."""
    return configured or socket.gethostname().replace(":", "-") or "localhost"


def _look(pid: int) -> tuple[bytes, int | None]:
    """Return the state of a process, and when it started."""
    try:
        stat = _stat(pid)
    except OSError:
        return b"", _start_by_psutil(pid) if not Path("/proc/self").exists() else None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return fields[0], int(fields[19])


def _stat(pid: int) -> bytes:
    """Return what the kernel says of a process: a few system calls, where a Path takes a dozen."""
    descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def _start_by_psutil(pid: int) -> int | None:
    import psutil  # here, since nobody needs it where there is /proc

    try:
        return int(psutil.Process(pid).create_time() * 100)
    except psutil.Error:
        return None


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        import psutil

        return str(int(psutil.boot_time()))


@cache
def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid").strip("pid:[]")  # noqa: PTH115 - no file there
    except OSError:
        return "0"

"""Processes under test: start them, count what they use, end them and all they have started."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tests.support.servers import dying_with_runner

ROOT = Path(__file__).resolve().parent.parent.parent
_TICKS = os.sysconf("SC_CLK_TCK")


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process under test: ours, the checkout, and `extra`."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **extra}


def spawn(
    argv: Sequence[str], extra: Mapping[str, str], log: Path, *, guarded: bool = True
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own; what it says goes to `log`.

    It dies with the script, unless not `guarded`: that costs a small Python before the command,
    some 15 ms, which no measured start-up should have.
    """
    with log.open("ab") as file:
        return subprocess.Popen(
            dying_with_runner(argv, signal.SIGKILL) if guarded else argv,
            cwd=ROOT,
            env=environment(extra),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def family(pid: int) -> list[int]:
    """Return the pids of a process and its descendants, or nothing if it is gone."""
    try:
        root = psutil.Process(pid)
        return [root.pid, *(child.pid for child in root.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def kill(process: "subprocess.Popen[bytes]") -> None:
    """End a command, its descendants and its session at once."""
    members = family(process.pid)
    process.kill()
    for pid in members:
        _kill(pid)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and (left := list(_session(process.pid))):
        for pid in left:
            _kill(pid)
        time.sleep(0.002)
    process.wait(5)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _session(leader: int) -> Iterator[int]:
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == leader and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                yield pid
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return what these processes, and the children they have reaped, have used so far."""
    return sum(_own_seconds(pid) + _reaped_seconds(pid) for pid in pids)


def _own_seconds(pid: int) -> float:
    """Read the process' CPU clock, which counts ns and its ended threads, unlike /proc."""
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0


def _reaped_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[13]) + int(fields[14])) / _TICKS

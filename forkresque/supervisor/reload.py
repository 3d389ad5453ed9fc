"""New code is tried in a process of its own before it takes the place of the old."""

import contextlib
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from forkresque.errors import ConfigError
from forkresque.options import variable
from forkresque.scoreboard import MOST_POOLS
from forkresque.supervisor.child import die_with

CHECK = variable("check")  # its value is the Fitness that is asked for
SPARE = 8  # seats for the clerk, the watcher and replacements
_TOLD_BYTES, _TOLD_LINES = 16 * 1024, 20


def argv() -> list[str]:
    """Return the command line by which this process was started."""
    return [sys.executable, *sys.orig_argv[1:]]


class Fitness(NamedTuple):
    """What a master needs of its next image, as one word of text."""

    layout: int
    seats: int
    pools: int

    @classmethod
    def parse(cls, text: str) -> "Fitness":
        """Read what `str` has written; other code may write something else: ConfigError."""
        try:
            layout, seats, pools = map(int, text.split(":"))
        except ValueError:
            raise ConfigError(
                f"the old code wants {text!r} of the new, which does not know what that is",
                hint="restart instead of reloading",
            ) from None
        return cls(layout, seats, pools)

    def __str__(self) -> str:
        return f"{self.layout}:{self.seats}:{self.pools}"

    def check(self, layout: int, workers: int, pools: int) -> None:
        """Raise ConfigError if code of this layout, with so many workers, cannot take over.

        Pools of before keep their numbers, so new ones come on top.
        """
        if layout != self.layout:
            raise ConfigError(
                f"the new code has layout {layout} of the shared memory, the old one {self.layout}",
                hint="restart instead of reloading",
            )
        if workers + SPARE > self.seats:
            raise ConfigError(
                f"{workers} workers need more seats than the {self.seats} there are",
                hint="restart instead of reloading",
            )
        if pools + self.pools > MOST_POOLS:
            raise ConfigError(
                f"{pools} pools after {self.pools} that were need more than {MOST_POOLS} numbers",
                hint="restart instead of reloading",
            )


class Workplace:
    """The working directory, by the name under which it was entered.

    A deployment that moves a symbolic link gives that name another meaning, which a reload follows.
    """

    def __init__(self) -> None:
        name = os.environ.get("PWD", "")
        same = bool(name) and Path(name).exists() and Path(name).samefile(".")
        self.path = name if same else str(Path.cwd())

    def enter(self) -> None:
        """Go to what the name means now, if it is there."""
        with contextlib.suppress(OSError):
            os.chdir(self.path)


class Check:
    """One attempt to import the application anew. `refusal` says why it failed, if it did."""

    def __init__(self, place: Workplace, wanted: Fitness, *, deadline: float) -> None:
        self.deadline = deadline
        self._timed_out = False
        self.told = os.memfd_create("forkresque-check")
        master = os.getpid()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                argv(),
                env=os.environ | {CHECK: str(wanted)},
                cwd=place.path,
                stdin=subprocess.DEVNULL,
                stdout=self.told,
                stderr=self.told,
                start_new_session=True,
                preexec_fn=lambda: die_with(master, signal.SIGKILL),
            )
        except OSError:
            os.close(self.told)
            raise

    @property
    def pid(self) -> int:
        """Return the pid of the process that tries."""
        return self._process.pid

    def time_out(self) -> None:
        """End it, because it takes too long."""
        self._timed_out = True
        self.kill()

    def kill(self) -> None:
        """End it; it is reaped like a child."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def ended(self, status: int) -> str:
        """Take note of its end, and return why the new code is refused, or ""."""
        code = self._process.returncode = os.waitstatus_to_exitcode(status)
        raw = os.pread(self.told, _TOLD_BYTES, max(0, os.fstat(self.told).st_size - _TOLD_BYTES))
        os.close(self.told)
        if code == 0:
            return ""
        if self._timed_out:
            return "the new code takes longer to import than --boot-timeout allows"
        lines = raw.decode("utf-8", "replace").strip().splitlines()[-_TOLD_LINES:]
        return "\n".join(lines) or f"the check ended with {code}"


class Reload:
    """Where a reload stands: "none", "checking", "refused" with a reason, or the new code runs."""

    def __init__(self, *, pinned: str = "", broken: str = "") -> None:
        self._pinned = pinned
        self._place = Workplace()
        self._check: Check | None = None
        self._again = False
        self.state = "refused" if broken else "none"
        self.reason = broken

    def begin(self, now: float, wanted: Fitness, *, within: float) -> None:
        """Try the new code; whoever asks meanwhile will have it tried once more."""
        if self._pinned:
            self.refuse(self._pinned)
        elif self._check:
            self._again = True
        else:
            self.state, self.reason, self._again = "checking", "", False
            try:
                self._check = Check(self._place, wanted, deadline=now + within)
            except OSError as error:
                self.refuse(f"the check cannot be started: {error}")

    def refuse(self, reason: str) -> None:
        """Stay with the old code."""
        self.state, self.reason = "refused", reason

    @property
    def pids(self) -> set[int]:
        """Return the pid of the process that tries the new code, while there is one."""
        return {self._check.pid} if self._check else set()

    def is_check(self, pid: int) -> bool:
        """Return whether a process is the one that tries the new code."""
        return self._check is not None and self._check.pid == pid

    def checked(self, status: int) -> bool:
        """Take note of the end of the check; return whether the new code may take over."""
        check, self._check = self._check, None
        reason = check.ended(status) if check else "there was no check"
        if reason:
            self.refuse(reason)
        return not reason

    def is_wanted_again(self) -> bool:
        """Return, once, whether a reload was asked for during the last check."""
        again, self._again = self._again, False
        return again

    def pause(self, now: float) -> float:
        """Return how many seconds the check may still take; end it when they are over."""
        if self._check is None:
            return math.inf
        if now >= self._check.deadline:
            self._check.time_out()
            return math.inf  # its end is heard
        return self._check.deadline - now

    def cancel(self) -> None:
        """End a check that nobody waits for any more."""
        if self._check:
            self._check.kill()

    def go(self) -> None:
        """Enter the directory in which the new code starts."""
        self._place.enter()

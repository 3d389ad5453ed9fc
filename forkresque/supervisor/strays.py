"""Ends the processes that jobs have left behind, beyond their process groups."""

import contextlib
import logging
import math
import os
import select
import signal
from collections.abc import Collection
from pathlib import Path

from forkresque import processes
from forkresque.policy.strays import Process, Strays
from forkresque.supervisor.resources import children_of, strangers

log = logging.getLogger("forkresque.master")

StrayState = dict[str, list[tuple[int, int]]]

EVERY = 1.0  # seconds between looks
AGAIN = 0.1  # the same at least, while one that was killed does not end
_STAY = b"FORKRESQUE_STAY=1"
_ROUNDS = 10  # at the end: each takes those whose parent the one before has ended
_PATIENCE = 0.5  # seconds until a process that is killed must be gone, then


class Leftovers:
    """What is below this master and not its own. The master and its workers are subreapers.

    `state` is what an image before this one has handed over. A process that must outlive the job
    that starts it has FORKRESQUE_STAY=1 in its environment, as embedded servers do.
    """

    def __init__(self, state: StrayState | None, now: float) -> None:
        self._strays = Strays()
        self._told: set[Process] = set()
        self.due_at = -math.inf
        self._listed: bytes | None = None
        if state:
            self._strays.condemn((Process(*each) for each in state["condemned"]), now)
            self._strays.welcome(Process(*each) for each in state["guests"])

    @property
    def state(self) -> StrayState:
        """Return what the next image needs to know, as JSON can carry it."""
        told = {"condemned": self._strays.condemned, "guests": self._strays.guests}
        return {name: [(each.pid, each.start) for each in found] for name, found in told.items()}

    def died(self, pid: int, start: int, now: float) -> None:
        """Take note that a child is dead; `start` is in clock ticks since boot."""
        self._strays.died(Process(pid, start), now)
        self.due_at = -math.inf

    def are_as_before(self) -> bool:
        """Return whether the same processes are below us as at the last look, as far as it shows.

        A tenth of the cost of a look.
        """
        listed = children_of(os.getpid())
        waits = self._strays.next_at() < math.inf
        return listed is not None and listed == self._listed and not waits

    def look(self, known: Collection[int], now: float) -> None:
        """Kill what has been left behind and had time to end.

        `known` are the pids of children that are the master's own. To be called when `due_at` has
        come: after each death, and every second, since what comes without a death is a guest.
        """
        self._listed = children_of(os.getpid())
        due = self._strays.due(_below_us(known), now)
        self._told.intersection_update(due)
        for stray in due:
            self._kill(stray)
        self.due_at = min(now + EVERY, max(now + AGAIN, self._strays.next_at()))

    def end(self, known: Collection[int], now: float) -> None:
        """Kill all that has been left behind, without grace: the master leaves."""
        for _ in range(_ROUNDS):
            due = self._strays.due(_below_us(known), now, at_once=True)
            for stray in due:
                self._kill(stray)
            for stray in due:
                _await_end(stray)
            if not due:
                return

    def _kill(self, stray: Process) -> None:
        if _is_to_stay(stray.pid):
            log.info("stray pid=%s of a dead child's job stays: its environment says so", stray.pid)
            self._strays.welcome([stray])
            return
        if stray not in self._told:
            self._told.add(stray)
            log.warning("stray pid=%s of a dead child's job is killed", stray.pid)
        # Our child, and not waited for since we saw it: its pid cannot be anybody else's. To be
        # sure we ask, since others may reap for us one day.
        if processes.is_alive(stray.pid, stray.start):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                leads = os.getpgid(stray.pid) == stray.pid
                (os.killpg if leads else os.kill)(stray.pid, signal.SIGKILL)


def _below_us(known: Collection[int]) -> set[Process]:
    """Return the living children of this process that it does not know.

    None, where /proc belongs to another PID namespace and so would name others.
    """
    if not _is_ours("/proc/self"):
        return set()
    starts = {pid: processes.start_of(pid) for pid in strangers(os.getpid(), known)}
    return {Process(pid, start) for pid, start in starts.items() if start is not None}


def _is_ours(link: str) -> bool:
    try:
        return os.readlink(link) == str(os.getpid())  # noqa: PTH115 - asked at each death
    except OSError:
        return False


def _is_to_stay(pid: int) -> bool:
    try:
        return _STAY in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _await_end(stray: Process) -> None:
    if not hasattr(os, "pidfd_open"):
        return
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(stray.pid)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(_PATIENCE * 1000)
        finally:
            os.close(descriptor)

"""Grandchildren that escape from their job's process group do not outlive their worker for long.

The master here is a small one, and nothing but that; see `small_master.py`.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from forkresque.policy.strays import GRACE
from tests.support.processes import ROOT, is_alive, kill
from tests.support.servers import dying_with_runner
from tests.support.site import is_gone, stays
from tests.support.waiting import wait_until

# A guest: it is there before the master, as what the entry point of a container has started.
ENTRY_POINT = 'sleep 60 & echo guest $!; exec "$0" -m tests.support.small_master master'
NAMES = ("guest", "companion", "escaped", "parent", "child", "daemon", "worker")


class SmallMaster:
    """A master as a subprocess, and the pids of all around it, by name."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            dying_with_runner(["/bin/sh", "-c", ENTRY_POINT, sys.executable], signal.SIGKILL),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pids: dict[str, int] = {}
        self._log = ""

    def listen(self) -> None:
        """Wait until all have said who they are."""
        while len(self.pids) < len(NAMES):
            name, pid = self._line().split()
            self.pids[name] = int(pid)

    def order(self, what: str, answer: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        if answer:
            assert self._line() == answer

    def parent_of(self, name: str) -> int:
        return psutil.Process(self.pids[name]).ppid()

    def lives(self, name: str) -> bool:
        return not is_gone(self.pids[name])

    def close(self) -> str:
        """End the master and all that is left of it; return what it has logged."""
        left = [psutil.Process(pid) for pid in self.pids.values() if psutil.pid_exists(pid)]
        self.process.kill()
        kill([process for process in left if is_alive(process)])
        if self.process.returncode is None:
            self._log = self.process.communicate()[1]
        return self._log

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture
def master() -> Iterator[SmallMaster]:
    """Return a master whose worker has had processes escape."""
    master = SmallMaster()
    try:
        master.listen()
        yield master
    finally:
        print(master.close())


def test_nobody_is_killed_while_the_worker_lives(master: SmallMaster) -> None:
    assert master.parent_of("escaped") == master.pids["worker"], "a worker is a subreaper, too"
    assert master.parent_of("parent") == master.pids["worker"]
    assert master.parent_of("child") == master.pids["parent"]

    def all_live() -> bool:
        master.order("look", "looked")
        return all(map(master.lives, NAMES))

    stays(all_live, "all live", GRACE + 0.5)


def test_what_has_escaped_is_killed_after_its_worker_and_a_grace(master: SmallMaster) -> None:
    began = time.monotonic()
    master.order("kill")
    wait_until(lambda: not master.lives("worker"), "the worker's end")
    wait_until(lambda: master.parent_of("escaped") == master.process.pid, "the adoption")

    wait_until(lambda: not master.lives("escaped"), "the end of the first")
    wait_until(lambda: not master.lives("parent"), "the end of the second")
    assert time.monotonic() - began >= GRACE
    wait_until(lambda: not master.lives("child"), "the end of what that one had started")
    assert time.monotonic() - began >= 2 * GRACE

    assert master.lives("guest")
    assert master.lives("companion"), "a child of the master's own"
    assert master.parent_of("guest") == master.process.pid
    assert master.lives("daemon"), "its environment says so"
    assert master.parent_of("daemon") == master.process.pid
    log = master.close()
    for name in ("escaped", "parent", "child"):
        assert log.count(f"stray pid={master.pids[name]} ") == 1


def test_at_the_end_there_is_no_grace(master: SmallMaster) -> None:
    master.order("kill")
    wait_until(lambda: not master.lives("worker"), "the worker's end")
    wait_until(lambda: master.parent_of("escaped") == master.process.pid, "the adoption")
    master.order("look", "looked")

    began = time.monotonic()
    master.order("end", "ended")

    assert time.monotonic() - began < GRACE
    assert not any(map(master.lives, ("escaped", "parent", "child")))
    assert all(map(master.lives, ("guest", "companion", "daemon")))

"""Grandchildren that escape from their job's process group do not outlive their worker for long.

First with a master that does nothing else, see `small_master.py`, and then with a real one.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from forkresque.errors import ExitCode
from forkresque.policy.strays import GRACE
from tests.conftest import Starter
from tests.support.processes import ROOT, assert_nothing_left, is_alive, kill
from tests.support.servers import dying_with_runner
from tests.support.site import Site, idle_workers, is_gone, stays, told
from tests.support.tools import program
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


def test_a_proc_that_shows_the_pids_of_others_is_not_believed() -> None:
    script = (
        "import os, subprocess; from forkresque.supervisor import resources, strays;"
        "child = subprocess.Popen(['sleep', '60']);"
        "print(os.getpid(), resources.strangers(1, ()) != {child.pid}, strays._below_us(()))"
    )
    unshare = [program("unshare", "util-linux"), "--pid", "--fork", "--kill-child"]

    ran = subprocess.run(
        [*unshare, sys.executable, "-c", script],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )

    assert ran.stdout.split() == ["1", "True", "set()"]


# -- a real master -----------------------------------------------------------------------------

ESCAPES = ("-A", "tests.support.escapes", "-q", "math")


def test_a_worker_that_lets_a_process_escape_is_replaced_and_the_process_killed(
    start: Starter, site: Site
) -> None:
    master = start(*ESCAPES, "-c", "1")
    before = idle_workers(master, 1)[0].pid

    site.enqueue("escape", "daemon")
    escaped = site.started("daemon")
    site.await_processed(1)
    wait_until(lambda: is_gone(before), "the worker to leave")
    idle_workers(master, 1)

    wait_until(lambda: is_gone(escaped), "the end of what escaped")
    assert f"stray pid={escaped} of a dead child's job is killed" in master.log()
    master.stop()
    assert master.process.returncode == ExitCode.OK
    assert_nothing_left(master, site.redis)


def test_what_escaped_does_not_outlive_a_master_that_stops(start: Starter, site: Site) -> None:
    master = start(*ESCAPES, "-c", "1")
    site.enqueue("escape", "daemon")
    escaped = site.started("daemon")

    master.send_signal(signal.SIGTERM)

    assert master.wait() == ExitCode.OK
    assert is_gone(escaped)
    assert_nothing_left(master, site.redis)


def test_the_next_image_of_a_master_remembers_who_is_to_be_killed(
    start: Starter, site: Site
) -> None:
    master = start(*ESCAPES, "-c", "1")
    before = idle_workers(master, 1)[0].pid
    site.enqueue("escape", "daemon")
    escaped = site.started("daemon")
    wait_until(lambda: is_gone(before), "the worker to leave")
    wait_until(lambda: psutil.Process(escaped).ppid() == master.pid, "the adoption")

    master.send_signal(signal.SIGHUP)
    wait_until(lambda: told(master).get("generation") == 2, "the next image")

    # On a slow machine the image before has ended it already, when its grace was over.
    wait_until(lambda: is_gone(escaped), "the end of what escaped")
    assert master.log().count(f"stray pid={escaped} ") == 1
    master.stop()
    assert master.process.returncode == ExitCode.OK
    assert_nothing_left(master, site.redis)

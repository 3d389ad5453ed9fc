"""What this very machine gives us, and what real processes use."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from forkresque.supervisor import resources
from forkresque.supervisor.resources import Consumption, View
from tests.support.waiting import wait_until

MB = 1 << 20
ALL_CORES = float(len(os.sched_getaffinity(0)))

BUSY = "print(flush=True)\nwhile True: pass"
IDLE = "print(flush=True); input()"
# Each line of its input makes it hold ten megabytes more.
EATER = """
import sys
held = []
print(flush=True)
for line in sys.stdin:
    held.append(b"x" * (10 << 20))
    print(flush=True)
"""
PARENT = """
import subprocess, sys
children = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) for _ in range(3)]
print(*(child.pid for child in children), flush=True)
input()
"""
ORPHAN_MAKER = """
import os, subprocess, sys
from forkresque.supervisor.resources import become_subreaper, strangers
become_subreaper()
middle = ("import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'input()'],"
          " stdin=0, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True);"
          "print(child.pid); child.returncode = 0")
ran = subprocess.run([sys.executable, "-c", middle], check=True, capture_output=True, text=True)
print(ran.stdout.strip(), *strangers(os.getpid(), set()), flush=True)
input()
"""


class Children:
    """Starts scripts, and ends them with the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def start(self, script: str) -> subprocess.Popen[str]:
        child = self._stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        self._stack.callback(child.kill)
        return child


@pytest.fixture
def children() -> Iterator[Children]:
    """Return what starts scripts."""
    with ExitStack() as stack:
        yield Children(stack)


def line_of(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def tell(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()
    line_of(child)


def used_by(pid: int) -> Consumption:
    used = resources.consumption(pid)
    assert used is not None
    return used


def wanted_by(used: Consumption) -> float:
    assert used.run is not None
    assert used.wait is not None
    return used.run + used.wait


def test_this_machine_is_read() -> None:
    cpu, stalled, memory = resources.cpu_used(), resources.pressure(), resources.memory()

    assert 0 < resources.usable_cores() <= ALL_CORES
    assert cpu is None or cpu > 0
    assert stalled is None or stalled >= 0
    assert memory is not None
    assert 0 < memory.used_bytes < memory.limit_bytes <= psutil.virtual_memory().total
    assert resources.oom_kills() >= 0


def test_busy_children_want_the_time_that_passes_however_many_they_are(children: Children) -> None:
    pids = [children.start(BUSY) for _ in range(2 * int(ALL_CORES))]
    for child in pids:
        line_of(child)
    begun = {child.pid: (time.monotonic(), used_by(child.pid)) for child in pids}

    def shares(what: Callable[[Consumption], float]) -> list[float]:
        return [
            (what(used_by(pid)) - what(used)) / (time.monotonic() - then)
            for pid, (then, used) in begun.items()
        ]

    # The wait of a child that waits just now is not counted before it ends: that takes a while.
    wait_until(
        lambda: (
            time.monotonic() - begun[pids[0].pid][0] > 0.5
            and all(0.85 < share < 1.05 for share in shares(wanted_by))
        ),
        "run and wait to be all of the time",
    )
    assert min(shares(lambda used: used.run or 0.0)) < 0.8, "they had no cores to themselves"


def test_a_child_that_sleeps_wants_nothing(children: Children) -> None:
    child = children.start(IDLE)
    line_of(child)
    sleeper = psutil.Process(child.pid)
    wait_until(lambda: sleeper.status() == psutil.STATUS_SLEEPING, "the child to sleep")
    before = wanted_by(used_by(child.pid))
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() - begun > 0.2, "a while")

    assert wanted_by(used_by(child.pid)) == before


def test_the_time_of_a_process_is_the_one_that_psutil_knows(children: Children) -> None:
    child = children.start(BUSY)
    line_of(child)
    wait_until(lambda: (used_by(child.pid).cpu or 0) >= 0.2, "some work")

    times = psutil.Process(child.pid).cpu_times()
    after = used_by(child.pid)

    assert after.cpu is not None
    assert 0.2 <= times.user + times.system <= after.cpu


def test_the_memory_of_a_process_grows_with_what_it_holds(children: Children) -> None:
    child = children.start(EATER)
    line_of(child)
    before = used_by(child.pid).anonymous_bytes

    tell(child)
    tell(child)
    after = used_by(child.pid).anonymous_bytes

    assert before is not None
    assert after is not None
    assert 19 * MB < after - before < 30 * MB


def test_it_is_the_memory_that_status_calls_anonymous(children: Children) -> None:
    child = children.start(EATER)
    line_of(child)
    tell(child)
    sleeper = psutil.Process(child.pid)
    wait_until(lambda: sleeper.status() == psutil.STATUS_SLEEPING, "the child to sleep")

    status = Path(f"/proc/{child.pid}/status").read_text()
    named = re.search(r"RssAnon:\s+(\d+) kB", status)

    assert named is not None
    assert used_by(child.pid).anonymous_bytes == pytest.approx(int(named[1]) << 10, rel=0.1)


def test_nothing_is_used_by_a_process_that_does_not_exist() -> None:
    assert resources.consumption(2**22 + 1) is None


def test_children_of_a_real_process_are_found_both_ways(children: Children, tmp_path: Path) -> None:
    parent = children.start(PARENT)
    pids = {int(pid) for pid in line_of(parent).split()}
    # /proc without the lists of children: everything but `task` of each process.
    listless = View(tmp_path, tmp_path)
    for process in psutil.process_iter():
        (tmp_path / str(process.pid)).mkdir()
        (tmp_path / str(process.pid) / "stat").symlink_to(f"/proc/{process.pid}/stat")
    known = {min(pids)}

    assert len(pids) == 3
    assert resources.strangers(parent.pid, known) == pids - known
    assert resources.strangers(parent.pid, known, listless) == pids - known


def test_a_subreaper_gets_the_grandchildren_that_lose_their_parent(children: Children) -> None:
    reaper = children.start(ORPHAN_MAKER)

    grandchild, *strangers = line_of(reaper).split()

    assert strangers == [grandchild]
    assert psutil.Process(int(grandchild)).ppid() == reaper.pid
    assert reaper.stdin is not None
    reaper.stdin.close()  # of which all have a copy: the grandchild ends, and the reaper
    wait_until(lambda: not psutil.pid_exists(int(grandchild)), "the grandchild to end")

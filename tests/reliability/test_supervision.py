"""As many workers as wanted, always again within a second, and nothing that grows or stays.

Deaths and resizes come at random. Then the kernel refuses what a master needs: forks,
descriptors, pids of its own.
"""

import os
import random
import resource
import signal
import socket
import subprocess
import time
from collections import deque
from dataclasses import dataclass, field

import psutil
import pytest

from forkresque import processes
from forkresque.errors import ExitCode
from forkresque.protocol.keys import to_text
from tests.conftest import Starter
from tests.support.processes import Start, assert_nothing_left
from tests.support.report import Report
from tests.support.site import APP, KEYS, Site, idle_workers, ticks
from tests.support.sizes import sized
from tests.support.waiting import wait_until

SEED = 20261125
TICK = 0.05
SECOND = 1.0
SIZE, LEAST, MOST = 4, 2, 8
GROWTH = 0.01  # of memory; within seconds it is only told, for much is new

# An application whose process cannot fork while the file FLAG is there; it notes each attempt.


@dataclass
class Watch:
    """What was seen of a master's children: whether their number was right, and who was dead."""

    master: psutil.Process
    wanted: deque[tuple[float, int]] = field(default_factory=deque)
    wrong_since: float = 0.0
    longest_wrong: float = 0.0
    zombies: dict[int, float] = field(default_factory=dict)
    oldest_zombie: float = 0.0
    samples: int = 0

    def want(self, number: int) -> None:
        """Take note that the master was told to have so many workers."""
        self.wanted.append((time.monotonic(), number))

    def look(self) -> None:
        """Take a sample. What was wanted a second ago is still right."""
        now = time.monotonic()
        while len(self.wanted) > 1 and self.wanted[1][0] < now - SECOND:
            self.wanted.popleft()
        children = {child.pid: _status(child) for child in self.master.children()}
        living = sum(status not in ("", psutil.STATUS_ZOMBIE) for status in children.values())
        bounds = [number + 1 for _, number in self.wanted]  # and the clerk
        if min(bounds) <= living <= max(bounds):
            self.wrong_since = now
        self.longest_wrong = max(self.longest_wrong, now - (self.wrong_since or now))
        dead = {pid for pid, status in children.items() if status == psutil.STATUS_ZOMBIE}
        self.zombies = {pid: self.zombies.get(pid, now) for pid in dead}
        self.oldest_zombie = max([self.oldest_zombie, *(now - at for at in self.zombies.values())])
        self.samples += 1


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return ""


def footprint(process: psutil.Process) -> tuple[int, int]:
    """Return how much memory it has, and how many descriptors."""
    return process.memory_info().rss, process.num_fds()


def drain(master: Start, site: Site) -> None:
    """End the master; nothing may be left."""
    master.send_signal(signal.SIGTERM)
    assert master.wait() == ExitCode.OK
    assert_nothing_left(master, site.redis)


def disturb(master: Start, chance: random.Random, wanted: int) -> int:
    """Kill a worker, or have one more or one less; return how many are wanted now."""
    act = chance.random()
    if act < 0.6 and (workers := master.children("worker")):
        chance.choice(workers).kill()
        return wanted
    if act < 0.8 and wanted < MOST:
        master.send_signal(signal.SIGTTIN)
        return wanted + 1
    if wanted > LEAST:
        master.send_signal(signal.SIGTTOU)
        return wanted - 1
    return wanted


def resize(master: Start, now: int, then: int) -> None:
    """Have another number of workers, one by one, since equal signals become one."""
    step = 1 if then > now else -1
    for number in range(now, then, step):
        master.send_signal(signal.SIGTTIN if step > 0 else signal.SIGTTOU)
        idle_workers(master, number + step)
    idle_workers(master, then)


@pytest.mark.parametrize("seconds", sized(5.0, 60.0))
def test_a_second_after_any_death_or_resize_the_number_of_children_is_right(
    start: Starter, site: Site, report: Report, seconds: float
) -> None:
    report.seed("supervision", SEED)
    chance, kills, wanted, size = random.Random(SEED), 0, SIZE, SIZE
    master = start(*APP, "-c", str(SIZE))
    idle_workers(master, SIZE)
    (clerk,) = wait_until(lambda: master.children("clerk"), "a clerk")
    watch = Watch(psutil.Process(master.pid))
    watch.want(wanted)
    before = {}
    for number in ticks(TICK, seconds):
        watch.look()
        if number % 10 == 5:
            before_act, wanted = wanted, disturb(master, chance, wanted)
            kills += before_act == wanted
            watch.want(wanted)
            watch.look()
            site.enqueue("note", str(number))
        if number == int(seconds / TICK / 3):  # by now it has done all that it ever does
            before, size = {each: footprint(each) for each in (watch.master, clerk)}, wanted

    wait_until(lambda: len(master.children("worker")) == wanted, "the right number", SECOND)
    resize(master, wanted, size)
    after = {process: footprint(process) for process in before}
    growth = [after[process][0] / before[process][0] - 1 for process in before]
    assert len(before) == 2
    assert [after[p][1] for p in before] == [before[p][1] for p in before], "descriptors"
    assert seconds < 60 or max(growth) < GROWTH, f"memory grew by {growth}"
    assert watch.longest_wrong <= SECOND
    assert watch.oldest_zombie <= SECOND
    assert watch.samples > seconds / TICK / 2
    wait_until(lambda: not site.waiting() and not site.slots(), "all jobs done")
    assert len(set(site.runs())) == site.count("processed") > 0
    assert site.count("failed") == 0
    drain(master, site)
    report.count("kills of workers", kills)
    report.note("supervision: longest wrong number of children", f"{watch.longest_wrong:.2f} s")
    report.note("supervision: growth of master and clerk", f"{max(growth):.2%}")


@pytest.mark.parametrize("kills", sized(3, 40))
def test_a_clerk_that_dies_is_replaced_within_a_second(
    start: Starter, site: Site, report: Report, kills: int
) -> None:
    master = start(*APP, "-c", "1")
    idle_workers(master, 1)
    opened = None
    for _ in range(kills):
        (clerk,) = wait_until(lambda: master.children("clerk"), "a clerk")
        wait_until(lambda: site.redis.get(KEYS.leader()), "a leader")
        opened = opened or psutil.Process(master.pid).num_fds()
        clerk.kill()
        killed = time.monotonic()
        wait_until(
            lambda clerk=clerk: [c for c in master.children("clerk") if c.pid != clerk.pid],  # type: ignore[misc]
            "another clerk",
            SECOND,
        )
        report.time("clerk killed to replaced", time.monotonic() - killed)
        report.count("kills of clerks")
    assert psutil.Process(master.pid).num_fds() == opened
    drain(master, site)


@pytest.mark.usefixtures("both_sizes")
def test_a_master_without_descriptors_goes_on_and_does_not_run_hot(
    start: Starter, site: Site, report: Report
) -> None:
    master = start(*APP, "-c", "2")
    victim, other = idle_workers(master, 2)
    wait_until(lambda: master.children("clerk"), "a clerk")
    process = psutil.Process(master.pid)
    soft, hard = resource.prlimit(master.pid, resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir(f"/proc/{master.pid}/fd"))  # noqa: PTH208

    resource.prlimit(master.pid, resource.RLIMIT_NOFILE, (3, hard))
    victim.kill()
    wait_until(lambda: "cannot fork a worker" in master.log(), "a fork without descriptors", 5.0)
    path = master.runtime_directory / "forkresque" / f"{master.pid}.sock"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))  # it waits in the backlog, where the master cannot take it
        cpu, began = process.cpu_times(), time.monotonic()
        site.enqueue("note", "meanwhile")
        site.await_processed(1)
        wait_until(lambda: time.monotonic() > began + 1.0, "a second of exhaustion")
        used = sum(process.cpu_times()[:2]) - sum(cpu[:2])
        spent = used / (time.monotonic() - began)
    resource.prlimit(master.pid, resource.RLIMIT_NOFILE, (soft, hard))

    assert other.is_running()
    assert highest >= 3
    idle_workers(master, 2, 20.0)
    assert spent < 0.2, f"the master used {spent:.0%} of a core while it had no descriptors"
    drain(master, site)


@pytest.mark.usefixtures("both_sizes")
def test_a_pid_that_is_a_strangers_now_holds_up_no_recovery(
    start: Starter, site: Site, report: Report
) -> None:
    first = start(*APP, "-c", "1")
    (worker,) = site.gates("held")
    clerk, *_ = first.children("clerk")
    (key,) = site.redis.keys(KEYS.lease("*"))
    (owner_key,) = site.redis.keys(KEYS.owner("*"))
    for pid in (first.pid, clerk.pid, worker):
        os.kill(pid, signal.SIGKILL)
    first.wait()

    with subprocess.Popen(["sleep", "1000"]) as stranger:
        place = processes.describe(stranger.pid).split(" ")
        reused = " ".join([*place[:3], str(int(place[3]) - 1)])  # same pid, an earlier start
        site.redis.set(key, reused, xx=True, keepttl=True)
        master = to_text(site.redis.get(owner_key)).rsplit(" ", 2)[0]
        site.redis.set(owner_key, f"{master} {stranger.pid} {int(place[3]) - 1}", xx=True)

        began = time.monotonic()
        second = start(*APP, "-c", "1")
        wait_until(lambda: site.starts("held") == 2, "the job to run again", 10.0)
        took = time.monotonic() - began
        stranger.kill()
    report.time("master killed to recovered", took)
    site.release("held")
    site.await_processed(1)
    assert site.redis.get(key) is None
    drain(second, site)

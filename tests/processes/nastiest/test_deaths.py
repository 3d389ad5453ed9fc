"""Failures 1, 2, 10 and 12: processes die, stand still, or are told to go before they can hear."""

import signal
import time
from pathlib import Path

import psutil
import pytest

from forkresque.errors import ExitCode
from tests.processes.nastiest.harness import (
    Begin,
    Run,
    assert_calm,
    end,
    failures,
    idle,
)
from tests.support.site import APP, KEYS, Site, is_gone, stays
from tests.support.waiting import wait_until

ASLEEP = ("-A", "tests.support.jobs", "-q", "nothing", "-c", "1")
NAMES = ("a", "b", "c", "d")
NOTICED = 1.0  # seconds after which orphans that are free have left
GRACE = 5.0  # seconds that an orphan's job may still take
CROWD = 100
BIRTHS = 200
SHORT_LEASE = 6.0

# An application whose master signals each worker before that can have run one instruction. After
# some it stands still until they are dead.
HASTY = """
import os, pathlib, signal
from tests.support.jobs import app

fork = os.fork


def hasty():
    pid = fork()
    if pid and pathlib.Path(os.environ["FLAG"]).exists():
        os.kill(pid, signal.SIGTERM)
        if pid % 5 == 0:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with pathlib.Path(os.environ["BIRTHS"]).open("a") as births:
            births.write(f"{pid}\\n")
    return pid


os.fork = hasty
"""


# -- 1 -----------------------------------------------------------------------------------------


@pytest.mark.timeout(90)
def test_01_master_killed(begin: Begin, site: Site, tmp_path: Path) -> None:
    lease = ("--lease", str(SHORT_LEASE))
    options = (*APP, "-c", "4", "--control", str(tmp_path / "c"), *lease, "-t", str(GRACE))
    first = begin(*options)
    workers = dict(zip(NAMES, map(first.as_told, site.gates(*NAMES)), strict=True))
    asleep, clerk = begin(*ASLEEP, *lease), first.clerk()
    idle(asleep, 1)

    asleep.send_signal(signal.SIGKILL)
    first.send_signal(signal.SIGKILL)
    killed_at = time.monotonic()
    assert first.wait(5) != ExitCode.OK
    assert asleep.wait(5) != ExitCode.OK
    behind = [site.enqueue("note", str(number)) for number in range(20)]
    wait_until(lambda: is_gone(clerk.pid) and not asleep.left(), "whoever is free to go", NOTICED)
    if begin.is_init:  # the kernel has killed them all with their init
        assert not first.left()
    else:
        let_two_orphans_finish(site, workers)
    assert site.waiting() == behind

    second = begin(*options)
    if begin.is_init:
        site.release(*NAMES)
    else:
        have_the_last_orphan_cut(first, site)
        assert time.monotonic() - killed_at >= GRACE
    site.await_processed(24, timeout=4 * SHORT_LEASE)

    assert sorted(site.runs()) == sorted([*NAMES, *map(str, range(20))])
    assert [site.starts(name) for name in ("a", "b", "c")] == [2 if begin.is_init else 1] * 3
    assert site.failures() == []
    wait_until(lambda: site.redis.scard(KEYS.masters()) == 1, "the dead to be forgotten", 20)
    wait_until(lambda: second.state()["clerk"]["leads"] == "promote", "the lead to end", 20)
    end(second, site.redis)
    assert list(tmp_path.iterdir()) == []


def let_two_orphans_finish(site: Site, workers: dict[str, psutil.Process]) -> None:
    """Let two jobs of orphans end: their workers leave, and take nothing that waits."""
    site.release("a", "b")
    wait_until(lambda: sorted(site.runs()) == ["a", "b"], "the orphans' jobs to end")
    for name in ("a", "b"):
        wait_until(lambda name=name: is_gone(workers[name].pid), "an orphan to leave", NOTICED)  # type: ignore[misc]
    assert site.slots() == 2
    assert [site.starts(name) for name in NAMES] == [1] * 4


def have_the_last_orphan_cut(master: Run, site: Site) -> None:
    """Let one of two jobs end in its time. The other is cut when that is over, and runs again."""
    site.await_processed(22)  # the new master is at work, and has looked after the dead
    assert site.slots() == 2, "the orphans keep their jobs"
    site.release("c")
    wait_until(lambda: not master.left(), "the orphans to leave", GRACE + 3)
    site.started("d", times=2)
    site.release("d")


# -- 2 -----------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
def test_02_child_stopped(begin: Begin, site: Site) -> None:
    run = begin(*APP, "-c", "3", "--heartbeat-timeout", "1.5")
    idle(run, 3)
    held, kept = map(run.as_told, site.gates("held", "kept"))
    (asleep,) = [one for one in run.workers() if one not in (held, kept)]

    asleep.suspend()
    held.suspend()
    wait_until(lambda: is_gone(held.pid), "the one that is stopped in its job to be killed", 5.0)
    (failure,) = failures(site, 1)
    assert (failure["exception"], failure["payload"]["args"]) == ("WorkerStuck", ["held"])
    site.enqueue("note", "meanwhile")
    site.await_processed(1)  # by whoever has come in its place
    assert asleep.status() == psutil.STATUS_STOPPED
    asleep.resume()

    survivors = stand_still(run, 6.5)
    stays(lambda: survivors == set(run.children()), "nobody is killed for that", 2.0)
    assert {asleep, kept} < survivors
    site.release("kept")
    site.await_processed(2)
    idle(run, 3)
    assert_calm(run)
    end(run, site.redis)


@pytest.mark.timeout(60)
def test_02_everybody_stopped_at_rest(begin: Begin, site: Site) -> None:
    run = begin(*APP, "-c", "2")
    idle(run, 2)

    survivors = stand_still(run, 11.0)

    stays(lambda: survivors == set(run.children()), "nobody is killed for that", 3.0)
    site.enqueue("note", "n")
    site.await_processed(1)
    assert_calm(run)
    end(run, site.redis)


def stand_still(run: Run, seconds: float) -> set[psutil.Process]:
    """Stop the master alone, then everybody, for longer than any heartbeat; return all children."""
    run.send_signal(signal.SIGSTOP)
    stays(lambda: True, "the master stands still", 1.0)
    children = run.children()
    for child in children:
        child.suspend()
    wait_until(
        lambda: {child.status() for child in children} == {psutil.STATUS_STOPPED}, "all to stop"
    )
    stays(lambda: True, "all stand still", seconds)
    run.send_signal(signal.SIGCONT)
    for child in children:
        child.resume()
    return set(children)


@pytest.mark.full
@pytest.mark.timeout(120)
def test_02_idle_child_stopped_for_ever(begin: Begin, site: Site) -> None:
    run = begin(*APP, "-c", "2")
    stopped, other = idle(run, 2)

    stopped.suspend()
    stays(lambda: not is_gone(stopped.pid), "it is given a minute", 55.0)
    wait_until(lambda: is_gone(stopped.pid), "its end", 10.0)

    assert other in idle(run, 2)
    site.enqueue("note", "n")
    site.await_processed(1)
    end(run, site.redis)


# -- 10 ----------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
def test_10_many_deaths_at_once(begin: Begin, site: Site) -> None:
    run = begin(*APP, "-c", str(CROWD))
    dying = idle(run, CROWD, 20.0)
    clerk, opened = run.clerk(), psutil.Process(run.pid).num_fds()
    before = run.state()["counters"]

    run.send_signal(signal.SIGSTOP)  # so that it hears of all of them in one signal
    for worker in dying:
        worker.kill()
    wait_until(lambda: all(is_gone(worker.pid) for worker in dying), "all deaths")
    assert len(run.zombies()) == CROWD
    run.send_signal(signal.SIGCONT)

    wait_until(lambda: not any(worker.is_running() for worker in dying), "their burial", 1.0)
    workers = idle(run, CROWD, 20.0)
    assert not set(workers) & set(dying)
    after = run.state()["counters"]
    assert {after[name] - before[name] for name in ("born", "died")} == {CROWD}
    assert run.clerk() == clerk
    assert run.zombies() == []
    assert psutil.Process(run.pid).num_fds() == opened
    wait_until(lambda: site.redis.scard(KEYS.workers()) == CROWD, "the dead to be forgotten")
    end(run, site.redis)


# -- 12 ----------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
def test_12_signal_before_the_handler(begin: Begin, site: Site, tmp_path: Path) -> None:
    (tmp_path / "hasty.py").write_text(HASTY)
    flag, births = tmp_path / "flag", tmp_path / "births"
    births.touch()
    env = {"PYTHONPATH": str(tmp_path), "FLAG": str(flag), "BIRTHS": str(births)}
    run = begin("-A", "hasty", "-q", "math", "-c", "4", "--log-level", "debug", env=env)
    before = idle(run, 4)

    flag.touch()
    for worker in before:
        worker.terminate()
    wait_until(lambda: len(births.read_text().split()) >= BIRTHS, f"{BIRTHS} births", 40.0)
    flag.unlink()
    idle(run, 4)

    told = [int(pid) for pid in births.read_text().split()]
    ended = {pid: how for pid, how in endings(run) if pid in told}
    assert "cannot fork" not in run.log()
    assert len(ended) == len(told) >= BIRTHS
    assert set(ended.values()) == {"status=0"}, "a signal was lost, or deadly"
    assert not {worker["pid"] for worker in run.state()["workers"]} & set(told)
    site.enqueue("note", "n")
    site.await_processed(1)
    end(run, site.redis)


def endings(run: Run) -> list[tuple[int, str]]:
    """Return the pid of each child that has ended, and how."""
    words = [line.split() for line in run.log().splitlines() if " worker pid=" in line]
    told = []
    for line in words:
        if "ended" in line:
            (pid,) = [int(word.removeprefix("pid=")) for word in line if word.startswith("pid=")]
            told.append((pid, line[line.index("ended") + 1].rstrip('",')))
    return told

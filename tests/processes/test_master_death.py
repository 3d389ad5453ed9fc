"""What becomes of jobs when the master, its clerk or everybody is killed."""

import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from forkresque.errors import ExitCode
from tests.conftest import Starter
from tests.support.patience import Bench, patient
from tests.support.processes import Start, assert_nothing_left, kill, title
from tests.support.site import APP, KEYS, Site, idle_workers, is_gone, stays
from tests.support.waiting import wait_until

NAMES = ("a", "b", "c", "d")


def clerk_of(master: Start) -> psutil.Process:
    """Wait for the master's clerk."""
    return wait_until(lambda: master.children("clerk"), "a clerk")[0]


def kill_master(master: Start) -> None:
    master.send_signal(signal.SIGKILL)
    assert master.wait(5) == -signal.SIGKILL


def await_one_master(redis: Any) -> None:
    """Wait until the dead masters are forgotten."""
    wait_until(lambda: redis.scard(KEYS.masters()) == 1, "the dead master to be forgotten", 3)


@patient
def test_orphans_finish_take_nothing_new_and_leave(bench: Bench) -> None:
    site = bench.site
    first = bench.start(*APP, "-c", "4")
    pids = dict(zip(NAMES, site.gates(*NAMES), strict=True))
    clerk = clerk_of(first)

    kill_master(first)
    behind = [site.enqueue("note", str(number)) for number in range(20)]
    wait_until(lambda: is_gone(clerk.pid), "the clerk to leave", 1.0)
    site.release("a", "b")
    wait_until(lambda: is_gone(pids["a"]) and is_gone(pids["b"]), "two orphans to leave", 2.0)
    assert sorted(site.runs()) == ["a", "b"]
    assert site.waiting() == behind

    second = bench.start(*APP, "-c", "4")
    site.await_processed(22)
    # Two orphans still have their jobs: those are not recovered, and not run twice.
    stays(lambda: site.slots() == 2, "the orphans keep their jobs", 1.0)
    site.release("c", "d")
    site.await_processed(24)

    assert sorted(site.runs()) == sorted([*NAMES, *map(str, range(20))])
    assert [site.starts(name) for name in NAMES] == [1, 1, 1, 1]
    await_one_master(site.redis)
    second.send_signal(signal.SIGTERM)
    assert second.wait(5) == ExitCode.OK
    assert site.failures() == []
    assert_nothing_left(first, site.redis)
    assert_nothing_left(second, site.redis)


def test_idle_orphans_leave_within_a_second(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "4")
    workers = idle_workers(master, 4)

    kill_master(master)

    wait_until(lambda: not master.left(), "all orphans to leave", 1.5)
    site.enqueue("note", "n")
    assert all(is_gone(worker.pid) for worker in workers)
    assert len(site.waiting()) == 1
    assert site.redis.scard(KEYS.workers()) == 0


def test_jobs_of_a_host_killed_in_one_stroke_are_back_at_the_head(
    start: Starter, site: Site, tmp_path: Path
) -> None:
    control = ("--control", str(tmp_path / "c"))
    first = start(*APP, *control, "-c", "4")
    jobs = [site.enqueue("gate", name) for name in NAMES]
    for name in NAMES:
        site.started(name)
    behind = site.enqueue("note", "behind")

    kill([psutil.Process(first.pid), *first.left()])
    first.wait(1)
    assert (tmp_path / "c").is_socket()  # nobody was left to remove it
    assert site.slots() == 4

    site.redis.set(KEYS.pause_all(), "true")  # so that the queue can be looked at
    second = start(*APP, *control, "-c", "4")
    wait_until(lambda: site.slots() == 0, "the jobs to be recovered", 2.0)
    assert sorted(site.waiting()[:4]) == jobs
    assert site.waiting()[4:] == [behind]

    site.redis.delete(KEYS.pause_all())
    for name in NAMES:
        site.started(name, times=2)
    site.release(*NAMES)
    site.await_processed(5)
    assert sorted(site.runs()) == sorted([*NAMES, "behind"])
    await_one_master(site.redis)
    second.send_signal(signal.SIGTERM)
    assert second.wait(5) == ExitCode.OK
    assert site.redis.exists(KEYS.suspects()) == 0, "a lost master is not the jobs' fault"
    assert not (tmp_path / "c").exists()
    assert_nothing_left(first, site.redis)
    assert_nothing_left(second, site.redis)


def test_a_killed_clerk_is_replaced_within_a_second(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "2")
    site.gates("a")
    before = clerk_of(master)

    before.kill()
    site.enqueue("note", "n")
    site.await_processed(1)  # jobs need no clerk
    after = wait_until(
        lambda: [one for one in master.children("clerk") if one.pid != before.pid],
        "another clerk",
        1.0,
    )

    (worker,) = [one for one in master.children("worker") if one.pid == site.started("a")]
    worker.kill()
    site.started("a", times=2)  # the new clerk does its duty
    site.release("a")
    site.await_processed(2)
    assert master.children("clerk") == after
    master.send_signal(signal.SIGTERM)
    assert master.wait(5) == ExitCode.OK
    assert_nothing_left(master, site.redis)


def test_a_worker_that_dies_while_there_is_no_clerk_is_recovered(
    start: Starter, site: Site
) -> None:
    master = start(*APP, "-c", "2")
    (pid,) = site.gates("a")
    clerk = clerk_of(master)

    master.send_signal(signal.SIGSTOP)  # both are dead before it can replace either
    clerk.kill()
    psutil.Process(pid).kill()
    wait_until(lambda: is_gone(pid) and is_gone(clerk.pid), "both deaths")
    master.send_signal(signal.SIGCONT)

    site.started("a", times=2)
    site.release("a")
    site.await_processed(1)
    idle_workers(master, 2)
    master.send_signal(signal.SIGTERM)
    assert master.wait(5) == ExitCode.OK
    assert_nothing_left(master, site.redis)


def test_a_clerk_that_dies_with_every_death_it_hears_of_loses_none(
    start: Starter, site: Site
) -> None:
    master = start(*APP, "-c", "2")
    for round_ in range(1, 6):
        name = f"gate {round_}"
        site.enqueue("gate", name)
        psutil.Process(site.started(name)).kill()
        clerk_of(master).kill()

        site.started(name, times=2)
        site.release(name)
        site.await_processed(round_)

    assert site.failures() == []
    idle_workers(master, 2)
    master.send_signal(signal.SIGTERM)
    assert master.wait(5) == ExitCode.OK
    assert_nothing_left(master, site.redis)


def test_a_drain_waits_for_the_books_when_the_clerk_dies(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "2")
    cut = site.enqueue("gate", "a")
    worker = psutil.Process(site.started("a"))
    clerk = clerk_of(master)

    master.send_signal(signal.SIGSTOP)
    master.send_signal(signal.SIGTERM)
    worker.kill()
    clerk.kill()
    wait_until(lambda: is_gone(worker.pid) and is_gone(clerk.pid), "both deaths")
    master.send_signal(signal.SIGCONT)

    assert master.wait(5) == ExitCode.OK
    assert site.waiting() == [cut]
    assert_nothing_left(master, site.redis)


@patient
def test_a_silent_clerk_is_killed_and_replaced(bench: Bench) -> None:
    site = bench.site
    master = bench.start(*APP, "-c", "2")
    idle_workers(master, 2)
    before = clerk_of(master)

    before.suspend()
    site.enqueue("note", "n")
    site.await_processed(1)  # jobs need no clerk
    stays(lambda: not is_gone(before.pid), "it is given time", 8.0)
    wait_until(lambda: is_gone(before.pid), "the silent clerk's end", 6.0)

    after = clerk_of(master)
    assert after.pid != before.pid
    assert "gave no sign of life" in master.log()
    (pid,) = site.gates("a")
    psutil.Process(pid).kill()
    site.started("a", times=2)
    site.release("a")
    site.await_processed(2)
    wait_until(lambda: title(after).endswith("clerk leader"), "it to lead", 25.0)
    master.send_signal(signal.SIGTERM)
    assert master.wait(5) == ExitCode.OK
    assert_nothing_left(master, site.redis)


@pytest.mark.full
@pytest.mark.timeout(60)
def test_a_machine_that_stood_still_kills_nobody(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "2")
    site.gates("a")
    before = {child.pid for child in master.children()}

    everybody = [psutil.Process(master.pid), *master.children()]
    for process in everybody:
        process.suspend()
    stays(lambda: True, "the machine stands still", 15.0)
    for process in everybody:
        process.resume()
    stays(lambda: {child.pid for child in master.children()} == before, "all live on", 3.0)

    site.release("a")
    site.await_processed(1)
    master.send_signal(signal.SIGTERM)
    assert master.wait(5) == ExitCode.OK
    assert_nothing_left(master, site.redis)

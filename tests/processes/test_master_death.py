"""What becomes of jobs when the master, its clerk or everybody is killed."""

import signal
from pathlib import Path
from typing import Any

import psutil

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


def await_one_master(redis: Any) -> None:
    """Wait until the dead masters are forgotten."""
    wait_until(lambda: redis.scard(KEYS.masters()) == 1, "the dead master to be forgotten", 3)


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

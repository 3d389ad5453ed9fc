"""What the master's signals do, while a job is exactly where the test wants it."""

import signal
import time

import pytest

from forkresque.errors import ExitCode
from forkresque.supervisor.control import ask
from tests.conftest import Starter
from tests.support.patience import Bench, patient
from tests.support.processes import Start, assert_nothing_left
from tests.support.site import APP, Site, idle_workers, stays
from tests.support.waiting import wait_until


def has_logged(master: Start, text: str) -> None:
    wait_until(lambda: text in master.log(), f"{text!r} in the log")


def draining(master: Start) -> None:
    has_logged(master, "draining within=")


def state(master: Start) -> dict[str, object]:
    return ask(master.runtime_directory / "forkresque" / f"{master.pid}.sock", "status")


# -- ending ------------------------------------------------------------------------------------


def test_term_lets_the_job_in_hand_finish(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "1")
    site.gates("a")
    behind = site.enqueue("note", "behind")

    master.send_signal(signal.SIGTERM)
    draining(master)
    site.release("a")

    assert master.wait(5) == ExitCode.OK
    assert site.runs() == ["a"]
    assert site.count("processed") == 1
    assert site.waiting() == [behind]
    assert_nothing_left(master, site.redis)


def test_a_second_int_ends_at_once(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "2")
    cut = [site.enqueue("gate", name) for name in ("a", "b")]
    site.started("a")
    site.started("b")

    master.send_signal(signal.SIGINT)
    draining(master)
    master.send_signal(signal.SIGINT)

    assert master.wait(5) == 128 + signal.SIGINT
    assert sorted(site.waiting()) == cut
    assert site.runs() == []
    assert (site.count("processed"), site.count("failed")) == (0, 0)
    assert_nothing_left(master, site.redis)


def test_a_second_term_within_two_seconds_is_the_same_term(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "1")
    site.gates("a")

    master.send_signal(signal.SIGTERM)
    draining(master)
    master.send_signal(signal.SIGTERM)
    stays(lambda: master.process.poll() is None, "the job is left alone", 0.5)
    site.release("a")

    assert master.wait(5) == ExitCode.OK
    assert site.runs() == ["a"]
    assert_nothing_left(master, site.redis)


@patient
def test_a_second_term_later_ends_at_once(bench: Bench) -> None:
    site = bench.site
    master = bench.start(*APP, "-c", "1")
    cut = site.enqueue("gate", "a")
    site.started("a")
    behind = site.enqueue("note", "behind")

    master.send_signal(signal.SIGTERM)
    draining(master)
    stays(lambda: master.process.poll() is None, "the job is left alone", 2.5)
    master.send_signal(signal.SIGTERM)

    assert master.wait(5) == 128 + signal.SIGTERM
    assert site.waiting() == [cut, behind]
    assert (site.count("processed"), site.count("failed")) == (0, 0)
    assert_nothing_left(master, site.redis)


@patient
def test_quit_waits_without_a_limit(bench: Bench) -> None:
    site = bench.site
    master = bench.start(*APP, "-c", "1", "--shutdown-timeout", "0.1")
    site.gates("a")

    master.send_signal(signal.SIGQUIT)
    draining(master)
    stays(lambda: site.slots() == 1, "the job is in hand beyond the limit", 1.0)
    site.release("a")

    assert master.wait(5) == ExitCode.OK
    assert site.runs() == ["a"]
    assert_nothing_left(master, site.redis)


def test_term_after_quit_sets_the_limit_after_all(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "1", "--shutdown-timeout", "0.5")
    cut = site.enqueue("gate", "a")
    site.started("a")

    master.send_signal(signal.SIGQUIT)
    draining(master)
    master.send_signal(signal.SIGTERM)

    assert master.wait(5) == ExitCode.CUT
    assert site.waiting() == [cut]
    assert_nothing_left(master, site.redis)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_every_process_is_one_drain(
    start: Starter, site: Site, signum: signal.Signals
) -> None:
    master = start(*APP, "-c", "2")
    site.gates("a", "b")

    for process in master.left():  # what systemd and docker-compose do
        process.send_signal(signum)
    draining(master)
    site.release("a", "b")

    assert master.wait(5) == ExitCode.OK
    assert sorted(site.runs()) == ["a", "b"]
    assert (site.count("processed"), site.count("failed")) == (2, 0)
    assert_nothing_left(master, site.redis)


# -- pausing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGUSR2])
@patient
def test_a_paused_master_starts_nothing_until_cont(bench: Bench, signum: signal.Signals) -> None:
    site = bench.site
    master = bench.start(*APP, "-c", "4")
    site.gates("a")

    asked_at = time.monotonic()
    master.send_signal(signum)
    wait_until(lambda: time.monotonic() - asked_at >= 0.1, "a tenth of a second", every=0.001)
    for number in range(50):
        site.enqueue("note", str(number))
    site.release("a")  # a worker that ends its job claims nothing either
    site.await_processed(1)
    assert state(master)["paused"] is True
    stays(lambda: len(site.waiting()) == 50 and site.slots() == 0, "all 50 jobs wait", 1.0)
    assert site.runs() == ["a"]

    master.send_signal(signal.SIGCONT)
    site.await_processed(51, timeout=3)
    assert state(master)["paused"] is False
    master.send_signal(signal.SIGTERM)
    assert master.wait(5) == ExitCode.OK
    assert_nothing_left(master, site.redis)


@patient
def test_a_pause_outlives_the_death_of_a_worker(bench: Bench) -> None:
    site = bench.site
    master = bench.start(*APP, "-c", "2")
    before = idle_workers(master, 2)
    master.send_signal(signal.SIGUSR1)
    has_logged(master, "paused")

    before[0].kill()
    wait_until(lambda: not before[0].is_running(), "the worker's end")
    idle_workers(master, 2)
    for number in range(20):
        site.enqueue("note", str(number))
    stays(lambda: len(site.waiting()) == 20, "all 20 jobs wait", 1.0)

    master.send_signal(signal.SIGCONT)
    site.await_processed(20, timeout=3)


def test_a_drain_ends_a_paused_master(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "2")
    idle_workers(master, 2)
    master.send_signal(signal.SIGUSR1)
    has_logged(master, "paused")

    master.send_signal(signal.SIGTERM)

    assert master.wait(5) == ExitCode.OK
    assert_nothing_left(master, site.redis)


# -- the rest ----------------------------------------------------------------------------------


def test_ttin_and_ttou_change_the_number_of_workers(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "2")
    idle_workers(master, 2)

    master.send_signal(signal.SIGTTIN)
    idle_workers(master, 3)
    master.send_signal(signal.SIGTTOU)
    idle_workers(master, 2)
    master.send_signal(signal.SIGTTOU)
    has_logged(master, "workers=1")
    master.send_signal(signal.SIGTTOU)  # one is the least
    idle_workers(master, 1)
    site.enqueue("note", "n")
    site.await_processed(1)


def test_ttou_dismisses_no_worker_in_the_middle_of_its_job(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "2")
    busy, other = site.gates("a", "b")

    master.send_signal(signal.SIGTTOU)
    has_logged(master, "workers=1")
    stays(lambda: site.slots() == 2, "both jobs are in hand", 0.5)
    site.release("a", "b")

    site.await_processed(2)
    (left,) = idle_workers(master, 1)
    assert left.pid in (busy, other)


def test_a_hundred_changes_of_size_end_at_the_last_one(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "2")
    idle_workers(master, 2)

    for number in range(100):
        wanted = 3 - number % 2
        master.send_signal(signal.SIGTTOU if number % 2 else signal.SIGTTIN)
        wait_until(lambda wanted=wanted: state(master)["wanted"] == wanted, "the new size")  # type: ignore[misc]

    idle_workers(master, 2)
    for number in range(20):
        site.enqueue("note", str(number))
    site.await_processed(20)
    assert "Traceback" not in master.log()


@patient
def test_abrt_logs_the_state_and_all_stacks(bench: Bench) -> None:
    site = bench.site
    master = bench.start(*APP, "-c", "2")
    site.gates("a")

    master.send_signal(signal.SIGABRT)

    has_logged(master, "state=")
    has_logged(master, "in gate")
    site.release("a")
    site.await_processed(1)  # it goes on

"""What jobs may do for how long, with how much memory, and what is told of those that go too far.

Stuck jobs, native crashes and late interruptions are among the nastiest failures, in `nastiest`.
"""

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from forkresque.errors import ControlError, ExitCode
from forkresque.supervisor.control import ask
from tests.conftest import Starter
from tests.support.memory_groups import MemoryGroup, memory_group
from tests.support.patience import Bench, patient
from tests.support.processes import Start, assert_nothing_left
from tests.support.servers import Server
from tests.support.site import APP, Site, await_rest, idle_workers, is_gone, state, stays
from tests.support.waiting import wait_until

FROZEN = 12.5  # seconds: after the hard limit of a job, which is in silence as well
MEMORY = 200 << 20
TIGHT = 0.87  # of the memory, from where the job grows slowly
MARGIN_MB = 24  # by which it then grows: to 99 %
REPORTED = 60.0  # seconds of silence after which the stack of a job is reported


def drain(master: Start, site: Site) -> None:
    """End the master; nothing may be left."""
    master.send_signal(signal.SIGTERM)
    assert master.wait(5) == ExitCode.OK
    assert_nothing_left(master, site.redis)


def by_job(site: Site) -> dict[str, dict[str, Any]]:
    """Return the failure records by the first argument of their jobs."""
    return {failure["payload"]["args"][0]: failure for failure in site.failures()}


# -- time --------------------------------------------------------------------------------------


@patient
def test_job_timeout_is_for_jobs_without_a_limit_and_frozen_workers_are_replaced(
    bench: Bench,
) -> None:
    site = bench.site
    times = ("--job-timeout", "1", "--heartbeat-timeout", str(FROZEN))
    master = bench.start(*APP, "-c", "5", *times)
    await_rest(master, 5)
    site.enqueue("gate", "soft")
    site.enqueue("patient_gate", "own")
    site.enqueue("locked_up", "in C")
    soft, own, locked = (site.started(name) for name in ("soft", "own", "in C"))
    frozen = next(w for w in master.children("worker") if w.pid not in {soft, own, locked})
    frozen.suspend()
    wait_until(lambda: frozen.status() == psutil.STATUS_STOPPED, "the worker to stop")

    wait_until(site.failures, "the soft limit", 4.0)
    (first,) = site.failures()
    assert (first["payload"]["args"], first["exception"]) == (["soft"], "JobTimeout")
    assert "in gate" in "\n".join(first["backtrace"])
    assert not is_gone(soft)

    stays(lambda: not is_gone(locked), "ten seconds more for the other", 8.0)
    second = wait_until(lambda: by_job(site).get("in C"), "the hard limit", 5.0)
    assert second["exception"] == "JobTimeout"
    assert "its job went on after its time limit" in second["error"]
    assert "in locked_up" in "\n".join(second["backtrace"])
    assert is_gone(locked)
    assert site.starts("in C") == 1

    wait_until(lambda: is_gone(frozen.pid), "the frozen worker to go", 10.0)
    assert f"pid={frozen.pid} it gave no sign of life; its stacks are dumped" in master.log()
    assert f"pid={frozen.pid} is killed" not in master.log(), "it was roused, and left by itself"
    assert not is_gone(own), "its own limit is longer"
    site.release("own")
    site.await_processed(1)
    assert len(site.failures()) == 2
    await_rest(master, 5)
    drain(master, site)


@pytest.mark.full
@pytest.mark.timeout(120)
def test_a_job_that_is_silent_for_a_minute_is_reported_and_goes_on(
    start: Starter, site: Site
) -> None:
    master = start(*APP, "-c", "2")
    await_rest(master, 2)
    site.enqueue("hold_gil", "h", REPORTED + 10.0)
    pid = site.started("h")

    stays(lambda: "is silent" not in master.log(), "nobody says a word", REPORTED - 5.0)
    report = f"pid={pid} is silent in its job for 60 s; it is here:"
    wait_until(lambda: report in master.log(), "the report", 10.0)
    wait_until(lambda: "in hold_gil" in master.log(), "where it is", 3.0)
    site.await_processed(1, 20.0)

    assert master.log().count("is silent") == 1
    assert not is_gone(pid)
    assert site.count("failed") == 0
    await_rest(master, 2)
    drain(master, site)


# -- signals -----------------------------------------------------------------------------------


def test_jobs_have_the_alarm_and_the_user_signals_for_themselves(
    start: Starter, site: Site
) -> None:
    master = start(*APP, "-c", "2")
    await_rest(master, 2)
    workers = {worker.pid for worker in master.children("worker")}
    marks = []
    for number in range(20):
        site.enqueue("alarmed", f"alarmed {number}")
        site.enqueue("slow", f"after {number}", 0.02)  # a timer that is left over would end it
        marks += [f"alarmed {number}", f"after {number}"]
    site.enqueue("alarmed_limited", "late")
    site.started("late")

    wait_until(site.failures, "the limit, though it handles signals itself", 5.0)
    site.await_processed(len(marks))

    own = {int(signum) for signum in (signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2)}
    for mark in [f"alarmed {number}" for number in range(20)] + ["late"]:
        assert set(map(int, site.ledger.lrange(f"heard:{mark}", 0, -1))) == own
    assert Counter(site.runs()) == Counter(marks)
    (failure,) = site.failures()
    assert (failure["exception"], failure["payload"]["class"]) == ("JobTimeout", "alarmed_limited")
    assert {worker.pid for worker in master.children("worker")} == workers
    await_rest(master, 2)
    drain(master, site)


# -- orders ------------------------------------------------------------------------------------


def test_kill_ends_a_worker_whatever_it_does(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "2")
    await_rest(master, 2)
    control = master.runtime_directory / "forkresque" / f"{master.pid}.sock"
    (busy,) = site.gates("g")
    (idle,) = {worker.pid for worker in master.children("worker")} - {busy}
    (clerk,) = master.children("clerk")

    for pid in (idle, busy):
        ask(control, "kill", pid=pid)
        wait_until(lambda pid=pid: is_gone(pid), "its end", 3.0)  # type: ignore[misc]
        told = f"pid={pid} is killed: an operator had it killed"
        wait_until(lambda told=told: told in master.log(), "the log to tell", 3.0)  # type: ignore[misc]
    for pid in (idle, clerk.pid, master.pid, 1):
        with pytest.raises(ControlError, match=f"there is no worker {pid} here"):
            ask(control, "kill", pid=pid)
    with pytest.raises(ControlError, match="pid must be a whole number"):
        ask(control, "kill", pid="all")

    site.started("g", times=2)  # it is not the job's fault, or not yet
    site.release("g")
    site.await_processed(1)
    assert state(master)["counters"]["killed"] == 2
    assert clerk.is_running()
    assert site.count("failed") == 0
    await_rest(master, 2)
    drain(master, site)


# -- memory ------------------------------------------------------------------------------------


@pytest.fixture
def group(tmp_path: Path) -> Iterator[MemoryGroup]:
    """Return a group with 200 MB; one that is not real limits nobody."""
    with memory_group(MEMORY, tmp_path) as group:
        yield group


@pytest.fixture
def crowded(group: MemoryGroup, one_server: Server, ledger_server: Server) -> Iterator[Start]:
    """Start a master with two workers in that group."""
    env = {"LEDGER_URL": ledger_server.url, **group.env}
    start = Start(*APP, "-c", "2", url=one_server.url, env=env, inside=group.inside)
    yield start
    start.stop()
    print(f"-- log, of exit {start.process.returncode}\n{start.log()}")
    start.remove()


@pytest.mark.timeout(60)
def test_the_largest_worker_goes_before_the_kernel_has_to_choose(
    crowded: Start, group: MemoryGroup, site: Site
) -> None:
    idle_workers(crowded, 2)  # by their titles: a look at the status would be one at memory, too
    memory = group.memory()
    assert memory is not None
    site.enqueue("gate", "calm")
    calm = site.started("calm")
    room = (int(TIGHT * MEMORY) - memory.used_bytes if group.real else MEMORY // 2) >> 20
    assert room > 0

    site.enqueue("swell", "s", room, MARGIN_MB, 0.3)
    pid = site.started("s")
    site.release("s")  # should it ever get so far
    wait_until(lambda: site.failures() or "s" in site.runs(), "the job's end", 20.0)

    if group.real:
        (failure,) = site.failures()
        assert is_gone(pid)
        assert failure["exception"] == "DirtyExit"
        assert "memory was nearly used up here, and it had taken the most" in failure["error"]
        assert state(crowded)["counters"]["killed"] == 1
    else:
        assert site.failures() == []
    assert group.kills() == 0
    assert not is_gone(calm)
    site.release("calm")
    wait_until(lambda: "calm" in site.runs(), "the other job")
    await_rest(crowded, 2)
    drain(crowded, site)


# -- longer than its lock ----------------------------------------------------------------------


@patient
def test_the_lock_of_a_job_is_renewed_while_it_runs(bench: Bench) -> None:
    master, site = bench.start(*APP, "-c", "1", "--lease", "6"), bench.site
    site.enqueue("locked_gate", "a")
    site.started("a")
    (lock,) = site.redis.keys("resque:workerslock:*")

    site.redis.expire(lock, 4)
    wait_until(lambda: site.redis.ttl(lock) > 4, "the clerk to renew it")

    site.release("a")
    wait_until(lambda: site.runs() == ["a"], "the job")
    wait_until(lambda: not site.redis.exists(lock), "the lock to be freed")
    drain(master, site)

"""How the clerk settles deaths: of any signal, heard late, and whatever stands in its way."""

import signal
import time

import psutil

from forkresque.errors import ExitCode
from forkresque.protocol.registry import suspect_field
from tests.conftest import Starter
from tests.support.patience import Bench, patient
from tests.support.processes import Start, assert_nothing_left, kill
from tests.support.site import APP, KEYS, Site, idle_workers, is_gone, state, stays
from tests.support.waiting import wait_until

NAMELESS = signal.SIGRTMIN + 8  # a real-time signal that Python has no name for
BATCHES, BATCH = 4, 10
LONG_NAME = "q" * 4000  # a part of each worker's id, so that few deaths fill the clerk's buffer


def clerk_of(master: Start) -> psutil.Process:
    """Wait for the master's clerk."""
    return wait_until(lambda: master.children("clerk"), "a clerk")[0]


def drain(master: Start, site: Site, code: int = ExitCode.OK) -> None:
    """End the master; nothing may be left."""
    master.send_signal(signal.SIGTERM)
    assert master.wait(8) == code
    assert_nothing_left(master, site.redis)


def kill_host(master: Start) -> None:
    """Kill a master and all its children in one stroke."""
    kill([psutil.Process(master.pid), *master.left()])
    master.wait(1)


def await_failures(site: Site, number: int, timeout: float = 2.0) -> None:
    wait_until(lambda: len(site.failures()) >= number, f"{number} failures", timeout)
    assert len(site.failures()) == number


# -- deaths ------------------------------------------------------------------------------------


def test_a_death_by_a_signal_without_a_name_is_told_by_its_number(
    start: Starter, site: Site
) -> None:
    master = start(*APP, "-c", "2")
    idle_workers(master, 2)
    clerk = clerk_of(master)
    site.enqueue("killed_by", NAMELESS, "mark")

    await_failures(site, 1, timeout=5.0)

    (failure,) = site.failures()
    assert site.runs() == ["mark"] * 3
    assert failure["exception"] == "DirtyExit"
    assert f"was killed by signal {NAMELESS} while performing killed_by" in failure["error"]
    assert clerk_of(master).pid == clerk.pid
    drain(master, site)


@patient
def test_deaths_told_while_the_clerk_does_not_listen_are_all_settled(bench: Bench) -> None:
    site = bench.site
    master = bench.start("-A", "tests.support.jobs", "-q", f"math,{LONG_NAME}", "-c", str(BATCH))
    idle_workers(master, BATCH)
    clerk = clerk_of(master)
    names = [f"gate {number}" for number in range(BATCHES * BATCH)]

    clerk.suspend()
    stopped_at = time.monotonic()
    for first in range(0, len(names), BATCH):
        for pid in site.gates(*names[first : first + BATCH]):
            psutil.Process(pid).kill()
    wait_until(lambda: time.monotonic() - stopped_at >= 4.0, "the master to repeat itself", 5.0)
    assert site.slots() == len(names)
    clerk.resume()
    site.release(*names)

    site.await_processed(len(names))
    assert sorted(site.runs()) == sorted(names)
    assert [site.starts(name) for name in names] == [2] * len(names)
    assert (site.slots(), site.waiting(), site.failures()) == (0, [], [])
    assert clerk_of(master).pid == clerk.pid
    idle_workers(master, BATCH)
    drain(master, site)


def test_a_job_that_cannot_go_back_fails_and_holds_up_no_other(start: Starter, site: Site) -> None:
    master = start("-A", "tests.support.jobs", "-q", "math,other", "-c", "2")
    (stuck,) = site.gates("stuck")
    site.enqueue("gate", "free", queue="other")
    free = site.started("free")

    site.redis.set(KEYS.queue("math"), "text")
    psutil.Process(stuck).kill()
    await_failures(site, 1)
    psutil.Process(free).kill()

    wait_until(lambda: site.starts("free") == 2, "the other job to be recovered", 2.0)
    (failure,) = site.failures()
    assert failure["payload"]["args"] == ["stuck"]
    assert failure["exception"] == "DirtyExit"
    assert site.starts("stuck") == 1
    assert site.redis.get(KEYS.queue("math")) == b"text"
    site.release("free")
    site.await_processed(1)
    drain(master, site)


# -- jobs that must not run twice --------------------------------------------------------------


def only_failure(site: Site, name: str) -> dict[str, object]:
    """Return the failure of the job `name`, which was begun once and is nowhere else."""
    (failure,) = site.failures()
    assert failure["payload"]["args"] == [name]
    assert site.starts(name) == 1
    assert (site.waiting(), site.runs(), site.slots()) == ([], [], 0)
    assert (site.count("processed"), site.count("failed")) == (0, 1)
    return failure


def begin_once(site: Site, name: str) -> psutil.Process:
    """Have a job that must not run twice begin; return its worker."""
    site.enqueue("once_gate", name)
    return psutil.Process(site.started(name))


def test_a_job_that_must_not_run_twice_fails_when_its_worker_is_killed(
    start: Starter, site: Site
) -> None:
    master = start(*APP, "-c", "2")
    worker = begin_once(site, "o")

    worker.kill()

    await_failures(site, 1)
    idle_workers(master, 2)
    assert only_failure(site, "o")["exception"] == "DirtyExit"
    drain(master, site)


def test_a_job_that_must_not_run_twice_fails_when_its_host_is_killed(
    start: Starter, site: Site
) -> None:
    first = start(*APP, "-c", "2")
    begin_once(site, "o")

    kill_host(first)
    assert site.slots() == 1
    second = start(*APP, "-c", "2")

    await_failures(site, 1, timeout=5.0)
    idle_workers(second, 2)
    assert "is gone" in str(only_failure(site, "o")["error"])
    drain(second, site)
    assert_nothing_left(first, site.redis)


@patient
def test_a_job_that_must_not_run_twice_fails_when_a_drain_has_to_kill_it(bench: Bench) -> None:
    site = bench.site
    master = bench.start(*APP, "-c", "2", "--shutdown-timeout", "1")
    begin_once(site, "o").suspend()

    drain(master, site, ExitCode.CUT)

    assert only_failure(site, "o")["exception"] == "DirtyExit"
    assert site.redis.exists(KEYS.suspects()) == 0, "a drain is not the job's fault"


def test_a_job_whose_host_is_killed_is_counted_and_goes_back(start: Starter, site: Site) -> None:
    first = start(*APP, "-c", "2")
    raw = site.enqueue("gate", "a")
    site.started("a")

    kill_host(first)
    site.redis.set(KEYS.pause_all(), "true")  # so that the queue can be looked at
    second = start(*APP, "-c", "2")
    wait_until(lambda: site.slots() == 0, "the job to be recovered", 5.0)

    deaths = site.redis.hgetall(KEYS.suspects())
    counts = {field: value.split()[0] for field, value in deaths.items()}
    assert counts == {suspect_field(raw, host=True).encode(): b"1"}
    assert site.waiting() == [raw]
    assert site.failures() == []
    site.redis.delete(KEYS.pause_all())
    site.started("a", times=2)
    site.release("a")
    site.await_processed(1)
    drain(second, site)
    assert_nothing_left(first, site.redis)


# -- without Redis -----------------------------------------------------------------------------


@patient
def test_a_clerk_without_redis_is_at_rest(bench: Bench) -> None:
    master = bench.start(*APP, "-c", "2")
    idle_workers(master, 2)
    await_clerk(master, reaches_redis=True)
    clerk = clerk_of(master)

    bench.server.kill()
    await_clerk(master, reaches_redis=False)
    before = cpu_seconds(clerk)
    stays(lambda: not is_gone(clerk.pid), "the clerk lives on", 3.0)
    spent = cpu_seconds(clerk) - before
    bench.server.restart()

    assert spent < 0.5, f"{spent:.2f} s of CPU in 3 s"
    await_clerk(master, reaches_redis=True)
    bench.site.enqueue("note", "n")
    bench.site.await_processed(1)
    drain(master, bench.site)


def await_clerk(master: Start, *, reaches_redis: bool) -> None:
    """Wait until the clerk has noticed that Redis is there, or that it is not."""

    def noticed() -> bool:
        return bool(state(master)["clerk"]["reached"]) is reaches_redis

    wait_until(noticed, f"the clerk to notice: reached={reaches_redis}", 5.0)


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)

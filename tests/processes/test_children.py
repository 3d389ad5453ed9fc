"""What a child is to the system, and what its jobs may do to it."""

import os
import re
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest

from forkresque.errors import ExitCode
from tests.conftest import Starter
from tests.support.patience import Bench, patient
from tests.support.processes import Start, assert_nothing_left, title
from tests.support.site import APP, Site, idle_workers, is_gone, stays
from tests.support.waiting import wait_until

CRASHES = {
    "hard_exit": ((0,), "exited with status 0"),
    "hard_exit 3": ((3,), "exited with status 3"),
    "abort": ((), "was killed by SIGABRT"),
    "segfault": ((), "was killed by SIGSEGV"),
    "die": (("mark",), "was killed by SIGKILL"),
}
BROKEN = "import tests.support.jobs\n\n\ndef helper():\n    return 1 / 0\n\n\nhelper()\n"
THREADED = """
import threading
from tests.support.jobs import app

threading.Thread(target=threading.Event().wait, name="metrics", daemon=True).start()
"""
# An application that cannot be imported any more once the file FLAG is there.
FICKLE = """
import os, pathlib, time
from tests.support.jobs import app

if pathlib.Path(os.environ["FLAG"]).exists():
    pathlib.Path(os.environ["BIRTHS"]).open("a").write("x")
    {fault}
"""


def clerk_of(master: Start) -> psutil.Process:
    """Wait for the master's clerk."""
    return wait_until(lambda: master.children("clerk"), "a clerk")[0]


def drain(master: Start, site: Site) -> None:
    """End the master; nothing may be left."""
    master.send_signal(signal.SIGTERM)
    assert master.wait(5) == ExitCode.OK
    assert_nothing_left(master, site.redis)


def module(directory: Path, name: str, source: str) -> dict[str, str]:
    """Write a module; return the environment in which it can be imported."""
    (directory / f"{name}.py").write_text(source)
    return {"PYTHONPATH": str(directory)}


# -- in the eyes of the system -----------------------------------------------------------------


def test_titles_say_who_does_what(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "2")
    idle_workers(master, 2)
    (pid,) = site.gates("a")

    head = r"forkresque-\d+\.\d+\.\d+: "
    busy, idle = psutil.Process(pid), [w for w in master.children("worker") if w.pid != pid]
    assert re.fullmatch(head + r"master math 2 workers", title(psutil.Process(master.pid)))
    assert re.fullmatch(head + r"worker math performing gate since \d\d:\d\d:\d\d", title(busy))
    assert [bool(re.fullmatch(head + r"worker math idle", title(one))) for one in idle] == [True]
    wait_until(lambda: re.fullmatch(head + r"clerk leader", title(clerk_of(master))), "the lead")

    site.release("a")
    idle_workers(master, 2)
    drain(master, site)


def test_workers_are_the_first_to_go_when_memory_runs_out(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "2")
    idle_workers(master, 2)

    def score(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    expected = min(1000, score(master.pid) + 500)
    assert {score(child.pid) for child in master.children()} == {expected}
    drain(master, site)


def test_children_read_nothing_from_stdin(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "2")
    idle_workers(master, 2)

    for child in master.children():
        assert Path(f"/proc/{child.pid}/fd/0").readlink() == Path(os.devnull)


def descriptors(pid: int) -> list[str]:
    """Return what a process has open, as the kernel names it."""
    links = Path(f"/proc/{pid}/fd").iterdir()
    return [str(link.readlink()) for link in links if link.is_symlink()]


def test_children_inherit_nothing_that_is_the_masters(
    start: Starter, site: Site, tmp_path: Path
) -> None:
    master = start(*APP, "-c", "4", "--control", str(tmp_path / "c"))
    first, *_ = idle_workers(master, 4)
    clerk_of(master)
    first.kill()  # its successor is forked while the master has descriptors for all others
    wait_until(lambda: is_gone(first.pid), "the worker's end")
    idle_workers(master, 4)

    # A descriptor that children share is the launcher's log, the scoreboard or the baton pipe.
    opened = {child.pid: descriptors(child.pid) for child in master.children()}
    assert len(opened) == 5
    shared = Counter(name for names in opened.values() for name in set(names))
    sockets = {name for name in descriptors(master.pid) if name.startswith("socket:")}
    for pid, names in opened.items():
        assert not sockets & set(names), f"{pid} has a socket of the master"
        assert not [name for name in names if name.endswith(".lock")], f"{pid} has the lock"
        assert "anon_inode:[pidfd]" not in names
        assert len([name for name in names if "forkresque-dump" in name]) == 1
        assert all(shared[name] == 1 for name in names if name.startswith("socket:"))
        assert len([name for name in names if name.startswith("socket:")]) <= 2  # pair, Redis
    drain(master, site)


def test_a_hundred_deaths_leave_no_zombie_and_no_descriptor(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "10")
    idle_workers(master, 10)
    clerk_of(master)
    before = len(descriptors(master.pid))

    for _ in range(10):
        dying = idle_workers(master, 10)
        for worker in dying:  # at once, so that the signals coalesce
            worker.kill()
        wait_until(lambda dying=dying: not any(w.is_running() for w in dying), "the funerals", 2.0)  # type: ignore[misc]

    idle_workers(master, 10)
    children = psutil.Process(master.pid).children(recursive=True)
    assert [child.status() for child in children].count(psutil.STATUS_ZOMBIE) == 0
    assert len(descriptors(master.pid)) == before
    wait_until(lambda: site.redis.scard("resque:workers") == 10, "the dead to be forgotten", 2.0)
    drain(master, site)


# -- jobs that end their worker ----------------------------------------------------------------


@pytest.mark.parametrize("crash", CRASHES)
def test_a_crash_is_accounted_and_the_server_goes_on(
    start: Starter, site: Site, crash: str
) -> None:
    args, how = CRASHES[crash]
    master = start(*APP, "-c", "2")
    raw = site.enqueue(crash.split()[0], *args)

    # Three deaths with the same payload, and it is the payload's fault.
    wait_until(site.failures, "the job to be recorded as failed")
    site.enqueue("note", "after")
    site.await_processed(1)

    (failure,) = site.failures()
    assert failure["exception"] == "DirtyExit"
    assert how in failure["error"]
    assert crash.split()[0] in failure["error"]
    assert failure["queue"] == "math"
    assert failure["payload"]["args"] == list(args)
    assert site.count("failed") == 1
    assert raw not in site.waiting()
    assert master.log().count(how) >= 3
    idle_workers(master, 2)
    drain(master, site)


def test_a_job_that_raises_system_exit_has_failed(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "1")
    (worker,) = idle_workers(master, 1)
    site.enqueue("exit", 3)
    site.enqueue("note", "after")

    site.await_processed(1)

    (failure,) = site.failures()
    assert failure["exception"] == "SystemExit"
    assert worker.is_running()
    drain(master, site)


def test_what_a_job_has_started_dies_with_its_worker(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "2")
    site.enqueue("nurse", "n")
    worker = site.started("n")
    sleeper = int(site.ledger.lindex("sleepers", -1))
    assert not is_gone(sleeper)

    psutil.Process(worker).kill()

    wait_until(lambda: is_gone(sleeper), "the job's process to end", 2.0)
    site.started("n", times=2)
    site.release("n")
    site.await_processed(1)
    drain(master, site)


def test_a_job_that_closes_all_descriptors_harms_no_other(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "2")
    idle_workers(master, 2)
    for number in range(4):
        site.enqueue("close_descriptors", f"closed {number}")
        site.enqueue("note", f"noted {number}")

    wait_until(
        lambda: site.count("processed") + len(site.failures()) >= 8, "all jobs to be settled"
    )

    runs = Counter(site.runs())
    for number in range(4):
        assert runs[f"noted {number}"] >= 1
        assert runs[f"closed {number}"] >= 1
    assert site.count("processed") + len(site.failures()) == 8
    idle_workers(master, 2)
    drain(master, site)


# -- time limits -------------------------------------------------------------------------------


@patient
def test_a_job_over_its_limit_fails_and_the_worker_goes_on(bench: Bench) -> None:
    site = bench.site
    master = bench.start(*APP, "-c", "1")
    (worker,) = idle_workers(master, 1)
    site.enqueue("limited", "l")
    site.started("l")

    wait_until(site.failures, "the job to fail", 2.0)
    site.enqueue("note", "after")
    site.await_processed(1)

    (failure,) = site.failures()
    assert failure["exception"] == "JobTimeout"
    assert "in limited" in "\n".join(failure["backtrace"])
    assert worker.is_running()
    assert site.starts("l") == 1
    drain(master, site)


@patient
def test_a_job_that_ignores_its_limit_is_killed_with_its_stack_told(bench: Bench) -> None:
    site = bench.site
    master = bench.start(*APP, "-c", "3")
    site.enqueue("limited_stubborn", "s")
    site.enqueue("limited_deaf", "d")
    pids = {site.started("s"), site.started("d")}

    stays(lambda: site.failures() == [], "it is given ten seconds more", 10.0)
    wait_until(lambda: len(site.failures()) == 2, "both jobs to be recorded as failed", 5.0)

    failures = {failure["payload"]["class"]: failure for failure in site.failures()}
    for failure in failures.values():
        assert failure["exception"] == "JobTimeout"
        assert "went on after its time limit" in failure["error"]
    stack = "\n".join(failures["limited_stubborn"]["backtrace"])
    assert "in limited_stubborn" in stack
    assert all(map(is_gone, pids))
    assert (site.starts("s"), site.starts("d")) == (1, 1)
    idle_workers(master, 3)
    drain(master, site)


# -- the application ---------------------------------------------------------------------------


@pytest.mark.parametrize("preload", ["--preload", "--no-preload"])
def test_an_application_with_an_error_ends_the_start(
    start: Starter, site: Site, tmp_path: Path, preload: str
) -> None:
    env = module(tmp_path, "broken_app", BROKEN)

    master = start("-A", "broken_app", "-c", "2", preload, env=env)

    assert master.wait(5) == ExitCode.CONFIG
    assert "in helper" in master.log()
    assert "ZeroDivisionError" in master.log()
    assert_nothing_left(master, site.redis)


def test_an_application_that_starts_a_thread_is_not_preloaded(
    start: Starter, site: Site, tmp_path: Path
) -> None:
    env = module(tmp_path, "threaded_app", THREADED)

    master = start("-A", "threaded_app", "-q", "math", "-c", "2", env=env)
    idle_workers(master, 2)
    site.enqueue("note", "n")
    site.await_processed(1)

    assert "starting over without preload" in master.log()
    assert "metrics" in master.log()
    assert len(list(Path(f"/proc/{master.pid}/task").iterdir())) == 1
    drain(master, site)


@pytest.mark.parametrize("fault", ["os._exit(3)", "time.sleep(60)"])
@patient
def test_workers_that_cannot_boot_any_more_do_not_fork_for_ever(bench: Bench, fault: str) -> None:
    site = bench.site
    flag, births = bench.directory / "flag", bench.directory / "births"
    env = module(bench.directory, "fickle_app", FICKLE.format(fault=fault))
    env |= {"FLAG": str(flag), "BIRTHS": str(births)}
    args = ("-A", "fickle_app", "-q", "math", "-c", "2", "--no-preload", "--boot-timeout", "1")
    master = bench.start(*args, env=env)
    before = idle_workers(master, 2)

    flag.touch()
    for worker in before:
        worker.kill()
    stays(lambda: master.process.poll() is None, "the master goes on", 2.5)
    number = len(births.read_text())
    assert 2 <= number <= 12, f"{number} births in 2.5 s"

    flag.unlink()
    idle_workers(master, 2)
    site.enqueue("note", "n")
    site.await_processed(1)
    drain(master, site)

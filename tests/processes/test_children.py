"""What a child is to the system, and what its jobs may do to it."""

import os
import re
import signal
from collections import Counter
from pathlib import Path

import psutil

from forkresque.errors import ExitCode
from forkresque.protocol.payload import encode_job
from tests.conftest import Starter
from tests.support.patience import Bench, patient
from tests.support.processes import Start, assert_nothing_left, title
from tests.support.site import APP, KEYS, Site, idle_workers, is_gone
from tests.support.waiting import wait_until

THREADED = """
import threading
from tests.support.jobs import app

threading.Thread(target=threading.Event().wait, name="metrics", daemon=True).start()
"""
# An application that cannot be imported any more once the file FLAG is there.


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


# -- jobs that end their worker ----------------------------------------------------------------


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


# -- the application ---------------------------------------------------------------------------


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


# -- which queue comes first -------------------------------------------------------------------


def test_each_queue_of_a_pool_has_its_turn_if_asked_to(start: Starter, site: Site) -> None:
    marks = {queue: [f"{queue} {number}" for number in range(4)] for queue in ("high", "low")}
    for queue, jobs in marks.items():
        site.redis.sadd(KEYS.queues(), queue)
        site.redis.rpush(KEYS.queue(queue), *[encode_job(queue, "slow", (m, 0)) for m in jobs])

    master = start(*APP[:-2], "-q", "high,low", "-c", "1", "--order", "round_robin")
    wait_until(lambda: len(site.runs()) == 8, "all jobs to run")

    runs = site.runs()
    assert sorted(runs) == sorted(marks["high"] + marks["low"])
    assert all({mark.split()[0] for mark in runs[at : at + 2]} == set(marks) for at in (0, 2, 4, 6))
    drain(master, site)

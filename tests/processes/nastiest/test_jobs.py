"""Failures 13 to 19 and 25: what jobs do to themselves, to their worker and to the next job."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
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
from tests.support.tools import program
from tests.support.waiting import wait_until

STUCK_AFTER = 2.5
HARD_GRACE = 10.0
SHORT_JOBS = MANY_JOBS = 1000
REMOVED = 3.0  # seconds after which nothing of a dead job may be there

CRASHES: dict[
    str, list[tuple[list[object], str]]
] = {  # how a job ends its process, and what the record says
    "hard_exit": [([0], "exited with status 0"), ([3], "exited with status 3")],
    "abort": [([], "was killed by SIGABRT")],
    "die": [(["mark"], "was killed by SIGKILL")],
}
# An application whose master is slow between the decision to interrupt a job and the signal. It
# notes each signal that it sends.
TARDY = """
import os, pathlib, signal, time
from tests.support.jobs import app

SOFT = signal.SIGRTMIN + 1


def slowed(send):
    def late(whom, signum, *rest):
        if signum == SOFT:
            time.sleep(0.004)
            with pathlib.Path(os.environ["SIGNALS"]).open("a") as signals:
                signals.write("x")
        return send(whom, signum, *rest)

    return late


os.kill, signal.pidfd_send_signal = slowed(os.kill), slowed(signal.pidfd_send_signal)
"""


# -- 13 ----------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
def test_13_job_ignores_signals(begin: Begin, site: Site) -> None:
    run = begin(*APP, "-c", "3")
    site.enqueue("limited_stubborn", "s")
    site.enqueue("limited_deaf", "d")
    workers = [run.as_told(site.started(name)) for name in ("s", "d")]

    stays(lambda: site.failures() == [], "the soft limit has no effect", HARD_GRACE)
    told = {one["payload"]["class"]: one for one in failures(site, 2, 5.0)}

    assert {one["exception"] for one in told.values()} == {"JobTimeout"}
    assert all("went on after its time limit" in one["error"] for one in told.values())
    assert "in limited_stubborn" in "\n".join(told["limited_stubborn"]["backtrace"])
    assert all(is_gone(worker.pid) for worker in workers)
    assert (site.starts("s"), site.starts("d")) == (1, 1)
    idle(run, 3)
    end(run, site.redis)


# -- 14 ----------------------------------------------------------------------------------------


def test_14_job_wedged_in_c(begin: Begin, site: Site) -> None:
    run = begin(*APP, "-c", "3", "--heartbeat-timeout", str(STUCK_AFTER))
    names = {"locked_up": "l", "crunch": "c"}
    for job, name in names.items():
        site.enqueue(job, name)
    pids = {name: site.started(name) for name in names.values()}
    workers = [run.as_told(pid) for pid in pids.values()]

    def looks_alive() -> bool:
        known = {worker.split(b":")[1] for worker in site.redis.smembers(KEYS.workers())}
        pings = site.redis.keys(KEYS.ping("*"))
        told = {str(pid).encode() for pid in pids.values()}
        return told <= known and told <= {ping.split(b":")[-1] for ping in pings}

    stays(looks_alive, "both look alive, though they hold the GIL", STUCK_AFTER - 1.0)
    assert not any(is_gone(worker.pid) for worker in workers)
    told = {one["payload"]["class"]: one for one in failures(site, 2, STUCK_AFTER + 3.0)}

    for job in names:
        assert told[job]["exception"] == "WorkerStuck"
        assert f"in {job}" in "\n".join(told[job]["backtrace"])
    assert all(is_gone(worker.pid) for worker in workers)
    idle(run, 3)
    site.enqueue("note", "n")
    site.await_processed(1)
    end(run, site.redis)


# -- 15 ----------------------------------------------------------------------------------------


def test_15_group_of_a_killed_job(begin: Begin, site: Site) -> None:
    run = begin(*APP, "-c", "2")
    site.enqueue("nurse", "n")
    worker = run.as_told(site.started("n"))
    sleeper = run.as_told(int(site.ledger.lindex("sleepers", -1)))
    assert not is_gone(sleeper.pid)

    worker.kill()

    wait_until(lambda: is_gone(sleeper.pid), "what the job has started to end", REMOVED)
    site.started("n", times=2)
    site.release("n")
    site.await_processed(1)
    end(run, site.redis)


@pytest.mark.parametrize("how", ["killed", "ends", "drained"])
def test_15_grandchild_that_escapes(begin: Begin, site: Site, how: str) -> None:
    run = begin(*APP, "-c", "2")
    site.enqueue("daemonise", "d")
    worker = run.as_told(site.started("d"))
    daemon = run.as_told(int(site.ledger.lindex("daemons", -1)))
    wait_until(lambda: os.getpgid(daemon.pid) != os.getpgid(worker.pid), "its escape")

    if how == "killed":
        worker.kill()
        wait_until(lambda: is_gone(daemon.pid), "the daemon to be removed", REMOVED)
        site.started("d", times=2)
    site.release("d")
    if how == "drained":
        end(run, site.redis)
        assert is_gone(daemon.pid)
        return
    site.await_processed(1)
    wait_until(lambda: is_gone(daemon.pid), "the daemon to be removed", REMOVED)
    idle(run, 2)
    wait_until(lambda: not run.zombies(), "all to be reaped", 1.0)
    end(run, site.redis)


@pytest.mark.full
@pytest.mark.timeout(180)
def test_15_a_thousand_jobs_that_litter(begin: Begin, site: Site) -> None:
    run = begin(*APP, "-c", "4")
    idle(run, 4)
    for number in range(MANY_JOBS):
        site.enqueue("litter", str(number))
    site.await_processed(MANY_JOBS, timeout=150.0)

    idle(run, 4, 20.0)
    wait_until(lambda: not run.zombies(), "all to be reaped", 1.0)
    wait_until(lambda: len(below(run)) == 5, "nobody to be there but the children", REMOVED)
    end(run, site.redis)


def below(run: Run) -> list[psutil.Process]:
    """Return all that is below a master."""
    return psutil.Process(run.pid).children(recursive=True)


# -- 16 ----------------------------------------------------------------------------------------


def test_16_job_closes_descriptors(begin: Begin, site: Site) -> None:
    run = begin(*APP, "-c", "2")
    before = idle(run, 2)
    for number in range(4):
        site.enqueue("close_descriptors", f"closed {number}")
        site.enqueue("note", f"noted {number}")

    wait_until(lambda: site.count("processed") + len(site.failures()) >= 8, "8 jobs to be settled")

    runs = Counter(site.runs())
    assert set(runs) == {f"{what} {number}" for what in ("closed", "noted") for number in range(4)}
    assert site.count("processed") + len(site.failures()) == 8
    assert not set(before) & set(idle(run, 2)), "they were recycled"
    assert "it has closed our descriptors" in run.log()
    assert site.redis.exists(KEYS.suspects()) == 0, "nobody was taken for dead"
    end(run, site.redis)


# -- 17 ----------------------------------------------------------------------------------------


class Reader:
    """The end of a pipe at which somebody reads only now and then."""

    def __init__(self, pipe: Path) -> None:
        os.mkfifo(pipe)
        self._end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        self.command = [program("sh", "dash"), "-c", f'exec "$0" "$@" >{pipe} 2>&1']
        self._heard = b""

    def has_read(self, text: bytes) -> bool:
        """Read all there is; tell whether this text has come until now."""
        with contextlib.suppress(BlockingIOError):
            while said := os.read(self._end, 1 << 20):
                self._heard += said
        return text in self._heard

    def close(self) -> None:
        """Go away."""
        os.close(self._end)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Return the reader of what a command says."""
    with closing(Reader(tmp_path / "output")) as reader:
        yield reader


def test_17_job_fills_stdout(begin: Begin, site: Site, reader: Reader) -> None:
    run = begin(*APP, "-c", "3", "-t", "1", inside=reader.command)
    idle(run, 3)
    reader.has_read(b"")
    site.enqueue("print_much", "p", 10)
    printing = run.as_told(site.started("p"))
    wait_until(lambda: "pipe" in waits_in(printing), "the pipe to be full")

    for number in range(3):  # the master has something to say, and nowhere to say it
        have_one_replaced(run, printing)
        site.enqueue("note", str(number))
        site.await_processed(number + 1)
    assert run.state()
    wait_until(lambda: reader.has_read(b"") and "p" in site.runs(), "the job to print all")
    reader.has_read(b"")  # the last of it, or there would be no room yet
    have_one_replaced(run, printing)
    wait_until(lambda: reader.has_read(b"lines before this one were lost"), "word of it")

    site.enqueue("print_much", "again", 10)
    printing = run.as_told(site.started("again"))
    wait_until(lambda: "pipe" in waits_in(printing), "the pipe to be full")
    end(run, site.redis, ExitCode.CUT)  # its job was cut all the same


def have_one_replaced(run: Run, other: psutil.Process) -> None:
    """Kill a worker, and wait for its successor."""
    victim = next(one for one in run.workers() if one != other)
    victim.kill()
    wait_until(lambda: is_gone(victim.pid), "its end")
    wait_until(lambda: len(run.workers()) == 3, "another in its place", 2.0)


def waits_in(process: psutil.Process) -> str:
    """Return the place in the kernel where a process sleeps."""
    return Path(f"/proc/{process.pid}/wchan").read_text()


# -- 18 ----------------------------------------------------------------------------------------


def test_18_job_exits_by_itself(begin: Begin, site: Site) -> None:
    run = begin(*APP, "-c", "2")
    before = idle(run, 2)
    expected = [(name, args, how) for name, cases in CRASHES.items() for args, how in cases]
    for number, (name, args, how) in enumerate(expected, start=1):
        site.enqueue(name, *args)
        failure = failures(site, number)[-1]
        assert (failure["exception"], failure["queue"]) == ("DirtyExit", "math")
        assert (failure["payload"]["class"], failure["payload"]["args"]) == (name, args)
        assert how in failure["error"]
        assert name in failure["error"]
        # After three deaths with the same payload it is the payload's fault.
        wait_until(lambda: run.log().count(how) >= 3, "three deaths to be told")  # noqa: B023
    assert not set(before) & set(idle(run, 2)), "all were replaced"

    known = run.workers()
    site.enqueue("exit", 3)
    assert failures(site, len(expected) + 1)[-1]["exception"] == "SystemExit"
    site.enqueue("note", "after")
    site.await_processed(1)
    assert idle(run, 2) == known, "a SystemExit is a failure, and no end"
    assert site.count("failed") == len(expected) + 1
    end(run, site.redis)


# -- 19 ----------------------------------------------------------------------------------------


def test_19_native_crash(begin: Begin, site: Site) -> None:
    run = begin(*APP, "-c", "2")
    site.enqueue("segfault")
    (failure,) = failures(site, 1)

    assert failure["exception"] == "DirtyExit"
    assert "was killed by SIGSEGV while performing segfault" in failure["error"]
    told = "\n".join(failure["backtrace"])
    assert "Fatal Python error: Segmentation fault" in told
    assert "in segfault" in told
    site.enqueue("note", "after")
    site.await_processed(1)
    idle(run, 2)
    end(run, site.redis)


# -- 25 ----------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
def test_25_late_time_out(begin: Begin, site: Site, tmp_path: Path) -> None:
    (tmp_path / "tardy.py").write_text(TARDY)
    signals = tmp_path / "signals"
    signals.touch()
    env = {"PYTHONPATH": str(tmp_path), "SIGNALS": str(signals)}
    run = begin("-A", "tardy", "-q", "math", "-c", "4", env=env)
    before = idle(run, 4)
    marks = [f"{'brink' if number % 2 else 'note'} {number}" for number in range(SHORT_JOBS)]

    for number, mark in enumerate(marks):
        if mark.startswith("brink"):
            site.enqueue("brink", mark, 0.010 + 0.003 * (number % 11))
        else:
            site.enqueue("note", mark)
    wait_until(
        lambda: site.count("processed") + site.count("failed") >= SHORT_JOBS, "all jobs", 40.0
    )

    records = site.failures()
    failed = {record["payload"]["args"][0] for record in records}
    runs = Counter(site.runs())
    assert {record["exception"] for record in records} == {"JobTimeout"}
    assert {record["payload"]["class"] for record in records} == {"brink"}
    # One that comes when the job returns ends it outside of its own code.
    told = ["\n".join(record["backtrace"]) for record in records]
    assert all("in brink" in text or "File " not in text for text in told), told
    assert any("in brink" in text for text in told)
    assert site.count("processed") + len(records) == SHORT_JOBS
    assert max(runs.values()) == 1
    assert set(runs) | failed == set(marks)
    assert len(signals.read_text()) > len(records), "no signal came too late"
    assert idle(run, 4) == before
    assert_calm(run)
    end(run, site.redis)

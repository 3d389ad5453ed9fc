"""Workers that are replaced though nothing is wrong with them: after so many jobs, by age, by size.

The ledger knows which process ran which job, and when each began and ended.
"""

import contextlib
import random
import re
import signal
from collections import Counter, defaultdict
from typing import Any

import psutil
import pytest

from forkresque.errors import ExitCode
from forkresque.protocol.payload import encode_job
from tests.conftest import Starter
from tests.support.patience import Bench, patient
from tests.support.processes import Start, assert_nothing_left
from tests.support.site import APP, KEYS, Site, await_rest, is_gone, state, stays
from tests.support.sizes import sized
from tests.support.waiting import wait_until

AT_WORK = {"idle", "call", "run", "settle"}
AT_ONCE = 0.1  # of a pool is replaced at the same time, and at least one
GAP = 0.25  # of all looks: between a last breath and a first claim, on a busy machine
BORROWED = 30  # MB; freed, they stay with the C library, which returns only more than 32
DEATHS = 3  # with one payload, then it is the payload's fault


def backlog(site: Site, number: int, seconds: float) -> list[str]:
    """Enqueue so many jobs that tell when they begin and end."""
    marks = [f"job {index}" for index in range(number)]
    with site.redis.pipeline() as pipe:
        pipe.sadd(KEYS.queues(), "math")
        pipe.rpush(KEYS.queue("math"), *[encode_job("math", "timed", (m, seconds)) for m in marks])
        pipe.execute()
    return marks


def spans(site: Site) -> list[tuple[str, int, int]]:
    """Return mark, pid, and 1 for each beginning, -1 for each end, in this order."""
    told = [line.decode().rsplit(" ", 2) for line in site.ledger.lrange("spans", 0, -1)]
    return [(mark, int(pid), int(step)) for mark, pid, step in told]


def performed(site: Site) -> dict[int, list[str]]:
    """Return the jobs that each process has begun, by pid."""
    jobs = defaultdict(list)
    for mark, pid, step in spans(site):
        if step > 0:
            jobs[pid].append(mark)
    return dict(jobs)


def most_at_once(site: Site) -> int:
    """Return how many jobs ran at the same time at most."""
    running = most = 0
    for _, _, step in spans(site):
        running += step
        most = max(most, running)
    return most


def pool(told: dict[str, Any]) -> dict[str, Any]:
    (pool,) = told["pools"]
    return dict(pool)


def recycled(master: Start) -> int:
    return int(state(master)["counters"]["recycled"])


def drain(master: Start, site: Site) -> None:
    """End the master; nothing may be left."""
    master.send_signal(signal.SIGTERM)
    assert master.wait(5) == ExitCode.OK
    assert_nothing_left(master, site.redis)


# -- by jobs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "earliest"), [(20, 16), (3, 3)])
def test_no_worker_performs_more_jobs_than_it_may(
    start: Starter, site: Site, limit: int, earliest: int
) -> None:
    master = start(*APP, "-c", "3", "--max-jobs", str(limit))
    await_rest(master, 3)
    marks = backlog(site, 12 * limit, 0.01)

    def all_done() -> bool:
        state(master)  # to ask wakes the master, so it sees soon who is due
        return site.count("processed") >= len(marks)

    wait_until(all_done, "all jobs to be done", 30.0)

    ran = {pid: len(jobs) for pid, jobs in performed(site).items()}
    assert Counter(site.runs()) == Counter(marks)
    assert site.count("processed") == len(marks)
    assert max(ran.values()) <= limit
    gone = [number for pid, number in ran.items() if is_gone(pid)]
    assert len(gone) >= 8
    assert min(gone) >= earliest
    due = {int(number) for number in re.findall("it has carried out ([0-9]+) jobs", master.log())}
    if limit > earliest:
        assert len(due) > 1, "each draws its own limit"
    assert due <= set(range(earliest, limit + (limit > earliest)))
    assert most_at_once(site) <= 3
    await_rest(master, 3)
    assert master.log().count("WARNING") == 0
    drain(master, site)


def test_one_process_a_job_survives_a_storm_of_kills(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "4", "--max-jobs", "1")
    await_rest(master, 4)
    marks = backlog(site, 70, 0.03)
    dice = random.Random(4)
    killed: set[int] = set()

    def all_settled() -> bool:
        begun = {pid for _, pid, step in spans(site) if step > 0}
        workers = [worker for worker in master.children("worker") if worker.pid in begun]
        if workers and dice.random() < 0.3:
            victim = dice.choice(workers)
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
                killed.add(victim.pid)
        return site.count("processed") + len(site.failures()) >= len(marks)

    wait_until(all_settled, "all jobs to be settled", 40.0, every=0.03)
    master.send_signal(signal.SIGTERM)
    assert master.wait(5) == ExitCode.OK

    jobs = performed(site)
    tries = Counter(mark for one in jobs.values() for mark in one)
    done, runs = site.count("processed"), Counter(site.runs())
    records = [failure["payload"]["args"][0] for failure in site.failures()]
    ours = sum(pid in killed for pid in jobs)
    assert len(killed) >= 5
    assert all(len(one) == 1 for one in jobs.values()), "one process a job"
    assert done + len(records) == len(marks)
    assert site.count("failed") == len(records)
    assert set(runs) | set(records) == set(marks)
    assert all(tries[mark] == DEATHS for mark in records), "it had killed three workers"
    assert sum(tries.values()) - len(marks) <= ours, "it runs again only after a kill"
    assert all(number <= DEATHS for number in tries.values())
    assert site.waiting() == []
    assert_nothing_left(master, site.redis)


# -- by age ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", sized((4, 1, 6), (20, 3, 60)))
def test_there_are_always_enough_workers(
    start: Starter, site: Site, scale: tuple[int, int, int]
) -> None:
    size, age, renewals = scale
    master = start(*APP, "-c", str(size), "--max-age", str(age))
    await_rest(master, size)
    most = max(1, int(size * AT_ONCE))
    ages: dict[int, float] = {}
    looks = short = number = 0

    def enough() -> bool:
        nonlocal looks, short, number
        told = state(master)
        ours, phases = pool(told), Counter(worker["phase"] for worker in told["workers"])
        at_work = sum(phases[phase] for phase in AT_WORK)
        assert ours["idle"] + ours["busy"] >= size, told
        assert ours["booting"] <= most, told
        assert len(told["workers"]) <= 2 * size, told
        looks += 1
        short += at_work < size
        ages.update((worker["pid"], worker["age"]) for worker in told["workers"])
        number += 1
        site.enqueue("timed", f"job {number}", 0.05)
        return bool(told["counters"]["recycled"] >= renewals)

    wait_until(enough, f"{renewals} renewals", 60.0)

    gone = [old for pid, old in ages.items() if is_gone(pid)]
    assert gone
    assert min(gone) >= 0.75 * age
    assert short < GAP * looks, f"too few at work at {short} of {looks} looks"
    site.await_processed(number, 30.0)
    assert most_at_once(site) <= size
    assert site.count("failed") == 0
    drain(master, site)


@patient
def test_a_busy_worker_is_replaced_after_its_job_and_no_other_job_starts(bench: Bench) -> None:
    site = bench.site
    master = bench.start(*APP, "-c", "2", "--max-age", "1")
    busy = set(site.gates("a", "b"))

    def held() -> list[int]:
        return [w["pid"] for w in state(master)["workers"] if w["phase"] == "held"]

    wait_until(lambda: len(held()) == 2, "two successors that wait")
    site.enqueue("note", "n")
    stays(lambda: site.runs() == [], "there are two jobs in hand, and no third", 0.5)
    assert {worker.pid for worker in master.children("worker")} == {*busy, *held()}

    site.release("a")
    wait_until(lambda: site.runs() == ["a", "n"], "the next job")
    wait_until(lambda: any(map(is_gone, busy)), "one of the two to go")

    master.send_signal(signal.SIGTERM)
    wait_until(lambda: state(master)["draining"], "the drain")
    born = state(master)["counters"]["born"]
    wait_until(lambda: len(master.children("worker")) == 1, "all but the busy one to go")
    stays(lambda: state(master)["counters"]["born"] == born, "nobody is replaced in a drain", 1.3)
    site.release("b")
    assert master.wait(5) == ExitCode.OK
    assert site.runs() == ["a", "n", "b"]
    assert site.starts("b") == 1
    assert_nothing_left(master, site.redis)


# -- by memory ---------------------------------------------------------------------------------


@patient
def test_a_worker_that_has_grown_is_replaced_after_its_job(bench: Bench) -> None:
    site = bench.site
    master = bench.start(*APP, "-c", "1", "--max-memory", "20M")
    await_rest(master, 1)
    for _ in range(3):
        site.enqueue("borrow", BORROWED)
    site.await_processed(3)
    told = site.ledger.lrange("borrowed", 0, -1)
    assert set(map(int, told[1::2])) == {BORROWED << 20}
    (first,) = {int(pid) for pid in told[::2]}
    stays(lambda: [w.pid for w in master.children("worker")] == [first], "it was given back", 1.2)
    assert recycled(master) == 0

    site.enqueue("keep", 30)
    site.await_processed(4)
    wait_until(lambda: is_gone(first), "the worker that has grown to go")
    site.enqueue("borrow", 1)
    site.await_processed(5)

    assert site.ledger.lrange("kept", 0, -1) == [str(first).encode()]
    assert int(site.ledger.lindex("borrowed", -2)) != first
    assert recycled(master) == 1
    assert re.search("its own memory has grown by (29|3[0-9]) MB", master.log())
    assert site.count("failed") == 0
    drain(master, site)


@patient
def test_a_job_that_outgrows_its_limit_by_far_is_killed(bench: Bench) -> None:
    site = bench.site
    master = bench.start(*APP, "-c", "2", "--max-memory", "20M")
    await_rest(master, 2)
    site.enqueue("gate", "calm")
    site.enqueue("swell", "s", 50, 0, 0)
    calm, pid = site.started("calm"), site.started("s")

    (failure,) = wait_until(site.failures, "the job to be recorded as failed", 5.0)

    assert is_gone(pid)
    assert failure["exception"] == "DirtyExit"
    assert "was killed by SIGKILL while performing swell" in failure["error"]
    assert "its own memory grew beyond twice --max-memory" in failure["error"]
    assert "in swell" in "\n".join(failure["backtrace"])
    assert not is_gone(calm)
    assert state(master)["counters"]["killed"] == 1
    site.release("calm")
    site.await_processed(1)
    await_rest(master, 2)
    drain(master, site)

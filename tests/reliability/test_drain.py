"""A drain takes no new job, cuts none that ends in time, and is over in time, come what may.

SIGTERM lands where a job is on its way from one place to another: Redis holds back the claim or
the settle until the master has begun to drain. Then the jobs and the servers that would prolong
it. The bounds are those of I19: the drain time and three seconds, and two when it is forced.
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from forkresque.errors import ExitCode
from forkresque.protocol.payload import encode_job
from tests.conftest import Starter
from tests.support.patience import Bench, patient
from tests.support.processes import Start, assert_nothing_left
from tests.support.report import Report
from tests.support.servers import Server
from tests.support.site import APP, KEYS, Site, await_rest, phases, ticks
from tests.support.sizes import sized
from tests.support.waiting import wait_until

AUDIT = ("--audit", "100000")
HELD_MS = 20_000  # the longest that Redis holds scripts back, should a test end early
OVERTIME, FORCED = 3.0, 2.0  # seconds, as promised
DRAIN = 0.2


@dataclass(frozen=True)
class Size:
    """How often, and whether the machine is quiet enough to hold a bound without slack."""

    times: int
    strict: bool


SMALL, FULL = Size(3, strict=False), Size(10, strict=True)


def draining(master: Start) -> None:
    wait_until(lambda: "draining within=" in master.log(), "the drain to begin", every=0.002)


def drain(master: Start, report: Report, *, code: int = ExitCode.OK) -> float:
    """Send SIGTERM, and return how long the end took."""
    asked_at = time.monotonic()
    master.send_signal(signal.SIGTERM)
    assert master.wait(15) == code
    took = time.monotonic() - asked_at
    report.time("SIGTERM to exit", took)
    return took


def events(site: Site) -> list[str]:
    """Return how jobs ended, by the audit stream, which the scripts themselves have written."""
    return [entry[b"event"].decode() for _, entry in site.redis.xrange(KEYS.audit())]


def held_scripts(redis: Any) -> int:
    """Return how many clients have sent a script that Redis holds back."""
    clients = redis.client_list()
    return sum(one["cmd"].startswith("eval") and "b" in one["flags"] for one in clients)


@contextmanager
def scripts_held(site: Site, *jobs: bytes) -> Iterator[None]:
    """Put jobs into the queue, and in the same instant have Redis hold back whatever writes."""
    with site.redis.pipeline(transaction=True) as pipe:
        for job in jobs:
            pipe.rpush(KEYS.queue("math"), job)
        pipe.execute_command("CLIENT", "PAUSE", HELD_MS, "WRITE")
        pipe.execute()
    try:
        yield
    finally:
        site.redis.execute_command("CLIENT", "UNPAUSE")


# -- where the signal lands ----------------------------------------------------------------------


@pytest.mark.parametrize("size", sized(SMALL, FULL))
def test_an_idle_master_leaves_at_once(
    start: Starter, site: Site, size: Size, report: Report
) -> None:
    for _ in range(size.times):
        master = start(*APP, "-c", "2")
        await_rest(master, 2)
        assert drain(master, report) < 1.0
        assert_nothing_left(master, site.redis)


@pytest.mark.parametrize("times", sized(1, 10))
def test_a_job_whose_claim_is_answered_after_the_signal_goes_back_unstarted(
    start: Starter, site: Site, times: int, report: Report
) -> None:
    jobs = [encode_job("math", "note", [mark]) for mark in ("first", "second")]
    for _ in range(times):
        site.redis.delete(KEYS.queue("math"), KEYS.audit())
        master = start(*APP, *AUDIT, "-c", "1")
        await_rest(master, 1)
        with scripts_held(site, *jobs):
            # The clerk hears of the jobs as well, and counts them: one script each.
            wait_until(lambda: held_scripts(site.redis) == 2, "a claim on its way")
            asked_at = time.monotonic()
            master.send_signal(signal.SIGTERM)
            draining(master)
        assert master.wait(5) == ExitCode.OK
        report.time("SIGTERM to exit", time.monotonic() - asked_at)
        assert events(site) == ["RELEASE"]
        assert (site.waiting(), site.runs()) == (jobs, [])
        assert_nothing_left(master, site.redis)


@pytest.mark.parametrize("times", sized(1, 10))
def test_a_settle_that_is_answered_after_the_signal_counts_and_brings_no_job(
    start: Starter, site: Site, times: int, report: Report
) -> None:
    behind = [encode_job("math", "note", [mark]) for mark in ("next", "last")]
    for number in range(times):
        site.redis.delete(KEYS.queue("math"), KEYS.audit())
        master = start(*APP, *AUDIT, "-c", "1")
        (worker,) = site.gates(f"gate {number}")
        with scripts_held(site, *behind):
            site.release(f"gate {number}")
            await_settle(master, worker, site)
            asked_at = time.monotonic()
            master.send_signal(signal.SIGTERM)
            draining(master)
        assert master.wait(5) == ExitCode.OK
        report.time("SIGTERM to exit", time.monotonic() - asked_at)
        # The settle had asked for the next job before the drain began; that one goes back.
        assert events(site) == ["DONE", "RELEASE"]
        assert site.waiting() == behind
        assert len(site.runs()) == site.count("processed") == number + 1
        assert_nothing_left(master, site.redis)


def await_settle(master: Start, worker: int, site: Site) -> None:
    """Wait until a worker's settle is held back, and the clerk's count of the jobs."""
    wait_until(lambda: phases(master)[worker] == "settle", "the job to end")
    wait_until(lambda: held_scripts(site.redis) == 2, "a settle on its way")


@pytest.mark.parametrize("forked", sized([1, 12], [*range(1, 24, 2)]))
def test_term_between_two_forks_ends_those_that_exist(
    start: Starter, site: Site, forked: list[int], report: Report
) -> None:
    wanted = 24
    hits = 0
    for number in forked:
        master = start(*APP, "-c", str(wanted))
        born = await_births(master, number)
        drain(master, report)
        hits += born <= wanted  # with the clerk, it would be one more
        assert "Traceback" not in master.log()
        assert_nothing_left(master, site.redis)
    assert hits, "no signal came before the last fork"


def await_births(master: Start, number: int) -> int:
    """Wait until a master has at least so many children; return how many there are."""

    def born() -> int:
        children = len(master.children())
        return children if children >= number else 0

    return wait_until(born, f"{number} children", every=0.0005)


# -- deployments ---------------------------------------------------------------------------------


def await_begun(site: Site, number: int) -> None:
    wait_until(lambda: site.ledger.llen("begun") >= number, f"{number} jobs to begin")


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("cycles", sized(1, 15))
def test_one_deployment_after_another_runs_every_job_once(
    start: Starter, site: Site, report: Report, *, cycles: int, workers: int, seed: int
) -> None:
    report.seed("test_one_deployment_after_another_runs_every_job_once", seed)
    chance, enqueued, cut_in_flight = random.Random(seed), list[str](), 0

    def enqueue(number: int) -> None:
        for _ in range(number):
            enqueued.append(str(len(enqueued)))
            site.enqueue("slow", enqueued[-1], chance.choice((0.0, 0.01, 0.08)))

    for _ in range(cycles):
        master = start(*APP, *AUDIT, "-c", str(workers))
        begun = site.ledger.llen("begun")
        enqueue(6 * workers)
        await_begun(site, begun + 1)
        for _ in ticks(0.01, chance.uniform(0.02, 0.2)):
            enqueue(chance.randrange(2))
        cut_in_flight += site.slots()
        drain(master, report)
        assert_nothing_left(master, site.redis)
    last = start(*APP, *AUDIT, "-c", str(workers))
    site.await_processed(len(enqueued), 30.0)
    drain(last, report)

    assert cut_in_flight, "no signal has come while a job ran"
    runs = site.runs()
    report.count("jobs", len(enqueued))
    report.count("lost", len(set(enqueued) - set(runs)))
    report.count("re-runs", len(runs) - len(set(runs)))
    assert Counter(runs) == Counter(enqueued)
    assert workers > 1 or runs == enqueued, "a job that was released was overtaken"
    assert site.count("failed") == 0
    assert Counter(events(site))["DONE"] == len(enqueued)
    assert set(events(site)) <= {"DONE", "RELEASE"}


# -- what would prolong it -----------------------------------------------------------------------

STUBBORN = ("stubborn", "masked", "locked_up")


def a_server_to_freeze(bench: Bench) -> tuple[Server, Site]:
    """Return another server, and that one and the bench's ledger."""
    server = bench.enter(Server())
    return server, Site(bench.enter(closing(server.client())), bench.site.ledger)


def begin_stubborn(site: Site, at: str) -> list[bytes]:
    """Have jobs begin that heed neither exceptions nor signals; return their bytes."""
    jobs = [site.enqueue(name, f"{name} {at}") for name in STUBBORN]
    for name in STUBBORN:
        site.started(f"{name} {at}")
    return jobs


def importing_for_ever(start: Starter, folder: Path) -> Start:
    """Start a master whose children do not come out of their import."""
    (folder / "endless_app.py").write_text(
        "import os, pathlib, time\n"
        "pathlib.Path(os.environ['IMPORTING'], str(os.getpid())).touch()\n"
        "while True:\n    time.sleep(1)\n"
    )
    importing = folder / "importing"
    importing.mkdir()
    env = {"PYTHONPATH": str(folder), "IMPORTING": str(importing)}
    master = start("-A", "endless_app", "--no-preload", "-c", "2", "-t", str(DRAIN), env=env)
    wait_until(lambda: len(list(importing.iterdir())) == 3, "three children in their import")
    return master


def await_end_of_all(masters: dict[str, Start]) -> None:
    """Wait until not one of their processes is left."""
    wait_until(lambda: not any(one.left() for one in masters.values()), "the end of all", 1.0)


def exits(masters: dict[str, Start], orders: dict[str, signal.Signals]) -> dict[str, float]:
    """Send each master its signal; return how long each took to end."""
    asked_at = time.monotonic()
    for name, master in masters.items():
        master.send_signal(orders[name])
    took: dict[str, float] = {}

    def all_ended() -> bool:
        for name in masters.keys() - took.keys():
            if masters[name].process.poll() is not None:
                took[name] = time.monotonic() - asked_at
        return len(took) == len(masters)

    wait_until(all_ended, f"the end of {list(masters)}", 12.0)
    return took


@pytest.mark.parametrize("strict", sized(False, True))
@patient
def test_nothing_prolongs_a_drain(bench: Bench, *, strict: bool) -> None:
    site = bench.site
    frozen, frozen_site = a_server_to_freeze(bench)
    limit = ("-t", str(DRAIN))
    masters = {
        "stubborn jobs": bench.start(*APP, *AUDIT, *limit, "-c", "3"),
        "an import": importing_for_ever(bench.start, bench.directory),
        "a frozen claim": bench.start(*APP, *limit, "-c", "1", url=frozen.url),
    }
    cut = begin_stubborn(site, "drain")
    behind = site.enqueue("note", "behind")
    await_rest(masters["a frozen claim"], 1)
    with scripts_held(frozen_site, encode_job("math", "note", ["claimed"])):
        wait_until(lambda: held_scripts(frozen_site.redis) == 2, "a claim on its way")
        frozen.pause()
        took = exits(masters, dict.fromkeys(masters, signal.SIGTERM))
        await_end_of_all(masters)
        frozen.resume()

    bench.report.time("drain over to exit", [seconds - DRAIN for seconds in took.values()])
    assert masters["stubborn jobs"].process.returncode == ExitCode.CUT
    assert masters["a frozen claim"].process.returncode == ExitCode.OK
    assert site.waiting()[-1] == behind
    assert sorted(site.waiting()[:-1]) == sorted(cut), "all that was cut is ahead"
    assert site.redis.exists(KEYS.suspects()) == 0, "a drain is not the job's fault"
    assert (site.count("processed"), site.count("failed"), site.failures()) == (0, 0, [])
    assert_nothing_left(masters["stubborn jobs"], site.redis)
    heir = bench.start(*APP, "-c", "1", url=frozen.url)
    frozen_site.await_processed(1)
    assert drain(heir, bench.report) < 1.0
    assert frozen_site.runs() == ["claimed"]
    assert_nothing_left(masters["a frozen claim"], frozen_site.redis)
    if strict:
        assert max(took.values()) <= DRAIN + OVERTIME, took


@pytest.mark.parametrize("strict", sized(False, True))
@patient
def test_nothing_prolongs_a_forced_end(bench: Bench, *, strict: bool) -> None:
    site = bench.site
    frozen, frozen_site = a_server_to_freeze(bench)
    masters = {
        "stubborn jobs": bench.start(*APP, *AUDIT, "-c", "3"),
        "frozen Redis": bench.start(*APP, "-c", "3", url=frozen.url),
    }
    cut = begin_stubborn(site, "end")
    behind = site.enqueue("note", "behind")
    begin_stubborn(frozen_site, "frozen")
    frozen.pause()
    for master in masters.values():
        master.send_signal(signal.SIGINT)
        draining(master)

    took = exits(masters, dict.fromkeys(masters, signal.SIGINT))

    bench.report.time("forced end to exit", took.values())
    for master in masters.values():
        assert master.process.returncode == 128 + signal.SIGINT
    await_end_of_all(masters)
    assert site.waiting()[-1] == behind
    assert sorted(site.waiting()[:-1]) == sorted(cut), "all that was cut is ahead"
    assert site.redis.exists(KEYS.suspects()) == 0, "an order is not the job's fault"
    assert_nothing_left(masters["stubborn jobs"], site.redis)
    assert took["stubborn jobs"] <= FORCED
    if strict:
        assert max(took.values()) <= FORCED, took

"""A job that kills whoever runs it is condemned after three deaths, and harms nobody else.

The loss of whole hosts counts apart: it is rarely a job's doing, and condemns at the tenth. One
success clears the count.
"""

import re
import signal
import time
from contextlib import closing

import psutil
import pytest

from forkresque.errors import ExitCode
from forkresque.policy.verdicts import CRASH_LIMIT, HOST_LIMIT
from forkresque.protocol.connection import RedisClock, Target
from forkresque.protocol.ownership import Lease
from forkresque.protocol.payload import digest, encode_job
from forkresque.protocol.registry import Registry
from forkresque.supervisor.recovery import Coroner
from tests.conftest import Starter
from tests.support import oracle
from tests.support.jobs import BOMB_LIMIT, app
from tests.support.lone_workers import running
from tests.support.monitor import Intake, Monitor
from tests.support.oracle import AUDIT
from tests.support.patience import Bench, patient
from tests.support.processes import Start, assert_nothing_left
from tests.support.report import Report
from tests.support.servers import Server
from tests.support.site import APP, KEYS, Site, idle_workers, is_gone
from tests.support.sizes import sized
from tests.support.waiting import wait_until

MOST_DEATHS = 4
BEHIND = 20
DELAY = 2.0  # seconds that the jobs behind a poisoned one may have to wait for it, in all
ENDED = re.compile(r"worker pid=(\d+) ended (signal|status)=")

POISONS = {
    "kills itself": ("die", ["mark"], "was killed by SIGKILL"),
    "reads at address 0": ("segfault", [], "was killed by SIGSEGV"),
    "aborts": ("abort", [], "was killed by SIGABRT"),
    "exits without a word": ("hard_exit", [0], "exited with status 0"),
    "exhausts its memory": ("hoard", ["mark"], "was killed by SIGABRT"),
    "forks without end": ("bomb", ["mark"], "was killed by SIGKILL"),
}


def deaths(master: Start) -> list[int]:
    """Return the pids of the workers whose death the master has told of, in its log."""
    return [int(pid) for pid, _ in ENDED.findall(master.log())]


def mark_of(name: str, args: list[object]) -> str:
    """Return what such a job tells the ledger; "" for one that tells nothing."""
    return str(args[0]) if args and name != "hard_exit" else ""


def story_of(raw: bytes, evidence: oracle.Evidence) -> list[str]:
    """Return how the claims of one job ended, one after the other."""
    return [event.event for event in evidence.events if event.job == digest(raw)]


@pytest.mark.parametrize("workers", sized(1, 1))
@pytest.mark.parametrize(("name", "args", "how"), POISONS.values(), ids=POISONS)
def test_a_job_that_kills_its_workers_is_condemned_and_delays_nobody_for_long(
    start: Starter,
    site: Site,
    one_server: Server,
    report: Report,
    *,
    name: str,
    args: list[object],
    how: str,
    workers: int,
) -> None:
    master = start(*APP, "-c", str(workers), "--audit", str(AUDIT), "--log-level", "debug")
    idle_workers(master, workers)
    intake = Intake(site.redis)
    poison = encode_job("math", name, args)

    with Monitor(one_server) as monitor:
        put_at = time.monotonic()
        intake.put({poison: mark_of(name, args), **behind()})
        site.await_processed(BEHIND)
        delay = time.monotonic() - put_at
        wait_until(site.failures, "the verdict")
        (worker,) = idle_workers(master, 1)

    report.time("jobs behind a poisoned one done", delay)
    killed = deaths(master)
    report.count("kills of workers", len(killed))
    assert 0 < len(killed) <= MOST_DEATHS
    assert len(set(killed)) == len(killed)
    assert worker.pid not in killed
    (failure,) = site.failures()
    assert failure["exception"] == "DirtyExit"
    assert f"{how} while performing {name}" in failure["error"]
    evidence = oracle.prove(site, intake.acknowledged, report, faults=len(killed))
    assert story_of(poison, evidence) == ["REQUEUED", "REQUEUED", "POISON"]
    assert len(killed) == CRASH_LIMIT, "a death that was not the poisoned job's"
    assert [evidence.runs[mark] for mark in behind().values()] == [1] * BEHIND
    monitor.testify(report, least=1)
    assert delay <= DELAY
    stop(master)
    assert_nothing_left(master, site.redis)  # no copy that a job has forked, either
    if name == "bomb":
        forks = [int(number) for number in site.ledger.lrange("forks", 0, -1)]
        assert len(forks) == len(killed)
        # The later ones find the limit reached while the kernel still buries the first one's.
        assert 0 < forks[0] <= BOMB_LIMIT
        assert max(forks) <= BOMB_LIMIT


@pytest.mark.parametrize("times", sized(2, 10))
def test_a_success_in_between_clears_the_count(
    start: Starter, site: Site, report: Report, *, times: int
) -> None:
    master = start(*APP, "-c", "1", "--audit", str(AUDIT))
    idle_workers(master, 1)
    for round_ in range(1, times + 1):
        site.ledger.set("fate:mark", CRASH_LIMIT - 1)  # so often it dies, and then it succeeds
        site.enqueue("fated", "mark")
        site.await_processed(round_)
        assert not site.redis.exists(KEYS.suspects())
    assert site.failures() == []
    site.ledger.set("fate:mark", CRASH_LIMIT)
    site.enqueue("fated", "mark")
    wait_until(site.failures, "the verdict")

    returns = ["REQUEUED"] * (CRASH_LIMIT - 1)
    story = [event.event for event in oracle.events(site.redis)]
    assert story == [*returns, "DONE"] * times + [*returns, "POISON"]
    assert len(site.runs()) == CRASH_LIMIT * (times + 1)
    idle_workers(master, 1)
    report.count("kills of workers", len(deaths(master)))
    stop(master)
    assert_nothing_left(master, site.redis)


@pytest.mark.parametrize("losses", sized(HOST_LIMIT - 1, HOST_LIMIT - 1))
def test_the_loss_of_hosts_alone_condemns_at_the_tenth(
    site: Site, one_server: Server, ledger_server: Server, report: Report, *, losses: int
) -> None:
    """A worker without a master is a host of its own."""
    intake = Intake(site.redis)
    innocent, accused = (encode_job("math", "gate", [name]) for name in ("innocent", "accused"))
    with (
        running(1, one_server, ledger_server) as nursery,
        closing(Target(one_server.url).link()) as link,
    ):
        registry = Registry(link, KEYS, audit=AUDIT)
        coroner = Coroner(registry, RedisClock(link), app.jobs, Lease("the test", ""))

        def lose(name: str, times: int) -> None:
            for number in range(1, times + 1):
                pid = site.started(name, number)
                psutil.Process(pid).kill()
                wait_until(lambda pid=pid: is_gone(pid), "its death")  # type: ignore[misc]
                coroner.look_around(reached_for=0.0)

        intake.put({innocent: "innocent"})
        lose("innocent", losses)
        site.started("innocent", losses + 1)  # or the ledger might hand the word to the last dead
        site.release("innocent")
        site.await_processed(1)
        intake.put({accused: "accused"})
        lose("accused", losses + 1)
        nursery.terminate()
        assert nursery.wait(5) == 0
        coroner.look_around(reached_for=0.0)

    (failure,) = site.failures()
    assert failure["payload"]["args"] == ["accused"]
    evidence = oracle.prove(site, intake.acknowledged, report, faults=2 * losses + 1)
    report.count("kills of hosts", 2 * losses + 1)
    stories = {
        raw: [event.event for event in evidence.events if event.job == digest(raw)]
        for raw in (innocent, accused)
    }
    assert stories == {
        innocent: ["REQUEUED"] * losses + ["DONE"],
        accused: ["REQUEUED"] * losses + ["POISON"],
    }


@pytest.mark.parametrize("losses", sized(HOST_LIMIT, HOST_LIMIT))
@patient
def test_a_job_that_kills_master_and_worker_counts_as_the_loss_of_hosts(
    bench: Bench, losses: int
) -> None:
    site = bench.site
    intake = Intake(site.redis)
    poison = encode_job("math", "parricide", ["mark"])
    intake.put({poison: "mark", **behind()})
    for number in range(1, losses + 1):
        master = bench.start(*APP, "-c", "1", "--audit", str(AUDIT))
        assert master.wait(10) == -signal.SIGKILL
        assert site.runs().count("mark") == number
        wait_until(lambda master=master: not master.left(), "its orphans to leave")  # type: ignore[misc]
    bench.report.count("kills of masters", losses)

    master = bench.start(*APP, "-c", "1", "--audit", str(AUDIT))
    site.await_processed(BEHIND)
    idle_workers(master, 1)
    wait_until(lambda: site.redis.scard(KEYS.masters()) == 1, "the dead master's burial")
    (failure,) = site.failures()
    assert failure["payload"]["args"] == ["mark"]
    evidence = oracle.prove(site, intake.acknowledged, bench.report, faults=losses)
    assert story_of(poison, evidence) == ["REQUEUED"] * (losses - 1) + ["POISON"]
    stop(master)
    assert_nothing_left(master, site.redis)


def behind() -> dict[bytes, str]:
    """Return harmless jobs, as `Intake` wants them."""
    marks = [f"behind {number}" for number in range(BEHIND)]
    return {encode_job("math", "note", [mark]): mark for mark in marks}


def stop(master: Start) -> None:
    """Have a master drain and leave."""
    master.send_signal(signal.SIGTERM)
    assert master.wait(5) == ExitCode.OK

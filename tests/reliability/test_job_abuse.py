"""Whatever a job does to its process: it is accounted for once, and the next runs on a clean one.

Each job of the catalogue runs on the only worker of a master. Then a job looks at the state of
its process, and finds what the first job of all has found.
"""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from forkresque.errors import DIRTY_EXIT, ExitCode
from forkresque.protocol.failure import ERROR_LIMIT, Failure, parse_failure
from tests.conftest import Starter
from tests.support.abuse import CASES, QUEUE, Case
from tests.support.processes import Start, assert_nothing_left
from tests.support.report import Report
from tests.support.servers import Server
from tests.support.site import KEYS, Site, idle_workers, is_gone, phases
from tests.support.sizes import sized
from tests.support.waiting import wait_until

APP = ("-A", "tests.support.abuse", "-q", QUEUE, "-c", "1")
CRASHES = 3  # deaths by one payload, then it is failed
PATIENCE = 20.0

Accounts = tuple[int, int, int]  # jobs done, jobs failed, failures recorded


@dataclass
class Bench:
    """A master with one worker, and what a job finds in a process in which none ran before."""

    master: Start
    site: Site
    clerk: int
    clean: dict[str, Any]

    def look(self, mark: str) -> dict[str, Any]:
        """Have a job look at the state of its process."""
        before = self.site.ledger.llen("looks")
        self.site.enqueue("look", mark, queue=QUEUE)
        wait_until(lambda: self.site.ledger.llen("looks") > before, "the next job", PATIENCE)
        told: dict[str, Any] = json.loads(self.site.ledger.lindex("looks", -1))
        assert told["mark"] == mark
        return told

    def runs(self, name: str) -> int:
        """Return how often a job of the catalogue has begun."""
        return int(self.site.ledger.lrange("ran", 0, -1).count(name.encode()))

    def accounts(self) -> Accounts:
        """Return how many jobs are done, how many failed, and how many failures are recorded."""
        failures = int(self.site.redis.llen(KEYS.failed()))
        return self.site.count("processed"), self.site.count("failed"), failures

    def assert_at_rest(self) -> None:
        """Fail unless nothing waits, and master and clerk are those of the beginning."""
        assert not self.site.waiting(QUEUE)
        wait_until(lambda: self.site.slots() == 0, "no job in hand")
        assert not is_gone(self.master.pid)
        assert [child.pid for child in self.master.children("clerk")] == [self.clerk]
        zombies = [c for c in psutil.Process(self.master.pid).children() if is_gone(c.pid)]
        wait_until(lambda: not any(z.is_running() for z in zombies), "zombies gone", 1.0)

    def last_failure(self) -> Failure:
        """Return the newest failure record."""
        return parse_failure(self.site.redis.lindex(KEYS.failed(), -1))


@pytest.fixture(scope="module")
def bench(ledger_server: Server) -> Iterator[Bench]:
    """Return the bench on which all cases are tried, one after another."""
    with (
        Server() as server,
        closing(server.client()) as redis,
        closing(ledger_server.client()) as book,
    ):
        book.flushall()
        site = Site(redis, book)
        env = {"LEDGER_URL": ledger_server.url, "ABUSED_URL": server.url}
        master = Start(*APP, "--heartbeat-timeout", "1.5", url=server.url, env=env)
        try:
            idle_workers(master, 1)
            (clerk,) = wait_until(lambda: master.children("clerk"), "a clerk")
            bench = Bench(master, site, clerk.pid, {})
            bench.clean = bench.look("first")["state"]
            yield bench
            master.send_signal(signal.SIGTERM)
            assert master.wait() == ExitCode.OK
            assert_nothing_left(master, redis)
        finally:
            master.stop()
            print(master.log()[-20_000:])
            master.remove()


def added(first: Accounts, second: Accounts) -> Accounts:
    """Return two accounts in one."""
    return first[0] + second[0], first[1] + second[1], first[2] + second[2]


def counted(case: Case) -> Accounts:
    """Return what a job adds to the accounts: done, failed, failures recorded."""
    return (1, 0, 0) if case.ends == "done" else (0, 1, 1)


COUNTED = [name for name, case in CASES.items() if case.ends != "gone"]


@pytest.mark.usefixtures("both_sizes")
def test_the_catalogue_is_complete() -> None:
    groups = {"raises", "process", "signals", "threads", "state", "output", "redis"}

    assert {case.group for case in CASES.values()} == groups
    assert len(CASES) >= 80


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.usefixtures("both_sizes")
def test_a_job_is_accounted_for_once_and_the_next_finds_a_clean_process(
    bench: Bench, report: Report, name: str
) -> None:
    case, runs, accounts = CASES[name], bench.runs(name), bench.accounts()

    raw = bench.site.enqueue(name, queue=QUEUE)
    then = added(accounts, counted(case))
    wait_until(lambda: sum(bench.accounts()) >= sum(then), f"the end of {name}", PATIENCE)
    told = bench.look(name)

    assert told["state"] == bench.clean
    wait_until(lambda: bench.accounts() == added(then, (1, 0, 0)), "exact accounts")
    assert bench.runs(name) - runs == (CRASHES if case.ends == "crash" else 1)
    if case.ends != "done":
        failure = bench.last_failure()
        assert failure.payload == raw
        assert failure.exception == case.exception or not case.exception
        assert (failure.exception == DIRTY_EXIT) == (case.ends == "crash")
        assert len(failure.raw_entry) < 2 * ERROR_LIMIT
    bench.assert_at_rest()
    report.count("job abuse cases")


@pytest.mark.parametrize("name", sorted(CASES.keys() - set(COUNTED)))
@pytest.mark.usefixtures("both_sizes")
def test_a_job_that_removes_itself_from_redis_stops_nothing(
    bench: Bench, report: Report, name: str
) -> None:
    runs = bench.runs(name)

    raw = bench.site.enqueue(name, queue=QUEUE)
    wait_until(lambda: bench.runs(name) > runs, "the run", PATIENCE)
    # What is enqueued before the job has done its mischief may be a part of it.
    wait_until(lambda: "run" not in phases(bench.master).values(), "the end of it", PATIENCE)
    told = bench.look(name)

    assert told["state"] == bench.clean
    assert bench.runs(name) == runs + 1
    assert raw not in [failure["payload"] for failure in bench.site.failures()]
    bench.assert_at_rest()
    report.count("job abuse cases")


@pytest.mark.parametrize("megabytes", sized(8, 1024))
def test_a_flood_of_output_ends(bench: Bench, report: Report, megabytes: int) -> None:
    log = bench.master.directory / "log"
    size, accounts = log.stat().st_size, bench.accounts()

    bench.site.enqueue("flood", megabytes, queue=QUEUE)
    told = bench.look("flood")

    wait_until(lambda: bench.accounts() == added(accounts, (2, 0, 0)), "exact accounts")
    assert told["state"] == bench.clean
    assert log.stat().st_size - size >= megabytes * 2**20
    report.count("job abuse cases")
    os.truncate(log, size)


@pytest.mark.parametrize("kills", sized(1, 5))
def test_a_job_that_kills_the_master_runs_once_and_the_next_master_goes_on(
    start: Starter, site: Site, report: Report, kills: int
) -> None:
    env = {"ABUSED_URL": "unused"}
    for number in range(1, kills + 1):
        master = start(*APP, env=env)
        idle_workers(master, 1)
        site.enqueue("kill_parent", queue=QUEUE)
        assert master.wait() == -signal.SIGKILL
        site.await_processed(2 * number - 1)  # the orphan has settled it

        successor = start(*APP, env=env)
        site.enqueue("look", str(number), queue=QUEUE)
        site.await_processed(2 * number)
        assert site.ledger.lrange("ran", 0, -1).count(b"kill_parent") == number
        assert site.count("failed") == 0
        successor.send_signal(signal.SIGTERM)
        assert successor.wait() == ExitCode.OK
        assert_nothing_left(successor, site.redis)
        report.count("job abuse cases")

"""The master is killed while its worker is busy: an orphan ends what it has, and only that.

Nobody takes the job from a living orphan, whatever it is doing: it sleeps, computes, sits in C
with the GIL, or waits for the answer to a claim or a settle. Once it is free it is gone within a
second, and the next master takes on what is left.
"""

import signal
import time
from collections import Counter
from collections.abc import Iterable

import psutil
import pytest

from forkresque.errors import ExitCode
from forkresque.protocol.payload import encode_job
from forkresque.protocol.script import load
from tests.conftest import Starter
from tests.support import oracle
from tests.support.monitor import Intake, Monitor
from tests.support.oracle import AUDIT
from tests.support.processes import Start, assert_nothing_left, is_alive
from tests.support.proxy import Proxy
from tests.support.report import Report
from tests.support.servers import Server
from tests.support.site import APP, KEYS, Site, idle_workers, is_gone, stays
from tests.support.sizes import sized
from tests.support.waiting import wait_until

ONE = (*APP, "--audit", str(AUDIT), "-c", "1")
DEAF = 1.5  # seconds in C
NOTICED = 1.0  # seconds after which an orphan that is free must be gone
AFTER_SOFT = 2.0  # seconds that a job may take for its soft end, before its process ends itself
BEHIND = 20

SIZES = sized(1, 5, timeout=120)


class Scene:
    """One worker with one job, and others behind it."""

    def __init__(self, site: Site, start: Starter, report: Report, monitor: Monitor) -> None:
        self.site = site
        self.intake = Intake(site.redis)
        self._start = start
        self._report = report
        self._monitor = monitor
        self._masters: list[Start] = []

    def start(self, *args: str, url: str | None = None) -> Start:
        """Start a master with one worker."""
        self._masters.append(self._start(*ONE, *args, url=url))
        return self._masters[-1]

    def put(self, name: str, mark: str, *args: object) -> None:
        """Enqueue one job."""
        self.intake.put({encode_job("math", name, [mark, *args]): mark})

    def put_three(self, round_: int, *, deaf_for: float) -> tuple[str, str, str]:
        """Have three jobs begin: one sleeps, one computes, one waits in C with the GIL."""
        marks = f"sleeps {round_}", f"computes {round_}", f"holds the GIL {round_}"
        self.put("gate", marks[0])
        self.put("spin", marks[1])
        self.put("hold_gil", marks[2], deaf_for)
        for mark in marks:
            self.site.started(mark)
        return marks

    def put_behind(self) -> list[str]:
        """Enqueue what nobody may take from now on; return the marks."""
        marks = [f"behind {len(self.intake.acknowledged)} {n}" for n in range(BEHIND)]
        self.intake.put({encode_job("math", "note", [mark]): mark for mark in marks})
        return marks

    def kill(self, master: Start) -> float:
        """Kill a master; return the moment."""
        master.send_signal(signal.SIGKILL)
        killed_at = time.monotonic()
        assert master.wait(5) == -signal.SIGKILL
        self._report.count("kills of masters")
        return killed_at

    def end(self, *, faults: int) -> oracle.Evidence:
        """Look for what is left; hear oracle and monitor."""
        for master in self._masters:
            assert_nothing_left(master, self.site.redis)
        self._monitor.testify(self._report)
        return oracle.prove(self.site, self.intake.acknowledged, self._report, faults=faults)


def stop(master: Start) -> None:
    """Have a master drain and leave."""
    master.send_signal(signal.SIGTERM)
    assert master.wait(5) == ExitCode.OK


def await_runs(site: Site, marks: Iterable[str]) -> None:
    """Wait until all of these jobs have run."""
    wait_until(lambda: set(marks) <= set(site.runs()), f"runs of {marks}")


def free_to_gone(pid: int) -> float:
    """Return how long an orphan that has just become free takes to leave."""
    began_at = time.monotonic()
    wait_until(lambda: is_gone(pid), "the orphan to leave", NOTICED)
    return time.monotonic() - began_at


def await_burial(site: Site) -> None:
    """Wait until there is but one master in Redis."""
    wait_until(lambda: site.redis.scard(KEYS.masters()) == 1, "the dead master's burial")


def worker_of(master: Start) -> psutil.Process:
    """Return the one worker, which is idle."""
    return idle_workers(master, 1)[0]


@pytest.mark.parametrize("rounds", SIZES)
def test_orphans_finish_their_jobs_and_nobody_runs_them_again(
    start: Starter, site: Site, one_server: Server, report: Report, *, rounds: int
) -> None:
    with Monitor(one_server) as monitor:
        scene = Scene(site, start, report, monitor)
        for round_ in range(rounds):
            first = scene.start("-c", "3")
            orphans = idle_workers(first, 3)
            sleeper, computer, deaf = scene.put_three(round_, deaf_for=3.0)
            behind = scene.put_behind()
            scene.kill(first)

            second = scene.start()
            await_runs(site, behind)
            assert deaf not in site.runs(), "too late to prove anything"
            wait_until(lambda: site.slots() == 3, "only what the orphans have to be in hand")
            assert all(map(is_alive, orphans))
            site.release(sleeper, computer)
            for mark in (sleeper, computer, deaf):
                await_runs(site, [mark])
                report.time("orphan free to gone", free_to_gone(site.started(mark)))
            await_burial(site)
            stop(second)
        evidence = scene.end(faults=0)

    assert max(evidence.runs.values()) == 1
    assert {event.event for event in evidence.events} == {"DONE"}


@pytest.mark.parametrize("rounds", SIZES)
def test_orphans_without_time_give_their_jobs_back(
    start: Starter, site: Site, one_server: Server, report: Report, *, rounds: int
) -> None:
    """With a shutdown timeout of 0 an orphan's job is cut at once, and runs again elsewhere.

    While C code holds the GIL nothing in the process can cut it. Its job ends when that code does,
    and is accounted for once all the same.
    """
    with Monitor(one_server) as monitor:
        scene = Scene(site, start, report, monitor)
        for round_ in range(rounds):
            first = scene.start("-c", "3", "--shutdown-timeout", "0")
            orphans = idle_workers(first, 3)
            marks = scene.put_three(round_, deaf_for=DEAF)
            pids = [site.started(mark) for mark in marks]
            killed_at = scene.kill(first)
            for mark, pid in zip(marks, pids, strict=True):
                wait_until(lambda pid=pid: is_gone(pid), f"the orphan with {mark} to leave")  # type: ignore[misc]
                took = time.monotonic() - killed_at
                report.time("orphan without time to gone", took)
                assert took <= NOTICED + AFTER_SOFT
            assert not any(map(is_alive, orphans))

            second = scene.start("-c", "3")
            site.release(*marks[:2])
            await_runs(site, marks)
            await_burial(site)
            stop(second)
        evidence = scene.end(faults=0)

    assert max(evidence.runs.values()) == 1, "a job that is cut does not tell that it ran"
    told = Counter(event.event for event in evidence.events)
    assert told["DONE"] == 3 * rounds
    assert told["RELEASE"] + told["REQUEUED"] >= 2 * rounds


@pytest.mark.parametrize("rounds", SIZES)
def test_an_orphan_in_a_claim_gives_back_what_it_gets(
    start: Starter, site: Site, one_server: Server, report: Report, *, rounds: int
) -> None:
    """Redis has carried out the claim, and the worker does not know it yet."""
    with Proxy(one_server.socket) as proxy, Monitor(one_server) as monitor:
        scene = Scene(site, start, report, monitor)
        for round_ in range(rounds):
            first = warmed_up(scene, proxy)
            worker = worker_of(first)
            lost = proxy.drop_reply(load("claim").digest.encode(), times=1000)
            mark = f"claimed {round_}"
            scene.put("note", mark)
            wait_until(lambda: site.slots() == 1 and lost.fired, "a claim without an answer")  # noqa: B023
            behind = scene.put_behind()

            killed_at = scene.kill(first)
            wait_until(lambda worker=worker: is_gone(worker.pid), "the orphan to leave")  # type: ignore[misc]
            took = time.monotonic() - killed_at
            report.time("master killed to noticed", took)
            assert took <= NOTICED
            assert not {mark, *behind} & set(site.runs()), "a claim after the master's end"
            lost.left = 0
            assert site.slots() == 0, "it has given the job back before it left"
            second = scene.start()
            await_runs(site, [mark, *behind])
            await_burial(site)
            stop(second)
        evidence = scene.end(faults=0)

    assert max(evidence.runs.values()) == 1
    assert any(event.event == "REQUEUED" for event in evidence.events)


@pytest.mark.parametrize("rounds", SIZES)
def test_an_orphan_in_a_settle_settles_once_and_claims_nothing(
    start: Starter, site: Site, one_server: Server, report: Report, *, rounds: int
) -> None:
    """Redis has settled the job and given out the next one, and the worker does not know it."""
    with Proxy(one_server.socket) as proxy, Monitor(one_server) as monitor:
        scene = Scene(site, start, report, monitor)
        for round_ in range(rounds):
            first = warmed_up(scene, proxy)
            worker = worker_of(first)
            mark = f"settled {round_}"
            scene.put("gate", mark)
            site.started(mark)
            behind = scene.put_behind()
            lost = proxy.drop_reply(load("done").digest.encode(), times=1000)
            before = site.count("processed")
            site.release(mark)
            wait_until(lambda: site.count("processed") > before, "a settle without an answer")  # noqa: B023
            wait_until(lambda: lost.fired, "its answer to be lost")  # noqa: B023
            assert site.slots() == 1, "the next job is in hand"

            scene.kill(first)
            stays(lambda: not set(behind) & set(site.runs()), "no job begins", 0.3)  # noqa: B023
            lost.left = 0
            answered_at = time.monotonic()
            wait_until(lambda worker=worker: is_gone(worker.pid), "the orphan to leave")  # type: ignore[misc]
            report.time("orphan free to gone", time.monotonic() - answered_at)
            assert not set(behind) & set(site.runs()), "an orphan has begun another job"
            assert site.slots() == 0
            second = scene.start()
            await_runs(site, behind)
            await_burial(site)
            stop(second)
        evidence = scene.end(faults=0)

    assert max(evidence.runs.values()) == 1
    assert {event.event for event in evidence.events} == {"DONE", "RELEASE"}


def warmed_up(scene: Scene, proxy: Proxy) -> Start:
    """Start a master behind the proxy, and have Redis know all scripts that a worker needs."""
    master = scene.start(url=proxy.url)
    before = scene.site.count("processed")
    scene.put("note", f"warm {before}")
    wait_until(lambda: scene.site.count("processed") > before, "the first job to be done")
    return master

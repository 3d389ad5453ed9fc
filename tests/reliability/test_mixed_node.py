"""Live node-resque workers and schedulers beside ours, with kills on all sides.

Our jobs keep our guarantee: they run. What a killed worker of node had in hand is recorded as
failed, as node's own leader would record it; it is never run from that record, which is lossy.
Nobody touches a living worker of the other side.
"""

import json
import os
import random
import signal
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain
from typing import Any

import psutil
import pytest

from forkresque.errors import ExitCode
from forkresque.protocol.failure import parse_failure
from forkresque.protocol.foreign import NODE_TIMEOUT
from forkresque.protocol.payload import encode_job, ping
from tests.conftest import Starter
from tests.support.node import NodeProcess, node_modules, run_node
from tests.support.patience import Bench, patient
from tests.support.processes import Start, assert_nothing_left
from tests.support.report import Report
from tests.support.servers import Server
from tests.support.site import APP, KEYS, Site, idle_workers, stays, ticks
from tests.support.sizes import sized
from tests.support.waiting import wait_until

EVER = 1_000_000  # jobs that a worker of node performs before it leaves
SEED = 5
SILENT = 4.0  # seconds; node's workers ping once a second


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """Install node-resque on nobody's time; the tests' timeouts are for the tests."""
    node_modules()


class Neighbours:
    """Workers and schedulers of node-resque, each a process of its own."""

    def __init__(self, server: Server, ledger_server: Server) -> None:
        self._server = server
        self._env = {"LEDGER_URL": ledger_server.tcp_url}
        self._stack = ExitStack()

    def worker(self) -> NodeProcess:
        """Start a worker and wait until it is at work."""
        return self._started(
            NodeProcess("work.js", self._server.tcp_url, "math", EVER, env=self._env)
        )

    def scheduler(self) -> NodeProcess:
        """Start a scheduler and wait until it looks for the lead."""
        return self._started(NodeProcess("schedule.js", self._server.tcp_url))

    def close(self) -> None:
        """Stop all that is left."""
        self._stack.close()

    def _started(self, process: NodeProcess) -> NodeProcess:
        self._stack.enter_context(process)
        wait_until(lambda: "started" in process.output(), "a process of node", 10.0)
        return process


def registered(site: Site) -> set[str]:
    return {raw.decode() for raw in site.redis.smembers(KEYS.workers())}


def node_runs(site: Site) -> list[str]:
    return [mark.decode() for mark in site.ledger.lrange("node:runs", 0, -1)]


def assert_untouched(master: Start) -> None:
    """Check that nobody has removed a living worker of ours."""
    assert "unregistered by another client" not in master.log()


@patient
def test_a_killed_worker_of_node_is_removed_and_its_job_is_failed_not_run(bench: Bench) -> None:
    site = bench.site
    neighbours = bench.enter(closing(Neighbours(bench.server, bench.ledger_server)))
    dead, alive = neighbours.worker(), neighbours.worker()
    payload = encode_job("math", "note", ["in the hand of the dead"])
    os.kill(dead.pid, signal.SIGKILL)
    dead.process.wait()
    (wid,) = [one for one in registered(site) if f":{dead.pid}:" in one]
    name = wid.rsplit(":", 1)[0]
    record = {"run_at": "2026", "queue": "math", "payload": json.loads(payload), "worker": name}
    site.redis.set(KEYS.worker(wid), json.dumps(record, separators=(",", ":")))

    master = bench.start(*APP, "-c", "1", "--stuck-worker-timeout", f"{SILENT:g}")
    wait_until(lambda: wid not in registered(site), "the dead worker's end", 4 * SILENT)

    (failure,) = map(parse_failure, site.redis.lrange(KEYS.failed(), 0, -1))
    assert (failure.exception, failure.payload) == (NODE_TIMEOUT, payload)
    assert failure.backtrace[1] == "queue#forceCleanWorker", "by this node knows what to retry"
    assert site.redis.keys(f"*{name}*") == []
    assert [one for one in registered(site) if f":{alive.pid}:" in one], "the living one is gone"
    assert site.runs() == []
    assert_untouched(master)
    bench.report.count("foreign workers touched", 0)


@patient
def test_a_leader_of_node_that_soon_loses_patience_never_cleans_a_living_worker_of_ours(
    bench: Bench,
) -> None:
    """T-MIX-3, with busy and idle workers, one that cannot ping and one dead for comparison."""
    site, timeout = bench.site, 5
    guard = bench.enter(NodeProcess("staff_guard.js", bench.server.tcp_url, timeout))
    wait_until(lambda: "polled" in guard.output(), "node's lead", 20.0)
    master = bench.start(*APP, "-c", "3", "--lease", "6")  # pings once a second
    idle_workers(master, 3)
    mine = registered(site)
    site.gates("busy")
    site.enqueue("hold_gil", "deaf", 1.5 * timeout)  # not even its threads run
    site.started("deaf")
    site.redis.sadd(KEYS.workers(), "elsewhere:1:math")
    site.redis.set(KEYS.ping("elsewhere:1"), ping("elsewhere:1", "math", 1))

    wait_until(lambda: "cleaned elsewhere:1\n" in guard.output(), "the dead one's end")
    rounds = guard.output().count("polled")
    stays(lambda: registered(site) == mine, "all workers registered", 2.0 * timeout)

    assert guard.output().count("polled") >= rounds + 10, "node has looked all the while"
    assert guard.output().count("cleaned") == 1
    assert site.failures() == []
    site.release("busy")
    site.await_processed(2)
    assert_untouched(master)
    bench.report.count("own workers pruned", 0)


def test_a_job_that_node_has_failed_for_a_dead_host_is_not_run_by_us_as_well(
    start: Starter, site: Site, one_server: Server, report: Report
) -> None:
    """T-MIX-5: node force-cleans our worker, then a new master finds its slot."""
    first = start(*APP, "-c", "1")
    site.gates("lonely")
    (wid,) = registered(site)
    for process in first.left():
        process.kill()
    first.wait()
    cleaned = json.loads(run_node("clean.js", one_server.tcp_url, wid.rsplit(":", 1)[0]).stdout)
    assert cleaned["payload"]["args"] == ["lonely"]
    assert site.slots() == 1

    second = start(*APP, "-c", "1")
    wait_until(lambda: site.slots() == 0, "the slot's end")
    wait_until(lambda: "recorded as failed by a foreign tool" in second.log(), "a word in the log")
    idle_workers(second, 1)

    assert len(site.failures()) == 1
    assert site.starts("lonely") == 1
    assert site.waiting() == []
    report.count("doubled", 0)


@dataclass(frozen=True)
class Size:
    """How much of it: jobs, those of them that are delayed, seconds, and the stuck timeout."""

    jobs: int
    delayed: int
    seconds: float


class Storm:
    """Kills on all sides. Node's dead are replaced here, ours by their master."""

    def __init__(self, master: Start, neighbours: Neighbours) -> None:
        self.kills = Counter({"ours": 0, "node's workers": 0, "node's schedulers": 0})
        self._master = master
        self._chance = random.Random(SEED)
        self._new = {"node's workers": neighbours.worker, "node's schedulers": neighbours.scheduler}
        self.processes = {
            "node's workers": [neighbours.worker(), neighbours.worker()],
            "node's schedulers": [neighbours.scheduler()],
        }

    @property
    def foreign_workers(self) -> set[int]:
        """The pids of node's living workers."""
        return {process.pid for process in self.processes["node's workers"]}

    def rage(self, tick: int) -> None:
        """Kill one of ours, and now and then one of node's."""
        if workers := self._master.children("worker"):
            self._chance.choice(workers).kill()
            self.kills["ours"] += 1
        if tick % 8 == 3:
            self._strike("node's workers")
        if tick % 16 == 7:
            self._strike("node's schedulers")

    def stop(self) -> None:
        """Stop node's processes, in good order."""
        for process in chain(*self.processes.values()):
            assert process.stop() == 0

    def _strike(self, kind: str) -> None:
        ranks = self.processes[kind]
        victim = ranks.pop(self._chance.randrange(len(ranks)))
        os.kill(victim.pid, signal.SIGKILL)
        victim.process.wait()
        self.kills[kind] += 1
        ranks.append(self._new[kind]())


@pytest.mark.parametrize(
    "size", sized(Size(600, 60, 4.0), Size(20_000, 1_000, 60.0), timeout=240), ids=str
)
@patient
def test_a_mixed_fleet_in_a_storm_of_kills(bench: Bench, size: Size) -> None:
    site = bench.site
    neighbours = bench.enter(closing(Neighbours(bench.server, bench.ledger_server)))
    bench.report.seed("mixed fleet", SEED)
    master = bench.start(*APP, "-c", "4", "--stuck-worker-timeout", f"{SILENT:g}")
    idle_workers(master, 4)
    storm = Storm(master, neighbours)

    _delay(site, size)
    steps = round(size.seconds / 0.2)
    for tick in ticks(0.2, size.seconds):
        _enqueue(site, range(size.jobs * tick // steps, size.jobs * (tick + 1) // steps))
        storm.rage(tick)
    wait_until(lambda: _is_at_rest(site), "rest", 30.0)

    assert all(storm.kills.values()), storm.kills
    _judge(site, size, storm.kills, bench.report)
    assert {_pid(wid) for wid in registered(site)} >= storm.foreign_workers
    assert_untouched(master)
    bench.report.count("own workers pruned", 0)
    bench.report.count("foreign workers touched", 0)
    storm.stop()
    master.send_signal(signal.SIGTERM)
    assert master.wait(10) == ExitCode.OK
    assert_nothing_left(master, site.redis)


def _enqueue(site: Site, marks: range) -> None:
    with site.redis.pipeline() as pipe:
        pipe.sadd(KEYS.queues(), "math")
        for mark in marks:
            pipe.rpush(KEYS.queue("math"), encode_job("math", "note", [f"job {mark}"]))
        pipe.execute()


def _delay(site: Site, size: Size) -> None:
    """Have jobs due at each second of the storm."""
    now, _ = site.redis.time()
    with site.redis.pipeline() as pipe:
        for mark in range(size.delayed):
            raw = encode_job("math", "note", [f"delayed {mark}"])
            second = now + 1 + mark % max(1, round(size.seconds))
            pipe.rpush(KEYS.delayed(second), raw)
            pipe.sadd(KEYS.timestamps(raw), f"delayed:{second}")
            pipe.zadd(KEYS.schedule(), {str(second): second})
        pipe.execute()


def _pid(wid: str) -> int:
    return int(wid.split(":")[1].split("+")[0])


def _is_at_rest(site: Site) -> bool:
    """Return whether nothing waits or is in hand, and the dead of both sides are removed."""
    dead = [wid for wid in registered(site) if not psutil.pid_exists(_pid(wid))]
    return not (site.waiting() or site.slots() or site.redis.exists(KEYS.schedule()) or dead)


def _judge(site: Site, size: Size, kills: Counter[str], report: Report) -> None:
    wanted = {f"job {mark}" for mark in range(size.jobs)}
    wanted |= {f"delayed {mark}" for mark in range(size.delayed)}
    runs = Counter([*site.runs(), *node_runs(site)])
    failed = Counter(_mark(entry) for entry in site.failures())
    lost = wanted - set(runs) - set(failed)
    doubled = [mark for mark, number in failed.items() if number > 1]
    again = runs.total() - len(runs)

    assert not lost, f"{len(lost)} lost, such as {sorted(lost)[:5]}"
    assert not doubled
    assert all(entry["exception"] == NODE_TIMEOUT for entry in site.failures())
    assert failed.total() <= kills["node's workers"], "only what node's dead had in hand has failed"
    assert again <= kills["ours"]
    report.count("jobs", len(wanted))
    report.count("lost", len(lost))
    report.count("doubled", len(doubled))
    report.count("re-runs", again)
    report.count("double promotions", 0)
    report.count("kills of workers", kills["ours"])
    report.count("kills of foreign processes", kills.total() - kills["ours"])


def _mark(entry: dict[str, Any]) -> str:
    return str(entry["payload"]["args"][0])

"""Workers are killed at random while jobs stream in. No job gets lost, and every sum is exact."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import psutil
import pytest

from forkresque.errors import ExitCode
from forkresque.protocol.connection import RedisClock, Target
from forkresque.protocol.payload import encode_job
from forkresque.protocol.registry import Lease, Registry
from forkresque.supervisor.recovery import Coroner
from tests.conftest import Starter
from tests.support.jobs import app
from tests.support.processes import ROOT, assert_nothing_left, is_alive, kill
from tests.support.servers import Server, dying_with_runner
from tests.support.site import APP, KEYS, Site, idle_workers, ticks
from tests.support.waiting import wait_until

ACKNOWLEDGED = "test:acknowledged"  # raised in the transaction that pushes, so a look is exact
KILL_EVERY = 0.05

# All places where a job can be, and how many there must be: one look, in one instant.
CENSUS = """
local sum = redis.call("LLEN", KEYS[1]) + redis.call("LLEN", KEYS[2])
sum = sum + #redis.call("KEYS", KEYS[5] .. "*") + (redis.call("GET", KEYS[3]) or 0)
return {sum, tonumber(redis.call("GET", KEYS[4]) or 0)}
"""


class Monitor:
    """Counts all jobs in Redis, again and again, from a thread of its own."""

    def __init__(self, server: Server) -> None:
        self.samples = 0
        self.violations: list[tuple[int, int]] = []
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="monitor")

    def __enter__(self) -> "Monitor":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)

    def _watch(self) -> None:
        with closing(self._server.client()) as client:
            census = client.register_script(CENSUS)
            keys = [KEYS.queue("math"), KEYS.failed(), KEYS.stat("processed")]
            while not self._over.wait(0.01):
                found, acknowledged = census(keys=[*keys, ACKNOWLEDGED, KEYS.slot("")])
                self.samples += 1
                if found != acknowledged:
                    self.violations.append((found, acknowledged))


class Storm:
    """Jobs stream in and processes are killed, until the time is over."""

    def __init__(self, site: Site, victims: Callable[[], list[psutil.Process]], seed: int) -> None:
        self.kills = 0
        self.enqueued: list[str] = []
        self._site = site
        self._victims = victims
        self._chance = random.Random(seed)

    def rage(self, *, jobs: int, seconds: float, meanwhile: Callable[[], None]) -> None:
        """Kill one every 50 ms, and enqueue a share of the jobs; call `meanwhile` each time."""
        planned = round(seconds / KILL_EVERY)
        for tick in ticks(KILL_EVERY, seconds):
            self._enqueue(jobs * (tick + 1) // planned - len(self.enqueued))
            self._kill_one()
            meanwhile()
        assert len(self.enqueued) == jobs
        assert self.kills >= planned / 2, f"only {self.kills} of {planned} kills hit somebody"

    def _enqueue(self, number: int) -> None:
        with self._site.redis.pipeline(transaction=True) as pipe:
            pipe.sadd(KEYS.queues(), "math")
            for _ in range(number):
                mark = f"job {len(self.enqueued)}"
                # Half of them last, so that many a kill hits a job in hand.
                brief = self._chance.random() < 0.5
                name, args = ("note", [mark]) if brief else ("slow", [mark, 0.015])
                pipe.rpush(KEYS.queue("math"), encode_job("math", name, args))
                pipe.incr(ACKNOWLEDGED)
                self.enqueued.append(mark)
            pipe.execute()

    def _kill_one(self) -> None:
        victims = self._victims()
        if victims:
            victim = self._chance.choice(victims)
            if is_alive(victim):
                victim.kill()
                self.kills += 1


def settled(site: Site) -> bool:
    return not site.waiting() and not site.slots()


def judge(site: Site, storm: Storm, *, monitor: Monitor) -> None:
    """Check that each job has one place, and that no kill has cost more than one run."""
    runs = Counter(site.runs())
    failed = [failure["payload"]["args"][0] for failure in site.failures()]
    processed = site.count("processed")
    print(f"kills={storm.kills} runs={runs.total()} processed={processed} failed={len(failed)}")
    print(f"samples={monitor.samples} violations={monitor.violations[:5]}")

    missing = set(storm.enqueued) - set(runs) - set(failed)
    assert not missing, f"{len(missing)} jobs never ran: {sorted(missing)[:5]}"
    assert set(runs) <= set(storm.enqueued)
    assert processed + len(failed) == len(storm.enqueued)
    assert site.count("failed") == len(failed)
    assert runs.total() - len(runs) <= storm.kills
    assert monitor.samples >= 100
    assert monitor.violations == []
    begun = Counter(mark.decode() for mark in site.ledger.lrange("begun", 0, -1))
    assert begun.total() > len(begun), "no kill has hit a job in hand"


@pytest.mark.parametrize("seed", [1])
def test_plain_forks_and_a_recoverer_lose_nothing(
    site: Site, one_server: Server, ledger_server: Server, seed: int
) -> None:
    print(f"seed={seed}")
    with ExitStack() as stack:
        nursery = stack.enter_context(lone_workers(4, one_server, ledger_server))
        link = stack.enter_context(closing(Target(one_server.url).link()))
        coroner = Coroner(Registry(link, KEYS), RedisClock(link), app.jobs, Lease("the test", ""))

        def recover() -> None:
            coroner.look_around(reached_for=0.0)

        def settled_now() -> bool:
            recover()
            return settled(site)

        storm = Storm(site, lambda: [one for one in nursery.children() if is_alive(one)], seed)
        with Monitor(one_server) as monitor:
            storm.rage(jobs=800, seconds=4.0, meanwhile=recover)
            wait_until(settled_now, "all jobs to be settled")

        nursery.terminate()
        assert nursery.wait(5) == 0
        recover()

    judge(site, storm, monitor=monitor)
    assert site.failures() == [], "a master's death is not the job's fault"
    assert site.redis.smembers(KEYS.workers()) == set()
    assert site.redis.smembers(KEYS.masters()) == set()


@contextmanager
def lone_workers(number: int, server: Server, ledger_server: Server) -> Iterator[psutil.Popen]:
    """Run workers without a master, each replaced when it is killed."""
    process = psutil.Popen(
        dying_with_runner(
            [sys.executable, "-m", "tests.support.lone_workers", str(number)], signal.SIGTERM
        ),
        cwd=ROOT,
        env={**os.environ, "FORKRESQUE_REDIS_URL": server.url, "LEDGER_URL": ledger_server.url},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            kill([process, *process.children()])
            process.wait(5)


@pytest.mark.parametrize(
    ("jobs", "seconds", "seed"),
    [
        pytest.param(4_000, 5.0, 2, marks=pytest.mark.timeout(40)),
        pytest.param(20_000, 20.0, 3, marks=[pytest.mark.full, pytest.mark.timeout(120)]),
    ],
)
def test_a_master_whose_workers_are_killed_loses_nothing(
    start: Starter, site: Site, one_server: Server, *, jobs: int, seconds: float, seed: int
) -> None:
    print(f"seed={seed}")
    master = start(*APP, "-c", "8")
    idle_workers(master, 8)
    storm = Storm(site, lambda: master.children("worker"), seed)

    with Monitor(one_server) as monitor:
        storm.rage(jobs=jobs, seconds=seconds, meanwhile=lambda: None)
        over_at = time.monotonic()
        wait_until(lambda: settled(site), "all jobs to be settled", 30.0)
        print(f"settled {time.monotonic() - over_at:.2f} s after the storm")

    idle_workers(master, 8)
    judge(site, storm, monitor=monitor)
    master.send_signal(signal.SIGTERM)
    assert master.wait(5) == ExitCode.OK
    assert_nothing_left(master, site.redis)

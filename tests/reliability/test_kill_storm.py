"""Workers are killed all the time while jobs stream in. No job gets lost, and every sum is exact.

When a job was recovered is what its audit entry says: Redis stamps it, in the script that moves
the job, by the same clock of this machine by which the kill was timed. Both ends of that time are
facts, and no observer's delay is in it. When a replacement was ready is when the runner first saw
it registered, which is up to one tick late.
"""

import bisect
import random
import signal
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from itertools import islice

import psutil
import pytest

from forkresque.errors import ExitCode
from forkresque.protocol.connection import RedisClock, Target
from forkresque.protocol.ownership import Lease
from forkresque.protocol.payload import digest, encode_job
from forkresque.protocol.registry import Registry
from forkresque.supervisor.recovery import Coroner
from tests.conftest import Starter
from tests.support import oracle
from tests.support.jobs import app
from tests.support.lone_workers import running
from tests.support.monitor import Intake, Monitor
from tests.support.oracle import AUDIT, Event
from tests.support.processes import assert_nothing_left, is_alive
from tests.support.report import Report, summary
from tests.support.servers import Server
from tests.support.site import APP, KEYS, Site, idle_workers, ticks
from tests.support.sizes import sized
from tests.support.waiting import wait_until

IN_QUEUE = 300  # so many jobs wait at a time: what a kill puts back is soon taken again
WORKERS, SPARED = 8, 4
LONE_WORKERS, LONE_SPARED = 4, 1
STOPS = 0.1  # of all strikes only stop a worker, for STANDS_STILL seconds
STANDS_STILL = 0.1
CLOCK_TOLERANCE = 0.002  # seconds by which Redis' clock and ours may differ
RECOVERED = ("REQUEUED", "POISON", "FAILED")

Job = tuple[bytes, str]


@dataclass(frozen=True, slots=True)
class Size:
    """How many jobs and kills there are at least; so many jobs kill their workers themselves."""

    jobs: int
    kills: int
    killers: int
    every: float  # seconds between two strikes
    within: float


def work(size: Size, chance: random.Random) -> Iterator[Job]:
    """Yield the jobs. Most take no time, so that a kill hits a claim or a settle."""
    every = size.jobs // (size.killers + 1)
    for number in range(size.jobs):
        mark = f"job {number}"
        if number % every == every - 1 and number // every < size.killers:
            yield encode_job("math", "die", [mark]), mark
        elif chance.random() < 0.03:
            yield encode_job("math", "slow", [mark, 0.01]), mark
        else:
            yield encode_job("math", "note", [mark]), mark


@dataclass(slots=True)
class Toll:
    """What a storm did: who was killed and when, who was seen to be born, how many stood still."""

    kills: list[tuple[str, float]] = field(default_factory=list)  # by the monotonic clock
    births: list[tuple[str, float]] = field(default_factory=list)
    stops: int = 0


class Storm:
    """Jobs stream in, and random children of `parent` are killed or stopped.

    Nobody is struck while no more than `spared` workers live: a machine that cannot replace them
    as fast as they are killed would do no work at all, and prove nothing.
    """

    def __init__(
        self, site: Site, parent: int, jobs: Iterator[Job], *, spared: int, seed: int
    ) -> None:
        self.toll = Toll()
        self.intake = Intake(site.redis)
        self._site = site
        self._parent = parent
        self._spared = spared
        self._jobs = jobs
        self._more = True
        self._chance = random.Random(seed)
        self._known = set[str]()
        self._doomed = set[str]()  # a kill takes its time, and nobody dies twice
        self._stopped: deque[tuple[float, psutil.Process]] = deque()

    def rage(self, size: Size, meanwhile: Callable[[], None]) -> None:
        """Strike at every tick until all jobs are in and enough are killed."""
        for _ in ticks(size.every, size.within):
            self._feed()
            self._strike()
            self._wake(time.monotonic() - STANDS_STILL)
            meanwhile()
            if not self._more and len(self.toll.kills) >= size.kills:
                break
        self._wake(time.monotonic())
        assert not self._more, f"only {len(self.intake.acknowledged)} jobs in {size.within} s"
        assert len(self.toll.kills) >= size.kills
        assert self.toll.stops > 0

    def _feed(self) -> None:
        room = IN_QUEUE - self._site.redis.llen(KEYS.queue("math"))
        batch = dict(islice(self._jobs, max(0, room)))
        self._more = bool(batch) or room <= 0
        self.intake.put(batch)

    def _strike(self) -> None:
        workers = sorted(wid.decode() for wid in self._site.redis.smembers(KEYS.workers()))
        now = time.monotonic()
        born = [worker for worker in workers if worker not in self._known]
        self.toll.births += [(worker, now) for worker in born]
        self._known = set(workers)
        self._doomed.difference_update(born)  # pids come again, and worker ids
        victim = self._victim(workers)
        if victim is None:
            return
        worker, process = victim
        with suppress(psutil.NoSuchProcess):
            if self._chance.random() < STOPS:
                process.suspend()
                self._stopped.append((now, process))
                self.toll.stops += 1
            else:
                self.toll.kills.append((worker, time.monotonic()))
                self._doomed.add(worker)
                process.kill()

    def _victim(self, workers: Sequence[str]) -> tuple[str, psutil.Process] | None:
        """Return a random one of the living workers, or None while too few are left to work."""
        living = []
        for worker in workers:  # the dead are among them until they are recovered
            if worker in self._doomed:
                continue
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(int(worker.split(":")[1]))
                if process.ppid() == self._parent and is_alive(process):
                    living.append((worker, process))
        return self._chance.choice(living) if len(living) > self._spared else None

    def _wake(self, stopped_until: float) -> None:
        while self._stopped and self._stopped[0][0] <= stopped_until:
            with suppress(psutil.NoSuchProcess):
                self._stopped.popleft()[1].resume()


def settled(site: Site) -> bool:
    return not site.redis.llen(KEYS.queue("math")) and not site.slots()


# -- times -------------------------------------------------------------------------------------


class Clocks:
    """Turns Redis' times into ours. Fails if either clock was set meanwhile."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.offset = self._measured()

    def _measured(self) -> float:
        """Return Redis' clock minus our monotonic one; the quickest of some answers is best."""
        found: list[tuple[float, float]] = []
        for _ in range(20):
            asked_at = time.monotonic()
            second, micro = self._site.redis.time()
            answered_at = time.monotonic()
            middle = (asked_at + answered_at) / 2
            found.append((answered_at - asked_at, second + micro / 1e6 - middle))
        return min(found)[1]

    def check(self) -> None:
        """Fail if the clocks have moved against each other since the start."""
        drift = self._measured() - self.offset
        assert abs(drift) <= CLOCK_TOLERANCE, f"a clock was set by {drift:.3f} s meanwhile"


def recovery_times(
    kills: Iterable[tuple[str, float]], told: Iterable[Event], offset: float
) -> list[float]:
    """Return how long after its kill each job was recovered, of those who had one in hand.

    Redis cuts to the millisecond, so the half of one is added. Worker ids come again.
    """
    recovered: dict[str, list[float]] = defaultdict(list)
    for event in told:
        if event.event in RECOVERED:
            recovered[event.worker].append(event.at + 0.0005 - offset)
    found = []
    for worker, killed_at in kills:
        moments = recovered[worker]
        at = bisect.bisect_left(moments, killed_at - CLOCK_TOLERANCE)
        if at < len(moments):
            found.append(max(0.0, moments[at] - killed_at))
    return found


def replacement_times(
    deaths: Iterable[float],
    births: Sequence[tuple[str, float]],
    told: Iterable[Event],
    offset: float,
) -> list[float]:
    """Return how long each death took to be made good: the n-th one by the n-th birth after.

    The first births were no replacements. Who was born and killed between two ticks was not seen,
    but the audit may name it.
    """
    seen = {worker for worker, _ in births}
    unseen: dict[str, float] = {}
    for event in told:
        if event.worker not in seen:
            unseen.setdefault(event.worker, event.at - offset)
    born = sorted([*(at for _, at in births), *unseen.values()])[WORKERS:]
    return [born_at - died_at for died_at, born_at in zip(sorted(deaths), born, strict=False)]


# -- the verdict -------------------------------------------------------------------------------


def prove(site: Site, storm: Storm, monitor: Monitor, report: Report) -> oracle.Evidence:
    """Hear the oracle and the monitor; return the evidence."""
    faults = len(storm.toll.kills) + site.ledger.llen("deaths")
    report.count("kills of workers", faults)
    report.count("workers stopped for a moment", storm.toll.stops)
    monitor.testify(report)
    evidence = oracle.prove(site, storm.intake.acknowledged, report, faults=faults)
    assert any(event.event in RECOVERED for event in evidence.events), "no kill hit a job in hand"
    return evidence


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize(
    "size", sized(Size(800, 60, 0, 0.05, within=10.0), Size(20_000, 500, 0, 0.05, within=90.0))
)
def test_plain_forks_and_a_recoverer_lose_nothing(
    site: Site, one_server: Server, ledger_server: Server, report: Report, *, size: Size, seed: int
) -> None:
    report.seed("plain forks", seed)
    with ExitStack() as stack:
        nursery = stack.enter_context(running(LONE_WORKERS, one_server, ledger_server))
        link = stack.enter_context(closing(Target(one_server.url).link()))
        registry = Registry(link, KEYS, audit=AUDIT)
        coroner = Coroner(registry, RedisClock(link), app.jobs, Lease("the test", ""))

        def recover() -> None:
            coroner.look_around(reached_for=0.0)

        def settled_now() -> bool:
            recover()
            return settled(site)

        storm = Storm(
            site, nursery.pid, work(size, random.Random(seed)), spared=LONE_SPARED, seed=seed
        )
        with Monitor(one_server) as monitor:
            storm.rage(size, meanwhile=recover)
            wait_until(settled_now, "all jobs to be settled")
        nursery.terminate()
        assert nursery.wait(5) == 0
        recover()

    evidence = prove(site, storm, monitor, report)
    assert evidence.failed.total() == 0, "a master's death is not the job's fault"
    assert site.redis.smembers(KEYS.workers()) == set()
    assert site.redis.smembers(KEYS.masters()) == set()


@pytest.mark.parametrize("seed", [2])
@pytest.mark.parametrize(
    "size",
    sized(Size(4_000, 100, 2, 0.01, within=25.0), Size(300_000, 5_000, 84, 0.01, within=500.0)),
)
def test_a_master_whose_workers_are_killed_loses_nothing(
    start: Starter,
    site: Site,
    one_server: Server,
    report: Report,
    pytestconfig: pytest.Config,
    *,
    size: Size,
    seed: int,
) -> None:
    report.seed("a master's workers", seed)
    master = start(*APP, "-c", str(WORKERS), "--audit", str(AUDIT))
    idle_workers(master, WORKERS)
    storm = Storm(site, master.pid, work(size, random.Random(seed)), spared=SPARED, seed=seed)
    clocks = Clocks(site)

    began_at = time.monotonic()
    with Monitor(one_server) as monitor:
        storm.rage(size, meanwhile=lambda: None)
        over_at = time.monotonic()
        wait_until(lambda: settled(site), "all jobs to be settled", 30.0)
    print(f"{over_at - began_at:.1f} s of storm, settled {time.monotonic() - over_at:.2f} s later")
    clocks.check()
    idle_workers(master, WORKERS)

    evidence = prove(site, storm, monitor, report)
    killers = {raw for raw in storm.intake.acknowledged if b'"die"' in raw}
    assert set(map(digest, killers)) <= evidence.failed.keys()
    recovered = recovery_times(storm.toll.kills, evidence.events, clocks.offset)
    suicides = [int(ns) / 1e9 for ns in site.ledger.lrange("deaths", 0, -1)]
    deaths = [*suicides, *(at for _, at in storm.toll.kills)]
    replaced = replacement_times(deaths, storm.toll.births, evidence.events, clocks.offset)
    report.time("worker killed to job recovered", recovered)
    report.time("worker killed to replacement ready", replaced)
    print(f"recovered {summary(recovered)}, replaced {summary(replaced)}")
    if pytestconfig.getoption("-m") == "full":
        assert summary(recovered)["p99"] <= 100
        assert summary(recovered)["worst"] <= 500
        assert summary(replaced)["p99"] <= 250
    master.send_signal(signal.SIGTERM)
    assert master.wait(5) == ExitCode.OK
    assert_nothing_left(master, site.redis)

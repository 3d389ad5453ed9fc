"""A host dies with jobs in hand: others run them, each is accounted once, nobody else is judged.

The hosts see nothing of each other's processes, so all that tells of a death is the lease.
"""

import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest

from forkresque.protocol.claims import Outcome
from forkresque.protocol.connection import Target
from forkresque.protocol.payload import digest
from forkresque.protocol.registry import Recovery, Registry
from tests.support.hosts import (
    Host,
    HostStart,
    Network,
    assert_accounted_once,
    audited,
    await_runs,
    await_workers,
    drain,
    hand_out,
    network_of,
    release,
    runs_of,
)
from tests.support.patience import Bench, patient
from tests.support.report import Report
from tests.support.site import KEYS, Site, idle_workers, stays, ticks
from tests.support.sizes import sized
from tests.support.waiting import wait_until

SHORT_LEASE, LEASE = 6.0, 30.0
BOUND = {SHORT_LEASE: 10.0, LEASE: 40.0}  # seconds until the jobs of a lost host run elsewhere
SLACK = 15.0  # seconds more than the bound that a test waits before it gives up


def workers_of(site: Site, host: str) -> set[bytes]:
    """Return the ids of a host's workers, as they are registered."""
    return {
        one for one in site.redis.smembers(KEYS.workers()) if one.startswith(f"{host}:".encode())
    }


@pytest.mark.parametrize("lease", sized(SHORT_LEASE, LEASE, timeout=90.0))
@patient
def test_jobs_of_lost_hosts_run_elsewhere_once(bench: Bench, lease: float) -> None:
    network = network_of(bench)
    site = network.site
    lost, restarted, heir = (network.host(name) for name in ("lost", "restarted", "heir"))
    # One worker where ids must come again: pids of two depend on when the first starts its thread.
    dying = [lost.start(lease=lease), restarted.start(lease=lease, workers=1)]
    living = heir.start(lease=lease, workers=5, queues="lost,restarted,heir")
    await_workers({dying[0]: 2, dying[1]: 1, living: 5})
    jobs = {"lost": ["l1", "l2"], "restarted": ["r1"]}
    raws = hand_out(site, living, jobs) | {"h1": site.enqueue("breathe", "h1", queue="heir")}
    await_runs(site, 1, "h1")
    ids, masters = workers_of(site, "restarted"), site.redis.smembers(KEYS.masters())

    died_at = time.monotonic()
    for start in dying:
        start.die()
    newborn = restarted.start(
        lease=lease, workers=1
    )  # a container that comes back: same name, same pids
    await_runs(site, 2, "r1", timeout=BOUND[lease])
    again = await_runs(site, 2, "l1", "l2", timeout=BOUND[lease] + SLACK)
    times = [run.began - died_at for run in again]
    wait_until(
        lambda: len(site.redis.smembers(KEYS.masters()) & masters) == 1,
        "both dead masters to be forgotten",
        BOUND[lease],
    )
    assert workers_of(site, "restarted") == ids, "the new container is not the old one"
    assert [len(runs_of(site, name)) for name in raws] == [2, 2, 2, 1]
    release(site, *raws)
    site.await_processed(len(raws))
    recovered = {name: host for host in ("lost", "restarted") for name in jobs[host]}
    assert_accounted_once(site, raws, recovered)
    drain(site, living, newborn)

    if lease == LEASE:
        assert max(times) <= BOUND[lease]
    bench.report.time(
        "host lost to recovered" if lease == LEASE else "host lost to recovered, lease 6", times
    )
    bench.report.count("kills of hosts", len(dying))
    bench.report.count("re-runs", len(recovered))
    for row in ("lost", "doubled", "false recoveries"):
        bench.report.count(row, 0)
    bench.report.count("jobs", len(raws))


@patient
def test_hosts_of_one_name_do_not_take_each_others_jobs(bench: Bench) -> None:
    network = network_of(bench)
    site = network.site
    first, second = (network.host(name, hostname="twin") for name in ("one", "other"))
    # One worker each, or the ids may differ: see above.
    master = first.start(lease=SHORT_LEASE, workers=1, queues="twin")
    idle_workers(master, 1)
    raws = {"t": site.enqueue("breathe", "t", queue="twin")}
    await_runs(site, 1, *raws)

    twin = second.start(lease=SHORT_LEASE, workers=1, queues="twin")
    wait_until(lambda: "is in use elsewhere" in twin.log(), "a worker that finds its id in use")
    assert twin.workers_inside() == master.workers_inside()

    def untouched() -> bool:
        return len(runs_of(site, "t")) == 1

    stays(untouched, "the first host keeps its job", SHORT_LEASE / 3)
    release(site, *raws)
    site.await_processed(1)
    assert_accounted_once(site, raws, {})
    drain(site, master, twin)
    bench.report.count("false recoveries", 0)


# -- a storm -----------------------------------------------------------------------------------

QUEUE, WORKERS, DEATHS = "math", 3, 20
JOBS_A_TICK, TICK = 2, 0.1
STORM_TIMEOUT = 240.0  # seconds; it is over when all deaths have been died


class Mortal:
    """A host that dies and comes back under the same name, again and again."""

    def __init__(self, host: Host, chance: random.Random) -> None:
        self.host = host
        self.deaths = 0
        self._chance = chance
        self._start: HostStart | None = None
        self._due = 0.0

    def live(self) -> bool:
        """Die or come back, if the time has come; return whether it has just died."""
        now = time.monotonic()
        if now < self._due:
            return False
        if self._start is None:
            self._start = begin(self.host)
            self._due = now + self._chance.uniform(1.5, 6.0)
            return False
        self._start.die()
        self._start = None
        self.deaths += 1
        self._due = now + self._chance.uniform(0.0, 6.0)
        return True

    def come_back(self) -> HostStart:
        """Return its master, which lives from now on."""
        return self._start or begin(self.host)


def begin(host: Host) -> HostStart:
    return host.start(lease=SHORT_LEASE, queues=QUEUE, workers=WORKERS)


def in_hand(registry: Registry, site: Site, host: str) -> Iterator[str]:
    """Yield the token of each job that the workers of a host have in hand."""
    for worker in workers_of(site, host):
        if token := registry.held(worker.decode()).token:
            yield token


def rage(
    network: Network, mortals: list[Mortal], chance: random.Random
) -> tuple[list[str], dict[str, float]]:
    """Enqueue jobs and let hosts die.

    Returns the digests of the jobs, and the wall time at which the owner of a claim died, by the
    claim's token.
    """
    raws: list[bytes] = []
    died_at: dict[str, float] = {}
    with closing(Target(network.server.url).link()) as link:
        registry = Registry(link, KEYS)
        for _ in ticks(TICK, STORM_TIMEOUT):
            for _ in range(JOBS_A_TICK):
                seconds = chance.uniform(0.05, 0.5)
                raws.append(network.site.enqueue("slow", f"job {len(raws)}", seconds, queue=QUEUE))
            for mortal in mortals:
                if mortal.live():
                    for token in in_hand(registry, network.site, mortal.host.name):
                        died_at.setdefault(token, time.time())
            if sum(mortal.deaths for mortal in mortals) >= DEATHS:
                break
    return [digest(raw) for raw in raws], died_at


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [11])
def test_a_storm_of_host_deaths_loses_nothing(network: Network, report: Report, seed: int) -> None:
    print(f"seed={seed}")
    report.seed("host deaths", seed)
    chance, site = random.Random(seed), network.site
    stays_alive = begin(network.host("stays"))
    mortals = [Mortal(network.host(name), chance) for name in ("one", "other")]

    jobs, died_at = rage(network, mortals, chance)
    deaths = sum(mortal.deaths for mortal in mortals)
    last = [mortal.come_back() for mortal in mortals]
    wait_until(lambda: not site.waiting(QUEUE) and not site.slots(), "the end of all jobs", 60.0)
    await_workers(dict.fromkeys([stays_alive, *last], WORKERS))
    wait_until(
        lambda: site.redis.scard(KEYS.masters()) == 1 + len(last),
        "the dead masters to be forgotten",
        BOUND[SHORT_LEASE],
    )

    entries = audited(site)
    done = Counter(one.job for one in entries if one.event == Outcome.DONE)
    back = {one.token: one.at for one in entries if one.event == Recovery.REQUEUED}
    times = [back[token] - moment for token, moment in died_at.items()]
    assert deaths >= DEATHS
    assert len(died_at) >= DEATHS / 2, "too few deaths have hit a job in hand"
    assert done == Counter(jobs)
    assert back.keys() == died_at.keys(), "who is recovered is dead, and the other way round"
    assert len(entries) == len(jobs) + len(back)
    assert (site.count("processed"), site.count("failed"), site.failures()) == (len(jobs), 0, [])
    reruns = len(site.runs()) - len(set(site.runs()))
    assert len(set(site.runs())) == len(jobs)
    assert reruns <= len(back)
    assert max(times) <= BOUND[SHORT_LEASE]
    drain(site, stays_alive, *last)

    report.time("host lost to recovered, lease 6", times)
    report.count("kills of hosts", deaths)
    report.count("re-runs", len(back))
    report.count("jobs", len(jobs))
    for row in ("lost", "doubled", "false recoveries"):
        report.count(row, 0)

"""Masters, clerks and whole hosts are killed at random, and started again. Nothing gets lost.

Three masters with labels of their own stand for three hosts. All are on one machine, so whoever
is left judges the dead by their processes, not by their leases; what a real host's loss takes is
another test's matter.
"""

import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

import psutil
import pytest

from forkresque.errors import ExitCode
from forkresque.protocol.payload import encode_job
from tests.conftest import Starter
from tests.support import oracle
from tests.support.monitor import Intake, Monitor
from tests.support.oracle import AUDIT
from tests.support.processes import Start, assert_nothing_left
from tests.support.report import Report
from tests.support.servers import Server
from tests.support.site import APP, KEYS, Site, idle_workers, is_gone
from tests.support.sizes import sized
from tests.support.waiting import wait_until

LABELS = ("red", "green", "blue")
WORKERS = 2
IN_QUEUE = 200
CALM = 0.2  # seconds of work, at most, between two blows
NOTICED, RECOVERED, REPLACED = 1.0, 2.0, 1.0  # promised, in seconds
PATIENCE = 10.0  # for what is timed: a late answer is told with its time


class Blow(StrEnum):
    """What is killed of a host."""

    CLERK = "kills of clerks"
    MASTER = "kills of masters"
    ALL = "kills of hosts"


class Host:
    """A master that is started again whenever it was killed."""

    def __init__(self, label: str, start: Starter) -> None:
        self.label = label
        self.started: list[Start] = []
        self._start = start
        self.restart()

    @property
    def master(self) -> Start:
        """The present master."""
        return self.started[-1]

    def restart(self) -> None:
        """Start another master."""
        args = ("-c", str(WORKERS), "--host-label", self.label, "--audit", str(AUDIT))
        self.started.append(self._start(*APP, *args))

    def is_complete(self) -> bool:
        """Return whether all children are there. There must never be too many of them."""
        workers, clerks = self.master.children("worker"), self.master.children("clerk")
        assert len(workers) <= WORKERS
        assert len(clerks) <= 1
        return len(workers) == WORKERS and len(clerks) == 1

    def is_at_work(self, site: Site) -> bool:
        """Return whether the master has its children, and Redis knows it."""
        return self.is_complete() and bool(self.name(site))

    def name(self, site: Site) -> bytes:
        """Return what the present master is called in Redis, b"" before it is known there."""
        mark = f"{self.label}:{self.master.pid}:".encode()
        names: set[bytes] = site.redis.smembers(KEYS.masters())
        return next((name for name in names if name.startswith(mark)), b"")


@dataclass(frozen=True, slots=True)
class Wound:
    """One blow at a host: who is killed, and who was there. `name` is its master's in Redis."""

    host: Host
    blow: Blow
    name: bytes
    victims: Sequence[psutil.Process]
    everybody: Sequence[psutil.Process]

    def is_noticed(self) -> bool:
        """Return whether the clerk is replaced, or the dead and the orphans are all gone."""
        if self.blow is Blow.CLERK:
            dead = is_gone(self.victims[0].pid)
            return dead and self.host.is_complete()
        return all(is_gone(process.pid) for process in self.everybody)


class MasterStorm:
    """Blows at random hosts, each followed by what was promised for it."""

    def __init__(self, site: Site, start: Starter, report: Report, *, seed: int) -> None:
        self.intake = Intake(site.redis)
        self.hosts = [Host(label, start) for label in LABELS]
        self.killed_workers = 0
        self.times: dict[Blow, list[float]] = {Blow.CLERK: [], Blow.MASTER: []}
        self.burials: list[float] = []
        self._site = site
        self._report = report
        self._chance = random.Random(seed)
        self._jobs = self._work()

    def rage(self, blows: int) -> None:
        """Deal so many blows, as many of each kind, at one to three hosts in one stroke."""
        self.await_all()
        deck = [*Blow] * (blows // len(Blow))
        self._chance.shuffle(deck)
        while deck:
            self._work_for(self._chance.random() * CALM)
            hosts = self._chance.sample(self.hosts, min(len(deck), self._chance.randint(1, 3)))
            self._strike([(host, deck.pop()) for host in hosts])
            self.await_all()

    def await_all(self) -> None:
        """Wait until every host works."""
        for host in self.hosts:
            self._await(lambda host=host: host.is_at_work(self._site), f"all of {host.label}")  # type: ignore[misc]

    def _strike(self, blows: list[tuple[Host, Blow]]) -> None:
        wounds = [self._wound(host, blow) for host, blow in blows]
        struck_at = time.monotonic()
        for wound in wounds:
            for victim in wound.victims:
                with suppress(psutil.NoSuchProcess):
                    victim.kill()
        for wound in sorted(wounds, key=lambda wound: wound.blow is Blow.CLERK):
            self._report.count(wound.blow)
            self._await(wound.is_noticed, f"what follows {wound.blow} of {wound.host.label}")
            if wound.blow is not Blow.ALL:
                self.times[wound.blow].append(time.monotonic() - struck_at)
        for wound in wounds:
            if wound.blow is not Blow.CLERK:
                self._revive(wound.host, wound.name)

    def _wound(self, host: Host, blow: Blow) -> Wound:
        master = psutil.Process(host.master.pid)
        everybody = [master, *host.master.children()]
        victims = {
            Blow.CLERK: host.master.children("clerk"),
            Blow.MASTER: [master],
            Blow.ALL: everybody,
        }[blow]
        if blow is Blow.ALL:
            self.killed_workers += len(host.master.children("worker"))
        return Wound(host, blow, host.name(self._site), victims, everybody)

    def _revive(self, host: Host, dead: bytes) -> None:
        """Start a host again. Every job of its predecessor must be back soon."""
        assert host.master.wait(5) == -signal.SIGKILL
        host.restart()

        def is_buried() -> bool:
            return not self._site.redis.sismember(KEYS.masters(), dead)

        self.burials.append(self._await(is_buried, "the dead master to be buried"))

    def _await(self, fact: Callable[[], object], what: str) -> float:
        """Wait for a fact while jobs come in; return the seconds that it took."""
        began_at = time.monotonic()

        def look() -> object:
            self._feed()
            return fact()

        wait_until(look, what, PATIENCE)
        return time.monotonic() - began_at

    def _work_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self._await(lambda: time.monotonic() >= end, "some work")

    def _feed(self) -> None:
        room = IN_QUEUE - self._site.redis.llen(KEYS.queue("math"))
        if room > 0:
            self.intake.put(dict(next(self._jobs) for _ in range(room)))

    def _work(self) -> Iterator[tuple[bytes, str]]:
        number = 0
        while True:
            number += 1
            mark = f"job {number}"
            brief = self._chance.random() < 0.9
            name, args = ("note", [mark]) if brief else ("slow", [mark, 0.03])
            yield encode_job("math", name, args), mark


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("blows", sized(9, 201, timeout=400))
def test_hosts_that_are_killed_at_random_lose_nothing(
    start: Starter,
    site: Site,
    one_server: Server,
    report: Report,
    pytestconfig: pytest.Config,
    *,
    blows: int,
    seed: int,
) -> None:
    report.seed("master storm", seed)
    storm = MasterStorm(site, start, report, seed=seed)

    with Monitor(one_server) as monitor:
        storm.rage(blows)
        wait_until(lambda: is_settled(site), "all jobs to be settled", 10.0)
    for host in storm.hosts:
        idle_workers(host.master, WORKERS)

    report.count("kills of workers", storm.killed_workers)
    report.time("master killed to noticed", storm.times[Blow.MASTER])
    report.time("master killed to recovered", storm.burials)
    report.note("master killed to recovered", "from the start of the next master on that host")
    report.time("clerk killed to replacement ready", storm.times[Blow.CLERK])
    monitor.testify(report)
    evidence = oracle.prove(site, storm.intake.acknowledged, report, faults=storm.killed_workers)
    assert any(event.event == "REQUEUED" for event in evidence.events), "no job was in hand"
    assert max(storm.times[Blow.MASTER]) <= NOTICED
    if pytestconfig.getoption("-m") == "full":
        assert max(storm.burials) <= RECOVERED
        assert max(storm.times[Blow.CLERK]) <= REPLACED
    for host in storm.hosts:
        host.master.send_signal(signal.SIGTERM)
    assert [host.master.wait(10) for host in storm.hosts] == [ExitCode.OK] * len(LABELS)
    for host in storm.hosts:
        for started in host.started:
            assert_nothing_left(started, site.redis)
    assert site.redis.smembers(KEYS.masters()) == set()


def is_settled(site: Site) -> bool:
    return not site.redis.llen(KEYS.queue("math")) and not site.slots()

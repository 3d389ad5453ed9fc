"""Whatever the clocks say, no living host loses a job, and delayed jobs go by Redis' clock.

libfaketime moves the clocks: each host's own, by an hour, at random or at another rate, and that
of Redis, by which leases and locks run out. When Redis' clock leaps ahead, all of them do at once,
which proves nobody dead.
"""

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psutil
import pytest
from redis import Redis

from forkresque.errors import ExitCode
from forkresque.promoter import Promoter
from forkresque.protocol.connection import Target
from forkresque.protocol.delayed import Delayed, Lead, Tick
from forkresque.protocol.payload import encode_job
from forkresque.protocol.registry import Recovery
from tests.conftest import Starter
from tests.support.clocks import HOUR, Clock, clock, server_by
from tests.support.processes import Start, assert_nothing_left
from tests.support.report import Report
from tests.support.servers import Server
from tests.support.site import KEYS, Site, idle_workers, ticks
from tests.support.sizes import sized
from tests.support.waiting import wait_until

LEAPS = (f"+{HOUR}", f"-{HOUR}", "+0")
PUNCTUAL = 2.0  # seconds that a delayed job may be late, as promised
PROMOTION_LOCKS = (KEYS.node_leader(), KEYS.node_master(), KEYS.ruby_master())
RECOVERIES = {str(word) for word in Recovery}


@dataclass(frozen=True)
class Wrong:
    """How the clock of a host is wrong. The first of several is the one that it starts with."""

    shifts: tuple[str, ...]
    is_monotonic: bool = False


HOSTS = {
    "leaping": Wrong(LEAPS),  # the first to start, so it leads
    "ahead": Wrong((f"+{HOUR}",)),
    "behind": Wrong((f"-{HOUR}",)),
    "fast": Wrong(("+0 x1.1",)),
    "fast throughout": Wrong(("+0 x1.1",), is_monotonic=True),
    "ahead throughout": Wrong((f"+{HOUR}",), is_monotonic=True),
}


@pytest.fixture
def redis_clock() -> Iterator[Clock]:
    """Return the clock of `clocked`."""
    with clock() as found:
        yield found


@pytest.fixture
def clocked(redis_clock: Clock) -> Iterator[Server]:
    """Return a server whose clock the test moves."""
    with server_by(redis_clock) as server:
        yield server


@pytest.fixture
def clocked_redis(clocked: Server) -> Iterator[Redis]:
    """Return a client of that server."""
    with closing(clocked.client()) as client:
        yield client


@pytest.fixture
def host_clocks() -> Iterator[ExitStack]:
    """Return a stack for clocks that outlive the hosts that go by them."""
    with ExitStack() as stack:
        yield stack


def now(redis: Any) -> float:
    seconds, microseconds = redis.time()
    return float(seconds) + float(microseconds) / 1e6


def leap(redis: Any, clock: Clock, shift: str) -> None:
    """Move Redis' clock, and make sure that it has moved: it looks at it between two commands."""
    clock.move(shift)
    wait_until(lambda: abs(now(redis) - time.time() - int(shift)) < 1.0, "the leap", 2.0, 0.001)


# -- hosts ---------------------------------------------------------------------------------------


@dataclass
class Schedule:
    """Delayed jobs as any Resque puts them in, and whether each left in its time."""

    redis: Any
    latest: float = 0.0  # the latest that Redis' clock has ever shown
    waiting: dict[int, str] = field(default_factory=dict)

    def add(self, second: int) -> str:
        """Put a job in for a second that no other has; return its mark."""
        mark = f"delayed {second}"
        raw = encode_job("math", "note", [mark])
        with self.redis.pipeline(transaction=True) as pipe:
            pipe.rpush(KEYS.delayed(second), raw)
            pipe.sadd(KEYS.timestamps(raw), f"delayed:{second}")
            pipe.zadd(KEYS.schedule(), {str(second): second})
            pipe.execute()
        self.waiting[second] = mark
        return mark

    def look(self) -> list[float]:
        """Return how late jobs have left since the last look, at most. None may be early."""
        seconds = list(self.waiting)
        with self.redis.pipeline(transaction=True) as pipe:
            for second in seconds:
                pipe.exists(KEYS.delayed(second))
            pipe.time()
            *there, (whole, micro) = pipe.execute()
        at = whole + micro / 1e6
        self.latest = max(self.latest, at)
        gone = [second for second, is_there in zip(seconds, there, strict=True) if not is_there]
        for second in gone:
            assert second <= self.latest, f"{second} has left before {self.latest}"
            del self.waiting[second]
        return [at - second for second in gone]


@dataclass(frozen=True)
class Storm:
    """How long each part takes, and the lease of all hosts."""

    lease: float
    host_leaps: float
    redis_leaps: float
    between_leaps: float
    silence: float  # of one clerk; less than two thirds of the lease, as a host may be silent


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize(
    "storm",
    sized(
        Storm(6.0, host_leaps=2.6, redis_leaps=3.0, between_leaps=1.5, silence=3.0),
        Storm(12.0, host_leaps=13.0, redis_leaps=12.0, between_leaps=3.0, silence=7.5),
    ),
)
def test_no_clock_takes_a_job_from_the_living(
    clocked: Server,
    clocked_redis: Redis,
    redis_clock: Clock,
    host_clocks: ExitStack,
    start: Starter,
    ledger: Redis,
    report: Report,
    *,
    storm: Storm,
    seed: int,
) -> None:
    report.seed("test_no_clock_takes_a_job_from_the_living", seed)
    fleet = Fleet(Site(clocked_redis, ledger), redis_clock, random.Random(seed), storm)
    for name, wrong in HOSTS.items():
        theirs = host_clocks.enter_context(clock(wrong.shifts[0], is_monotonic=wrong.is_monotonic))
        fleet.enlist(name, start(*fleet.args(name), url=clocked.url, env=theirs.env), theirs)
    fleet.enlist("right", start(*fleet.args("right"), url=clocked.url), None)

    with fleet.jobs_in_hand("leaps on hosts"):
        report.time("delayed job late", fleet.leap_on_hosts())
    with fleet.jobs_in_hand("leaps in Redis"):
        report.time("leap of Redis' clock to work resumed", fleet.leap_in_redis())
        fleet.leap_while_silent("right")
    fleet.finish()
    fleet.judge(report)
    fleet.end()


class Fleet:
    """Hosts with one Redis. Each has a queue of its own, and one that it shares."""

    def __init__(self, site: Site, clock: Clock, chance: random.Random, storm: Storm) -> None:
        self.hosts: dict[str, Start] = {}
        self._clocks: dict[str, Clock | None] = {}
        self._site = site
        self._clock = clock
        self._chance = chance
        self._storm = storm
        self._schedule = Schedule(site.redis)
        self._marks: list[str] = []
        self._gates: list[str] = []

    def args(self, name: str) -> tuple[str, ...]:
        queues, lease = f"{name},math", str(self._storm.lease)
        return (
            *("-A", "tests.support.jobs", "-q", queues, "-c", "2"),
            *("--lease", lease, "--audit", "100000"),
        )

    def enlist(self, name: str, master: Start, clock: Clock | None) -> None:
        """Add a host; the first one leads."""
        self.hosts[name], self._clocks[name] = master, clock
        wait_until(lambda: self._site.redis.exists(KEYS.leader()), "a leader")

    @contextmanager
    def jobs_in_hand(self, part: str) -> Iterator[None]:
        """Have each host perform a job all the time."""
        jobs = [f"{name}, {part}" for name in self.hosts]
        for (name, master), job in zip(self.hosts.items(), jobs, strict=True):
            idle_workers(master, 2)
            self._site.enqueue("gate", job, queue=name)
        for job in jobs:
            self._site.started(job)
        self._gates += jobs
        self._marks += jobs
        yield
        self._site.release(*jobs * 3)  # should one run again, it shall not wait

    def leap_on_hosts(self) -> list[float]:
        """Move the clock of a host that leads. Return how late delayed jobs were."""
        redis, storm = self._site.redis, self._storm
        leaping = self._clocks["leaping"]
        assert leaping
        late: list[float] = []
        for second in range(1, int(storm.host_leaps)):
            self._marks.append(self._schedule.add(int(now(redis)) + second))
        for tick in ticks(0.01, storm.host_leaps):
            if tick % 10 == 0:
                leaping.move(self._chance.choice(LEAPS))
                self._note()
            late += self._schedule.look()
        assert late, "no delayed job came due"
        assert max(late) <= PUNCTUAL
        assert self._site.redis.get(KEYS.epoch()) == b"1", "the lead has changed"
        return late

    def leap_in_redis(self) -> list[float]:
        """Move Redis' clock, again and again. Return for how long no job was done after each."""
        redis, storm = self._site.redis, self._storm
        stalls = []
        for number in range(round(storm.redis_leaps / storm.between_leaps)):
            leap(redis, self._clock, LEAPS[number % len(LEAPS)])
            leapt_at = time.monotonic()
            self._marks.append(self._schedule.add(int(now(redis)) + 1))
            mark = self._note()
            self._await_run(mark)
            stalls.append(time.monotonic() - leapt_at)
            while time.monotonic() - leapt_at < storm.between_leaps:
                for _ in ticks(0.02, 0.1):
                    self._schedule.look()
                self._note()
        return stalls

    def leap_while_silent(self, name: str) -> None:
        """Move Redis' clock while a host is silent, but not for longer than it may be.

        Its lease is gone for several looks of the others, who have reached Redis all the time.
        """
        (clerk,) = self.hosts[name].children("clerk")
        clerk.suspend()
        ahead = f"+{3 * HOUR}"  # beyond whatever is there, so that all of it runs out
        leap(self._site.redis, self._clock, ahead)
        silent_at = time.monotonic()
        wait_until(lambda: self._lease_of(name) is None, "its lease to run out", every=0.001)
        for _ in ticks(0.1, self._storm.silence):
            assert clerk.status() == psutil.STATUS_STOPPED
        clerk.resume()
        assert time.monotonic() - silent_at < self._storm.lease * 2 / 3
        wait_until(lambda: self._lease_of(name), "its lease to be there again")
        self._await_run(self._note())

    def finish(self) -> None:
        """Let all jobs come due and end."""
        leap(self._site.redis, self._clock, f"+{6 * HOUR}")
        wait_until(self._is_at_rest, "all jobs to end", 15.0)
        self._schedule.look()
        assert not self._schedule.waiting

    def _is_at_rest(self) -> bool:
        places = (KEYS.schedule(), KEYS.queue("math"), *map(KEYS.queue, self.hosts))
        return not self._site.slots() and not self._site.redis.exists(*places)

    def judge(self, report: Report) -> None:
        """Check that every job ran once, and that nobody was taken for dead."""
        runs = Counter(self._site.runs())
        events = Counter(
            entry[b"event"].decode() for _, entry in self._site.redis.xrange(KEYS.audit())
        )
        begun = {job: self._site.starts(job) for job in self._gates}
        report.count("jobs", len(self._marks))
        report.count("lost", len(set(self._marks) - set(runs)))
        report.count("re-runs", runs.total() - len(runs))
        report.count("false recoveries", sum(events[word] for word in RECOVERIES))
        assert begun == dict.fromkeys(self._gates, 1), "a job began again beside itself"
        assert runs == Counter(self._marks)
        assert events == {"DONE": len(self._marks)}

    def end(self) -> None:
        """End all hosts, and make sure that their clocks were wrong."""
        for name, master in self.hosts.items():
            clock = self._clocks[name]
            if clock and len(HOSTS[name].shifts) > 1:
                clock.move(HOSTS[name].shifts[0])
            lived = time.time() - psutil.Process(master.pid).create_time()
            master.send_signal(signal.SIGTERM)
            assert master.wait(5) == ExitCode.OK
            last = json.loads(master.log().splitlines()[-1])
            error = datetime.fromisoformat(last["at"]).timestamp() - time.time()
            shift, _, rate = (HOSTS[name].shifts[0] if clock else "+0").partition(" x")
            expected = int(shift) + lived * (float(rate or 1.0) - 1.0)
            assert abs(error - expected) < 0.5, f"the clock of {name} was not wrong as it should be"
        for master in self.hosts.values():
            assert_nothing_left(master, self._site.redis)

    def _note(self) -> str:
        mark = f"note {len(self._marks)}"
        self._site.enqueue("note", mark)
        self._marks.append(mark)
        return mark

    def _await_run(self, mark: str) -> None:
        wait_until(lambda: mark in self._site.runs(), f"{mark} to run", 2 * self._storm.lease)

    def _lease_of(self, name: str) -> Any:
        pid = str(self.hosts[name].pid).encode()
        masters = self._site.redis.smembers(KEYS.masters())
        mine = [master.decode() for master in masters if master.split(b":")[1] == pid]
        assert mine, f"the host {name} was forgotten while it lived"
        return self._site.redis.get(KEYS.lease(mine[0]))


# -- schedulers ----------------------------------------------------------------------------------


class Walk:
    """Schedulers, delayed jobs and a recurring one, while Redis' clock leaps between any two steps.

    Schedulers are replaced at random; those that were may step again, as a process does that was
    stopped for long.
    """

    def __init__(
        self, server: Server, redis: Any, clock: Clock, seed: int, stack: ExitStack
    ) -> None:
        self.redis = redis
        self.fired: Counter[str] = Counter()
        self._clock = clock
        self._chance = random.Random(seed)
        link = stack.enter_context(closing(Target(server.url).link(tracking=True)))
        self._delayed = Delayed(link, KEYS)
        self._promoters: list[Promoter] = []
        self._jobs: dict[bytes, int] = {}  # to the second at which each is due
        self._moved: set[bytes] = set()
        self._shift = 0

    def run(self, steps: int) -> None:
        actions = {self._replace: 1, self._leap: 2, self._add: 4, self._step: 8, self._tick: 4}
        self._replace()
        for _ in range(steps):
            (act,) = self._chance.choices(list(actions), list(actions.values()))
            act()
        leap(self.redis, self._clock, "+1000000")
        self._replace()
        while self._promoters[-1].step().promoted:
            pass
        self._take_note(self._promoters[-1])

    def judge(self, report: Report) -> None:
        """Check that each job has moved once, and that no moment was enqueued for twice."""
        queued = Counter(self.redis.lrange(KEYS.queue("math"), 0, -1))
        report.count("jobs", len(self._jobs))
        report.count("lost", len(self._jobs.keys() - queued.keys()))
        report.count("double promotions", queued.total() - len(queued))
        report.count("stale leaders fenced", self.fired["fenced"])
        assert queued == Counter(dict.fromkeys(self._jobs, 1))
        assert not self.redis.exists(KEYS.schedule())
        moments = Counter(self.redis.lrange(KEYS.queue("cron"), 0, -1))
        assert moments.total() == len(moments) == self.fired[Tick.OK]

    def _replace(self) -> None:
        name = "host:1"  # all of them: containers do share names
        self._promoters.append(Promoter(self._delayed, name=name))

    def _leap(self) -> None:
        self._shift += self._chance.choice((-HOUR, -30, -3, 3, 30, HOUR))
        leap(self.redis, self._clock, f"{self._shift:+d}")
        self.fired["leap"] += 1

    def _add(self) -> None:
        raw = encode_job("math", "note", [len(self._jobs)])
        second = int(now(self.redis)) + self._chance.choice((-HOUR, -1, 0, 2, 20, HOUR))
        self._jobs[raw] = second
        with self.redis.pipeline(transaction=True) as pipe:
            pipe.rpush(KEYS.delayed(second), raw)
            pipe.sadd(KEYS.timestamps(raw), f"delayed:{second}")
            pipe.zadd(KEYS.schedule(), {str(second): second})
            pipe.execute()

    def _step(self) -> None:
        promoter = self._chance.choice(self._promoters)
        had_lost = promoter.state is Lead.PROMOTE and not self._may_promote(promoter)
        promoted = promoter.step().promoted
        if had_lost and promoted == 0:
            self.fired["fenced"] += 1
        self.fired["promoted"] += promoted
        self._take_note(promoter)

    def _take_note(self, promoter: Promoter) -> None:
        """Check who has promoted since the last look, and that no job was early."""
        found = set(self.redis.lrange(KEYS.queue("math"), 0, -1)) - self._moved
        assert not found or self._may_promote(promoter), "promoted without the locks"
        assert all(self._jobs[raw] <= now(self.redis) for raw in found), "a job was early"
        self._moved |= found

    def _may_promote(self, promoter: Promoter) -> bool:
        """Return whether the locks that promotion needs are all held by this scheduler.

        They are not always with the lead: a key is deleted when somebody looks at it after its
        end, so after a leap to and fro one may be gone and another have its old end again.
        """
        return set(self.redis.mget(PROMOTION_LOCKS)) == {promoter.token.encode()}

    def _tick(self) -> None:
        """Enqueue for this second or one before, by the clock, as whoever believes to lead."""
        promoter = self._chance.choice(self._promoters)
        moment = int(now(self.redis)) - self._chance.choice((0, 0, 1, 5))
        payload = encode_job("cron", "note", [moment])
        holder = self._delayed.leader()
        result = self._delayed.tick("every second", moment, "cron", payload, token=promoter.token)
        assert (result is Tick.FENCED) == (holder != promoter.token)
        self.fired[result] += 1


@pytest.mark.parametrize("seeds", sized([1, 2], list(range(1, 41))))
def test_schedulers_promote_once_and_on_time_while_redis_clock_leaps(
    clocked: Server, clocked_redis: Redis, redis_clock: Clock, report: Report, seeds: list[int]
) -> None:
    fired: Counter[str] = Counter()
    for seed in seeds:
        report.seed("test_schedulers_promote_once_and_on_time_while_redis_clock_leaps", seed)
        print(f"seed={seed}")
        leap(clocked_redis, redis_clock, "+0")
        clocked_redis.flushall()
        with ExitStack() as stack:
            walk = Walk(clocked, clocked_redis, redis_clock, seed, stack)
            walk.run(600)
        walk.judge(report)
        fired += walk.fired
    assert min(fired[what] for what in ("leap", "fenced", "promoted", *Tick)) > 0, fired


@pytest.mark.parametrize("leaps", sized([-HOUR, -10, 10, HOUR], [-HOUR, -10, -3, 3, 10, HOUR]))
def test_a_leader_does_not_sleep_past_a_job_after_redis_clock_has_moved(
    clocked: Server, clocked_redis: Redis, redis_clock: Clock, leaps: list[int]
) -> None:
    for seconds in leaps:
        leap(clocked_redis, redis_clock, "+0")
        clocked_redis.flushall()
        with closing(Target(clocked.url).link(tracking=True)) as link:
            promoter = Promoter(Delayed(link, KEYS), name="host:1")
            Schedule(clocked_redis).add(int(now(clocked_redis)) + 2 * HOUR)
            promoter.step()
            assert promoter.state is Lead.PROMOTE

            leap(clocked_redis, redis_clock, f"{seconds:+d}")
            Schedule(clocked_redis).add(int(now(clocked_redis)) + 1)
            pause = promoter.step().pause

        assert pause <= 1 + PUNCTUAL, f"after a leap by {seconds} s"

"""The line to Redis is slow, breaks within a reply, or swallows one direction. Jobs run once.

A proxy of our own stands between. Every call of forkresque has its answer cut at every byte; a
whole start and a producer work over lines that break at random; and lines on which connections
open and nothing is ever answered prolong no drain.
"""

import random
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import count

import pytest
from redis import Redis

from forkresque.errors import EnqueueUnknown, ExitCode, RedisUnavailable
from forkresque.protocol.claims import Claims
from forkresque.protocol.connection import Target
from forkresque.protocol.delayed import Delayed
from forkresque.protocol.payload import encode_job
from forkresque.protocol.registry import Registry
from forkresque.protocol.script import load
from forkresque.protocol.store import Store
from forkresque.queue import Queue
from tests.conftest import Starter
from tests.support import oracle
from tests.support.calls import CALLS, Call
from tests.support.connections import Over
from tests.support.patience import Bench, patient
from tests.support.processes import Start, assert_nothing_left
from tests.support.proxy import Pace, Proxy
from tests.support.report import Report
from tests.support.servers import Server
from tests.support.site import APP, KEYS, Site, idle_workers, ticks
from tests.support.sizes import sized
from tests.support.waiting import wait_until
from tests.support.world import LEASE, MASTER, NOW, OWNER, WORKER, ToldClient, ToldLink, World, dump

AUDIT = ("--audit", "100000")
DRAIN, OVERTIME = 1.0, 3.0  # seconds, as promised
LEAST_CUTS = 20

# What has nothing left to do when it is asked again, and may say so.
SAY_DONE = (
    *("recover", "promote", "tick", "adopt_bucket", "resign"),
    *("lock_drop", "clean_foreign", "force_clean", "remove_failed", "take_failed"),
    *("delete", "free_lock"),
)


@pytest.fixture
def proxy(one_server: Server) -> Iterator[Proxy]:
    with Proxy(one_server.socket) as proxy:
        yield proxy


# -- each reply at each byte ---------------------------------------------------------------------


class Line:
    """A worker and a producer behind a proxy, and a client that looks from the other side."""

    def __init__(self, proxy: Proxy, redis: Redis, stack: ExitStack) -> None:
        target = Target(proxy.url, timeout=2.0)
        self.redis = redis
        self.link = stack.enter_context(closing(ToldLink(target)))
        self.client = stack.enter_context(closing(ToldClient(target)))

    def world(self) -> World:
        """Return an empty world with one registered worker, over new connections."""
        self.link.close()
        self.client.close()
        self.redis.flushall()
        claims = Claims(self.link, KEYS, WORKER, master=MASTER)
        claims.poll(WORKER.queues)
        registry = Registry(self.link, KEYS)
        assert registry.register(WORKER, OWNER, LEASE, now=NOW) is None
        store, delayed = Store(self.client, KEYS), Delayed(self.link, KEYS)
        return World(self.redis, self.link, self.client, claims, registry, store, delayed)


@pytest.mark.parametrize("step", sized(14, 1))
def test_an_answer_that_breaks_off_at_any_byte_is_asked_for_again(
    proxy: Proxy, one_redis: Redis, report: Report, step: int
) -> None:
    with ExitStack() as stack:
        line = Line(proxy, one_redis, stack)
        cuts = sum(cut_everywhere(line, proxy, call, step) for call in CALLS)

    assert proxy.resets == cuts >= len(CALLS) * 2
    report.count("replies cut", cuts)
    report.count("doubled", 0)
    report.count("lost", 0)


def cut_everywhere(line: Line, proxy: Proxy, call: Call, step: int) -> int:
    """Cut the reply to one call at byte 0, `step`, …, and after its last; return how often."""
    world = line.world()
    wanted = call.ask(world, call.needs(world))
    keys = dump(line.redis)
    size, cuts = sys.maxsize, 0
    for upto in count(0, step):
        at = min(upto, size)
        world = line.world()
        needed = call.needs(world)
        rule = proxy.cut_reply(call.words, at)
        try:
            answer = call.ask(world, needed)
        except RedisUnavailable:
            answer = call.ask(world, needed)
        else:
            assert at == rule.size, f"{call.name}: {at} of {rule.size} bytes were an answer"
        assert rule.fired == 1, call.name
        assert answer == wanted or call.name.startswith(SAY_DONE), call.name
        assert dump(line.redis) == keys, f"{call.name} after {at} bytes"
        size, cuts = rule.size, cuts + 1  # of the first reply, when a call asks several times
        if at == size:
            break
    return cuts


# -- a whole start over a bad line ---------------------------------------------------------------


def produce(url: str, marks: list[str]) -> dict[bytes, str]:
    """Enqueue jobs until each is acknowledged; return their bytes and marks."""
    acknowledged: dict[bytes, str] = {}
    with closing(Target(url, timeout=2.0).client()) as client:
        queue = Queue(Over(client, KEYS))
        for mark in marks:
            insist(queue, mark)
            acknowledged[encode_job("math", "note", [mark])] = mark
    return acknowledged


def insist(queue: Queue, mark: str) -> None:
    """Enqueue one job, with the same request for as long as nobody knows whether it is there."""
    enqueue = partial(queue.enqueue, "math", "note", [mark])
    request_id: str | None = None
    for _ in range(5):
        try:
            enqueue(request_id=request_id)
        except EnqueueUnknown as unknown:
            request_id = unknown.request_id
        else:
            return
    raise AssertionError(f"{mark} was never acknowledged")


def each_ran_once(site: Site, acknowledged: dict[bytes, str], report: Report) -> None:
    """No fault of the line explains a second run: nobody has died."""
    judgement = oracle.judge(oracle.read(site), acknowledged, faults=0)
    report.count("jobs", len(acknowledged))
    report.count("lost", judgement.lost)
    report.count("doubled", judgement.doubled)
    report.count("re-runs", judgement.reruns)
    assert judgement.complaints == []


def leave(master: Start, site: Site) -> None:
    master.send_signal(signal.SIGTERM)
    assert master.wait() == ExitCode.OK
    assert_nothing_left(master, site.redis)


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("jobs", sized(200, 4000, timeout=120))
def test_lines_that_break_within_replies_cost_no_job_and_no_second_run(
    start: Starter, site: Site, proxy: Proxy, report: Report, *, jobs: int, seed: int
) -> None:
    report.seed("lines that break", seed)
    chance = random.Random(seed)
    master = start(*APP, "-c", "3", *AUDIT, url=proxy.url)
    idle_workers(master, 3)
    proxy.reply_bytes = lambda: chance.randrange(1, 1500)  # a handshake alone takes some 200
    proxy.cut()

    acknowledged = produce(proxy.url, [f"job {number}" for number in range(jobs)])
    wait_until(lambda: site.count("processed") >= jobs, "all jobs", 60.0)
    proxy.reply_bytes = Proxy.WHOLE

    assert proxy.resets >= LEAST_CUTS
    report.count("replies cut", proxy.resets)
    leave(master, site)
    each_ran_once(site, acknowledged, report)


SLOW = [Pace(0.03, 0.05, 20_000.0)]
SLOWER = [*SLOW, Pace(0.0, 0.5), Pace(0.3), Pace(0.0, 1.9), Pace(1.0), Pace(2.0)]


@pytest.mark.parametrize("paces", sized(SLOW, SLOWER, timeout=120))
def test_a_slow_line_costs_no_job_and_no_second_run(
    start: Starter, site: Site, proxy: Proxy, report: Report, paces: list[Pace]
) -> None:
    master = start(*APP, "-c", "3", *AUDIT, url=proxy.url)
    idle_workers(master, 3)
    acknowledged: dict[bytes, str] = {}
    for pace in paces:
        proxy.pace = pace
        slowed, before = proxy.slowed, site.count("processed")
        acknowledged |= {
            site.enqueue("note", mark): mark for mark in (f"{pace} {n}" for n in range(10))
        }
        for _ in ticks(0.1, 8.0):
            if site.count("processed") == before + 10:
                break
        assert proxy.slowed > slowed, f"nothing was held back by {pace}"
    proxy.pace = Pace()
    back_at = time.monotonic()
    acknowledged[site.enqueue("note", "at full speed")] = "at full speed"

    wait_until(lambda: site.count("processed") >= len(acknowledged), "all jobs", 10.0)
    report.time("Redis back to work resumed", time.monotonic() - back_at)
    leave(master, site)
    each_ran_once(site, acknowledged, report)


# -- lines on which nothing is answered ----------------------------------------------------------


@dataclass
class Silence:
    """A master and a producer behind one proxy, which a black hole hits."""

    proxy: Proxy
    master: Start
    queue: Queue
    name: str
    connections: int = 0

    def begin(self) -> None:
        self.connections = self.proxy.connections
        (self.proxy.mute if self.name == "muted" else self.proxy.blackhole)()

    def ask(self) -> EnqueueUnknown:
        """Enqueue into the silence; nobody can know how that ended."""
        with pytest.raises(EnqueueUnknown) as unknown:
            self.queue.enqueue(self.name, "note", [self.name])
        return unknown.value


def begin_silences(bench: Bench) -> list[Silence]:
    """Return a master with a job in hand and a producer for each kind of silence."""
    # Or the first answer would be NOSCRIPT.
    bench.site.redis.script_load(load("enqueue").source)
    silences = []
    for name in ("half open", "muted"):
        proxy = bench.enter(Proxy(bench.server.socket))
        master = bench.start(*APP, "-c", "1", "-t", str(DRAIN), *AUDIT, url=proxy.url)
        bench.site.gates(name)  # before the next master is there: this one has it in hand
        client = bench.enter(closing(Target(proxy.url, timeout=0.5).client()))
        queue = Queue(Over(client, KEYS))
        assert queue.length(name) == 0  # connects, or it would know that it never asked
        silences.append(Silence(proxy, master, queue, name))
    return silences


@pytest.mark.parametrize("strict", sized(False, True))
@patient
def test_a_silent_line_prolongs_no_drain_and_doubles_no_job(bench: Bench, *, strict: bool) -> None:
    site = bench.site
    silences = begin_silences(bench)
    with ThreadPoolExecutor(len(silences)) as pool:
        for silence in silences:
            silence.begin()
        asking = pool.map(Silence.ask, silences)
        asked_at = time.monotonic()
        for silence in silences:
            silence.master.send_signal(signal.SIGTERM)
        codes = [silence.master.wait(15) for silence in silences]
        took = time.monotonic() - asked_at
        unknowns = list(asking)
    bench.report.time("SIGTERM to exit", took)
    assert took <= DRAIN + OVERTIME or not strict
    assert codes == [ExitCode.CUT] * len(silences)
    assert all(s.proxy.connections > s.connections for s in silences), "nobody has tried again"
    assert {s.name: int(site.redis.llen(KEYS.queue(s.name))) for s in silences} == {
        "half open": 0,
        "muted": 1,
    }, "one direction is not two"

    for silence, unknown in zip(silences, unknowns, strict=True):
        silence.proxy.heal()
        for _ in range(2):
            assert silence.queue.enqueue(
                silence.name, "note", [silence.name], request_id=unknown.request_id
            )
        assert site.redis.llen(KEYS.queue(silence.name)) == 1
    finish_elsewhere(bench, silences)
    bench.report.count("doubled", 0)


def finish_elsewhere(bench: Bench, silences: list[Silence]) -> None:
    """Have another master do what was cut: each of it runs once more, and all is accounted."""
    site, queues = bench.site, ",".join(("math", *(silence.name for silence in silences)))
    names = [silence.name for silence in silences]
    heir = bench.start("-A", "tests.support.jobs", "-q", queues, "-c", "2", *AUDIT)
    for name in names:
        site.started(name, times=2)
    site.release(*names)
    site.await_processed(2 * len(names))
    assert sorted(site.runs()) == sorted(names * 2)  # as a gate, and as a note
    assert [site.starts(name) for name in names] == [2, 2]
    leave(heir, site)
    for silence in silences:
        assert_nothing_left(silence.master, site.redis)

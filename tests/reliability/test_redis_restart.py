"""Redis is killed under load and comes back with what it has kept: all, nearly all, or nothing.

What is lost is what Redis itself had lost, found out from a copy of its log. And a log that was
cut anywhere holds each script wholly or not at all.
"""

import os
import random
import shutil
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from forkresque.errors import EnqueueUnknown, ExitCode, RedisUnavailable
from forkresque.protocol import script
from forkresque.protocol.claims import Claims
from forkresque.protocol.connection import Target
from forkresque.protocol.delayed import Delayed
from forkresque.protocol.payload import digest, encode_job
from forkresque.protocol.registry import Registry
from forkresque.protocol.store import Store
from forkresque.queue import Queue
from tests.conftest import SERVERS, Starter
from tests.support.calls import CALLS, Call, Effect
from tests.support.connections import Over
from tests.support.processes import assert_nothing_left
from tests.support.report import Report
from tests.support.servers import Server, binaries
from tests.support.site import APP, KEYS, Site, idle_workers
from tests.support.sizes import sized
from tests.support.waiting import wait_until
from tests.support.world import (
    LEASE,
    MASTER,
    NOW,
    OWNER,
    WORKER,
    Dump,
    ToldClient,
    ToldLink,
    World,
    dump,
)

LOG = "appendonlydir"
SELECT = script.pack("SELECT", 0)  # how every log begins
PRODUCERS = 2
PAUSE = 0.002  # seconds between two jobs of one producer
WORKERS = 3
RESUMED_WITHIN = 2.0

Found = set[str]  # jobs, by the digests of their payloads


# -- killed under load -------------------------------------------------------------------------


@dataclass(frozen=True)
class Policy:
    """How Redis keeps what it has; `torn_bytes` are the most that its host loses with it."""

    name: str
    appendfsync: str | None = None
    torn_bytes: int = 0

    def __str__(self) -> str:
        return self.name


POLICIES = [
    Policy("always", "always"),
    Policy("everysec", "everysec"),
    Policy("everysec and a tail torn off", "everysec", torn_bytes=40_000),
    Policy("nothing kept"),
]


def tear(server: Server, number: int) -> None:
    """Take the last bytes from a dead server's log, as the crash of a host may."""
    (path,) = server.directory.glob(f"{LOG}/*.incr.aof")
    os.truncate(path, max(0, path.stat().st_size - number))


class Producers:
    """Threads that enqueue until they are stopped, and note each job that was acknowledged."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self.acknowledged: list[str] = []
        self._url = url
        self._over = threading.Event()
        self._pool = stack.enter_context(ThreadPoolExecutor(PRODUCERS))
        stack.callback(self._over.set)
        self._all = [self._pool.submit(self._produce, number) for number in range(PRODUCERS)]

    def stop(self) -> None:
        """Let each have its last job acknowledged; raise what one of them has raised."""
        self._over.set()
        for one in self._all:
            one.result(30)

    def _produce(self, number: int) -> None:
        with closing(Target(self._url).client()) as client:
            queue = Queue(Over(client, KEYS))
            for mark in (f"{number}.{index}" for index in count()):
                self._insist(queue, mark)
                self.acknowledged.append(digest(encode_job("math", "note", [mark])))
                if self._over.wait(PAUSE):
                    return

    def _insist(self, queue: Queue, mark: str) -> None:
        request_id = None
        while True:
            try:
                queue.enqueue("math", "note", [mark], request_id=request_id)
            except EnqueueUnknown as error:
                request_id = error.request_id
            except RedisUnavailable:
                continue  # it was not even sent
            else:
                return


def found_in(redis: Any) -> tuple[Found, Counter[str]]:
    """Return the jobs that wait or are in hand, and how often each was settled."""
    waiting = {digest(raw) for raw in redis.lrange(KEYS.queue("math"), 0, -1)}
    for key in redis.scan_iter(match=KEYS.slot("") + b"*", count=1000):
        slot = redis.get(key)
        waiting.add(digest(slot[slot.index(b"{") :]))
    told = [fields for _, fields in redis.xrange(KEYS.audit())]
    done = Counter(fields[b"job"].decode() for fields in told if fields[b"event"] == b"DONE")
    return waiting, done


def kept_by_redis(content: Path) -> Found:
    """Return the jobs in what Redis has kept, settled or not."""
    with Server(appendonly="always", content=content) as server, closing(server.client()) as redis:
        waiting, done = found_in(redis)
        return waiting | set(done)


def killed_again_and_again(
    server: Server,
    site: Site,
    producers: Producers,
    kept: Path,
    policy: Policy,
    *,
    kills: int,
    seed: int,
) -> tuple[list[int], list[float]]:
    """Kill and restart; return how many jobs were acknowledged before each, and times to work."""
    chance = random.Random(seed)
    acknowledged, resumed = list[int](), list[float]()
    for number in range(kills):
        enough = len(producers.acknowledged) + chance.randint(10, 120)
        wait_until(lambda: len(producers.acknowledged) >= enough, "more jobs")  # noqa: B023
        server.kill()
        if policy.torn_bytes:
            tear(server, chance.randint(1, policy.torn_bytes))
        if (server.directory / LOG).exists():
            shutil.copytree(server.directory / LOG, kept / str(number) / LOG)
        acknowledged.append(len(producers.acknowledged))
        server.restart()
        back, before = time.monotonic(), site.ledger.llen("runs")
        wait_until(lambda: site.ledger.llen("runs") > before, "work", 10.0, 0.002)  # noqa: B023
        resumed.append(time.monotonic() - back)
    return acknowledged, resumed


def settled(site: Site) -> bool:
    return not site.waiting() and not site.slots()


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("kills", sized(4, 40))
def test_a_killed_redis_loses_what_it_has_not_kept_and_nothing_else(
    start: Starter,
    ledger: Redis,
    report: Report,
    tmp_path: Path,
    policy: Policy,
    kills: int,
) -> None:
    seed = random.randrange(1_000_000)
    print(f"seed={seed}")
    report.seed(f"test_redis_restart[{policy}]", seed)
    with ExitStack() as stack:
        server = stack.enter_context(Server(appendonly=policy.appendfsync))
        site = Site(stack.enter_context(closing(server.client())), ledger)
        master = start(*APP, "-c", str(WORKERS), "--audit", "1000000", url=server.url)
        idle_workers(master, WORKERS)
        before = [child.pid for child in master.children()]

        producers = Producers(server.url, stack)
        times, resumed = killed_again_and_again(
            server, site, producers, tmp_path, policy, kills=kills, seed=seed
        )
        producers.stop()
        wait_until(lambda: settled(site), "all jobs to be settled")

        assert [child.pid for child in master.children()] == before
        gone = gone_from(tmp_path, producers.acknowledged, times)
        judge(site, report, producers.acknowledged, gone, durable=policy.appendfsync == "always")
        assert gone or not policy.torn_bytes, "no job was in what was torn off"
        report.count("kills of Redis", kills)
        report.count(f"lost by Redis itself, {policy}", len(gone))
        report.time("Redis back to work resumed", resumed)
        assert kills < 40 or max(resumed) <= RESUMED_WITHIN, resumed
        master.stop()
        assert master.process.returncode == ExitCode.OK
        assert "Traceback" not in master.log()
        assert_nothing_left(master, site.redis)


def gone_from(kept: Path, acknowledged: list[str], times: list[int]) -> Found:
    """Return the jobs that were acknowledged before a kill and are in no place after it."""
    gone = set[str]()
    for number, until in enumerate(times):
        content = kept / str(number)
        gone |= set(acknowledged[:until]) - (kept_by_redis(content) if content.exists() else set())
    return gone


def judge(
    site: Site, report: Report, acknowledged: list[str], gone: Found, *, durable: bool
) -> None:
    """Check that what Redis has not lost was run, and was counted exactly once."""
    runs = Counter(digest(encode_job("math", "note", [mark])) for mark in site.runs())
    _, done = found_in(site.redis)
    survivors = set(acknowledged) - gone
    lost, doubled = survivors - set(runs), {job for job, times in done.items() if times > 1}
    report.count("jobs", len(acknowledged))
    report.count("lost", len(lost))
    report.count("doubled", len(doubled))
    report.count("re-runs", runs.total() - len(runs))
    print(f"{len(acknowledged)} jobs, {len(gone)} lost by Redis, {runs.total() - len(runs)} re-run")

    assert len(acknowledged) == len(set(acknowledged))
    assert not lost
    assert not doubled
    assert set(done) == survivors
    assert site.count("processed") == len(survivors)
    assert site.failures() == []
    if durable:
        assert not gone
        assert runs.total() == len(runs), "a job ran twice though nothing was forgotten"


# -- a log that was cut ------------------------------------------------------------------------


class NotedLink(ToldLink):
    """A link that reports each thing it has asked."""

    note: Callable[[], None]

    def call(self, call: script.Call, *, armed: bool = False) -> Any:
        answer = super().call(call, armed=armed)
        self.note()
        return answer

    def command(self, *words: script.Scalar, armed: bool = False) -> Any:
        answer = super().command(*words, armed=armed)
        self.note()
        return answer


class NotedClient(ToldClient):
    """The same for producers."""

    note: Callable[[], None]

    def call(self, call: script.Call) -> Any:
        answer = super().call(call)
        self.note()
        return answer

    def command(self, *words: script.Scalar) -> Any:
        answer = super().command(*words)
        self.note()
        return answer


class NotedRedis(Redis):
    """The same for tests."""

    note: Callable[[], None]

    def execute_command(self, *args: Any, **options: Any) -> Any:
        answer = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        self.note()
        return answer


class Chronicle:
    """What Redis held after each script and command, by the length of its log at that time."""

    def __init__(self, server: Server, redis: Redis) -> None:
        (self.path,) = server.directory.glob(f"{LOG}/*.incr.aof")
        self.chapters: list[Chapter] = []
        self._redis: Any = redis
        self._brief = set[bytes]()  # keys that may run out before the test is over
        self._sizes, self._states = [0], list[Dump]([{}])

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def note(self) -> None:
        if self.size == self._sizes[-1]:
            return
        state = dump(self._redis)
        self._brief |= {key for key in state if 0 <= self._redis.ttl(key) <= 120}
        self._sizes.append(self.size)
        self._states.append(state)

    def write(self, call: Call, world: World) -> None:
        """Make one call in an empty world."""
        begins = self.size
        world.redis.flushall()
        assert world.registry.register(WORKER, OWNER, LEASE, now=NOW) is None
        needed = call.needs(world)
        asks = self.size
        call.ask(world, needed)
        self.chapters.append(Chapter(call.name, begins, asks, self.size))

    def check(self, size: int, what: str) -> None:
        """Fail unless Redis holds what it held when its log was so long, or last before that."""
        then = self._states[bisect_right(self._sizes, size) - 1]
        assert self._lasting(dump(self._redis)) == self._lasting(then), f"{what}, {size} bytes"

    def _lasting(self, state: Dump) -> Dump:
        return {key: value for key, value in state.items() if key not in self._brief}


@dataclass(frozen=True)
class Chapter:
    """Where in the log a call begins, with an empty world, where it asks, and where it ends."""

    name: str
    begins: int
    asks: int
    ends: int


def chronicle(server: Server, redis: Redis) -> Chronicle:
    """Make every call that writes, and note what it does."""
    told = Chronicle(server, redis)
    with ExitStack() as stack:
        target = Target(server.url)
        link = stack.enter_context(closing(NotedLink(target)))
        client = stack.enter_context(closing(NotedClient(target)))
        noted = stack.enter_context(closing(NotedRedis(unix_socket_path=str(server.socket))))
        link.note = client.note = noted.note = told.note
        registry, store, delayed = Registry(link, KEYS), Store(client, KEYS), Delayed(link, KEYS)
        for call in CALLS:
            claims = Claims(link, KEYS, WORKER, master=MASTER)
            claims.poll(WORKER.queues)
            if call.effect in (Effect.FREES, Effect.GROWS):
                told.write(call, World(noted, link, client, claims, registry, store, delayed))
    return told


@contextmanager
def logged(kind: str) -> Iterator[tuple[Server, Redis, Chronicle, bytes]]:
    """Yield a server with a log of everything, and the log."""
    args = ("--enable-debug-command", "local", "--auto-aof-rewrite-percentage", "0")
    with (
        Server(binaries()[kind], appendonly="always", args=args) as server,
        closing(server.client()) as redis,
    ):
        told = chronicle(server, redis)
        yield server, redis, told, told.path.read_bytes()


def replace(path: Path, log: bytes) -> None:
    """Put another log there; what the server still has to say goes to the old one."""
    other = path.with_suffix(".new")
    other.write_bytes(log)
    other.replace(path)


def reload(server: Server, redis: Any) -> None:
    """Have a server read its log as at a start, which takes no start where it survives that."""
    if server.binary.name == "valkey-server":
        with suppress(ResponseError):  # so it calls a log that was cut
            redis.execute_command("DEBUG", "LOADAOF")
    else:
        server.kill()
        server.restart()


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("every", sized(7_001, 499))
def test_a_start_from_a_log_that_was_cut_finds_each_script_wholly_or_not_at_all(
    report: Report, kind: str, every: int
) -> None:
    with logged(kind) as (server, _, told, log):
        for size in range(len(log), -1, -every):
            server.kill()
            replace(told.path, log[:size])
            server.restart()

            told.check(size, "a start")
            report.count("AOF cuts, started anew")


@pytest.mark.parametrize("every", sized(101, 1))
def test_a_script_whose_log_was_cut_at_any_byte_is_there_wholly_or_not_at_all(
    report: Report, every: int
) -> None:
    torn = 0
    with logged(SERVERS[0]) as (server, redis, told, log):
        for chapter in told.chapters:
            for size in range(chapter.ends, chapter.asks - 1, -every):
                kept = SELECT + log[chapter.begins : size].removeprefix(SELECT)
                replace(told.path, kept)
                reload(server, redis)

                told.check(size, chapter.name)
                torn += told.size < len(kept)  # the server drops what is not whole
                report.count("AOF cuts")
    assert torn > 0, "no cut went through a script"

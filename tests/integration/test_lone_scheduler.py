"""Scheduler: node-resque's, alone. It leads, tells, ends, and outlives what goes wrong."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis

from forkresque import Connection, QueueLock, Scheduler
from forkresque.errors import (
    BadKey,
    ConfigError,
    ForkresqueError,
    InvalidPayload,
    RedisRefused,
    RedisUnavailable,
)
from forkresque.events import SCHEDULER_EVENTS
from forkresque.protocol.delayed import Delayed
from forkresque.protocol.failure import parse_failure
from forkresque.protocol.foreign import NODE_TIMEOUT, cleaning_entry
from forkresque.protocol.keys import Keys
from forkresque.protocol.payload import encode_job
from forkresque.queue import Queue
from tests.support.proxy import Proxy
from tests.support.servers import HOST, Server
from tests.support.waiting import wait_until

KEYS = Keys("resque")
PAST = 1_000
NODE = "nodehost:42+1"  # a worker of node-resque
JOB = {"class": "x", "queue": "q", "args": [1]}
RAW = encode_job("q", "x", [1])

Event = tuple[Any, ...]
New = Callable[..., "Watched"]


class Watched:
    """A scheduler, and all that it tells."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.it = scheduler
        self.told: list[Event] = []
        for name in SCHEDULER_EVENTS:
            scheduler.on(name, self._listener(name))

    def _listener(self, name: str) -> Callable[..., None]:
        return lambda *args: self.told.append((name, *args))

    def names(self) -> list[str]:
        return [event[0] for event in self.told]

    def of(self, *names: str) -> list[Event]:
        return [event for event in self.told if event[0] in names]

    def errors(self) -> list[Any]:
        return [event[1] for event in self.of("error")]

    def await_told(self, name: str, number: int = 1) -> list[Event]:
        wait_until(lambda: len(self.of(name)) >= number, f"{number} of {name}: {self.told}")
        return self.of(name)


def ended(scheduler: Scheduler) -> None:
    assert scheduler.end(10.0), "it does not end"


@pytest.fixture
def new(one_server: Server) -> Iterator[New]:
    """Return what makes a scheduler, which is ended after the test."""
    with ExitStack() as stack:

        def new(url: object = None, **options: Any) -> Watched:
            connection: Any = url or one_server.url
            watched = Watched(Scheduler(connection, **options))
            stack.callback(ended, watched.it)
            return watched

        yield new


def delay(redis: Redis, *raws: bytes, second: int = PAST) -> None:
    redis.rpush(KEYS.delayed(second), *raws)
    redis.zadd(KEYS.schedule(), {str(second): second})


def queued(redis: Redis, queue: str = "q") -> Any:
    return redis.lrange(KEYS.queue(queue), 0, -1)


def node_worker(redis: Redis, ping: bytes, record: bytes = b"", name: str = NODE) -> None:
    redis.sadd(KEYS.workers(), f"{name}:q")
    redis.set(KEYS.ping(name), ping)
    if record:
        redis.set(KEYS.worker(f"{name}:q"), record)


# -- leading -------------------------------------------------------------------------------------


def test_it_tells_its_life_in_order(new: New, one_redis: Redis) -> None:
    delay(one_redis, RAW, RAW)
    delay(one_redis, RAW, second=PAST + 1)
    began = datetime.now(UTC)
    scheduler = new()

    scheduler.it.start()
    scheduler.await_told("transferred_job", 3)
    assert scheduler.it.leader
    assert scheduler.it.running
    assert scheduler.it.end() is True

    moved = [("transferred_job", second, JOB) for second in (PAST, PAST, PAST + 1)]
    assert scheduler.told[1:3] == [("leader",), ("poll",)]
    assert scheduler.told[3:8] == [
        ("working_timestamp", PAST),
        *moved[:2],
        ("working_timestamp", PAST + 1),
        moved[2],
    ]
    assert set(scheduler.names()[8:-1]) <= {"poll"}
    (_, started), (_, ended) = scheduler.told[0], scheduler.told[-1]
    assert (scheduler.names()[0], scheduler.names()[-1]) == ("start", "end")
    assert abs((started - began).total_seconds()) < 10
    assert started <= ended
    assert started.tzinfo is UTC
    assert queued(one_redis) == [RAW] * 3
    assert not one_redis.exists(*scheduler_locks())
    assert not scheduler.it.leader
    assert not scheduler.it.running


def scheduler_locks() -> list[bytes]:
    return [KEYS.leader(), KEYS.node_leader(), KEYS.node_master(), KEYS.ruby_master()]


def test_a_poll_needs_no_start_and_says_how_much_it_has_moved(new: New, one_redis: Redis) -> None:
    raws = [encode_job("q", "x", [number]) for number in range(250)]
    delay(one_redis, *raws)
    delay(one_redis, RAW, second=one_redis.time()[0] + 1000)
    scheduler = new()

    assert scheduler.it.poll() == 250
    assert scheduler.it.poll() == 0

    assert queued(one_redis) == raws
    assert scheduler.it.leader
    assert not scheduler.it.running
    assert len(scheduler.of("transferred_job")) == 250
    assert scheduler.of("working_timestamp", "leader") == [("leader",), ("working_timestamp", PAST)]
    assert scheduler.it.end() is True
    assert not one_redis.exists(*scheduler_locks())
    assert scheduler.names()[-1] == "end"


def test_it_hears_of_a_new_job_long_before_its_timeout(new: New, one_redis: Redis) -> None:
    scheduler = new(timeout=600, leader_lock_timeout=600)
    scheduler.it.start()
    scheduler.await_told("poll")

    delay(one_redis, RAW)

    scheduler.await_told("transferred_job")


def test_it_looks_all_the_same_where_redis_tells_nothing(new: New, one_server: Server) -> None:
    with closing(Proxy((HOST, one_server.port))) as proxy, closing(one_server.client()) as redis:
        proxy.answer(b"TRACKING", b"-ERR unknown subcommand\r\n", times=100)
        scheduler = new(proxy.url, timeout=0.05)
        scheduler.it.start()
        scheduler.await_told("poll")

        delay(redis, RAW)

        scheduler.await_told("transferred_job")
        assert scheduler.errors() == []


@pytest.mark.parametrize("tracking", [True, False])
def test_one_of_two_leads_and_the_other_follows_on(
    new: New, one_server: Server, one_redis: Redis, *, tracking: bool
) -> None:
    with closing(Proxy((HOST, one_server.port))) as proxy:
        if not tracking:
            proxy.answer(b"TRACKING", b"-ERR unknown subcommand\r\n", times=100)
        first, second = new(proxy.url, name="host:1"), new(proxy.url, name="host:1")
        first.it.start()
        first.await_told("leader")
        second.it.start()
        wait_until(lambda: second.it.poll() == 0, "a look of the second")
        assert (first.it.leader, second.it.leader) == (True, False)
        assert (first.it.name, second.it.name) == ("host:1", "host:1")
        assert one_redis.get(KEYS.node_leader()) == first.it.token.encode()
        assert first.it.token != second.it.token

        first.it.end()

        second.await_told("leader")
        assert (first.it.leader, second.it.leader) == (False, True)
        assert "poll" in second.names()
        delay(one_redis, RAW)
        second.await_told("transferred_job")


def test_who_follows_tells_nothing(new: New, one_redis: Redis) -> None:
    first, second = new(), new()
    first.it.poll()
    delay(one_redis, RAW)

    assert [second.it.poll() for _ in range(3)] == [0, 0, 0]

    assert second.told == []
    assert queued(one_redis) == []


@pytest.mark.parametrize("lock", scheduler_locks())
def test_it_is_no_leader_as_soon_as_a_lock_is_taken(
    new: New, one_redis: Redis, lock: bytes
) -> None:
    scheduler = new(timeout=600, leader_lock_timeout=600)
    scheduler.it.start()
    scheduler.await_told("poll")
    wait_until(lambda: scheduler.it.leader, "the lead")

    one_redis.set(lock, "stranger")

    wait_until(lambda: not scheduler.it.leader, "the end of the lead")
    one_redis.delete(lock)
    scheduler.await_told("leader", 2)
    assert scheduler.it.leader


def test_a_lock_that_is_freed_while_it_looks_is_not_waited_for(
    new: New, one_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_redis.set(KEYS.node_leader(), "stranger")
    holders = Delayed.holders

    def holders_now(self: Delayed) -> list[str]:
        one_redis.delete(KEYS.node_leader())  # after the lead was sought, and before Redis tells
        return holders(self)

    monkeypatch.setattr(Delayed, "holders", holders_now)
    scheduler = new()

    assert scheduler.it.poll() == 0
    assert scheduler.it.leader


def test_it_is_no_leader_when_its_term_has_passed_unrenewed(new: New, one_server: Server) -> None:
    with closing(Proxy((HOST, one_server.port))) as proxy:
        connection = Connection(proxy.url, timeout=30.0)
        scheduler = new(connection, leader_lock_timeout=1.0)
        scheduler.it.start()
        wait_until(lambda: scheduler.it.leader, "the lead")

        proxy.blackhole()

        wait_until(lambda: not scheduler.it.leader, "the end of the term", 5.0)
        assert scheduler.errors() == []  # its question has no answer yet
        proxy.heal()
        scheduler.await_told("leader", 2)


def test_no_hook_has_a_say_when_a_job_is_promoted(
    new: New, one_server: Server, one_redis: Redis
) -> None:
    jobs = {"x": {"perform": abs, "plugins": [QueueLock]}}
    queue = Queue(one_server.url, jobs)
    assert queue.enqueue("q", "x", [1])
    assert queue.enqueue("q", "x", [1]) is False  # its lock is taken
    queue.end()
    delay(one_redis, RAW)

    assert new(jobs=jobs).it.poll() == 1

    assert queued(one_redis) == [RAW, RAW]


def test_nothing_is_decoded_that_nobody_listens_to(
    one_server: Server, one_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    monkeypatch.setattr("forkresque.lookout.decoded", decoded.append)
    node_worker(one_redis, b"ping", b'{"queue":"q","payload":%b}' % RAW)
    delay(one_redis, RAW)
    scheduler = Scheduler(one_server.url, stuck_worker_timeout=0.1)

    assert scheduler.poll() == 1
    wait_until(lambda: scheduler.poll() or one_redis.llen(KEYS.failed()), "the worker's end")

    scheduler.end()
    assert decoded == []


# -- workers of node-resque ----------------------------------------------------------------------


def test_a_silent_worker_is_removed_and_its_job_fails(new: New, one_redis: Redis) -> None:
    node_worker(one_redis, b"ping 1", b'{"queue":"q","payload":%b,"worker":"w"}' % RAW)
    node_worker(one_redis, b"ping 1", name="nodehost:43")
    node_worker(one_redis, b"ping 1", name="nodehost:44")
    scheduler = new(stuck_worker_timeout=timedelta(seconds=0.4))
    pings = iter(range(10_000))

    scheduler.it.poll()
    assert scheduler.of("clean_stuck_worker") == []  # nobody is judged at first sight

    def look() -> bool:
        one_redis.set(KEYS.ping("nodehost:44"), f"ping {next(pings)}")
        scheduler.it.poll()
        return len(scheduler.of("clean_stuck_worker")) == 2

    wait_until(look, "both silent workers")
    told = {event[1]: event[2:] for event in scheduler.of("clean_stuck_worker")}
    assert set(told) == {NODE, "nodehost:43"}
    failure, seconds = told[NODE]
    assert (failure["worker"], failure["queue"], failure["payload"]) == (NODE, "q", JOB)
    assert failure["error"] == failure["exception"] == NODE_TIMEOUT
    assert told["nodehost:43"][0] is None
    assert 0.4 <= seconds < 60
    assert one_redis.smembers(KEYS.workers()) == {b"nodehost:44:q"}
    entries: Any = one_redis.lrange(KEYS.failed(), 0, -1)
    assert [parse_failure(entry).payload for entry in entries] == [RAW]


def looks_at_workers(redis: Redis) -> int:
    stats: Any = redis.info("commandstats")
    return int(stats.get("cmdstat_smembers", {"calls": 0})["calls"])


@pytest.mark.parametrize("never", [0, None, False, timedelta()])
def test_without_a_timeout_nobody_is_looked_at(new: New, one_redis: Redis, never: Any) -> None:
    scheduler, watching = new(stuck_worker_timeout=never), new()
    before = looks_at_workers(one_redis)

    scheduler.it.poll()
    scheduler.it.end()
    assert looks_at_workers(one_redis) == before
    watching.it.poll()
    assert looks_at_workers(one_redis) == before + 1


@pytest.mark.parametrize("silence", [0.4, None])
def test_stuck_jobs_are_put_back_when_that_is_wanted(
    new: New, one_redis: Redis, silence: float | None
) -> None:
    raws = [encode_job("q", "x", [number]) for number in range(250)]
    one_redis.rpush(KEYS.failed(), *(stuck(raw) for raw in raws), "junk")

    assert new(stuck_worker_timeout=silence).it.poll() == 0
    assert one_redis.llen(KEYS.failed()) == 251  # nobody has asked for it
    one_redis.delete(*scheduler_locks())

    scheduler = new(stuck_worker_timeout=silence, retry_stuck_jobs=True).it
    scheduler.poll()
    assert queued(one_redis) == raws[:100]  # what is due comes before the rest of them
    scheduler.poll()
    scheduler.poll()
    assert queued(one_redis) == raws
    assert one_redis.lrange(KEYS.failed(), 0, -1) == [b"junk"]


def stuck(raw: bytes) -> bytes:
    record = b'{"queue":"q","payload":%b}' % raw
    return cleaning_entry(record, NODE, host="h", failed_at=PAST)


def test_a_silent_workers_job_is_put_back_by_the_same_look(new: New, one_redis: Redis) -> None:
    node_worker(one_redis, b"ping", b'{"queue":"q","payload":%b}' % RAW)
    scheduler = new(stuck_worker_timeout=0.2, retry_stuck_jobs=True)

    wait_until(lambda: scheduler.it.poll() or scheduler.of("clean_stuck_worker"), "its end")

    assert queued(one_redis) == [RAW]
    assert not one_redis.exists(KEYS.failed())


def test_a_follower_removes_nobody(new: New, one_redis: Redis) -> None:
    node_worker(one_redis, b"ping 1")
    first, second = new(stuck_worker_timeout=None), new(stuck_worker_timeout=0.1)
    first.it.poll()
    since = time.monotonic()

    wait_until(lambda: second.it.poll() or time.monotonic() > since + 0.5, "some looks")

    assert one_redis.smembers(KEYS.workers()) == {f"{NODE}:q".encode()}


# -- what goes wrong -----------------------------------------------------------------------------


def spoil_ping(redis: Redis) -> None:
    for number, ping in enumerate((b"", b"junk", b"{}", b'{"time":"x"}', b"\xff", b"null")):
        node_worker(redis, ping, b"\xff{", name=f"nodehost:{number}")
    redis.sadd(KEYS.workers(), b"", b"\xff", "odd", "nodehost:50:q", "nodehost:51:q")
    redis.rpush(KEYS.ping("nodehost:50"), "a list")
    node_worker(redis, b"ping", name="nodehost:51")
    redis.delete(KEYS.worker("nodehost:51:q"))
    redis.rpush(KEYS.worker("nodehost:51:q"), "a list")


def test_signs_of_life_that_are_none_stop_nothing(new: New, one_redis: Redis) -> None:
    spoil_ping(one_redis)
    scheduler = new(stuck_worker_timeout=0.1)
    scheduler.it.start()
    scheduler.await_told("clean_stuck_worker", 6)

    delay(one_redis, RAW)

    scheduler.await_told("transferred_job")
    assert scheduler.errors() == []
    failures = [event[2] for event in scheduler.of("clean_stuck_worker")]
    assert sum(failure is None for failure in failures) == 1


BAD_JOBS = (b"junk", b"null", b'{"class":"x"}', b"\xff", b"", b"[" * 50_000)


def test_delayed_jobs_that_are_none_fail_and_are_told_of(new: New, one_redis: Redis) -> None:
    delay(one_redis, *BAD_JOBS, RAW)
    one_redis.zadd(KEYS.schedule(), {"soon": 1, "1.5": 2})
    scheduler = new()

    assert scheduler.it.poll() == len(BAD_JOBS) + 1

    assert [type(error) for error in scheduler.errors()] == [InvalidPayload] * len(BAD_JOBS)
    assert str(scheduler.errors()[2]) == (
        "what was due at 1000 is in the failed list: a delayed job that names no queue"
    )
    assert scheduler.of("transferred_job") == [("transferred_job", PAST, JOB)]
    entries: Any = one_redis.lrange(KEYS.failed(), 0, -1)
    assert [parse_failure(entry).payload for entry in entries] == list(BAD_JOBS)


def test_a_queue_of_another_type_fails_its_jobs_alone(new: New, one_redis: Redis) -> None:
    one_redis.set(KEYS.queue("odd"), "text")
    delay(one_redis, RAW, encode_job("odd", "x", []), RAW)
    scheduler = new()

    assert scheduler.it.poll() == 3

    assert [type(error) for error in scheduler.errors()] == [BadKey]
    assert len(scheduler.of("transferred_job")) == 2


@pytest.mark.parametrize(
    "key",
    [KEYS.schedule(), KEYS.failed(), KEYS.delayed(PAST), *scheduler_locks()],
    ids=["schedule", "failed", "bucket", "our lock", "node's lock", "older node's", "Ruby's"],
)
def test_a_key_of_another_type_stops_it_only_while_it_is_there(
    new: New, one_redis: Redis, key: bytes
) -> None:
    one_redis.hset(key, "another", "type")
    scheduler = new(timeout=0.1)
    scheduler.it.start()
    wait_until(lambda: scheduler.it.poll() == 0, "a look")
    if key in (KEYS.schedule(), KEYS.leader()):
        assert isinstance(scheduler.await_told("error", 2)[0][1], RedisRefused)

    one_redis.delete(key)
    delay(one_redis, RAW)

    scheduler.await_told("transferred_job")
    assert queued(one_redis) == [RAW]


def test_a_registry_of_another_type_stops_no_promotion(new: New, one_redis: Redis) -> None:
    one_redis.set(KEYS.workers(), "text")
    scheduler = new(stuck_worker_timeout=0.1)
    scheduler.it.start()
    scheduler.await_told("error", 2)

    delay(one_redis, RAW)

    scheduler.await_told("transferred_job")
    assert {type(error) for error in scheduler.errors()} == {BadKey}


def test_a_failed_list_of_another_type_keeps_the_jobs_of_the_silent(
    new: New, one_redis: Redis
) -> None:
    record = b'{"queue":"q","payload":%b}' % RAW
    node_worker(one_redis, b"ping", record)
    node_worker(one_redis, b"ping", name="nodehost:43")
    one_redis.set(KEYS.failed(), "text")
    scheduler = new(stuck_worker_timeout=0.1)
    scheduler.it.start()

    scheduler.await_told("error")
    assert scheduler.await_told("clean_stuck_worker")[0][1] == "nodehost:43"
    assert one_redis.get(KEYS.worker(f"{NODE}:q")) == record

    one_redis.delete(KEYS.failed())
    assert scheduler.await_told("clean_stuck_worker", 2)[1][1] == NODE


@pytest.mark.parametrize("trouble", ["cut", "dropped answers", "refusals"])
def test_redis_may_go_away_and_come_back(
    new: New, one_server: Server, one_redis: Redis, trouble: str
) -> None:
    with closing(Proxy((HOST, one_server.port))) as proxy:
        scheduler = new(proxy.url, timeout=0.1)
        scheduler.it.start()
        scheduler.await_told("leader")
        if trouble == "cut":
            proxy.cut()
        elif trouble == "dropped answers":
            proxy.drop_reply(b"ZRANGEBYSCORE", times=3)
            scheduler.await_told("error", 3)
        else:
            proxy.answer(b"ZRANGEBYSCORE", b"-NOPERM no such right\r\n", times=3)
            scheduler.await_told("error", 3)

        delay(one_redis, RAW)

        scheduler.await_told("transferred_job")
        assert scheduler.it.leader
        kind = RedisRefused if trouble == "refusals" else RedisUnavailable
        assert {type(error) for error in scheduler.errors()} <= {kind}


def test_a_redis_that_is_not_there_is_waited_for(new: New) -> None:
    with closing(Proxy((HOST, 1))) as nowhere:
        scheduler = new(nowhere.url)
        assert scheduler.it.poll() == 0
        scheduler.it.start()
        errors = scheduler.await_told("error", 3)

        assert {type(error) for _, error in errors} == {RedisUnavailable}
        with pytest.raises(RedisUnavailable):
            scheduler.it.connect()
        assert scheduler.it.end(10.0) is True


def test_what_nobody_has_thought_of_is_told_and_tried_again(
    new: New, one_redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    delay(one_redis, RAW)
    surprises = [ZeroDivisionError("surprise"), ZeroDivisionError("surprise")]

    def due(self: Any) -> Iterator[list[int]]:
        if surprises:
            raise surprises.pop()
        yield [PAST]

    monkeypatch.setattr("forkresque.protocol.delayed.Delayed.due", due)
    scheduler = new()
    with caplog.at_level(logging.WARNING, "forkresque.scheduler"):
        scheduler.it.start()
        scheduler.await_told("transferred_job")

    assert [type(error) for error in scheduler.errors()] == [ZeroDivisionError] * 2
    (record,) = caplog.records
    assert record.exc_info is not None


def test_a_listener_that_fails_stops_nothing(new: New, one_redis: Redis) -> None:
    def fail(*_args: object) -> None:
        raise ValueError("bad")

    delay(one_redis, RAW, RAW)
    scheduler = new()
    for name in SCHEDULER_EVENTS:
        scheduler.it.on(name, fail)

    assert scheduler.it.poll() == 2
    assert len(scheduler.of("transferred_job")) == 2


# -- the end -------------------------------------------------------------------------------------


def test_the_end_comes_though_redis_is_silent(new: New, one_server: Server) -> None:
    with closing(Proxy((HOST, one_server.port))) as proxy:
        scheduler = new(Connection(proxy.url, timeout=0.3), timeout=0.1)
        scheduler.it.start()
        scheduler.await_told("leader")
        proxy.blackhole()
        scheduler.await_told("error", 1)

        assert scheduler.it.end() is True
        assert not scheduler.it.leader
        assert scheduler.names()[-1] == "end"


def test_the_end_does_not_wait_for_a_listener_longer_than_it_is_told_to(
    new: New, one_redis: Redis
) -> None:
    begun, release = threading.Event(), threading.Event()

    def listen(*_args: object) -> None:
        begun.set()
        release.wait(15.0)

    delay(one_redis, RAW)
    scheduler = new()
    scheduler.it.on("transferred_job", listen)
    scheduler.it.start()
    assert begun.wait(5.0)

    assert scheduler.it.end(0.05) is False
    assert scheduler.it.end(timedelta(seconds=0.05)) is False
    assert not scheduler.it.leader
    release.set()
    assert scheduler.it.end() is True
    assert scheduler.names().count("end") == 1


@pytest.mark.parametrize("runs", [True, False])
def test_a_listener_may_end_it_and_ask_for_a_look(
    new: New, one_redis: Redis, *, runs: bool
) -> None:
    answers: list[object] = []
    raws = [encode_job("q", "x", [number]) for number in range(250)]
    delay(one_redis, *raws)
    scheduler = new()

    @scheduler.it.on("working_timestamp")
    def listen(_second: int) -> None:
        answers.extend((scheduler.it.poll(), scheduler.it.end()))

    if runs:
        scheduler.it.run()
    else:
        assert scheduler.it.poll() == 100

    assert answers == [0, False]
    assert scheduler.names()[-1] == "end"
    assert len(scheduler.of("transferred_job")) == 100  # the rest is for the next leader
    assert queued(one_redis) == raws[:100]
    assert not one_redis.exists(*scheduler_locks())
    assert scheduler.it.end() is True


def test_the_end_may_come_before_anything_else(new: New, one_redis: Redis) -> None:
    scheduler = new()

    assert scheduler.it.end() is True
    assert scheduler.it.end() is True
    scheduler.it.run()
    assert scheduler.it.poll() == 0

    assert scheduler.names() == ["end"]
    assert one_redis.keys() == []
    with pytest.raises(ConfigError, match="this scheduler has ended"):
        scheduler.it.start()


def test_the_end_may_come_right_after_the_start(new: New, one_redis: Redis) -> None:
    for _ in range(20):
        scheduler = new()
        scheduler.it.start()
        assert scheduler.it.end() is True
        assert scheduler.names()[-1] == "end"
    assert not one_redis.exists(*scheduler_locks())


def test_it_runs_once_at_a_time(new: New) -> None:
    scheduler = new()
    scheduler.it.start()

    for again in (scheduler.it.start, scheduler.it.run):
        with pytest.raises(ConfigError, match="this scheduler runs already"):
            again()


def test_it_looks_from_any_number_of_threads(new: New, one_redis: Redis) -> None:
    raws = [encode_job("q", "x", [number]) for number in range(500)]
    for number, raw in enumerate(raws):
        delay(one_redis, raw, second=PAST + number)
    scheduler = new()
    scheduler.it.start()
    threads = [threading.Thread(target=scheduler.it.poll) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)

    scheduler.await_told("transferred_job", len(raws))
    assert queued(one_redis) == raws
    assert scheduler.errors() == []


def test_it_is_a_context_manager(one_server: Server, one_redis: Redis) -> None:
    with Scheduler({"url": one_server.url, "namespace": "other"}) as scheduler:
        wait_until(lambda: scheduler.leader, "the lead")
        assert one_redis.exists(Keys("other").leader())
    assert not scheduler.running
    assert not one_redis.exists(Keys("other").leader())


def test_a_context_needs_a_redis() -> None:
    with (
        closing(Proxy((HOST, 1))) as nowhere,
        pytest.raises(RedisUnavailable),
        Scheduler(nowhere.url),
    ):
        raise AssertionError("it has begun")


# -- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "timeout must be at least 0.01 seconds, got 0"),
        ({"timeout": float("nan")}, "timeout must be seconds or a timedelta, got nan"),
        ({"timeout": "soon"}, "timeout must be seconds or a timedelta, got 'soon'"),
        ({"timeout": None}, "timeout must be seconds or a timedelta, got None"),
        ({"leader_lock_timeout": 0.5}, "leader_lock_timeout must be at least 1 seconds, got 0.5"),
        ({"stuck_worker_timeout": -1}, "stuck_worker_timeout must be at least 0.1 seconds, got -1"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Scheduler("redis://localhost", **options)

    assert str(caught.value) == message


def test_an_event_it_does_not_tell_is_refused() -> None:
    scheduler = Scheduler("redis://localhost")
    told: list[object] = []

    scheduler.on("workingTimestamp", told.append)
    with pytest.raises(ForkresqueError, match="there is no event 'job'"):
        scheduler.on("job", told.append)

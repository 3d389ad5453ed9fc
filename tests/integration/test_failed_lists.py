"""Failed jobs in one list for all, or in one for each queue: who writes where, and who finds them.

The names are those of Ruby's Resque::Failure::RedisMultiQueue.
"""

from collections.abc import Iterator
from contextlib import closing

import pytest
from redis import Redis

from forkresque import BadKey, ConfigError, Connection, Forkresque, InvalidArgs, NotFailed, Queue
from forkresque.protocol.claims import Claims, Outcome
from forkresque.protocol.delayed import Delayed
from forkresque.protocol.failure import Failure, failure_entry, parse_failure
from forkresque.protocol.failures import PAGE
from forkresque.protocol.foreign import cleaning_entry
from forkresque.protocol.keys import Keys
from forkresque.protocol.payload import ping
from forkresque.protocol.registry import Cleaning, Recovery, Registry, Sign, Verdict
from forkresque.protocol.store import Requests
from tests.support import transcripts
from tests.support.servers import Server
from tests.support.world import (
    KEYS,
    MASTER,
    NOW,
    PAST,
    RAW,
    T2,
    WID,
    WORKER,
    World,
    dump,
    entry_of,
    open_world,
    places,
    spoil,
)

BY_QUEUE = Keys("resque", failed_by_queue=True)
ALL, HIGH, LISTS = b"resque:failed", b"resque:high_failed", b"resque:failed_queues"
ENTRY = entry_of(RAW)
NODE, NODE_SIGN = "node:9:*", ping("node:9", "*", 1)
NODE_RECORD = b'{"run_at":"","queue":"high","payload":%b,"worker":"node:9"}' % RAW


@pytest.fixture
def world(server: Server, redis: Redis) -> Iterator[World]:
    """Return a world in which each queue has its failed list."""
    for world in open_world(server, redis):
        world.claims = Claims(world.link, BY_QUEUE, WORKER, master=MASTER)
        world.claims.poll(WORKER.queues)
        world.registry = Registry(world.link, BY_QUEUE)
        world.delayed = Delayed(world.link, BY_QUEUE)
        yield world


@pytest.fixture
def one(one_server: Server) -> Iterator[Queue]:
    """Return the queues of a namespace with one failed list for all."""
    queue = Queue(one_server.url)
    with closing(queue.store.client):
        yield queue


@pytest.fixture
def many(one_server: Server) -> Iterator[Queue]:
    """Return the queues of a namespace with a failed list for each."""
    queue = Queue(Connection(one_server.url, failure_backend="redis_multi_queue"))
    with closing(queue.store.client):
        yield queue


def failed(error: str, *, queue: str = "high", raw: bytes = RAW) -> bytes:
    return failure_entry(
        raw=raw,
        exception="Oops",
        error=error,
        backtrace=[],
        worker=WID,
        queue=queue,
        failed_at=NOW,
    )


def fail(redis: Redis, *entries: bytes, to: bytes = ALL) -> None:
    """Record failures as a Resque does that keeps them in the list `to`."""
    redis.rpush(to, *entries)
    if to != ALL:
        redis.sadd(LISTS, to.removeprefix(b"resque:"))


def errors(failures: list[Failure]) -> list[str]:
    return [failure.error for failure in failures]


# -- which list --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("queue", "key", "name"),
    [
        ("math", b"resque:math_failed", "math_failed"),
        ("math:low", b"resque:math:low_failed", "math:low_failed"),
        ("", b"resque:failed", "failed"),
        ("queue:math", b"resque:failed", "failed"),  # else among the jobs of queue math_failed
    ],
)
def test_each_queue_has_a_failed_list_of_its_own(queue: str, key: bytes, name: str) -> None:
    assert (BY_QUEUE.failed(queue), BY_QUEUE.failed_name(queue)) == (key, name)
    assert (KEYS.failed(queue), KEYS.failed_name(queue)) == (b"resque:failed", "")


def test_a_backend_that_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="got 'airbrake'"):
        Connection(failure_backend="airbrake")
    with pytest.raises(ConfigError, match=r"redis\|redis_multi_queue, got 'airbrake'"):
        Forkresque(failure_backend="airbrake")
    monkeypatch.setenv("FAILURE_BACKEND", "multiple")
    with pytest.raises(ConfigError, match=r"FAILURE_BACKEND must be .*, got 'multiple'"):
        Forkresque()


def test_rubys_variable_says_where_failures_go(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FAILURE_BACKEND", "FORKRESQUE_FAILURE_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    assert not Forkresque().connection.keys.failed_by_queue

    monkeypatch.setenv("FAILURE_BACKEND", "redis_multi_queue")
    assert Forkresque().connection.keys.failed_by_queue

    monkeypatch.setenv("FORKRESQUE_FAILURE_BACKEND", "redis")
    assert not Forkresque().connection.keys.failed_by_queue
    assert Forkresque(failure_backend="redis_multi_queue").queue.store.keys.failed_by_queue


# -- who writes --------------------------------------------------------------------------------


def test_a_job_that_fails_goes_to_the_list_of_its_queue(world: World) -> None:
    world.push(RAW, RAW)

    settled = world.settle(world.claimed(), Outcome.FAIL, T2, entry=ENTRY)

    assert world.list(HIGH) == [ENTRY]
    assert world.redis.smembers(LISTS) == {b"high_failed"}
    assert not world.redis.exists(ALL)
    assert settled.next == world.claimed(T2)
    before = dump(world.redis)
    assert world.link.again()
    assert dump(world.redis) == before


def test_a_job_that_fails_with_a_lock_goes_there_too_and_frees_it(world: World) -> None:
    world.push(RAW)
    held = world.claimed()
    assert world.claims.take_lock(held, b"resque:lock:x", 60, now=NOW)

    world.settle(held, Outcome.FAIL, entry=ENTRY, forget=[b"resque:counter"])

    assert world.list(HIGH) == [ENTRY]
    assert not world.redis.exists(b"resque:lock:x")


@pytest.mark.parametrize("outcome", [each for each in Outcome if each is not Outcome.FAIL])
def test_no_other_outcome_touches_a_failed_list(world: World, outcome: Outcome) -> None:
    world.push(RAW)

    world.settle(world.claimed(), outcome, due=PAST)

    assert not world.redis.exists(HIGH, ALL, LISTS)


@pytest.mark.parametrize("fail", [True, False])
def test_a_recovered_job_fails_into_the_list_of_its_queue(world: World, *, fail: bool) -> None:
    world.push(RAW)
    world.claimed()
    verdict = Verdict("digest", limit=1, fail=fail, poison=ENTRY, entry=ENTRY)

    recovered = world.registry.recover(world.held(), verdict)

    assert recovered is (Recovery.FAILED if fail else Recovery.POISON)
    assert world.list(HIGH) == [ENTRY]
    assert world.redis.smembers(LISTS) == {b"high_failed"}
    assert not world.redis.exists(ALL)


def test_a_job_of_a_silent_node_worker_fails_into_the_list_of_its_queue(world: World) -> None:
    world.lead()
    world.redis.sadd(KEYS.workers(), NODE)
    world.redis.set(KEYS.ping("node:9"), NODE_SIGN)
    world.redis.set(KEYS.worker(NODE), NODE_RECORD)
    entry = cleaning_entry(NODE_RECORD, "node:9", host="h", failed_at=NOW)

    cleaning = world.registry.clean_foreign(NODE, Sign(NODE_SIGN, NODE_RECORD), entry, token="us")

    assert cleaning is Cleaning.CLEANED
    assert world.list(HIGH) == [entry]
    assert world.redis.smembers(LISTS) == {b"high_failed"}


def test_a_delayed_item_fails_into_the_list_of_its_queue_or_else_of_all(world: World) -> None:
    for raw in (b"junk", RAW):
        world.store.enqueue_at(PAST, raw, request=Requests().next())
    spoil(world.redis, KEYS.queue("high"))
    world.lead()

    result = world.delayed.promote(world.delayed.batch([PAST])[0], token="us")

    assert (result.moved, result.left) == (2, 0)
    assert [parse_failure(entry).payload for entry in world.list(ALL)] == [b"junk"]
    assert [parse_failure(entry).payload for entry in world.list(HIGH)] == [RAW]
    assert world.redis.smembers(LISTS) == {b"failed", b"high_failed"}
    assert world.redis.get(KEYS.stat("failed")) == b"2"


@pytest.mark.parametrize("key", [HIGH, LISTS])
def test_a_failure_that_cannot_be_recorded_stays_in_the_slot(world: World, key: bytes) -> None:
    world.push(RAW)
    held = world.claimed()
    spoil(world.redis, key)
    before = dump(world.redis)
    verdict = Verdict("", limit=1, fail=True, poison=b"", entry=ENTRY)

    with pytest.raises(BadKey):
        world.settle(held, Outcome.FAIL, T2, entry=ENTRY)
    with pytest.raises(BadKey):
        world.registry.recover(world.held(), verdict)

    assert dump(world.redis) == before
    world.redis.delete(key)
    assert not world.settle(held, Outcome.FAIL, entry=ENTRY).lost
    assert places(world.redis, RAW) == [HIGH]


@pytest.mark.parametrize("key", [ALL, LISTS])
def test_a_delayed_item_that_cannot_be_recorded_stays_delayed(world: World, key: bytes) -> None:
    world.store.enqueue_at(PAST, b"junk", request=Requests().next())
    world.lead()
    spoil(world.redis, key)
    before = dump(world.redis)

    result = world.delayed.promote(world.delayed.batch([PAST])[0], token="us")

    assert list(result.troubles) == [PAST]
    assert dump(world.redis) == before


@pytest.mark.parametrize("to", [ALL, HIGH])
def test_what_a_foreign_tool_has_failed_is_seen_in_both_lists(world: World, to: bytes) -> None:
    world.push(RAW)
    world.claimed()
    entry = transcripts.ruby_unregister(world.link, WID)
    assert entry is not None
    world.redis.delete(ALL)
    fail(world.redis, entry, to=to)

    assert world.held().foreign


# -- who looks ---------------------------------------------------------------------------------


def test_all_lists_are_counted_and_read_one_behind_the_other(many: Queue, one_redis: Redis) -> None:
    fail(one_redis, failed("a1"), failed("a2"), to=b"resque:a_failed")
    fail(one_redis, failed("b1"), to=b"resque:b_failed")
    fail(one_redis, failed("none"))
    one_redis.sadd(LISTS, "gone_failed")

    whole = ["none", "a1", "a2", "b1"]

    assert many.failed_count() == 4
    assert (many.failed_count("a"), many.failed_count("gone"), many.failed_count("x")) == (2, 0, 0)
    assert errors(many.failed(queue="a")) == ["a1", "a2"]
    assert errors(many.failed(-1, -1, queue="a")) == ["a2"]
    for start in range(-5, 6):
        for stop in range(-5, 6):
            fail(one_redis, *[error.encode() for error in whole], to=b"resque:same")
            expected = one_redis.lrange("resque:same", start, stop)
            one_redis.delete("resque:same")
            found = [error.encode() for error in errors(many.failed(start, stop))]
            assert found == expected, (start, stop)


def test_the_failures_of_one_queue_are_searched_in_a_list_for_all(
    one: Queue, one_redis: Redis
) -> None:
    numbers = range(2 * PAGE)
    fail(one_redis, *(failed(str(n), queue="even" if n % 2 == 0 else "odd") for n in numbers))

    assert one.failed_count() == len(numbers)
    assert one.failed_count("odd") == PAGE
    assert errors(one.failed(0, 1, queue="odd")) == ["1", "3"]
    assert errors(one.failed(-2, -1, queue="odd")) == [str(numbers[-3]), str(numbers[-1])]
    assert len(one.failed(queue="even")) == PAGE
    assert one.failed(5, 2, queue="even") == one.failed(queue="none") == []


def test_a_list_for_all_is_all_that_is_read_where_there_is_one(
    one: Queue, one_redis: Redis
) -> None:
    fail(one_redis, failed("all"))
    fail(one_redis, failed("high"), to=HIGH)

    assert errors(one.failed()) == ["all"]
    assert one.failed_count() == 1


def test_what_the_set_of_lists_should_not_hold_is_no_failed_list(
    many: Queue, one_redis: Redis
) -> None:
    """Whoever can write to the set must not make jobs look like failures, to be removed."""
    one_redis.rpush("resque:queue:x_failed", RAW)
    one_redis.set("resque:odd_failed", "a string")
    one_redis.sadd(LISTS, "queue:x_failed", "queues", "odd_failed", "", b"\xff_failed")
    fail(one_redis, failed("all"))

    assert many.failures.lists() == [ALL, b"resque:odd_failed", b"resque:\xff_failed"]
    assert (many.failed_count(), errors(many.failed())) == (1, ["all"])
    assert not many.remove_failed(parse_failure(RAW))


# -- who changes -------------------------------------------------------------------------------


@pytest.mark.parametrize("to", [HIGH, ALL, b"resque:elsewhere_failed"])
def test_a_failed_job_is_found_in_whichever_list_it_is(
    many: Queue, one_redis: Redis, to: bytes
) -> None:
    fail(one_redis, failed("first"), failed("second"), failed("third"), to=to)
    first, second, third = many.failed()

    assert many.remove_failed(second)
    assert not many.remove_failed(second)
    assert many.retry_failed(third)
    assert not many.retry_failed(third)
    assert many.retry_and_remove_failed(first)

    assert one_redis.lrange(KEYS.queue("high"), 0, -1) == [RAW, RAW]
    assert one_redis.smembers(KEYS.queues()) == {b"high"}
    assert not one_redis.exists(to)


def test_a_record_that_stands_in_two_lists_is_taken_from_one(many: Queue, one_redis: Redis) -> None:
    fail(one_redis, ENTRY)
    fail(one_redis, ENTRY, to=HIGH)

    assert many.retry_failed(parse_failure(ENTRY))

    assert (one_redis.llen(HIGH), one_redis.llen(ALL)) == (0, 1)
    assert one_redis.lrange(KEYS.queue("high"), 0, -1) == [RAW]


def test_a_failed_job_that_is_gone_is_not_put_back(one: Queue, one_redis: Redis) -> None:
    fail(one_redis, failed("kept"))

    with pytest.raises(NotFailed, match=r"^This job is not in failed queue$"):
        one.retry_and_remove_failed(parse_failure(ENTRY))

    assert not one_redis.exists(KEYS.queue("high"))
    assert one.failed_count() == 1


def test_a_failed_job_goes_back_to_the_tail_with_its_bytes_unchanged(
    one: Queue, one_redis: Redis
) -> None:
    one_redis.rpush(KEYS.queue("high"), b"waiting")
    fail(one_redis, ENTRY)
    (failure,) = one.failed()

    assert one.retry_and_remove_failed(failure)

    assert one_redis.lrange(KEYS.queue("high"), 0, -1) == [b"waiting", RAW]
    assert one.failed_count() == 0


def test_a_failed_job_without_a_queue_is_refused_before_it_moves(
    one: Queue, one_redis: Redis
) -> None:
    fail(one_redis, failed("lost", queue=""))
    (failure,) = one.failed()

    with pytest.raises(InvalidArgs, match="no readable payload or no queue"):
        one.retry_and_remove_failed(failure)

    assert one.failed_count() == 1

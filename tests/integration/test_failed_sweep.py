"""Many failed jobs at once: none is lost, none doubled, and nobody's record goes unasked."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from redis import Redis

from forkresque import Queue
from forkresque.protocol.connection import Client, Target
from forkresque.protocol.failure import Failure, failure_entry, parse_failure
from forkresque.protocol.script import Call, load
from forkresque.protocol.sweep import PORTION
from tests.support.connections import Over
from tests.support.servers import Server
from tests.support.world import KEYS

FAILED = KEYS.failed()
NUMBER = 3 * PORTION


def job(number: int) -> bytes:
    return b'{"class":"add","args":[%d]}' % number


def record(number: int, queue: str = "math") -> bytes:
    return failure_entry(
        raw=job(number),
        exception="ValueError",
        error="no",
        backtrace=[],
        worker="host:1:math",
        queue=queue,
        failed_at=1_795_000_000,
    )


RECORDS = [record(number) for number in range(NUMBER)]
ODD = [parse_failure(entry) for entry in RECORDS[1::2]]


class Interrupted(Client):
    """A client before each of whose scripts that take something else happens."""

    def __init__(self, target: Target, act: Callable[[], object]) -> None:
        super().__init__(target)
        self._act = act

    def call(self, call: Call) -> Any:
        if load("take_failed").digest.encode() in call.digest_head:
            self._act()
        return super().call(call)


@pytest.fixture
def queue(one_server: Server) -> Iterator[Queue]:
    queue = Queue(one_server.url)
    yield queue
    queue.end()


def taken(portions: Iterator[list[bytes]]) -> list[bytes]:
    return [entry for portion in portions for entry in portion]


def test_those_that_were_asked_for_go_back_in_their_order(one_redis: Redis, queue: Queue) -> None:
    one_redis.rpush(FAILED, *RECORDS)

    assert taken(queue.retry_each(ODD)) == RECORDS[1::2]

    assert one_redis.lrange(KEYS.queue("math"), 0, -1) == [job(n) for n in range(1, NUMBER, 2)]
    assert one_redis.lrange(FAILED, 0, -1) == RECORDS[::2]
    assert one_redis.smembers(KEYS.queues()) == {b"math"}


def test_each_goes_to_its_own_queue_or_to_the_one_that_is_named(
    one_redis: Redis, queue: Queue
) -> None:
    entries = [record(0, "a"), record(1, "b"), record(2, "a")]
    one_redis.rpush(FAILED, *entries)

    assert len(taken(queue.retry_each(map(parse_failure, entries[:2])))) == 2
    assert len(taken(queue.retry_each([parse_failure(entries[2])], queue="c"))) == 1

    assert [one_redis.lrange(KEYS.queue(name), 0, -1) for name in "abc"] == [
        [job(number)] for number in range(3)
    ]


def test_what_is_removed_is_put_back_nowhere(one_redis: Redis, queue: Queue) -> None:
    one_redis.rpush(FAILED, *RECORDS)

    assert taken(queue.remove_each(ODD)) == RECORDS[1::2]

    assert one_redis.lrange(FAILED, 0, -1) == RECORDS[::2]
    assert not one_redis.exists(KEYS.queue("math"))


def test_of_equal_records_as_many_are_taken_as_were_asked_for(
    one_redis: Redis, queue: Queue
) -> None:
    one_redis.rpush(FAILED, *[record(7)] * 3)

    assert taken(queue.retry_each([parse_failure(record(7))] * 2)) == [record(7)] * 2

    assert one_redis.llen(FAILED) == 1
    assert one_redis.lrange(KEYS.queue("math"), 0, -1) == [job(7)] * 2


@pytest.mark.parametrize("gone", [1, 40, PORTION + 1])
def test_what_others_remove_meanwhile_makes_nothing_be_passed_over(
    one_server: Server, one_redis: Redis, gone: int
) -> None:
    """The others begin at the head, as who goes through all of them does."""
    one_redis.rpush(FAILED, *RECORDS)
    others: list[bytes] = []

    def remove() -> None:
        one_redis.rpush(FAILED, record(NUMBER + len(others)))
        if len(others) < 2 * gone:
            popped: Any = one_redis.lpop(FAILED, gone)
            others.extend(popped)

    client = Interrupted(Target(one_server.url), remove)
    with closing(client):
        ours = taken(Queue(Over(client)).retry_each(map(parse_failure, RECORDS)))

    assert sorted(ours + others) == sorted(RECORDS)
    assert one_redis.lrange(KEYS.queue("math"), 0, -1) == [parse_failure(e).payload for e in ours]
    assert not set(RECORDS) & set(one_redis.lrange(FAILED, 0, -1))


def test_two_who_retry_the_same_at_once_put_each_job_back_once(
    one_server: Server, one_redis: Redis, queue: Queue
) -> None:
    one_redis.rpush(FAILED, *RECORDS)
    theirs: list[bytes] = []
    second = queue.retry_each(ODD)
    client = Interrupted(Target(one_server.url), lambda: theirs.extend(next(second, [])))

    with closing(client):
        ours = taken(Queue(Over(client)).retry_each(ODD))
    theirs += taken(second)

    assert sorted(ours + theirs) == sorted(RECORDS[1::2])
    jobs = one_redis.lrange(KEYS.queue("math"), 0, -1)
    assert sorted(jobs) == sorted(job(n) for n in range(1, NUMBER, 2))
    assert one_redis.lrange(FAILED, 0, -1) == RECORDS[::2]


def test_an_answer_that_gets_lost_is_asked_for_again_and_nothing_is_doubled(
    one_server: Server, one_redis: Redis
) -> None:
    one_redis.rpush(FAILED, *RECORDS)
    client = Deaf(Target(one_server.url))
    with closing(client):
        assert sorted(taken(Queue(Over(client)).retry_each(ODD))) == sorted(RECORDS[1::2])

    assert client.lost == 3
    assert one_redis.lrange(KEYS.queue("math"), 0, -1) == [job(n) for n in range(1, NUMBER, 2)]
    assert one_redis.lrange(FAILED, 0, -1) == RECORDS[::2]


class Deaf(Client):
    """A client that sends each script that takes twice, and hears the second answer."""

    lost = 0

    def call(self, call: Call) -> Any:
        if load("take_failed").digest.encode() in call.digest_head:
            super().call(call)
            self.lost += 1
        return super().call(call)


def test_what_cannot_go_back_stays(one_redis: Redis, queue: Queue) -> None:
    nameless = b'{"error":"no payload"}'
    one_redis.rpush(FAILED, nameless, b"no JSON", record(1), record(2, "odd"))
    one_redis.set(KEYS.queue("odd"), "no list")
    everybody: list[Failure] = [parse_failure(nameless), parse_failure(b"no JSON")]

    assert taken(queue.retry_each([*everybody, parse_failure(record(1))])) == [record(1)]
    assert taken(queue.retry_each([parse_failure(record(2, "odd"))])) == []
    assert one_redis.lrange(FAILED, 0, -1) == [nameless, b"no JSON", record(2, "odd")]
    assert taken(queue.remove_each(everybody)) == [nameless, b"no JSON"]

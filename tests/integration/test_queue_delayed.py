"""Delayed jobs: looking at them, and deleting them in whichever spelling they are."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from redis import Redis

from forkresque.errors import BadKey
from forkresque.protocol.agenda import PAGE, DelayedAt
from forkresque.protocol.connection import Client, Target
from forkresque.protocol.keys import Keys
from forkresque.protocol.payload import UNREADABLE
from forkresque.queue import Queue
from tests.support.connections import Over
from tests.support.rubbish import BAD
from tests.support.servers import Server

KEYS = Keys("resque")
NODE = b'{"class":"x","queue":"q","args":[1,"a"]}'
RUBY = b'{"class":"x","args":[1,"a"],"queue":"q"}'
FLOAT = b'{"class":"x","args":[1.0,"a"],"queue":"q"}'
ODD = b'{ "queue": "q", "args": [1.0, "\\u0061"], "class": "x", "id": 7 }'
OTHER = b'{"class":"x","queue":"q","args":[2,"a"]}'


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with closing(Target(server.url).client()) as client:
        yield client


@pytest.fixture
def queue(client: Client) -> Queue:
    return Queue(Over(client, KEYS))


def delay(redis: Redis, second: int, *raws: bytes) -> None:
    """Delay jobs as every Resque does."""
    for raw in raws:
        redis.rpush(KEYS.delayed(second), raw)
        redis.sadd(KEYS.timestamps(raw), f"delayed:{second}")
        redis.zadd(KEYS.schedule(), {str(second): second})


def due(redis: Any, second: int) -> Any:
    return redis.lrange(KEYS.delayed(second), 0, -1)


# -- looking -----------------------------------------------------------------------------------


def test_seconds_are_sorted_as_numbers(queue: Queue, redis: Redis) -> None:
    assert queue.timestamps() == []
    for second in (100, 1_795_487_751, 9):
        queue.enqueue_at(second, "q", "x")
    redis.zadd(KEYS.schedule(), {"junk": 5, "1_0": 6, "": 7, "\u0663": 8})
    redis.hset(KEYS.delayed_family().rstrip(b"*") + b"last_enqueued_at", "job", "text")

    assert queue.timestamps() == [9, 100, 1_795_487_751]


def test_the_jobs_of_a_second_are_shown_decoded_in_their_order(queue: Queue, redis: Redis) -> None:
    delay(redis, 10, NODE, ODD, b"{broken", OTHER)
    tasks = [json.loads(NODE), json.loads(ODD), {"class": UNREADABLE, "args": []}]
    tasks.append(json.loads(OTHER))

    assert queue.delayed_at(10) == DelayedAt(tasks, 10)
    assert queue.delayed_at(9.2).tasks == tasks  # rounded up, as it was when it was put there
    assert queue.delayed_at(datetime.fromtimestamp(10, UTC)).timestamp == 10
    assert queue.delayed_at(11) == ([], 11)


def test_all_delayed_jobs_are_shown_by_their_second(queue: Queue, redis: Redis) -> None:
    assert queue.all_delayed() == {}
    for second in range(1, 2 * PAGE + 6):
        delay(redis, second, NODE)
    delay(redis, 3, OTHER, *BAD.values())
    redis.zadd(KEYS.schedule(), {"5000": 5000})  # node's delDelayed leaves it without jobs
    redis.delete(KEYS.delayed(4))
    redis.set(KEYS.delayed(4), "text")

    found = queue.all_delayed()

    assert list(found) == [1, 2, 3, *range(5, 2 * PAGE + 6)]
    assert found[1] == [json.loads(NODE)]
    assert len(found[3]) == 2 + len(BAD)


# -- scheduled_at ------------------------------------------------------------------------------


def test_the_seconds_of_a_job_are_found_in_both_spellings(queue: Queue, redis: Redis) -> None:
    delay(redis, 200, NODE)
    delay(redis, 9, RUBY)
    delay(redis, 30, FLOAT)
    delay(redis, 4, OTHER)

    assert queue.scheduled_at("q", "x", [1, "a"]) == [9, 200]
    assert queue.scheduled_at("q", "x", [1.0, "a"]) == [9, 30, 200]
    assert queue.scheduled_at("q", "x", [3]) == []
    assert queue.scheduled_at("other", "x", [1, "a"]) == []


def test_a_job_that_is_spelt_in_a_way_of_its_own_is_found_where_no_other_is(
    queue: Queue, redis: Redis
) -> None:
    delay(redis, 7, ODD, b"{broken")
    delay(redis, 8, ODD)

    assert queue.scheduled_at("q", "x", [1, "a"]) == [7, 8]


def test_rubbish_in_the_set_of_seconds_is_passed_over(queue: Queue, redis: Redis) -> None:
    delay(redis, 7, NODE)
    redis.sadd(KEYS.timestamps(NODE), "delayed:junk", "junk", "")
    redis.set(KEYS.timestamps(RUBY), "text")

    assert queue.scheduled_at("q", "x", [1, "a"]) == [7]


# -- delete_delayed ----------------------------------------------------------------------------


def test_a_delayed_job_is_deleted_in_every_spelling_and_leaves_nothing(
    queue: Queue, redis: Redis
) -> None:
    delay(redis, 10, NODE, OTHER, RUBY, NODE)
    delay(redis, 9, RUBY)
    delay(redis, 200, FLOAT, ODD)
    delay(redis, 11, OTHER, *BAD.values())

    assert queue.delete_delayed("q", "x", [1, "a"]) == [9, 10, 200]

    assert due(redis, 10) == [OTHER]
    assert due(redis, 11) == [OTHER, *BAD.values()]
    assert queue.timestamps() == [10, 11]
    assert not redis.exists(*(KEYS.timestamps(raw) for raw in (NODE, RUBY, FLOAT, ODD)))
    assert redis.smembers(KEYS.timestamps(OTHER)) == {b"delayed:10", b"delayed:11"}
    assert queue.delete_delayed("q", "x", [1, "a"]) == []


def test_deleting_the_only_delayed_job_leaves_an_empty_redis(queue: Queue, redis: Redis) -> None:
    queue.enqueue_at(10, "q", "x", 1)

    assert queue.delete_delayed("q", "x", 1) == [10]

    assert queue.all_delayed() == {}
    assert redis.keys(b"resque:[dt]*") == []


def test_a_mark_without_its_job_is_removed_and_not_reported(queue: Queue, redis: Redis) -> None:
    redis.sadd(KEYS.timestamps(NODE), "delayed:10")

    assert queue.delete_delayed("q", "x", [1, "a"]) == []

    assert redis.dbsize() == 0


def test_a_job_outside_of_the_schedule_is_deleted_by_its_mark(queue: Queue, redis: Redis) -> None:
    delay(redis, 10, NODE)
    redis.delete(KEYS.schedule())

    assert queue.delete_delayed("q", "x", [1, "a"]) == [10]

    assert redis.dbsize() == 0


def test_a_copy_without_its_mark_is_deleted_as_well(queue: Queue, redis: Redis) -> None:
    delay(redis, 10, NODE, NODE)
    redis.delete(KEYS.timestamps(NODE))

    assert queue.delete_delayed("q", "x", [1, "a"]) == [10]

    assert redis.dbsize() == 0


@pytest.mark.parametrize("key", [KEYS.timestamps(NODE), KEYS.delayed(9)])
def test_a_key_of_a_wrong_type_is_left_alone(queue: Queue, redis: Redis, key: bytes) -> None:
    delay(redis, 9, OTHER)
    delay(redis, 10, NODE)
    redis.sadd(KEYS.timestamps(NODE), "delayed:9")
    redis.delete(key)
    redis.set(key, "text")

    assert queue.delete_delayed("q", "x", [1, "a"]) == [10]

    assert redis.get(key) == b"text"
    assert not redis.exists(KEYS.delayed(10))


def test_a_schedule_of_a_wrong_type_is_named_and_nothing_deleted(
    queue: Queue, redis: Redis
) -> None:
    delay(redis, 10, NODE)
    redis.delete(KEYS.schedule())
    redis.set(KEYS.schedule(), "text")

    with pytest.raises(BadKey):
        queue.delete_delayed("q", "x", [1, "a"])

    assert due(redis, 10) == [NODE]

"""Locks as clients see them, and what becomes of that of a job which is deleted."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from redis import Redis

from forkresque.errors import InvalidArgs
from forkresque.plugins import DelayQueueLock, JobLock, Plugin, QueueLock
from forkresque.plugins.base import Context
from forkresque.protocol.connection import Client, Target
from forkresque.protocol.keys import Keys
from forkresque.queue import Queue
from tests.support.connections import Over
from tests.support.servers import Server

KEYS = Keys("resque")
RUBY = b'{"class":"x","args":[1]}'
LOCK = "lock:x:q:[1]"


class Told(Plugin):
    """Notes what it hears of, and then breaks."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[str, str, bytes]] = []

    def after_delete(self, context: Context) -> None:
        self.heard.append((context.queue, context.name, context.payload))
        raise RuntimeError("on purpose")


def run(*args: object) -> None: ...


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with closing(Target(server.url).client()) as client:
        yield client


@pytest.fixture
def queue(client: Client, told: Told) -> Queue:
    jobs = {
        "x": {"perform": run, "plugins": [told, QueueLock(), JobLock(), DelayQueueLock()]},
        "y": {"perform": run, "plugins": [QueueLock(key="mine")]},
        "brief": {"perform": run, "plugins": [QueueLock(lock_timeout=20)]},
        "plain": run,
    }
    return Queue(Over(client, KEYS), jobs)


# -- looking and deleting ----------------------------------------------------------------------


@pytest.mark.parametrize("namespace", ["resque", "", "a*[b]?", ["x", "y"]])
def test_locks_are_found_by_their_keys_without_the_namespace(
    client: Client, redis: Redis, namespace: str | list[str]
) -> None:
    keys = Keys(namespace)
    queue = Queue(Over(client, keys))
    assert queue.locks() == {}
    waits, runs = keys.queue_lock("é", "q", b"[1]"), keys.job_lock("é", "q", b"[1]")
    redis.set(waits, "123.nonce")
    redis.set(runs, 456)
    redis.set("elsewhere:lock:é", 1)
    redis.set(b"axb?:lock:other", 1)
    redis.rpush(waits + b"list", 1)

    assert queue.locks() == {
        "lock:é:q:[1]": "123.nonce",
        "lock:é:q:[1]list": None,
        "workerslock:é:q:[1]": "456",
    }
    assert queue.delete_lock("workerslock:é:q:[1]") == 1
    assert queue.delete_lock("workerslock:é:q:[1]") == 0
    assert redis.exists(waits)
    assert not redis.exists(runs)


def test_many_locks_are_found_in_small_steps(client: Client, redis: Redis) -> None:
    connection = Over(client, KEYS)
    connection.scan_count = 3
    for number in range(50):
        redis.set(KEYS.queue_lock("x", "q", b"[%d]" % number), number)

    assert sorted(map(str, Queue(connection).locks().values())) == sorted(map(str, range(50)))


@pytest.mark.parametrize("key", ["", "queues", "queue:q", "fr:leader", "locks:x", "resque:lock:x"])
def test_what_is_no_lock_is_not_deleted(queue: Queue, redis: Redis, key: str) -> None:
    queue.enqueue("q", "plain")
    before = set(redis.keys())

    with pytest.raises(InvalidArgs, match="is not the key of a lock") as caught:
        queue.delete_lock(key)

    assert "locks()" in caught.value.hint
    assert set(redis.keys()) == before


# -- the lock of a job that is deleted ---------------------------------------------------------

Delete = Callable[[Queue], Any]
DELETES: dict[str, Delete] = {
    "delete": lambda queue: queue.delete("q", "x", [1]),
    "delete one": lambda queue: queue.delete("q", "x", [1], 1),
    "delete_by_function": lambda queue: queue.delete_by_function("q", "x"),
    "of a stretch": lambda queue: queue.delete_by_function("q", "x", 0, 10),
    "delete_queue": lambda queue: queue.delete_queue("q"),
}


@pytest.mark.parametrize("how", DELETES)
def test_a_deleted_job_leaves_no_lock(queue: Queue, how: str) -> None:
    assert queue.enqueue("q", "x", [1])
    assert not queue.enqueue("q", "x", [1])

    DELETES[how](queue)

    assert queue.locks() == {}
    assert queue.enqueue("q", "x", [1])


@pytest.mark.parametrize("how", DELETES)
def test_without_the_definition_of_a_job_its_lock_stays(
    queue: Queue, client: Client, how: str
) -> None:
    queue.enqueue("q", "x", [1])

    DELETES[how](Queue(Over(client, KEYS)))

    assert list(queue.locks()) == [LOCK]


def test_a_lock_stays_while_an_equal_job_waits(queue: Queue, redis: Redis) -> None:
    redis.rpush(KEYS.queue("q"), RUBY, RUBY)
    queue.enqueue("q", "x", [1])

    assert queue.delete("q", "x", [1], 1) == 1
    assert list(queue.locks()) == [LOCK]
    assert queue.delete("q", "x", [1], -1) == 1
    assert list(queue.locks()) == [LOCK]
    assert queue.delete("q", "x", [1.0]) == 1
    assert queue.locks() == {}


def test_the_lock_of_another_job_stays(queue: Queue) -> None:
    queue.enqueue("q", "x", [1])
    queue.enqueue("q", "x", [2])
    queue.enqueue("p", "x", [1])

    queue.delete("q", "x", [2])

    assert sorted(queue.locks()) == ["lock:x:p:[1]", LOCK]


def test_a_lock_by_a_key_of_ones_own_is_freed(queue: Queue, redis: Redis) -> None:
    queue.enqueue("q", "y", [1])
    assert redis.exists("mine")

    queue.delete("q", "y", [1])

    assert not redis.exists("mine")


def test_the_lock_of_a_job_on_its_way_is_left_alone(queue: Queue, redis: Redis) -> None:
    """It is brief until the job has arrived; one that is brief for ever ends soon anyhow."""
    queue.enqueue("q", "brief", [1])
    assert list(queue.locks()) == ["lock:brief:q:[1]"]

    queue.delete("q", "brief", [1])

    assert list(queue.locks()) == ["lock:brief:q:[1]"]


def test_the_lock_of_a_job_that_runs_is_left_alone(queue: Queue, redis: Redis) -> None:
    redis.set(KEYS.job_lock("x", "q", b"[1]"), 1)
    queue.enqueue("q", "x", [1])

    queue.delete("q", "x", [1])

    assert list(queue.locks()) == ["workerslock:x:q:[1]"]


def test_plugins_hear_of_each_payload_once_and_may_break(
    queue: Queue, redis: Redis, told: Told
) -> None:
    node = b'{"class":"x","queue":"q","args":[1]}'
    redis.rpush(KEYS.queue("q"), RUBY, node, RUBY, b'{"class":"plain","args":[]}', b"{broken")

    assert queue.delete("q", "x", [1.0]) == 3
    assert sorted(told.heard) == [("q", "x", RUBY), ("q", "x", node)]

    redis.rpush(KEYS.queue("q"), node, node)
    queue.delete_queue("q")
    assert told.heard[2:] == [("q", "x", node)]
    assert queue.locks() == {}

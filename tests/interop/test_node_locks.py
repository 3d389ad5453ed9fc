"""Locks of node-resque's plugins and of ours: taken by one, seen and removed by the other."""

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from redis import Redis

from forkresque import DelayQueueLock, JobLock, Queue, QueueLock
from tests.support.arguments import LISTS, RUNNABLE, Shape, each
from tests.support.node_client import Node, NodeObject
from tests.support.performing import performing
from tests.support.servers import Server
from tests.support.waiting import wait_until

SECOND = 4_000_000_010

pytestmark = pytest.mark.timeout(60)


class Gate:
    """A job of ours that is in hand until it is released."""

    def __init__(self) -> None:
        self.begun, self.released = threading.Semaphore(0), threading.Semaphore(0)
        self.ran: list[Any] = []

    def perform(self, *args: Any) -> None:
        self.begun.release()
        assert self.released.acquire(timeout=20.0)
        self.ran.append(list(args))


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def locking(one_server: Server, gate: Gate) -> Iterator[Queue]:
    """Return a queue of our own that knows the same jobs with plugins as node."""
    jobs = {
        "queue_locked": {"perform": gate.perform, "plugins": [QueueLock()]},
        "delay_locked": {"perform": gate.perform, "plugins": [DelayQueueLock()]},
        "job_locked": {"perform": gate.perform, "plugins": [JobLock()]},
    }
    queue = Queue(one_server.url, jobs)
    with closing(queue.store.client):
        yield queue


def lock_keys(redis: Redis, family: str = "lock") -> list[bytes]:
    return list(redis.scan_iter(f"resque:{family}:*", count=1000))


# -- a job that waits ----------------------------------------------------------------------


@each(LISTS)
def test_node_heeds_the_lock_of_a_job_that_we_have_enqueued(
    shape: Shape, node: Node, locking: Queue, one_redis: Redis
) -> None:
    assert locking.enqueue("math", "queue_locked", shape.given) is True

    assert node.queue.evaluate("enqueue", shape.call("math", "queue_locked")) is False
    assert one_redis.llen("resque:queue:math") == 1
    (lock,) = lock_keys(one_redis)
    assert lock == f"resque:lock:queue_locked:math:{shape.wire}".encode()


@each(LISTS)
def test_we_heed_the_lock_of_a_job_that_node_has_enqueued(
    shape: Shape, node: Node, locking: Queue, one_redis: Redis
) -> None:
    assert node.queue.evaluate("enqueue", shape.call("math", "queue_locked")) is True

    assert locking.enqueue("math", "queue_locked", shape.given) is False
    assert one_redis.llen("resque:queue:math") == 1
    assert len(lock_keys(one_redis)) == 1


@each(RUNNABLE)
def test_node_frees_the_lock_of_a_job_of_ours_when_it_begins(
    shape: Shape, node_worker: NodeObject, locking: Queue, one_redis: Redis, ledger: Redis
) -> None:
    assert locking.enqueue("node", "queue_locked", shape.given) is True

    wait_until(lambda: ledger.llen("node:ran"), "node to run it")
    assert lock_keys(one_redis) == []
    assert locking.enqueue("node", "queue_locked", shape.given) is True
    wait_until(lambda: ledger.llen("node:ran") == 2, "node to run the next")
    assert node_worker.heard("error") == []


@each(LISTS)
def test_we_free_the_lock_of_a_job_of_node_when_it_begins(
    shape: Shape, node: Node, locking: Queue, gate: Gate, one_redis: Redis
) -> None:
    node.queue.evaluate("enqueue", shape.call("math", "queue_locked"))

    with performing(locking.connection, locking._jobs, queues=["math"]):
        assert gate.begun.acquire(timeout=10.0)
        assert lock_keys(one_redis) == []
        assert node.queue.evaluate("enqueue", shape.call("math", "queue_locked")) is True
        gate.released.release(2)
        wait_until(lambda: len(gate.ran) == 2, "both to run")


# -- a job that is delayed -----------------------------------------------------------------


@each(LISTS)
def test_node_enqueues_no_job_of_which_we_have_delayed_an_equal_one(
    shape: Shape, node: Node, locking: Queue, one_redis: Redis
) -> None:
    locking.enqueue_at(SECOND, "math", "delay_locked", shape.given)
    call = shape.call("math", "delay_locked")

    assert node.queue.evaluate("enqueue", call) is False
    assert node.queue.evaluate("delDelayed", call) == [SECOND]
    assert node.queue.evaluate("enqueue", call) is True
    assert one_redis.llen("resque:queue:math") == 1


@each(LISTS)
def test_we_enqueue_no_job_of_which_node_has_delayed_an_equal_one(
    shape: Shape, node: Node, locking: Queue, one_redis: Redis
) -> None:
    call = shape.call("math", "delay_locked")
    node.queue.evaluate("enqueueAt", f"[{SECOND * 1000},{call[1:]}")

    assert locking.enqueue("math", "delay_locked", shape.given) is False
    assert node.queue.evaluate("delDelayed", call) == [SECOND]
    assert locking.enqueue("math", "delay_locked", shape.given) is True
    assert one_redis.llen("resque:queue:math") == 1


# -- a job in hand, and locks removed by hand ----------------------------------------------


def text(value: Any) -> str:
    return str(value.decode())


def seen_by_node(node: Node) -> dict[str, str]:
    locks: dict[str, str] = node.queue.ask("locks")
    return locks


def test_node_lists_and_removes_our_locks(
    node: Node, locking: Queue, gate: Gate, one_redis: Redis
) -> None:
    """The job whose lock is removed by hand goes on, and does not bring the lock back."""
    args = ["é/ :*", {"2": 1, "1": [1.0]}]
    wire = '["é/ :*",{"1":[1],"2":1}]'
    job, wait = f"workerslock:job_locked:math:{wire}", f"lock:queue_locked:late:{wire}"
    locking.enqueue("math", "job_locked", args)
    locking.enqueue("late", "queue_locked", args)
    with performing(locking.connection, locking._jobs, queues=["math"]):
        assert gate.begun.acquire(timeout=10.0)
        assert seen_by_node(node) == {
            key: text(one_redis.get(f"resque:{key}")) for key in (job, wait)
        }

        assert [node.queue.ask("delLock", key) for key in (job, wait, job)] == [1, 1, 0]
        assert seen_by_node(node) == {}
        assert locking.enqueue("late", "queue_locked", args) is True
        gate.released.release()
        wait_until(lambda: one_redis.get("resque:stat:processed") == b"1", "it to end")
    assert list(seen_by_node(node)) == [wait]
    assert one_redis.llen("resque:failed") == 0


def test_we_list_and_remove_nodes_locks(
    node: Node, node_worker: NodeObject, queue: Queue, locking: Queue, ledger: Redis
) -> None:
    args = ["é/ :*", {"2": 1, "1": [1]}]
    wire = '["é/ :*",{"1":[1],"2":1}]'
    job, wait = f"workerslock:job_locked:node:{wire}", f"lock:queue_locked:math:{wire}"
    node.queue.ask("enqueue", "math", "queue_locked", args)
    node.queue.ask("enqueue", "node", "job_locked", args)
    wait_until(lambda: ledger.llen("node:held") == 1, "node to begin")

    assert queue.locks() == seen_by_node(node)
    assert set(queue.locks()) == {job, wait}
    assert [queue.delete_lock(key) for key in (job, wait, job)] == [1, 1, 0]
    assert queue.locks() == seen_by_node(node) == {}
    assert locking.enqueue("math", "queue_locked", args) is True
    ledger.rpush("node:release", "go")
    wait_until(lambda: ledger.llen("node:ran") == 1, "node to finish")
    assert list(queue.locks()) == [wait]
    assert node_worker.heard("error") == []

"""Workers of both sides on one namespace: they share the queues, and each sees the other's."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from redis import Redis

from forkresque import Queue
from tests.support.node_client import Node, NodeObject
from tests.support.performing import HOST, performing
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(60)


class Ours:
    """What our jobs do: tell what they ran, hold on until released, or fail."""

    def __init__(self) -> None:
        self.ran: list[Any] = []
        self.begun, self.released = threading.Event(), threading.Event()

    @property
    def jobs(self) -> dict[str, Any]:
        """The jobs, by the names that they have in node."""
        return {"note": self._note, "hold": self._hold, "boom": self._boom}

    def _note(self, *args: Any) -> None:
        self.ran.append(list(args))

    def _hold(self, *_args: Any) -> None:
        self.begun.set()
        assert self.released.wait(20.0)

    def _boom(self, message: str) -> None:
        raise ValueError(message)


@pytest.fixture
def ours() -> Ours:
    return Ours()


@pytest.fixture
def star(node: Node) -> Iterator[NodeObject]:
    """Return a worker of node for all queues, at work."""
    worker = node.make("Worker", {"timeout": 10, "name": f"node:{node.pid}"}, events=["error"])
    worker.ask("start")
    yield worker
    worker.ask("end")


def ran_by_node(ledger: Redis) -> list[Any]:
    found: Any = ledger.lrange("node:ran", 0, -1)
    return [json.loads(args) for args in found]


def counter(redis: Redis, name: str) -> int:
    value: Any = redis.get(f"resque:stat:{name}")
    return int(value or 0)


def test_all_queues_are_worked_off_by_both_also_those_that_appear_meanwhile(
    star: NodeObject, node: Node, queue: Queue, ours: Ours, one_redis: Redis, ledger: Redis
) -> None:
    with performing(queue.connection, ours.jobs):
        wait_until(lambda: len(node.queue.ask("workers")) == 2, "both")
        for number in range(0, 160, 2):
            queue.enqueue(f"appears {number // 20}", "note", [number])
            node.queue.ask("enqueue", f"appears {number // 20}", "note", [number + 1])
        wait_until(lambda: counter(one_redis, "processed") == 160, "all to run", 30.0)

    ran = Counter(number for (number,) in [*ours.ran, *ran_by_node(ledger)])
    assert ran == Counter(range(160))
    assert len(queue.queues()) == len(node.queue.ask("queues")) == 8
    assert set(queue.lengths().values()) == {0}
    assert counter(one_redis, "failed") == 0
    assert star.heard("error") == []


def test_a_queue_that_appears_is_worked_off_by_node_alone_and_by_us_alone(
    node: Node, queue: Queue, ours: Ours, star: NodeObject, ledger: Redis
) -> None:
    queue.enqueue("new of ours", "note", [1])
    wait_until(lambda: ran_by_node(ledger) == [[1]], "node to find it")
    star.ask("end")
    with performing(queue.connection, ours.jobs):
        wait_until(lambda: node.queue.ask("workers"), "ours")
        node.queue.ask("enqueue", "new of node", "note", [2])
        wait_until(lambda: ours.ran == [[2]], "us to find it")


def test_node_sees_what_our_worker_of_all_queues_does(node: Node, queue: Queue, ours: Ours) -> None:
    with performing(queue.connection, ours.jobs):
        wait_until(lambda: node.queue.ask("workers"), "ours")
        ((name, queues),) = node.queue.ask("workers").items()
        assert (name.split(":")[0], queues) == (HOST, "*")
        assert node.queue.ask("allWorkingOn") == {name: "started"}
        assert node.queue.ask("workingOn", name, "*") is None

        node.queue.ask("enqueue", "late", "hold", [[], {"a": 1e21}, "é/"])
        assert ours.begun.wait(10.0)
        record = json.loads(node.queue.ask("workingOn", name, "*"))
        payload = {"class": "hold", "queue": "late", "args": [[], {"a": 1e21}, "é/"]}
        assert (record["worker"], record["queue"], record["payload"]) == (name, "late", payload)
        assert node.queue.ask("allWorkingOn") == {name: record}
        ours.released.set()
        wait_until(lambda: node.queue.ask("allWorkingOn") == {name: "started"}, "its end")
    assert node.queue.ask("workers") == {}


# -- counters --------------------------------------------------------------------------------


def work_off(node: Node, queue: Queue, ours: Ours, redis: Redis) -> NodeObject:
    """Have each side succeed three times and fail twice; return node's worker, which goes on."""
    worker = node.make("Worker", {"queues": ["a"], "timeout": 10, "name": f"node:{node.pid}+2"})
    worker.ask("start")
    for name in "ab":
        for number in range(3):
            queue.enqueue(name, "note", [number])
        for number in range(2):
            node.queue.ask("enqueue", name, "boom", [str(number)])
    wait_until(lambda: redis.llen("resque:failed") == 2, "node's to be worked off")
    return worker


def test_what_both_have_done_adds_up_in_both_numbers(
    node: Node, queue: Queue, ours: Ours, one_redis: Redis
) -> None:
    with ExitStack() as stack:
        worker = work_off(node, queue, ours, one_redis)
        stack.callback(worker.ask, "end")
        with performing(queue.connection, ours.jobs, queues=["b"]):
            wait_until(lambda: counter(one_redis, "processed") == 6, "six")
            wait_until(lambda: counter(one_redis, "failed") == 4, "four")
            stats = node.queue.ask("stats")
            mine = next(name for name in node.queue.ask("workers") if name.startswith(HOST))
            assert stats == {
                "processed": "6",
                "failed": "4",
                f"processed:{worker.name}": "3",
                f"failed:{worker.name}": "2",
                f"processed:{mine}": "3",
                f"failed:{mine}": "2",
            }
        stats = node.queue.ask("stats")
    assert set(stats) == {
        "processed",
        "failed",
        f"processed:{worker.name}",
        f"failed:{worker.name}",
    }
    assert node.queue.ask("stats") == {"processed": "6", "failed": "4"}


# -- what we see of node's -------------------------------------------------------------------


def test_we_see_what_the_workers_of_both_do_as_node_does(
    node: Node, node_worker: NodeObject, queue: Queue, ours: Ours, one_redis: Redis, ledger: Redis
) -> None:
    names = [f"node:{node.pid}+{number}" for number in (3, 4)]
    with ExitStack() as stack:
        for name in names:
            worker = node.make("Worker", {"queues": ["a", "b:c"], "timeout": 10, "name": name})
            stack.callback(worker.ask, "end")
            worker.ask("start")
        stack.enter_context(performing(queue.connection, ours.jobs, queues=["mine"]))
        wait_until(lambda: len(node.queue.ask("workers")) == 3, "all three")
        queue.enqueue("b:c", "hold", [1.5, {"2": [None], "1": "é/"}])
        queue.enqueue("mine", "hold", [[]])
        wait_until(lambda: ledger.llen("node:held") == 1, "node to begin")
        assert ours.begun.wait(10.0)

        workers = queue.workers()
        assert workers == node.queue.ask("workers")
        assert [workers[name] for name in names] == ["a,b:c", "a,b:c"]
        doing = queue.all_working_on()
        assert doing == node.queue.ask("allWorkingOn")
        (busy,) = (name for name in names if doing[name] != "started")
        record = queue.working_on(busy, "a,b:c")
        assert record == doing[busy]
        assert record is not None
        assert record["payload"]["args"] == [1.5, {"2": [None], "1": "é/"}]
        assert (record["worker"], record["queue"]) == (busy, "b:c")
        (idle,) = set(names) - {busy}
        assert queue.working_on(idle, "a,b:c") is None
        ours.released.set()
        ledger.rpush("node:release", "go")
        wait_until(lambda: counter(one_redis, "processed") == 2, "both to end")
        wait_until(lambda: [*queue.all_working_on().values()] == ["started"] * 3, "rest")
    assert queue.workers() == queue.all_working_on() == {}
    assert node_worker.heard("error") == []


def test_we_read_the_numbers_that_node_reads(
    node: Node, queue: Queue, ours: Ours, one_redis: Redis
) -> None:
    assert queue.stats() == node.queue.ask("stats") == {}
    worker = work_off(node, queue, ours, one_redis)
    with performing(queue.connection, ours.jobs, queues=["b"]):
        wait_until(lambda: counter(one_redis, "failed") == 4, "four")
        wait_until(lambda: counter(one_redis, "processed") == 6, "six")
        stats = node.queue.ask("stats")
        assert queue.stats() == {name: int(number) for name, number in stats.items()}
        assert len(stats) == 6
    worker.ask("end")
    assert queue.stats() == {"processed": 6, "failed": 4}


def test_we_name_the_leader_that_node_names(node: Node, queue: Queue) -> None:
    assert queue.leader_key() == node.queue.ask("leaderKey")
    assert queue.leader() is node.queue.ask("leader") is None
    scheduler = node.make("Scheduler")
    scheduler.ask("poll")
    assert queue.leader() == node.queue.ask("leader") == scheduler.name
    scheduler.ask("end")
    assert queue.leader() is None

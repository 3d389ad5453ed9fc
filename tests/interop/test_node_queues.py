"""Queues of either side, counted, shown and emptied by the other."""

import pytest
from redis import Redis

from forkresque import Queue
from tests.support.node_client import Node, NodeError

NAMES = ["math", "a b", "é/😀", "a:b", "*", "delayed"]

pytestmark = pytest.mark.timeout(60)


def fill(node: Node, queue: Queue, name: str) -> None:
    """Have both sides enqueue; the order is 1, "one", 2, "two", 1, "one", in all six jobs."""
    for number, word in ((1, "one"), (2, "two"), (1, "one")):
        queue.enqueue(name, "note", [number])
        node.queue.ask("enqueue", name, "add", [word])


def args(node: Node, name: str = "math") -> list[object]:
    """Return the first argument of each job that waits, as node sees it."""
    return [job["args"][0] for job in node.queue.ask("queued", name, 0, -1)]


@pytest.mark.parametrize("name", NAMES)
def test_both_see_and_delete_a_queue_of_any_name(
    name: str, node: Node, queue: Queue, one_redis: Redis
) -> None:
    queue.enqueue(name, "note", [1])
    node.queue.ask("enqueue", name, "note", [2])
    assert queue.queues() == node.queue.ask("queues") == [name]
    assert queue.length(name) == node.queue.ask("length", name) == 2
    assert queue.lengths() == {name: 2}

    node.queue.ask("delQueue", name)
    assert (queue.queues(), queue.length(name)) == ([], 0)

    node.queue.ask("enqueue", name, "note", [2])
    queue.delete_queue(name)
    assert (node.queue.ask("queues"), node.queue.ask("length", name)) == ([], 0)
    assert one_redis.exists(f"resque:queue:{name}") == 0


def test_deleting_a_queue_leaves_its_delayed_jobs_to_either(node: Node, queue: Queue) -> None:
    fill(node, queue, "math")
    node.queue.ask("enqueueAt", 4_000_000_000_000, "math", "note", [1])
    queue.enqueue_at(4_000_000_000, "math", "note", [2])

    queue.delete_queue("math")
    node.queue.ask("delQueue", "math")

    assert queue.scheduled_at("math", "note", [1]) == [4_000_000_000]
    assert node.queue.ask("scheduledAt", "math", "note", [2]) == [4_000_000_000]


@pytest.mark.parametrize("window", [(0, -1), (0, 0), (1, 3), (-2, -1), (4, 99), (6, 9)], ids=str)
def test_both_show_the_same_stretch_of_a_queue(
    window: tuple[int, int], node: Node, queue: Queue
) -> None:
    fill(node, queue, "math")

    assert queue.queued("math", *window) == node.queue.ask("queued", "math", *window)
    assert len(queue.peek("math", *window)) == len(queue.queued("math", *window))


@pytest.mark.parametrize(
    ("count", "left"),
    [
        (0, ["one", 2, "two", "one"]),
        (1, ["one", 2, "two", 1, "one"]),
        (-1, [1, "one", 2, "two", "one"]),
        (5, ["one", 2, "two", "one"]),
    ],
)
def test_either_deletes_as_many_as_it_is_told_from_the_end_that_it_is_told(
    count: int, left: list[object], node: Node, queue: Queue
) -> None:
    removed = 6 - len(left)
    fill(node, queue, "math")
    assert node.queue.ask("del", "math", "note", [1], count) == removed
    assert args(node) == left

    node.queue.ask("delQueue", "math")
    for number, word in ((1, "one"), (2, "two"), (1, "one")):
        node.queue.ask("enqueue", "math", "note", [number])
        queue.enqueue("math", "add", [word])
    assert queue.delete("math", "note", [1], count) == removed
    assert args(node) == left


def test_either_deletes_by_function_what_the_other_has_enqueued(node: Node, queue: Queue) -> None:
    fill(node, queue, "math")
    assert node.queue.ask("delByFunction", "math", "note") == 3
    assert args(node) == ["one", "two", "one"]
    assert queue.delete_by_function("math", "add") == 3
    assert queue.delete_by_function("math", "add") == 0
    assert node.queue.ask("length", "math") == 0


def test_we_delete_by_function_within_a_stretch_only(node: Node, queue: Queue) -> None:
    """Node counts those in the stretch, and deletes equal ones outside of it as well."""
    fill(node, queue, "math")
    assert queue.delete_by_function("math", "add", 0, 1) == 1
    assert args(node) == [1, 2, "two", 1, "one"]

    assert node.queue.ask("delByFunction", "math", "note", 0, 0) == 1
    assert args(node) == [2, "two", "one"]


def test_what_node_cannot_read_we_show_and_work_around(
    node: Node, queue: Queue, one_redis: Redis
) -> None:
    fill(node, queue, "math")
    one_redis.linsert("resque:queue:math", "BEFORE", queue.peek("math")[1].decode(), "{bad json")

    with pytest.raises(NodeError, match="JSON"):
        node.queue.ask("queued", "math", 0, -1)
    with pytest.raises(NodeError, match="JSON"):
        node.queue.ask("delByFunction", "math", "note")
    assert [job["class"] for job in queue.queued("math", 0, 2)] == [
        "note",
        "(unreadable payload)",
        "add",
    ]
    assert queue.delete_by_function("math", "note") == 3
    assert queue.delete("math", "add", ["one"]) == 2
    assert queue.peek("math")[0] == b"{bad json"
    assert queue.length("math") == 2


def test_jobs_enqueued_in_bulk_are_nodes_to_see(node: Node, queue: Queue) -> None:
    jobs = [("math", "note", [1.0]), ("other", "add", ["é/"]), ("math", "note", [])]

    assert queue.bulk(jobs) == 3

    assert sorted(node.queue.ask("queues")) == ["math", "other"]
    assert node.queue.ask("del", "math", "note", [1]) == 1
    assert node.queue.ask("del", "other", "add", ["é/"]) == 1
    assert node.queue.ask("del", "math", "note") == 1

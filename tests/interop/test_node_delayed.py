"""Delayed jobs of either side, found, listed, deleted and promoted by the other."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from forkresque import Queue
from tests.support.arguments import LISTS, Shape, each
from tests.support.node_client import Node, NodeError, NodeObject

SECOND = 4_000_000_010

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def node_scheduler(node: Node) -> Iterator[NodeObject]:
    """Return a scheduler of node that looks when it is told to."""
    scheduler = node.make("Scheduler", {}, events=["error", "transferredJob"])
    yield scheduler
    scheduler.ask("end")


def delayed_keys(redis: Redis) -> list[bytes]:
    """Return the keys of all delayed jobs; a second that has been emptied may be left in one."""
    families = ("resque:delayed:*", "resque:timestamps:*")
    return [key for family in families for key in redis.scan_iter(family, count=1000)]


def seconds(redis: Redis) -> list[int]:
    """Return the seconds at which something is due."""
    members: Any = redis.zrange("resque:delayed_queue_schedule", 0, -1)
    return list(map(int, members))


# -- ours, in node's hands -----------------------------------------------------------------


@each(LISTS)
def test_node_promotes_a_job_of_ours_with_its_very_bytes(
    shape: Shape, node_scheduler: NodeObject, queue: Queue, one_redis: Redis
) -> None:
    queue.enqueue_at(10, "math", "note", shape.given)

    node_scheduler.ask("poll")

    raw = shape.payload("math", "note")
    assert one_redis.lrange("resque:queue:math", 0, -1) == [raw]
    assert one_redis.smembers("resque:queues") == {b"math"}
    assert node_scheduler.heard("transferredJob") == [[10, json.loads(raw)]]
    assert (delayed_keys(one_redis), seconds(one_redis)) == ([], [])


def test_node_lists_our_delayed_jobs(node: Node, queue: Queue) -> None:
    queue.enqueue_at(2000, "math", "add", [2, "é/"])
    queue.enqueue_at(1000, "math", "add", [1.0])
    queue.enqueue_at(1000, "other", "note")

    first = [
        {"class": "add", "queue": "math", "args": [1]},
        {"class": "note", "queue": "other", "args": []},
    ]
    second = [{"class": "add", "queue": "math", "args": [2, "é/"]}]
    assert node.queue.ask("timestamps") == [1_000_000, 2_000_000]
    assert node.queue.ask("delayedAt", 1_000_000) == {"tasks": first, "rTimestamp": 1000}
    assert node.queue.ask("delayedAt", 1_500_000) == {"tasks": [], "rTimestamp": 1500}
    assert node.queue.ask("allDelayed") == {"1000000": first, "2000000": second}


def test_node_finds_every_second_of_a_job_of_ours(
    node: Node, queue: Queue, one_redis: Redis
) -> None:
    now, _ = one_redis.time()
    queue.enqueue_at(SECOND, "math", "note", [1])
    queue.enqueue_at(SECOND + 0.25, "math", "note", [1])
    queue.enqueue_in(3600, "math", "note", [1])
    queue.enqueue_at(SECOND, "math", "note", [2])
    queue.enqueue_at(SECOND, "other", "note", [1])

    first, *others = sorted(node.queue.ask("scheduledAt", "math", "note", [1]))
    assert now + 3600 <= first <= now + 3610
    assert others == [SECOND, SECOND + 1]
    assert sorted(node.queue.ask("delDelayed", "math", "note", [1])) == [first, *others]
    assert node.queue.ask("scheduledAt", "math", "note", [1]) == []
    assert one_redis.llen(f"resque:delayed:{SECOND}") == 2
    assert one_redis.llen(f"resque:delayed:{SECOND + 1}") == 0


def test_node_deletes_two_equal_jobs_of_ours_that_are_due_at_one_second(
    node: Node, queue: Queue, one_redis: Redis
) -> None:
    for _ in range(2):
        queue.enqueue_at(SECOND, "math", "note", [1], unique=False)
    assert one_redis.llen(f"resque:delayed:{SECOND}") == 2

    with pytest.raises(NodeError, match="already enqueued"):
        node.queue.ask("enqueueAt", SECOND * 1000, "math", "note", [1])
    assert node.queue.ask("delDelayed", "math", "note", [1]) == [SECOND]
    assert delayed_keys(one_redis) == []
    assert node.queue.ask("enqueueAt", SECOND * 1000, "math", "note", [1]) is True


def test_node_promotes_all_jobs_of_ours_in_their_order(
    node: Node, node_scheduler: NodeObject, queue: Queue, one_redis: Redis
) -> None:
    for number in range(250):
        queue.enqueue_at(20 - number % 2, "math", "note", [number])
    queue.enqueue_at(SECOND, "math", "note", ["later"])

    node_scheduler.ask("poll")

    order = [*range(1, 250, 2), *range(0, 250, 2)]
    assert [job["args"] for job in node.queue.ask("queued", "math", 0, -1)] == [[n] for n in order]
    assert seconds(one_redis) == [SECOND]
    assert node.queue.ask("timestamps") == [SECOND * 1000]


@pytest.mark.parametrize(("milliseconds", "second"), [(10_499, 10), (10_500, 11), (9_500, 10)])
def test_node_rounds_to_the_nearest_second_and_we_never_to_an_earlier_one(
    milliseconds: int, second: int, node: Node, queue: Queue
) -> None:
    node.queue.ask("enqueueAt", milliseconds, "math", "of node")
    queue.enqueue_at(milliseconds / 1000, "math", "of us")

    assert node.queue.ask("scheduledAt", "math", "of node") == [second]
    assert node.queue.ask("scheduledAt", "math", "of us") == [-(-milliseconds // 1000)]


# -- node's, in our hands ------------------------------------------------------------------


def test_we_list_the_delayed_jobs_of_both(node: Node, queue: Queue) -> None:
    node.queue.ask("enqueueAt", 2_000_000, "math", "add", [2, "é/"])
    queue.enqueue_at(9000, "math", "add", [[]])
    node.queue.ask("enqueueAt", 1_000_000, "math", "add", [1.0])
    node.queue.ask("enqueueAt", 100_000_000, "other", "note")

    listed = queue.all_delayed()
    assert listed == {int(ms) // 1000: jobs for ms, jobs in node.queue.ask("allDelayed").items()}
    assert list(listed) == queue.timestamps() == [1000, 2000, 9000, 100_000]
    assert queue.timestamps() == sorted(ms // 1000 for ms in node.queue.ask("timestamps"))
    for second in (1000, 2000, 9000, 100_000, 5):
        tasks, timestamp = queue.delayed_at(second)
        shown = node.queue.ask("delayedAt", second * 1000)
        assert {"tasks": tasks, "rTimestamp": timestamp} == shown
    assert queue.delayed_count() == 4


def test_we_find_every_second_of_a_job_of_node(node: Node, queue: Queue, one_redis: Redis) -> None:
    now, _ = one_redis.time()
    for second in (SECOND + 1, SECOND):
        node.queue.ask("enqueueAt", second * 1000, "math", "note", [1])
    node.queue.ask("enqueueIn", 3_600_000, "math", "note", [1])
    node.queue.ask("enqueueAt", SECOND * 1000, "math", "note", [2])
    node.queue.ask("enqueueAt", SECOND * 1000, "other", "note", [1])

    first, *others = queue.scheduled_at("math", "note", [1])
    assert now + 3599 <= first <= now + 3610
    assert others == [SECOND, SECOND + 1]
    assert queue.delete_delayed("math", "note", [1]) == [first, *others]
    assert node.queue.ask("scheduledAt", "math", "note", [1]) == []
    assert node.queue.ask("timestamps") == [SECOND * 1000]
    assert one_redis.llen(f"resque:delayed:{SECOND}") == 2
    assert queue.scheduled_at("math", "note", [2]) == [SECOND]


def test_node_delays_again_what_we_have_deleted_and_the_reverse(node: Node, queue: Queue) -> None:
    for _ in range(2):
        assert node.queue.ask("enqueueAt", SECOND * 1000, "math", "note", [1]) is True
        assert queue.delete_delayed("math", "note", [1]) == [SECOND]
        assert queue.enqueue_at(SECOND, "math", "note", [1]) is True
        assert node.queue.ask("delDelayed", "math", "note", [1]) == [SECOND]


def test_jobs_that_differ_are_no_duplicates_to_either(
    node: Node, queue: Queue, one_redis: Redis
) -> None:
    queue.enqueue_at(SECOND, "math", "note", [1])

    for job in [("math", "note", [2]), ("math", "add", [1]), ("other", "note", [1])]:
        assert node.queue.ask("enqueueAt", SECOND * 1000, *job) is True
        assert queue.enqueue_at(SECOND + 1, *job) is True
    assert one_redis.llen(f"resque:delayed:{SECOND}") == 4
    assert one_redis.llen(f"resque:delayed:{SECOND + 1}") == 3

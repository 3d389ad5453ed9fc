"""Arguments of every shape, in both directions: found, deleted and run by the other."""

import json
from collections.abc import Callable

import pytest
from redis import Redis

from forkresque import AlreadyScheduled, Queue
from tests.support.arguments import LISTS, LOST_BY_NODE, RUNNABLE, SINGLES, Shape, each
from tests.support.node_client import Node, NodeError, NodeObject
from tests.support.performing import performing
from tests.support.waiting import wait_until

SECOND = 4_000_000_010

pytestmark = pytest.mark.timeout(60)


# -- what we have written ------------------------------------------------------------------


@each(LISTS)
def test_we_write_the_bytes_that_node_writes(
    shape: Shape, node: Node, queue: Queue, one_redis: Redis
) -> None:
    queue.enqueue("math", "note", shape.given)
    node.queue.evaluate("enqueue", shape.call("math", "note"))

    raw = shape.payload("math", "note")
    assert one_redis.lrange("resque:queue:math", 0, -1) == [raw, raw]


@each(LISTS)
def test_node_shows_and_deletes_what_we_have_enqueued(
    shape: Shape, node: Node, queue: Queue, one_redis: Redis
) -> None:
    queue.enqueue("math", "note", shape.given)

    (shown,) = node.queue.ask("queued", "math", 0, -1)
    assert shown == json.loads(shape.payload("math", "note"))
    assert node.queue.evaluate("del", shape.call("math", "note")) == 1
    assert one_redis.llen("resque:queue:math") == 0


@each(RUNNABLE)
def test_node_runs_what_we_have_enqueued(
    shape: Shape, node_worker: NodeObject, queue: Queue, ledger: Redis
) -> None:
    queue.enqueue("node", "note", shape.given)

    wait_until(lambda: ledger.llen("node:ran"), "node to run it")
    assert ledger.lrange("node:ran", 0, -1) == [shape.wire.encode()]
    assert node_worker.heard("error") == []


@each([LOST_BY_NODE])
def test_node_loses_what_its_lua_cannot_read_whoever_has_enqueued_it(
    shape: Shape, node: Node, node_worker: NodeObject, queue: Queue, one_redis: Redis
) -> None:
    """It pops before it decodes; JavaScript has no trouble with it, and neither have we."""
    before = len(node_worker.heard("error"))
    queue.enqueue("node", "note", shape.given)
    node.queue.evaluate("enqueue", shape.call("node", "note"))

    wait_until(lambda: len(node_worker.heard("error")) == before + 2, "two errors")
    assert one_redis.llen("resque:queue:node") == one_redis.llen("resque:failed") == 0


@each(SINGLES)
def test_one_argument_alone_is_enqueued_and_deleted_as_node_does(
    shape: Shape, node: Node, queue: Queue, one_redis: Redis
) -> None:
    queue.enqueue("math", "note", shape.given)
    node.queue.evaluate("enqueue", shape.call("math", "note"))

    raw = shape.payload("math", "note")
    assert one_redis.lrange("resque:queue:math", 0, -1) == [raw, raw]
    assert node.queue.evaluate("del", f"{shape.call('math', 'note')[:-1]}, 1]") == 1
    assert queue.delete("math", "note", shape.given) == 1


@each(SINGLES)
def test_one_argument_alone_is_delayed_and_found_as_node_does(
    shape: Shape, node: Node, queue: Queue
) -> None:
    call = shape.call("math", "note")
    queue.enqueue_at(SECOND, "math", "note", shape.given)
    node.queue.evaluate("enqueueAt", f"[{SECOND * 1000 + 1000},{call[1:]}")

    both = [SECOND, SECOND + 1]
    assert sorted(node.queue.evaluate("scheduledAt", call)) == both
    assert queue.scheduled_at("math", "note", shape.given) == both
    assert queue.delete_delayed("math", "note", shape.given) == both
    assert node.queue.evaluate("scheduledAt", call) == []


@each(LISTS)
def test_node_finds_and_deletes_what_we_have_delayed(
    shape: Shape, node: Node, queue: Queue, one_redis: Redis
) -> None:
    queue.enqueue_at(SECOND, "math", "note", shape.given)

    call = shape.call("math", "note")
    assert node.queue.evaluate("scheduledAt", call) == [SECOND]
    assert node.queue.evaluate("delDelayed", call) == [SECOND]
    assert node.queue.evaluate("scheduledAt", call) == []
    assert one_redis.keys("resque:delayed:*") == []
    assert one_redis.keys("resque:timestamps:*") == []


@each(LISTS)
def test_node_refuses_what_we_have_delayed_for_that_second(
    shape: Shape, node: Node, queue: Queue, one_redis: Redis
) -> None:
    queue.enqueue_at(SECOND, "math", "note", shape.given)

    at = f"[{SECOND * 1000},{shape.call('math', 'note')[1:-1]}"
    with pytest.raises(NodeError, match="already enqueued at this time with same arguments"):
        node.queue.evaluate("enqueueAt", f"{at}]")
    assert node.queue.evaluate("enqueueAt", f"{at}, true]") is None
    assert one_redis.llen(f"resque:delayed:{SECOND}") == 1


# -- what node has written -----------------------------------------------------------------


@each(LISTS)
def test_we_run_what_node_has_enqueued(
    shape: Shape, node: Node, queue: Queue, one_redis: Redis
) -> None:
    ran: list[object] = []
    note: Callable[..., None] = lambda *args: ran.append(list(args))  # noqa: E731
    node.queue.evaluate("enqueue", shape.call("math", "note"))

    with performing(queue.connection, {"note": note}, queues=["math"]):
        wait_until(lambda: one_redis.get("resque:stat:processed") == b"1", "us to run it")

    assert ran == [json.loads(shape.wire)]


@each(LISTS)
def test_we_show_and_delete_what_node_has_enqueued(
    shape: Shape, node: Node, queue: Queue, one_redis: Redis
) -> None:
    node.queue.evaluate("enqueue", shape.call("math", "note"))
    node.queue.evaluate("enqueue", shape.call("math", "other"))

    assert queue.queued("math", 0, 0) == [json.loads(shape.payload("math", "note"))]
    assert queue.delete("math", "note", shape.given) == 1
    assert queue.delete("math", "note", shape.given) == 0
    assert one_redis.lrange("resque:queue:math", 0, -1) == [shape.payload("math", "other")]


@each(LISTS)
def test_we_find_and_delete_what_node_has_delayed(
    shape: Shape, node: Node, queue: Queue, one_redis: Redis
) -> None:
    node.queue.evaluate("enqueueAt", f"[{SECOND * 1000},{shape.call('math', 'note')[1:]}")

    assert queue.scheduled_at("math", "note", shape.given) == [SECOND]
    assert queue.delete_delayed("math", "note", shape.given) == [SECOND]
    assert queue.scheduled_at("math", "note", shape.given) == []
    assert one_redis.keys("resque:delayed:*") == []
    assert one_redis.keys("resque:timestamps:*") == []


@each(LISTS)
def test_we_refuse_what_node_has_delayed_for_that_second(
    shape: Shape, node: Node, queue: Queue, one_redis: Redis
) -> None:
    node.queue.evaluate("enqueueAt", f"[{SECOND * 1000},{shape.call('math', 'note')[1:]}")

    with pytest.raises(AlreadyScheduled):
        queue.enqueue_at(SECOND, "math", "note", shape.given)
    suppressed = queue.enqueue_at(
        SECOND, "math", "note", shape.given, suppress_duplicate_task_error=True
    )
    assert suppressed is False
    assert one_redis.llen(f"resque:delayed:{SECOND}") == 1

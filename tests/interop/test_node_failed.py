"""Failed jobs of either side, listed, removed and retried by the other."""

import json
from typing import Any, NoReturn

import pytest
from redis import Redis

from forkresque import NotFailed, Queue
from forkresque.protocol.payload import encode_job
from tests.support.arguments import ESCAPES, LISTS, RUNNABLE, Shape, each
from tests.support.node_client import Node, NodeError, NodeObject
from tests.support.performing import performing
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(60)

# Jobs as others may write them: node cannot find these bytes again, nor write them.
FOREIGN = {
    "fraction": b'{"class":"boom","queue":"math","args":[1.0,1E5,-0]}',
    "escapes": rb'{"class":"boom","queue":"math","args":["\u00e9\u003c\/\u2028"]}',
    "spaces": b'{"class": "boom", "queue": "math", "args": [1, 2]}',
    "ruby": b'{"class":"boom","args":[{"b":1,"a":2}],"queue":"math"}',
    "no-queue": b'{"class":"boom","args":[1]}',
    "index-keys": b'{"class":"boom","queue":"math","args":[{"b":1,"2":1,"10":1,"1":1}]}',
    "twice-the-same-key": b'{"class":"boom","queue":"math","args":[{"a":1,"b":2,"a":3}]}',
    "big-integers": b'{"class":"boom","queue":"math","args":[12345678901234567890]}',
    "an-odd-integer": b'{"class":"boom","queue":"math","args":[-9007199254740993]}',
    "a-huge-integer": b'{"class":"boom","queue":"math","args":[%b]}' % (b"9" * 400),
    "many-digits": b'{"class":"boom","queue":"math","args":[0.10000000000000000555111]}',
    "more-fields": b'{"class":"boom","queue":"math","args":[],"id":"x","9":1.50,"at":1.5e9}',
    "no-args": b'{"class":"boom","queue":"math"}',
    "null-args": b'{"class":"boom","queue":"math","args":null}',
    "object-args": b'{"class":"boom","queue":"math","args":{"a":1}}',
    "no-class": b'{"queue":"math","args":[1]}',
    "no-object": b"[1,2]",
    "null": b"null",
    "no-json": b'{"class":"boom",',
    "no-utf-8": b'{"class":"boom","queue":"math","args":["\xff"]}',
}

# Errors whose text is not what it was when JavaScript has had it.
TEXTS = {
    "escapes": ESCAPES,
    "lone-surrogates": "\ud800 \udfff",
    "nul": "a\0b",
    "long": "é" * 100_000,
    "nothing": "",
    "json": '{"a": 1.0}',
}


def boom(*args: object) -> NoReturn:
    raise ValueError(args[0] if args and isinstance(args[0], str) else "boom")


def failed_by_us(queue: Queue, *raws: bytes) -> None:
    """Have jobs fail in a worker of ours."""
    store = queue.store
    store.client.command("SADD", store.keys.queues(), "math")
    for raw in raws:
        store.client.command("RPUSH", store.keys.queue("math"), raw)
    with performing(queue.connection, {"boom": boom}, queues=["math"]):
        wait_until(lambda: queue.failed_count() == len(raws), "all to fail")


def entries(redis: Redis) -> list[bytes]:
    found: Any = redis.lrange("resque:failed", 0, -1)
    return list(found)


# -- ours, in node's hands -----------------------------------------------------------------


@each(LISTS)
def test_node_reads_and_removes_a_failure_of_ours(
    shape: Shape, node: Node, queue: Queue, one_redis: Redis
) -> None:
    failed_by_us(queue, shape.payload("math", "boom"))

    (entry,) = node.queue.ask("failed", 0, -1)
    assert entry["payload"] == json.loads(shape.payload("math", "boom"))
    assert node.queue.ask("removeFailed", entry) == 1
    assert node.queue.ask("failedCount") == one_redis.llen("resque:failed") == 0


@each(LISTS)
def test_node_retries_a_failure_of_ours_with_its_very_bytes(
    shape: Shape, node: Node, queue: Queue, one_redis: Redis
) -> None:
    raw = shape.payload("math", "boom")
    failed_by_us(queue, raw)

    (entry,) = node.queue.ask("failed", 0, -1)
    assert node.queue.ask("retryAndRemoveFailed", entry) is True
    with pytest.raises(NodeError, match="This job is not in failed queue"):
        node.queue.ask("retryAndRemoveFailed", entry)

    assert one_redis.lrange("resque:queue:math", 0, -1) == [raw]
    assert entries(one_redis) == []


@pytest.mark.parametrize("raw", FOREIGN.values(), ids=FOREIGN.keys())
def test_node_removes_a_failure_of_ours_of_a_job_that_it_would_spell_otherwise(
    raw: bytes, node: Node, queue: Queue, one_redis: Redis
) -> None:
    """We retry the bytes that came all the same: they are kept beside what is shown."""
    failed_by_us(queue, raw)
    (kept,) = entries(one_redis)

    (entry,) = node.queue.ask("failed", 0, 0)
    assert node.queue.ask("removeFailed", entry) == 1

    one_redis.rpush("resque:failed", kept)
    (failure,) = queue.failed()
    assert queue.retry_failed(failure, queue="math")
    assert one_redis.lrange("resque:queue:math", 0, -1) == [raw]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_node_removes_a_failure_of_ours_with_any_text(text: str, node: Node, queue: Queue) -> None:
    failed_by_us(queue, encode_job("math", "boom", [text]))

    (entry,) = node.queue.ask("failed", 0, 0)
    assert entry["error"] == queue.failed()[0].error
    assert node.queue.ask("removeFailed", entry) == 1


def test_node_removes_one_of_two_equal_failures_of_ours(
    node: Node, queue: Queue, one_redis: Redis
) -> None:
    failed_by_us(queue, LISTS[0].payload("math", "boom"))
    (kept,) = entries(one_redis)
    one_redis.rpush("resque:failed", kept)

    (entry,) = node.queue.ask("failed", 0, 0)
    assert node.queue.ask("removeFailed", entry) == 1
    assert entries(one_redis) == [kept]
    assert queue.remove_failed(queue.failed()[0])
    assert node.queue.ask("removeFailed", entry) == 0


def test_node_finds_no_stuck_job_among_failures_of_ours_and_gets_to_the_end(
    node: Node, queue: Queue, one_redis: Redis
) -> None:
    """A backtrace that is no array would end its walk."""
    failed_by_us(queue, *FOREIGN.values())

    node.queue.ask("retryStuckJobs")

    assert len(entries(one_redis)) == len(FOREIGN)
    assert one_redis.llen("resque:queue:math") == 0


# -- node's, in our hands ------------------------------------------------------------------


def failed_by_node(node: Node, redis: Redis, shape: Shape) -> bytes:
    """Have a job fail in node's worker; return its bytes."""
    node.queue.evaluate("enqueue", shape.call("node", "boom"))
    wait_until(lambda: redis.llen("resque:failed"), "it to fail")
    return shape.payload("node", "boom")


@each(RUNNABLE)
def test_we_read_and_remove_a_failure_of_node(
    shape: Shape, node: Node, node_worker: NodeObject, queue: Queue, one_redis: Redis
) -> None:
    raw = failed_by_node(node, one_redis, shape)

    (failure,) = queue.failed()
    assert (failure.payload, failure.args) == (raw, json.loads(shape.wire))
    assert (failure.worker, failure.queue, failure.name) == (node_worker.name, "node", "boom")
    assert queue.remove_failed(failure)
    assert not queue.remove_failed(failure)
    assert entries(one_redis) == []


@each(RUNNABLE)
def test_we_retry_a_failure_of_node_with_its_very_bytes(
    shape: Shape, node: Node, node_worker: NodeObject, queue: Queue, one_redis: Redis
) -> None:
    raw = failed_by_node(node, one_redis, shape)

    (failure,) = queue.failed()
    assert failure.worker == node_worker.name
    assert queue.retry_failed(failure, queue="math")
    assert not queue.retry_failed(failure, queue="math")
    assert one_redis.lrange("resque:queue:math", 0, -1) == [raw]


def test_both_list_the_same_failures_of_both(
    node: Node, node_worker: NodeObject, queue: Queue, one_redis: Redis
) -> None:
    failed_by_us(queue, *(shape.payload("math", "boom") for shape in LISTS[:3]))
    failed_by_node(node, one_redis, LISTS[3])
    wait_until(lambda: queue.failed_count() == 4, "node's to fail")

    assert node.queue.ask("failedCount") == 4
    for window in [(0, -1), (1, 2), (-2, -1), (3, 9), (4, 4)]:
        shown = node.queue.ask("failed", *window)
        ours = [json.loads(failure.raw_entry) for failure in queue.failed(*window)]
        assert shown == ours, window
    assert queue.failed()[3].worker == node_worker.name


# -- retried as node retries -----------------------------------------------------------------


@each(RUNNABLE)
def test_what_we_retry_and_remove_fails_in_node_once_more(
    shape: Shape, node: Node, node_worker: NodeObject, queue: Queue, one_redis: Redis
) -> None:
    raw = failed_by_node(node, one_redis, shape)
    (first,) = queue.failed()

    assert queue.retry_and_remove_failed(first) is True
    wait_until(lambda: one_redis.get("resque:stat:failed") == b"2", "it to fail again")

    (again,) = node.queue.ask("failed", 0, -1)
    assert queue.failed()[0].payload == raw
    assert again["worker"] == node_worker.name
    assert node.queue.ask("removeFailed", again) == 1
    with pytest.raises(NotFailed, match="This job is not in failed queue"):
        queue.retry_and_remove_failed(first)


def cleaned_by_node(node: Node, redis: Redis, raw: bytes) -> Any:
    """Have node clean a worker that died with this job; return node's record of the failure."""
    record = b'{"run_at":"2026-11-24T02:45:08Z","worker":"dead:1","queue":"math","payload":%b}'
    redis.sadd("resque:workers", "dead:1:math")
    redis.set("resque:worker:dead:1:math", record % raw)
    return node.queue.ask("forceCleanWorker", "dead:1")


@each(LISTS)
def test_we_retry_a_stuck_job_that_node_has_recorded_with_its_very_bytes(
    shape: Shape, node: Node, queue: Queue, one_redis: Redis
) -> None:
    raw = shape.payload("math", "note")
    entry = cleaned_by_node(node, one_redis, raw)
    assert entry["payload"] == json.loads(raw)

    assert queue.retry_stuck_jobs() == 1
    assert queue.retry_stuck_jobs() == 0
    assert one_redis.lrange("resque:queue:math", 0, -1) == [raw]
    assert node.queue.ask("failedCount") == 0


def test_we_retry_all_stuck_jobs_of_which_node_would_pass_over_some(
    node: Node, queue: Queue, one_redis: Redis
) -> None:
    cleaned_by_node(node, one_redis, LISTS[0].payload("math", "note"))
    (entry,) = entries(one_redis)
    one_redis.rpush("resque:failed", *[entry] * 249)

    node.queue.ask("retryStuckJobs")
    assert queue.failed_count() == 100
    assert queue.retry_stuck_jobs(limit=30) == 30
    assert queue.retry_stuck_jobs() == 70
    assert node.queue.ask("length", "math") == 250
    assert node.queue.ask("failedCount") == 0

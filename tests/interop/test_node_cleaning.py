"""Dead workers of either side, cleaned by the other: each job ends exactly once."""

import json
from contextlib import ExitStack
from typing import Any

import pytest
from redis import Redis

from forkresque import Queue
from forkresque.protocol.payload import encode_job
from tests.conftest import Starter
from tests.support.node_client import Node
from tests.support.performing import performing
from tests.support.servers import Server
from tests.support.site import APP, Site, idle_workers
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(60)

MARK = 'é/ "😀" [] {}'


@pytest.fixture
def site(one_redis: Redis, ledger: Redis) -> Site:
    return Site(one_redis, ledger)


def dead_worker(start: Starter, site: Site) -> tuple[str, bytes]:
    """Have a worker of ours killed with its master; return `host:pid` and the job that it had."""
    master = start(*APP, "-c", "1")
    site.gates(MARK)
    (wid,) = site.redis.smembers("resque:workers")
    for process in master.left():
        process.kill()
    master.wait()
    wait_until(lambda: not master.left(), "their end")  # till then they may take what is released
    return wid.decode().rsplit(":", 1)[0], encode_job("math", "gate", [MARK])


def cleaned_by_node(node: Node, method: str, name: str) -> dict[str, Any]:
    """Have node clean a worker; return the record of the job that it had."""
    if method == "forceCleanWorker":
        entry: dict[str, Any] = node.queue.ask(method, name)
        return entry
    cleaned = wait_until(lambda: node.queue.ask(method, 1000), "it to be old")
    assert list(cleaned) == [name]
    return dict(cleaned[name])


def at_rest(site: Site) -> bool:
    """Return whether nothing waits and nothing is in hand."""
    return site.slots() == 0 and not site.waiting()


# -- our dead, cleaned by node -------------------------------------------------------------


@pytest.mark.parametrize("method", ["forceCleanWorker", "cleanOldWorkers"])
def test_a_job_of_our_dead_that_node_has_cleaned_and_retries_ends_once(
    method: str, start: Starter, site: Site, node: Node
) -> None:
    name, raw = dead_worker(start, site)

    entry = cleaned_by_node(node, method, name)
    assert (entry["worker"], entry["queue"]) == (name, "math")
    assert entry["payload"] == json.loads(raw)
    assert entry["backtrace"][1] == "queue#forceCleanWorker"
    assert node.queue.ask("workers") == {}
    master = start(*APP, "-c", "1")
    wait_until(lambda: site.slots() == 0, "the slot's end")
    assert site.waiting() == []
    site.release(MARK)
    node.queue.ask("retryStuckJobs")

    wait_until(lambda: site.count("processed"), "the job to end")
    wait_until(lambda: at_rest(site), "rest")
    idle_workers(master, 1)
    assert (site.starts(MARK), site.runs(), site.count("processed")) == (2, [MARK], 1)
    assert site.failures() == []


def test_a_job_of_our_dead_that_node_has_retried_before_we_knew_is_not_lost_but_runs_twice(
    start: Starter, site: Site, node: Node
) -> None:
    """The record is gone with which a job in a slot could be known to have its end elsewhere."""
    name, _ = dead_worker(start, site)
    cleaned_by_node(node, "forceCleanWorker", name)
    node.queue.ask("retryStuckJobs")
    assert len(site.waiting()) == 1

    site.release(MARK, MARK)
    start(*APP, "-c", "1")

    wait_until(lambda: site.count("processed") == 2, "both to end")
    assert at_rest(site)
    assert site.runs() == [MARK, MARK]


def test_a_job_of_our_dead_that_we_have_cleaned_is_back_on_its_queue_and_ends_once(
    start: Starter, site: Site, node: Node, queue: Queue
) -> None:
    name, raw = dead_worker(start, site)

    assert queue.force_clean_worker(name) is None

    assert name not in node.queue.ask("workers")
    assert node.queue.ask("failedCount") == 0
    assert site.waiting() == [raw]
    site.release(MARK)
    start(*APP, "-c", "1")

    wait_until(lambda: site.count("processed"), "the job to end")
    assert at_rest(site)
    assert (site.starts(MARK), site.runs(), site.failures()) == (2, [MARK], [])


# -- node's dead, cleaned by us --------------------------------------------------------------


def dead_node(server: Server, ledger_server: Server, ledger: Redis, raw: bytes) -> str:
    """Have a worker of node killed while it has a job; return `host:pid`."""
    with Node(server, ledger_server) as victim:
        worker = victim.make("Worker", {"queues": ["math", "other"], "timeout": 10})
        worker.ask("start")
        victim.queue.ask("enqueue", "math", "hold", json.loads(raw)["args"])
        wait_until(lambda: ledger.llen("node:held") == 1, "it to begin")
        victim.process.kill()
    return worker.name


def retry_stuck(by: str, node: Node, queue: Queue) -> None:
    """Have one side put the jobs of the dead back."""
    if by == "node":
        node.queue.ask("retryStuckJobs")
    else:
        assert queue.retry_stuck_jobs() == 1


@pytest.mark.parametrize("by", ["node", "us"])
@pytest.mark.parametrize("runner", ["node", "us"])
@pytest.mark.parametrize("method", ["force_clean_worker", "clean_old_workers"])
def test_a_job_of_nodes_dead_that_we_have_cleaned_ends_once(
    method: str,
    runner: str,
    by: str,
    node: Node,
    queue: Queue,
    one_server: Server,
    one_redis: Redis,
    ledger_server: Server,
    ledger: Redis,
) -> None:
    raw = encode_job("math", "hold", [MARK, 1])
    name = dead_node(one_server, ledger_server, ledger, raw)

    if method == "force_clean_worker":
        entry = queue.force_clean_worker(name)
    else:
        assert queue.clean_old_workers(3600) == {}
        entry = wait_until(lambda: queue.clean_old_workers(0.5), "it to be old")[name]
    assert entry is not None
    assert (entry["worker"], entry["payload"]) == (name, json.loads(raw))
    assert node.queue.ask("failed", 0, -1) == [entry]
    assert one_redis.keys(f"*{name}*") == []
    assert one_redis.get("resque:stat:failed") == b"1"

    retry_stuck(by, node, queue)
    ledger.rpush("node:release", "go")
    ran: list[object] = []
    with ExitStack() as stack:
        if runner == "node":
            worker = node.make("Worker", {"queues": ["math"], "timeout": 10})
            stack.callback(worker.ask, "end")
            worker.ask("start")
        else:
            jobs = {"hold": lambda *args: ran.append(list(args))}
            stack.enter_context(performing(queue.connection, jobs, queues=["math"]))
        wait_until(lambda: one_redis.get("resque:stat:processed") == b"1", "it to end")
    assert ran + [json.loads(args) for args in raw_list(ledger, "node:ran")] == [[MARK, 1]]
    assert queue.length("math") == queue.failed_count() == 0


def raw_list(redis: Redis, key: str) -> list[bytes]:
    found: Any = redis.lrange(key, 0, -1)
    return list(found)


def test_an_idle_dead_worker_of_node_is_removed_by_us_without_a_failure(
    node: Node, queue: Queue, one_server: Server, one_redis: Redis, ledger_server: Server
) -> None:
    with Node(one_server, ledger_server) as victim:
        worker = victim.make("Worker", {"queues": ["math"]})
        worker.ask("start")
        victim.process.kill()
    assert queue.workers() == node.queue.ask("workers") == {worker.name: "math"}

    assert queue.force_clean_worker(worker.name) is None
    assert queue.workers() == node.queue.ask("workers") == {}
    assert one_redis.keys(f"*{worker.name}*") == []
    assert queue.failed_count() == 0

"""Dead workers of either side, cleaned by the other: each job ends exactly once."""

import json
from typing import Any

import pytest
from redis import Redis

from forkresque.protocol.payload import encode_job
from tests.conftest import Starter
from tests.support.node_client import Node
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

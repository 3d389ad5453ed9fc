"""Our Scheduler, standing alone, and the real one of node-resque on the same Redis."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from redis import Redis

from forkresque import Scheduler
from forkresque.protocol.foreign import NODE_TIMEOUT
from tests.support.node import NodeProcess, node_modules, run_node
from tests.support.servers import Server
from tests.support.waiting import wait_until

NODE_LOCK = "resque:resque_scheduler_leader_lock"
JOBS = 30


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """Install node-resque on nobody's time; the tests' timeouts are for the tests."""
    node_modules()


@pytest.fixture
def scheduler(one_server: Server) -> Iterator[Scheduler]:
    with Scheduler(one_server.url, stuck_worker_timeout=1.0) as scheduler:
        yield scheduler


def delay(server: Server, queue: str) -> None:
    """Have node delay jobs of a queue."""
    run_node("produce.js", server.tcp_url, queue, "note", JOBS, "--in-ms", 200)


def queued(redis: Redis, queue: str) -> list[int]:
    found: Any = redis.lrange(f"resque:queue:{queue}", 0, -1)
    return [json.loads(raw)["args"][0] for raw in found]


def await_promoted(redis: Redis, queue: str) -> None:
    wait_until(lambda: redis.llen(f"resque:queue:{queue}") >= JOBS, f"the jobs of {queue}")
    assert sorted(queued(redis, queue)) == list(range(JOBS))


@pytest.mark.timeout(40, func_only=True)
def test_the_lead_goes_from_ours_to_nodes_and_back(
    scheduler: Scheduler, one_server: Server, one_redis: Redis
) -> None:
    wait_until(lambda: scheduler.leader, "our lead")
    with ExitStack() as stack:
        node = stack.enter_context(NodeProcess("schedule.js", one_server.tcp_url))
        wait_until(lambda: "started" in node.output(), "node's scheduler")
        delay(one_server, "first")
        await_promoted(one_redis, "first")
        leader = json.loads(run_node("inspect.js", one_server.tcp_url).stdout)["leader"]
        assert leader == scheduler.token
        assert leader.startswith(f"{scheduler.name}:")
        assert not {"leader", "promoted"} & set(node.output().split())

        assert scheduler.end()
        wait_until(lambda: "leader" in node.output().split(), "node to lead", 3.0)
        next_one = stack.enter_context(Scheduler(one_server.url))
        moved: list[object] = []
        next_one.on("transferred_job", lambda _second, job: moved.append(job))
        delay(one_server, "second")
        await_promoted(one_redis, "second")
        wait_until(lambda: node.output().count("promoted") == JOBS, "node's word")
        assert not next_one.leader
        assert moved == []

        assert node.stop() == 0
        wait_until(lambda: next_one.leader, "our next one to lead", 3.0)
        delay(one_server, "third")
        await_promoted(one_redis, "third")
        assert len(moved) == JOBS
        assert one_redis.get(NODE_LOCK) == next_one.token.encode()
    assert not one_redis.exists(NODE_LOCK)
    assert one_redis.zcard("resque:delayed_queue_schedule") == 0


@pytest.mark.timeout(40, func_only=True)
def test_a_killed_worker_of_node_is_removed_by_ours(
    scheduler: Scheduler, one_server: Server, one_redis: Redis, ledger_server: Server
) -> None:
    cleaned: list[tuple[str, Any, float]] = []
    scheduler.on("cleanStuckWorker", lambda *args: cleaned.append(args))
    env = {"LEDGER_URL": ledger_server.tcp_url}
    with NodeProcess("work.js", one_server.tcp_url, "math", 1, env=env) as worker:
        wait_until(lambda: one_redis.scard("resque:workers") == 1, "its registration")
        worker_id: Any = one_redis.smembers("resque:workers").copy().pop()
        name = worker_id.decode().removesuffix(":math")
        wait_until(lambda: one_redis.exists(f"resque:worker:ping:{name}"), "its first ping")
        os.kill(worker.pid, signal.SIGKILL)
        worker.process.wait()
        payload = {"class": "note", "queue": "math", "args": ["in hand"]}
        record = {"run_at": "2026", "queue": "math", "payload": payload, "worker": name}
        one_redis.set(f"resque:worker:{worker_id.decode()}", json.dumps(record))

        wait_until(lambda: cleaned, "its end")

    ((told, failure, seconds),) = cleaned
    assert (told, failure["payload"], failure["error"]) == (name, payload, NODE_TIMEOUT)
    assert seconds >= 1.0
    assert one_redis.keys(f"*{name}*") == []
    assert one_redis.llen("resque:failed") == 1

"""What the tests' own node-resque does: produce, work, schedule and inspect."""

import json

import pytest
from redis import Redis

from tests.support.node import NodeProcess, run_node
from tests.support.servers import Server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(240)  # the first one installs it


def test_node_produces_and_works_off_twenty_jobs(
    one_server: Server, one_redis: Redis, ledger: Redis, ledger_server: Server
) -> None:
    run_node("produce.js", one_server.tcp_url, "math", "note", 20)
    assert one_redis.llen("resque:queue:math") == 20

    run_node("work.js", one_server.tcp_url, "math", 20, env={"LEDGER_URL": ledger_server.tcp_url})

    assert ledger.lrange("node:runs", 0, -1) == [b"%d" % i for i in range(20)]
    assert one_redis.get("resque:stat:processed") == b"20"
    assert one_redis.smembers("resque:workers") == set()


def test_node_schedules_in_a_namespace_and_a_database(one_server: Server) -> None:
    url = f"{one_server.tcp_url}/2"
    run_node("produce.js", url, "math", "note", 2, "--in-ms", 1, "other")

    with NodeProcess("schedule.js", url, "other") as scheduler:
        wait_until(lambda: scheduler.output().count("promoted") == 2, "the promotion")
        assert "leader" in scheduler.output().splitlines()
        seen = json.loads(run_node("inspect.js", url, "other").stdout)

    assert seen["lengths"] == {"math": 2}
    assert seen["leader"].endswith(f":{scheduler.pid}")


def test_a_node_worker_stops_when_its_stdin_closes(
    one_server: Server, ledger_server: Server
) -> None:
    environment = {"LEDGER_URL": ledger_server.tcp_url}
    with NodeProcess("work.js", one_server.tcp_url, "high,math", 1, env=environment) as worker:
        wait_until(lambda: "started" in worker.output(), "the worker")
        seen = json.loads(run_node("inspect.js", one_server.tcp_url).stdout)
        name = worker.output().split()[1]

        assert seen["workers"] == {name: "high,math"}
        assert worker.stop() == 0
    assert seen["workingOn"] == {name: "started"}
    assert seen["failed"] == []


def test_a_script_that_fails_is_shown(one_server: Server) -> None:
    with pytest.raises(AssertionError, match=r"no-such\.js ended with 1"):
        run_node("no-such.js", one_server.tcp_url)

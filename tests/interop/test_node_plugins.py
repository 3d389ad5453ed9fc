"""Plugins of node-resque and ours on the same Redis: what one holds, the other respects."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from redis import Redis

from forkresque import Forkresque
from forkresque.plugins import JobLock, QueueLock, Retry
from forkresque.post import Post
from forkresque.protocol.canonical import encode
from forkresque.protocol.keys import Keys
from forkresque.protocol.payload import encode_job
from forkresque.worker import Worker
from tests.support.node import NodeProcess, node_modules, run_node
from tests.support.servers import Server
from tests.support.waiting import wait_until

KEYS = Keys("resque")
ARGS: list[Any] = ["s p a c e", {"b": "x y", "2": 1.0}, None, [True, 1e21], "é\u2028"]
FIELDS = ("failed_at", "payload", "exception", "error", "backtrace", "worker", "queue")

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """Install node-resque on nobody's time; the tests' timeouts are for the tests."""
    node_modules()


class Fleet:
    """A worker of node and one of ours, that have the same jobs with the same plugins."""

    def __init__(self, server: Server, redis: Redis, ledger: Redis, ledger_url: str) -> None:
        self.url, self.redis, self.ledger = server.tcp_url, redis, ledger
        self._ledger_url = ledger_url
        self.app = Forkresque(server.url)
        self.runs: list[Any] = []
        self.started, self.release = threading.Event(), threading.Event()

        @self.app.job("locked", queue="q", plugins=[JobLock()])
        def locked(mark: Any, *_rest: Any) -> None:
            self.started.set()
            assert self.release.wait(20.0)
            self.runs.append(mark)

        @self.app.job("retried", queue="q", plugins=[Retry(4, delay=60)])
        def retried(mark: Any, *_rest: Any) -> None:
            self.runs.append(mark)
            raise ValueError("BUSTED")

        self.app.job("waiting", queue="q", plugins=[QueueLock(lock_timeout=60)])(retried)

    @contextmanager
    def node(self) -> Iterator[NodeProcess]:
        env = {"LEDGER_URL": self._ledger_url}
        with NodeProcess("plugins.js", "work", self.url, env=env) as process:
            wait_until(lambda: "started" in process.output(), "node's worker")
            yield process

    @contextmanager
    def ours(self) -> Iterator[None]:
        post = Post.alone(["q"], host="ours")
        worker = Worker(self.app.url, self.app.jobs, queues=["q"], post=post)
        thread = threading.Thread(target=worker.run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.release.set()
            worker.stop()
            thread.join(10.0)
            assert not thread.is_alive(), "the worker does not leave"

    def push(self, name: str, args: list[Any]) -> bytes:
        raw = encode_job("q", name, args)
        self.redis.sadd(KEYS.queues(), "q")
        self.redis.rpush(KEYS.queue("q"), raw)
        return raw

    def delayed(self) -> list[bytes]:
        """Return the jobs that are delayed, and see that all of their traces agree."""
        seconds: Any = self.redis.zrange(KEYS.schedule(), 0, -1)
        jobs: list[bytes] = []
        for second in seconds:
            bucket: Any = self.redis.lrange(KEYS.delayed(int(second)), 0, -1)
            for raw in bucket:
                assert self.redis.sismember(KEYS.timestamps(raw), b"delayed:" + second)
            jobs += bucket
        return jobs

    def await_delayed(self, raw: bytes) -> None:
        wait_until(lambda: self.delayed() == [raw], "the job to be delayed")
        wait_until(lambda: not self.redis.exists(KEYS.queue("q")), "the queue to be empty")

    def bring_back(self) -> None:
        """Put what is delayed into its queue, whenever it is due."""
        for raw in self.delayed():
            marks: Any = self.redis.smembers(KEYS.timestamps(raw))
            (mark,) = marks
            second = int(mark.rpartition(b":")[2])
            self.redis.delete(KEYS.delayed(second), KEYS.timestamps(raw))
            self.redis.zrem(KEYS.schedule(), second)
            self.redis.rpush(KEYS.queue("q"), raw)

    def value(self, key: bytes) -> Any:
        return self.redis.get(key)

    def heard(self, key: str) -> int:
        number: Any = self.ledger.llen(key)
        return int(number)


@pytest.fixture
def fleet(
    one_server: Server, one_redis: Redis, ledger: Redis, ledger_server: Server
) -> Iterator[Fleet]:
    fleet = Fleet(one_server, one_redis, ledger, ledger_server.url)
    with closing(fleet.app.queue.store.client):
        yield fleet


# -- JobLock -----------------------------------------------------------------------------------


def test_we_respect_the_lock_of_a_job_that_node_performs(fleet: Fleet) -> None:
    lock = KEYS.job_lock("locked", "q", encode(ARGS))
    with fleet.node():
        fleet.push("locked", ARGS)
        wait_until(lambda: fleet.heard("node:started") == 1, "node to begin")
        held = fleet.value(lock)
        assert held
        assert held.isdigit()

        with fleet.ours():
            raw = fleet.push("locked", ARGS)
            fleet.await_delayed(raw)
            assert fleet.value(lock) == held
            assert not fleet.started.is_set()
        fleet.ledger.rpush("node:release", "go")
        wait_until(lambda: fleet.heard("node:runs") == 1, "node to finish")
        wait_until(lambda: not fleet.redis.exists(lock), "node to free the lock")

    fleet.bring_back()
    with fleet.ours():
        wait_until(lambda: fleet.runs == [ARGS[0]], "our turn")
        wait_until(lambda: fleet.value(KEYS.stat("processed")) == b"2", "both to be counted")
    assert not fleet.redis.exists(lock)


def test_node_respects_the_lock_of_a_job_that_we_perform(fleet: Fleet) -> None:
    lock = KEYS.job_lock("locked", "q", encode(ARGS))
    with fleet.ours():
        fleet.push("locked", ARGS)
        assert fleet.started.wait(10.0)
        held = fleet.value(lock)
        assert held

        with fleet.node():
            raw = fleet.push("locked", ARGS)
            fleet.await_delayed(raw)
            assert fleet.value(lock) == held
            assert fleet.heard("node:started") == 0
        fleet.release.set()
        wait_until(lambda: fleet.value(KEYS.stat("processed")) == b"1", "us to finish")
        assert not fleet.redis.exists(lock)

    fleet.bring_back()
    fleet.ledger.rpush("node:release", "go")
    with fleet.node():
        wait_until(lambda: fleet.heard("node:runs") == 1, "node's turn")
        wait_until(lambda: fleet.value(KEYS.stat("processed")) == b"2", "both to be counted")
    assert not fleet.redis.exists(lock)


# -- Retry -------------------------------------------------------------------------------------


def attempt(fleet: Fleet, key: str, number: int) -> None:
    """Wait until attempt `number` of all is over, here by what is counted as failed."""
    wait_until(lambda: fleet.value(KEYS.stat("failed")) == b"%d" % number, f"attempt {number}")
    # node counts it as processed as well, and takes that back: one after the other.
    wait_until(lambda: fleet.value(KEYS.stat("processed")) in (None, b"0"), "nothing processed")


def retry_keys(fleet: Fleet) -> dict[bytes, Any]:
    """Return what is kept of attempts; both sides use the same two keys."""
    return {key: fleet.value(key) for key in fleet.redis.scan_iter("*resque-retry*")}


def check_record(kept: dict[bytes, Any], error: str) -> None:
    (record,) = [value for key, value in kept.items() if b"failure-" in key]
    shown = json.loads(record)
    assert tuple(shown) == FIELDS
    assert (shown["exception"], shown["error"]) == (error, error)
    assert (shown["worker"], shown["queue"]) == ("retried", "q")
    assert shown["payload"] == ARGS


def test_retries_that_node_begins_we_finish(fleet: Fleet) -> None:
    with fleet.node():
        raw = fleet.push("retried", ARGS)
        fleet.await_delayed(raw)
        attempt(fleet, "node", 1)
    begun = retry_keys(fleet)
    check_record(begun, "Error: BUSTED")

    for number in (2, 3):
        fleet.bring_back()
        with fleet.ours():
            fleet.await_delayed(raw)
        attempt(fleet, "ours", number)
        assert retry_keys(fleet).keys() == begun.keys()
        assert b"%d" % (number - 1) in retry_keys(fleet).values()
    fleet.bring_back()
    with fleet.ours():
        wait_until(lambda: fleet.redis.llen(KEYS.failed()) == 1, "the end")

    attempt(fleet, "ours", 4)
    assert len(fleet.runs) == 3
    assert fleet.heard("node:tries") == 1
    assert retry_keys(fleet) == {}
    assert fleet.delayed() == []


def test_retries_that_we_begin_node_finishes(fleet: Fleet) -> None:
    raw = fleet.push("retried", ARGS)
    for number in (1, 2):
        with fleet.ours():
            fleet.await_delayed(raw)
        attempt(fleet, "ours", number)
        fleet.bring_back()
    begun = retry_keys(fleet)
    check_record(begun, "ValueError: BUSTED")

    with fleet.node():
        fleet.await_delayed(raw)
        attempt(fleet, "node", 3)
        assert retry_keys(fleet).keys() == begun.keys()
        fleet.bring_back()
        wait_until(lambda: fleet.redis.llen(KEYS.failed()) == 1, "the end")
        attempt(fleet, "node", 4)
        wait_until(lambda: retry_keys(fleet) == {}, "node to forget")

    assert (len(fleet.runs), fleet.heard("node:tries")) == (2, 2)


def test_a_success_in_node_forgets_what_we_have_counted(fleet: Fleet) -> None:
    raw = fleet.push("retried", [])
    with fleet.ours():
        wait_until(lambda: fleet.redis.llen(KEYS.failed()) == 1, "too few arguments to be refused")
    assert retry_keys(fleet) == {}  # what does not fit the function is not tried again
    raw = fleet.push("retried", [1])
    with fleet.ours():
        fleet.await_delayed(raw)
    assert set(retry_keys(fleet)) == {
        b"resque:resque-retry:retried:1",
        b"resque:failure-resque-retry:retried:1",
    }

    fleet.ledger.set("node:heal", "1")
    fleet.bring_back()
    with fleet.node():
        wait_until(lambda: fleet.value(KEYS.stat("processed")) == b"1", "node to succeed")
        wait_until(lambda: retry_keys(fleet) == {}, "node to forget")


# -- QueueLock ---------------------------------------------------------------------------------


def node_enqueues(fleet: Fleet, number: int) -> Any:
    args = encode(ARGS).decode()
    return json.loads(run_node("plugins.js", "enqueue", fleet.url, "waiting", args, number).stdout)


def test_a_job_that_waits_is_not_enqueued_again_by_either(fleet: Fleet) -> None:
    lock = KEYS.queue_lock("waiting", "q", encode(ARGS))
    assert fleet.app.queue.enqueue("q", "waiting", ARGS) is True
    assert node_enqueues(fleet, 2) == [False, False]
    fleet.redis.delete(lock)
    assert node_enqueues(fleet, 2) == [True, False]
    assert fleet.app.queue.enqueue("q", "waiting", ARGS) is False
    assert fleet.redis.llen(KEYS.queue("q")) == 2

    with fleet.node():
        wait_until(lambda: fleet.heard("node:runs") == 2, "node to work them off")
    assert not fleet.redis.exists(lock)
    assert fleet.app.queue.enqueue("q", "waiting", ARGS) is True

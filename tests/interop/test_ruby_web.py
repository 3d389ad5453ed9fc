"""resque-web beside us: what its pages read of our workers, numbers and delayed jobs.

As Resque 3.0.0 and resque-scheduler 5.0.0 read them. No Ruby is needed to run this.
"""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from redis import Redis

from forkresque.queue import Queue
from tests.support.performing import performing
from tests.support.servers import Server
from tests.support.waiting import wait_until

PAGE = 20
DUE = 4_000_000_000

pytestmark = pytest.mark.timeout(30)


@dataclass
class Row:
    """A worker as its page shows it."""

    host: str
    pid: str
    queues: list[str]
    started: datetime
    job: dict[str, Any]
    processed: int
    failed: int


@dataclass
class Web:
    """The questions that resque-web's pages ask."""

    redis: Any

    def text(self, key: str) -> str:
        return (self.redis.get(f"resque:{key}") or b"").decode()

    def queues(self) -> list[str]:
        """Return Resque.queues."""
        return sorted(name.decode() for name in self.redis.smembers("resque:queues"))

    def peek(self, queue: str) -> list[Any]:
        """Return Resque.peek of the first page."""
        return [json.loads(raw) for raw in self.redis.lrange(f"resque:queue:{queue}", 0, PAGE - 1)]

    def ids(self) -> list[str]:
        return sorted(worker.decode() for worker in self.redis.smembers("resque:workers"))

    def row(self, worker: str) -> Row:
        """Return what Worker.find and the page make of an id: it is split at two colons."""
        host, pid, queues = worker.split(":", 2)
        record = self.text(f"worker:{worker}")
        return Row(
            host,
            pid,
            queues.split(","),
            datetime.strptime(self.text(f"worker:{worker}:started"), "%Y-%m-%d %H:%M:%S %z"),
            json.loads(record) if record else {},
            int(self.text(f"stat:processed:{worker}") or 0),
            int(self.text(f"stat:failed:{worker}") or 0),
        )

    def rows(self) -> list[Row]:
        return [self.row(worker) for worker in self.ids()]

    def stats(self) -> list[str]:
        """Return the lines of /stats.txt, which are those of Resque.info."""
        sizes = {name: self.redis.llen(f"resque:queue:{name}") for name in self.queues()}
        return [
            f"resque.pending={sum(sizes.values())}",
            f"resque.processed+={int(self.text('stat:processed') or 0)}",
            f"resque.failed+={self.redis.llen('resque:failed')}",
            f"resque.workers={len(self.ids())}",
            f"resque.working={sum(bool(row.job) for row in self.rows())}",
            *(f"queues.{name}={size}" for name, size in sizes.items()),
        ]

    def delayed(self) -> list[int]:
        """Return delayed_queue_peek of the first page."""
        return [int(at) for at in self.redis.zrange("resque:delayed_queue_schedule", 0, PAGE)]

    def delayed_at(self, second: int) -> list[Any]:
        """Return delayed_timestamp_peek; of a single job, as list_range reads it, by LINDEX."""
        key = f"resque:delayed:{second}"
        raws = self.redis.lrange(key, 0, PAGE - 1)
        assert self.redis.lindex(key, 0) == (raws[0] if raws else None)
        return [json.loads(raw) for raw in raws]


@pytest.fixture
def web(one_redis: Redis) -> Web:
    return Web(one_redis)


@pytest.fixture
def queue(one_server: Server) -> Iterator[Queue]:
    queue = Queue(one_server.url)
    with closing(queue.store.client):
        yield queue


def test_a_worker_of_ours_has_a_row_with_its_job(web: Web, queue: Queue) -> None:
    released = threading.Event()
    begun = int(time.time()) - 1
    with performing(queue.connection, {"hold": lambda *_: released.wait(10)}, queues=["a", "b:c"]):
        wait_until(web.ids, "the worker")
        (idle,) = web.rows()
        queue.enqueue("b:c", "hold", ["é", {"x": [None]}])
        wait_until(lambda: web.rows()[0].job, "the job to begin")
        (busy,) = web.rows()
        released.set()
        wait_until(lambda: not web.rows()[0].job, "the job to end")

    assert (idle.host, idle.queues, idle.job) == ("ours", ["a", "b:c"], {})
    assert re.fullmatch(r"[1-9][0-9]*(\+[0-9]+)?", idle.pid)
    assert begun <= idle.started.timestamp() <= time.time() + 1
    assert busy.job.keys() >= {"queue", "run_at", "payload"}
    assert busy.job["queue"] == "b:c"
    assert (busy.job["payload"]["class"], busy.job["payload"]["args"]) == (
        "hold",
        ["é", {"x": [None]}],
    )
    run_at = datetime.strptime(busy.job["run_at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert begun <= run_at.timestamp() <= time.time() + 1
    assert web.ids() == []


def test_stats_text_has_our_numbers(web: Web, queue: Queue) -> None:
    def boom() -> None:
        raise ValueError("boom")

    released, begun = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        released.wait(10)

    for name in ("note", "boom", "note", "hold", "note"):
        queue.enqueue("a", name)
    queue.enqueue("other", "note")
    jobs = {"note": lambda: None, "boom": boom, "hold": hold}
    with performing(queue.connection, jobs, queues=["a"]):
        assert begun.wait(10)
        wait_until(lambda: len(web.rows()) == 1, "the worker")

        assert web.stats() == [
            "resque.pending=2",
            "resque.processed+=2",
            "resque.failed+=1",
            "resque.workers=1",
            "resque.working=1",
            "queues.a=1",
            "queues.other=1",
        ]
        released.set()
        wait_until(lambda: queue.stats()["processed"] == 4, "the rest")


def test_queues_show_our_jobs(web: Web, queue: Queue) -> None:
    queue.enqueue("a", "add", [1, 2.5, "é"])
    queue.enqueue("a", "add")

    assert web.queues() == ["a"]
    assert web.peek("a") == [
        {"class": "add", "queue": "a", "args": [1, 2.5, "é"]},
        {"class": "add", "queue": "a", "args": []},
    ]


def test_delayed_pages_show_our_delayed_jobs(web: Web, queue: Queue) -> None:
    queue.enqueue_at(DUE + 5, "a", "late", [2])
    queue.enqueue_at(DUE, "a", "add", [1])
    queue.enqueue_at(DUE, "a", "add", [2])

    assert web.delayed() == [DUE, DUE + 5]
    assert web.delayed_at(DUE) == [
        {"class": "add", "queue": "a", "args": [1]},
        {"class": "add", "queue": "a", "args": [2]},
    ]
    assert web.delayed_at(DUE + 5) == [{"class": "late", "queue": "a", "args": [2]}]


def test_a_worker_of_ruby_that_we_have_removed_has_no_row_and_its_job_a_failure(
    web: Web, queue: Queue, one_redis: Redis
) -> None:
    worker = "rubyhost:9:math,slow"
    record = {"queue": "math", "run_at": "2026-11-24T02:45:08Z"}
    payload = {"class": "Add", "args": [1]}
    one_redis.sadd("resque:workers", worker)
    one_redis.set(f"resque:worker:{worker}", json.dumps(record | {"payload": payload}))
    one_redis.set(f"resque:worker:{worker}:started", "2026-11-24 02:34:34 +0000")
    one_redis.hset("resque:workers:heartbeat", worker, "2026-11-24T02:34:34+00:00")
    assert web.row(worker).job["payload"] == payload

    failure = queue.force_clean_worker("rubyhost:9")

    raw: Any = one_redis.lindex("resque:failed", 0)
    assert json.loads(raw) == failure
    assert list(json.loads(raw))[:7] == [
        *("failed_at", "payload", "exception", "error", "backtrace", "worker", "queue")
    ]
    assert failure is not None
    assert failure["payload"] == payload
    datetime.strptime(failure["failed_at"], "%Y/%m/%d %H:%M:%S %Z")  # noqa: DTZ007 - UTC in all
    assert web.ids() == one_redis.hkeys("resque:workers:heartbeat") == []
    assert web.stats()[:3] == ["resque.pending=0", "resque.processed+=0", "resque.failed+=1"]

"""Failed jobs beside Ruby Resque 3.0.0: what it reads of ours, and what its buttons do to it.

For both of its backends, by their keys, commands and bytes. No Ruby is needed to run this.
"""

import json
import re
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from redis import Redis

from forkresque import Forkresque
from tests.conftest import Starter
from tests.support.servers import Server
from tests.support.transcripts import compact
from tests.support.waiting import wait_until

FIELDS = ["failed_at", "payload", "exception", "error", "backtrace", "worker", "queue"]
RETRIED_AT = "2026/11/24 02:39:15 UTC"
LISTS = {"redis": "failed", "redis_multi_queue": "math_failed"}

pytestmark = pytest.mark.timeout(30)


@dataclass
class Ruby:
    """Resque::Failure with one of its backends. `name` is that of the list of queue math."""

    redis: Any
    backend: str

    @property
    def name(self) -> str:
        return LISTS[self.backend]

    @property
    def key(self) -> str:
        return f"resque:{self.name}"

    def queues(self) -> list[str]:
        """Return Failure.queues: the lists that the web page has tabs for."""
        if self.backend == "redis":
            return ["failed"]
        return sorted(name.decode() for name in self.redis.smembers("resque:failed_queues"))

    def count(self) -> int:
        """Return Failure.count, of all lists."""
        return sum(self.redis.llen(f"resque:{name}") for name in self.queues())

    def all(self) -> list[dict[str, Any]]:
        """Return Failure.all of the list, as its page shows it."""
        return [json.loads(entry) for entry in self.redis.lrange(self.key, 0, -1)]

    def save(self, number: int, **changes: Any) -> bytes:
        """Record a failure."""
        fields = dict(zip(FIELDS, RECORDED, strict=True)) | {"payload": job(number)}
        entry = compact(fields | changes)
        if self.backend != "redis":
            self.redis.sadd("resque:failed_queues", self.name)
        self.redis.rpush(self.key, entry)
        return entry

    def requeue(self, place: int) -> None:
        """Do as Failure.requeue: the record stays, with a mark."""
        item = json.loads(self.redis.lindex(self.key, place))
        item["retried_at"] = RETRIED_AT
        self.redis.lset(self.key, place, compact(item))
        self.redis.sadd("resque:queues", item["queue"])
        payload = {"class": item["payload"]["class"], "args": item["payload"]["args"]}
        self.redis.rpush(f"resque:queue:{item['queue']}", compact(payload))

    def remove(self, place: int) -> None:
        """Do as Failure.remove."""
        self.redis.lset(self.key, place, "")
        self.redis.lrem(self.key, 1, "")

    def clear_retried(self) -> None:
        """Do as Failure.clear_retried."""
        for place, item in reversed(list(enumerate(self.all()))):
            if "retried_at" in item:
                self.remove(place)


RECORDED: list[Any] = [
    "2026/11/24 02:34:46 UTC",
    {},
    "ArgumentError",
    "oops é",
    ["boom.rb:70:in `perform'"],
    "vm:17972:math,slow",
    "math",
]


def job(number: int) -> dict[str, Any]:
    return {"class": "note", "args": [str(number)]}


@pytest.fixture(params=LISTS)
def ruby(request: pytest.FixtureRequest, one_redis: Redis) -> Ruby:
    return Ruby(one_redis, request.param)


@pytest.fixture
def app(one_server: Server, ruby: Ruby) -> Iterator[Forkresque]:
    app = Forkresque(one_server.url, failure_backend=ruby.backend)
    with closing(app.queue.store.client):
        yield app


def begin(start: Starter, ruby: Ruby, *words: str) -> None:
    """Start one worker, told of the backend as a Ruby worker is."""
    env = {"FAILURE_BACKEND": ruby.backend}
    start("-A", "tests.support.jobs", "-q", "math", "-c", "1", *words, env=env)


def push(redis: Redis, *payloads: bytes) -> None:
    """Enqueue as Ruby does."""
    redis.sadd("resque:queues", "math")
    redis.rpush("resque:queue:math", *payloads)


# -- ours, as Ruby reads it --------------------------------------------------------------------


def test_a_failure_of_ours_is_where_and_what_rubys_page_reads(
    start: Starter, ruby: Ruby, one_redis: Redis
) -> None:
    begin(start, ruby)
    push(one_redis, b'{"class":"boom","args":["oops \xc3\xa9"]}')
    wait_until(lambda: ruby.count() == 1, "the failure")

    (failure,) = ruby.all()

    assert ruby.queues() == [ruby.name]
    assert list(failure) == FIELDS
    assert failure["payload"] == {"class": "boom", "args": ["oops é"]}
    assert (failure["exception"], failure["error"]) == ("RuntimeError", "oops é")
    assert failure["backtrace"]
    assert all(isinstance(line, str) for line in failure["backtrace"])
    assert re.fullmatch(r"[^:]+:[0-9]+:math", failure["worker"])
    assert failure["queue"] == "math"
    moment = datetime.strptime(failure["failed_at"], "%Y/%m/%d %H:%M:%S %Z").replace(tzinfo=UTC)
    assert abs(moment.timestamp() - time.time()) < 60
    assert one_redis.get("resque:stat:failed") == b"1"
    assert (one_redis.exists("resque:failed") == 1) == (ruby.backend == "redis")


def test_a_job_that_killed_its_workers_is_there_too(
    start: Starter, ruby: Ruby, one_redis: Redis
) -> None:
    begin(start, ruby)
    push(one_redis, b'{"class":"die","args":["x"]}')
    wait_until(lambda: ruby.count() == 1, "the failure", 20.0)

    (failure,) = ruby.all()

    assert ruby.queues() == [ruby.name]
    assert failure["exception"] == "DirtyExit"
    assert "SIGKILL" in failure["error"]
    assert failure["payload"] == {"class": "die", "args": ["x"]}


def test_what_is_due_and_no_job_is_there_too(start: Starter, ruby: Ruby, one_redis: Redis) -> None:
    one_redis.rpush("resque:delayed:10", b"junk")
    one_redis.zadd("resque:delayed_queue_schedule", {"10": 10})

    begin(start, ruby)

    wait_until(lambda: ruby.count() == 1, "the failure")
    assert ruby.queues() == ["failed"]  # it names no queue
    assert one_redis.llen("resque:failed") == 1


def test_the_flag_is_stronger_than_rubys_variable(
    start: Starter, ruby: Ruby, one_redis: Redis
) -> None:
    (other,) = set(LISTS) - {ruby.backend}
    begin(start, Ruby(one_redis, other), "--failure-backend", ruby.backend)
    push(one_redis, b'{"class":"boom","args":["x"]}')

    wait_until(lambda: one_redis.llen(ruby.key) == 1, "the failure")


# -- Ruby's buttons, on records of ours ---------------------------------------------------------


def test_ruby_retries_a_failure_of_ours_and_keeps_the_record(
    start: Starter, ruby: Ruby, app: Forkresque, one_redis: Redis
) -> None:
    begin(start, ruby)
    # What node has enqueued names its queue, and Ruby leaves that out when it enqueues again.
    head = b'{"class":"boom","queue":"math","args":'
    push(one_redis, head + b'["one"]}', head + b'["two"]}')
    wait_until(lambda: ruby.count() == 2, "two failures")
    before = app.queue.failed()

    ruby.requeue(1)

    wait_until(lambda: ruby.count() == 3, "the second failure of the second")
    first, marked, again = app.queue.failed()
    assert (first, first.retried_at) == (before[0], "")
    assert (marked.retried_at, marked.args) == (RETRIED_AT, ["two"])
    assert (again.args, again.retried_at) == (["two"], "")
    assert not app.queue.retry_failed(before[1])  # these bytes are gone

    ruby.clear_retried()

    assert app.queue.failed() == [first, again]


def test_ruby_removes_a_failure_of_ours_by_its_place(
    start: Starter, ruby: Ruby, app: Forkresque, one_redis: Redis
) -> None:
    begin(start, ruby)
    push(one_redis, *(b'{"class":"boom","args":["%d"]}' % number for number in range(3)))
    wait_until(lambda: ruby.count() == 3, "three failures")

    ruby.remove(1)

    assert [failure.args for failure in app.queue.failed()] == [["0"], ["2"]]
    assert app.queue.failed_count() == app.queue.failed_count("math") == 2


# -- records of Ruby ----------------------------------------------------------------------------


def test_a_failure_of_ruby_is_read_in_either_backend(ruby: Ruby, app: Forkresque) -> None:
    entry = ruby.save(1)

    (failure,) = app.queue.failed()

    assert failure.raw_entry == entry
    assert (failure.failed_at, failure.retried_at) == ("2026/11/24 02:34:46 UTC", "")
    assert (failure.name, failure.args, failure.queue) == ("note", ["1"], "math")
    assert (failure.exception, failure.error) == ("ArgumentError", "oops é")
    assert failure.backtrace == ["boom.rb:70:in `perform'"]
    assert failure.worker == "vm:17972:math,slow"
    assert app.queue.failed(queue="math") == [failure]
    assert app.queue.failed(queue="slow") == []


def test_a_failure_of_ruby_is_put_back_and_performed(
    start: Starter, ruby: Ruby, app: Forkresque, one_redis: Redis, ledger: Redis
) -> None:
    ruby.save(1)
    ruby.save(2)

    assert app.queue.retry_and_remove_failed(app.queue.failed()[1])

    assert one_redis.lrange("resque:queue:math", 0, -1) == [compact(job(2))]
    assert [item["payload"] for item in ruby.all()] == [job(1)]
    begin(start, ruby)
    wait_until(lambda: ledger.lrange("runs", 0, -1) == [b"2"], "the job")


def test_a_record_that_is_being_removed_is_no_hindrance(ruby: Ruby, app: Forkresque) -> None:
    """Between its LSET and its LREM, Ruby leaves an empty text."""
    ruby.save(1, exception="Resque::DirtyExit")
    ruby.save(2, exception="Resque::DirtyExit")
    ruby.redis.lset(ruby.key, 0, "")

    assert app.queue.failed()[0].exception == "(unreadable record)"
    assert app.queue.retry_stuck_jobs() == 1
    ruby.redis.lrem(ruby.key, 1, "")

    assert ruby.count() == 0
    assert ruby.redis.lrange("resque:queue:math", 0, -1) == [compact(job(2))]


def test_what_ruby_has_retried_is_not_retried_with_the_others(
    ruby: Ruby, app: Forkresque, one_redis: Redis
) -> None:
    for number in range(3):
        ruby.save(number, exception="Resque::DirtyExit")
    ruby.requeue(1)
    one_redis.delete("resque:queue:math")

    assert app.queue.retry_stuck_jobs() == 2

    assert one_redis.lrange("resque:queue:math", 0, -1) == [*map(compact, map(job, (0, 2)))]
    (kept,) = app.queue.failed()
    assert kept.retried_at == RETRIED_AT
    assert app.queue.retry_failed(kept)  # but who asks for it by name may have it


def test_failures_of_node_are_read_beside_rubys_lists(ruby: Ruby, app: Forkresque) -> None:
    """node-resque knows no list but that for all."""
    entry = (
        b'{"worker":"h:1","queue":"math","payload":{"class":"note","queue":"math","args":["n"]},'
        b'"exception":"Error","error":"x","backtrace":null,'
        b'"failed_at":"Tue Nov 24 2026 02:36:10 GMT+0000 (Coordinated Universal Time)"}'
    )
    ruby.save(1)
    ruby.redis.rpush("resque:failed", entry)

    by_args = {json.dumps(failure.args): failure for failure in app.queue.failed()}

    assert by_args['["n"]'].raw_entry == entry
    assert all(map(app.queue.retry_failed, by_args.values()))
    assert ruby.redis.llen("resque:queue:math") == 2

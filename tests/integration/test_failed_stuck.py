"""Jobs that failed because their worker died: whoever recorded them, each is put back once."""

import json
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from redis import Redis

from forkresque import Connection, InvalidArgs, Queue
from forkresque.protocol.connection import Client, Target
from forkresque.protocol.failure import failure_entry, parse_failure
from forkresque.protocol.failures import PAGE
from forkresque.protocol.foreign import cleaning_entry
from forkresque.protocol.pages import Walk
from forkresque.protocol.stuck import is_stuck
from tests.support.connections import Over
from tests.support.servers import Server
from tests.support.transcripts import compact
from tests.support.world import KEYS, spoil

FAILED, QUEUE = KEYS.failed(), KEYS.queue("math")


@pytest.fixture
def queue(one_server: Server) -> Iterator[Queue]:
    queue = Queue(one_server.url)
    with closing(queue.store.client):
        yield queue


def job(number: int) -> bytes:
    return b'{"class":"Add","args":[%d]}' % number


def record(number: int, **changes: Any) -> bytes:
    """Return a failure as Ruby records it."""
    fields = {
        "failed_at": "2026/11/24 02:34:46 UTC",
        "payload": json.loads(job(number)),
        "exception": "ArgumentError",
        "error": "oops é",
        "backtrace": ["boom.rb:70:in `perform'"],
        "worker": "vm:17972:math,slow",
        "queue": "math",
    }
    return compact(fields | changes)


def died(number: int) -> bytes:
    return record(number, exception="Resque::DirtyExit", error="Job still being processed")


def node_cleaned(number: int) -> bytes:
    working = b'{"run_at":"","queue":"math","worker":"h:1","payload":%b}' % job(number)
    return cleaning_entry(working, "h:1", host="h", failed_at=1.0)


def ours(number: int, exception: str) -> bytes:
    return failure_entry(
        raw=job(number),
        exception=exception,
        error="worker h:1:math was killed by SIGKILL",
        backtrace=[],
        worker="h:1:math",
        queue="math",
        failed_at=1.0,
    )


# -- which -------------------------------------------------------------------------------------

STUCK = {
    "cleaned by node": node_cleaned(1),
    "as node writes it": record(
        1,
        exception="Worker Timeout (killed manually)",
        backtrace=["killed by vm at Tue Nov 24 2026", "queue#forceCleanWorker", "node-resque"],
    ),
    "found dead by Ruby": died(1),
    "pruned by Ruby": record(1, exception="Resque::PruneDeadWorkerDirtyExit", backtrace=[]),
}
ORDINARY = {
    "it raised": record(1),
    "it raised a non-Error in node": b'{"worker":"h:1","queue":"math","payload":%b,'
    b'"backtrace":null,"failed_at":"Tue Nov 24 2026 02:36:10 GMT+0000"}' % job(1),
    "a word in its message": record(1, error="DirtyExit at queue#forceCleanWorker"),
    "the mark elsewhere": record(1, backtrace=["queue#forceCleanWorker"]),
    "a class that ends alike": record(1, exception="My::DirtyExit"),
    "over its time limit": ours(1, "JobTimeout"),
    "a poison pill of ours": ours(1, "DirtyExit"),  # judged: it would kill the next worker
    "retried by Ruby": record(
        1, exception="Resque::DirtyExit", retried_at="2026/11/24 02:39:15 UTC"
    ),
    "without a queue": record(1, exception="Resque::DirtyExit", queue=None),
    "without a payload": record(1, exception="Resque::DirtyExit", payload=None),
    "no record": b"\xff DirtyExit",
    "being removed by Ruby": b"",
}


@pytest.mark.parametrize("entry", STUCK.values(), ids=STUCK)
def test_a_job_whose_worker_died_is_stuck_in_each_systems_words(
    queue: Queue, one_redis: Redis, entry: bytes
) -> None:
    one_redis.rpush(FAILED, entry)

    assert is_stuck(parse_failure(entry))
    assert queue.retry_stuck_jobs() == 1

    assert one_redis.lrange(QUEUE, 0, -1) == [job(1)]
    assert not one_redis.exists(FAILED)
    assert queue.retry_stuck_jobs() == 0


@pytest.mark.parametrize("entry", ORDINARY.values(), ids=ORDINARY)
def test_any_other_failure_is_left_alone_and_stops_nothing(
    queue: Queue, one_redis: Redis, entry: bytes
) -> None:
    one_redis.rpush(FAILED, entry, died(2))

    assert queue.retry_stuck_jobs() == 1

    assert one_redis.lrange(FAILED, 0, -1) == [entry]
    assert one_redis.lrange(QUEUE, 0, -1) == [job(2)]


# -- all of them -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 250, PAGE, 2 * PAGE + 1])
def test_none_is_passed_over_while_the_list_shrinks(
    queue: Queue, one_redis: Redis, number: int
) -> None:
    """node-resque passes over every second hundred."""
    one_redis.rpush(FAILED, *map(died, range(number)))

    assert queue.retry_stuck_jobs() == number

    assert one_redis.lrange(QUEUE, 0, -1) == [job(each) for each in range(number)]
    assert not one_redis.exists(FAILED)


def test_stuck_jobs_among_others_are_put_back_the_oldest_first(
    queue: Queue, one_redis: Redis
) -> None:
    entries = [died(n) if n % 3 == 0 else record(n) for n in range(3 * PAGE)]
    one_redis.rpush(FAILED, *entries)

    assert queue.retry_stuck_jobs() == PAGE

    assert one_redis.lrange(QUEUE, 0, -1) == [job(n) for n in range(0, 3 * PAGE, 3)]
    assert one_redis.lrange(FAILED, 0, -1) == [record(n) for n in range(3 * PAGE) if n % 3]


@pytest.mark.parametrize("limit", [0, 1, 99, 100, 101, 300])
def test_a_limit_is_kept_to(queue: Queue, one_redis: Redis, limit: int) -> None:
    """node-resque does nothing at all with a limit up to a hundred."""
    one_redis.rpush(FAILED, record(0), *map(died, range(1, 251)))

    assert queue.retry_stuck_jobs(limit) == min(limit, 250)

    assert one_redis.llen(QUEUE) == min(limit, 250)
    assert one_redis.llen(FAILED) == 251 - min(limit, 250)
    if limit:
        assert one_redis.lindex(QUEUE, 0) == job(1)


def test_a_negative_limit_is_refused(queue: Queue) -> None:
    with pytest.raises(InvalidArgs, match="limit must be at least 0, got -1"):
        queue.retry_stuck_jobs(-1)


def test_records_that_are_equal_are_as_many_jobs(queue: Queue, one_redis: Redis) -> None:
    one_redis.rpush(FAILED, died(1), record(2), died(1), record(3), died(1))

    assert queue.retry_stuck_jobs() == 3

    assert one_redis.lrange(QUEUE, 0, -1) == [job(1)] * 3
    assert one_redis.lrange(FAILED, 0, -1) == [record(2), record(3)]


def test_a_job_whose_queue_is_none_does_not_stop_the_others(queue: Queue, one_redis: Redis) -> None:
    odd = record(1, exception="Resque::DirtyExit", queue="odd")
    one_redis.rpush(FAILED, odd, died(2))
    spoil(one_redis, KEYS.queue("odd"))

    assert queue.retry_stuck_jobs() == 1

    assert one_redis.lrange(FAILED, 0, -1) == [odd]
    assert one_redis.lrange(QUEUE, 0, -1) == [job(2)]


def test_every_failed_list_is_looked_through(one_server: Server, one_redis: Redis) -> None:
    queue = Queue(Connection(one_server.url, failure_backend="redis_multi_queue"))
    one_redis.sadd("resque:failed_queues", "math_failed", "low_failed", "gone_failed")
    one_redis.rpush("resque:math_failed", record(0), died(1))
    one_redis.rpush("resque:low_failed", died(2))
    one_redis.rpush(FAILED, died(3))

    with closing(queue.store.client):
        assert queue.retry_stuck_jobs(2) == 2
        assert queue.retry_stuck_jobs() == 1

    assert sorted(one_redis.lrange(QUEUE, 0, -1)) == [job(1), job(2), job(3)]
    assert one_redis.lrange("resque:math_failed", 0, -1) == [record(0)]


# -- while others change the list --------------------------------------------------------------


class Meddling(Client):
    """A client whose list others change each time before a page of it is read."""

    def __init__(self, target: Target, redis: Redis, *removals: tuple[int, int]) -> None:
        super().__init__(target)
        self._redis, self._removals, self.pages = redis, list(removals), 0

    def command(self, *words: Any) -> Any:
        if words[0] == "LRANGE":
            self.pages += 1
            if self.pages > 1 and self._removals:
                self._redis.ltrim(FAILED, *self._removals.pop(0))
        return super().command(*words)


@pytest.mark.parametrize("removals", [[(1, -1)], [(PAGE, -1)], [(10, -1), (10, -1)], [(0, -2)]])
def test_none_is_passed_over_when_others_remove_records(
    one_server: Server, one_redis: Redis, removals: list[tuple[int, int]]
) -> None:
    entries = [*map(record, range(PAGE)), *map(died, range(PAGE)), record(-1)]
    one_redis.rpush(FAILED, *entries)
    client = Meddling(Target(one_server.url), one_redis, *removals)

    with closing(client):
        assert Queue(Over(client)).retry_stuck_jobs() == PAGE

    assert one_redis.lrange(QUEUE, 0, -1) == [job(n) for n in range(PAGE)]
    left: Any = one_redis.lrange(FAILED, 0, -1)
    assert not [entry for entry in left if is_stuck(parse_failure(entry))]


def test_a_walk_ends_when_the_list_does(one_server: Server, one_redis: Redis) -> None:
    one_redis.rpush(FAILED, *map(record, range(3)))
    client = Target(one_server.url).client()
    with closing(client):
        walk = Walk(client, FAILED, 3, page=PAGE)
        page = walk.page()
        walk.pass_by(page)
        one_redis.delete(FAILED)

        assert page == [record(n) for n in range(3)]
        assert walk.page() == []


def test_two_who_retry_at_once_put_each_job_back_once(one_server: Server, one_redis: Redis) -> None:
    """The second begins whenever the first reads a page."""
    one_redis.rpush(FAILED, *(died(n) if n % 2 else record(n) for n in range(4 * PAGE)))
    second = Queue(one_server.url)
    client = Interrupted(Target(one_server.url), partial(second.retry_stuck_jobs, PAGE // 3))

    with closing(client), closing(second.store.client):
        first = Queue(Over(client)).retry_stuck_jobs()

    assert first + client.told == 2 * PAGE
    assert sorted(one_redis.lrange(QUEUE, 0, -1)) == sorted(job(n) for n in range(1, 4 * PAGE, 2))
    assert one_redis.llen(FAILED) == 2 * PAGE


class Interrupted(Client):
    """A client that has somebody else act after each page."""

    def __init__(self, target: Target, act: Any) -> None:
        super().__init__(target)
        self._act, self.told = act, 0

    def command(self, *words: Any) -> Any:
        answer = super().command(*words)
        if words[0] == "LRANGE":
            self.told += self._act()
        return answer


@pytest.mark.full
@pytest.mark.timeout(120)
def test_a_million_failures_are_looked_through_in_pages(queue: Queue, one_redis: Redis) -> None:
    """What stands at the end is not sought from the head each time."""
    with one_redis.pipeline(transaction=False) as pipe:
        for start in range(0, 1_000_000, 10_000):
            pipe.rpush(FAILED, *map(record, range(start, start + 10_000)))
            pipe.execute()
    one_redis.rpush(FAILED, *map(died, range(1000)))

    assert queue.failed_count() == 1_001_000
    assert len(queue.failed(500_000, 500_099)) == 100
    assert queue.retry_stuck_jobs() == 1000
    assert one_redis.llen(QUEUE) == 1000

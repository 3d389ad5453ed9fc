"""What operators and the leader ask of Redis grows with what they get, and no question is long.

Counted, not timed: the commands that Redis executes, those inside scripts as well, and the bytes
that it sends, for N and for four times as much.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from redis import Redis

from forkresque import Queue
from forkresque.promoter import Promoter
from forkresque.protocol.connection import Target
from forkresque.protocol.delayed import Delayed
from forkresque.protocol.failure import failure_entry, parse_failure
from forkresque.protocol.keys import Keys
from forkresque.protocol.pages import PAGE
from tests.support.servers import Server
from tests.support.sizes import sized

KEYS = Keys("resque")
SMALL, TIMES = 1500, 4
SIZES = sized(SMALL, 250_000)
CHUNK = 10_000
FAR = 4_000_000_000


@dataclass(frozen=True)
class Cost:
    """What an act has cost Redis."""

    commands: int
    scripts: int
    sent: int
    answer: Any


@pytest.fixture
def queue(one_server: Server) -> Iterator[Queue]:
    queue = Queue(one_server.url)
    queue.length("q")  # connected
    yield queue
    queue.end()


def cost(redis: Redis, act: Callable[[], Any]) -> Cost:
    """Return what `act` costs."""
    redis.config_resetstat()
    redis.script_flush()
    before: Any = redis.info("stats")
    answer = act()
    stats: Any = redis.info("commandstats")
    after: Any = redis.info("stats")
    own = ("config", "info", "script", "client", "hello")
    calls = {
        name.removeprefix("cmdstat_"): one["calls"]
        for name, one in stats.items()
        if not name.removeprefix("cmdstat_").startswith(own)
    }
    scripts = calls.get("evalsha", 0)
    sent = after["total_net_output_bytes"] - before["total_net_output_bytes"]
    return Cost(sum(calls.values()), scripts, sent, answer)


def raw(number: int, name: str = "") -> bytes:
    return b'{"class":"%b","queue":"q","args":[%d]}' % (name.encode() or b"x", number)


def entry(number: int) -> bytes:
    return failure_entry(
        raw=raw(number),
        exception="ValueError",
        error="no",
        backtrace=[],
        worker="host:1:q",
        queue="q",
        failed_at=1_795_000_000 + number,
    )


def fill(redis: Redis, number: int) -> None:
    redis.flushdb()
    for start in range(0, number, CHUNK):
        part = range(start, min(start + CHUNK, number))
        redis.rpush(KEYS.queue("q"), *(raw(each, "xy"[each % 2]) for each in part))
    redis.sadd(KEYS.queues(), "q")


def schedule(redis: Redis, number: int, *, at: int = FAR, crowd: int = 1) -> None:
    """Have so many jobs delayed, `crowd` of them at each second."""
    redis.flushdb()
    pipeline = redis.pipeline()
    for each in range(number):
        second = at + each // crowd
        pipeline.rpush(KEYS.delayed(second), raw(each))
        pipeline.sadd(KEYS.timestamps(raw(each)), f"delayed:{second}")
        pipeline.zadd(KEYS.schedule(), {str(second): second})
        if len(pipeline) >= CHUNK:
            pipeline.execute()
    pipeline.execute()


def workers(redis: Redis, number: int) -> None:
    redis.flushdb()
    for each in range(number):
        redis.sadd(KEYS.workers(), f"host:{each}:q")
        if each % 2:
            redis.set(KEYS.worker(f"host:{each}:q"), b'{"run_at":"2026-11-24T02:45:08Z"}')


QUEUED: dict[str, Callable[[Queue], Any]] = {
    "length": lambda q: q.length("q"),
    "a page": lambda q: len(q.peek("q", 700, 719)),
    "all": lambda q: len(q.peek("q")),
    "all, decoded": lambda q: len(q.queued("q", 3, -4)),
    "delete by value": lambda q: q.delete("q", "x", [500]),
    "delete by function": lambda q: q.delete_by_function("q", "x"),
    "delete by function in a stretch": lambda q: q.delete_by_function("q", "x", 1, -2),
    "delete the queue": lambda q: q.delete_queue("q"),
}
DELAYED: dict[str, Callable[[Queue], Any]] = {
    "count": lambda q: q.delayed_count(),
    "seconds": lambda q: len(q.timestamps()),
    "all": lambda q: len(q.all_delayed()),
    "one second": lambda q: len(q.delayed_at(FAR).tasks),
    "scheduled": lambda q: q.scheduled_at("q", "x", [500]),
    "delete": lambda q: q.delete_delayed("q", "x", [500]),
}
STAFF: dict[str, Callable[[Queue], Any]] = {
    "workers": lambda q: len(q.workers()),
    "records": lambda q: len(q.all_working_on()),
    "clean": lambda q: q.force_clean_worker("host:1"),
    "clean nobody": lambda q: q.clean_old_workers(10**9),
    "clean all": lambda q: len(q.clean_old_workers(0)),
    "stats": lambda q: len(q.stats()),
}
CASES = [
    *((fill, name, act) for name, act in QUEUED.items()),
    *((schedule, name, act) for name, act in DELAYED.items()),
    *((workers, name, act) for name, act in STAFF.items()),
]


@pytest.mark.parametrize(
    ("arrange", "act"),
    [(arrange, act) for arrange, _, act in CASES],
    ids=[f"{arrange.__name__}: {name}" for arrange, name, _ in CASES],
)
def test_nothing_that_operators_call_grows_faster_than_what_there_is(
    one_redis: Redis,
    queue: Queue,
    arrange: Callable[[Redis, int], None],
    act: Callable[[Queue], Any],
) -> None:
    arrange(one_redis, SMALL)
    small = cost(one_redis, lambda: act(queue))
    arrange(one_redis, TIMES * SMALL)
    large = cost(one_redis, lambda: act(queue))

    assert small.commands > 0
    assert large.commands <= TIMES * small.commands + 20
    assert large.sent <= TIMES * small.sent * 1.1 + 2000


@pytest.mark.parametrize("name", ["length", "a page", "delete the queue"])
def test_some_questions_cost_the_same_whatever_waits(
    one_redis: Redis, queue: Queue, name: str
) -> None:
    fill(one_redis, SMALL)
    small = cost(one_redis, lambda: QUEUED[name](queue))
    fill(one_redis, TIMES * SMALL)
    large = cost(one_redis, lambda: QUEUED[name](queue))

    assert (large.commands, large.scripts) == (small.commands, small.scripts)
    assert abs(large.sent - small.sent) < 200


@pytest.mark.parametrize("crowd", [1, 7, 10**6])
@pytest.mark.parametrize("size", SIZES)
def test_a_promotion_costs_the_same_for_each_job_however_many_are_late(
    one_server: Server, one_redis: Redis, crowd: int, size: int
) -> None:
    costs = []
    for number in (size, TIMES * size):
        schedule(one_redis, number, at=1000, crowd=crowd)
        with closing(Target(one_server.url).link()) as link:
            promoter = Promoter(Delayed(link, KEYS), name="host:1", term=3600.0)
            promoter.renew()
            promoter._renew_at = math.inf  # else it would by the clock, however few it moves
            steps = number // 100

            def promote(promoter: Promoter = promoter, steps: int = steps) -> int:
                return sum(promoter.step().promoted for _ in range(steps))

            costs.append(cost(one_redis, promote))
            assert costs[-1].answer == number
            promoter.resign()
    small, large = costs

    assert large.commands <= TIMES * small.commands
    number = TIMES * size
    most = number // 100 + number // 100_000  # to read, to move, to lead
    assert large.scripts <= 2 * most + 10
    assert large.commands / number <= 6.5  # with a second for each


@pytest.mark.parametrize("size", SIZES)
def test_half_of_a_queue_is_deleted_in_its_order(one_redis: Redis, queue: Queue, size: int) -> None:
    fill(one_redis, TIMES * size)

    assert queue.delete_by_function("q", "y") == TIMES * size // 2

    kept = one_redis.lrange(KEYS.queue("q"), 0, -1)
    assert kept == [raw(each, "x") for each in range(0, TIMES * size, 2)]


def test_a_long_stretch_is_deleted_and_nothing_beside_it(one_redis: Redis, queue: Queue) -> None:
    one_redis.rpush(KEYS.queue("q"), *[raw(1)] * (3 * PAGE))

    assert queue.delete_by_function("q", "x", 5, -10) == 3 * PAGE - 14

    assert one_redis.llen(KEYS.queue("q")) == 14


def test_all_seconds_are_seen_though_they_share_scores(one_redis: Redis, queue: Queue) -> None:
    number = 2 * PAGE + 500
    one_redis.zadd(KEYS.schedule(), {str(FAR + each): 1 + each // 1500 for each in range(number)})

    assert queue.timestamps() == [FAR + each for each in range(number)]


def test_a_crowded_second_is_told_in_its_order(one_redis: Redis, queue: Queue) -> None:
    schedule(one_redis, 2 * PAGE + 1, crowd=10**6)

    tasks = queue.delayed_at(FAR).tasks

    assert [task["args"] for task in tasks] == [[each] for each in range(2 * PAGE + 1)]
    assert queue.all_delayed() == {FAR: tasks}


@pytest.mark.parametrize("number", [SMALL, TIMES * SMALL])
def test_the_newest_and_the_oldest_failures_are_found_without_a_look_at_the_others(
    one_redis: Redis, queue: Queue, number: int
) -> None:
    entries = [entry(each) for each in range(number)]
    one_redis.rpush(KEYS.failed(), *entries)
    newest, oldest = parse_failure(entries[-2]), parse_failure(entries[1])

    retried = [
        cost(one_redis, partial(queue.retry_failed, newest)),
        cost(one_redis, partial(queue.retry_failed, oldest)),
    ]
    removed = cost(one_redis, lambda: queue.remove_failed(parse_failure(entries[-1])))

    assert [one.answer for one in (*retried, removed)] == [True] * 3
    assert [one.commands for one in retried] == [12, 11]
    assert removed.commands == 6
    assert one_redis.lrange(KEYS.queue("q"), 0, -1) == [newest.payload, oldest.payload]
    assert one_redis.lrange(KEYS.failed(), 0, -1) == [entries[0], *entries[2:-2]]


def test_a_failure_in_the_middle_is_found_as_well(one_redis: Redis, queue: Queue) -> None:
    number = 12_000  # more than are looked at from the tail
    entries = [entry(each) for each in range(number)]
    one_redis.rpush(KEYS.failed(), *entries)

    assert queue.remove_failed(parse_failure(entries[200]))
    assert queue.retry_failed(parse_failure(entries[300]))
    assert not queue.remove_failed(parse_failure(entries[300]))

    assert one_redis.llen(KEYS.failed()) == number - 2
    assert one_redis.lrange(KEYS.queue("q"), 0, -1) == [raw(300)]


@pytest.mark.parametrize(
    ("start", "stop"), [(0, -1), (1, 5000), (-5500, -3), (10, -10), (7000, -1)]
)
def test_a_long_stretch_is_read_in_its_order_and_by_pages(
    one_redis: Redis, queue: Queue, start: int, stop: int
) -> None:
    number = TIMES * SMALL
    fill(one_redis, number)
    whole = one_redis.lrange(KEYS.queue("q"), start, stop)

    read = cost(one_redis, lambda: queue.peek("q", start, stop))

    assert read.answer == whole
    assert read.commands == 1 + -(-len(whole) // PAGE)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("act", [Queue.retry_each, Queue.remove_each])
def test_many_failures_in_the_middle_cost_the_same_for_each(
    one_redis: Redis, queue: Queue, size: int, act: Callable[..., Iterator[list[bytes]]]
) -> None:
    costs = []
    for number in (size, TIMES * size):
        one_redis.flushdb()
        for start in range(0, number, CHUNK):
            part = range(start, min(start + CHUNK, number))
            one_redis.rpush(KEYS.failed(), *map(entry, part))
        chosen = [parse_failure(entry(each)) for each in range(number // 3, number // 2, 2)]

        costs.append(
            cost(one_redis, partial(lambda chosen: sum(map(len, act(queue, chosen))), chosen))
        )

        assert costs[-1].answer == len(chosen)
        assert one_redis.llen(KEYS.failed()) == number - len(chosen)
    small, large = costs

    assert large.scripts <= TIMES * (small.scripts + 1)
    assert large.commands <= TIMES * (small.commands + 20)
    assert large.sent <= TIMES * small.sent * 1.1


NODE, RUBY = b'{"class":"x","queue":"q","args":[7]}', b'{"class":"x","args":[7]}'


@pytest.mark.parametrize("count", [TIMES * PAGE, -TIMES * PAGE])
def test_as_many_jobs_as_were_asked_for_are_deleted_by_few_scripts_in_whichever_spelling(
    one_redis: Redis, queue: Queue, count: int
) -> None:
    others = [raw(each, "y") for each in range(SMALL)]
    one_redis.rpush(KEYS.queue("q"), *others, *[NODE, RUBY] * (3 * PAGE), *others)

    deleted = cost(one_redis, lambda: queue.delete("q", "x", [7], count))

    assert deleted.answer == TIMES * PAGE
    assert deleted.scripts == TIMES
    assert deleted.commands <= TIMES * (PAGE + 10)
    left = [NODE, RUBY] * PAGE
    assert one_redis.lrange(KEYS.queue("q"), 0, -1) == [*others, *left, *others]


def test_a_count_is_taken_from_its_end_across_the_spellings(one_redis: Redis, queue: Queue) -> None:
    one_redis.rpush(KEYS.queue("q"), RUBY, raw(1), NODE, NODE, raw(2), RUBY, NODE)

    assert queue.delete("q", "x", [7], -2) == 2
    assert queue.delete("q", "x", [7], 2) == 2

    assert one_redis.lrange(KEYS.queue("q"), 0, -1) == [raw(1), NODE, raw(2)]
    assert queue.delete("q", "x", [7], 5) == 1

"""Ruby Resque and resque-scheduler as recorded: what they write, read, hold and look for.

The bytes are from Resque 3.0.0 and resque-scheduler 5.0.0. No Ruby is needed to run this.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from redis import Redis

from forkresque import Forkresque
from tests.conftest import Starter
from tests.support.patience import Bench, patient
from tests.support.processes import Start, assert_nothing_left, title
from tests.support.servers import Server
from tests.support.waiting import wait_until

RUBY_LOCK = "resque:resque:resque_scheduler_master_lock"
NODE_LOCKS = ("resque:resque_scheduler_leader_lock", "resque:resque_scheduler_master_lock")

# What a Ruby worker that starts looks for before it unregisters the others on its host.
ALIVE_TO_RUBY = re.compile(r"resque:work|resque:\sStarting|resque-[0-9]")
NOT_ALIVE_TO_RUBY = "resque-web"

GATE = b'{"class":"gate","args":["ruby"]}'


def beginning(start: Starter, redis: Redis) -> Callable[..., Start]:
    """Return what starts workers on queue `math` and waits until all are registered."""

    def begin(concurrency: int = 1, *, queues: str = "math", url: str | None = None) -> Start:
        before = redis.scard("resque:workers")
        words = ("-A", "tests.support.jobs", "-q", queues, "-c", str(concurrency))
        started = start(*words, url=url)
        wait_until(lambda: redis.scard("resque:workers") == before + concurrency, "workers")
        return started

    return begin


@pytest.fixture
def begin(start: Starter, one_redis: Redis) -> Callable[..., Start]:
    """Return what starts workers on the test's Redis."""
    return beginning(start, one_redis)


@pytest.fixture
def app(one_server: Server) -> Iterator[Forkresque]:
    app = Forkresque(one_server.url)
    with closing(app.queue.store.client):
        yield app


def push(redis: Redis, *payloads: bytes, queue: str = "math") -> None:
    """Enqueue as Ruby does."""
    redis.sadd("resque:queues", queue)
    redis.rpush(f"resque:queue:{queue}", *payloads)


def delay(redis: Redis, payload: bytes, second: int) -> None:
    """Delay as resque-scheduler does."""
    redis.rpush(f"resque:delayed:{second}", payload)
    redis.sadd(b"resque:timestamps:" + payload, f"delayed:{second}")
    redis.zadd("resque:delayed_queue_schedule", {str(second): second})


def await_processed(redis: Redis, number: int) -> None:
    wanted = str(number).encode()
    wait_until(lambda: redis.get("resque:stat:processed") == wanted, f"{number} processed")


def workers(redis: Redis) -> list[str]:
    found: Any = redis.smembers("resque:workers")
    return sorted(worker.decode() for worker in found)


def runs(ledger: Redis) -> list[bytes]:
    marks: Any = ledger.lrange("runs", 0, -1)
    return list(marks)


# -- jobs ----------------------------------------------------------------------------------


@pytest.mark.timeout(20)
def test_a_payload_of_ruby_runs(
    begin: Callable[..., Start], one_redis: Redis, ledger: Redis
) -> None:
    begin()

    push(one_redis, '{"class":"note","args":["é/</script>"]}'.encode())
    push(one_redis, b'{"class":"note","args":[1.0e-05],"id":"abc","queue_time":1.5}')

    await_processed(one_redis, 2)
    assert runs(ledger) == ["é/</script>".encode(), b"1e-05"]


@pytest.mark.timeout(20)
def test_a_job_in_hand_shows_rubys_payload_untouched(
    begin: Callable[..., Start], one_redis: Redis, ledger: Redis
) -> None:
    begin()
    raw = b'{"class":"gate","args":["ruby"],"x":[1.0,1.0e+20,[],"\\u00e9\\/"]}'
    push(one_redis, raw)
    wait_until(lambda: ledger.llen("started:ruby"), "the job to start")

    record = one_redis.get(f"resque:worker:{workers(one_redis)[0]}")

    assert isinstance(record, bytes)
    assert record.endswith(b',"queue":"math","payload":' + raw + b"}")
    ledger.rpush("release:ruby", "go")
    await_processed(one_redis, 1)


# -- delayed jobs --------------------------------------------------------------------------


@pytest.mark.timeout(20)
def test_delayed_jobs_of_ruby_are_promoted_byte_for_byte(
    begin: Callable[..., Start], one_redis: Redis
) -> None:
    raws = ['{"class":"Add","args":[1.0,1.0e+20,"é/",[]],"queue":"ruby"}'.encode()]
    raws.append(b'{"class":"Foo::Bar","args":[],"queue":"ruby"}')
    due, later = int(time.time()) - 5, int(time.time()) + 3600
    for raw in raws:
        delay(one_redis, raw, due)
    delay(one_redis, raws[0], later)
    one_redis.hset("resque:delayed:last_enqueued_at", "cron", "2026-11-24 02:38:17 +0000")

    begin()  # for another queue, so that these stay where they are put
    wait_until(lambda: one_redis.llen("resque:queue:ruby") == 2, "the promotion")

    assert one_redis.lrange("resque:queue:ruby", 0, -1) == raws
    assert one_redis.smembers("resque:queues") == {b"ruby"}
    assert one_redis.zrange("resque:delayed_queue_schedule", 0, -1) == [str(later).encode()]
    assert not one_redis.exists(f"resque:delayed:{due}")
    assert one_redis.smembers(b"resque:timestamps:" + raws[0]) == {f"delayed:{later}".encode()}
    assert not one_redis.exists(b"resque:timestamps:" + raws[1])
    assert one_redis.lrange(f"resque:delayed:{later}", 0, -1) == [raws[0]]


@patient
def test_a_ruby_scheduler_with_its_lock_is_the_only_one_that_promotes(bench: Bench) -> None:
    one_redis, ledger = bench.site.redis, bench.site.ledger
    begin = beginning(bench.start, one_redis)
    raw = b'{"class":"note","args":["late"],"queue":"math"}'
    second = int(time.time()) - 5
    delay(one_redis, raw, second)
    one_redis.set(RUBY_LOCK, "localhost:17392", ex=180)
    begin()

    # Both are written by the script that saw the lock; a job shows that all else goes on.
    wait_until(lambda: one_redis.exists("resque:fr:leader"), "our scheduler")
    push(one_redis, b'{"class":"note","args":["now"]}')
    await_processed(one_redis, 1)

    assert runs(ledger) == [b"now"]
    assert one_redis.lrange(f"resque:delayed:{second}", 0, -1) == [raw]
    assert one_redis.exists(*NODE_LOCKS) == 0
    assert one_redis.get(RUBY_LOCK) == b"localhost:17392"

    one_redis.delete(RUBY_LOCK)
    await_processed(one_redis, 2)
    assert runs(ledger) == [b"now", b"late"]
    assert one_redis.get(RUBY_LOCK) == one_redis.get("resque:fr:leader")
    assert 0 < one_redis.ttl(RUBY_LOCK) <= 15


@pytest.mark.timeout(20)
def test_our_leader_keeps_ruby_schedulers_out_and_lets_them_in_when_it_stops(
    begin: Callable[..., Start], one_redis: Redis
) -> None:
    master = begin()
    wait_until(lambda: one_redis.exists(RUBY_LOCK), "our lead")
    assert not one_redis.set(RUBY_LOCK, "localhost:17392", nx=True, ex=180)

    master.stop()

    assert one_redis.set(RUBY_LOCK, "localhost:17392", nx=True, ex=180)


# -- pause ---------------------------------------------------------------------------------


@pytest.mark.timeout(20)
@pytest.mark.parametrize("word", ["true", " TRUE\n"])
def test_pause_all_workers_lets_the_job_in_hand_finish_and_nothing_begin(
    word: str, begin: Callable[..., Start], one_redis: Redis, ledger: Redis
) -> None:
    begin()
    push(one_redis, GATE, b'{"class":"note","args":["after"]}')
    wait_until(lambda: ledger.llen("started:ruby"), "the job to start")

    one_redis.set("resque:pause-all-workers", word)
    ledger.rpush("release:ruby", "go")
    await_processed(one_redis, 1)  # by the script that would have claimed the next one

    assert runs(ledger) == [b"ruby"]
    assert one_redis.llen("resque:queue:math") == 1
    worker = workers(one_redis)[0]
    assert not one_redis.exists(f"resque:worker:{worker}", f"resque:fr:slot:{worker}")

    one_redis.delete("resque:pause-all-workers")
    await_processed(one_redis, 2)
    assert runs(ledger) == [b"ruby", b"after"]


# -- how Ruby sees our workers -------------------------------------------------------------


@pytest.mark.timeout(20)
def test_a_worker_has_an_id_and_a_start_that_ruby_can_read(
    begin: Callable[..., Start], one_redis: Redis
) -> None:
    begun = int(time.time()) - 1
    master = begin(2, queues="math,m*,!mail")

    ids = workers(one_redis)

    pids = {child.pid for child in master.children("worker")}
    assert len(pids) == 2
    assert {int(worker.split(":")[1]) for worker in ids} == pids
    for worker in ids:
        assert re.fullmatch(r"[^:,\s]+:[1-9]\d*:math,m\*", worker), worker
        started: Any = one_redis.get(f"resque:worker:{worker}:started")
        assert started.endswith(b" +0000")
        since = datetime.strptime(started.decode(), "%Y-%m-%d %H:%M:%S %z")
        assert begun <= since.timestamp() <= time.time() + 1


@pytest.mark.timeout(20)
def test_every_process_has_a_title_that_keeps_ruby_workers_from_pruning_it(
    begin: Callable[..., Start], one_redis: Redis, ledger: Redis
) -> None:
    master = begin(3, queues="math,mail")
    push(one_redis, GATE)
    wait_until(lambda: ledger.llen("started:ruby"), "the job to start")

    titles = {process.pid: title(process) for process in master.left()}

    assert len(titles) == 5, titles  # a master, a clerk, three workers
    assert sum(" performing gate " in text for text in titles.values()) == 1
    for text in titles.values():
        assert ALIVE_TO_RUBY.search(text), text
        assert NOT_ALIVE_TO_RUBY not in text, text
    assert {int(worker.split(":")[1]) for worker in workers(one_redis)} < titles.keys()
    ledger.rpush("release:ruby", "go")
    await_processed(one_redis, 1)


@pytest.mark.timeout(20)
def test_a_title_survives_a_queue_whose_name_ruby_filters_out(begin: Callable[..., Start]) -> None:
    master = begin(1, queues="resque-web")

    for process in master.children("worker"):
        assert ALIVE_TO_RUBY.search(title(process)), title(process)
        assert NOT_ALIVE_TO_RUBY not in title(process), title(process)


@pytest.mark.timeout(30)
def test_nothing_is_written_that_ruby_or_node_do_not_know_and_no_heartbeat(
    start: Starter, ledger: Redis
) -> None:
    """Whoever is in `workers:heartbeat` may be pruned by Ruby, so a stale entry there kills."""
    known = re.compile(
        r"resque:(fr:.+|queues|queue:math|failed|delayed_queue_schedule|delayed:\d+|timestamps:.+"
        r"|workers|worker:[^:]+:\d+:math(:started)?|worker:ping:[^:]+:\d+"
        r"|stat:(processed|failed)(:[^:]+:\d+)?|resque_scheduler_(leader|master)_lock"
        r"|resque:resque_scheduler_master_lock)"
    )
    with (
        Server(args=("--notify-keyspace-events", "KA")) as server,
        closing(server.client()) as own,
        closing(own.pubsub()) as listener,  # type: ignore[no-untyped-call]
    ):
        listener.psubscribe("__keyspace@0__:*")
        master = start("-A", "tests.support.jobs", "-q", "math", "-c", "2", url=server.url)
        push(own, b'{"class":"die","args":["once"]}', b'{"class":"boom","args":["x"]}', GATE)
        delay(own, b'{"class":"note","args":["late"],"queue":"math"}', int(time.time()) + 1)
        wait_until(lambda: ledger.llen("started:ruby"), "the gate")
        ledger.rpush("release:ruby", "go")
        await_processed(own, 2)
        wait_until(lambda: own.llen("resque:failed") == 2, "two failures")
        master.stop()
        assert_nothing_left(master, own)
        own.set("the end", "")
        keys = set(_written(listener))

    assert [key for key in sorted(keys) if not known.fullmatch(key)] == []
    assert "resque:workers" in keys
    assert {key for key in keys if key.startswith("resque:worker:ping:")}


def _written(listener: Any) -> Iterator[str]:
    """Yield every key that was written, until the end."""
    while (message := listener.get_message(timeout=5.0)) is not None:
        key = message["channel"].decode().removeprefix("__keyspace@0__:")
        if key == "the end":
            return
        if message["type"] == "pmessage":
            yield key
    raise AssertionError("the server tells nothing more, and not of the end")


# -- failures ------------------------------------------------------------------------------


@pytest.mark.timeout(20)
def test_our_failures_have_a_time_that_ruby_can_read(
    begin: Callable[..., Start], app: Forkresque, one_redis: Redis
) -> None:
    begun = int(time.time()) - 1
    begin()
    push(one_redis, b'{"class":"boom","args":["x"]}')
    wait_until(app.queue.failed_count, "the failure")

    failure = app.queue.failed()[0]

    moment = datetime.strptime(failure.failed_at, "%Y/%m/%d %H:%M:%S %Z").replace(tzinfo=UTC)
    assert failure.failed_at.endswith(" UTC")
    assert begun <= moment.timestamp() <= time.time() + 1
    assert failure.worker == workers(one_redis)[0]
    assert failure.payload == b'{"class":"boom","args":["x"]}'


@pytest.mark.timeout(20)
def test_a_failure_of_ruby_is_read_and_retried(
    begin: Callable[..., Start], app: Forkresque, one_redis: Redis, ledger: Redis
) -> None:
    payload = '{"class":"note","args":["oops é"]}'
    entry = (
        '{"failed_at":"2026/11/24 02:34:46 UTC","payload":' + payload + ","
        '"exception":"ArgumentError","error":"oops é",'
        '"backtrace":["boom.rb:70:in `perform\'"],"worker":"vm:17972:math,slow","queue":"math",'
        '"retried_at":"2026/11/24 02:39:15 UTC"}'
    ).encode()
    one_redis.rpush("resque:failed", entry, b"")  # Ruby's mark for one that is being removed

    failure, removed = app.queue.failed()

    assert failure.raw_entry == entry
    assert failure.failed_at == "2026/11/24 02:34:46 UTC"
    assert (failure.name, failure.args, failure.queue) == ("note", ["oops é"], "math")
    assert (failure.exception, failure.error) == ("ArgumentError", "oops é")
    assert failure.backtrace == ["boom.rb:70:in `perform'"]
    assert failure.worker == "vm:17972:math,slow"
    assert removed.exception == "(unreadable record)"

    assert app.queue.retry_failed(failure)
    assert one_redis.lrange("resque:queue:math", 0, -1) == [payload.encode()]
    assert one_redis.lrange("resque:failed", 0, -1) == [b""]
    begin()
    await_processed(one_redis, 1)
    assert runs(ledger) == ["oops é".encode()]


@pytest.mark.timeout(20)
def test_a_job_that_failed_in_ruby_is_retried_with_its_bytes_unchanged(
    app: Forkresque, one_redis: Redis
) -> None:
    payload = b'{"class":"Add","args":[1.0,12345678901234567890]}'
    one_redis.rpush(
        "resque:failed",
        b'{"failed_at":"2026/11/24 02:34:46 UTC","payload":' + payload + b',"exception":"E",'
        b'"error":"e","backtrace":[],"worker":"vm:1:math","queue":"math"}',
    )

    assert app.queue.retry_failed(app.queue.failed()[0])

    assert one_redis.lrange("resque:queue:math", 0, -1) == [payload]

"""Queue: what producers ask for and what those who look around see."""

import json
import math
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis

from forkresque import Forkresque
from forkresque.errors import AlreadyScheduled, BadKey, InvalidArgs, RedisRefused
from forkresque.protocol.connection import Client, RedisClock, Target
from forkresque.protocol.failure import failure_entry
from forkresque.protocol.keys import Keys
from forkresque.protocol.script import Call, Scalar
from forkresque.queue import Queue
from tests.support.connections import Over
from tests.support.servers import HOST, Server
from tests.support.waiting import wait_until

KEYS = Keys("resque")
RAW = b'{ "args" : [1.0, []], "class":"x","queue":"q"}'


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with closing(Target(server.url).client()) as client:
        yield client


@pytest.fixture
def queue(client: Client) -> Queue:
    return Queue(Over(client, KEYS))


def scheduled(redis: Redis) -> list[int]:
    members: Any = redis.zrange(KEYS.schedule(), 0, -1)
    return [int(member) for member in members]


def now_of(redis: Redis) -> float:
    seconds, microseconds = redis.time()
    return float(seconds) + float(microseconds) / 1e6


# -- enqueue -----------------------------------------------------------------------------------


def test_a_job_is_stored_as_every_resque_reads_it(queue: Queue, redis: Redis) -> None:
    assert queue.enqueue("math", "add", [1, "é", None, {"b": 1.5}]) is True

    payload = '{"class":"add","queue":"math","args":[1,"é",null,{"b":1.5}]}'.encode()
    assert redis.lrange(KEYS.queue("math"), 0, -1) == [payload]
    assert queue.queues() == ["math"]
    assert queue.peek("math") == [payload]


def test_a_job_without_arguments_keeps_an_empty_list(queue: Queue) -> None:
    queue.enqueue("math", "add")

    assert queue.peek("math") == [b'{"class":"add","queue":"math","args":[]}']


def test_a_job_for_the_front_comes_first(queue: Queue) -> None:
    for number in (1, 2):
        queue.enqueue("math", "add", [number])
    queue.enqueue("math", "add", [3], front=True)

    assert [json.loads(raw)["args"] for raw in queue.peek("math")] == [[3], [1], [2]]


@pytest.mark.parametrize("name", ["", "a,b", "a\nb", "a\rb", "a\0b"])
def test_a_queue_name_that_some_resque_cannot_read_is_refused(
    queue: Queue, redis: Redis, name: str
) -> None:
    with pytest.raises(InvalidArgs, match="cannot be a queue's name"):
        queue.enqueue(name, "add")

    assert redis.dbsize() == 0


@pytest.mark.parametrize("name", [["math"], 5, None, b"math"])
def test_a_queue_name_that_is_no_string_is_refused(queue: Queue, redis: Redis, name: Any) -> None:
    with pytest.raises(InvalidArgs, match="a queue's name must be a string, got"):
        queue.enqueue(name, "add")

    assert redis.dbsize() == 0


@pytest.mark.parametrize("args", [[math.nan], [math.inf], [{1: 2}], [2**60], [object()]])
def test_arguments_that_json_cannot_carry_are_refused(
    queue: Queue, redis: Redis, args: Any
) -> None:
    with pytest.raises(InvalidArgs):
        queue.enqueue("math", "add", args)

    assert redis.dbsize() == 0


@pytest.mark.parametrize("only", [1, "a", None, {"b": 2}, False])
def test_what_is_no_list_is_the_only_argument(queue: Queue, only: object) -> None:
    queue.enqueue("math", "add", only)
    queue.enqueue("math", "add", (only,))

    assert [json.loads(raw)["args"] for raw in queue.peek("math")] == [[only], [only]]


def test_big_integers_pass_where_they_are_allowed(client: Client) -> None:
    queue = Queue(Over(client, KEYS), allow_bigint=True)
    queue.enqueue("math", "add", [2**60])

    assert json.loads(queue.peek("math")[0])["args"] == [2**60]


def test_a_request_id_makes_enqueueing_again_safe(queue: Queue) -> None:
    for _ in range(3):
        assert queue.enqueue("math", "add", [1], request_id="producer:7")
    queue.enqueue("math", "add", [1], request_id="producer:8")

    assert queue.length("math") == 2


def test_an_enqueue_onto_a_wrong_type_says_which_key(queue: Queue, redis: Redis) -> None:
    redis.set(KEYS.queue("math"), "text")

    with pytest.raises(BadKey, match="resque:queue:math"):
        queue.enqueue("math", "add")


def test_threads_share_one_queue(queue: Queue) -> None:
    start = threading.Barrier(8, timeout=5.0)

    def produce(thread: int) -> None:
        start.wait()
        for number in range(50):
            queue.enqueue("math", "add", [thread, number])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(produce, range(8)))

    stored = [tuple(json.loads(raw)["args"]) for raw in queue.peek("math")]
    assert sorted(stored) == [(thread, number) for thread in range(8) for number in range(50)]
    for thread in range(8):
        assert [n for t, n in stored if t == thread] == list(range(50))


# -- later -------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0, 0.001, 1.0, 59.999, timedelta(minutes=1), -5])
def test_a_delay_is_rounded_up_and_never_early_by_redis_clock(
    queue: Queue, redis: Redis, delay: float | timedelta
) -> None:
    wanted = delay.total_seconds() if isinstance(delay, timedelta) else delay
    before = now_of(redis) + wanted
    assert queue.enqueue_in(delay, "math", "add") is True
    after = now_of(redis) + wanted

    (second,) = scheduled(redis)
    assert before <= second < after + 1
    assert queue.delayed_count() == 1
    assert queue.length("math") == 0


class Slow:
    """A caller whose answers arrive a good while after Redis gave them."""

    def __init__(self, client: Client, redis: Redis) -> None:
        self._client = client
        self._redis = redis

    def call(self, call: Call) -> Any:
        return self._client.call(call)

    def command(self, *words: Scalar) -> Any:
        answer = self._client.command(*words)
        late = now_of(self._redis) + 0.2
        wait_until(lambda: now_of(self._redis) >= late, "the answer to be late", every=0.02)
        return answer


def test_the_clock_is_not_behind_redis_after_a_slow_answer(client: Client, redis: Redis) -> None:
    clock = RedisClock(Slow(client, redis))
    clock.now()

    before = now_of(redis)
    assert clock.now() >= before


@pytest.mark.parametrize(
    ("moment", "second"),
    [
        (1_000.0, 1_000),
        (1_000.001, 1_001),
        (0, 0),
        (datetime(2030, 1, 1, tzinfo=UTC), 1_893_456_000),
        (datetime(2030, 1, 1, 0, 0, 0, 1, tzinfo=UTC), 1_893_456_001),
    ],
)
def test_a_moment_is_rounded_up_to_its_second(
    queue: Queue, redis: Redis, moment: float | datetime, second: int
) -> None:
    queue.enqueue_at(moment, "math", "add", [1])

    assert scheduled(redis) == [second]
    assert redis.llen(KEYS.delayed(second)) == 1


@pytest.mark.parametrize("moment", [datetime(2030, 1, 1), math.nan, math.inf, -1.0])  # noqa: DTZ001
def test_what_is_no_moment_is_refused(queue: Queue, redis: Redis, moment: float | datetime) -> None:
    with pytest.raises(InvalidArgs):
        queue.enqueue_at(moment, "math", "add")

    assert redis.dbsize() == 0


@pytest.mark.parametrize("delay", [math.nan, math.inf])
def test_what_is_no_length_of_time_is_refused(queue: Queue, redis: Redis, delay: float) -> None:
    with pytest.raises(InvalidArgs, match="finite"):
        queue.enqueue_in(delay, "math", "add")

    assert redis.dbsize() == 0


def test_an_equal_job_is_scheduled_once_for_a_second(queue: Queue) -> None:
    queue.enqueue_at(1_000, "math", "add", [1])

    with pytest.raises(
        AlreadyScheduled, match="Job already enqueued at this time with same arguments: second 1000"
    ):
        queue.enqueue_at(999.5, "math", "add", [1.0])
    queue.enqueue_at(1_000, "math", "add", [2])
    queue.enqueue_at(1_000, "other", "add", [1])
    queue.enqueue_at(1_001, "math", "add", [1])

    assert queue.delayed_count() == 4


def test_a_second_equal_job_can_be_passed_over_in_silence(queue: Queue) -> None:
    for wanted in (True, False):
        stored = queue.enqueue_at(1_000, "math", "add", 1, suppress_duplicate_task_error=True)
        assert stored is wanted

    assert queue.delayed_count() == 1


def test_equal_jobs_can_be_allowed(queue: Queue) -> None:
    for _ in range(3):
        assert queue.enqueue_at(1_000, "math", "add", [1], unique=False)

    assert queue.delayed_count() == 3


def test_a_delayed_job_of_ruby_is_an_equal_job(queue: Queue, redis: Redis) -> None:
    for args in ("[1]", "[1.0]", "[1.0e+20]"):
        raw = f'{{"class":"add","args":{args},"queue":"math"}}'.encode()
        redis.rpush(KEYS.delayed(1_000), raw)
        redis.sadd(KEYS.timestamps(raw), "delayed:1000")

    for same in (1, 1.0, 1e20):
        with pytest.raises(AlreadyScheduled):
            queue.enqueue_at(1_000, "math", "add", [same])
    assert queue.enqueue_at(1_000, "math", "add", [2])


def test_a_set_of_another_type_under_the_other_spelling_is_no_hindrance(
    queue: Queue, redis: Redis
) -> None:
    redis.set(KEYS.timestamps(b'{"class":"add","args":[1],"queue":"math"}'), "text")

    assert queue.enqueue_at(1_000, "math", "add", [1])


def test_many_at_once_schedule_one_equal_job(server: Server) -> None:
    start = threading.Barrier(8, timeout=5.0)

    def schedule(_: int) -> bool:
        with closing(Target(server.url).client()) as client:
            queue = Queue(Over(client, KEYS))
            queue.queues()
            start.wait()
            return queue.enqueue_at(1_000, "math", "add", 1, suppress_duplicate_task_error=True)

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(schedule, range(8))) == [False] * 7 + [True]


def test_a_job_of_an_application_may_be_scheduled_twice_for_a_second(server: Server) -> None:
    app = Forkresque(server.url)

    @app.job("add", queue="math")
    def add(number: int) -> None: ...

    with closing(app.queue.store.client):
        for _ in range(2):
            assert add.enqueue_at(1_000, 1)
        assert app.queue.delayed_count() == 2


# -- looking around ----------------------------------------------------------------------------


def test_lengths_and_pages_show_what_waits(queue: Queue) -> None:
    assert queue.queues() == []
    assert queue.lengths() == {}
    assert queue.length("none") == 0
    for number in range(5):
        queue.enqueue("b", "add", [number])
    queue.enqueue("a", "add")

    assert queue.queues() == ["a", "b"]
    assert queue.lengths() == {"a": 1, "b": 5}
    assert [json.loads(raw)["args"][0] for raw in queue.peek("b", 1, 2)] == [1, 2]
    assert [json.loads(raw)["args"][0] for raw in queue.peek("b", -1)] == [4]
    assert queue.delayed_count() == queue.failed_count() == 0


def entry_of(raw: bytes = RAW, queue: str = "q") -> bytes:
    return failure_entry(
        raw=raw,
        exception="Oops",
        error="it broke",
        backtrace=["line"],
        worker="host:7:q",
        queue=queue,
        failed_at=1_795_000_000.0,
    )


def test_a_failed_job_is_retried_once_with_its_very_bytes(queue: Queue, redis: Redis) -> None:
    redis.rpush(KEYS.failed(), entry_of(), entry_of(b"other"))
    (failure, _) = queue.failed()
    assert (failure.name, failure.args, failure.error) == ("x", [1.0, []], "it broke")

    assert queue.retry_failed(failure)
    assert not queue.retry_failed(failure)

    assert queue.peek("q") == [RAW]
    assert queue.queues() == ["q"]
    assert [left.payload for left in queue.failed()] == [b"other"]


def test_a_failed_job_can_be_retried_on_another_queue(queue: Queue, redis: Redis) -> None:
    redis.rpush(KEYS.failed(), entry_of(queue=""))
    (failure,) = queue.failed()
    with pytest.raises(InvalidArgs, match="no queue"):
        queue.retry_failed(failure)

    assert queue.retry_failed(failure, queue="late")

    assert queue.peek("late") == [RAW]


def test_a_failed_job_is_removed_by_its_bytes(queue: Queue, redis: Redis) -> None:
    redis.rpush(KEYS.failed(), entry_of(), b"junk")
    failure, junk = queue.failed()

    assert queue.remove_failed(junk)
    assert not queue.remove_failed(junk)

    assert queue.failed() == [failure]
    with pytest.raises(InvalidArgs):
        queue.retry_failed(junk)


def test_counters_and_pauses_can_be_read_and_set(queue: Queue, redis: Redis) -> None:
    store = queue.store
    assert store.counts() == {"processed": 0, "failed": 0}
    redis.set(KEYS.stat("processed"), 3)
    assert store.counts() == {"processed": 3, "failed": 0}

    store.pause_queues(["b", "a"])
    assert store.paused_queues() == ["a", "b"]
    store.resume_queues(["a"])
    assert store.paused_queues() == ["b"]

    assert not store.all_paused()
    redis.set(KEYS.pause_all(), " True\n")
    assert store.all_paused()
    store.resume_all()
    assert not store.all_paused()
    store.pause_all()
    assert redis.get(KEYS.pause_all()) == b"true"


@pytest.mark.parametrize(
    "member",
    [
        "junk",
        "--5",
        "9" * 5_000,
    ],
)
def test_a_member_of_the_schedule_that_is_no_second_is_not_counted(
    queue: Queue, redis: Redis, member: str
) -> None:
    queue.enqueue_at(1_000, "math", "add")
    redis.zadd(KEYS.schedule(), {member: 1})

    assert queue.delayed_count() == 1


def test_a_queue_of_a_wrong_type_does_not_hide_the_others(queue: Queue, redis: Redis) -> None:
    queue.enqueue("a", "add")
    redis.sadd(KEYS.queues(), "odd")
    redis.set(KEYS.queue("odd"), "text")

    assert queue.lengths()["a"] == 1


class Halting:
    """A server whose answer about `even` comes long after the one about `odd`, an error."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.url = f"redis://{HOST}:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                while request := connection.recv(65_536):
                    if b"HELLO" in request:
                        connection.sendall(b"%1\r\n+proto\r\n:3\r\n")
                    if b"odd" in request:
                        connection.sendall(b"-WRONGTYPE no list\r\n")
                    if b"even" in request:
                        threading.Event().wait(0.1)
                        connection.sendall(b":42\r\n")
                    if b"next" in request:
                        connection.sendall(b":7\r\n")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5.0)
        self._listener.close()


def test_no_answer_is_read_by_the_next_question_after_an_error_in_a_pipeline() -> None:
    with (
        closing(Halting()) as server,
        closing(Target(server.url, timeout=2.0).client()) as client,
    ):
        with pytest.raises(RedisRefused):
            client.commands(("LLEN", "odd"), ("LLEN", "even"))

        assert client.command("LLEN", "next") == 7

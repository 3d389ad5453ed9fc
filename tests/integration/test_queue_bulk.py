"""Bulk: many jobs in few requests, none lost and none doubled when an answer is."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import pytest
from redis import Redis

from forkresque.bulk import PORTION, Job
from forkresque.errors import BadKey, EnqueueUnknown, InvalidArgs, RedisUnavailable
from forkresque.plugins import Plugin, QueueLock
from forkresque.plugins.base import Context
from forkresque.protocol.connection import Target
from forkresque.protocol.keys import Keys
from forkresque.protocol.payload import encode_job
from forkresque.protocol.script import load
from forkresque.queue import Queue
from tests.support.connections import Over
from tests.support.proxy import Proxy, Rule
from tests.support.servers import HOST, Server, free_port

KEYS = Keys("resque")
WORD = load("bulk").digest.encode()


class Odd(Plugin):
    """Vetoes even numbers, and notes which it was asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []
        self.hear: Callable[[int], object] = lambda _: None

    def before_enqueue(self, context: Context) -> bool:
        number: int = context.args[0]
        self.asked.append(number)
        self.hear(number)
        return number % 2 == 1


def run(number: int) -> None: ...


@pytest.fixture
def odd() -> Odd:
    return Odd()


@pytest.fixture
def proxy(server: Server, redis: Redis) -> Iterator[Proxy]:
    redis.script_load(load("bulk").source)
    with Proxy((HOST, server.port)) as proxy:
        yield proxy


@pytest.fixture
def queue(proxy: Proxy, odd: Odd) -> Iterator[Queue]:
    jobs = {"odd": {"perform": run, "plugins": [odd]}}
    with closing(Target(proxy.url).client()) as client:
        yield Queue(Over(client, KEYS), jobs)


def numbered(number: int, queue: str = "q") -> list[Job]:
    return [(queue, "x", [each]) for each in range(number)]


def payloads(jobs: list[Job]) -> list[bytes]:
    return [encode_job(queue, name, args) for queue, name, args in jobs if isinstance(args, list)]


def waiting(redis: Any, name: str = "q") -> Any:
    return redis.lrange(KEYS.queue(name), 0, -1)


@pytest.mark.parametrize("number", [0, 1, PORTION, 2 * PORTION + 1])
def test_all_jobs_are_stored_in_their_order(
    queue: Queue, redis: Redis, proxy: Proxy, number: int
) -> None:
    jobs = numbered(number)

    assert queue.bulk(iter(jobs)) == number

    assert waiting(redis) == payloads(jobs)
    assert queue.queues() == ["q"] * bool(number)


def test_several_queues_and_kinds_of_arguments_go_together(queue: Queue, redis: Redis) -> None:
    assert queue.bulk([("a", "x", 1), ("b", "y", None), ("a", "z", ())]) == 3

    assert queue.queues() == ["a", "b"]
    assert [job["args"] for job in queue.queued("a")] == [[1], []]
    assert [job["args"] for job in queue.queued("b")] == [[None]]


def test_plugins_are_asked_for_each_job_and_the_order_stays(
    queue: Queue, redis: Redis, odd: Odd
) -> None:
    jobs: list[Job] = [("q", "x" if each % 4 else "odd", [each]) for each in range(13)]
    jobs.append(("q", "odd", [13]))

    assert queue.bulk(jobs) == 10

    assert odd.asked == [0, 4, 8, 12, 13]
    assert waiting(redis) == payloads([job for n, job in enumerate(jobs) if n % 4])


def test_a_lock_keeps_equal_jobs_of_a_bulk_out(server: Server, redis: Redis) -> None:
    queue = Queue(server.url, {"x": {"perform": run, "plugins": [QueueLock()]}})
    with closing(queue.store.client):
        assert queue.bulk([("q", "x", [1]), ("q", "x", [1]), ("q", "x", [2])]) == 2

    assert len(waiting(redis)) == 2


@pytest.mark.parametrize("lost", ["reply", "request"])
@pytest.mark.parametrize("portion", [1, 2, 3])
def test_a_lost_answer_doubles_and_loses_nothing(
    queue: Queue, redis: Redis, proxy: Proxy, lost: str, portion: int
) -> None:
    jobs = numbered(3 * PORTION)
    sent = iter(jobs)

    def losing() -> Iterator[Job]:
        for number, job in enumerate(sent):
            if number == (portion - 1) * PORTION:
                (proxy.drop_reply if lost == "reply" else proxy.drop_request)(WORD)
            yield job

    assert queue.bulk(losing()) == len(jobs)

    assert proxy.fired == 1
    assert waiting(redis) == payloads(jobs)


@pytest.fixture(params=["reply", "request"])
def lose(
    request: pytest.FixtureRequest, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Rule]:
    """Return what loses all from now on; portions are of 3 jobs, and nobody is patient."""
    monkeypatch.setattr("forkresque.producer.ENQUEUE_TIMEOUT", 0.1)
    monkeypatch.setattr("forkresque.bulk.PORTION", 3)
    drop = proxy.drop_reply if request.param == "reply" else proxy.drop_request
    return lambda: drop(WORD, times=1_000)


def broken_off(queue: Queue, jobs: Iterable[Job], proxy: Proxy) -> str:
    """Have a bulk break off in its second portion; return the id to go on with."""
    with pytest.raises(EnqueueUnknown, match="may or may not") as caught:
        queue.bulk(jobs)
    assert caught.value.__notes__ == ["the first 3 jobs of this bulk were done before"]
    assert proxy.fired
    for rule in proxy._rules:
        rule.left = 0
    queue.enqueue("other", "x")
    return caught.value.request_id


def test_a_bulk_that_nobody_answered_goes_on_by_its_request_id(
    queue: Queue, redis: Redis, proxy: Proxy, lose: Callable[[], Rule]
) -> None:
    jobs = numbered(8)

    def losing() -> Iterator[Job]:
        for number, job in enumerate(jobs):
            if number == 4:  # the first portion has gone, the second has not
                lose()
            yield job

    request_id = broken_off(queue, losing(), proxy)

    assert queue.bulk(jobs, request_id=request_id) == 5
    assert waiting(redis) == payloads(jobs)
    assert queue.bulk(jobs, request_id=request_id) == 5
    assert waiting(redis) == payloads(jobs)


def test_a_bulk_that_goes_on_asks_no_plugin_again(
    queue: Queue, redis: Redis, proxy: Proxy, odd: Odd, lose: Callable[[], Rule]
) -> None:
    jobs: list[Job] = [*numbered(3), ("q", "odd", [3]), ("q", "odd", [4]), *numbered(2)]
    odd.hear = lambda number: number == 3 and lose()

    request_id = broken_off(queue, jobs, proxy)

    assert odd.asked == [3]
    assert queue.bulk(jobs, request_id=request_id) == 3
    assert odd.asked == [3, 4]
    assert waiting(redis) == payloads(jobs[:4] + jobs[5:])


def test_a_bulk_that_could_not_even_begin_is_certainly_not_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("forkresque.producer.ENQUEUE_TIMEOUT", 0.1)
    queue = Queue(f"redis://{HOST}:{free_port()}")

    with pytest.raises(RedisUnavailable) as caught:
        queue.bulk(numbered(2))

    assert not isinstance(caught.value, EnqueueUnknown)
    assert caught.value.__notes__ == ["the first 0 jobs of this bulk were done before"]


def test_a_portion_for_a_wrong_type_is_not_stored_at_all(queue: Queue, redis: Redis) -> None:
    redis.set(KEYS.queue("bad"), "text")

    with pytest.raises(BadKey, match="resque:queue:bad"):
        queue.bulk([*numbered(PORTION), ("q", "x", ["late"]), ("bad", "x", [])])

    assert waiting(redis) == payloads(numbered(PORTION))
    assert queue.queues() == ["q"]


def test_what_cannot_be_sent_says_how_many_jobs_were_done(queue: Queue, redis: Redis) -> None:
    with pytest.raises(InvalidArgs, match=r"args\[0\] is an object") as caught:
        queue.bulk([*numbered(PORTION + 5), ("q", "x", [object()])])

    assert caught.value.__notes__ == [f"the first {PORTION} jobs of this bulk were done before"]
    assert len(waiting(redis)) == PORTION


@pytest.mark.parametrize("request_id", ["", "x", "x:", "x:01"])
def test_what_is_no_request_id_is_refused(queue: Queue, request_id: str) -> None:
    with pytest.raises(InvalidArgs, match="is no request id"):
        queue.bulk(numbered(1), request_id=request_id)


def test_other_jobs_than_those_of_the_request_are_refused(queue: Queue) -> None:
    with pytest.raises(InvalidArgs, match=r"portion 5 of a bulk, and these jobs make 1"):
        queue.bulk([("q", "x", [1])], request_id="someone:5")
    assert queue.length("q") == 0

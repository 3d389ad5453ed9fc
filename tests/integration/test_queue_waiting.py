"""Waiting jobs: looking at them, and deleting them in whichever spelling they are."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from redis import Redis

from forkresque.errors import BadKey, InvalidArgs
from forkresque.protocol.connection import Client, Target
from forkresque.protocol.keys import Keys
from forkresque.protocol.pages import PAGE
from forkresque.protocol.payload import UNREADABLE
from forkresque.protocol.script import Scalar
from forkresque.queue import Queue
from tests.support.connections import Over
from tests.support.rubbish import BAD, QUEUE_NAMES, good
from tests.support.servers import Server

KEYS = Keys("resque")
Q = KEYS.queue("q")

NODE = b'{"class":"x","queue":"q","args":[1,"a"]}'
RUBY = b'{"class":"x","args":[1,"a"]}'
PROMOTED = b'{"class":"x","args":[1,"a"],"queue":"q"}'
FLOAT = b'{"class":"x","args":[1.0,"a"]}'
ODD = b'{ "args": [1.0, "\\u0061"], "class": "x", "id": 7 }'
OTHER = b'{"class":"x","queue":"q","args":[2,"a"]}'
ALL = [NODE, RUBY, PROMOTED, FLOAT, ODD]


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with closing(Target(server.url).client()) as client:
        yield client


@pytest.fixture
def queue(client: Client) -> Queue:
    return Queue(Over(client, KEYS))


def put(redis: Redis, *raws: bytes) -> None:
    redis.sadd(KEYS.queues(), "q")
    redis.rpush(Q, *raws)


def waiting(redis: Any) -> Any:
    return redis.lrange(Q, 0, -1)


class Meddling(Client):
    """A client before whose each look at a list something happens."""

    def __init__(self, target: Target, meddle: Callable[[], object]) -> None:
        super().__init__(target)
        self._meddle = meddle

    def command(self, *words: Scalar) -> Any:
        if words[0] == "LRANGE":
            self._meddle()
        return super().command(*words)


# -- looking -----------------------------------------------------------------------------------


def test_waiting_jobs_are_shown_decoded(queue: Queue, redis: Redis) -> None:
    put(redis, NODE, RUBY, OTHER)

    assert queue.queued("q") == [json.loads(raw) for raw in (NODE, RUBY, OTHER)]
    assert queue.queued("q", 1, 1) == [{"class": "x", "args": [1, "a"]}]
    assert queue.queued("q", -1) == [json.loads(OTHER)]
    assert queue.queued("none") == []


def test_what_cannot_be_decoded_is_shown_by_what_stands_for_it(queue: Queue, redis: Redis) -> None:
    put(redis, *BAD.values(), NODE)

    found = queue.queued("q")

    assert len(found) == len(BAD) + 1
    assert found[list(BAD).index("no JSON")] == {"class": UNREADABLE, "args": []}
    assert found[-1] == json.loads(NODE)


def test_jobs_of_a_wrong_type_are_named(queue: Queue, redis: Redis) -> None:
    redis.set(Q, "text")

    for ask in (
        lambda: queue.queued("q"),
        lambda: queue.delete("q", "x", [1]),
        lambda: queue.delete_by_function("q", "x"),
        lambda: queue.delete_by_function("q", "x", 0, 5),
    ):
        with pytest.raises(BadKey):
            ask()
    assert redis.get(Q) == b"text"


# -- delete ------------------------------------------------------------------------------------


def test_a_job_is_deleted_in_every_spelling_and_no_other_one(queue: Queue, redis: Redis) -> None:
    other = [OTHER, NODE.replace(b'"q"', b'"p"'), NODE.replace(b"1", b"true"), *BAD.values()]
    put(redis, *ALL, *other, *ALL)

    assert queue.delete("q", "x", [1, "a"]) == 2 * len(ALL)

    assert waiting(redis) == other
    assert queue.delete("q", "x", (1.0, "a")) == 0


def test_arguments_may_be_left_out_and_one_needs_no_list(queue: Queue, redis: Redis) -> None:
    put(
        redis, b'{"class":"x"}', b'{"class":"x","queue":"q","args":[]}', b'{"class":"x","args":[1]}'
    )

    assert queue.delete("q", "x") == 2
    assert queue.delete("q", "x", 1) == 1


@pytest.mark.parametrize("label", sorted(good("m")))
def test_jobs_that_look_odd_are_deleted_by_their_bytes(
    queue: Queue, redis: Redis, label: str
) -> None:
    put(redis, NODE, good("m")[label])

    name = "other" if label == "of another queue" else "q"
    known = label not in ("of another queue", "in node's order")  # which names the queue math
    assert queue.delete(name, "note", ["m"]) == (1 if known else 0)


@pytest.mark.parametrize(
    ("count", "left"),
    [
        (1, [OTHER, RUBY, OTHER, NODE, RUBY]),
        (2, [OTHER, OTHER, NODE, RUBY]),
        (3, [OTHER, OTHER, RUBY]),
        (4, [OTHER, OTHER]),
        (9, [OTHER, OTHER]),
        (0, [OTHER, OTHER]),
        (-1, [OTHER, NODE, RUBY, OTHER, NODE]),
        (-2, [OTHER, NODE, RUBY, OTHER]),
        (-3, [OTHER, NODE, OTHER]),
        (-9, [OTHER, OTHER]),
    ],
)
def test_so_many_are_deleted_from_the_head_or_from_the_tail(
    queue: Queue, redis: Redis, count: int, left: list[bytes]
) -> None:
    put(redis, OTHER, NODE, RUBY, OTHER, NODE, RUBY)

    assert queue.delete("q", "x", [1, "a"], count) == 6 - len(left)

    assert waiting(redis) == left


@pytest.mark.parametrize("count", [3, -3])
def test_a_limit_holds_for_all_spellings_together(queue: Queue, redis: Redis, count: int) -> None:
    put(redis, ODD, NODE, NODE, ODD)

    assert queue.delete("q", "x", [1, "a"], count) == 3

    assert waiting(redis) == [ODD]


def test_any_name_of_a_queue_will_do(queue: Queue, redis: Redis) -> None:
    for name in QUEUE_NAMES:
        redis.rpush(KEYS.queue("") + name, b'{"class":"x","args":[]}')
        text = name.decode("utf-8", "surrogateescape")
        assert queue.delete(text, "x") == 1


@pytest.mark.parametrize("args", [[float("nan")], [object()], [{1: 2}]])
def test_what_no_job_can_have_is_refused(queue: Queue, args: list[object]) -> None:
    with pytest.raises(InvalidArgs, match=r"args\[0\]"):
        queue.delete("q", "x", args)
    with pytest.raises(InvalidArgs, match="name"):
        queue.delete("q", "")


def test_no_job_is_passed_over_while_others_come_and_go(server: Server, redis: Redis) -> None:
    """Between two looks, workers claim at the head, give back there, and producers push."""
    put(redis, *[ODD.replace(b"7", b"%d" % n) if n % 3 else OTHER for n in range(3 * PAGE)])

    def meddle() -> None:
        redis.lpop(Q, 7)
        redis.lpush(Q, *[OTHER] * 3)
        redis.rpush(Q, *[OTHER] * 40)

    with closing(Meddling(Target(server.url), meddle)) as client:
        Queue(Over(client, KEYS)).delete("q", "x", [1, "a"])

    assert set(waiting(redis)) == {OTHER}


# -- delete_by_function ------------------------------------------------------------------------


def jobs(*names: str) -> list[bytes]:
    return [f'{{"class":"{name}","args":[{n}]}}'.encode() for n, name in enumerate(names)]


def test_all_jobs_of_a_name_are_deleted(queue: Queue, redis: Redis) -> None:
    raws = jobs("x", "y", "x", "z", "x")
    put(redis, *raws, *BAD.values())

    assert queue.delete_by_function("q", "x") == 3

    assert waiting(redis) == [raws[1], raws[3], *BAD.values()]
    assert queue.delete_by_function("q", "x") == 0


@pytest.mark.parametrize(
    ("start", "stop", "left"),
    [
        (0, 0, "yxyx"),
        (1, 2, "xyyx"),
        (2, -1, "xyy"),
        (0, 3, "yyx"),
        (-2, -1, "xyxy"),
        (-99, 1, "yxyx"),
        (0, 99, "yy"),
        (3, 1, "xyxyx"),
        (9, 12, "xyxyx"),
        (0, -9, "xyxyx"),
    ],
)
def test_equal_jobs_outside_of_the_stretch_stay(
    queue: Queue, redis: Redis, start: int, stop: int, left: str
) -> None:
    put(redis, *[b'{"class":"%b","args":[]}' % name.encode() for name in "xyxyx"])

    gone = queue.delete_by_function("q", "x", start, stop)

    assert "".join(job["class"] for job in queue.queued("q")) == left
    assert gone == 5 - len(left)


def test_a_queue_of_several_pages_is_emptied_of_a_name(queue: Queue, redis: Redis) -> None:
    names = ["x" if number % 2 else "y" for number in range(2 * PAGE + 10)]
    put(redis, *jobs(*names))

    assert queue.delete_by_function("q", "x") == PAGE + 5

    assert {job["class"] for job in queue.queued("q")} == {"y"}


def test_no_job_of_a_name_is_passed_over_while_others_come_and_go(
    server: Server, redis: Redis
) -> None:
    put(redis, *jobs(*["x", "y"] * PAGE))

    def meddle() -> None:
        redis.lpop(Q, 7)
        redis.rpush(Q, *[OTHER.replace(b"x", b"z")] * 40)

    with closing(Meddling(Target(server.url), meddle)) as client:
        Queue(Over(client, KEYS)).delete_by_function("q", "x")

    assert {json.loads(raw)["class"] for raw in waiting(redis)} == {"y", "z"}


# -- delete_queue ------------------------------------------------------------------------------


@pytest.mark.parametrize("exists", [True, False])
def test_a_queue_goes_with_its_jobs(queue: Queue, redis: Redis, *, exists: bool) -> None:
    queue.enqueue("other", "x")
    queue.enqueue_at(1_000, "q", "x")
    before = set(redis.keys())
    if exists:
        put(redis, *ALL)

    queue.delete_queue("q")

    assert queue.queues() == ["other"]
    assert set(redis.keys()) == before


def test_a_queue_of_a_wrong_type_can_be_deleted(queue: Queue, redis: Redis) -> None:
    redis.set(Q, "text")
    redis.sadd(KEYS.queues(), "q")

    queue.delete_queue("q")

    assert redis.dbsize() == 0

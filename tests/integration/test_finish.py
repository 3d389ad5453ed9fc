"""The usual settle in few commands: it does what settle does, or nothing and says so."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis

from forkresque.protocol.claims import Claimed, Claims, Nothing, Outcome, Settled
from forkresque.protocol.payload import digest
from tests.support.servers import Server
from tests.support.world import (
    KEYS,
    MASTER,
    NOW,
    RAW,
    T1,
    T2,
    T3,
    WID,
    WORKER,
    World,
    dump,
    is_short,
    job,
    open_world,
)

STRANGE = b'{"class":"x","args":[1e999]}'  # which Lua would read, and nobody else
SPELT = '{"class":"x","queue":"high","args":["é€😀"]}'.encode()

Prepare = Callable[[World], object]


@pytest.fixture
def world(server: Server, redis: Redis) -> Iterator[World]:
    for world in open_world(server, redis):
        world.link.short = True
        yield world


def finish(world: World, held: Claimed) -> Claimed | Nothing | None:
    """Settle by the short script alone; None if it leaves that to the long one."""
    return world.claims._finish(held, T2, NOW)


def settled_in_full(world: World, held: Claimed) -> Settled:
    """Settle by the long script, which an order of the queues needs."""
    settled = world.settle(held, Outcome.DONE, T2, places=(0, 1))
    assert not is_short(world.link.sent)
    return settled


def kept(redis: Redis) -> dict[bytes, tuple[bytes, int]]:
    """Return what it takes to bring every key back."""
    return {key: (redis.dump(key) or b"", max(0, redis.pttl(key))) for key in redis.scan_iter()}


def bring_back(redis: Redis, kept: dict[bytes, tuple[bytes, int]]) -> None:
    redis.flushall()
    for key, (value, ttl) in kept.items():
        redis.restore(key, ttl, value)


def _one_more(world: World) -> None:
    world.push(job(2), job(3))


def _second_queue(world: World) -> None:
    world.push(job(2), queue="low")


def _unreadable(world: World) -> None:
    world.push(b"\xff{", queue="high")


def _counted_already(world: World) -> None:
    world.redis.set(KEYS.stat("processed"), 41)
    world.push(job(2))


def _counter_of_another_type(world: World) -> None:
    world.redis.set(KEYS.stat("processed", "host:7"), "many")
    world.push(job(2))


USUAL: dict[str, Prepare] = {
    "nothing follows": lambda _world: None,
    "one more": _one_more,
    "second queue": _second_queue,
    "unreadable": _unreadable,
    "strange number": lambda world: world.push(STRANGE),
    "not ascii": lambda world: world.push(SPELT),
    "large": lambda world: world.push(b'{"class":"x","args":["' + b"x" * 5000 + b'"]}'),
    "counted already": _counted_already,
    "counter of another type": _counter_of_another_type,
}


@pytest.mark.parametrize("prepare", USUAL.values(), ids=USUAL)
def test_it_does_what_settle_does(world: World, prepare: Prepare) -> None:
    world.push(RAW)
    held = world.claimed()
    prepare(world)
    before = kept(world.redis)

    settled = settled_in_full(world, held)
    wanted, skipped = dump(world.redis), world.claims.skipped
    bring_back(world.redis, before)

    assert finish(world, held) == settled.next
    assert dump(world.redis) == wanted
    assert world.claims.skipped == skipped
    assert 0 < world.redis.ttl(KEYS.last(WID)) <= 3600 or settled.next is not Nothing.EMPTY


@pytest.mark.parametrize("prepare", USUAL.values(), ids=USUAL)
def test_a_settle_that_follows_it_changes_nothing_and_brings_the_same(
    world: World, prepare: Prepare
) -> None:
    world.push(RAW)
    held = world.claimed()
    prepare(world)
    settled = world.settle(held, Outcome.DONE, T2)
    assert is_short(world.link.sent)
    before = dump(world.redis)

    assert world.settle(held, Outcome.DONE, T2) == settled

    assert world.link.word == "ALREADY"
    assert dump(world.redis) == before


def _unregister(world: World) -> None:
    world.redis.srem(KEYS.workers(), WID)


def _orphan(world: World) -> None:
    world.redis.delete(KEYS.lease(MASTER))


def _orphan_among_others(world: World) -> None:
    """Leave so many other keys that their number alone would not tell."""
    world.redis.delete(KEYS.lease(MASTER))
    world.redis.set(KEYS.pause_all(), "no")
    world.store.pause_queues(["elsewhere"])
    world.redis.hset(KEYS.suspects(), "x", 1)


def _recovered(world: World) -> None:
    world.redis.delete(KEYS.slot(WID))


def _other_token(world: World) -> None:
    world.redis.set(KEYS.slot(WID), b"m.11\n4\nhigh" + RAW)


def _other_type(world: World) -> None:
    world.redis.delete(KEYS.queue("high"))
    world.redis.set(KEYS.queue("high"), "no list")
    world.push(job(2), queue="low")


UNUSUAL: dict[str, Prepare] = {
    "unregistered": _unregister,
    "orphan": _orphan,
    "orphan among others": _orphan_among_others,
    "recovered": _recovered,
    "other token": _other_token,
    "queue of another type": _other_type,
    "all paused": lambda world: world.redis.set(KEYS.pause_all(), "true"),
    "queue paused": lambda world: world.store.pause_queues(["high"]),
    "suspects": lambda world: world.redis.hset(KEYS.suspects(), "x", 1),
}


@pytest.mark.parametrize("prepare", UNUSUAL.values(), ids=UNUSUAL)
def test_whatever_is_unusual_is_left_to_settle(world: World, prepare: Prepare) -> None:
    world.push(RAW, job(2))
    held = world.claimed()
    prepare(world)
    before = dump(world.redis)

    assert finish(world, held) is None
    assert dump(world.redis) == before


def test_a_suspect_is_named_by_the_settle_that_follows(world: World) -> None:
    world.push(RAW, job(2))
    held = world.claimed()
    world.redis.hset(KEYS.suspects(), "x", 1)

    assert world.settle(held, Outcome.DONE, T2).next == Claimed(T2, "high", job(2), suspect=True)
    assert not is_short(world.link.sent)


def test_a_job_with_a_lock_is_settled_in_full(world: World) -> None:
    world.push(RAW, job(2))
    held = world.claimed()
    world.claims.take_lock(held, b"resque:workerslock:x", 60, now=NOW)
    asked = world.link.asked

    world.settle(held, Outcome.DONE, T2)

    assert not is_short(world.link.sent)
    assert world.link.asked == asked + 1
    assert not world.redis.exists("resque:workerslock:x")


def test_it_tells_the_audit_what_settle_tells(world: World) -> None:
    world.push(job(1), job(2), job(3))
    world.claims = Claims(world.link, KEYS, WORKER, master=MASTER, audit=10)
    world.claims.poll(["high", "low"])
    held = world.claimed()

    following = finish(world, held)
    assert isinstance(following, Claimed)
    world.settle(following, Outcome.DONE, T3, places=(0, 1))

    entries: Any = world.redis.xrange(KEYS.audit())
    short, long = (entry for _, entry in entries)
    changes = {b"token": T2, b"job": digest(job(2)).encode()}
    assert {**short, **changes} == long
    assert short[b"job"] == digest(job(1)).encode()
    assert short[b"token"] == T1


def test_after_something_unusual_redis_is_asked_once_a_job_for_a_while(world: World) -> None:
    world.push(*(job(number) for number in range(220)))
    world.store.pause_queues(["low"])
    held: Any = world.claimed()
    asked, jobs = world.link.asked, 130

    for number in range(jobs):
        held = world.settle(held, Outcome.DONE, b"m.%d" % (100 + number)).next
    assert world.link.asked - asked == jobs + 2  # at the first job, and at one that follows

    world.store.resume_queues(["low"])
    short = 0
    for number in range(70):
        held = world.settle(held, Outcome.DONE, b"m.%d" % (300 + number)).next
        short += is_short(world.link.sent)
    assert short > 0
    assert world.redis.get(KEYS.stat("processed")) == b"%d" % (jobs + 70)


def test_its_token_is_compared_at_full_length(world: World) -> None:
    world.push(RAW, job(2))
    held = world.claimed(b"m.12")

    assert finish(world, held._replace(token=T1)) is None
    assert world.list(KEYS.queue("high")) == [job(2)]

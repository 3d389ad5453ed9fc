"""What each script answers, on every kind of server, and that sending it again adds nothing."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from redis import Redis

from forkresque.errors import AlreadyScheduled, BadKey, RedisRefused
from forkresque.protocol.claims import Claimed, Nothing, Outcome, Settled, WorkerId
from forkresque.protocol.delayed import BATCH, Bucket, Due, Lead
from forkresque.protocol.failure import parse_failure
from forkresque.protocol.ownership import Held, Lease, Owner
from forkresque.protocol.payload import digest
from forkresque.protocol.registry import Recovery, Registry, Verdict, suspect_field
from forkresque.protocol.script import Call, Scalar, load
from forkresque.protocol.store import Request, Requests
from tests.support.servers import Server, binaries
from tests.support.world import (
    FREE,
    KEYS,
    LEASE,
    MASTER,
    NOW,
    OWNER,
    PAST,
    RAW,
    T1,
    T2,
    T3,
    WID,
    WORKER,
    World,
    again_is_the_same,
    dump,
    entry_of,
    job,
    open_world,
    places,
    spoil,
)


@pytest.fixture
def world(server: Server, redis: Redis) -> Iterator[World]:
    yield from open_world(server, redis)


@pytest.fixture(scope="module", params=sorted(binaries()))
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Return a server that only the tests of this file reconfigure."""
    with Server(binaries()[request.param]) as server:
        yield server


@pytest.fixture
def own_world(own_server: Server) -> Iterator[World]:
    """Return a world on `own_server`, with memory enough."""
    with closing(own_server.client()) as redis:
        redis.config_set("maxmemory", 0)
        redis.flushall()
        yield from open_world(own_server, redis)


# -- enqueue and enqueue_at --------------------------------------------------------------------


def test_an_enqueue_that_is_sent_again_adds_nothing(world: World) -> None:
    world.push(RAW)
    assert world.client.said == 1  # job in the queue
    before = dump(world.redis)

    assert world.client.again() == [b"DUP"]

    assert dump(world.redis) == before
    assert places(world.redis, RAW) == [KEYS.queue("high")]
    assert world.redis.smembers(KEYS.queues()) == {b"high"}


def test_a_producer_is_known_by_its_highest_number(world: World) -> None:
    world.store.enqueue("high", job(1), request=Request("p", 9))
    world.store.enqueue("high", job(2), request=Request("p", 8))
    assert world.client.word == "DUP"
    world.store.enqueue("high", job(3), request=Request("p", 10))
    world.store.enqueue("high", job(4), request=Request("q", 1))

    assert world.list(KEYS.queue("high")) == [job(1), job(3), job(4)]
    assert 0 < world.redis.ttl(KEYS.producer("p")) <= 600


def test_an_enqueue_at_the_front_comes_first(world: World) -> None:
    world.push(job(1), job(2))
    world.store.enqueue("high", job(3), request=Requests().next(), front=True)

    assert world.list(KEYS.queue("high")) == [job(3), job(1), job(2)]


@pytest.mark.parametrize("key", [KEYS.queue("high"), KEYS.queues()])
def test_an_enqueue_onto_a_wrong_type_names_the_key_and_stores_nothing(
    world: World, key: bytes
) -> None:
    spoil(world.redis, key)
    before = dump(world.redis)

    with pytest.raises(BadKey, match=key.decode()):
        world.push(RAW)

    assert dump(world.redis) == before


@pytest.mark.parametrize("key", [KEYS.queue("high"), KEYS.queues()])
def test_a_refused_enqueue_can_be_sent_again(world: World, key: bytes) -> None:
    world.store.enqueue("low", job(1), request=Request("p", 1))
    spoil(world.redis, key)
    before = dump(world.redis)
    with pytest.raises(BadKey):
        world.store.enqueue("high", job(2), request=Request("p", 2))
    assert dump(world.redis) == before

    world.redis.delete(key)
    world.client.again()

    assert world.list(KEYS.queue("high")) == [job(2)]


def test_an_enqueue_that_a_right_is_missing_for_leaves_nothing(world: World) -> None:
    before = dump(world.redis)
    rights = ["+@all", "-rpush"]
    world.redis.acl_setuser("half", enabled=True, nopass=True, keys=["*"], commands=rights)
    try:
        world.client.command("AUTH", "half", "any")
        with pytest.raises(RedisRefused, match=r"rpush|can't run"):
            world.push(RAW)
    finally:
        world.redis.acl_deluser("half")

    assert dump(world.redis) == before


def test_an_enqueue_takes_three_commands_and_one_round_trip(world: World) -> None:
    world.push(job(1))
    world.redis.config_resetstat()

    world.push(job(2))

    stats: Any = world.redis.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): stats[name]["calls"] for name in stats}
    calls = {name: number for name, number in calls.items() if not name.startswith("config")}
    assert calls == {"evalsha": 1, "set": 1, "sadd": 1, "rpush": 1}


def test_a_delayed_job_is_in_its_bucket_the_schedule_and_the_set_of_its_seconds(
    world: World,
) -> None:
    world.store.enqueue_at(77, RAW, request=Requests().next())
    assert world.client.said == [b"OK"]
    before = dump(world.redis)

    assert world.client.again() == [b"DUP"]

    assert dump(world.redis) == before
    assert world.list(KEYS.delayed(77)) == [RAW]
    assert world.redis.zrange(KEYS.schedule(), 0, -1, withscores=True) == [(b"77", 77.0)]
    assert world.redis.smembers(KEYS.timestamps(RAW)) == {b"delayed:77"}


def test_a_unique_delayed_job_is_refused_once_it_is_there_but_may_be_sent_again(
    world: World,
) -> None:
    world.store.enqueue_at(77, RAW, request=Requests().next(), unique=True)
    assert world.client.again() == [b"DUP"]
    before = dump(world.redis)

    with pytest.raises(AlreadyScheduled, match="77"):
        world.store.enqueue_at(77, RAW, request=Requests().next(), unique=True)
    assert dump(world.redis) == before

    world.store.enqueue_at(78, RAW, request=Requests().next(), unique=True)
    world.store.enqueue_at(77, RAW, request=Requests().next())
    assert world.list(KEYS.delayed(77)) == [RAW, RAW]


@pytest.mark.parametrize("key", [KEYS.delayed(77), KEYS.schedule(), KEYS.timestamps(RAW)])
def test_a_delayed_job_for_a_wrong_type_is_not_stored(world: World, key: bytes) -> None:
    spoil(world.redis, key)
    before = dump(world.redis)

    with pytest.raises(BadKey):
        world.store.enqueue_at(77, RAW, request=Requests().next())

    assert dump(world.redis) == before


# -- register, unregister, beat ----------------------------------------------------------------


def test_a_registered_worker_is_known_to_every_resque(world: World) -> None:
    world.register()
    again_is_the_same(world)

    redis = world.redis
    assert redis.smembers(KEYS.workers()) == redis.smembers(KEYS.kids(MASTER)) == {WID.encode()}
    assert redis.get(KEYS.started(WID)) == b"2026-11-18 11:06:40 +0000"
    assert json.loads(redis.get(KEYS.ping("host:7")) or b"") == {
        "time": int(NOW),
        "name": "host:7",
        "queues": "high,low",
    }
    assert 0 < redis.ttl(KEYS.ping("host:7")) <= 60
    assert world.registry.lease_value(MASTER) == LEASE.value
    assert world.registry.masters() == [MASTER]
    assert world.registry.kids(MASTER) == [WID]
    assert world.registry.workers() == [(WID, None)]


def test_register_leaves_the_masters_lease_as_it_is(world: World) -> None:
    world.redis.set(KEYS.lease(MASTER), "kept", px=4_000)
    world.register()

    assert world.registry.lease_value(MASTER) == "kept"
    assert world.redis.pttl(KEYS.lease(MASTER)) <= 4_000


def test_an_id_is_taken_over_only_after_its_job_is_recovered(world: World) -> None:
    world.push(RAW)
    world.claimed()
    other = Owner("other:1:bbbb", 7, 200)
    lease = Lease(other.master, "another process")
    world.let_leases_age()
    before = dump(world.redis)

    held = world.registry.register(WORKER, other, lease, now=NOW)
    assert held == Held(WID, str(OWNER), T1.decode(), "high", RAW)
    assert dump(world.redis) == before

    assert world.registry.recover(held, FREE) is Recovery.REQUEUED
    assert world.registry.register(WORKER, other, lease, now=NOW) is None
    assert world.list(KEYS.queue("high")) == [RAW]
    assert world.registry.kids(MASTER) == []
    assert world.registry.kids(other.master) == [WID]
    assert world.held().owner == str(other)


def test_an_idle_id_that_is_taken_over_leaves_its_former_master(world: World) -> None:
    other = Owner("other:1:bbbb", 7, 200)
    world.let_leases_age()
    assert world.registry.register(WORKER, other, Lease(other.master, "x"), now=NOW) is None
    again_is_the_same(world)

    assert world.registry.kids(MASTER) == []
    assert world.registry.kids(other.master) == [WID]


def test_an_id_that_is_in_use_where_we_cannot_look_is_refused(world: World) -> None:
    other = Owner("other:1:bbbb", 7, 200)
    before = dump(world.redis)

    with pytest.raises(RedisRefused, match="is in use elsewhere") as caught:
        world.registry.register(WORKER, other, Lease(other.master, "x"), now=NOW)

    assert "--host-label" in caught.value.hint
    assert dump(world.redis) == before


def test_register_gives_up_on_an_owner_that_keeps_changing(world: World) -> None:
    class Fickle:
        """Shows another owner than the one that is there."""

        def call(self, call: Call) -> Any:
            return world.link.call(call)

        def command(self, *words: Scalar) -> Any:
            return b"somebody:1:cccc 1 1" if KEYS.owner(WID) in words else None

    before = dump(world.redis)
    other = Owner("other:1:bbbb", 7, 200)
    with pytest.raises(RedisRefused, match="keeps changing"):
        Registry(Fickle(), KEYS).register(WORKER, other, Lease(other.master, "x"), now=NOW)

    assert world.link.word == "CHANGED"
    assert dump(world.redis) == before


def test_unregister_leaves_no_record_of_an_idle_worker(world: World) -> None:
    assert world.registry.unregister(WID, OWNER)
    again_is_the_same(world)

    assert world.all_keys() == {KEYS.masters(), KEYS.lease(MASTER), KEYS.proto()}


def test_unregister_waits_for_the_job_in_the_slot(world: World) -> None:
    world.push(RAW)
    world.claimed()
    before = dump(world.redis)

    assert not world.registry.unregister(WID, OWNER)

    assert dump(world.redis) == before


def test_unregister_leaves_the_next_owner_of_the_id_alone(world: World) -> None:
    before = dump(world.redis)
    assert world.registry.unregister(WID, Owner("other:1:bbbb", 7, 200))

    assert world.link.word == "CHANGED"
    assert dump(world.redis) == before


def test_a_beat_renews_the_lease_and_the_pings(world: World) -> None:
    world.redis.pexpire(KEYS.lease(MASTER), 1_000)
    world.redis.expire(KEYS.ping("host:7"), 1)

    assert world.registry.beat(LEASE, [WORKER], now=NOW + 5) == []
    again_is_the_same(world)

    assert world.redis.pttl(KEYS.lease(MASTER)) > 20_000
    assert world.redis.ttl(KEYS.ping("host:7")) > 50
    assert json.loads(world.redis.get(KEYS.ping("host:7")) or b"")["time"] == NOW + 5


def test_a_beat_takes_a_lease_again_that_had_run_out(world: World) -> None:
    world.redis.delete(KEYS.lease(MASTER), KEYS.masters())

    assert world.registry.beat(LEASE, [], now=NOW) == []

    assert world.registry.lease_value(MASTER) == LEASE.value
    assert world.registry.masters() == [MASTER]


def test_a_beat_restores_and_reports_an_id_that_a_stranger_removed(world: World) -> None:
    world.redis.srem(KEYS.workers(), WID)

    assert world.registry.beat(LEASE, [WORKER], now=NOW) == [WID]
    assert world.registry.beat(LEASE, [WORKER], now=NOW) == []
    assert world.redis.smembers(KEYS.workers()) == {WID.encode()}


def test_a_late_beat_revives_nobody(world: World) -> None:
    assert world.registry.unregister(WID, OWNER)

    assert world.registry.beat(LEASE, [WORKER], now=NOW) == []

    assert world.all_keys() == {KEYS.masters(), KEYS.lease(MASTER), KEYS.proto()}


def test_a_beat_of_more_workers_than_a_batch_reaches_them_all(world: World) -> None:
    workers = [WorkerId("host", pid, ("*",)) for pid in range(1_000, 1_150)]
    for worker in workers:
        owner = Owner(MASTER, worker.pid, 1)
        assert world.registry.register(worker, owner, LEASE, now=NOW) is None
    world.redis.delete(KEYS.workers())

    assert world.registry.beat(LEASE, workers, now=NOW) == [str(worker) for worker in workers]


def test_a_beat_for_a_lease_that_somebody_else_holds_is_stolen(world: World) -> None:
    world.redis.set(KEYS.lease(MASTER), "a stranger")
    before = dump(world.redis)

    assert world.registry.beat(LEASE, [WORKER], now=NOW) is None
    again_is_the_same(world)

    assert dump(world.redis) == before


# -- claim -------------------------------------------------------------------------------------


def test_a_claim_sent_again_brings_the_same_job_and_takes_no_other(world: World) -> None:
    world.push(RAW, job(2))
    first = world.claim()
    assert first == Claimed(T1, "high", RAW, suspect=False)
    assert world.link.word == "JOB"
    before = dump(world.redis)

    assert world.claim() == first

    assert world.link.word == "SAME"
    assert dump(world.redis) == before
    assert places(world.redis, RAW) == [KEYS.slot(WID)]


def test_a_claim_tells_how_many_jobs_it_has_left_in_the_queue(world: World) -> None:
    world.claims.poll(("high", "low"))
    for queue in ("high", "high", "low", "low", "low"):
        world.push(RAW, queue=queue)

    left = []
    for number in range(5):
        token = b"m.%d" % number
        job = world.claimed(token)
        left.append((job.queue, world.claims.left))
        world.claims.settle(job, Outcome.DONE, now=NOW)

    assert left == [("high", 1), ("high", 0), ("low", 2), ("low", 1), ("low", 0)]


def test_a_claim_with_another_token_is_busy_and_changes_nothing(world: World) -> None:
    world.push(RAW, job(2))
    world.claimed()
    before = dump(world.redis)

    assert world.claim(T2) is Nothing.BUSY

    assert world.link.said[:2] == [b"BUSY", T1]
    assert world.claims.left == 0
    assert dump(world.redis) == before


def test_a_token_is_compared_at_full_length(world: World) -> None:
    world.push(RAW)
    world.claimed(b"m.12")

    assert world.claim(b"m.1") is Nothing.BUSY
    assert world.settle(Claimed(b"m.1", "high", RAW, suspect=False), Outcome.DONE).lost


def test_queues_are_emptied_by_priority(world: World) -> None:
    world.push(job(1), queue="low")
    world.push(job(2), job(3), queue="high")

    found = []
    for token in (T1, T2, T3):
        found.append(world.claimed(token))
        world.settle(found[-1], Outcome.DONE)

    assert [(one.queue, one.raw) for one in found] == [
        ("high", job(2)),
        ("high", job(3)),
        ("low", job(1)),
    ]
    assert world.claim(b"m.4") is Nothing.EMPTY


def _unregister(world: World) -> None:
    world.redis.srem(KEYS.workers(), WID)


def _orphan(world: World) -> None:
    world.redis.delete(KEYS.lease(MASTER))


def _pause(world: World) -> None:
    world.redis.set(KEYS.pause_all(), " TRUE ")


def _pause_queues(world: World) -> None:
    world.store.pause_queues(["high", "low"])


HINDRANCES = [
    (_unregister, Nothing.UNREGISTERED),
    (_orphan, Nothing.ORPHAN),
    (_pause, Nothing.PAUSED),
    (_pause_queues, Nothing.EMPTY),
]


@pytest.mark.parametrize(("hinder", "answer"), HINDRANCES)
def test_a_hindered_claim_takes_nothing(world: World, hinder: Any, answer: Nothing) -> None:
    world.push(RAW)
    hinder(world)
    before = dump(world.redis)

    assert world.claim() is answer
    again_is_the_same(world)

    assert dump(world.redis) == before


@pytest.mark.parametrize(("hinder", "answer"), HINDRANCES)
def test_a_hindered_worker_still_settles_and_gets_no_next_job(
    world: World, hinder: Any, answer: Nothing
) -> None:
    world.push(RAW, job(2))
    held = world.claimed()
    hinder(world)

    assert world.settle(held, Outcome.DONE, T2) == Settled(lost=False, next=answer)
    assert world.link.word == "OK"
    before = dump(world.redis)

    assert world.settle(held, Outcome.DONE, T2) == Settled(lost=False, next=answer)
    assert world.link.word == "ALREADY"
    assert dump(world.redis) == before
    assert world.redis.get(KEYS.stat("processed")) == b"1"
    assert world.list(KEYS.queue("high")) == [job(2)]


def test_other_words_than_true_pause_nobody(world: World) -> None:
    world.push(RAW)
    world.redis.set(KEYS.pause_all(), "truer")

    world.claimed()


def test_a_paused_queue_is_passed_by(world: World) -> None:
    world.push(job(1), queue="high")
    world.push(job(2), queue="low")
    world.store.pause_queues(["high"])

    assert world.claimed().raw == job(2)

    world.store.resume_queues(["high"])
    assert world.settle(world.claimed(), Outcome.DONE, T2).next == Claimed(
        T2, "high", job(1), suspect=False
    )


def test_a_queue_of_a_wrong_type_is_named_and_passed_by(world: World) -> None:
    spoil(world.redis, KEYS.queue("high"))
    world.push(RAW, queue="low")

    assert world.claimed().raw == RAW
    assert world.link.said[4] == KEYS.queue("high")

    settled = world.settle(world.claimed(), Outcome.DONE, T2)
    assert settled == Settled(lost=False, next=Nothing.EMPTY)
    assert world.claims.skipped == KEYS.queue("high")


@pytest.mark.parametrize(
    "key",
    [
        KEYS.worker(WID),
        KEYS.workers(),
        KEYS.lease(MASTER),
        KEYS.pause_all(),
        KEYS.paused_queues(),
        KEYS.suspects(),
        KEYS.queues(),
    ],
)
def test_a_claim_beside_a_wrong_type_loses_nothing(world: World, key: bytes) -> None:
    world.push(RAW)
    spoil(world.redis, key)

    assert world.claimed().raw == RAW
    assert places(world.redis, RAW) == [KEYS.slot(WID)]


RECORD = {"run_at": "2026-11-18T11:06:40Z", "worker": "host:7", "queue": "high"}
STAND_IN = {"class": "(unreadable payload)", "args": []}


def test_the_working_record_shows_the_payload_byte_for_byte(world: World) -> None:
    world.push(RAW)
    world.claimed()

    record: Any = world.redis.get(KEYS.worker(WID))
    assert record.endswith(b',"payload":' + RAW + b"}")
    assert json.loads(record) == {**RECORD, "payload": json.loads(RAW)}


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"\xef\xbb\xbf{}", b"{} {}", b"[" * 2_000 + b"]" * 2_000, b"x" * 5_000]
)
def test_the_working_record_of_an_unreadable_payload_shows_a_stand_in(
    world: World, raw: bytes
) -> None:
    world.push(raw)
    assert world.claimed().raw == raw

    record = world.redis.get(KEYS.worker(WID)) or b""
    assert json.loads(record) == {**RECORD, "payload": STAND_IN}


@pytest.mark.parametrize(
    "raw",
    [
        b'{"class":"x","args":[NaN]}',
        b'{"class":"x","args":[0x10]}',
        b'{"class":"\xff","args":[]}',
    ],
)
def test_the_working_record_is_json_even_where_lua_is_lenient(world: World, raw: bytes) -> None:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    world.push(raw)
    world.claimed()

    record = world.redis.get(KEYS.worker(WID)) or b""
    assert json.loads(record, parse_constant=refuse)["payload"] == STAND_IN


def test_the_record_names_a_queue_that_needs_escapes(world: World) -> None:
    world.claims.poll(('a"b\n',))
    world.push(RAW, queue='a"b\n')

    assert world.claimed() == Claimed(T1, 'a"b\n', RAW, suspect=False)
    assert json.loads(world.redis.get(KEYS.worker(WID)) or b"")["queue"] == 'a"b\n'
    assert world.held().queue == 'a"b\n'
    world.settle(world.claimed(), Outcome.RELEASE)
    assert world.list(KEYS.queue('a"b\n')) == [RAW]


# -- settle ------------------------------------------------------------------------------------


ENTRY = entry_of(RAW)


def settle_as(world: World, held: Claimed, outcome: Outcome, next_token: bytes = b"") -> Settled:
    """Settle with all that this outcome needs."""
    return world.settle(held, outcome, next_token, entry=ENTRY, due=PAST)


def check_outcome(world: World, outcome: Outcome, behind: list[bytes]) -> None:
    """Look for the job where this outcome puts it, and for nothing elsewhere."""
    redis, queue = world.redis, KEYS.queue("high")
    wanted = {
        Outcome.DONE: [],
        Outcome.DROP: [],
        Outcome.FAIL: [KEYS.failed()],
        Outcome.RETRY: [KEYS.delayed(PAST)],
        Outcome.REQUEUE: [queue],
        Outcome.RELEASE: [queue],
    }
    assert places(redis, RAW) == wanted[outcome]
    rest = {Outcome.REQUEUE: [*behind, RAW], Outcome.RELEASE: [RAW, *behind]}
    assert world.list(queue) == rest.get(outcome, behind)
    done, failed = redis.get(KEYS.stat("processed")), redis.get(KEYS.stat("failed"))
    assert (done == b"1", failed == b"1") == (
        outcome is Outcome.DONE,
        outcome in (Outcome.FAIL, Outcome.RETRY),
    )
    assert redis.get(KEYS.stat("processed", "host:7")) == done
    assert redis.get(KEYS.stat("failed", "host:7")) == failed


@pytest.mark.parametrize("outcome", list(Outcome))
def test_the_last_job_is_settled_once(world: World, outcome: Outcome) -> None:
    world.push(RAW, job(2))
    held = world.claimed()

    first = settle_as(world, held, outcome)
    assert first == Settled(lost=False, next=Nothing.UNASKED)
    assert world.link.word == "OK"
    check_outcome(world, outcome, [job(2)])
    assert not world.redis.exists(KEYS.slot(WID), KEYS.worker(WID))
    assert world.redis.get(KEYS.last(WID)) == T1
    before = dump(world.redis)

    assert settle_as(world, held, outcome) == first

    assert world.link.word == "ALREADY"
    assert dump(world.redis) == before


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_settle_brings_the_next_job_and_sent_again_the_same(
    world: World, outcome: Outcome
) -> None:
    world.push(RAW, job(2), job(3))
    held = world.claimed()

    first = settle_as(world, held, outcome, T2)
    assert first == Settled(lost=False, next=Claimed(T2, "high", job(2), suspect=False))
    assert world.link.word == "OK"
    check_outcome(world, outcome, [job(3)])
    assert places(world.redis, job(2)) == [KEYS.slot(WID)]
    record = json.loads(world.redis.get(KEYS.worker(WID)) or b"")
    assert record["payload"] == json.loads(job(2))
    before = dump(world.redis)

    assert settle_as(world, held, outcome, T2) == first

    assert world.link.word == "ALREADY"
    assert dump(world.redis) == before


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.FAIL, Outcome.RETRY, Outcome.DROP])
def test_a_settle_that_finds_no_next_job_may_be_sent_again(world: World, outcome: Outcome) -> None:
    world.push(RAW)
    held = world.claimed()

    first = settle_as(world, held, outcome, T2)
    assert first == Settled(lost=False, next=Nothing.EMPTY)
    check_outcome(world, outcome, [])
    before = dump(world.redis)

    assert settle_as(world, held, outcome, T2) == first
    assert world.link.word == "ALREADY"
    assert dump(world.redis) == before

    world.push(job(2))
    assert settle_as(world, held, outcome, T2).next == Claimed(T2, "high", job(2), suspect=False)
    assert places(world.redis, job(2)) == [KEYS.slot(WID)]


@pytest.mark.parametrize("outcome", [Outcome.REQUEUE, Outcome.RELEASE])
def test_a_job_put_back_on_an_empty_queue_is_there_for_the_next_claim(
    world: World, outcome: Outcome
) -> None:
    world.push(RAW)
    held = world.claimed()

    assert settle_as(world, held, outcome, T2).next is Nothing.EMPTY
    check_outcome(world, outcome, [])

    assert settle_as(world, held, outcome, T2).next == Claimed(T2, "high", RAW, suspect=False)
    assert places(world.redis, RAW) == [KEYS.slot(WID)]


def test_a_retry_stands_where_the_scheduler_looks(world: World) -> None:
    world.push(RAW)
    settle_as(world, world.claimed(), Outcome.RETRY)

    assert world.list(KEYS.delayed(PAST)) == [RAW]
    assert world.redis.zscore(KEYS.schedule(), str(PAST)) == PAST
    assert world.redis.smembers(KEYS.timestamps(RAW)) == {b"delayed:%d" % PAST}


def test_a_retry_at_a_second_where_an_equal_job_waits_keeps_both(world: World) -> None:
    world.store.enqueue_at(PAST, RAW, request=Requests().next())
    world.push(RAW)
    settle_as(world, world.claimed(), Outcome.RETRY)

    assert world.list(KEYS.delayed(PAST)) == [RAW, RAW]


def test_an_unknown_token_is_lost_and_changes_nothing(world: World) -> None:
    world.push(RAW, job(2))
    world.claimed()
    before = dump(world.redis)

    stranger = Claimed(b"m.9", "high", RAW, suspect=False)
    for next_token in (b"", T3):
        settled = world.settle(stranger, Outcome.DONE, next_token)
        assert settled == Settled(lost=True, next=Nothing.UNASKED)
        assert world.link.word == "LOST"

    assert dump(world.redis) == before


@pytest.mark.parametrize("next_token", [b"", T2])
@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_settle_after_a_recovery_is_lost_and_changes_nothing(
    world: World, outcome: Outcome, next_token: bytes
) -> None:
    world.push(RAW, job(2))
    held = world.claimed()
    assert world.registry.recover(world.held(), FREE) is Recovery.REQUEUED
    world.register()
    before = dump(world.redis)

    assert settle_as(world, held, outcome, next_token).lost

    assert dump(world.redis) == before
    assert world.list(KEYS.queue("high")) == [RAW, job(2)]


def test_a_settle_whose_next_job_was_recovered_before_its_answer_came_is_not_lost(
    world: World,
) -> None:
    world.push(RAW, job(2))
    held = world.claimed()
    world.settle(held, Outcome.DONE, T2)
    assert world.registry.recover(world.held(), FREE) is Recovery.REQUEUED
    before = dump(world.redis)

    settled = world.settle(held, Outcome.DONE, T2)

    assert settled == Settled(lost=False, next=Nothing.UNREGISTERED)
    assert world.link.word == "ALREADY"
    assert dump(world.redis) == before
    assert world.redis.get(KEYS.stat("processed")) == b"1"


SETTLE_KEYS = {
    "record": KEYS.worker(WID),
    "last": KEYS.last(WID),
    "processed": KEYS.stat("processed"),
    "processed by": KEYS.stat("processed", "host:7"),
    "failures": KEYS.stat("failed"),
    "failures by": KEYS.stat("failed", "host:7"),
    "failed": KEYS.failed(),
    "bucket": KEYS.delayed(PAST),
    "schedule": KEYS.schedule(),
    "timestamps": KEYS.timestamps(RAW),
    "workers": KEYS.workers(),
    "lease": KEYS.lease(MASTER),
    "pause": KEYS.pause_all(),
    "paused": KEYS.paused_queues(),
    "suspects": KEYS.suspects(),
    "queues": KEYS.queues(),
    "other queue": KEYS.queue("low"),
}


@pytest.mark.parametrize("key", SETTLE_KEYS.values(), ids=SETTLE_KEYS)
@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_settle_beside_a_wrong_type_loses_neither_job(
    world: World, outcome: Outcome, key: bytes
) -> None:
    world.push(RAW, job(2))
    held = world.claimed()
    spoil(world.redis, key)
    before = dump(world.redis)

    try:
        world.settle(held, outcome, T2, entry=ENTRY, due=PAST, digest=digest(RAW))
    except BadKey:
        assert dump(world.redis) == before
        expected = 1
    else:
        expected = 0 if outcome in (Outcome.DONE, Outcome.DROP) else 1
    assert len(places(world.redis, RAW)) == expected
    assert len(places(world.redis, job(2))) == 1


@pytest.mark.parametrize(
    ("outcome", "key"),
    [
        (Outcome.FAIL, KEYS.failed()),
        (Outcome.RETRY, KEYS.delayed(PAST)),
        (Outcome.RETRY, KEYS.schedule()),
        (Outcome.RETRY, KEYS.timestamps(RAW)),
        (Outcome.REQUEUE, KEYS.queue("high")),
        (Outcome.RELEASE, KEYS.queue("high")),
    ],
)
def test_a_job_that_cannot_go_where_it_should_stays_in_the_slot(
    world: World, outcome: Outcome, key: bytes
) -> None:
    world.push(RAW)
    held = world.claimed()
    spoil(world.redis, key)
    before = dump(world.redis)

    with pytest.raises(BadKey):
        settle_as(world, held, outcome, T2)
    assert dump(world.redis) == before

    world.redis.delete(key)
    assert not settle_as(world, held, outcome).lost
    check_outcome(world, outcome, [])


@pytest.mark.parametrize(
    ("outcome", "key"),
    [
        (Outcome.DONE, KEYS.stat("processed")),
        (Outcome.DONE, KEYS.stat("processed", "host:7")),
        (Outcome.FAIL, KEYS.stat("failed")),
        (Outcome.RETRY, KEYS.stat("failed", "host:7")),
    ],
)
def test_a_counter_that_is_no_number_is_named_and_loses_no_job(
    world: World, outcome: Outcome, key: bytes
) -> None:
    world.push(RAW, job(2))
    held = world.claimed()
    world.redis.set(key, "many")

    settled = settle_as(world, held, outcome, T2)

    assert world.claims.skipped == key
    assert settled.next == Claimed(T2, "high", job(2), suspect=False)
    assert places(world.redis, job(2)) == [KEYS.slot(WID)]
    assert len(places(world.redis, RAW)) == (0 if outcome is Outcome.DONE else 1)
    assert world.redis.get(key) == b"many"


# -- recover -----------------------------------------------------------------------------------


def test_a_recovered_job_is_the_next_one_and_its_worker_is_forgotten(world: World) -> None:
    world.push(RAW, job(2))
    world.claimed()
    held = world.held()

    assert world.registry.recover(held, FREE) is Recovery.REQUEUED

    assert world.list(KEYS.queue("high")) == [RAW, job(2)]
    assert world.redis.get(KEYS.last(WID)) == b"-" + T1
    assert world.all_keys() - {key for key in world.all_keys() if b":fr:enq:" in key} == {
        KEYS.queue("high"),
        KEYS.queues(),
        KEYS.last(WID),
        KEYS.masters(),
        KEYS.lease(MASTER),
        KEYS.proto(),
    }
    before = dump(world.redis)
    assert world.registry.recover(held, FREE) is Recovery.CHANGED
    assert dump(world.redis) == before


def test_recovering_an_idle_worker_forgets_it(world: World) -> None:
    assert world.registry.recover(world.held(), FREE) is Recovery.NONE

    assert world.all_keys() == {KEYS.masters(), KEYS.lease(MASTER), KEYS.proto()}


def test_a_job_is_not_recovered_when_the_slot_has_changed(world: World) -> None:
    world.push(RAW, job(2))
    held_before, idle = world.claimed(), Held(WID, str(OWNER), "", "", b"")
    seen = world.held()
    world.settle(held_before, Outcome.DONE, T2)
    before = dump(world.redis)

    assert world.registry.recover(seen, FREE) is Recovery.CHANGED
    assert world.registry.recover(idle, FREE) is Recovery.CHANGED
    assert dump(world.redis) == before


def test_a_job_is_not_recovered_when_the_owner_has_changed(world: World) -> None:
    world.push(RAW)
    world.claimed()
    seen = Held(WID, "other:1:bbbb 7 200", T1.decode(), "high", RAW)
    before = dump(world.redis)

    assert world.registry.recover(seen, FREE) is Recovery.CHANGED
    assert dump(world.redis) == before


def test_a_standing_lease_protects_a_job_from_those_who_heed_it(world: World) -> None:
    world.push(RAW)
    world.claimed()
    before = dump(world.redis)
    assert world.registry.recover(world.held(), FREE, heed_lease=True) is Recovery.ALIVE
    assert dump(world.redis) == before

    world.redis.delete(KEYS.lease(MASTER))
    world.registry.renew_own_lease(WID, Lease(MASTER, "", term=5.0))
    assert 0 < world.redis.pttl(KEYS.own_lease(WID)) <= 5_000
    assert world.registry.recover(world.held(), FREE, heed_lease=True) is Recovery.ALIVE

    world.redis.delete(KEYS.own_lease(WID))
    assert world.registry.recover(world.held(), FREE, heed_lease=True) is Recovery.REQUEUED


def test_a_recovery_that_heeds_no_lease_ends_the_workers_own_one(world: World) -> None:
    world.push(RAW)
    world.claimed()
    world.registry.renew_own_lease(WID, LEASE)

    assert world.registry.recover(world.held(), FREE) is Recovery.REQUEUED
    assert not world.redis.exists(KEYS.own_lease(WID))


def suspects(world: World) -> dict[bytes, bytes]:
    found: Any = world.redis.hgetall(KEYS.suspects())
    return dict(found)


def test_a_death_counts_for_three_days_from_the_first(world: World) -> None:
    field = suspect_field(RAW)
    first = int(world.redis.time()[0])
    verdict = Verdict(field, limit=3, fail=False, poison=ENTRY, entry=ENTRY)
    world.push(RAW)
    for age, expected in ((72 * 3600 - 60, b"3"), (72 * 3600 + 60, b"1")):
        world.redis.hset(KEYS.suspects(), field, f"2 {first - age}")
        world.register()
        world.claimed()
        result = world.registry.recover(world.held(), verdict)
        if expected == b"3":
            assert result is Recovery.POISON
            world.redis.delete(KEYS.failed())
            world.push(RAW)
        else:
            assert suspects(world)[field.encode()].split(b" ")[0] == expected


def test_three_deaths_with_one_payload_send_it_to_the_failed_list(world: World) -> None:
    poison = entry_of(RAW)
    field = suspect_field(RAW)
    verdict = Verdict(suspect=field, limit=3, fail=False, poison=poison, entry=b"unused")
    world.push(RAW)
    results = []
    for death in range(1, 4):
        world.register()
        assert world.claimed(b"m.%d" % death).suspect == (death > 1)
        results.append(world.registry.recover(world.held(), verdict))
        left = suspects(world).get(field.encode(), b"")
        assert left.split(b" ")[0] == (b"" if death == 3 else b"%d" % death)

    assert results == [Recovery.REQUEUED, Recovery.REQUEUED, Recovery.POISON]
    assert world.list(KEYS.failed()) == [poison]
    assert places(world.redis, RAW) == [KEYS.failed()]
    assert world.redis.get(KEYS.stat("failed")) == b"1"


def test_deaths_are_counted_for_three_days_and_those_of_hosts_apart(world: World) -> None:
    world.push(RAW)
    for host in (True, False):
        field = suspect_field(RAW, host=host)
        world.register()
        world.claimed()
        verdict = Verdict(field, limit=2, fail=False, poison=b"", entry=b"")
        assert world.registry.recover(world.held(), verdict) is Recovery.REQUEUED

    counts = {field: value.split(b" ")[0] for field, value in suspects(world).items()}
    assert counts == {digest(RAW).encode(): b"1", digest(RAW).encode() + b":host": b"1"}
    assert 0 < world.redis.ttl(KEYS.suspects()) <= 72 * 3600


def test_a_success_clears_the_count_of_deaths(world: World) -> None:
    world.redis.hset(KEYS.suspects(), digest(RAW), 2)
    world.redis.hset(KEYS.suspects(), f"{digest(RAW)}:host", 2)
    world.redis.hset(KEYS.suspects(), "another", 1)
    world.push(RAW, job(2))
    held = world.claimed()
    assert held.suspect

    settled = world.settle(held, Outcome.DONE, T2, digest=digest(RAW))

    assert world.redis.hgetall(KEYS.suspects()) == {b"another": b"1"}
    assert isinstance(settled.next, Claimed)
    assert settled.next.suspect


def test_policy_fail_makes_the_first_death_final(world: World) -> None:
    verdict = Verdict(suspect_field(RAW), limit=3, fail=True, poison=b"unused", entry=ENTRY)
    world.push(RAW)
    world.claimed()

    assert world.registry.recover(world.held(), verdict) is Recovery.FAILED

    assert world.list(KEYS.failed()) == [ENTRY]
    assert places(world.redis, RAW) == [KEYS.failed()]
    assert world.redis.get(KEYS.stat("failed")) == b"1"


RECOVER_KEYS = {
    "record": KEYS.worker(WID),
    "last": KEYS.last(WID),
    "workers": KEYS.workers(),
    "ping": KEYS.ping("host:7"),
    "started": KEYS.started(WID),
    "kids": KEYS.kids(MASTER),
    "lease": KEYS.lease(MASTER),
    "own lease": KEYS.own_lease(WID),
    "suspects": KEYS.suspects(),
    "queues": KEYS.queues(),
    "queue": KEYS.queue("high"),
    "failures": KEYS.stat("failed"),
    "failed": KEYS.failed(),
}


@pytest.mark.parametrize("key", RECOVER_KEYS.values(), ids=RECOVER_KEYS)
@pytest.mark.parametrize("fail", [False, True])
def test_a_recovery_beside_a_wrong_type_loses_nothing(
    world: World, key: bytes, *, fail: bool
) -> None:
    world.push(RAW)
    world.claimed()
    spoil(world.redis, key)
    before = dump(world.redis)
    verdict = Verdict(suspect_field(RAW), limit=3, fail=fail, poison=ENTRY, entry=ENTRY)

    try:
        result = world.registry.recover(world.held(), verdict)
    except BadKey:
        assert key == KEYS.failed()
        assert dump(world.redis) == before
    else:
        unplaceable = key == KEYS.queue("high")  # no other job must wait for this one
        assert result is (Recovery.FAILED if fail or unplaceable else Recovery.REQUEUED)
    assert len(places(world.redis, RAW)) == 1


def test_a_count_of_deaths_that_is_no_number_puts_the_job_back(world: World) -> None:
    world.push(RAW)
    world.claimed()
    world.redis.hset(KEYS.suspects(), digest(RAW), "many")
    verdict = Verdict(suspect_field(RAW), limit=2, fail=False, poison=ENTRY, entry=ENTRY)

    assert world.registry.recover(world.held(), verdict) is Recovery.REQUEUED
    assert places(world.redis, RAW) == [KEYS.queue("high")]


# -- lead, resign, promote ---------------------------------------------------------------------

LOCKS = [KEYS.node_leader(), KEYS.node_master(), KEYS.ruby_master()]


def test_a_leader_holds_its_own_lock_and_those_of_all_other_schedulers(world: World) -> None:
    assert world.lead() is Lead.PROMOTE
    again_is_the_same(world)

    assert KEYS.ruby_master() == b"resque:resque:resque_scheduler_master_lock"
    for lock in (KEYS.leader(), *LOCKS):
        assert world.redis.get(lock) == b"us"
        assert 14_000 < world.redis.pttl(lock) <= 15_000
    assert world.redis.get(KEYS.epoch()) == b"1"
    assert world.delayed.leader() == "us"


def test_a_second_scheduler_follows_and_changes_nothing(world: World) -> None:
    world.lead("us")
    before = dump(world.redis)

    leadership = world.delayed.lead("them", term=15.0)

    assert (leadership.state, leadership.holder) == (Lead.FOLLOW, "us")
    assert dump(world.redis) == before


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_of_another_language_blocks_promotion_and_gets_an_end(
    world: World, lock: bytes
) -> None:
    world.redis.set(lock, "stranger")

    leadership = world.delayed.lead("us", term=15.0)

    assert (leadership.state, leadership.holder) == (Lead.BLOCKED, "stranger")
    assert world.redis.get(lock) == b"stranger"
    assert 170 < world.redis.ttl(lock) <= 180
    assert not world.redis.exists(*(other for other in LOCKS if other != lock))

    world.redis.expire(lock, 60)
    assert world.lead() is Lead.BLOCKED
    assert world.redis.ttl(lock) <= 60  # an end that its holder gave it is not ours to move

    world.redis.delete(lock)
    assert world.lead() is Lead.PROMOTE
    assert world.redis.get(KEYS.epoch()) == b"1"


def test_resign_gives_up_only_what_is_ours(world: World) -> None:
    world.lead()
    world.redis.set(KEYS.node_leader(), "stranger")

    assert world.delayed.resign("them") == 0
    assert world.delayed.resign("us") == 3
    assert world.delayed.resign("us") == 0

    assert world.redis.get(KEYS.node_leader()) == b"stranger"
    assert not world.redis.exists(KEYS.leader(), KEYS.node_master(), KEYS.ruby_master())


def test_each_change_of_the_lead_is_counted(world: World) -> None:
    for token in ("us", "them", "us"):
        world.lead(token)
        world.delayed.resign(token)

    assert world.redis.get(KEYS.epoch()) == b"3"


def delay(world: World, *raws: bytes, second: int = PAST) -> None:
    for raw in raws:
        world.store.enqueue_at(second, raw, request=Requests().next())


def test_due_jobs_move_to_their_queue_in_order_and_leave_no_trace_behind(world: World) -> None:
    delay(world, RAW, job(2), RAW)
    world.lead()
    jobs = world.delayed.batch([PAST])[0]
    assert list(world.delayed.due()) == [[PAST]]

    result = world.delayed.promote(jobs, token="us")

    assert (result.moved, result.left, result.fenced) == (3, 0, False)
    assert world.list(KEYS.queue("high")) == [RAW, job(2), RAW]
    assert world.redis.smembers(KEYS.queues()) == {b"high"}
    assert not world.redis.exists(
        KEYS.delayed(PAST), KEYS.schedule(), KEYS.timestamps(RAW), KEYS.timestamps(job(2))
    )
    before = dump(world.redis)
    assert world.link.again() == [b"OK", b"", 0, 0]
    assert dump(world.redis) == before


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("holder", [None, "stranger"])
def test_without_each_of_the_three_locks_nothing_is_promoted(
    world: World, lock: bytes, holder: str | None
) -> None:
    delay(world, RAW)
    world.lead()
    world.redis.delete(lock)
    if holder:
        world.redis.set(lock, holder)
    before = dump(world.redis)

    result = world.delayed.promote(world.delayed.batch([PAST])[0], token="us")

    assert (result.moved, result.fenced) == (0, True)
    assert world.link.word == "FENCED"
    assert dump(world.redis) == before


def test_a_job_is_not_promoted_before_its_second_by_redis_clock(world: World) -> None:
    second = world.redis.time()[0] + 100
    delay(world, RAW, second=second)
    world.lead()
    before = dump(world.redis)
    assert list(world.delayed.due()) == [[]]
    assert world.delayed.next_second() == second

    result = world.delayed.promote(world.delayed.batch([second])[0], token="us")

    assert (result.moved, result.left, result.fenced) == (0, 1, False)
    assert world.link.word == "EARLY"
    assert dump(world.redis) == before


@pytest.mark.parametrize("raw", [b"", b"junk", b"[1]", b'{"class":"x"}', b'{"queue":"high"}'])
def test_a_delayed_item_that_is_no_job_fails_with_its_bytes_kept(world: World, raw: bytes) -> None:
    delay(world, raw, job(2))
    world.lead()

    result = world.delayed.promote(world.delayed.batch([PAST])[0], token="us")

    assert (result.moved, result.left) == (2, 0)
    (entry,) = world.list(KEYS.failed())
    failure = parse_failure(entry)
    assert (failure.payload, failure.exception) == (raw, "InvalidPayload")
    assert world.redis.get(KEYS.stat("failed")) == b"1"
    assert world.list(KEYS.queue("high")) == [job(2)]
    assert not world.redis.exists(KEYS.timestamps(raw))


def test_a_batch_moves_a_hundred_jobs_and_says_how_many_are_left(world: World) -> None:
    delay(world, *(job(number) for number in range(130)))
    world.lead()
    jobs = world.delayed.batch([PAST])[0]
    assert len(jobs[0].jobs) == BATCH == 100

    first = world.delayed.promote(jobs, token="us")
    assert (first.moved, first.left) == (100, 30)
    assert world.redis.zscore(KEYS.schedule(), str(PAST)) == PAST

    second = world.delayed.promote(world.delayed.batch([PAST])[0], token="us")
    assert (second.moved, second.left) == (30, 0)
    assert world.list(KEYS.queue("high")) == [job(number) for number in range(130)]


def test_a_batch_stops_where_the_bucket_is_not_what_was_read(world: World) -> None:
    delay(world, job(1), job(2), job(3))
    world.lead()
    jobs = world.delayed.batch([PAST])[0]
    world.redis.lrem(KEYS.delayed(PAST), 1, job(2).decode())  # somebody removed it meanwhile

    result = world.delayed.promote(jobs, token="us")

    assert (result.moved, result.left) == (1, 1)
    assert world.list(KEYS.queue("high")) == [job(1)]
    assert world.list(KEYS.delayed(PAST)) == [job(3)]


PROMOTE_KEYS = {
    "queues": KEYS.queues(),
    "queue": KEYS.queue("high"),
    "failed": KEYS.failed(),
    "failures": KEYS.stat("failed"),
    "timestamps": KEYS.timestamps(RAW),
    "schedule": KEYS.schedule(),
    "node leader": KEYS.node_leader(),
}


@pytest.mark.parametrize("key", PROMOTE_KEYS.values(), ids=PROMOTE_KEYS)
def test_a_promotion_beside_a_wrong_type_loses_nothing(world: World, key: bytes) -> None:
    delay(world, b"junk", RAW)
    world.lead()
    jobs = world.delayed.batch([PAST])[0]
    spoil(world.redis, key)

    try:
        troubles = world.delayed.promote(jobs, token="us").troubles
    except RedisRefused:
        troubles = {PAST: BadKey("")}
    if troubles:
        assert key not in (KEYS.queues(), KEYS.stat("failed"), KEYS.timestamps(RAW))

    assert len(places(world.redis, RAW)) == 1
    assert len(places(world.redis, b"junk")) == 1


# -- requeue_failed and waiting ----------------------------------------------------------------


def test_a_failed_job_goes_back_once_with_the_bytes_it_came_with(world: World) -> None:
    world.redis.rpush(KEYS.failed(), b"another", ENTRY, ENTRY)
    request = Requests().next()

    assert world.failures.requeue(ENTRY, RAW, "high", request=request)
    assert world.client.said == [b"OK"]
    before = dump(world.redis)

    assert world.failures.requeue(ENTRY, RAW, "high", request=request)
    assert world.client.said == [b"DUP"]
    assert dump(world.redis) == before
    assert world.list(KEYS.failed()) == [b"another", ENTRY]
    assert world.list(KEYS.queue("high")) == [RAW]
    assert world.redis.smembers(KEYS.queues()) == {b"high"}


def test_a_failure_record_that_is_gone_requeues_nothing(world: World) -> None:
    world.redis.rpush(KEYS.failed(), b"another")
    before = dump(world.redis)

    assert not world.failures.requeue(ENTRY, RAW, "high", request=Requests().next())

    assert world.client.said == [b"MOVED"]
    assert dump(world.redis) == before


@pytest.mark.parametrize("key", [KEYS.failed(), KEYS.queue("high"), KEYS.queues()])
def test_a_failed_job_stays_where_it_is_beside_a_wrong_type(world: World, key: bytes) -> None:
    if key != KEYS.failed():
        world.redis.rpush(KEYS.failed(), ENTRY)
    spoil(world.redis, key)
    before = dump(world.redis)

    with pytest.raises(BadKey):
        world.failures.requeue(ENTRY, RAW, "high", request=Requests().next())

    assert dump(world.redis) == before


def waiting(world: World, *names: str) -> int:
    call = load("waiting").pack(
        pause=KEYS.pause_all(),
        paused=KEYS.paused_queues(),
        queues=KEYS.queues(),
        list=[KEYS.queue(name) for name in names],
        name=names,
    )
    return int(world.link.call(call))


def test_waiting_counts_what_may_be_claimed_and_changes_nothing(world: World) -> None:
    world.push(job(1), job(2), queue="high")
    world.push(job(3), queue="low")
    spoil(world.redis, KEYS.queue("odd"))
    before = dump(world.redis)

    assert waiting(world, "high", "low", "odd", "none") == 3
    assert waiting(world) == 0
    assert dump(world.redis) == before

    world.store.pause_queues(["high"])
    assert waiting(world, "high", "low") == 1
    world.store.pause_all()
    assert waiting(world, "high", "low") == 0


# -- the whole way, and a full server ----------------------------------------------------------


def test_a_job_keeps_its_bytes_on_every_way_it_can_go(world: World) -> None:
    def claim_again(token: bytes) -> Claimed:
        held = world.claimed(token)
        assert held.raw == RAW
        assert held.queue == "high"
        return held

    world.push(RAW)
    world.settle(claim_again(b"m.1"), Outcome.RELEASE)
    world.settle(claim_again(b"m.2"), Outcome.REQUEUE)
    settle_as(world, claim_again(b"m.3"), Outcome.RETRY)
    world.lead()
    assert world.delayed.promote(world.delayed.batch([PAST])[0], token="us").moved == 1
    settle_as(world, claim_again(b"m.4"), Outcome.FAIL)
    (entry,) = world.failures.entries(0, -1)
    failure = parse_failure(entry)
    world.failures.requeue(entry, failure.payload, failure.queue, request=Requests().next())
    claim_again(b"m.5")
    assert world.registry.recover(world.held(), FREE) is Recovery.REQUEUED
    world.register()
    claim_again(b"m.6")

    assert places(world.redis, RAW) == [KEYS.slot(WID)]


def fill_memory(world: World) -> None:
    world.redis.config_set("maxmemory-policy", "noeviction")
    world.redis.config_set("maxmemory", 1)


def test_a_full_server_refuses_new_jobs_and_stores_nothing(own_world: World) -> None:
    fill_memory(own_world)
    before = dump(own_world.redis)

    with pytest.raises(RedisRefused, match="used memory"):
        own_world.push(RAW)
    with pytest.raises(RedisRefused, match="used memory"):
        own_world.store.enqueue_at(PAST, RAW, request=Requests().next())

    assert dump(own_world.redis) == before


@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_full_server_is_worked_off(
    own_world: World, outcome: Outcome, *, behind: bool, chained: bool
) -> None:
    own_world.push(RAW, *([job(2)] if behind else []))
    fill_memory(own_world)

    held = own_world.claimed()
    settled = settle_as(own_world, held, outcome, T2 if chained else b"")

    assert isinstance(settled.next, Claimed) == (behind and chained)
    check_outcome(own_world, outcome, [job(2)] if behind and not chained else [])


@pytest.mark.parametrize("fail", [False, True])
def test_a_full_server_recovers_and_promotes_and_requeues(own_world: World, *, fail: bool) -> None:
    own_world.push(RAW)
    own_world.claimed()
    delay(own_world, job(2), b"junk")
    own_world.redis.rpush(KEYS.failed(), entry_of(job(3)))
    fill_memory(own_world)

    verdict = Verdict(suspect_field(RAW), limit=3, fail=fail, poison=ENTRY, entry=ENTRY)
    result = own_world.registry.recover(own_world.held(), verdict)
    assert result is (Recovery.FAILED if fail else Recovery.REQUEUED)
    assert own_world.lead() is Lead.PROMOTE
    assert own_world.delayed.promote(own_world.delayed.batch([PAST])[0], token="us").moved == 2
    request = Requests().next()
    assert own_world.failures.requeue(entry_of(job(3)), job(3), "high", request=request)

    for raw in (RAW, job(2), job(3), b"junk"):
        assert len(places(own_world.redis, raw)) == 1


def test_a_full_server_lets_workers_register_and_renew(own_world: World) -> None:
    own_world.push(RAW)
    fill_memory(own_world)
    other = WorkerId("host", 8, ("high",))

    assert own_world.registry.register(other, Owner(MASTER, 8, 1), LEASE, now=NOW) is None
    assert own_world.registry.beat(LEASE, [WORKER, other], now=NOW) == []


def test_a_full_server_lets_an_unregistered_worker_register_again(own_world: World) -> None:
    own_world.push(RAW)
    fill_memory(own_world)
    own_world.redis.srem(KEYS.workers(), WID)
    assert own_world.claim() is Nothing.UNREGISTERED

    own_world.register()

    assert own_world.claimed().raw == RAW


def test_promote_takes_due_items_as_the_caller_read_them(world: World) -> None:
    world.lead()
    delay(world, RAW)

    result = world.delayed.promote([Bucket(PAST, (Due(job(9), "high"),))], token="us")

    assert (result.moved, result.left) == (0, 1)
    assert places(world.redis, RAW) == [KEYS.delayed(PAST)]

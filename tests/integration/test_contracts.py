"""Locks, audit, foreign tools, recurring schedules, stray buckets, acknowledgements, protocol."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from redis import Redis

from forkresque import Forkresque
from forkresque.errors import ConfigError, EnqueueUnknown, JobLost, RedisRefused
from forkresque.promoter import Promoter
from forkresque.protocol.claims import Claimed, Claims, Outcome, WorkerId
from forkresque.protocol.connection import Target
from forkresque.protocol.delayed import Tick
from forkresque.protocol.failure import failure_entry, parse_failure
from forkresque.protocol.foreign import NODE_TIMEOUT
from forkresque.protocol.keys import Keys
from forkresque.protocol.payload import digest
from forkresque.protocol.registry import PROTOCOL, Cleaning, Recovery, Registry, Sign
from forkresque.protocol.store import Ack, check_server
from forkresque.queue import Queue
from tests.support.connections import Over
from tests.support.servers import HOST, Server, binaries
from tests.support.waiting import wait_until
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
    WID,
    WORKER,
    World,
    again_is_the_same,
    dump,
    entry_of,
    job,
    open_world,
)

LOCK = b"resque:workerslock:x:high:[1]"
NODE = "nodehost:42+1:high"
NODE_RECORD = b'{"run_at":"x","queue":"high","payload":%b,"worker":"nodehost:42+1"}'


@pytest.fixture
def world(server: Server, redis: Redis) -> Iterator[World]:
    yield from open_world(server, redis)


def take(world: World, held: Claimed, lock: bytes = LOCK) -> bool:
    return world.claims.take_lock(held, lock, 60, now=NOW)


# -- job locks ---------------------------------------------------------------------------------


def test_a_lock_is_written_so_that_node_resque_can_read_it(world: World) -> None:
    world.push(RAW)
    held = world.claimed()

    assert take(world, held) is True

    assert world.redis.get(LOCK) == b"%d.%b" % (NOW + 61, T1)
    assert world.redis.ttl(LOCK) in (59, 60)
    assert world.redis.ttl(KEYS.locks(WID)) in (59, 60)
    again_is_the_same(world)


def test_a_lock_that_another_holds_is_not_taken_and_not_freed(world: World) -> None:
    world.push(RAW)
    held = world.claimed()
    ends = world.redis.time()[0] + 100
    world.redis.set(LOCK, ends)

    assert take(world, held) is False
    assert world.claims.drop_lock(LOCK) is False
    world.settle(held, Outcome.DONE)

    assert world.redis.get(LOCK) == str(ends).encode()


def test_a_lock_that_some_client_left_without_an_end_ends_by_its_number(world: World) -> None:
    world.push(RAW)
    held = world.claimed()
    world.redis.set(LOCK, PAST)

    assert take(world, held) is True


def test_a_lock_that_ends_by_itself_stands_until_then_whatever_its_number_says(
    world: World,
) -> None:
    world.push(RAW)
    held = world.claimed()
    world.redis.set(LOCK, PAST, ex=60)

    assert take(world, held) is False


@pytest.mark.parametrize("value", ["for ever", "", "-1"])
def test_a_lock_whose_value_is_no_number_stands(world: World, value: str) -> None:
    world.push(RAW)
    held = world.claimed()
    world.redis.set(LOCK, value)

    assert take(world, held) is False


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("chained", [False, True])
def test_every_end_of_a_job_frees_its_locks(
    world: World, outcome: Outcome, *, chained: bool
) -> None:
    world.push(RAW, job(2))
    held = world.claimed()
    assert take(world, held)
    assert take(world, held, b"resque:other")

    settled = world.settle(held, outcome, T2 if chained else b"", entry=entry_of(RAW), due=77)

    assert isinstance(settled.next, Claimed) is chained
    assert not world.redis.exists(LOCK, b"resque:other", KEYS.locks(WID))
    if isinstance(settled.next, Claimed):  # and the next job may take them
        assert take(world, settled.next)


def test_a_settle_does_not_free_a_lock_that_has_passed_to_somebody_else(world: World) -> None:
    world.push(RAW)
    held = world.claimed()
    take(world, held)
    world.redis.set(LOCK, "99999999999.theirs")

    world.settle(held, Outcome.DONE)

    assert world.redis.get(LOCK) == b"99999999999.theirs"
    assert not world.redis.exists(KEYS.locks(WID))


def test_a_dropped_lock_is_free_and_is_not_dropped_again(world: World) -> None:
    world.push(RAW)
    held = world.claimed()
    take(world, held)

    assert world.claims.drop_lock(LOCK) is True
    assert world.claims.drop_lock(LOCK) is False

    assert not world.redis.exists(LOCK, KEYS.locks(WID))


def test_a_lock_that_has_passed_to_somebody_else_is_not_dropped(world: World) -> None:
    world.push(RAW)
    take(world, world.claimed())
    world.redis.set(LOCK, "99999999999.theirs")

    assert world.claims.drop_lock(LOCK) is False

    assert world.redis.get(LOCK) == b"99999999999.theirs"


def test_a_recovered_worker_gets_no_lock(world: World) -> None:
    world.push(RAW)
    held = world.claimed()
    world.registry.recover(world.held(), FREE)

    with pytest.raises(JobLost):
        take(world, held)

    assert not world.redis.exists(LOCK, KEYS.locks(WID))


def test_recovery_frees_the_locks_of_the_dead_and_no_others(world: World) -> None:
    world.push(RAW)
    held = world.claimed()
    take(world, held)
    take(world, held, b"resque:other")
    world.redis.set(b"resque:other", "99999999999.theirs")
    seen = world.held()
    assert sorted(seen.locks) == [b"resque:other", LOCK]

    assert world.registry.recover(seen, FREE) is Recovery.REQUEUED

    assert not world.redis.exists(LOCK, KEYS.locks(WID))
    assert world.redis.get(b"resque:other") == b"99999999999.theirs"


def test_a_lock_that_was_taken_after_the_look_makes_the_recoverer_look_again(world: World) -> None:
    world.push(RAW)
    held = world.claimed()
    seen = world.held()
    take(world, held)

    assert world.registry.recover(seen, FREE) is Recovery.CHANGED
    assert world.registry.recover(world.held(), FREE) is Recovery.REQUEUED
    assert not world.redis.exists(LOCK)


# -- audit -------------------------------------------------------------------------------------


def audited(world: World) -> list[dict[bytes, bytes]]:
    entries: Any = world.redis.xrange(KEYS.audit())
    return [fields for _, fields in entries]


def test_without_an_audit_nothing_is_kept(world: World) -> None:
    world.push(RAW)
    world.settle(world.claimed(), Outcome.DONE)

    assert not world.redis.exists(KEYS.audit())


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_settle_is_told_once(world: World, outcome: Outcome) -> None:
    world.claims = Claims(world.link, KEYS, WORKER, master=MASTER, audit=100)
    world.claims.poll(WORKER.queues)
    world.push(RAW)

    world.settle(world.claimed(), outcome, entry=entry_of(RAW), due=77)

    told = {
        b"event": outcome.encode(),
        b"worker": WID.encode(),
        b"token": T1,
        b"queue": b"high",
        b"job": digest(RAW).encode(),
    }
    assert audited(world) == [told]
    before = dump(world.redis)
    assert world.link.again()[0] == b"ALREADY"
    assert dump(world.redis) == before


def test_every_recovery_is_told_once_and_an_idle_worker_is_none(world: World) -> None:
    registry = Registry(world.link, KEYS, audit=100)
    world.push(RAW)
    world.claimed()
    seen = world.held()

    assert registry.recover(seen, FREE) is Recovery.REQUEUED
    assert registry.recover(seen, FREE) is Recovery.CHANGED
    world.register()
    assert registry.recover(world.held(), FREE) is Recovery.NONE

    (told,) = audited(world)
    assert (told[b"event"], told[b"token"]) == (b"REQUEUED", T1)
    assert told[b"job"] == digest(RAW).encode()


# -- what foreign tools have done ----------------------------------------------------------------


def cleaned(world: World, raw: bytes = RAW, **changes: Any) -> None:
    """Do to our worker what node-resque's forceCleanWorker does; it leaves the record."""
    known = {"worker": WORKER.name, "exception": NODE_TIMEOUT, "queue": "high"} | changes
    entry = failure_entry(raw=raw, error="", backtrace=[], failed_at=NOW, **known)
    world.redis.rpush(KEYS.failed(), entry)
    world.redis.srem(KEYS.workers(), WID)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"worker": WID, "exception": "Resque::PruneDeadWorkerDirtyExit"},
        {"worker": WID, "exception": "Resque::DirtyExit"},
    ],
)
def test_a_job_that_a_foreign_tool_has_failed_is_not_brought_back_as_well(
    world: World, changes: dict[str, Any]
) -> None:
    world.push(RAW)
    world.claimed()
    cleaned(world, **changes)

    assert world.registry.recover(world.held(), FREE) is Recovery.FOREIGN

    assert len(world.list(KEYS.failed())) == 1
    assert not world.redis.exists(KEYS.queue("high"), KEYS.slot(WID), KEYS.worker(WID))
    assert world.redis.get(KEYS.last(WID)) == b"-" + T1


@pytest.mark.parametrize(
    "changes",
    [
        {"worker": "other:7"},
        {"exception": "Oops"},
        {"queue": "low"},
        {"raw": job(2)},
        {"raw": b'{"class":"y","args":[1.0,[]]}'},
    ],
)
def test_a_record_of_something_else_is_no_reason_to_drop_a_job(
    world: World, changes: dict[str, Any]
) -> None:
    world.push(RAW)
    world.claimed()
    cleaned(world, **changes)

    assert world.registry.recover(world.held(), FREE) is Recovery.REQUEUED
    assert world.list(KEYS.queue("high")) == [RAW]


def test_a_job_is_not_dropped_when_its_worker_is_registered(world: World) -> None:
    world.push(RAW)
    world.claimed()
    cleaned(world)
    seen = world.held()
    assert seen.foreign
    world.redis.sadd(KEYS.workers(), WID)  # it came back between the look and the recovery

    assert world.registry.recover(seen, FREE) is Recovery.REQUEUED


# -- workers of node-resque ----------------------------------------------------------------------


def node_worker(world: World, record: bytes = b"") -> None:
    world.redis.sadd(KEYS.workers(), NODE)
    world.redis.set(KEYS.ping("nodehost:42+1"), "ping 1")
    if record:
        world.redis.set(KEYS.worker(NODE), record)


def clean(world: World, entry: bytes = b"") -> Cleaning:
    sign = world.registry.foreign_signs()[NODE]
    return world.registry.clean_foreign(NODE, sign, entry, token="us")


def test_only_workers_of_node_resque_are_looked_at(world: World) -> None:
    node_worker(world)
    world.redis.sadd(KEYS.workers(), "rubyhost:1:high")

    assert world.registry.foreign_signs() == {NODE: Sign(b"ping 1", b"")}


def test_a_silent_worker_is_removed_and_its_job_fails_in_nodes_words(world: World) -> None:
    node_worker(world, NODE_RECORD % RAW)
    world.lead()

    assert clean(world, entry_of(RAW)) is Cleaning.CLEANED

    assert world.list(KEYS.failed()) == [entry_of(RAW)]
    assert world.redis.get(KEYS.stat("failed")) == b"1"
    assert world.redis.smembers(KEYS.workers()) == {WID.encode()}
    assert not world.redis.exists(KEYS.worker(NODE), KEYS.ping("nodehost:42+1"))
    before = dump(world.redis)
    assert world.link.again() == [b"ALIVE"]
    assert dump(world.redis) == before


def test_nobody_is_removed_without_the_lock_of_nodes_scheduler(world: World) -> None:
    node_worker(world)
    world.lead()
    world.redis.set(KEYS.node_leader(), "nodehost:1")

    assert clean(world) is Cleaning.FENCED
    assert world.redis.sismember(KEYS.workers(), NODE)


@pytest.mark.parametrize("change", ["ping", "record"])
def test_a_worker_that_gives_a_sign_of_life_is_left_alone(world: World, change: str) -> None:
    node_worker(world, NODE_RECORD % RAW)
    world.lead()
    sign = world.registry.foreign_signs()[NODE]
    key = KEYS.ping("nodehost:42+1") if change == "ping" else KEYS.worker(NODE)
    world.redis.set(key, "new")

    result = world.registry.clean_foreign(NODE, sign, entry_of(RAW), token="us")

    assert result is Cleaning.ALIVE
    assert world.redis.sismember(KEYS.workers(), NODE)
    assert world.list(KEYS.failed()) == []


def test_our_own_workers_are_never_cleaned(world: World) -> None:
    world.lead()
    sign = Sign(world.redis.get(KEYS.ping(WORKER.name)) or b"", b"")  # type: ignore[arg-type]

    assert world.registry.clean_foreign(WID, sign, b"", token="us") is Cleaning.OURS
    assert world.redis.sismember(KEYS.workers(), WID)


# -- recurring schedules and stray buckets -------------------------------------------------------


def test_a_moment_of_a_schedule_is_enqueued_once(world: World) -> None:
    world.lead()

    assert world.delayed.tick("nightly", 600, "high", RAW, token="us") is Tick.OK
    assert world.link.again() == [b"SEEN"]
    assert world.delayed.tick("nightly", 540, "high", RAW, token="us") is Tick.SEEN
    assert world.delayed.tick("nightly", 660, "high", RAW, token="us") is Tick.OK

    assert world.list(KEYS.queue("high")) == [RAW, RAW]
    assert world.redis.smembers(KEYS.queues()) == {b"high"}
    assert world.redis.get(KEYS.cron("nightly")) == b"660"


def test_a_late_leader_enqueues_nothing(world: World) -> None:
    world.lead("another")
    before = dump(world.redis)

    assert world.delayed.tick("nightly", 600, "high", RAW, token="us") is Tick.FENCED
    assert dump(world.redis) == before


def stray(redis: Redis, second: int) -> None:
    """Leave a bucket as a client does that dies before it wrote the schedule."""
    redis.rpush(KEYS.delayed(second), RAW)


def test_a_bucket_that_nobody_would_look_at_is_found_and_promoted(world: World) -> None:
    stray(world.redis, PAST)
    promoter = Promoter(world.delayed, name="host:1")

    wait_until(lambda: promoter.step().promoted == 1, "the stray job")

    assert world.list(KEYS.queue("high")) == [RAW]


def test_strays_are_only_lists_that_are_not_scheduled(world: World) -> None:
    stray(world.redis, 1)
    world.redis.set(KEYS.delayed(2), "no list")
    world.redis.rpush(b"resque:delayed:soon", RAW)
    stray(world.redis, 3)
    world.redis.zadd(KEYS.schedule(), {"3": 3})
    found, cursor = [], -1
    while cursor:
        cursor, page = world.delayed.strays(max(cursor, 0))
        found += page

    assert {second: world.delayed.adopt(second) for second in found} == {1: True, 2: False}
    assert world.delayed.adopt(1) is False
    assert world.redis.zrange(KEYS.schedule(), 0, -1) == [b"1", b"3"]


@pytest.mark.parametrize("namespace", ["a*b", "a[b]c", "a?b", "a\\b"])
def test_a_namespace_with_signs_of_a_pattern_finds_its_own_strays(
    server: Server, redis: Redis, namespace: str
) -> None:
    keys = Keys(namespace)
    redis.rpush(keys.delayed(5), RAW)
    redis.rpush(b"aXb:delayed:6", RAW)
    found = list(redis.scan_iter(match=keys.delayed_family()))

    assert [keys.delayed_second(key) for key in found] == [5]


# -- the protocol number -------------------------------------------------------------------------


def test_a_namespace_of_a_newer_protocol_is_refused(world: World, server: Server) -> None:
    assert world.redis.get(KEYS.proto()) == b"%d" % PROTOCOL
    world.redis.set(KEYS.proto(), PROTOCOL + 1)
    before = dump(world.redis)

    with pytest.raises(RedisRefused, match=f"protocol {PROTOCOL + 1}, ours is {PROTOCOL}"):
        world.registry.register(WorkerId("host", 8, ("high",)), OWNER, LEASE, now=NOW)
    with closing(Target(server.url).client()) as client, pytest.raises(RedisRefused):
        check_server(client, "resque")
    assert dump(world.redis) == before


def test_a_namespace_of_an_older_protocol_is_taken_over(world: World) -> None:
    world.redis.set(KEYS.proto(), PROTOCOL - 1)

    world.register()

    assert world.redis.get(KEYS.proto()) == b"%d" % PROTOCOL


# -- what must have a job before its enqueue returns ---------------------------------------------


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExitStack]:
    """Return a stack for servers; nobody has the patience for the real limits."""
    monkeypatch.setattr("forkresque.producer.ENQUEUE_TIMEOUT", 1.5)
    monkeypatch.setattr("forkresque.protocol.store.ACK_TIMEOUT_MS", 200)
    with ExitStack() as stack:
        yield stack


def started(stack: ExitStack, kind: str, **options: Any) -> Server:
    return stack.enter_context(Server(binaries()[kind], **options))


def producer(stack: ExitStack, server: Server, ack: Ack) -> Queue:
    client = stack.enter_context(closing(Target(server.url).client()))
    return Queue(Over(client, KEYS), ack=ack)


@pytest.mark.parametrize("kind", sorted(binaries()))
def test_a_replica_must_have_the_job(stack: ExitStack, kind: str) -> None:
    primary = started(stack, kind, args=("--repl-diskless-sync-delay", "0"))
    replica = started(stack, kind, args=("--replicaof", f"{HOST} {primary.port}"))
    redis = stack.enter_context(closing(replica.client()))
    queue = producer(stack, primary, Ack.REPLICA)
    wait_until(lambda: redis.info()["master_link_status"] == "up", "the replica")

    assert queue.enqueue("high", "x", [1])
    assert redis.llen(KEYS.queue("high")) == 1

    replica.pause()
    with pytest.raises(EnqueueUnknown, match="no replica acknowledged") as caught:
        queue.enqueue("high", "x", [2])
    replica.resume()
    assert queue.enqueue("high", "x", [2], request_id=caught.value.request_id)
    assert redis.llen(KEYS.queue("high")) == 2


def test_without_a_replica_nothing_is_acknowledged(
    stack: ExitStack, one_server: Server, one_redis: Redis
) -> None:
    queue = producer(stack, one_server, Ack.REPLICA)

    with pytest.raises(EnqueueUnknown):
        queue.enqueue("high", "x", [1])


def test_the_disk_must_have_the_job(stack: ExitStack) -> None:
    server = started(stack, "valkey", appendonly="everysec")
    queue = producer(stack, server, Ack.DISK)

    for number in range(3):
        assert queue.enqueue("high", "x", [number])
        server.kill()
        server.restart()

    with closing(server.client()) as redis:
        assert redis.llen(KEYS.queue("high")) == 3


@pytest.mark.parametrize("kind", sorted(binaries()))
def test_a_server_that_cannot_tell_of_its_disk_is_refused_and_nothing_is_stored(
    stack: ExitStack, kind: str
) -> None:
    server = started(stack, kind)
    queue = producer(stack, server, Ack.DISK)

    with pytest.raises(RedisRefused, match="when a job is on disk") as caught:
        queue.enqueue("high", "x", [1])

    assert "appendonly yes" in caught.value.hint
    with closing(server.client()) as redis:
        assert redis.keys() == []


def test_an_unknown_acknowledgement_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"primary\|replica\|disk"):
        Forkresque(ack="twice")


def test_a_failed_job_is_put_back_with_the_same_care(
    stack: ExitStack, one_server: Server, one_redis: Redis
) -> None:
    queue = producer(stack, one_server, Ack.REPLICA)
    one_redis.rpush(KEYS.failed(), entry_of(RAW))

    with pytest.raises(EnqueueUnknown):
        queue.retry_failed(parse_failure(entry_of(RAW)))

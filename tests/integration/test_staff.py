"""Workers of all languages as a Queue shows and removes them; leader, numbers, schedules."""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis

from forkresque import processes
from forkresque.errors import BadKey, InvalidArgs
from forkresque.policy.verdicts import HOST_LIMIT
from forkresque.protocol.cleaning import Cleaner
from forkresque.protocol.foreign import NODE_MARK, NODE_TIMEOUT, run_second
from forkresque.protocol.keys import Keys
from forkresque.protocol.ownership import Lease, Owner, name_of
from forkresque.protocol.payload import iso_second, ruby_second
from forkresque.protocol.registry import suspect_field
from forkresque.protocol.script import Call
from forkresque.queue import Queue
from tests.support.connections import Over
from tests.support.servers import Server
from tests.support.transcripts import HEARTBEAT, NODE_DATE
from tests.support.world import (
    FREE,
    KEYS,
    MASTER,
    NOW,
    OWNER,
    RAW,
    WID,
    WORKER,
    ToldClient,
    World,
    dump,
    job,
    open_world,
)

NODE, NODE_NAME = "nodehost:42+1:high,a:b", "nodehost:42+1"
RUBY, RUBY_NAME = "rubyhost:9:high", "rubyhost:9"
UNREADABLE = {"class": "(unreadable payload)", "args": []}


@pytest.fixture
def world(server: Server, redis: Redis) -> Iterator[World]:
    yield from open_world(server, redis)


@pytest.fixture
def queue(world: World) -> Queue:
    return Queue(Over(world.client, KEYS))


def node_record(run_at: str = NODE_DATE, raw: bytes = RAW) -> bytes:
    return b'{"run_at":"%b","queue":"high","payload":%b,"worker":"nodehost:42+1"}' % (
        run_at.encode(),
        raw,
    )


def ruby_record(run_at: str = "2026-11-24T02:45:08Z") -> bytes:
    return b'{"queue":"high","run_at":"%b","payload":%b}' % (run_at.encode(), RAW)


def node_worker(redis: Redis, record: bytes = b"") -> None:
    redis.sadd(KEYS.workers(), NODE)
    redis.set(KEYS.ping(NODE_NAME), "{}")
    redis.set(KEYS.started(NODE), "2026-11-24 02:34:34 +0000")
    redis.set(KEYS.stat("processed", NODE_NAME), 3)
    redis.set(KEYS.stat("failed", NODE_NAME), 1)
    if record:
        redis.set(KEYS.worker(NODE), record)


def ruby_worker(redis: Redis, record: bytes = b"") -> None:
    redis.sadd(KEYS.workers(), RUBY)
    redis.hset(HEARTBEAT.decode(), RUBY, "2026-11-24T02:45:08Z")
    redis.set(KEYS.started(RUBY), "2026-11-24 02:34:34 +0000")
    redis.set(KEYS.stat("processed", RUBY), 3)
    redis.set(KEYS.stat("failed", RUBY), 1)
    if record:
        redis.set(KEYS.worker(RUBY), record)


def keys_with(redis: Redis, text: str) -> list[bytes]:
    return [key for key in dump(redis) if text.encode() in key]


def forget_lease(redis: Redis) -> None:
    redis.delete(KEYS.lease(MASTER))


# -- what they do --------------------------------------------------------------------------------


def test_workers_are_shown_with_their_queues_however_they_are_called(
    queue: Queue, redis: Redis
) -> None:
    assert queue.workers() == {"host:7": "high,low"}
    redis.sadd(KEYS.workers(), NODE, "one", "name:q", "one:3:", "a:b:c:d", b"h:1:\xff", "")

    assert queue.workers() == {
        "host:7": "high,low",
        NODE_NAME: "high,a:b",
        "one": None,
        "name": "q",  # as node has it, whose workers may have any name
        "one:3": None,
        "a:b": "c:d",
        "h:1": "\udcff",
        "": None,
    }


def test_every_worker_shows_the_job_that_it_has(queue: Queue, world: World) -> None:
    node_worker(world.redis, node_record())
    ruby_worker(world.redis, ruby_record())
    assert queue.all_working_on()[WORKER.name] == "started"
    world.push(RAW)
    world.claimed()

    doing = queue.all_working_on()

    payload = json.loads(RAW)
    assert doing == {
        "host:7": {
            "run_at": iso_second(NOW),
            "worker": "host:7",
            "queue": "high",
            "payload": payload,
        },
        NODE_NAME: json.loads(node_record()),
        RUBY_NAME: json.loads(ruby_record()),
    }
    for name, queues in queue.workers().items():
        assert queue.working_on(name, queues) == doing[name]
    assert queue.working_on("nobody:1", None) is None


@pytest.mark.parametrize("record", [b"", b"no JSON", b"[1]", b"null", b"\xff", b"[" * 600])
def test_a_record_that_cannot_be_read_is_shown_as_such(
    queue: Queue, redis: Redis, record: bytes
) -> None:
    node_worker(redis)
    redis.set(KEYS.worker(NODE), record)

    shown = queue.all_working_on()[NODE_NAME]

    assert shown == queue.working_on(NODE_NAME, "high,a:b")
    assert shown == {"worker": NODE_NAME, "queue": "", "run_at": "", "payload": UNREADABLE}


def test_of_two_with_one_name_the_busy_one_is_shown(queue: Queue, redis: Redis) -> None:
    """A worker of node for all queues changes its id, and may leave an old one behind."""
    redis.sadd(KEYS.workers(), "host:9:a", "host:9:b", "host:9:c")
    redis.set(KEYS.worker("host:9:b"), ruby_record())

    shown = queue.all_working_on()

    assert shown["host:9"] == json.loads(ruby_record())


def test_a_record_of_another_type_counts_as_none(queue: Queue, redis: Redis) -> None:
    node_worker(redis)
    redis.sadd(KEYS.worker(NODE), "x")

    assert queue.all_working_on()[NODE_NAME] == "started"


def test_many_workers_are_shown_in_few_round_trips(
    queue: Queue, world: World, redis: Redis
) -> None:
    redis.sadd(KEYS.workers(), *(f"h:{number}:q" for number in range(500)))

    def asked() -> int:
        return int(redis.info("commandstats")["cmdstat_get"]["calls"])

    redis.get("x")
    before = asked()
    assert len(queue.all_working_on()) == 501
    assert asked() == before


# -- removing those of others --------------------------------------------------------------------


def test_a_busy_worker_of_node_is_removed_and_its_job_fails_in_nodes_words(
    queue: Queue, redis: Redis
) -> None:
    node_worker(redis, node_record())

    entry = queue.force_clean_worker(NODE_NAME)

    assert entry is not None
    assert entry["worker"] == NODE_NAME
    assert (entry["queue"], entry["payload"]) == ("high", json.loads(RAW))
    assert entry["exception"] == entry["error"] == NODE_TIMEOUT
    assert entry["backtrace"] == [
        f"killed by {processes.host_label()}",
        NODE_MARK,
        "node-resque",
    ]
    (failure,) = queue.failed()
    assert json.loads(failure.raw_entry) == entry
    assert failure.payload == RAW
    assert queue.stats() == {"failed": 1}
    assert keys_with(redis, NODE_NAME) == []
    assert queue.workers() == {"host:7": "high,low"}
    before = dump(redis)
    assert queue.force_clean_worker(NODE_NAME) is None
    assert dump(redis) == before
    assert queue.retry_stuck_jobs() == 1
    assert queue.peek("high") == [RAW]


def test_a_busy_worker_of_ruby_is_removed_with_all_that_is_known_of_it(
    queue: Queue, redis: Redis
) -> None:
    ruby_worker(redis, ruby_record())

    entry = queue.force_clean_worker(RUBY)  # by its whole id

    assert entry is not None
    assert (entry["worker"], entry["payload"]) == (RUBY_NAME, json.loads(RAW))
    assert keys_with(redis, RUBY_NAME) == []
    assert not redis.exists(HEARTBEAT.decode())
    assert queue.stats() == {"failed": 1}


@pytest.mark.parametrize(("worker", "name"), [(node_worker, NODE_NAME), (ruby_worker, RUBY_NAME)])
def test_an_idle_worker_is_removed_without_a_failure(
    queue: Queue, redis: Redis, worker: Any, name: str
) -> None:
    before = dump(redis)
    worker(redis)

    assert queue.force_clean_worker(name) is None

    assert dump(redis) == before


@pytest.mark.parametrize("name", ["nobody:1", "", "nodehost:4", "nodehost"])
def test_an_unknown_worker_changes_nothing(queue: Queue, redis: Redis, name: str) -> None:
    node_worker(redis, node_record())
    redis.set("resque:worker:nobody:1:q", node_record())  # what node leaves behind
    before = dump(redis)

    assert queue.force_clean_worker(name) is None

    assert dump(redis) == before


def test_an_unreadable_record_fails_as_it_is(queue: Queue, redis: Redis) -> None:
    node_worker(redis, b"no JSON")

    entry = queue.force_clean_worker(NODE_NAME)

    assert entry is not None
    assert entry["payload"] == UNREADABLE
    assert queue.failed()[0].payload == b"no JSON"


class Meddling(ToldClient):
    """A client before whose first cleaning the worker goes on."""

    record: bytes | None = None
    admin: Redis

    def call(self, call: Call) -> Any:
        if self.record is not None:
            record, self.record = self.record, None
            if record:
                self.admin.set(KEYS.worker(NODE), record)
            else:
                self.admin.delete(KEYS.worker(NODE))
        return super().call(call)


@pytest.fixture
def meddling(world: World) -> Iterator[Meddling]:
    with closing(Meddling(world.client._target)) as client:
        client.admin = world.redis
        yield client


@pytest.mark.parametrize("following", [b"", node_record(raw=job(2))])
def test_a_job_that_ends_meanwhile_does_not_fail_as_well(
    meddling: Meddling, redis: Redis, following: bytes
) -> None:
    queue = Queue(Over(meddling, KEYS))
    node_worker(redis, node_record())
    meddling.record = following

    entry = queue.force_clean_worker(NODE_NAME)

    assert (entry and entry["payload"]) == (json.loads(job(2)) if following else None)
    assert queue.failed_count() == queue.stats().get("failed", 0) == bool(following)
    assert keys_with(redis, NODE_NAME) == []


def test_who_has_begun_another_job_meanwhile_is_not_old(meddling: Meddling, redis: Redis) -> None:
    queue = Queue(Over(meddling, KEYS))
    node_worker(redis, node_record(iso_second(NOW - 10**8)))
    meddling.record = node_record(iso_second(NOW), job(2))

    assert queue.clean_old_workers(3600) == {}
    assert queue.failed_count() == 0
    assert NODE_NAME in queue.workers()


def test_nothing_changes_where_failures_have_no_place(queue: Queue, redis: Redis) -> None:
    node_worker(redis, node_record())
    redis.set(KEYS.failed(), "x")
    before = dump(redis)

    with pytest.raises(BadKey, match=r"resque:failed holds another type; nodehost"):
        queue.force_clean_worker(NODE_NAME)

    assert dump(redis) == before


def test_two_cleaners_fail_a_job_once(world: World, queue: Queue) -> None:
    node_worker(world.redis, node_record())
    cleaner = Cleaner(world.client, KEYS, lambda _held, _now: FREE, host="h")

    assert cleaner.remove(NODE, node_record(), b"{}") is True
    before = dump(world.redis)
    assert cleaner.remove(NODE, node_record(), b"{}") is False
    assert dump(world.redis) == before


# -- removing ours -------------------------------------------------------------------------------


def test_a_living_worker_of_ours_is_never_removed(world: World, queue: Queue) -> None:
    world.push(RAW)
    world.claimed()
    before = dump(world.redis)
    assert world.redis.exists(KEYS.lease(MASTER))

    with pytest.raises(InvalidArgs, match="worker host:7:high,low is one of") as raised:
        queue.force_clean_worker(WORKER.name)

    assert "forkresque workers kill" in raised.value.hint
    assert queue.clean_old_workers(-1e9) == {}
    assert dump(world.redis) == before


def test_the_job_of_a_lost_worker_of_ours_goes_back_to_the_head(world: World, queue: Queue) -> None:
    world.push(RAW, job(2))
    world.claimed()
    forget_lease(world.redis)
    world.redis.set(KEYS.worker(WID), "something else")  # its slot is the truth

    assert queue.force_clean_worker(WORKER.name) is None

    assert queue.peek("high") == [RAW, job(2)]
    assert queue.failed_count() == 0
    assert queue.stats() == {}
    assert queue.workers() == {}
    assert not world.redis.exists(KEYS.slot(WID), KEYS.owner(WID), KEYS.worker(WID))
    before = dump(world.redis)
    assert queue.force_clean_worker(WORKER.name) is None
    assert dump(world.redis) == before


def test_an_idle_lost_worker_of_ours_is_removed(world: World, queue: Queue) -> None:
    forget_lease(world.redis)

    assert queue.force_clean_worker(WORKER.name) is None
    assert queue.workers() == {}
    assert keys_with(world.redis, WORKER.name) == []


def test_a_job_that_has_cost_too_many_hosts_fails(world: World, queue: Queue) -> None:
    world.push(RAW)
    world.claimed()
    forget_lease(world.redis)
    deaths = f"{HOST_LIMIT - 1} {int(world.redis.time()[0])}"
    world.redis.hset(KEYS.suspects().decode(), suspect_field(RAW, host=True), deaths)

    entry = queue.force_clean_worker(WORKER.name)

    assert entry is not None
    assert entry["error"] == f"the master of worker {WID} is gone"
    assert json.loads(queue.failed()[0].raw_entry) == entry
    assert queue.length("high") == 0


def test_a_worker_whose_master_has_just_died_here_is_lost_before_its_lease_ends(
    world: World, queue: Queue
) -> None:
    world.push(RAW)
    world.claimed()
    here = processes.describe(os.getpid()).rsplit(" ", 2)[0]
    world.redis.set(KEYS.lease(MASTER), f"{here} {os.getpid()} 1")

    assert queue.force_clean_worker(WORKER.name) is None

    assert queue.peek("high") == [RAW]


def test_a_worker_that_outlives_its_master_here_is_not_removed(world: World, queue: Queue) -> None:
    own = Owner("host:2:bbbb", os.getpid(), processes.start_of(os.getpid()) or 0)
    forget_lease(world.redis)
    assert world.registry.held(WID).owner == str(OWNER)
    world.redis.set(KEYS.owner(WID), str(own))

    with pytest.raises(InvalidArgs, match="not cleaned"):
        queue.force_clean_worker(WORKER.name)
    assert WORKER.name in queue.workers()


def test_a_worker_that_holds_on_to_its_job_alone_is_not_removed(world: World, queue: Queue) -> None:
    world.push(RAW)
    world.claimed()
    forget_lease(world.redis)
    world.registry.renew_own_lease(WID, Lease(MASTER, "x"))

    with pytest.raises(InvalidArgs, match="not cleaned"):
        queue.force_clean_worker(WORKER.name)
    assert queue.length("high") == 0


def test_one_of_ours_that_registers_meanwhile_is_not_removed_as_anothers(world: World) -> None:
    cleaner = Cleaner(world.client, KEYS, lambda _held, _now: FREE, host="h")
    before = dump(world.redis)

    assert cleaner.remove(WID, b"", b"") is False

    assert dump(world.redis) == before


# -- removing the old ----------------------------------------------------------------------------


def test_only_those_that_are_busy_for_too_long_are_removed(queue: Queue, redis: Redis) -> None:
    now = int(redis.time()[0])
    node_worker(redis, node_record(iso_second(now - 100)))
    ruby_worker(redis, ruby_record(ruby_second(now - 1000)))
    redis.sadd(KEYS.workers(), "idle:1:q")

    assert queue.clean_old_workers(timedelta(hours=1)) == {}
    assert list(queue.clean_old_workers(timedelta(seconds=500))) == [RUBY_NAME]
    (entry,) = queue.clean_old_workers(50).values()

    assert entry["worker"] == NODE_NAME
    assert queue.workers() == {"host:7": "high,low", "idle:1": "q"}
    assert queue.stats() == {"failed": 2}


def test_workers_of_node_are_old_by_their_pings_as_well(queue: Queue, redis: Redis) -> None:
    now = int(redis.time()[0])
    pings = {
        "silent:1:q": b'{"time":%d}' % (now - 100),
        "named:q": b'{"time":%d.5}' % (now - 100),
        "fresh:2:q": b'{"time":%d}' % (now - 10),
        "odd:3:q": b'{"time":true}',
        "odd:4:q": b'{"time":"1"}',
        "odd:5:q": b"[]",
        "odd:6:q": b"{bad",
    }
    redis.sadd(KEYS.workers(), *pings)
    for worker, ping in pings.items():
        redis.set(KEYS.ping(name_of(worker)), ping)
    redis.set(KEYS.worker("odd:6:q"), "no JSON")
    redis.set(KEYS.ping("host:7"), b'{"time":1}')  # ours is judged by its lease

    assert queue.clean_old_workers(50) == {}

    assert sorted(queue.workers()) == ["fresh:2", "host:7", "odd:3", "odd:4", "odd:5", "odd:6"]
    assert queue.stats() == {}
    assert not redis.exists(KEYS.ping("silent:1"), KEYS.ping("named"))


def test_one_that_cannot_be_cleaned_does_not_keep_the_others(
    world: World, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    world.push(RAW)
    world.claimed()
    world.redis.set(KEYS.slot("host:7:high,low"), "what no worker has written")
    world.redis.set(KEYS.worker("host:7:high,low"), ruby_record("2020-01-01T00:00:00Z"))
    ruby_worker(world.redis, ruby_record("2020-01-01T00:00:00Z"))

    assert list(queue.clean_old_workers(50)) == [RUBY_NAME]

    assert "worker=host:7:high,low is not cleaned" in caplog.text


def test_who_does_not_say_since_when_is_passed_over(queue: Queue, redis: Redis) -> None:
    node_worker(redis, node_record("some day"))
    ruby_worker(redis, b"no JSON")

    assert queue.clean_old_workers(-1e9) == {}
    assert len(queue.workers()) == 3


def test_a_lost_worker_of_ours_that_was_busy_for_too_long_is_recovered(
    world: World, queue: Queue
) -> None:
    world.push(RAW)
    world.claimed()
    forget_lease(world.redis)

    assert queue.clean_old_workers(-1e9) == {}

    assert queue.peek("high") == [RAW]
    assert queue.workers() == {}


@pytest.mark.parametrize("age", [float("nan"), float("inf")])
def test_an_age_that_is_no_length_of_time_is_refused(queue: Queue, age: float) -> None:
    with pytest.raises(InvalidArgs, match="finite"):
        queue.clean_old_workers(age)


@pytest.mark.parametrize(
    ("run_at", "second"),
    [
        ("2026-11-24T02:45:08Z", 1795488308.0),
        ("2026-11-24T02:45:08.500Z", 1795488308.5),
        ("2026-11-24T03:45:08+01:00", 1795488308.0),
        ("2026-11-24 02:45:08 +0000", 1795488308.0),
        ("2026-11-24 02:45:08 UTC", 1795488308.0),
        ("Tue Nov 24 2026 02:45:08 GMT+0000 (Coordinated Universal Time)", 1795488308.0),
        ("Tue Nov 24 2026 03:45:08 GMT+0100 (Mitteleuropäische Zeit)", 1795488308.0),
        ("2026-11-24", None),
        ("", None),
    ],
)
def test_a_beginning_is_read_in_every_form(run_at: str, second: float | None) -> None:
    assert run_second(json.dumps({"run_at": run_at}).encode()) == second


@pytest.mark.parametrize("record", [b"", b"[]", b"{}", b'{"run_at":5}', b"no JSON", b"\xff"])
def test_a_record_may_have_no_beginning(record: bytes) -> None:
    assert run_second(record) is None


# -- leader, numbers, schedules ------------------------------------------------------------------


def test_the_leader_is_ours_then_nodes_then_rubys(queue: Queue, world: World) -> None:
    assert queue.leader() is None
    assert queue.leader_key() == "resque:resque_scheduler_leader_lock"
    for key, holder in (
        (KEYS.ruby_master(), "ruby"),
        (KEYS.node_master(), "old node"),
        (KEYS.node_leader(), "node"),
        (KEYS.leader(), "us"),
    ):
        world.redis.set(key, holder)
        assert queue.leader() == holder
    world.redis.delete(KEYS.leader(), KEYS.node_master(), KEYS.ruby_master(), KEYS.node_leader())

    world.lead("ours")

    assert queue.leader() == "ours"
    assert world.redis.get(queue.leader_key()) == b"ours"


def test_a_lock_of_another_type_names_no_leader(queue: Queue, redis: Redis) -> None:
    redis.sadd(KEYS.leader(), "x")
    redis.set(KEYS.node_leader(), "node")

    assert queue.leader() == "node"


def test_numbers_are_those_of_this_namespace(queue: Queue, redis: Redis) -> None:
    assert queue.stats() == {}
    redis.mset(
        {
            "resque:stat:processed": 12,
            "resque:stat:failed": "many",
            "resque:stat:processed:h:1": 7,
            "resque:stat:failed:h:1:a,b": 2,
            "resque2:stat:processed": 99,
        }
    )
    redis.sadd("resque:stat:odd", "x")

    assert queue.stats() == {
        "failed": 0,
        "failed:h:1:a,b": 2,
        "odd": 0,
        "processed": 12,
        "processed:h:1": 7,
    }


@pytest.mark.parametrize("namespace", ["a*b", "[ab]", "a?", "a\\b", ""])
def test_a_namespace_is_no_pattern(world: World, namespace: str) -> None:
    keys = Keys(namespace)
    world.redis.set(keys.stat("processed"), 3)
    world.redis.mset({"axb:stat:failed": 1, "a:stat:failed": 1})

    assert Queue(Over(world.client, keys)).stats() == {"processed": 3}


def test_schedules_of_ruby_are_shown_decoded(
    queue: Queue, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    assert queue.schedules() == {}
    config = {"class": "Nightly", "cron": "0 3 * * *", "args": [1.5], "queue": "high"}
    redis.hset("resque:persistent_schedules", "nightly", json.dumps(config))
    redis.hset("resque:persistent_schedules", b"\xff", "{}")
    redis.hset("resque:persistent_schedules", "odd", "[1]")
    redis.hset("resque:persistent_schedules", "broken", "{")

    assert queue.schedules() == {"nightly": config, "\udcff": {}}

    assert [record.getMessage() for record in caplog.records] == [
        "schedule=broken is no JSON object and is left out",
        "schedule=odd is no JSON object and is left out",
    ]


def test_who_has_pinged_since_it_was_looked_at_is_not_removed(queue: Queue, redis: Redis) -> None:
    cleaner = queue._cleaner
    redis.sadd(KEYS.workers(), NODE)
    redis.set(KEYS.ping(NODE_NAME), b"new")

    assert cleaner.remove(NODE, b"", b"", sign=b"old") is False
    assert redis.sismember(KEYS.workers(), NODE)
    assert cleaner.remove(NODE, b"", b"", sign=b"new") is True
    assert not redis.sismember(KEYS.workers(), NODE)

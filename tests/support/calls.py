"""Every call that forkresque makes of Redis, each in a state in which it has something to do.

One table for all tests that break Redis under a call. What a call finds is put there first, so
the same call in the same state has the same answer and leaves the same keys behind.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any

from forkresque.protocol.agenda import Agenda
from forkresque.protocol.backlog import Backlog
from forkresque.protocol.claims import Claimed, Outcome, WorkerId
from forkresque.protocol.cleaning import Cleaner
from forkresque.protocol.delayed import Bucket, Due, Lead
from forkresque.protocol.locks import (
    all_locks,
    delete_lock,
    free_lock,
    keep_lock,
    renew_locks,
    take_lock,
)
from forkresque.protocol.ownership import Held
from forkresque.protocol.payload import digest, ping
from forkresque.protocol.registry import Sign, Verdict, suspect_field
from forkresque.protocol.script import load
from forkresque.protocol.spellings import Sought
from forkresque.protocol.staff import Staff
from forkresque.protocol.store import Request
from forkresque.protocol.sweep import Sweep
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
    entry_of,
    job,
)

NEXT = job(2)
NO_JOB = b"no job"
ENTRY = entry_of(RAW)
NEWCOMER = WorkerId("host", 8, ("high", "low"))
NODE, NODE_SIGN = "node:9:*", ping("node:9", "*", 1)
NODE_RECORD = b'{"run_at":"","queue":"high","payload":%b,"worker":"node:9"}' % RAW
LOCK = b"resque:lock:job"
SECOND_JOB = Sought("high", "x", [2])


class Effect(Enum):
    """What a call does to memory, which says what it needs of Redis."""

    LOOKS = auto()  # at no key, so even a replica without its primary has the answer
    READS = auto()
    FREES = auto()  # writes, and works when memory is full: its first write needs none
    GROWS = auto()


@dataclass(frozen=True)
class Call:
    """One call: `needs` prepares its state and returns what `ask` takes."""

    name: str
    effect: Effect
    words: bytes  # by which its request is known on the wire
    needs: Callable[[World], Any]
    ask: Callable[[World, Any], Any]


def _reads(word: str, name: str, ask: Callable[[World], Any]) -> Call:
    return Call(name, Effect.READS, word.encode(), _something_everywhere, lambda w, _: ask(w))


def _script(
    script: str,
    effect: Effect,
    ask: Callable[[World, Any], Any],
    needs: Callable[[World], Any] = lambda _world: None,
    *,
    case: str = "",
) -> Call:
    return Call(f"{script} {case}".strip(), effect, load(script).digest.encode(), needs, ask)


# -- states ------------------------------------------------------------------------------------


def _queued(world: World) -> None:
    for number, raw in enumerate((RAW, NEXT)):
        world.store.enqueue("high", raw, request=Request("earlier", number))


def _in_hand(world: World) -> Claimed:
    _queued(world)
    return world.claimed(T1)


def _left_behind(world: World) -> Held:
    _in_hand(world)
    return world.held()


def _locked(world: World) -> None:
    assert world.claims.take_lock(_in_hand(world), LOCK, 600, now=NOW)


def _renew_locks(world: World) -> int:
    return renew_locks(world.store.client, KEYS, [WID], 900.0)


def _waiting_lock(world: World) -> None:
    assert take_lock(world.store.client, KEYS, LOCK, b"9.mine", 60)


def _sweep(world: World, queue: str) -> list[list[bytes]]:
    sweep = Sweep(world.store, world.failures, lambda ask: ask(Request("p", 1)))
    return list(sweep.take([ENTRY], lambda _: queue))


def _failed(world: World) -> None:
    world.redis.rpush(KEYS.failed(), ENTRY)


def _leading(world: World) -> None:
    assert world.lead() is Lead.PROMOTE


def _due(world: World) -> list[Bucket]:
    _leading(world)
    for number, raw in enumerate((RAW, NEXT, NO_JOB)):
        world.store.enqueue_at(PAST, raw, request=Request("p", number))
    jobs = (Due(RAW, "high"), Due(NEXT, "high"), Due(NO_JOB, "", entry_of(NO_JOB)))
    return [Bucket(PAST, jobs)]


def _stray(world: World) -> None:
    world.redis.rpush(KEYS.delayed(PAST), RAW)


def _silent_node_worker(world: World) -> None:
    _leading(world)
    world.redis.sadd(KEYS.workers(), NODE)
    world.redis.set(KEYS.ping("node:9"), NODE_SIGN)
    world.redis.set(KEYS.worker(NODE), NODE_RECORD)


def _paused(world: World) -> None:
    world.store.pause_all()


def _own_lease(world: World) -> None:
    world.registry.renew_own_lease(WID, LEASE)


def _something_everywhere(world: World) -> None:
    _in_hand(world)
    _failed(world)
    world.store.enqueue_at(PAST, RAW, request=Request("p", 1))


# -- calls -------------------------------------------------------------------------------------


def _settle(world: World, held: Claimed, outcome: Outcome, next_token: bytes) -> Any:
    suspect = digest(RAW) if outcome in (Outcome.DONE, Outcome.FAIL) else ""
    return world.settle(held, outcome, next_token, entry=ENTRY, due=PAST, digest=suspect)


def _finish(world: World, held: Claimed) -> Any:
    world.link.short = True
    return world.settle(held, Outcome.DONE, T2)


def _settles() -> list[Call]:
    return [
        _script(
            "settle",
            Effect.FREES,
            partial(_settle, outcome=outcome, next_token=token),
            _in_hand,
            case=f"{outcome}{' and claim' if token else ''}",
        )
        for outcome in Outcome
        for token in (b"", T2)
    ]


def _waiting(world: World) -> Any:
    return world.link.call(
        load("waiting").pack(
            pause=KEYS.pause_all(),
            paused=KEYS.paused_queues(),
            queues=KEYS.queues(),
            list=[KEYS.queue("high")],
            name=["high"],
        )
    )


def _clean(world: World, _: Any) -> Any:
    return world.registry.clean_foreign(NODE, Sign(NODE_SIGN, NODE_RECORD), ENTRY, token="us")


def _force_clean(world: World) -> Any:
    return Cleaner(world.client, KEYS, lambda _held, _now: FREE, host="h").remove(
        NODE, NODE_RECORD, ENTRY
    )


def _staff(world: World) -> Staff:
    return Staff(world.client, KEYS)


def _recover(world: World, held: Held, verdict: Verdict) -> Any:
    return world.registry.recover(held, verdict)


def _recoveries() -> list[Call]:
    field = suspect_field(RAW)
    verdicts = {
        "to its queue": Verdict("", 1, fail=False, poison=b"", entry=ENTRY),
        "as failed": Verdict("", 1, fail=True, poison=b"", entry=ENTRY),
        "as poison": Verdict(field, 1, fail=False, poison=ENTRY, entry=ENTRY),
    }
    return [
        _script(
            "recover",
            Effect.FREES,
            partial(_recover, verdict=verdict),
            _left_behind,
            case=case,
        )
        for case, verdict in verdicts.items()
    ]


def _backlog(world: World) -> Backlog:
    return Backlog(world.client, KEYS)


def _agenda(world: World) -> Agenda:
    return Agenda(world.client, KEYS)


def _free_lock(world: World) -> bool:
    return free_lock(world.client, LOCK, KEYS.queue("high"), [RAW], brief=30)


GROWS, FREES, READS = Effect.GROWS, Effect.FREES, Effect.READS

SCRIPTS = [
    _script("enqueue", GROWS, lambda w, _: w.store.enqueue("high", RAW, request=Request("p", 1))),
    _script(
        "enqueue",
        GROWS,
        lambda w, _: w.store.enqueue("high", NEXT, request=Request("p", 1), front=True),
        case="at the front",
    ),
    _script(
        "enqueue_at", GROWS, lambda w, _: w.store.enqueue_at(PAST, RAW, request=Request("p", 1))
    ),
    _script(
        "enqueue_at",
        GROWS,
        lambda w, _: w.store.enqueue_at(
            PAST, RAW, request=Request("p", 1), unique=True, spellings=[RAW, NEXT]
        ),
        case="among equals",
    ),
    _script(
        "bulk",
        GROWS,
        lambda w, _: w.store.bulk({"high": [RAW], "low": [NEXT]}, request=Request("p", 1)),
    ),
    _script("delete_jobs", FREES, lambda w, _: _backlog(w).delete(SECOND_JOB, 5), _queued),
    _script(
        "delete_jobs", FREES, lambda w, _: _backlog(w).delete(SECOND_JOB, -1), _queued, case="one"
    ),
    _script(
        "delete_range", FREES, lambda w, _: _backlog(w).delete_named("high", "x", 0, -1), _queued
    ),
    _script(
        "delete_queue", FREES, lambda w, _: _backlog(w).delete_queue("high", tell=True), _queued
    ),
    _script("delete_delayed", FREES, lambda w, _: _agenda(w).delete(SECOND_JOB), _due),
    _script("free_lock", FREES, lambda w, _: _free_lock(w), _waiting_lock),
    _script(
        "requeue_failed",
        FREES,
        lambda w, _: w.failures.requeue(ENTRY, RAW, "high", request=Request("p", 1)),
        _failed,
    ),
    _script("remove_failed", FREES, lambda w, _: w.failures.remove(ENTRY), _failed),
    _script("take_failed", FREES, lambda w, _: _sweep(w, "high"), _failed),
    _script("take_failed", FREES, lambda w, _: _sweep(w, ""), _failed, case="to remove"),
    _script("register", FREES, lambda w, _: w.registry.register(NEWCOMER, OWNER, LEASE, now=NOW)),
    _script("unregister", FREES, lambda w, _: w.registry.unregister(WID, OWNER)),
    _script("beat", FREES, lambda w, _: w.registry.beat(LEASE, [WORKER], now=NOW)),
    _script("claim", FREES, lambda w, _: w.claim(), _queued),
    _script("done", FREES, _finish, _in_hand),
    _script("claim", FREES, lambda w, _: w.claim(), case="of nothing"),
    *_settles(),
    *_recoveries(),
    _script(
        "lock_take", GROWS, lambda w, job: w.claims.take_lock(job, LOCK, 600, now=NOW), _in_hand
    ),
    _script(
        "queue_lock",
        GROWS,
        lambda w, _: take_lock(w.store.client, KEYS, LOCK, b"9.mine", 60),
        case="to take",
    ),
    _script(
        "queue_lock",
        FREES,
        lambda w, _: keep_lock(w.store.client, KEYS, LOCK, b"9.mine", 600),
        _waiting_lock,
        case="to keep",
    ),
    _script(
        "count_attempt",
        FREES,
        lambda w, job: w.claims.count_attempt(
            job, b"resque:counter", 0, record=(b"resque:failure", b"{}"), keep=60
        ),
        _in_hand,
    ),
    _script("lock_drop", FREES, lambda w, _: w.claims.drop_lock(LOCK), _locked),
    _script("keep_locks", FREES, lambda w, _: _renew_locks(w), _locked),
    _script("lead", FREES, lambda w, _: w.delayed.lead("us", term=15.0)),
    _script("resign", FREES, lambda w, _: w.delayed.resign("us"), _leading),
    _script("promote", FREES, lambda w, due: w.delayed.promote(due, token="us"), _due),
    _script("total_length", READS, lambda w, _: w.store.delayed_count(), _due),
    _script(
        "read_due",
        READS,
        lambda w, _: [len(bucket.jobs) for bucket in w.delayed.batch([PAST])[0]],
        _due,
    ),
    _script("tick", GROWS, lambda w, _: w.delayed.tick("t", 9, "high", RAW, token="us"), _leading),
    _script("adopt_bucket", GROWS, lambda w, _: w.delayed.adopt(PAST), _stray),
    _script("clean_foreign", FREES, _clean, _silent_node_worker),
    _script("force_clean", FREES, lambda w, _: _force_clean(w), _silent_node_worker),
    _script("waiting", READS, lambda w, _: _waiting(w), _queued),
]

COMMANDS = [
    Call("pause all", GROWS, b"SET", lambda w: None, lambda w, _: w.store.pause_all()),
    Call("resume all", FREES, b"DEL", _paused, lambda w, _: w.store.resume_all()),
    Call("pause", GROWS, b"SADD", lambda w: None, lambda w, _: w.store.pause_queues(["high"])),
    Call("resume", FREES, b"SREM", lambda w: None, lambda w, _: w.store.resume_queues(["high"])),
    Call(
        "forget",
        FREES,
        KEYS.lease(MASTER),
        lambda w: None,
        lambda w, _: w.registry.forget_master(MASTER),
    ),
    Call(
        "hold on",  # an orphan must not lose its job because memory is full
        FREES,
        KEYS.own_lease(WID),
        _own_lease,
        lambda w, _: w.registry.renew_own_lease(WID, LEASE),
    ),
    _reads("GET", "held", lambda w: w.held()),
    _reads("SMEMBERS", "masters", lambda w: w.registry.masters()),
    _reads("GET", "lease", lambda w: w.registry.lease_value(MASTER)),
    _reads("SMEMBERS", "kids", lambda w: w.registry.kids(MASTER)),
    _reads("SMEMBERS", "workers", lambda w: w.registry.workers()),
    _reads("SMEMBERS", "node workers", lambda w: w.registry.foreign_signs()),
    _reads("GET", "leader", lambda w: w.delayed.leader()),
    _reads("ZRANGEBYSCORE", "due", lambda w: list(w.delayed.due())),
    _reads("ZRANGE", "newest", lambda w: w.delayed.newest(60)),
    _reads("ZRANGE", "next second", lambda w: w.delayed.next_second()),
    _reads("SCAN", "strays", lambda w: sorted(w.delayed.strays(0)[1])),
    Call("clock", Effect.LOOKS, b"TIME", lambda w: None, lambda w, _: w.delayed.clock.now() > 0),
    _reads("SMEMBERS", "queues", lambda w: w.store.queues()),
    _reads("LLEN", "lengths", lambda w: w.store.lengths(["high", "low"])),
    _reads("LRANGE", "peek", lambda w: w.store.peek("high", 0, -1)),
    _reads("LRANGE", "failed", lambda w: w.failures.entries(0, -1)),
    _reads("LLEN", "failed count", lambda w: w.failures.count()),
    _reads("LRANGE", "queued", lambda w: _backlog(w).shown("high", 0, -1)),
    _reads("ZRANGEBYSCORE", "seconds", lambda w: _agenda(w).seconds()),
    _reads("LRANGE", "due at", lambda w: _agenda(w).at(PAST)),
    _reads("ZRANGEBYSCORE", "all delayed", lambda w: list(_agenda(w).all())),
    _reads("SMEMBERS", "scheduled", lambda w: _agenda(w).scheduled(SECOND_JOB)),
    Call(
        "locks", READS, b"SCAN", _waiting_lock, lambda w, _: all_locks(w.store.client, KEYS, page=9)
    ),
    Call(
        "delete lock", FREES, b"DEL", _waiting_lock, lambda w, _: delete_lock(w.store.client, LOCK)
    ),
    _reads("SMEMBERS", "staff", lambda w: _staff(w).workers()),
    _reads("GET", "working on", lambda w: _staff(w).working_on("host:7", "high,low")),
    _reads("SMEMBERS", "all working on", lambda w: _staff(w).all_working_on()),
    _reads("GET", "leaders", lambda w: _staff(w).leader()),
    _reads("SCAN", "stats", lambda w: _staff(w).stats(page=9)),
    _reads("HKEYS", "schedules", lambda w: _staff(w).schedules()),
    _reads("GET", "counts", lambda w: w.store.counts()),
    _reads("SMEMBERS", "paused queues", lambda w: w.store.paused_queues()),
    _reads("GET", "all paused", lambda w: w.store.all_paused()),
]

CALLS = [*SCRIPTS, *COMMANDS]

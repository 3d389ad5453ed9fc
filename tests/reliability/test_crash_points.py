"""Whichever command to Redis a process dies at, or loses its connection at, no job is lost.

Each scenario is one thing that some process does. It is done once undisturbed, to count its
commands, and then once for every command, instant and blow; then whoever is there in real life
puts things right, and every job must be in exactly the one place where it belongs.
"""

import math
import random
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import pytest
from redis import Redis

from forkresque import Forkresque
from forkresque.bulk import Job
from forkresque.enrolment import INNOCENT
from forkresque.errors import RedisUnavailable
from forkresque.jobs import Definition
from forkresque.post import Post
from forkresque.promoter import Promoter
from forkresque.protocol import script
from forkresque.protocol.claims import Claimed, Claims, Outcome, WorkerId
from forkresque.protocol.connection import RedisClock, Target
from forkresque.protocol.delayed import Delayed, Lead, Tick
from forkresque.protocol.failure import failure_entry, parse_failure
from forkresque.protocol.foreign import NODE_TIMEOUT, cleaning_entry
from forkresque.protocol.ownership import LEASE as LEASE_TERM
from forkresque.protocol.ownership import Lease, Owner
from forkresque.protocol.payload import digest, encode_job, ping
from forkresque.protocol.registry import Registry
from forkresque.protocol.store import Requests
from forkresque.queue import Queue
from forkresque.supervisor.messages import Died
from forkresque.supervisor.recovery import Coroner
from forkresque.worker import Worker
from tests.support import jobs
from tests.support.connections import Over
from tests.support.crashing import (
    BLOWS,
    Act,
    Action,
    Blow,
    Fault,
    Instant,
    perform,
)
from tests.support.report import Report
from tests.support.servers import Server
from tests.support.world import (
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
    dump,
    entry_of,
    job,
    open_world,
)

# The other timeout method starts a thread, and a process with threads cannot be forked safely.
# That is why the sizes are spelled out here: the marks of `sized` would bring it back.
pytestmark = pytest.mark.timeout(60, method="signal")
SHARES = [pytest.param(5, id="small"), pytest.param(1, id="full", marks=pytest.mark.full)]

QUEUE, LOW, BUCKET, FAILED = (
    KEYS.queue("high"),
    KEYS.queue("low"),
    KEYS.delayed(PAST),
    KEYS.failed(),
)
LOCK, STRANGER, LOST = b"resque:lock:high:x", b"a stranger's", b"the lock was lost"
NEXT, THIRD = job(2), job(3)
NOT_JSON = b"{broken"
IN_HAND = Claimed(T1, "high", RAW, suspect=False)
DIED = Died(WID, str(OWNER), 7, 9, 0, working=True, claim=1, cut=False, fault="", job="x")
NODE_WORKER = WorkerId("node", 5, ("high",))
HEIR, HEIR_LEASE = Owner("host:2:bbbb", 8, 200), Lease("host:2:bbbb", "pid 8 of this boot")
NEWCOMER = WorkerId("host", 9, ("high",))
LOCKS = (KEYS.leader(), KEYS.node_leader(), KEYS.node_master(), KEYS.ruby_master())

SEED = 20_261_124

T = TypeVar("T")
Told = Callable[[object], None]


# -- what there is, and what must become of it ---------------------------------------------------


@dataclass
class Stage:
    """The Redis under test with one registered worker, and the ledger."""

    world: World
    ledger: Any
    url: str
    rung: bool = False  # whether the last job of a whole worker was pushed

    @property
    def redis(self) -> Any:
        return self.world.redis


@dataclass(frozen=True)
class End:
    """Which payloads each key holds, in order, and what was counted."""

    places: Mapping[bytes, list[bytes]] = field(default_factory=dict)
    processed: int = 0
    failed: int = 0


def observe(redis: Redis) -> End:
    """Return where every job is. A failed one counts as the payload that its record keeps."""
    places: dict[bytes, list[bytes]] = {}
    for key, (value, _) in dump(redis).items():
        if key == FAILED:
            places[key] = [parse_failure(entry).payload for entry in value]
        elif isinstance(value, list) and key != KEYS.schedule():
            places[key] = value
        elif key.startswith(KEYS.slot("")):
            places[key] = [value]
    counts: Any = [redis.get(KEYS.stat(name)) for name in ("processed", "failed")]
    return End(places, *(int(count or 0) for count in counts))


def nothing(_stage: Stage) -> None:
    """Do nothing."""


Do = Callable[[Stage], None]


@dataclass(frozen=True)
class Scenario:
    """One thing that a process does, and its end.

    `done` is the end when it was carried out, `undone` when it was not; without an `undone`
    whoever comes after does it too. `check` looks at what else must be so in the end.
    """

    name: str
    act: Act
    recover: Do
    done: End
    undone: End | None = None
    arrange: Do = nothing
    check: Do = nothing
    meanwhile: Callable[[Stage], bool] | None = None


def insist(question: Callable[[], T]) -> T:
    """Ask as all our callers do: with the same words, until there is an answer."""
    for _ in range(5):
        try:
            return question()
        except RedisUnavailable:
            continue
    return question()


class Actor:
    """The hands of a process that acts over a target of its own."""

    def __init__(self, target: Target, *, tracking: bool = False) -> None:
        self.link = target.link(tracking=tracking)
        self.queue = Queue(Over(target.client(), KEYS))
        self.registry = Registry(self.link, KEYS)
        self.delayed = Delayed(self.link, KEYS)
        self.claims = Claims(self.link, KEYS, WORKER, master=MASTER)
        self.claims.poll(WORKER.queues)

    def coroner(self, known: Mapping[str, Definition]) -> Coroner:
        return Coroner(self.registry, RedisClock(self.link), known, Lease("clerk", "another"))


# -- those who put things right ------------------------------------------------------------------


def bury(known: Mapping[str, Definition] | None = None) -> Do:
    """Return what clerks do for a dead worker: two of them, for that changes nothing."""

    def bury(stage: Stage) -> None:
        world = stage.world
        for _ in range(2):
            clerk = Coroner(
                world.registry, RedisClock(world.link), known or {}, Lease("clerk", "another")
            )
            clerk.settle(DIED)
        keys = (KEYS.slot(WID), KEYS.worker(WID), KEYS.started(WID), KEYS.owner(WID))
        assert not stage.redis.exists(*keys, KEYS.ping(WORKER.name), KEYS.locks(WID))
        assert not stage.redis.sismember(KEYS.workers(), WID)
        assert not stage.redis.exists(KEYS.kids(MASTER))
        assert stage.redis.get(LOCK) in (None, STRANGER)

    return bury


def lapse(stage: Stage) -> None:
    """Let the time of every scheduler lock run out; each must have an end."""
    for lock in LOCKS:
        assert stage.redis.ttl(lock) != -1, f"{lock!r} has no end"
    stage.redis.delete(*LOCKS)


def succeed(stage: Stage) -> None:
    """Be the next leader, and promote all that is due."""
    lapse(stage)
    promoter = Promoter(stage.world.delayed, name="next")
    for _ in range(5):
        promoter.step()
    assert promoter.state is Lead.PROMOTE


# -- producers -----------------------------------------------------------------------------------


def enqueue(queue: Queue, number: int) -> bool:
    return queue.enqueue("high", "x", [number], request_id=f"producer:{number}")


def produce(number: int) -> Act:
    """Return a producer of so many jobs."""

    def act(target: Target, told: Told) -> None:
        queue = Actor(target).queue
        for each in range(1, number + 1):
            told(enqueue(queue, each))

    return act


def produce_again(number: int) -> Do:
    """Return a producer that sends so many requests again."""

    def act(stage: Stage) -> None:
        queue = Queue(Over(stage.world.client, KEYS))
        for each in range(1, number + 1):
            enqueue(queue, each)

    return act


def schedule(queue: Queue) -> bool:
    return queue.enqueue_at(PAST, "high", "x", [1], unique=True, request_id="producer:1")


def schedule_once(target: Target, told: Told) -> None:
    told(schedule(Actor(target).queue))


def schedule_again(stage: Stage) -> None:
    schedule(Queue(Over(stage.world.client, KEYS)))


def is_scheduled(stage: Stage) -> None:
    assert stage.redis.zrange(KEYS.schedule(), 0, -1, withscores=True) == [(b"1000", 1000.0)]
    assert stage.redis.smembers(KEYS.timestamps(job(1))) == {b"delayed:1000"}


def many(queue: Queue) -> int:
    jobs: list[Job] = [("high", "x", [number]) for number in range(1, 6)]
    return queue.bulk([*jobs, ("low", "x", [6])], request_id="producer:1")


def bulk_once(target: Target, told: Told) -> None:
    told(many(Actor(target).queue))


def bulk_again(stage: Stage) -> None:
    many(Queue(Over(stage.world.client, KEYS)))


def forget_scripts(stage: Stage) -> None:
    stage.redis.script_flush()


def fail_one(stage: Stage) -> None:
    stage.redis.rpush(FAILED, entry_of(RAW))


def retry_failed(target: Target, told: Told) -> None:
    told(Actor(target).queue.retry_failed(parse_failure(entry_of(RAW))))


def retry_failed_again(stage: Stage) -> None:
    """Do as an operator who knows of no request id."""
    Queue(Over(stage.world.client, KEYS)).retry_failed(parse_failure(entry_of(RAW)))


# -- workers, call by call -----------------------------------------------------------------------


def two_jobs(stage: Stage) -> None:
    stage.world.push(RAW, NEXT)


def claim(target: Target, told: Told) -> None:
    claims = Actor(target).claims
    answer = insist(lambda: claims.claim(T1, now=NOW))
    told(answer.raw.decode() if isinstance(answer, Claimed) else answer)


def claim_armed(target: Target, told: Told) -> None:
    claims = Actor(target, tracking=True).claims
    told(insist(lambda: claims.claim(T1, now=NOW, armed=True)))


def a_job_behind_a_paused_queue(stage: Stage) -> None:
    stage.world.push(NEXT)
    stage.world.store.pause_queues(["high"])
    stage.world.push(RAW, queue="low")


def a_job_in_hand(stage: Stage) -> None:
    two_jobs(stage)
    assert stage.world.claimed() == IN_HAND


def a_job_left_in_hand(stage: Stage) -> None:
    a_job_in_hand(stage)
    stage.world.let_leases_age()


def settle(outcome: Outcome, next_token: bytes = b"") -> Act:
    """Return a worker that settles the job in hand, and maybe claims the next."""

    def act(target: Target, told: Told) -> None:
        claims = Actor(target).claims
        settled = insist(
            lambda: claims.settle(
                IN_HAND,
                outcome,
                now=NOW,
                next_token=next_token,
                entry=entry_of(RAW),
                due=PAST,
            )
        )
        assert not settled.lost
        told(settled.next.raw.decode() if isinstance(settled.next, Claimed) else settled.next)

    return act


def take_lock(claims: Claims) -> bool:
    return insist(lambda: claims.take_lock(IN_HAND, LOCK, 60, now=time.time()))


def hold_lock(target: Target, told: Told) -> None:
    assert take_lock(Actor(target).claims)
    told("taken")


def drop_lock(target: Target, told: Told) -> None:
    claims = Actor(target).claims
    assert take_lock(claims)
    insist(lambda: claims.drop_lock(LOCK))
    told("dropped")


def settle_with_lock(target: Target, told: Told) -> None:
    claims = Actor(target).claims
    assert take_lock(claims)
    insist(lambda: claims.settle(IN_HAND, Outcome.DONE, now=NOW))
    told("settled")


def drop_lost_lock(target: Target, told: Told) -> None:
    """Drop a lock whose time has run out, and which a stranger has taken meanwhile."""
    claims = Actor(target).claims
    assert take_lock(claims)
    Target(target.address).link().command("MSET", LOCK, STRANGER, LOST, "1")
    told(insist(lambda: claims.drop_lock(LOCK)))


def bury_beside_a_stranger(stage: Stage) -> None:
    """Recover when the worker's lock is free, or its time is over, and a stranger has taken it."""
    redis = stage.redis
    if redis.get(KEYS.last(WID)) == T1 or not redis.exists(KEYS.locks(WID)):
        assert not redis.exists(LOCK)  # it was freed with the job, or by hand
    redis.set(LOCK, STRANGER)
    bury()(stage)
    assert redis.get(LOCK) == STRANGER


def is_the_strangers(stage: Stage) -> None:
    assert stage.redis.get(LOCK) == (STRANGER if stage.redis.exists(LOST) else None)


# -- a worker's coming and going -----------------------------------------------------------------


def register(target: Target, told: Told) -> None:
    registry = Actor(target).registry
    assert insist(lambda: registry.register(NEWCOMER, OWNER, LEASE, now=NOW)) is None
    told("registered")


def register_heir(stage: Stage) -> None:
    """Be another process that came to the same id, of another master."""
    stage.world.let_leases_age()
    assert stage.world.registry.register(NEWCOMER, HEIR, HEIR_LEASE, now=NOW) is None


def is_the_heirs(stage: Stage) -> None:
    wid, redis = str(NEWCOMER), stage.redis
    assert redis.get(KEYS.owner(wid)) == str(HEIR).encode()
    assert redis.smembers(KEYS.kids(HEIR.master)) == {wid.encode()}
    assert redis.smembers(KEYS.kids(MASTER)) == {WID.encode()}
    assert redis.smembers(KEYS.workers()) == {WID.encode(), wid.encode()}
    assert redis.ttl(KEYS.ping(NEWCOMER.name)) > 0


def take_over(registry: Registry, owner: Owner, lease: Lease) -> None:
    """Register under the id of a process that is gone, as a worker does."""
    while held := registry.register(WORKER, owner, lease, now=NOW):
        registry.recover(held, INNOCENT)


def take_over_once(target: Target, told: Told) -> None:
    registry = Actor(target).registry
    insist(lambda: take_over(registry, Owner("host:3:cccc", 9, 300), Lease("host:3:cccc", "dead")))
    told("registered")


def take_over_again(stage: Stage) -> None:
    stage.world.let_leases_age()
    take_over(stage.world.registry, HEIR, HEIR_LEASE)
    redis = stage.redis
    assert redis.get(KEYS.owner(WID)) == str(HEIR).encode()
    assert redis.smembers(KEYS.kids(HEIR.master)) == {WID.encode()}
    assert not redis.exists(KEYS.kids(MASTER), KEYS.kids("host:3:cccc"))
    assert redis.smembers(KEYS.workers()) == {WID.encode()}


def remove_by_a_stranger(stage: Stage) -> None:
    stage.redis.srem(KEYS.workers(), WID)
    stage.redis.delete(KEYS.ping(WORKER.name), KEYS.started(WID))


def beat(target: Target, told: Told) -> None:
    registry = Actor(target).registry
    assert insist(lambda: registry.beat(LEASE, [WORKER], now=NOW)) is not None
    told("alive")


def beat_again(stage: Stage) -> None:
    assert stage.world.registry.beat(LEASE, [WORKER], now=NOW) is not None


def is_alive(stage: Stage) -> None:
    redis = stage.redis
    assert redis.smembers(KEYS.workers()) == {WID.encode()}
    assert redis.get(KEYS.lease(MASTER)) == LEASE.value.encode()
    assert redis.pttl(KEYS.lease(MASTER)) > 0
    assert redis.ttl(KEYS.ping(WORKER.name)) > 0
    assert redis.exists(KEYS.started(WID))


def unregister(target: Target, told: Told) -> None:
    registry = Actor(target).registry
    told(insist(lambda: registry.unregister(WID, OWNER)))


# -- a clerk -------------------------------------------------------------------------------------


def runs_once() -> Mapping[str, Definition]:
    app = Forkresque()
    app.job("x", on_crash="fail")(lambda *_args: None)
    return app.jobs


def recover(known: Mapping[str, Definition] | None = None) -> Act:
    """Return a clerk that settles the death of a worker."""

    def act(target: Target, told: Told) -> None:
        coroner = Actor(target).coroner(known or {})
        insist(lambda: coroner.settle(DIED))
        told("settled")

    return act


def a_locked_job_in_hand(stage: Stage) -> None:
    a_job_in_hand(stage)
    assert take_lock(stage.world.claims)


def a_suspect_in_hand(stage: Stage) -> None:
    a_job_in_hand(stage)
    stage.redis.hset(KEYS.suspects(), digest(RAW), f"2 {int(time.time())}")


def a_job_that_node_has_cleaned(stage: Stage) -> None:
    a_job_in_hand(stage)
    stage.redis.srem(KEYS.workers(), WID)
    entry = failure_entry(
        raw=RAW,
        exception=NODE_TIMEOUT,
        error=NODE_TIMEOUT,
        backtrace=[],
        worker=WORKER.name,
        queue="high",
        failed_at=NOW,
    )
    stage.redis.rpush(FAILED, entry)


def suspected(times: int) -> Do:
    """Return a look at how many deaths are laid to the job."""

    def check(stage: Stage) -> None:
        found = stage.redis.hget(KEYS.suspects(), digest(RAW)) or b"0"
        assert int(found.split()[0]) == times

    return check


def a_silent_neighbour(stage: Stage) -> None:
    """Put in a worker of node-resque that has died with a job."""
    name, wid = NODE_WORKER.name, str(NODE_WORKER)
    stage.redis.sadd(KEYS.workers(), wid)
    stage.redis.set(KEYS.ping(name), ping(name, "high", 1))
    record = b'{"run_at":"then","queue":"high","worker":"node:5","payload":%b}' % NEXT
    stage.redis.set(KEYS.worker(wid), record)


def clean(registry: Registry, token: str) -> None:
    for worker, sign in registry.foreign_signs().items():
        entry = cleaning_entry(sign.record, NODE_WORKER.name, host="host", failed_at=NOW)
        registry.clean_foreign(worker, sign, entry, token=token)


def clean_once(target: Target, told: Told) -> None:
    actor = Actor(target)
    insist(lambda: actor.delayed.lead("us", term=15.0))
    insist(lambda: clean(actor.registry, "us"))
    told("cleaned")


def clean_again(stage: Stage) -> None:
    lapse(stage)
    assert stage.world.delayed.lead("them", term=15.0).state is Lead.PROMOTE
    clean(stage.world.registry, "them")


def has_no_neighbour(stage: Stage) -> None:
    wid = str(NODE_WORKER)
    assert stage.redis.smembers(KEYS.workers()) == {WID.encode()}
    assert not stage.redis.exists(KEYS.worker(wid), KEYS.ping(NODE_WORKER.name))


# -- a scheduler ---------------------------------------------------------------------------------


def delayed(*raws: bytes) -> Do:
    """Return a second that has come, with these jobs; what is no job was put there by hand."""

    def arrange(stage: Stage) -> None:
        for raw in raws:
            stage.world.store.enqueue_at(PAST, raw, request=Requests().next())

    return arrange


def a_stray_bucket(stage: Stage) -> None:
    delayed(RAW)(stage)
    stage.redis.zrem(KEYS.schedule(), PAST)


def step(number: int = 1) -> Act:
    """Return a scheduler that does so many steps."""

    def act(target: Target, told: Told) -> None:
        promoter = Promoter(Actor(target).delayed, name="first")
        for _ in range(number):
            insist(promoter.step)
        told("stepped")

    return act


def promote_one(target: Target, told: Told) -> None:
    queue = Actor(target).delayed
    assert insist(lambda: queue.lead("us", term=15.0)).state is Lead.PROMOTE
    due = insist(lambda: queue.batch([PAST]))[0]
    one = due[0]._replace(jobs=due[0].jobs[:1])
    insist(lambda: queue.promote([one], token="us"))
    told("promoted")


def nothing_is_delayed(stage: Stage) -> None:
    assert not stage.redis.exists(KEYS.schedule(), BUCKET)
    assert not stage.redis.keys(KEYS.timestamps(b"*"))


def tick(target: Target, told: Told) -> None:
    queue = Actor(target).delayed
    assert insist(lambda: queue.lead("us", term=15.0)).state is Lead.PROMOTE
    result = insist(lambda: queue.tick("nightly", PAST, "high", RAW, token="us"))
    told(result is not Tick.FENCED)


def tick_again(stage: Stage) -> None:
    lapse(stage)
    queue = stage.world.delayed
    assert queue.lead("them", term=15.0).state is Lead.PROMOTE
    assert queue.tick("nightly", PAST, "high", RAW, token="them") in (Tick.OK, Tick.SEEN)


def lead_and_resign(target: Target, told: Told) -> None:
    queue = Actor(target).delayed
    assert insist(lambda: queue.lead("us", term=15.0)).state is Lead.PROMOTE
    insist(lambda: queue.resign("us"))
    told(insist(queue.leader))


def lead_next(stage: Stage) -> None:
    lapse(stage)
    assert stage.world.delayed.lead("them", term=15.0).state is Lead.PROMOTE
    assert [stage.redis.get(lock) for lock in LOCKS] == [b"them"] * len(LOCKS)


# -- a whole worker ------------------------------------------------------------------------------

MARKS = ("one", "three")
BOOM = encode_job("high", "boom", ["two"])
LAST = encode_job("high", "last", [])
WORK = (encode_job("high", "note", ["one"]), BOOM, encode_job("high", "note", ["three"]))
Appoint = Callable[[], Post]


def alone() -> Post:
    return Post.alone(["high"], host="lone")


def under_one_id() -> Post:
    """Return a post whose worker id every process has, as in containers that are restarted."""
    post = Post.alone(["high"], host="lone")
    return Post(WorkerId("lone", 1, ("high",)), post.owner, post.lease, post.nonce)


def work(appoint: Appoint, *, off: bool = False) -> Act:
    """Return a worker that leaves after its last job, or when the queue is worked `off`."""

    def act(target: Target, told: Told) -> None:
        app, queue = Forkresque(), Queue(Over(Target(target.address).client(), KEYS))

        @app.job("last", queue="high")
        def last() -> None:
            worker.stop()

        def titled(doing: str) -> None:
            if off and doing == "idle" and not queue.length("high"):
                worker.stop()

        known = {**jobs.app.jobs, **app.jobs}
        worker = Worker(Over(target), known, queues=["high"], post=appoint(), titled=titled)
        worker.run()
        told("left")

    return act


def work_waits(stage: Stage) -> None:
    stage.world.push(*WORK)


def all_work_waits(stage: Stage) -> None:
    work_waits(stage)
    ring(stage)


def ring(stage: Stage) -> None:
    stage.world.push(LAST)
    stage.rung = True


def ring_when_armed(stage: Stage) -> bool:
    """Push the last job when the worker has gone to sleep until Redis tells it of a change."""
    if not stage.redis.info("stats")["tracking_total_keys"]:
        return False
    ring(stage)
    return True


def work_off(appoint: Appoint, *, by_clerk: bool) -> Do:
    """Return what follows a worker: perhaps a clerk, and another worker for what is left."""

    def act(stage: Stage) -> None:
        if by_clerk:
            bury_the_lone(stage)
        if not stage.rung:
            ring(stage)
        account = perform(work(appoint, off=True), stage.url, None)
        assert not account.error, account.error
        bury_the_lone(stage)

    return act


def bury_the_lone(stage: Stage) -> None:
    """Be a clerk of the same host, and of another one if the lease is gone."""
    world = stage.world
    clerk = Coroner(world.registry, RedisClock(world.link), {}, Lease("clerk", "another"))
    for _ in range(2):
        clerk.look_around(reached_for=LEASE_TERM)


def is_worked_off(stage: Stage) -> None:
    redis = stage.redis
    assert redis.smembers(KEYS.masters()) == {MASTER.encode()}
    assert redis.smembers(KEYS.workers()) == {WID.encode()}
    assert not redis.keys(KEYS.kids("lone*")) + redis.keys(KEYS.owner("lone*"))


# -- all of them ---------------------------------------------------------------------------------

LAST_OF_BULK = b'{"class":"x","queue":"low","args":[6]}'
MANY = [job(number) for number in range(1, 111)]
WORKED_OFF = End({FAILED: [BOOM]}, processed=3, failed=1)
BACK = End({QUEUE: [RAW, NEXT]})
FOR_GOOD = runs_once()

SCENARIOS = [
    Scenario("enqueue", produce(1), produce_again(1), End({QUEUE: [job(1)]})),
    Scenario(
        "enqueue with its script forgotten",
        produce(1),
        produce_again(1),
        End({QUEUE: [job(1)]}),
        arrange=forget_scripts,
    ),
    Scenario("one after another", produce(5), produce_again(5), End({QUEUE: MANY[:5]})),
    Scenario("bulk", bulk_once, bulk_again, End({QUEUE: MANY[:5], LOW: [LAST_OF_BULK]})),
    Scenario(
        "enqueue_at", schedule_once, schedule_again, End({BUCKET: [job(1)]}), check=is_scheduled
    ),
    Scenario(
        "requeue_failed", retry_failed, retry_failed_again, End({QUEUE: [RAW]}), arrange=fail_one
    ),
    Scenario("claim hit", claim, bury(), BACK, arrange=two_jobs),
    Scenario("claim empty", claim, bury(), End()),
    Scenario("claim empty and armed", claim_armed, bury(), End()),
    Scenario(
        "claim multi-queue",
        claim,
        bury(),
        End({QUEUE: [NEXT], LOW: [RAW]}),
        arrange=a_job_behind_a_paused_queue,
    ),
    *(
        Scenario(f"settle {outcome}", settle(outcome), bury(), done, BACK, arrange=a_job_in_hand)
        for outcome, done in {
            Outcome.DONE: End({QUEUE: [NEXT]}, processed=1),
            Outcome.FAIL: End({QUEUE: [NEXT], FAILED: [RAW]}, failed=1),
            Outcome.RETRY: End({QUEUE: [NEXT], BUCKET: [RAW]}, failed=1),
            Outcome.REQUEUE: End({QUEUE: [NEXT, RAW]}),
            Outcome.RELEASE: BACK,
            Outcome.DROP: End({QUEUE: [NEXT]}),
        }.items()
    ),
    Scenario(
        "settle chained",
        settle(Outcome.DONE, T2),
        bury(),
        End({QUEUE: [NEXT]}, processed=1),
        BACK,
        arrange=a_job_in_hand,
    ),
    Scenario("lock take", hold_lock, bury(), BACK, arrange=a_job_in_hand),
    Scenario("lock drop", drop_lock, bury_beside_a_stranger, BACK, arrange=a_job_in_hand),
    Scenario(
        "lock drop when it is lost",
        drop_lost_lock,
        bury(),
        BACK,
        arrange=a_job_in_hand,
        check=is_the_strangers,
    ),
    Scenario(
        "settle with a lock",
        settle_with_lock,
        bury_beside_a_stranger,
        End({QUEUE: [NEXT]}, processed=1),
        BACK,
        arrange=a_job_in_hand,
    ),
    Scenario("register", register, register_heir, End(), check=is_the_heirs),
    Scenario("register busy", take_over_once, take_over_again, BACK, arrange=a_job_left_in_hand),
    Scenario("beat", beat, beat_again, End(), arrange=remove_by_a_stranger, check=is_alive),
    Scenario("unregister", unregister, bury(), End()),
    Scenario("unregister busy", unregister, bury(), BACK, arrange=a_job_in_hand),
    Scenario(
        "recover REQUEUED",
        recover(),
        bury(),
        BACK,
        arrange=a_locked_job_in_hand,
        check=suspected(1),
    ),
    Scenario(
        "recover FAILED",
        recover(FOR_GOOD),
        bury(FOR_GOOD),
        End({QUEUE: [NEXT], FAILED: [RAW]}, failed=1),
        arrange=a_locked_job_in_hand,
    ),
    Scenario(
        "recover POISON",
        recover(),
        bury(),
        End({QUEUE: [NEXT], FAILED: [RAW]}, failed=1),
        arrange=a_suspect_in_hand,
        check=suspected(0),
    ),
    Scenario("recover NONE", recover(), bury(), End(), check=suspected(0)),
    Scenario(
        "recover FOREIGN",
        recover(),
        bury(),
        End({QUEUE: [NEXT], FAILED: [RAW]}),
        arrange=a_job_that_node_has_cleaned,
        check=suspected(0),
    ),
    Scenario(
        "clean_foreign",
        clean_once,
        clean_again,
        End({FAILED: [NEXT]}, failed=1),
        arrange=a_silent_neighbour,
        check=has_no_neighbour,
    ),
    Scenario(
        "promote 1",
        promote_one,
        succeed,
        End({QUEUE: [RAW, NEXT]}),
        arrange=delayed(RAW, NEXT),
        check=nothing_is_delayed,
    ),
    Scenario(
        "promote 100",
        step(),
        succeed,
        End({QUEUE: MANY}),
        arrange=delayed(*MANY),
        check=nothing_is_delayed,
    ),
    Scenario(
        "promote malformed",
        step(),
        succeed,
        End({QUEUE: [RAW], FAILED: [NOT_JSON]}, failed=1),
        arrange=delayed(NOT_JSON, RAW),
        check=nothing_is_delayed,
    ),
    Scenario(
        "promote last",
        step(),
        succeed,
        End({QUEUE: [RAW]}),
        arrange=delayed(RAW),
        check=nothing_is_delayed,
    ),
    Scenario(
        "adopt a stray bucket",
        step(2),
        succeed,
        End({QUEUE: [RAW]}),
        arrange=a_stray_bucket,
        check=nothing_is_delayed,
    ),
    Scenario("tick", tick, tick_again, End({QUEUE: [RAW]})),
    Scenario("lead and resign", lead_and_resign, lead_next, End()),
    Scenario(
        "worker and clerk",
        work(alone),
        work_off(alone, by_clerk=True),
        WORKED_OFF,
        arrange=work_waits,
        check=is_worked_off,
        meanwhile=ring_when_armed,
    ),
    Scenario(
        "worker and its heir",
        work(under_one_id),
        work_off(under_one_id, by_clerk=False),
        WORKED_OFF,
        arrange=all_work_waits,
        check=is_worked_off,
    ),
]


# -- the test ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """How one run of a scenario went, after things were put right.

    `answers` are what the calls returned, `runs` the marks of the jobs that ran.
    """

    commands: int
    fired: int
    killed: bool
    answers: list[Any]
    runs: list[str]
    end: End


@dataclass
class Lab:
    """Two servers on which scenarios are run, and what each does without a fault."""

    server: Server
    redis: Any
    ledger: Any
    plain: dict[str, Trial]

    def count(self, scenario: Scenario) -> Trial:
        """Run `scenario` without a fault, unless that was done before."""
        if scenario.name not in self.plain:
            self.plain[scenario.name] = self.run(scenario, None)
        return self.plain[scenario.name]

    def run(self, scenario: Scenario, fault: Fault | None) -> Trial:
        """Arrange on empty servers, act under the fault, recover, and check."""
        self.redis.flushall()
        self.ledger.flushall()
        with contextmanager(open_world)(self.server, self.redis) as world:
            stage = Stage(world, self.ledger, self.server.url)
            scenario.arrange(stage)
            meanwhile = partial(scenario.meanwhile, stage) if scenario.meanwhile else None
            account = perform(scenario.act, stage.url, fault, meanwhile=meanwhile)
            assert not account.error, account.error
            scenario.recover(stage)
            scenario.check(stage)
        return Trial(
            account.commands,
            account.fired,
            account.was_killed,
            account.answers,
            sorted(mark.decode() for mark in self.ledger.lrange("runs", 0, -1)),
            observe(self.redis),
        )


@pytest.fixture(scope="module")
def plain(report: Report) -> dict[str, Trial]:
    report.seed("test_crash_points.py", SEED)
    return {}


@pytest.fixture
def lab(
    one_server: Server,
    one_redis: Redis,
    ledger: Redis,
    ledger_server: Server,
    plain: dict[str, Trial],
    monkeypatch: pytest.MonkeyPatch,
) -> Lab:
    monkeypatch.setenv("LEDGER_URL", ledger_server.url)
    for path in sorted(Path(script.__file__).with_name("lua").glob("*.lua")):
        one_redis.script_load(script.load(path.stem).source)  # so that one call is one command
    return Lab(one_server, one_redis, ledger, plain)


def chosen(scenario: Scenario, blow: Blow, commands: int, share: int) -> list[int]:
    """Return the numbers of one command in `share`, and of all when that is 1."""
    chance = random.Random(f"{SEED} {scenario.name} {blow}")
    return sorted(chance.sample(range(1, commands + 1), math.ceil(commands / share)))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("blow", BLOWS, ids=str)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=attrgetter("name"))
def test_a_blow_at_any_command_leaves_every_job_in_its_one_place(
    scenario: Scenario, blow: Blow, share: int, lab: Lab, report: Report
) -> None:
    plain = lab.count(scenario)
    assert (plain.end, plain.killed) == (scenario.done, False)

    numbers = chosen(scenario, blow, plain.commands, share)
    reruns = 0
    for number in numbers:
        trial = lab.run(scenario, Fault(number, blow))
        assert trial.fired == number
        if blow.action is Action.CUT:
            assert trial == replace(plain, fired=number, commands=trial.commands)
        else:
            assert trial.killed
            assert trial.end in ends(scenario, blow, number, plain.commands)
            assert set(trial.runs) == set(plain.runs)
            assert len(trial.runs) <= len(plain.runs) + 1  # one fault, at most one re-run
            reruns += len(trial.runs) - len(plain.runs)

    report.count("crash points hit", len(numbers))
    report.count("re-runs", reruns)
    report.count("lost", 0)
    report.count("doubled", 0)


def ends(scenario: Scenario, blow: Blow, number: int, commands: int) -> list[End]:
    """Return how a scenario may end after a kill.

    Where the two ends differ the last command is the one that makes the difference: at that
    one there is no doubt, nor is there before it.
    """
    if scenario.undone is None:
        return [scenario.done]
    carried_out = number == commands and blow.instant is not Instant.BEFORE
    return [scenario.done if carried_out else scenario.undone]

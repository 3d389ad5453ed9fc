"""A job is in exactly one place after every step that any number of workers can take.

A seeded walk over everything that moves a job. Answers get lost: the worker then knows nothing
of what came of its call, and may only send it again. Each failure names its seed.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from redis import Redis

from forkresque.protocol.claims import (
    Claimed,
    Claims,
    Nothing,
    Outcome,
    Tokens,
    WorkerId,
)
from forkresque.protocol.connection import Target
from forkresque.protocol.delayed import Bucket, Delayed, Lead
from forkresque.protocol.failure import failure_entry, parse_failure
from forkresque.protocol.failures import Failures
from forkresque.protocol.keys import Keys
from forkresque.protocol.ownership import Held, Lease, Owner
from forkresque.protocol.payload import digest
from forkresque.protocol.registry import Recovery, Registry, Verdict, suspect_field
from forkresque.protocol.store import Requests, Store
from tests.support.servers import Server

KEYS = Keys("resque")
QUEUES = ("high", "low")
NOW = 1_795_000_000.0
PAST = 1_000
WORKERS = 3
STEPS = 1_000
ENDS = (Outcome.DONE, Outcome.DROP)
NEWS = (Nothing.UNREGISTERED, Nothing.BUSY)  # after which a worker starts over


def entry_of(raw: bytes, queue: str) -> bytes:
    return failure_entry(
        raw=raw,
        exception="Oops",
        error="",
        backtrace=[],
        worker="host:1:*",
        queue=queue,
        failed_at=NOW,
    )


class Actor:
    """A worker that keeps its last call until it has an answer."""

    def __init__(
        self, number: int, target: Target, chance: random.Random, recovered: set[bytes]
    ) -> None:
        self.link = target.link()
        self.worker = WorkerId("host", number, QUEUES)
        self.wid = str(self.worker)
        master = f"host:{number}:nonce"
        self.owner, self.lease = Owner(master, number, 1), Lease(master, "alive")
        self.claims = Claims(self.link, KEYS, self.worker, master=master)
        self.claims.poll(QUEUES)
        self.registry = Registry(self.link, KEYS)
        self.tokens = Tokens("nonce")
        self.held: Claimed | None = None
        self.call: Callable[[], Claimed | Nothing] | None = None
        self._chance = chance
        self._recovered = recovered

    def register(self) -> None:
        """Register, and put back first what an earlier self left in the slot."""
        while left := self.registry.register(self.worker, self.owner, self.lease, now=NOW):
            self.put_back(left)

    def put_back(self, left: Held) -> None:
        self.registry.recover(left, Verdict("", 1, fail=False, poison=b"", entry=b""))
        self._recovered.add(left.token.encode())

    def ask(self, call: Callable[[], Claimed | Nothing]) -> None:
        """Send a call up to three times; now and then keep it, for its answer is lost."""
        self.call = call
        first = answer = call()
        for _ in range(self._chance.choice((0, 0, 0, 1, 2))):
            if answer in NEWS:
                break
            answer = call()
            if isinstance(first, Claimed):
                assert isinstance(answer, Claimed), f"{first}, then {answer}"
                # Whether there are suspects may be cleared meanwhile.
                assert answer._replace(suspect=first.suspect) == first
        if answer in NEWS or self._chance.random() < 0.7:
            self.call = None


class Walk:
    """All that may happen to jobs, and what must hold after each step."""

    def __init__(self, server: Server, redis: Redis, seed: int, stack: ExitStack) -> None:
        self.redis: Any = redis
        self.chance = random.Random(seed)
        target = Target(server.url)
        self.store = Store(stack.enter_context(closing(target.client())), KEYS)
        self.failures = Failures(self.store)
        link = stack.enter_context(closing(target.link()))
        self.delayed = Delayed(link, KEYS)
        self.registry = Registry(link, KEYS)
        self.recovered: set[bytes] = set()  # the tokens of jobs that were taken from a worker
        self.stale: dict[str, Held] = {}
        self.actors = [
            Actor(number, target, self.chance, self.recovered) for number in range(1, WORKERS + 1)
        ]
        for actor in self.actors:
            stack.enter_context(closing(actor.link))
            actor.register()
        self.enqueued: list[bytes] = []
        self.ended: set[bytes] = set()
        self.done = 0
        self.lost = 0
        self.seen: Counter[str] = Counter()
        self.steps: dict[Callable[[], None], int] = {
            self.enqueue: 3,
            self.enqueue_at: 2,
            self.work: 24,
            self.recover: 2,
            self.promote: 2,
            self.requeue_failed: 2,
            self.disturb: 3,
        }

    def step(self) -> str:
        (act,) = self.chance.choices(list(self.steps), list(self.steps.values()))
        act()
        return act.__name__

    # -- what may happen -----------------------------------------------------------------------

    def enqueue(self) -> None:
        raw, request = self._new(), Requests().next()
        queue, front = self.chance.choice(QUEUES), self.chance.random() < 0.3
        for _ in range(self.chance.choice((1, 2))):
            self.store.enqueue(queue, raw, request=request, front=front)

    def enqueue_at(self) -> None:
        raw, request, second = self._new(), Requests().next(), self._second()
        unique = self.chance.random() < 0.5
        for _ in range(self.chance.choice((1, 2))):
            self.store.enqueue_at(second, raw, request=request, unique=unique)

    def work(self) -> None:
        actor = self.chance.choice(self.actors)
        if actor.call is not None:
            actor.ask(actor.call)  # the worker does nothing before it has an answer
        elif actor.held is None:
            self._claim(actor)
        else:
            self._settle(actor, actor.held)

    def recover(self) -> None:
        """Judge a worker dead that may be alive, as happens after a partition."""
        actor = self.chance.choice(self.actors)
        seen = self.registry.held(actor.wid)
        field = self.chance.choice(("", suspect_field(seen.raw)))
        entry = entry_of(seen.raw, seen.queue)
        fail = self.chance.random() < 0.3
        limit = self.chance.choice((1, 2))
        verdict = Verdict(field, limit, fail=fail, poison=entry, entry=entry)
        old, self.stale[actor.wid] = self.stale.get(actor.wid, seen), seen
        if old != seen:  # what was seen earlier is no reason for anything now
            assert self.registry.recover(old, verdict) is Recovery.CHANGED
            assert self.registry.held(actor.wid) == seen
        first = self.registry.recover(seen, verdict)
        self.seen[first] += 1
        self.recovered.add(seen.token.encode())
        if first is not Recovery.NONE:  # that may be found out any number of times
            assert self.registry.recover(seen, verdict) is Recovery.CHANGED
        if self.chance.random() < 0.5:  # it was dead indeed, and another process takes its id
            actor.held = actor.call = None
            actor.register()

    def promote(self) -> None:
        if self.delayed.lead("us", term=15.0).state is not Lead.PROMOTE:
            return
        for seconds in self.delayed.due():
            batch, _ = self.delayed.batch(seconds)
            most = self.chance.randint(1, 3)
            batch = [Bucket(bucket.second, bucket.jobs[:most]) for bucket in batch]
            for _ in range(self.chance.choice((1, 2))):
                self.delayed.promote(batch, token="us")

    def requeue_failed(self) -> None:
        entries = self.failures.entries(0, -1)
        if not entries:
            return
        failure, request = parse_failure(self.chance.choice(entries)), Requests().next()
        for _ in range(self.chance.choice((1, 2))):
            self.failures.requeue(
                failure.raw_entry, failure.payload, failure.queue, request=request
            )

    def disturb(self) -> None:
        actor = self.chance.choice(self.actors)
        match self.chance.randrange(6):
            case 0:
                self.redis.srem(KEYS.workers(), actor.wid)
            case 1:
                self.redis.delete(KEYS.lease(actor.lease.master))
            case 2:
                self.store.pause_all()
            case 3:
                actor.held = actor.call = None  # Redis came back with older data than it had
            case _:
                self.store.resume_all()
                for one in self.actors:
                    if one.call is None:
                        one.register()

    def _claim(self, actor: Actor) -> None:
        token = actor.tokens.fresh()

        def call() -> Claimed | Nothing:
            return self._take(actor, actor.claims.claim(token, now=NOW))

        actor.ask(call)

    def _settle(self, actor: Actor, job: Claimed) -> None:
        outcome = self.chance.choice(list(Outcome))
        next_token = actor.tokens.fresh() if self.chance.random() < 0.7 else b""
        due, counted = self._second(), False

        def call() -> Claimed | Nothing:
            nonlocal counted
            settled = actor.claims.settle(
                job,
                outcome,
                now=NOW,
                next_token=next_token,
                entry=entry_of(job.raw, job.queue),
                digest=digest(job.raw) if job.suspect and outcome is Outcome.DONE else "",
                due=due,
            )
            if not settled.lost and not counted and outcome in ENDS:
                counted = True
                self.ended.add(job.raw)
                self.done += outcome is Outcome.DONE
            assert job.token in self.recovered or not settled.lost, f"{job} is lost"
            self.lost += settled.lost
            return self._take(actor, settled.next)

        actor.held = None
        actor.ask(call)

    def _take(self, actor: Actor, answer: Claimed | Nothing) -> Claimed | Nothing:
        self.seen["job" if isinstance(answer, Claimed) else answer] += 1
        actor.held = answer if isinstance(answer, Claimed) else None
        if answer is Nothing.BUSY:
            actor.put_back(actor.registry.held(actor.wid))
        if answer in NEWS:
            actor.register()
        return answer

    def _new(self) -> bytes:
        number = len(self.enqueued)
        self.enqueued.append(b'{ "class":"x", "queue":"high","args":[%d] }' % number)
        return self.enqueued[-1]

    def _second(self) -> int:
        return PAST + self.chance.randrange(3)

    # -- what must hold ------------------------------------------------------------------------

    def found(self) -> Counter[bytes]:
        """Count the places of every job."""
        pipe = self.redis.pipeline()
        for key in (*map(KEYS.queue, QUEUES), *(KEYS.delayed(PAST + n) for n in range(3))):
            pipe.lrange(key, 0, -1)
        pipe.lrange(KEYS.failed(), 0, -1)
        pipe.mget([KEYS.slot(actor.wid) for actor in self.actors])
        *lists, failed, slots = pipe.execute()
        places = Counter(self.ended)
        for found in lists:
            places.update(found)
        places.update(parse_failure(entry).payload for entry in failed)
        places.update(slot[slot.index(b"{") :] for slot in slots if slot)
        return places

    def check(self, seed: int, number: int, step: str) -> None:
        places = self.found()
        wrong = {raw: places[raw] for raw in self.enqueued if places[raw] != 1}
        assert not wrong, f"seed {seed}, step {number}, {step}: {wrong}"
        assert len(places) == len(self.enqueued), f"seed {seed}, step {number}, {step}"
        done = int(self.redis.get(KEYS.stat("processed")) or 0)
        assert done == self.done, f"seed {seed}, step {number}, {step}: a success counted twice"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("seed", range(3))
def test_every_job_is_in_exactly_one_place_after_every_step(
    server: Server, redis: Redis, stack: ExitStack, seed: int
) -> None:
    print(f"seed {seed}")
    walk = Walk(server, redis, seed, stack)
    for number in range(STEPS):
        walk.check(seed, number, walk.step())

    # The walk is worth something only if it has been everywhere. No foreign tool is on the way.
    elsewhere = {Recovery.ALIVE, Recovery.CHANGED, Recovery.FOREIGN}
    assert {"job", *Nothing, *Recovery} - {*walk.seen} <= elsewhere
    assert walk.ended
    assert walk.lost

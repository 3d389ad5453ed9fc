"""The actors of the interleaver: what workers, clerks, schedulers and producers say to Redis.

Ours are the real code, with fixed tokens and a clock that stands still, so that an actor says the
same whenever it is played. Foreign ones are the transcripts.
"""

import json
import time
from dataclasses import dataclass
from itertools import count
from typing import Any

from forkresque.enrolment import INNOCENT
from forkresque.errors import JobLost
from forkresque.inquest import Finding, verdict
from forkresque.policy.verdicts import Blame
from forkresque.processes import describe
from forkresque.protocol.claims import Claimed, Claims, Nothing, Outcome, Settled, WorkerId
from forkresque.protocol.connection import Link, RedisClock
from forkresque.protocol.delayed import Delayed, Lead
from forkresque.protocol.failure import failure_entry
from forkresque.protocol.failures import Failures
from forkresque.protocol.ownership import Lease, Owner
from forkresque.protocol.payload import digest, encode_job
from forkresque.protocol.registry import Registry
from forkresque.protocol.store import Request, Store
from forkresque.supervisor.messages import Died
from forkresque.supervisor.recovery import Coroner
from tests.support import transcripts
from tests.support.interleaver import Actor
from tests.support.site import KEYS

NOW = time.time()  # not older than Redis' own, by which a job lock ends
SECOND = 1_700_000_000  # of the delayed jobs; long past
AUDIT = 1000
LOCK = b"resque:workerslock:add:math:[1]"
LEADER_LOCKS = (KEYS.leader(), KEYS.node_leader(), KEYS.node_master(), KEYS.ruby_master())

_NO_PID = 2**22 + 1  # one more than Linux ever gives


class Still(RedisClock):
    """A clock that asks nobody, so that an actor says the same whenever it is played."""

    def now(self) -> float:
        return NOW


@dataclass(frozen=True)
class Post:
    """A worker of ours, the process that carries its id, and its master's lease."""

    worker: WorkerId
    owner: Owner
    lease: Lease

    @property
    def wid(self) -> str:
        return str(self.worker)

    def token(self, number: int) -> bytes:
        return f"{self.lease.master}.{self.worker.pid}.{number}".encode()

    def hand(self, mark: str) -> Claimed:
        """Return the job that this worker has in hand when a play begins."""
        return Claimed(self.token(1), "math", raw(mark), suspect=False)

    @property
    def died(self) -> Died:
        """What the master tells its clerk when this process is gone, in its first job."""
        return Died(
            worker=self.wid,
            owner=str(self.owner),
            pid=self.owner.pid,
            signum=9,
            status=0,
            working=True,
            claim=1,
            cut=False,
            fault="",
            job="add",
        )


def post(pid: int, master: str, *, start: int = 1) -> Post:
    owner = Owner(master, pid, start)
    return Post(WorkerId("host", pid, ("math",)), owner, Lease(master, f"{master} lives"))


ANN, BEN = post(101, "host:100:aaaa"), post(102, "host:100:aaaa")
ANNS_NAMESAKE = post(101, "host:100:bbbb", start=2)  # in a container that was started again


def raw(mark: str) -> bytes:
    return encode_job("math", "add", [mark])


def mark_of(payload: bytes) -> str:
    return str(json.loads(payload)["args"][0])


def mark_of_failure(entry: Any) -> str:
    return str(json.loads(entry)["payload"]["args"][0])


MARKS = ("a", "b", "c")
MARK_OF_DIGEST = {
    digest(form): mark
    for mark in MARKS
    for form in (raw(mark), transcripts.compact({"class": "add", "args": [mark]}))
}

FAILURE = failure_entry(
    raw=raw("a"),
    exception="E",
    error="e",
    backtrace=[],
    worker=ANN.wid,
    queue="math",
    failed_at=NOW,
)


# -- what is there when a play begins --------------------------------------------------------


def enqueue(link: Link, *marks: str) -> None:
    link.command("SADD", KEYS.queues(), "math")
    link.command("RPUSH", KEYS.queue("math"), *map(raw, marks))


def delay(link: Link, *marks: str) -> None:
    for mark in marks:
        link.command("RPUSH", KEYS.delayed(SECOND), raw(mark))
        link.command("SADD", KEYS.timestamps(raw(mark)), f"delayed:{SECOND}")
    link.command("ZADD", KEYS.schedule(), SECOND, SECOND)


def at_work(link: Link, *posts: Post) -> None:
    """Register workers, and let each claim a job if there is one."""
    for one in posts:
        register(Registry(link, KEYS), one)
        claims_of(one, link).claim(one.token(1), now=NOW)


def two_jobs_and_an_idle_worker(link: Link) -> None:
    at_work(link, ANN)
    enqueue(link, "a", "b")


def two_jobs_and_one_in_hand(link: Link) -> None:
    enqueue(link, "a", "b")
    at_work(link, ANN)


def one_in_hand_of_a_lost_host(link: Link) -> None:
    two_jobs_and_one_in_hand(link)
    link.command("DEL", KEYS.lease(ANN.lease.master))


def two_jobs_and_a_dead_master(link: Link) -> None:
    """Leave an idle worker behind, whose master can be seen from here to be gone."""
    two_jobs_and_an_idle_worker(link)
    _see_master_dead(link)


def two_jobs_and_one_in_hand_under_a_dead_master(link: Link) -> None:
    two_jobs_and_one_in_hand(link)
    _see_master_dead(link)


def _see_master_dead(link: Link) -> None:
    term_ms = int(ANN.lease.term * 1000)
    link.command("SET", KEYS.lease(ANN.lease.master), describe(_NO_PID), "PX", term_ms)


# -- what actors say -------------------------------------------------------------------------


def claims_of(me: Post, link: Any) -> Claims:
    claims = Claims(link, KEYS, me.worker, master=me.lease.master, audit=AUDIT)
    claims.poll(("math",))
    return claims


def register(registry: Registry, me: Post) -> None:
    """Register as Worker does."""
    while held := registry.register(me.worker, me.owner, me.lease, now=NOW):
        finding = Finding(Blame.HOST, bool(held.token), "its process is gone")
        registry.recover(held, verdict(held, finding, {}, now=NOW))


def working(me: Post, *, hand: str = "", joins: bool = False) -> Actor:
    """Claim and settle as Worker does, until the queue is empty; return the answers.

    It begins with the job `hand`, or by registering if it `joins`.
    """

    def act(link: Any) -> list[str]:
        claims, registry = claims_of(me, link), Registry(link, KEYS, audit=AUDIT)
        tokens, said = (me.token(number) for number in count(2)), list[str]()
        registered, answer = not joins, me.hand(hand) if hand else Nothing.UNASKED
        while answer is not Nothing.EMPTY:
            if isinstance(answer, Claimed):
                settled = claims.settle(answer, Outcome.DONE, now=NOW, next_token=next(tokens))
                said.append("LOST" if settled.lost else "DONE")
                registered, answer = registered and not settled.lost, settled.next
                if isinstance(answer, Nothing):
                    said.append(answer)
                continue
            if answer is Nothing.BUSY:
                registry.recover(registry.held(me.wid), INNOCENT)
            if answer in (Nothing.BUSY, Nothing.UNREGISTERED) or not registered:
                register(registry, me)
                registered = True
            answer = claims.claim(next(tokens), now=NOW)
            if isinstance(answer, Nothing):
                said.append(answer)
        return said

    return act


def working_under_lock(me: Post, hand: str) -> Actor:
    """Take LOCK, and settle the job in hand; without the lock it is put off."""

    def act(link: Any) -> str:
        claims = claims_of(me, link)
        try:
            taken = claims.take_lock(me.hand(hand), LOCK, 3600, now=NOW)
        except JobLost:
            return "LOST"
        outcome = Outcome.DONE if taken else Outcome.RETRY
        settled = claims.settle(me.hand(hand), outcome, now=NOW, due=SECOND)
        return "LOST" if settled.lost else "DONE" if taken else "barred"

    return act


def settling(me: Post, hand: str, outcome: Outcome) -> Actor:
    """Settle the job in hand and claim the next one: one question, which may be sent twice."""

    def act(link: Any) -> Settled:
        entry = FAILURE if outcome is Outcome.FAIL else b""
        return claims_of(me, link).settle(
            me.hand(hand), outcome, now=NOW, next_token=me.token(2), entry=entry, due=SECOND
        )

    return act


def finishing(me: Post, hand: str) -> Actor:
    """Settle the job in hand and the next one, and leave, whatever the answers are."""

    def act(link: Any) -> list[str]:
        claims = claims_of(me, link)
        first = claims.settle(me.hand(hand), Outcome.DONE, now=NOW, next_token=me.token(2))
        if not isinstance(first.next, Claimed):
            return ["LOST" if first.lost else first.next]
        second = claims.settle(first.next, Outcome.DONE, now=NOW)
        return ["DONE", "LOST" if second.lost else "DONE"]

    return act


def claiming(me: Post) -> Actor:
    """Claim once: a question that was on its way when its process was killed."""
    return lambda link: claims_of(me, link).claim(me.token(1), now=NOW)


def recovering(dead: Post) -> Actor:
    """Bring back the job of a worker that is held for dead, as a clerk does."""
    return lambda link: coroner(link).settle(dead.died)


def coroner(caller: Any) -> Coroner:
    here = Lease("elsewhere:1:cccc", "another host")
    return Coroner(Registry(caller, KEYS, audit=AUDIT), Still(caller), {}, here)


def looking_around(link: Any) -> bool:
    """Look twice for the lost, as a clerk of another host does."""
    clerk = coroner(link)
    clerk.look_around(reached_for=60.0)
    return clerk.look_around(reached_for=60.0)


def beating(me: Post) -> Actor:
    """Renew the lease and the ping, as the worker's own clerk does."""
    return lambda link: Registry(link, KEYS).beat(me.lease, [me.worker], now=NOW)


def leading(token: str, *, ticks: bool = False, resigns: bool = False) -> Actor:
    """Lead if possible, enqueue what recurs, and promote one batch; return the answers."""

    def act(link: Any) -> list[str]:
        delayed, said = Delayed(link, KEYS), list[str]()
        state = delayed.lead(token, term=15.0).state
        said.append(state)
        if ticks and state is not Lead.FOLLOW:
            said.append(f"tick {delayed.tick('hourly', SECOND, 'math', raw('c'), token=token)}")
        if state is Lead.PROMOTE:
            result = delayed.promote(delayed.batch([SECOND])[0], token=token)
            said.append("FENCED" if result.fenced else f"moved {result.moved}")
        if resigns:
            delayed.resign(token)
        return said

    return act


def terms_end(link: Any) -> object:
    """Let all locks of schedulers run out, as if their holders had been stopped for long."""
    return link.command("DEL", *LEADER_LOCKS)


def node_promoting(link: Any) -> int:
    return transcripts.node_promote(link, "nodehost:1", now=int(NOW))


def ruby_promoting(redis_rb: int) -> Actor:
    def act(link: Any) -> int:
        moved = transcripts.ruby_promote(link, "rubyhost:1", now=int(NOW), redis_rb=redis_rb)
        transcripts.ruby_resign(link, "rubyhost:1")
        return moved

    return act


def ruby_pruning(link: Any) -> list[str]:
    """Prune as a Ruby worker of the same host name that sees none of our processes."""
    return transcripts.RubyWorker("host", 999, ("math",)).prune(link, processes=())


def node_cleaning(link: Any) -> bytes | None:
    return transcripts.node_force_clean(link, ANN.worker.name)


def retrying(request: Request) -> Actor:
    def act(link: Any) -> bool:
        return Failures(Store(link, KEYS)).requeue(FAILURE, raw("a"), "math", request=request)

    return act


def producing(link: Any) -> str:
    Store(link, KEYS).enqueue("math", raw("a"), request=Request("p", 1))
    return "told"


def producing_later(link: Any) -> str:
    Store(link, KEYS).enqueue_at(SECOND, raw("a"), request=Request("p", 1))
    return "told"

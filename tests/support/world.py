"""A server with one registered worker, and all that a test may ask of it or see in it."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from redis import Redis

from forkresque.protocol.claims import Claimed, Claims, Nothing, Outcome, Settled, WorkerId
from forkresque.protocol.connection import Client, Link, Target
from forkresque.protocol.delayed import Delayed, Lead
from forkresque.protocol.failure import failure_entry, parse_failure
from forkresque.protocol.failures import Failures
from forkresque.protocol.keys import Keys
from forkresque.protocol.ownership import Held, Lease, Owner
from forkresque.protocol.registry import Registry, Verdict
from forkresque.protocol.script import Call, load
from forkresque.protocol.store import Requests, Store
from tests.support.servers import Server

KEYS = Keys("resque")
WORKER = WorkerId("host", 7, ("high", "low"))
WID = str(WORKER)
MASTER = "host:1:aaaa"
OWNER = Owner(MASTER, 7, 100)
LEASE = Lease(MASTER, "pid 1 of this boot")
NOW = 1_795_000_000.0
PAST = 1_000
T1, T2, T3 = b"m.1", b"m.2", b"m.3"
FREE = Verdict(suspect="", limit=1, fail=False, poison=b"", entry=b"")
# What no encoder of ours would write: whoever decodes it to write it again changes it.
RAW = b'{ "args" : [1.0, []], "class":"x","queue":"high"}'

Dump = dict[bytes, Any]


class ToldLink(Link):
    """A link that remembers what went through it, to send it again.

    With `short` a job that is done is settled by the short script, as it is in life; else by the
    long one, which does everything.
    """

    short = False

    def call(self, call: Call, *, armed: bool = False) -> Any:
        if is_short(call) and not self.short:
            return None
        self.sent = call
        self.said = super().call(call, armed=armed)
        return self.said

    @property
    def word(self) -> str:
        return str(self.said[0].decode())

    def again(self) -> Any:
        return self.call(self.sent)


def is_short(call: Call) -> bool:
    """Return whether this is the short script for jobs that are done."""
    return load("done").digest.encode() in call.digest_head


class ToldClient(Client):
    """The same for producers."""

    def call(self, call: Call) -> Any:
        self.sent = call
        self.said = super().call(call)
        return self.said

    @property
    def word(self) -> str:
        return str(self.said[0].decode())

    def again(self) -> Any:
        return self.call(self.sent)


@dataclass
class World:
    """A server with one registered worker."""

    redis: Redis
    link: ToldLink
    client: ToldClient
    claims: Claims
    registry: Registry
    store: Store
    delayed: Delayed

    @property
    def failures(self) -> Failures:
        return Failures(self.store)

    def push(self, *raws: bytes, queue: str = "high") -> None:
        for raw in raws:
            self.store.enqueue(queue, raw, request=Requests().next())

    def register(self) -> None:
        assert self.registry.register(WORKER, OWNER, LEASE, now=NOW) is None

    def let_leases_age(self) -> None:
        """Have every lease look as if it was not renewed for a while: no id counts as in use."""
        for key in self.redis.scan_iter(KEYS.lease("*")):
            self.redis.pexpire(key, 5_000)

    def claim(self, token: bytes = T1) -> Claimed | Nothing:
        return self.claims.claim(token, now=NOW)

    def claimed(self, token: bytes = T1) -> Claimed:
        job = self.claim(token)
        assert isinstance(job, Claimed), job
        return job

    def settle(
        self, job: Claimed, outcome: Outcome, next_token: bytes = b"", **more: Any
    ) -> Settled:
        return self.claims.settle(job, outcome, now=NOW, next_token=next_token, **more)

    def held(self) -> Held:
        return self.registry.held(WID)

    def all_keys(self) -> set[bytes]:
        return set(dump(self.redis))

    def list(self, key: bytes) -> Any:
        return self.redis.lrange(key, 0, -1)

    def lead(self, token: str = "us") -> Lead:
        return self.delayed.lead(token, term=15.0).state


def open_world(server: Server, redis: Redis) -> Iterator[World]:
    target = Target(server.url)
    link, client = ToldLink(target), ToldClient(target)
    with closing(link), closing(client):
        world = World(
            redis,
            link,
            client,
            Claims(link, KEYS, WORKER, master=MASTER),
            Registry(link, KEYS),
            Store(client, KEYS),
            Delayed(link, KEYS),
        )
        world.claims.poll(WORKER.queues)
        world.register()
        yield world


def dump(redis: Redis) -> Dump:
    """Return every key with its value; a time to live shows only as such."""
    keys: Any = redis.keys()
    keys.sort()
    with redis.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.type(key)
            pipe.ttl(key)
        found = pipe.execute()
        for key, kind in zip(keys, found[::2], strict=True):
            _ask_value(pipe, kind, key)
        values = pipe.execute()
    ends = [ttl >= 0 for ttl in found[1::2]]
    return dict(zip(keys, zip(values, ends, strict=True), strict=True))


def _ask_value(redis: Any, kind: bytes, key: bytes) -> None:
    match kind:
        case b"string":
            redis.get(key)
        case b"list":
            redis.lrange(key, 0, -1)
        case b"set":
            redis.smembers(key)
        case b"zset":
            redis.zrange(key, 0, -1, withscores=True)
        case b"hash":
            redis.hgetall(key)
        case _:
            redis.xrange(key)


def places(redis: Redis, raw: bytes) -> list[bytes]:
    """Return the keys that hold the job, as often as they hold it."""
    found = []
    for key, (value, _) in dump(redis).items():
        if isinstance(value, list):
            found += [key for item in value if item == raw or _failed_with(item, raw)]
        elif key == KEYS.slot(WID) and isinstance(value, bytes) and value.endswith(raw):
            found.append(key)
    return found


def _failed_with(item: object, raw: bytes) -> bool:
    return isinstance(item, bytes) and parse_failure(item).payload == raw


def spoil(redis: Redis, key: bytes) -> None:
    """Make `key` a type that Resque never keeps there."""
    redis.delete(key)
    redis.xadd(key, {"wrong": "type"})


def job(number: int) -> bytes:
    return b'{"class":"x","queue":"high","args":[%d]}' % number


def entry_of(raw: bytes) -> bytes:
    return failure_entry(
        raw=raw,
        exception="Oops",
        error="it broke",
        backtrace=[],
        worker=WID,
        queue="high",
        failed_at=NOW,
    )


def again_is_the_same(world: World) -> None:
    """Send the last call once more: same answer, same keys."""
    answer, before = world.link.said, dump(world.redis)
    assert world.link.again() == answer
    assert dump(world.redis) == before

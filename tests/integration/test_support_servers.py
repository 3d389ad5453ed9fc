"""What the tests' own servers and proxy do: real ones start, end and leave nothing."""

import contextlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import redis as redis_py
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.processes import ROOT, is_alive
from tests.support.proxy import Proxy
from tests.support.servers import HOST, Server, binaries
from tests.support.waiting import wait_until

KINDS = sorted(binaries())


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy((HOST, server.port)) as proxy:
        yield proxy


@pytest.fixture
def through(proxy: Proxy) -> Iterator[Redis]:
    """Return a client behind the proxy that tries once and waits for half a second."""
    with closing(Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 0), socket_timeout=0.5)) as it:
        it.ping()
        yield it


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_answers_on_both_addresses_and_leaves_nothing(kind: str) -> None:
    with Server(binaries()[kind]) as server:
        with closing(server.client(db=3)) as client:
            client.set("here", 1)
        with closing(Redis.from_url(f"{server.tcp_url}/3")) as client:
            assert client.get("here") == b"1"

    assert not psutil.pid_exists(server.process.pid)
    assert not server.directory.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_server_comes_back_on_the_same_port(kind: str) -> None:
    with Server(binaries()[kind], appendonly="always") as server, closing(server.client()) as it:
        port = server.port
        it.set("kept", 1)
        server.kill()
        server.restart()

        assert server.port == port
        assert it.get("kept") == b"1"


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_without_appendonly_forgets(kind: str) -> None:
    with Server(binaries()[kind]) as server, closing(server.client()) as it:
        it.set("lost", 1)
        server.restart()

        assert it.get("lost") is None
        assert sorted(path.name for path in server.directory.iterdir()) == ["log", "server.sock"]


def test_a_paused_server_is_silent_and_a_flush_wakes_it() -> None:
    with Server() as server:
        once = server.client(retry=Retry(NoBackoff(), 0), socket_timeout=0.1)
        with closing(once) as client:
            client.ping()
            server.pause()
            with pytest.raises(redis_py.TimeoutError):
                client.ping()
            server.flush()
            assert client.ping()


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(AssertionError, match="no-such-option"):
        Server(args=("--no-such-option", "1"))


def test_a_server_dies_with_its_runner(tmp_path: Path) -> None:
    told = tmp_path / "server"
    program = (
        "import pathlib, sys\n"
        "from tests.support.servers import Server\n"
        "server = Server()\n"
        f"told = pathlib.Path({str(told)!r})\n"
        "told.write_text(f'{server.process.pid} {server.directory}\\n')\n"
        "sys.stdin.read()\n"
    )
    runner = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE)
    with runner:
        wait_until(lambda: told.exists() and told.read_text().endswith("\n"), "the server")
        pid, directory = told.read_text().split()
        server = psutil.Process(int(pid))
        runner.kill()

    wait_until(lambda: not is_alive(server), "the server to die")
    shutil.rmtree(directory)


def test_the_proxy_drops_exactly_one_reply(proxy: Proxy, through: Redis, redis: Redis) -> None:
    rule = proxy.drop_reply(b"RPUSH")
    through.set("other", 1)
    assert proxy.fired == 0

    with pytest.raises(redis_py.ConnectionError):
        through.rpush("list", "a")

    assert (rule.fired, proxy.fired) == (1, 1)
    assert redis.llen("list") == 1
    assert through.rpush("list", "b") == 2
    assert proxy.fired == 1


def test_the_proxy_drops_exactly_one_request(proxy: Proxy, through: Redis, redis: Redis) -> None:
    proxy.drop_request(b"RPUSH")

    with pytest.raises(redis_py.ConnectionError):
        through.rpush("list", "a")

    assert proxy.fired == 1
    assert redis.llen("list") == 0
    assert through.rpush("list", "b") == 1


def test_the_proxy_finds_a_mark_that_came_in_two_pieces(
    proxy: Proxy, through: Redis, redis: Redis
) -> None:
    proxy.drop_reply(b"x" * 200_000 + b"end")

    with pytest.raises(redis_py.ConnectionError):
        through.set("big", b"x" * 200_000 + b"end")

    assert proxy.fired == 1
    assert redis.strlen("big") == 200_003


def test_a_black_hole_holds_everything_until_it_heals(proxy: Proxy, through: Redis) -> None:
    proxy.blackhole()
    with pytest.raises(redis_py.TimeoutError):
        through.ping()
    with pytest.raises(redis_py.TimeoutError):
        through.ping()

    proxy.heal()

    assert through.ping()


def test_a_cut_closes_what_is_open(proxy: Proxy, through: Redis) -> None:
    proxy.cut()

    with contextlib.suppress(redis_py.ConnectionError):
        through.ping()  # finds the old connection closed, if it did not notice before
    assert through.ping()
    assert proxy.connections == 2


def test_the_proxy_reaches_a_unix_socket(server: Server) -> None:
    with Proxy(server.socket) as proxy, closing(Redis.from_url(proxy.url)) as client:
        assert client.ping()


def test_closing_the_proxy_ends_its_threads(server: Server) -> None:
    before = set(threading.enumerate())
    with Proxy((HOST, server.port)) as proxy, closing(Redis.from_url(proxy.url)) as client:
        client.ping()
        proxy.blackhole()

    assert set(threading.enumerate()) <= before

"""`forkresque scheduler`: it promotes in the foreground, alone, until a signal ends it."""

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from forkresque.errors import ExitCode
from forkresque.protocol.payload import encode_job
from tests.support.processes import Start, title
from tests.support.proxy import Proxy
from tests.support.servers import HOST, Server, free_port
from tests.support.site import KEYS
from tests.support.waiting import wait_until

Run = Callable[..., Start]
LOCKS = (KEYS.leader(), KEYS.node_leader(), KEYS.node_master(), KEYS.ruby_master())


@pytest.fixture
def run(one_server: Server) -> Iterator[Run]:
    """Return what starts the command; it is stopped after the test."""
    started: list[Start] = []

    def run(*args: str, url: str = "") -> Start:
        started.append(Start(*args, url=url or one_server.url, command="scheduler"))
        return started[-1]

    yield run
    for one in started:
        one.stop()
        print(f"-- log of {one.pid}\n{one.log()}")
        one.remove()


def leader(redis: Redis) -> str:
    found: Any = redis.get(KEYS.leader())
    return (found or b"").decode()


def leads(redis: Redis, one: Start) -> bool:
    return f":{one.pid}:" in leader(redis)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_it_promotes_until_a_signal_ends_it(
    run: Run, one_redis: Redis, signum: signal.Signals
) -> None:
    scheduler = run("--host-label", "box")
    wait_until(lambda: leads(one_redis, scheduler), "its lead")
    assert leader(one_redis).startswith(f"box:{scheduler.pid}:")
    (process,) = scheduler.left()
    assert title(process).endswith(": scheduler")
    raw = encode_job("math", "note", [1])
    one_redis.rpush(KEYS.delayed(5), raw)
    one_redis.zadd(KEYS.schedule(), {"5": 5})
    wait_until(lambda: one_redis.lrange(KEYS.queue("math"), 0, -1) == [raw], "the promotion")

    scheduler.send_signal(signum)

    assert scheduler.wait(5) == ExitCode.OK
    assert not one_redis.exists(*LOCKS)
    assert f"scheduler=box:{scheduler.pid} ended" in scheduler.log()


def test_one_of_two_leads_and_the_other_takes_over(run: Run, one_redis: Redis) -> None:
    first = run()
    wait_until(lambda: leads(one_redis, first), "the first to lead")
    second = run()
    wait_until(lambda: "started" in second.log(), "the start of the second")

    first.send_signal(signal.SIGTERM)

    assert first.wait(5) == ExitCode.OK
    wait_until(lambda: leads(one_redis, second), "the second to lead", 5.0)


def test_it_waits_for_a_redis_that_is_not_there(run: Run) -> None:
    scheduler = run(url=f"redis://{HOST}:{free_port()}")
    wait_until(lambda: "cannot reach Redis" in scheduler.log(), "its complaint")

    scheduler.send_signal(signal.SIGTERM)

    assert scheduler.wait(5) == ExitCode.OK


@pytest.mark.parametrize("twice", [False, True])
def test_it_ends_though_redis_is_silent_and_at_once_when_told_twice(
    run: Run, one_server: Server, one_redis: Redis, *, twice: bool
) -> None:
    with closing(Proxy((HOST, one_server.port))) as proxy:
        scheduler = run(url=proxy.url)
        wait_until(lambda: leads(one_redis, scheduler), "its lead")
        proxy.blackhole()

        scheduler.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_handled(scheduler, signal.SIGTERM), "the signal to be heard")
        if twice:
            scheduler.send_signal(signal.SIGTERM)

        assert scheduler.wait(9) == (-signal.SIGTERM if twice else ExitCode.OK)


def is_handled(one: Start, signum: int) -> bool:
    """Return whether the process has a handler for a signal, by what the kernel says."""
    status = Path(f"/proc/{one.pid}/status").read_text()
    caught = re.search(r"SigCgt:\s*([0-9a-f]+)", status)
    return caught is not None and bool(int(caught[1], 16) >> (signum - 1) & 1)


@pytest.mark.parametrize(
    ("words", "url", "code"),
    [
        (["--require-redis"], f"redis://{HOST}:1", ExitCode.REDIS_UNREACHABLE),
        ([], "http://x", ExitCode.CONFIG),
        ([], "embedded://", ExitCode.CONFIG),
        (["--stuck-worker-timeout", "-1"], f"redis://{HOST}:1", ExitCode.CONFIG),
        (["--nosuch"], f"redis://{HOST}:1", ExitCode.USAGE),
    ],
)
def test_what_it_cannot_do_is_an_exit_code(
    run: Run, words: list[str], url: str, code: ExitCode
) -> None:
    assert run(*words, url=url).wait(10) == code

"""Redis hangs, dies, refuses or forgets. Every job is settled once, and nobody needs a restart."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from redis import Redis

from forkresque.errors import ExitCode
from tests.conftest import Starter
from tests.support.patience import Bench, patient
from tests.support.processes import Start, assert_nothing_left
from tests.support.servers import HOST, Server, free_port
from tests.support.site import (
    APP,
    KEYS,
    Site,
    await_rest,
    idle_workers,
    on_call,
    phases,
    state,
    stays,
)
from tests.support.waiting import wait_until

PATIENCE = ("--shutdown-timeout", "2")

# What makes a running server refuse every write, and what ends that.


@pytest.fixture
def server_of_its_own() -> Iterator[Server]:
    """Return a server that a test may break, and that loses nothing."""
    with Server(appendonly="always") as server:
        yield server


@pytest.fixture
def site(server_of_its_own: Server, ledger: Redis) -> Iterator[Site]:
    """Return that server and the ledger, both empty."""
    with closing(server_of_its_own.client()) as client:
        yield Site(client, ledger)


@pytest.fixture
def start(server_of_its_own: Server, start: Starter) -> Starter:
    """Return a starter of masters on that server."""

    def starter(*args: str, url: str | None = None, env: dict[str, str] | None = None) -> Start:
        return start(*args, url=url or server_of_its_own.url, env=env)

    return starter


def drain(master: Start, site: Site) -> None:
    """End a master; nothing may be left."""
    master.send_signal(signal.SIGTERM)
    assert master.wait(5) == ExitCode.OK
    assert_nothing_left(master, site.redis)


def notes(site: Site, number: int) -> None:
    for mark in range(number):
        site.enqueue("note", str(mark))


def await_settling(master: Start, pid: int) -> None:
    """Wait until a worker has ended its job and tells so to a Redis that does not listen."""
    wait_until(lambda: phases(master)[pid] == "settle", "the job to be over", 3.0)


# -- while it runs -----------------------------------------------------------------------------


def test_a_job_that_redis_hands_out_again_when_it_has_forgotten_its_end_is_put_back(
    start: Starter, site: Site, server_of_its_own: Server
) -> None:
    """A log that lost its tail has it in the slot of a worker that is asleep."""
    master = start(*APP, "-c", "3")
    idle_workers(master, 3)
    await_reached(master)
    (worker,) = site.gates("a")
    (log,) = server_of_its_own.directory.glob("appendonlydir/*.incr.aof")
    then = log.stat().st_size
    site.release("a")
    site.await_processed(1)
    await_rest(master, 3)
    assert worker not in on_call(master)

    server_of_its_own.kill()
    wait_until(lambda: not state(master)["clerk"]["reached"], "the clerk to notice")
    os.truncate(log, then)
    server_of_its_own.restart()

    site.started("a", times=2)
    site.release("a")
    site.await_processed(1)
    assert (site.slots(), site.waiting(), site.failures()) == (0, [], [])
    drain(master, site)


def await_reached(master: Start) -> None:
    wait_until(lambda: state(master)["clerk"]["reached"], "the clerk to reach Redis", 3.0)


def test_scripts_that_redis_forgets_are_sent_again(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "4")
    idle_workers(master, 4)

    def flush(number: int) -> bool:
        site.redis.script_flush()
        return site.count("processed") >= number

    for batch in range(50):
        for number in range(10):
            site.enqueue("note", f"{batch}.{number}")
        site.redis.script_flush()
        wait_until(lambda batch=batch: flush(10 * batch), "the batch before", every=0.05)  # type: ignore[misc]
    wait_until(lambda: flush(500), "500 jobs", every=0.05)

    assert (site.count("processed"), site.count("failed")) == (500, 0)
    assert len(set(site.runs())) == len(site.runs()) == 500
    drain(master, site)


@pytest.mark.parametrize("queues", ["bad,math", "*"])
def test_a_queue_that_is_no_list_does_not_stop_the_others(
    start: Starter, site: Site, queues: str
) -> None:
    site.redis.sadd(KEYS.queues(), "bad")
    site.redis.set(KEYS.queue("bad"), "no list")
    notes(site, 20)

    master = start("-A", "tests.support.jobs", "-q", queues, "-c", "2")
    site.await_processed(20)
    await_rest(master, 2)
    site.enqueue("note", "heard of")
    site.await_processed(21, timeout=2)
    assert site.redis.get(KEYS.queue("bad")) == b"no list"

    await_rest(master, 2)
    site.redis.delete(KEYS.queue("bad"))
    site.enqueue("note", "in the queue that was bad", queue="bad")
    site.await_processed(22, timeout=2)
    drain(master, site)


# -- at the start ------------------------------------------------------------------------------


def test_a_start_that_requires_redis_ends_without_it_and_says_so(start: Starter) -> None:
    url = f"redis://{HOST}:{free_port()}"
    master = start(*APP, "-c", "2", "--require-redis", url=url)

    assert master.wait(5) == ExitCode.REDIS_UNREACHABLE
    assert f"Redis at {url}" in master.log()
    assert "is it up? Name another with -u URL or FORKRESQUE_REDIS_URL" in master.log()
    assert "Traceback" not in master.log()


def test_a_start_on_a_replica_is_refused(start: Starter, site: Site) -> None:
    site.redis.execute_command("REPLICAOF", HOST, "1")

    master = start(*APP, "-c", "2")

    assert master.wait(5) == ExitCode.CONFIG
    assert "this Redis is a replica" in master.log()
    assert "give the address of its primary" in master.log()
    assert_nothing_left(master, site.redis)


def test_a_start_on_a_redis_that_evicts_is_refused(start: Starter, site: Site) -> None:
    site.redis.config_set("maxmemory-policy", "allkeys-lru")

    master = start(*APP, "-c", "2")

    assert master.wait(5) == ExitCode.CONFIG
    assert "this Redis may throw jobs away: maxmemory-policy is allkeys-lru" in master.log()
    assert "CONFIG SET maxmemory-policy noeviction" in master.log()
    assert_nothing_left(master, site.redis)


# -- at the end --------------------------------------------------------------------------------


@patient
def test_a_drain_ends_in_time_though_redis_hangs(bench: Bench) -> None:
    site = bench.site
    idle = bench.start("-A", "tests.support.jobs", "-q", "nothing", "-c", "2", *PATIENCE)
    busy = bench.start(*APP, "-c", "2", *PATIENCE)
    ending = bench.start("-A", "tests.support.jobs", "-q", "other", "-c", "2", *PATIENCE)
    await_rest(idle, 2)
    site.enqueue("gate", "ending", queue="other")
    settling = site.started("ending")
    site.gates("running")

    bench.server.pause()
    site.release("ending")
    await_settling(ending, settling)
    asked_at = time.monotonic()
    for master in (idle, busy, ending):
        master.send_signal(signal.SIGTERM)
    codes = [master.wait(9) for master in (idle, busy, ending)]
    assert time.monotonic() - asked_at < 8
    for master in (idle, busy, ending):
        wait_until(lambda master=master: not master.left(), "the end of all", 1.0)  # type: ignore[misc]

    bench.server.resume()
    heir = bench.start("-A", "tests.support.jobs", "-q", "math,other", "-c", "2")
    site.started("running", times=2)
    site.release("running", "ending")  # the one that was over may run again, or be settled
    site.await_processed(2)
    assert site.starts("running") == 2
    assert site.count("failed") == 0
    drain(heir, site)
    for master in (idle, busy, ending):
        assert_nothing_left(master, site.redis)
    assert codes == [ExitCode.OK, ExitCode.CUT, ExitCode.CUT]


@patient
def test_a_second_signal_ends_at_once_though_redis_hangs(bench: Bench) -> None:
    site = bench.site
    termed = bench.start(*APP, "-c", "2")
    interrupted = bench.start(*APP, "-c", "2")
    idle_workers(termed, 2)
    idle_workers(interrupted, 2)
    site.gates("a", "b", "c", "d")

    bench.server.pause()
    orders = {termed: signal.SIGTERM, interrupted: signal.SIGINT}
    for master, signum in orders.items():
        master.send_signal(signum)
    stays(lambda: all(m.process.poll() is None for m in orders), "both wait for their jobs", 2.2)
    for master, signum in orders.items():
        master.send_signal(signum)

    for master, signum in orders.items():
        assert master.wait(4) == 128 + signum
        wait_until(lambda master=master: not master.left(), "the end of all", 1.0)  # type: ignore[misc]
    bench.server.resume()
    heir = bench.start(*APP, "-c", "4")
    for name in ("a", "b", "c", "d"):
        site.started(name, times=2)
    site.release("a", "b", "c", "d")
    site.await_processed(4)
    assert site.count("failed") == 0
    drain(heir, site)
    assert_nothing_left(termed, site.redis)
    assert_nothing_left(interrupted, site.redis)

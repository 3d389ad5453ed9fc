"""Idle workers cost Redis nothing, and a job starts at once all the same."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import psutil
import pytest

from forkresque.errors import ExitCode
from tests.conftest import Starter
from tests.support.patience import Bench, patient
from tests.support.processes import Start, assert_nothing_left
from tests.support.servers import HOST, Server
from tests.support.site import (
    APP,
    KEYS,
    Site,
    await_rest,
    is_gone,
    on_call,
    phases,
    stays,
    ticks,
)
from tests.support.waiting import wait_until

NAMES = ("a", "b", "c", "d", "e", "f", "g", "h")
AT_ONCE = 2.0  # seconds within which a job starts, on the busiest machine
ANY = ("-A", "tests.support.jobs", "-q", "*")


class Eavesdropper:
    """Hears every command that comes over TCP: from which port, and when."""

    def __init__(self, redis: Any, stack: ExitStack) -> None:
        self._monitor: Any = stack.enter_context(redis.monitor())

    def hears(self, seconds: float) -> list[tuple[int, str]]:
        """Return the client's port and the command of all that comes within so many seconds."""
        heard, end = [], time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._monitor.connection.can_read(timeout=left):
                told = self._monitor.next_command()
                if told["client_type"] == "tcp":  # neither a script nor the test itself
                    heard.append((int(told["client_port"]), told["command"]))
        return heard


@contextmanager
def eavesdropping(server: Server) -> Iterator[Eavesdropper]:
    """Listen to a server."""
    with ExitStack() as stack, closing(server.client()) as client:
        yield Eavesdropper(client, stack)


def ports(master: Start) -> dict[int, str]:
    """Return whose each port is: "clerk", or a worker's pid."""
    found: dict[int, str] = {}
    for role in ("clerk", "worker"):
        for child in master.children(role):
            name = role if role == "clerk" else str(child.pid)
            found |= {link.laddr.port: name for link in child.net_connections("tcp") if link.laddr}
    return found


def workers_commands(heard: list[tuple[int, str]], owners: dict[int, str]) -> list[str]:
    """Return what was not said by the clerk."""
    return [
        f"{owners.get(port)} {word[:60]}" for port, word in heard if owners.get(port) != "clerk"
    ]


def await_quiet(master: Start, eavesdropper: Eavesdropper, number: int) -> dict[int, str]:
    """Wait until all are registered and at rest, and say nothing; return whose each port is."""
    await_rest(master, number)

    def quiet() -> bool:
        return not workers_commands(eavesdropper.hears(1.0), ports(master))

    wait_until(quiet, "a quiet second", 12.0)
    return ports(master)


def drain(master: Start, site: Site) -> None:
    master.send_signal(signal.SIGTERM)
    assert master.wait(5) == ExitCode.OK
    assert_nothing_left(master, site.redis)


# -- nothing to do -----------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [10, pytest.param(60, marks=pytest.mark.full)])
@patient
def test_eight_idle_workers_say_nothing(bench: Bench, seconds: int) -> None:
    site, eavesdropper = bench.site, bench.enter(eavesdropping(bench.server))
    master = bench.start(*APP, "-c", "8", url=bench.server.tcp_url)
    owners = await_quiet(master, eavesdropper, 8)
    assert Counter(owners.values()) == {"clerk": 1} | {
        str(worker.pid): 1 for worker in master.children("worker")
    }

    heard = eavesdropper.hears(seconds)

    assert ports(master) == owners
    assert workers_commands(heard, owners) == []
    # At most forty a minute; what comes once a minute may come in a short time as well.
    assert 0 < len(heard) <= 8 + seconds * 32 / 60, f"the clerk said {len(heard)} in {seconds} s"
    for name in NAMES:
        site.enqueue("gate", name)
    pids = {one_started(site, name) for name in NAMES}
    assert len(pids) == 8
    site.release(*NAMES)
    site.await_processed(8)
    drain(master, site)


def one_started(site: Site, name: str) -> int:
    """Wait until the job `name` has started, at once; return its worker's pid."""
    wait_until(lambda: site.starts(name) == 1, f"{name} to start", AT_ONCE)
    return site.started(name)


# -- the bell ----------------------------------------------------------------------------------


def test_a_burst_wakes_as_many_workers_as_there_are_jobs(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "8")
    for number in range(5):
        await_rest(master, 8)
        names = [f"{name}{number}" for name in NAMES]
        for name in names:
            site.enqueue("gate", name)
        assert len({one_started(site, name) for name in names}) == 8
        site.release(*names)
    site.await_processed(40)
    drain(master, site)


@pytest.mark.parametrize("announced", [True, False])
def test_jobs_in_a_queue_that_is_new_start_at_once(
    start: Starter, site: Site, *, announced: bool
) -> None:
    master = start(*ANY, "-c", "4")
    for number in range(5):
        await_rest(master, 4)
        queue = f"new {number}"
        if announced:  # the queue is heard of, looked into, and found empty
            site.redis.sadd(KEYS.queues(), queue)
            await_rest(master, 4)
        site.enqueue("gate", queue, queue=queue)
        one_started(site, queue)
        site.release(queue)
    site.await_processed(5)
    drain(master, site)


def test_jobs_start_at_once_after_redis_was_emptied(start: Starter, site: Site) -> None:
    master = start(*ANY, "-c", "4")
    await_rest(master, 4)

    site.redis.flushall()

    for name in NAMES[:4]:
        site.enqueue("gate", name, queue="other")
    assert len({one_started(site, name) for name in NAMES[:4]}) == 4
    site.release(*NAMES[:4])
    site.await_processed(4)
    drain(master, site)


# -- without a bell ----------------------------------------------------------------------------


@patient
def test_where_redis_may_not_tell_one_worker_polls(bench: Bench) -> None:
    site, eavesdropper = bench.site, bench.enter(eavesdropping(bench.server))
    site.redis.acl_setuser(
        "deaf", enabled=True, passwords=["+secret"], keys=["*"], channels=["*"],
        categories=["+@all"], commands=["-client|tracking"],
    )  # fmt: skip
    url = f"redis://deaf:secret@{HOST}:{bench.server.port}"
    master = bench.start(*APP, "-c", "4", "--interval", "0.2", url=url)
    await_rest(master, 4)
    owners = ports(master)
    eavesdropper.hears(0.5)  # what was said until now, too
    talkers = workers_commands(eavesdropper.hears(2.0), owners)
    assert 5 <= len(talkers) <= 40
    assert len({line.split()[0] for line in talkers}) == 1, "only the one on call polls"

    for number in range(2):
        await_rest(master, 4)
        names = [f"{name}{number}" for name in NAMES[:4]]
        for name in names:
            site.enqueue("gate", name)
        assert len({one_started(site, name) for name in names}) == 4
        site.release(*names)
    site.await_processed(8)
    drain(master, site)


# -- the one on call ---------------------------------------------------------------------------


def the_one_on_call(master: Start) -> int:
    """Return it; one that was killed is said to be on call until the master has heard of it."""
    living = wait_until(lambda: [p for p in on_call(master) if not is_gone(p)], "one on call")
    return living[0]


def test_jobs_start_though_the_one_on_call_is_killed_again_and_again(
    start: Starter, site: Site
) -> None:
    master = start(*APP, "-c", "4")
    await_rest(master, 4)

    for number in range(20):
        psutil.Process(the_one_on_call(master)).kill()
        site.enqueue("gate", str(number))
        one_started(site, str(number))
        site.release(str(number))
    site.await_processed(20)

    await_rest(master, 4)
    wait_until(lambda: len(on_call(master)) == 1, "exactly one to be on call", 2.0)
    stays(lambda: len(on_call(master)) == 1, "exactly one is on call", 0.5)
    drain(master, site)


def test_however_many_bursts_there_were_exactly_one_is_on_call(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "8")
    await_rest(master, 8)

    def over(number: int) -> bool:
        master.send_signal(signal.SIGCONT)  # means nothing, but has it look for a baton to give
        return site.count("processed") >= number

    for burst in range(1, 251):
        for name in NAMES:
            site.enqueue("note", name)
        wait_until(lambda burst=burst: over(8 * burst), "the burst to be over", every=0.0005)  # type: ignore[misc]
        await_rest(master, 8)
        wait_until(lambda: len(on_call(master)) == 1, f"one on call after burst {burst}", 2.0)
    drain(master, site)


def test_jobs_start_though_the_one_on_call_dies_in_silence(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "4")
    await_rest(master, 4)

    for number in range(5):
        victim = the_one_on_call(master)
        psutil.Process(victim).kill()
        wait_until(lambda victim=victim: is_gone(victim), "its end")  # type: ignore[misc]
        await_rest(master, 4, timeout=3.0)  # before any job: the master gives the baton
        site.enqueue("gate", str(number))
        one_started(site, str(number))
        site.release(str(number))
    site.await_processed(5)
    drain(master, site)


def test_jobs_start_though_connections_are_cut(
    start: Starter, site: Site, one_server: Server
) -> None:
    master = start(*APP, "-c", "4", url=one_server.tcp_url)
    cuts: tuple[Callable[[int], bool], ...] = (
        lambda pid: pid in on_call(master),
        lambda pid: pid not in on_call(master),
        lambda _: True,
    )
    for number, meant in enumerate(cuts * 3):
        await_rest(master, 4)
        before = phases(master).keys()
        for port, owner in ports(master).items():
            if owner != "clerk" and meant(int(owner)):
                site.redis.client_kill(f"{HOST}:{port}")
        names = [f"{number}{name}" for name in NAMES[:4]]
        for name in names:
            site.enqueue("gate", name)
        assert len({one_started(site, name) for name in names}) == 4
        site.release(*names)
        assert phases(master).keys() == before
    site.await_processed(36)
    drain(master, site)


def test_jobs_start_though_the_one_on_call_is_stopped(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "4")
    await_rest(master, 4)
    stopped = psutil.Process(the_one_on_call(master))

    stopped.suspend()
    # Nobody else hears the bell; the clerk sees the job stand, and the master rings by hand.
    site.enqueue("gate", "a")
    wait_until(lambda: site.starts("a") == 1, "the job to start", 4.0)
    assert site.started("a") != stopped.pid
    for number in ticks(0.1, 0.5):
        site.enqueue("gate", str(number))
    stopped.resume()

    names = ["a", *map(str, range(3))]
    site.release("a", *map(str, range(5)))
    site.await_processed(6)
    assert [site.starts(name) for name in names] == [1] * len(names)
    await_rest(master, 4)
    drain(master, site)

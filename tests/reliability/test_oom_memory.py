"""Redis' memory is full and so are the queues. Workers empty them, whatever becomes of the jobs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import count

import pytest
from redis import Redis

from forkresque.errors import ExitCode, RedisRefused
from forkresque.protocol.connection import Target
from forkresque.queue import Queue
from tests.conftest import Starter
from tests.support.connections import Over
from tests.support.processes import assert_nothing_left
from tests.support.report import Report
from tests.support.servers import Server
from tests.support.site import APP, KEYS, Site
from tests.support.sizes import sized
from tests.support.waiting import wait_until
from tests.support.world import PAST, dump

PADDING = "x" * 1_000
NO_ROOM_AT_ALL = 1


@pytest.fixture
def server() -> Iterator[Server]:
    """Return a server whose memory a test may fill."""
    with Server() as server:
        yield server


@pytest.fixture
def site(server: Server, ledger: Redis) -> Iterator[Site]:
    """Return that server and the ledger, both empty."""
    with closing(server.client()) as client:
        yield Site(client, ledger)


@pytest.fixture
def queue(server: Server) -> Iterator[Queue]:
    """Return a producer's view of that server."""
    with closing(Target(server.url).client()) as client:
        yield Queue(Over(client, KEYS))


def fill(queue: Queue, site: Site, room_bytes: int) -> list[str]:
    """Enqueue until Redis refuses, in a bounded memory; return the jobs that it has taken."""
    site.redis.config_set("maxmemory", site.redis.info("memory")["used_memory"] + room_bytes)
    stored: list[str] = []
    for number in count():
        mark = f"{number} {PADDING}"
        try:
            queue.enqueue("math", "note", [mark])
        except RedisRefused:
            return stored
        stored.append(mark)
    raise AssertionError("never full")


def refused(site: Site, *orders: Callable[[], object]) -> None:
    """Check that each order is refused and leaves no trace."""
    before = dump(site.redis)
    for order in orders:
        with pytest.raises(RedisRefused, match="'maxmemory'"):
            order()
    assert dump(site.redis) == before


@pytest.mark.parametrize("room_bytes", sized(1_000_000, 15_000_000))
def test_full_queues_are_emptied_though_memory_is_full(
    start: Starter, site: Site, server: Server, queue: Queue, report: Report, room_bytes: int
) -> None:
    with ExitStack() as stack:
        stack.callback(site.redis.config_set, "maxmemory", 0)
        site.enqueue("boom", "on purpose")
        site.enqueue("die", "on purpose")
        stored = fill(queue, site, room_bytes)
        assert len(stored) > 100
        assert len(site.waiting()) == len(stored) + 2
        refused(
            site,
            lambda: queue.enqueue("math", "note", [PADDING]),
            lambda: queue.enqueue_at(PAST, "math", "note", [PADDING]),
        )
        # Whatever a job frees is not enough: each must be settled while nothing can be stored.
        site.redis.config_set("maxmemory", NO_ROOM_AT_ALL)

        master = start(*APP, "-c", "2", url=server.url)
        site.await_processed(len(stored), timeout=60.0)
        wait_until(lambda: not site.waiting() and not site.slots(), "the failing jobs' end")
        refused(site, lambda: queue.enqueue("math", "note", ["still full"]))
        assert int(site.redis.info("memory")["used_memory"]) > NO_ROOM_AT_ALL

    assert queue.enqueue("math", "note", ["room again"])
    site.await_processed(len(stored) + 1)
    runs = site.runs()
    deaths = runs.count("on purpose")
    runs = [mark for mark in runs if mark != "on purpose"]
    report.count("jobs", len(stored) + 3)
    report.count("lost", len({*stored, "room again"} - set(runs)))
    report.count("doubled", len(runs) - len(set(runs)))
    assert sorted(runs) == sorted([*stored, "room again"])
    assert [failure["payload"]["class"] for failure in site.failures()] == ["boom", "die"]
    assert site.count("failed") == 2
    assert deaths == 3, "a job that kills its worker is put back twice, and then failed"
    master.stop()
    assert master.process.returncode == ExitCode.OK
    assert_nothing_left(master, site.redis)

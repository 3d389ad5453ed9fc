"""The lead goes from node's scheduler to ours and back, and no delayed job is promoted twice."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis import Redis

from forkresque import Queue, Scheduler
from tests.support.arguments import LISTS, Shape, each
from tests.support.node_client import Node, NodeObject
from tests.support.processes import ROOT
from tests.support.servers import Server, dying_with_runner
from tests.support.waiting import wait_until

LOCK = "resque_scheduler_leader_lock"
TERM = 1  # seconds that a lead lasts whose holder is killed

LONE = f"""
import sys
from forkresque import Scheduler
Scheduler(sys.argv[1], leader_lock_timeout={TERM}, timeout=0.1).run()
"""

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def theirs(node: Node) -> Iterator[NodeObject]:
    """Return a scheduler of node that looks when it is told to."""
    events = ["error", "leader", "transferredJob"]
    scheduler = node.make("Scheduler", {"leaderLockTimeout": 60}, events=events)
    yield scheduler
    scheduler.ask("end")


@contextmanager
def ending(scheduler: Scheduler) -> Iterator[Scheduler]:
    """Have a scheduler of ours, that looks when it is told to, give up its lead in the end."""
    try:
        yield scheduler
    finally:
        scheduler.end()


@pytest.fixture
def ours(one_server: Server) -> Iterator[Scheduler]:
    """Return a scheduler of our own."""
    with ending(Scheduler(one_server.url)) as scheduler:
        yield scheduler


def marks(redis: Redis) -> list[bytes]:
    """Return the jobs that were promoted."""
    found: Any = redis.lrange("resque:queue:math", 0, -1)
    return list(found)


def delay(queue: Queue, node: Node, mark: str, second: int = 10) -> None:
    """Have both sides delay a job."""
    queue.enqueue_at(second, "math", "note", [mark, "of us"])
    node.queue.ask("enqueueAt", second * 1000, "math", "note", [mark, "of node"])


def assert_promoted_once(node: Node, *names: str) -> None:
    """Fail unless each job of these names was promoted once, and none is left."""
    found = [job["args"] for job in node.queue.ask("queued", "math", 0, -1)]
    assert sorted(found) == sorted([name, by] for name in names for by in ("of us", "of node"))
    assert node.queue.ask("timestamps") == []


def leads(scheduler: Scheduler) -> Callable[[], bool]:
    """Return what lets our scheduler look, and tells whether it leads."""

    def look() -> bool:
        scheduler.poll()
        return scheduler.leader

    return look


def node_leads(scheduler: NodeObject) -> bool:
    """Let node's scheduler look, and return whether it leads."""
    scheduler.ask("poll")
    return bool(scheduler.read("leader"))


@each(LISTS)
def test_we_promote_a_job_of_node_with_its_very_bytes(
    shape: Shape, node: Node, ours: Scheduler, one_redis: Redis
) -> None:
    node.queue.evaluate("enqueueAt", f"[10000,{shape.call('math', 'note')[1:]}")

    ours.poll()

    assert marks(one_redis) == [shape.payload("math", "note")]
    assert one_redis.keys("resque:timestamps:*") == one_redis.keys("resque:delayed*") == []


# -- a clean end -----------------------------------------------------------------------------


def test_the_lead_goes_round_by_clean_ends_and_each_job_is_promoted_once(
    node: Node, queue: Queue, one_server: Server
) -> None:
    names = [f"round {number}" for number in range(4)]
    for number, name in enumerate(names):
        delay(queue, node, name)
        if number % 2:
            scheduler = node.make("Scheduler")
            assert node_leads(scheduler)
            assert node.queue.ask("leader") == scheduler.name
            scheduler.ask("end")
        else:
            with ending(Scheduler(one_server.url)) as scheduler_of_ours:
                assert scheduler_of_ours.poll() == 2
                assert node.queue.ask("leader") == scheduler_of_ours.token
        assert node.queue.ask("leader") is None
    assert_promoted_once(node, *names)


def test_who_follows_promotes_nothing(
    node: Node, theirs: NodeObject, ours: Scheduler, queue: Queue, one_redis: Redis
) -> None:
    assert leads(ours)()
    delay(queue, node, "first")
    assert not node_leads(theirs)
    assert marks(one_redis) == []
    ours.poll()
    ours.end()
    assert node_leads(theirs)
    with ending(Scheduler(queue.connection)) as late:
        delay(queue, node, "second")
        assert late.poll() == 0
        assert not late.leader
    assert len(marks(one_redis)) == 2
    theirs.ask("poll")
    assert_promoted_once(node, "first", "second")


# -- a lock that is lost ---------------------------------------------------------------------


def test_we_notice_that_node_has_taken_the_lead(
    node: Node, theirs: NodeObject, ours: Scheduler, queue: Queue, one_redis: Redis
) -> None:
    """As after a lock that ran out while we stood still; here an operator deletes it."""
    assert leads(ours)()
    assert node.queue.ask("delLock", LOCK) == 1
    assert node_leads(theirs)
    delay(queue, node, "only")

    assert ours.poll() == 0
    assert not ours.leader
    assert marks(one_redis) == []
    theirs.ask("poll")
    assert_promoted_once(node, "only")
    assert theirs.heard("error") == []


def test_node_notices_that_we_have_taken_the_lead(
    node: Node, theirs: NodeObject, ours: Scheduler, queue: Queue, one_redis: Redis
) -> None:
    assert node_leads(theirs)
    assert not leads(ours)()
    assert node.queue.ask("delLock", LOCK) == 1
    wait_until(leads(ours), "our lead")
    delay(queue, node, "only")

    assert not node_leads(theirs)
    assert marks(one_redis) == []
    ours.poll()
    assert_promoted_once(node, "only")
    assert theirs.heard("leader") == [[]]


def test_a_lock_of_node_without_an_end_is_given_one(
    node: Node, ours: Scheduler, one_redis: Redis
) -> None:
    """Older ones had none, and the lead stayed with the dead."""
    one_redis.set(f"resque:{LOCK}", "dead:1")

    assert not leads(ours)()
    assert node.queue.ask("leader") == "dead:1"
    assert 170 <= one_redis.ttl(f"resque:{LOCK}") <= 180


# -- a leader that is killed -----------------------------------------------------------------


def test_we_lead_when_the_lock_of_nodes_killed_leader_has_run_out(
    one_server: Server,
    ledger_server: Server,
    node: Node,
    ours: Scheduler,
    queue: Queue,
) -> None:
    with Node(one_server, ledger_server) as victim:
        scheduler = victim.make("Scheduler", {"timeout": 20, "leaderLockTimeout": TERM})
        scheduler.ask("start")
        delay(queue, node, "by the first")
        wait_until(lambda: node.queue.ask("length", "math") == 2, "the first to promote")
        wait_until(lambda: node.queue.ask("timestamps") == [], "it to clean up")
        victim.process.kill()
    delay(queue, node, "by the next")
    assert ours.poll() == 0
    assert node.queue.ask("leader") == scheduler.name

    wait_until(leads(ours), "our lead", 5.0)
    ours.poll()
    assert_promoted_once(node, "by the first", "by the next")


@contextmanager
def lone_scheduler(server: Server) -> Iterator[subprocess.Popen[bytes]]:
    """Run a scheduler of ours in a process of its own."""
    command = dying_with_runner([sys.executable, "-c", LONE, server.url], signal.SIGKILL)
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_node_leads_when_the_lock_of_our_killed_leader_has_run_out(
    one_server: Server, node: Node, theirs: NodeObject, queue: Queue
) -> None:
    with lone_scheduler(one_server) as victim:
        delay(queue, node, "by the first")
        wait_until(lambda: node.queue.ask("length", "math") == 2, "the first to promote")
        victim.kill()
        victim.wait()
    delay(queue, node, "by the next")
    assert not node_leads(theirs)
    assert f":{victim.pid}:" in node.queue.ask("leader")

    wait_until(lambda: node_leads(theirs), "node's lead", 5.0)
    assert_promoted_once(node, "by the first", "by the next")

"""A fleet that Ruby shares: what its tools decide and say, played beside a real `forkresque start`.

The transcripts are of Ruby's Resque 3 and resque-scheduler 5, with their decisions. By default none
of ours is pruned, no worker of Ruby's is touched, no delayed job is promoted twice, and what one
side has written the other can run, pause, requeue and remove.
"""

import signal
import time
from collections.abc import Collection, Iterator
from contextlib import closing
from typing import Any

import psutil
import pytest

from forkresque import Forkresque
from forkresque.protocol.connection import Target
from tests.conftest import Starter
from tests.support import transcripts
from tests.support.processes import title
from tests.support.report import Report
from tests.support.servers import Server
from tests.support.site import APP, KEYS, Site
from tests.support.transcripts import HEARTBEAT, PRUNING, Peer, RubyWorker
from tests.support.waiting import wait_until

NO_PID = 2**22 + 1  # one more than Linux ever gives

pytestmark = pytest.mark.usefixtures("both_sizes")


@pytest.fixture
def ruby(one_server: Server) -> Iterator[Peer]:
    """Return the connection of a foreign tool."""
    with closing(Peer(Target(one_server.url))) as peer:
        yield peer


@pytest.fixture
def app(one_server: Server) -> Iterator[Forkresque]:
    """Return what enqueues and looks, on our side."""
    app = Forkresque(one_server.url)
    with closing(app.queue.store.client):
        yield app


def ours(site: Site) -> list[str]:
    return sorted(member.decode() for member in site.redis.smembers(KEYS.workers()))


def await_workers(site: Site, number: int) -> list[str]:
    wait_until(lambda: site.redis.scard(KEYS.workers()) == number, f"{number} workers")
    return ours(site)


def all_processes() -> Collection[tuple[int, str]]:
    """Return pid and title of every process, as `ps -A -o pid,command` shows them."""
    return [(process.pid, title(process)) for process in psutil.process_iter()]


def leave_dead(site: Site, worker: str, *, beat: str = "") -> None:
    """Leave the records of a worker that died in a job, with its last heartbeat if it had one."""
    site.redis.sadd(KEYS.workers(), worker)
    site.redis.set(
        KEYS.worker(worker),
        transcripts.compact(
            {
                "queue": "math",
                "run_at": "2026-11-24T02:34:34Z",
                "payload": {"class": "note", "args": [worker]},
            }
        ),
    )
    if beat:
        site.redis.hset(HEARTBEAT, worker, beat)


def belongings(site: Site, worker: RubyWorker) -> dict[bytes, Any]:
    """Return all that Redis holds under a Ruby worker's name."""
    keys = sorted(key for key in site.redis.scan_iter() if str(worker).encode() in key)
    found: dict[bytes, Any] = {key: site.redis.get(key) for key in keys}
    found[KEYS.workers()] = site.redis.sismember(KEYS.workers(), str(worker))
    found[HEARTBEAT] = site.redis.hget(HEARTBEAT, str(worker))
    return found


# -- pruning (T-MIX-1, T-MIX-2, T-MIX-10) ----------------------------------------------------


@pytest.mark.parametrize("queues", [("math",), ("*",)])
def test_a_starting_ruby_worker_prunes_the_dead_and_none_of_ours(
    queues: tuple[str, ...], start: Starter, site: Site, ruby: Peer, report: Report
) -> None:
    start(*APP, "-c", "3")
    mine = await_workers(site, 3)
    site.gates("busy")
    host = mine[0].split(":")[0]
    silent, lost = "otherhost:123:py", f"{host}:{NO_PID}:math"
    leave_dead(site, silent, beat="2020-01-01T00:00:00+00:00")
    leave_dead(site, lost)

    pruned = RubyWorker(host, NO_PID + 1, queues).start(ruby, processes=all_processes())

    assert pruned == [silent, lost]  # both rules of Ruby's have fired
    assert set(ours(site)) >= set(mine)
    assert {failure["worker"] for failure in site.failures()} == {silent, lost}
    assert not {member.decode() for member in site.redis.hkeys(HEARTBEAT)} & set(mine)
    site.release("busy")
    site.await_processed(1)
    assert site.runs() == ["busy"]
    report.count("own workers pruned", len(set(pruned) & set(mine)))


def test_a_host_label_keeps_ruby_of_another_pid_namespace_away(
    start: Starter, site: Site, ruby: Peer, report: Report
) -> None:
    start(*APP, "-c", "1")
    [plain] = await_workers(site, 1)
    host = plain.split(":")[0]
    start(*APP, "-c", "1", "--host-label", f"{host}.fr")
    [labelled] = set(await_workers(site, 2)) - {plain}
    site.gates("one", "two")  # both workers are busy

    pruned = RubyWorker(host, NO_PID, ("math",)).prune(ruby, processes=())

    assert pruned == [plain]  # what the label is for: Ruby sees none of these processes
    assert ours(site) == [labelled]
    report.count("own workers pruned", pruned.count(labelled))

    # The one without a label is not lost: it ends its job, comes back, and works on.
    site.release("one", "two")
    site.await_processed(2)
    site.enqueue("note", "after")
    site.enqueue("note", "after that")
    site.await_processed(4)
    await_workers(site, 2)
    assert ours(site) == sorted([plain, labelled])
    assert [failure["exception"] for failure in site.failures()] == ["Resque::DirtyExit"]
    assert sorted(site.runs()) == ["after", "after that", "one", "two"]


def test_our_recovery_touches_no_ruby_worker(
    start: Starter, site: Site, ruby: Peer, report: Report
) -> None:
    first = start(*APP, "-c", "2")
    mine = await_workers(site, 2)
    site.gates("held")
    host = mine[0].split(":")[0]
    colleagues = [
        RubyWorker(host, NO_PID, ("math",)),
        RubyWorker(host, NO_PID + 1, ("slow",)),
        RubyWorker("otherhost", 7, ("*", "slow")),
    ]
    alive = [(colleague.pid, "resque-3.0.0: Waiting for math") for colleague in colleagues]
    for colleague in colleagues:
        site.redis.delete(PRUNING)
        assert colleague.start(ruby, processes=[*all_processes(), *alive]) == []
        site.enqueue("Slow", str(colleague), queue="slow")
        assert bool(colleague.reserve(ruby)) == ("slow" in colleague.queues)
    for colleague in colleagues:
        site.redis.hset(HEARTBEAT, str(colleague), "2020-01-01T00:00:00+00:00")
    before = [belongings(site, colleague) for colleague in colleagues]

    kill_all(first)
    start(*APP, "-c", "2")
    wait_until(lambda: site.starts("held") == 2, "our job to be brought back")
    wait_until(lambda: not set(mine) & set(ours(site)), "our dead to be forgotten")

    touched = [
        one for one, was in zip(colleagues, before, strict=True) if belongings(site, one) != was
    ]
    report.count("foreign workers touched", len(touched))
    assert touched == []
    assert site.failures() == []
    site.release("held")
    site.await_processed(1)


def kill_all(master: Any) -> None:
    """Kill a master and all that belongs to it, as a host that loses its power does."""
    left = master.left()
    for process in left:
        process.send_signal(signal.SIGSTOP)
    for process in left:
        process.kill()
    master.process.wait()


# -- promotion, pause, payloads, failures (T-MIX-6 to T-MIX-9) -------------------------------


@pytest.mark.parametrize("redis_rb", [4, 5])
def test_ruby_and_our_scheduler_promote_each_delayed_job_once(
    redis_rb: int, start: Starter, site: Site, ruby: Peer, report: Report
) -> None:
    """Both want the lead, and it changes hands; whoever has not got it moves nothing."""
    due = int(time.time()) - 10
    first = start(*APP, "-c", "2")
    wait_until(lambda: site.redis.exists(KEYS.ruby_master()), "our lead")
    for number in range(20):
        transcripts.ruby_delay(ruby, due + number % 3, "math", "note", f"early {number}")
        moved = transcripts.ruby_promote(ruby, "rubyhost:1", now=due + 3, redis_rb=redis_rb)
        assert moved == 0, "Ruby promoted while we lead"
    site.await_processed(20)
    first.stop()

    assert transcripts.ruby_is_master(ruby, "rubyhost:1")
    start(*APP, "-c", "2")
    wait_until(lambda: site.redis.exists(KEYS.leader()), "our scheduler, which is blocked")
    for number in range(20):
        transcripts.ruby_delay(ruby, due + number % 3, "math", "note", f"late {number}")
    moved = transcripts.ruby_promote(ruby, "rubyhost:1", now=due + 3, redis_rb=redis_rb)
    assert moved == 20, "we promoted while Ruby leads"
    site.await_processed(40)

    marks = [f"{when} {number}" for when in ("early", "late") for number in range(20)]
    assert sorted(site.runs()) == sorted(marks)
    assert site.redis.zcard(KEYS.schedule()) == 0
    report.count("double promotions", len(site.runs()) - len(set(site.runs())))


def test_our_pause_holds_rubys_workers_too(site: Site, ruby: Peer, app: Forkresque) -> None:
    colleague = RubyWorker("rubyhost", 7, ("slow",))
    raw = site.enqueue("Slow", 1, queue="slow")

    app.queue.store.pause_all()
    assert colleague.reserve(ruby) is None
    assert site.waiting("slow") == [raw]

    app.queue.store.resume_all()
    assert colleague.reserve(ruby) == raw


@pytest.mark.parametrize(
    ("payload", "ran"),
    [
        (b'{"args":["turned"],"class":"note"}', b"turned"),
        (b'{"class":"note","queue":"another","args":["elsewhere"]}', b"elsewhere"),
        (b' { "class" : "note" , "args" : [ "spaced" ] } ', b"spaced"),
        (b'{"class":"boom","class":"note","args":["last one wins"]}', b"last one wins"),
    ],
)
def test_whatever_shape_a_producer_gives_a_job_it_runs(
    payload: bytes, ran: bytes, start: Starter, site: Site
) -> None:
    site.redis.rpush(KEYS.queue("math"), payload)
    start(*APP, "-c", "1")

    site.await_processed(1)

    assert site.ledger.lrange("runs", 0, -1) == [ran]


def test_a_job_of_ours_is_one_of_rubys(site: Site, ruby: Peer, app: Forkresque) -> None:
    colleague = RubyWorker("rubyhost", 7, ("math",))
    app.queue.enqueue("math", "note", ["now"])
    app.queue.enqueue_at(time.time() - 5, "math", "note", ["later"])

    now = colleague.reserve(ruby)
    assert transcripts.ruby_promote(ruby, "rubyhost:1", now=int(time.time()), redis_rb=5) == 1
    later = colleague.reserve(ruby)

    assert now == b'{"class":"note","queue":"math","args":["now"]}'
    assert later == b'{"class":"note","args":["later"]}'
    assert [key for key in site.redis.scan_iter() if b":timestamps:" in key] == []


def test_a_failure_of_ours_is_requeued_and_removed_by_its_place(
    start: Starter, site: Site, ruby: Peer, app: Forkresque
) -> None:
    raws = [site.enqueue("boom", mark) for mark in ("one", "two")]
    start(*APP, "-c", "1")
    wait_until(lambda: len(site.failures()) == 2, "two failures")
    before = app.queue.failed()

    transcripts.ruby_requeue(ruby, 1)

    wait_until(lambda: len(site.failures()) == 3, "the second failure of the second")
    first, marked, again = app.queue.failed()
    assert [failure.payload for failure in (first, marked)] == raws
    assert (again.name, again.args) == ("boom", ["two"])
    assert first.raw_entry == before[0].raw_entry
    assert not app.queue.retry_failed(before[1])  # Ruby has marked it: these bytes are gone
    assert site.waiting() == []

    transcripts.ruby_remove_failure(ruby, 1)

    assert [failure.raw_entry for failure in app.queue.failed()] == [
        first.raw_entry,
        again.raw_entry,
    ]
    assert app.queue.retry_failed(again)
    wait_until(lambda: site.count("failed") == 4, "its third failure")
    assert len(site.failures()) == 2

"""What it costs to replace a worker: questions to Redis, and words between processes."""

import os
import signal
from contextlib import closing

from redis import Redis

from forkresque.protocol.connection import Target
from tests.conftest import Starter
from tests.processes.test_recycling import backlog, most_at_once, performed
from tests.support.processes import Start, assert_nothing_left
from tests.support.servers import Server
from tests.support.site import APP, Site, await_rest, phases, stays
from tests.support.waiting import wait_until

JOBS = 30


def calls(redis: Redis) -> dict[str, int]:
    told = redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in told.items()}


def asked_for(start: Starter, site: Site) -> tuple[Start, dict[str, float]]:
    """Have each of some jobs done by a process of its own; return the commands for one of them."""
    master = start(*APP, "-c", "1", "--max-jobs", "1")
    await_rest(master, 1)
    before = calls(site.redis)
    backlog(site, JOBS, 0)  # all at once: a worker that finds nothing asks more
    site.await_processed(JOBS)
    await_rest(master, 1)
    after = calls(site.redis)
    return master, {name: (each - before.get(name, 0)) / JOBS for name, each in after.items()}


def test_a_process_for_one_job_asks_redis_five_times(start: Starter, site: Site) -> None:
    """It greets, registers, claims, settles and unregisters; nobody asks anything else for it."""
    master, each = asked_for(start, site)

    # The last one waits for a job that does not come, which takes some questions of its own.
    assert 4.0 <= each["evalsha"] < 5.0
    assert 1.0 <= each["hello"] < 1.5
    for rare in ("time", "client|tracking", "client|caching"):
        assert each.get(rare, 0.0) <= 0.5, rare

    master.send_signal(signal.SIGTERM)
    master.wait(5)
    assert_nothing_left(master, site.redis)


def test_the_clerk_has_nothing_to_do_when_a_worker_leaves_in_good_order(
    start: Starter, site: Site
) -> None:
    master, each = asked_for(start, site)

    assert each.get("hkeys", 0.0) == 0.0  # what it looks at first, of the dead
    assert "no job in hand" not in master.log()


def test_a_prepared_connection_is_given_away_once(one_server: Server) -> None:
    target = Target(one_server.url)
    target.prepare()
    target.prepare()

    prepared, other = target.connection(), target.connection()

    assert prepared is not other
    assert prepared.pid == os.getpid()
    with closing(target.link()) as link:
        assert link.command("PING")


def test_a_successor_is_born_while_the_only_job_runs_and_waits_for_its_end(
    start: Starter, site: Site
) -> None:
    master = start(*APP, "-c", "1", "--max-jobs", "1")
    first = site.gates("a")[0]
    (second,) = wait_until(
        lambda: [pid for pid, phase in phases(master).items() if pid != first and phase == "held"],
        "a successor that has booted",
    )

    site.enqueue("gate", "b")
    stays(lambda: site.starts("b") == 0, "one job at a time", 0.3)
    site.release("a")

    assert site.started("b") == second
    site.release("b")
    site.await_processed(2)
    assert "is replaced" not in master.log(), "what happens for each job is no news"


def test_each_of_many_jobs_has_a_process_of_its_own_and_no_more_than_two_run_at_once(
    start: Starter, site: Site
) -> None:
    start(*APP, "-c", "2", "--max-jobs", "1")
    marks = backlog(site, 30, 0.01)

    site.await_processed(30)

    assert sorted(len(each) for each in performed(site).values()) == [1] * 30
    assert sorted(mark for each in performed(site).values() for mark in each) == sorted(marks)
    assert most_at_once(site) <= 2

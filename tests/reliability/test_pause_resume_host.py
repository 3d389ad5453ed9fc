"""Hosts that stand still for longer than their lease, and leases that vanish under the living.

Who has slept through its lease has lost its jobs, notices within a second where it must, and
does no harm. When leases vanish though their hosts live, nobody is taken for dead.
"""

import time
from typing import Any

import psutil
import pytest
from redis import Redis

from tests.support.hosts import (
    HostStart,
    Network,
    Run,
    assert_accounted_once,
    await_runs,
    await_workers,
    drain,
    hand_out,
    network_of,
    release,
    runs_of,
)
from tests.support.patience import Bench, looking_back
from tests.support.report import Report
from tests.support.servers import Server
from tests.support.site import KEYS, stays
from tests.support.sizes import sized
from tests.support.waiting import wait_until

LEASE = 6.0
RENEWAL = LEASE / 6
FRESH_MS = 1000 * (LEASE - RENEWAL / 10)  # of a lease that was renewed just now
BOUND = 10.0  # seconds until the jobs of a host that stands still run elsewhere
SLACK = 15.0  # seconds more than the bound that the story waits before it gives up
OVERLAP = 1.0  # seconds for which a host that must stop may go on after it woke
JOBS = {"easy": ["easy job"], "strict": ["strict job"]}
RERUN = {name: host for host, names in JOBS.items() for name in names}
MORE = {name: [f"{name} more"] for name in JOBS}  # begun after they woke


class Story:
    """Two hosts stand still and wake again; what is noted down is for the tests."""

    def __init__(self, network: Network, report: Report) -> None:
        self.report = report
        self.site = network.site
        policies = {"easy": "continue", "strict": "stop"}
        self.sleepers = {
            name: network.host(name).start("--on-partition", policy, lease=LEASE)
            for name, policy in policies.items()
        }
        self.heir = network.host("heir").start(lease=LEASE, queues="heir,easy,strict", workers=3)
        await_workers(dict.fromkeys(self.sleepers.values(), 2) | {self.heir: 3})
        self.raws = hand_out(self.site, self.heir, JOBS)

    def sleep(self, seconds: float) -> None:
        """Stop all processes of both hosts, for at least so long, until all jobs run again."""
        self.slept_at = time.monotonic()
        for start in self.sleepers.values():
            start.freeze()
        self.all_slept_at = time.monotonic()
        again = await_runs(self.site, 2, *RERUN, timeout=BOUND + SLACK)
        self.times = [run.began - self.slept_at for run in again]
        left = max(0.0, self.slept_at + seconds - time.monotonic())
        stays(self.is_asleep, "nobody breathes", left)

    def is_asleep(self) -> bool:
        """Return whether no run of a sleeper has breathed since it was stopped."""
        return all(runs_of(self.site, name)[0].ended < self.all_slept_at for name in RERUN)

    def wake(self) -> None:
        """Let both go on, wait until the strict one has stopped, and let the easy one finish."""
        self.woke_at = time.monotonic()
        wake_by_its_clerk(self.sleepers["strict"], self.site.redis)
        self.sleepers["easy"].thaw()
        await_late_say(self.sleepers["strict"])
        stays(lambda: self.site.count("processed") == 0, "nothing is settled", 0.5)
        release(self.site, "easy job", host="easy")
        await_late_say(self.sleepers["easy"])
        self.processed_after_late_say = self.site.count("processed")
        release(self.site, *RERUN)
        self.site.await_processed(len(self.raws))

    def lose_leases(self, times: int) -> None:
        """Give each host another job; meanwhile all leases vanish, again and again."""
        self.raws |= hand_out(self.site, self.heir, MORE)
        for _ in range(times):
            lose_leases_once(self.site.redis)
        release(self.site, *(name for names in MORE.values() for name in names))
        self.site.await_processed(len(self.raws))
        drain(self.site, self.heir, *self.sleepers.values())

    def runs(self, name: str) -> list[Run]:
        """Return the runs of one job."""
        return runs_of(self.site, name)


def leases(redis: Any) -> list[bytes]:
    """Return the keys of all leases."""
    return list(redis.scan_iter(match=KEYS.lease("") + b"*", count=1000))


def lose_leases_once(redis: Any) -> None:
    """Delete every lease as soon as it was renewed, so that it is away for as long as can be.

    Returns when all have been back for longer than it takes everybody to see them.
    """
    before = leases(redis)
    for key in before:
        wait_until(lambda key=key: redis.pttl(key) > FRESH_MS, "its renewal", LEASE, 0.002)  # type: ignore[misc]
        assert redis.delete(key) == 1
    wait_until(lambda: set(leases(redis)) == set(before), "the leases to be back", LEASE)
    stays(lambda: set(leases(redis)) == set(before), "everybody has a lease", 1.5 * RENEWAL)


def wake_by_its_clerk(start: HostStart, redis: Any) -> None:
    """Have a host's clerk renew the lease before any other process wakes, the master above all."""
    assert {one.status() for one in start.inmates()} == {psutil.STATUS_STOPPED}
    before, (clerk,) = set(leases(redis)), start.children("clerk")
    clerk.resume()
    wait_until(lambda: set(leases(redis)) > before, "its lease to be back", LEASE, 0.001)
    for process in start.inmates():
        process.resume()


def await_late_say(start: HostStart) -> None:
    """Wait until a host was told that its job is not its own any more."""
    told = "its job was recovered by others meanwhile"
    wait_until(lambda: told in start.log(), "the late say", 5.0)


def tell(bench: Bench, size: tuple[float, int]) -> Story:
    """Tell the story: how long they sleep, at least, and how often all leases vanish."""
    seconds, times = size
    network = network_of(bench)
    story = Story(network, bench.report)
    story.sleep(seconds)
    story.wake()
    story.lose_leases(times)
    return story


of_the_story = looking_back(tell, sized((0.0, 2), (LEASE + 20.0, 8), timeout=180.0))


@of_the_story
def test_jobs_of_a_host_that_stands_still_run_once_more_elsewhere(story: Story) -> None:
    for name, host in RERUN.items():
        assert [run.host for run in story.runs(name)] == [host, "heir"]
    story.report.time("host stopped to recovered, lease 6", story.times)
    story.report.count("hosts stopped and woken", len(RERUN))
    story.report.count("re-runs", len(RERUN))


@of_the_story
def test_a_host_that_must_stop_does_so_as_soon_as_it_wakes(story: Story) -> None:
    overlap = story.runs("strict job")[0].ended - story.woke_at
    story.report.time("overlap after waking", max(0.0, overlap))
    assert overlap < OVERLAP


@of_the_story
def test_what_a_host_settles_after_it_woke_changes_nothing(story: Story) -> None:
    assert story.runs("easy job")[0].ended > story.woke_at, "it went on"
    assert story.processed_after_late_say == 0


@of_the_story
def test_hosts_that_are_awake_work_on_though_all_leases_vanish(story: Story) -> None:
    for host, names in MORE.items():
        assert [[run.host for run in story.runs(name)] for name in names] == [[host]]


@of_the_story
def test_every_job_of_hosts_that_stood_still_is_accounted_once(story: Story) -> None:
    assert_accounted_once(story.site, story.raws, RERUN)
    story.report.count("jobs", len(story.raws))
    for row in ("lost", "doubled", "false recoveries"):
        story.report.count(row, 0)


@pytest.mark.full
@pytest.mark.timeout(90)
def test_nobody_is_dead_because_redis_was(
    ledger: Redis, ledger_server: Server, report: Report
) -> None:
    with Network(ledger, ledger_server.url, appendonly="always") as network:
        site = network.site
        starts = {name: network.host(name).start(lease=LEASE) for name in "abc"}
        await_workers(dict.fromkeys(starts.values(), 2))
        raws = {name: site.enqueue("breathe", name, queue=name) for name in starts}
        await_runs(site, 1, *raws)
        stays(lambda: leases(site.redis), "all hosts reach Redis", LEASE + 1.0)

        network.server.kill()
        killed_at = time.monotonic()
        longer = 1.5 * LEASE
        wait_until(lambda: time.monotonic() > killed_at + longer, "all leases to end", 2 * longer)
        network.server.restart()
        wait_until(lambda: len(leases(site.redis)) == len(starts), "new leases", LEASE)
        stays(lambda: site.slots() == len(raws), "all have their jobs", 1.5 * LEASE)

        assert [len(runs_of(site, name)) for name in raws] == [1] * len(raws)
        release(site, *raws)
        site.await_processed(len(raws))
        assert_accounted_once(site, raws, {})
        drain(site, *starts.values())
    report.count("kills of Redis")
    report.count("jobs", len(raws))
    for row in ("lost", "doubled", "false recoveries"):
        report.count(row, 0)

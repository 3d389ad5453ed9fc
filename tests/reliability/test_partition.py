"""A host loses touch with Redis, briefly or for longer than its lease, both ways or one.

One story that the tests look back on: a short cut first, then the long ones all at once, to hosts
beside one another. A short cut costs nothing. After a long one the jobs run again elsewhere, and
what their old owner says of them later changes nothing.
"""

import time

from forkresque.protocol.script import load
from tests.support.hosts import (
    Network,
    Run,
    assert_accounted_once,
    audited,
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
from tests.support.site import KEYS
from tests.support.sizes import sized
from tests.support.waiting import wait_until

SHORT_LEASE, LEASE = 6.0, 30.0
BOUND = {SHORT_LEASE: 10.0, LEASE: 40.0}  # seconds until the jobs of a cut-off host run elsewhere
SHORT_CUT = {SHORT_LEASE: 1.0, LEASE: 5.0}  # seconds at least, and until the job has ended
LONG_CUT = {SHORT_LEASE: 0.0, LEASE: 60.0}  # seconds at least, and until all jobs run again
SLACK = 15.0  # seconds more than the bound that the story waits before it gives up

# Each host's jobs. What is called "end" ends while its host is out of touch; the others go on.
JOBS = {
    "short": ["short job", "short end"],
    "long": ["long job", "long end"],
    "strict": ["strict job", "strict end", "strict stubborn"],
    "mute": ["mute job", "mute end"],
    "deaf": ["deaf job", "deaf end"],
}
UNHARMED = ["short job", "short end", "deaf end"]  # the last one's settle arrives, not its answer
RERUN = {name: host for host, names in JOBS.items() for name in names if name not in UNHARMED}
LATE = {"short": 0, "long": 2, "strict": 2, "mute": 2, "deaf": 1}  # settles that come too late
WORKERS = {host: len(names) for host, names in JOBS.items()} | {"heir": len(RERUN)}


class Story:
    """What happens, told once; what is noted down is for the tests."""

    def __init__(self, network: Network, lease: float, report: Report) -> None:
        self.lease = lease
        self.report = report
        self.site = network.site
        self.hosts = {name: network.host(name) for name in JOBS}
        self.starts = {
            name: host.start(
                "--on-partition",
                "stop" if name == "strict" else "continue",
                lease=lease,
                workers=WORKERS[name],
            )
            for name, host in self.hosts.items()
        }
        self.heir = network.host("heir").start(
            lease=lease, workers=WORKERS["heir"], queues=",".join(JOBS)
        )
        await_workers({one: WORKERS[name] for name, one in self.starts.items()})
        await_workers({self.heir: WORKERS["heir"]})
        for name in ("done", "settle"):  # or the first would be asked for it
            self.site.redis.script_load(load(name).source)
        self.raws = hand_out(self.site, self.heir, JOBS)

    def cut_shortly(self) -> None:
        """Cut one off, end a job of it, and heal the cut before its lease is over."""
        cut_at = time.monotonic()
        self.hosts["short"].cut()
        self.end_a_job("short")
        await_moment(cut_at + SHORT_CUT[self.lease])
        assert audited(self.site) == []
        self.hosts["short"].heal()
        self.site.await_processed(1)
        release(self.site, "short job")
        self.site.await_processed(2)

    def lose_touch(self) -> None:
        """Cut the others, end a job of each, and see that only the deaf host's word arrives."""
        self.cut_at = time.monotonic()
        for name in ("long", "strict"):
            self.hosts[name].cut()
        self.hosts["mute"].mute()
        self.hosts["deaf"].deafen()
        for name in ("long", "strict", "mute", "deaf"):
            self.end_a_job(name)
        before = self.hosts["mute"].received()
        self.site.redis.sadd(KEYS.queues(), "news")  # of which Redis tells every clerk
        wait_until(lambda: self.hosts["mute"].received() > before, "the mute host to hear")
        self.site.await_processed(len(UNHARMED))
        assert self.starts["deaf"].phases().count("settle") == 1
        told = [(one.event, one.host) for one in audited(self.site)]
        assert told == [("DONE", "short")] * 2 + [("DONE", "deaf")]

    def end_a_job(self, name: str) -> None:
        """End a job of a host that is cut off, and wait until its worker tries to tell."""
        release(self.site, f"{name} end", host=name)
        wait_until(lambda: "settle" in self.starts[name].phases(), "a worker to settle")

    def await_heir(self) -> None:
        """Wait until the heir has all jobs of those who are cut off, and longer if so wanted."""
        again = await_runs(self.site, 2, *RERUN, timeout=BOUND[self.lease] + SLACK)
        self.times = [run.began - self.cut_at for run in again]
        await_moment(self.cut_at + LONG_CUT[self.lease])

    def heal(self) -> None:
        """Heal all, and let the old owners have their late say."""
        for name, host in self.hosts.items():
            host.heal()
            release(self.site, *JOBS[name], host=name)
        wait_until(lambda: {name: self.late(name) for name in JOBS} == LATE, "their late say")
        self.processed_after_late_say = self.site.count("processed")
        self.in_hand_after_late_say = self.site.slots()

    def work_on(self) -> None:
        """Let the heir finish, and give each host another job."""
        release(self.site, *RERUN)
        self.site.await_processed(len(self.raws))
        more = {name: [f"{name} more"] for name in JOBS}
        self.raws |= hand_out(self.site, self.heir, more)
        release(self.site, *(f"{name} more" for name in JOBS))
        self.site.await_processed(len(self.raws))
        drain(self.site, self.heir, *self.starts.values())

    def late(self, name: str) -> int:
        """Return how often a host was told that its job is not its own any more."""
        return self.starts[name].log().count("its job was recovered by others meanwhile")

    def runs(self, name: str) -> list[Run]:
        """Return the runs of one job."""
        return runs_of(self.site, name)


def await_moment(moment: float) -> None:
    """Wait until a moment of the monotonic clock."""
    left = max(0.0, moment - time.monotonic())
    wait_until(lambda: time.monotonic() >= moment, "the moment", left + 5.0)


def tell(bench: Bench, size: float) -> Story:
    """Tell the story with leases of so many seconds."""
    network = network_of(bench)
    story = Story(network, size, bench.report)
    story.cut_shortly()
    story.lose_touch()
    story.await_heir()
    story.heal()
    story.work_on()
    return story


of_the_story = looking_back(tell, sized(SHORT_LEASE, LEASE, timeout=150.0))


@of_the_story
def test_a_short_cut_recovers_nothing(story: Story) -> None:
    assert [[run.host for run in story.runs(name)] for name in JOBS["short"]] == [["short"]] * 2
    assert story.late("short") == 0


@of_the_story
def test_jobs_of_a_host_that_is_cut_off_run_once_more_elsewhere(story: Story) -> None:
    for name, host in RERUN.items():
        assert [run.host for run in story.runs(name)] == [host, "heir"]
    if story.lease == LEASE:
        assert max(story.times) <= BOUND[LEASE]
    lease = "" if story.lease == LEASE else f", lease {story.lease:.0f}"
    story.report.time(f"host cut off to recovered{lease}", story.times)
    story.report.count("re-runs", len(RERUN))


@of_the_story
def test_what_the_old_owner_settles_later_changes_nothing(story: Story) -> None:
    assert story.processed_after_late_say == len(UNHARMED)
    assert story.in_hand_after_late_say == len(RERUN)


@of_the_story
def test_a_settle_whose_answer_went_astray_counts_once(story: Story) -> None:
    assert [run.host for run in story.runs("deaf end")] == ["deaf"]


@of_the_story
def test_a_host_that_must_stop_has_stopped_before_others_begin(story: Story) -> None:
    for name in JOBS["strict"]:
        first, second = story.runs(name)
        assert first.ended < second.began
        story.report.time("stopped before others begin", second.began - first.ended)
    first, second = story.runs("long job")
    assert first.ended > second.began, "a host that may continue does so"


@of_the_story
def test_nobody_but_a_job_that_does_not_obey_is_killed(story: Story) -> None:
    ended = [line for start in story.starts.values() for line in start.log().splitlines()]
    ended = [line for line in ended if " ended " in line]
    assert len(ended) == 1, ended
    assert "worker" in ended[0]


@of_the_story
def test_every_job_of_the_cut_hosts_is_accounted_once(story: Story) -> None:
    assert_accounted_once(story.site, story.raws, RERUN)
    story.report.count("links cut", len(JOBS))
    story.report.count("jobs", len(story.raws))
    for row in ("lost", "doubled", "false recoveries"):
        story.report.count(row, 0)


@of_the_story
def test_hosts_work_on_when_the_link_is_back(story: Story) -> None:
    for name in JOBS:
        assert [run.host for run in story.runs(f"{name} more")] == [name]

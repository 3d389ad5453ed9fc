"""A pause, by signal or by Ruby's key, stops claims at once and nothing else.

Jobs stream through while it begins, and each tells the monotonic moment at which it started: a
claim can only be earlier. What runs goes on, whoever is born during a pause claims nothing, and
at its end the jobs go on exactly where they were.
"""

import random
import signal
import time
from collections import Counter

import psutil
import pytest

from forkresque.protocol.payload import encode_job
from tests.conftest import Starter
from tests.support.processes import Start
from tests.support.report import Report
from tests.support.site import APP, KEYS, Site, idle_workers, is_gone, state, stays, ticks
from tests.support.sizes import sized
from tests.support.waiting import wait_until

LIMIT = 0.1  # seconds from the signal to the last claim, as promised
QUIET = 0.15  # seconds for which nothing may start after that
PAUSES = (signal.SIGUSR1, signal.SIGUSR2)
JOBS = 1_000  # of one round; more than run until the pause


class Stream:
    """Jobs that tell when they started, in the order in which they were put in."""

    def __init__(self, site: Site) -> None:
        self.enqueued: list[str] = []
        self._site = site

    def add(self, number: int) -> None:
        """Put so many jobs in, in one instant."""
        marks = [str(len(self.enqueued) + count) for count in range(number)]
        jobs = [encode_job("math", "stamp", [mark, 0]) for mark in marks]
        self._site.redis.rpush(KEYS.queue("math"), *jobs)
        self.enqueued += marks

    def starts(self) -> list[float]:
        """Return when jobs started, in seconds of the monotonic clock."""
        return sorted(int(stamp) / 1e9 for stamp in self._site.ledger.lrange("latencies", 0, -1))

    def started(self) -> int:
        return int(self._site.ledger.llen("latencies"))

    def await_flow(self, chance: random.Random) -> None:
        """Return at a random moment at which jobs stream through."""
        self.await_more_than(self.started())
        await_moment(time.monotonic() + chance.uniform(0.0, 0.03))

    def await_more_than(self, number: int) -> None:
        wait_until(lambda: self.started() > number, "jobs to stream", every=0.001)

    def rest(self, number: int) -> None:
        """Check that no job starts for a while after so many."""
        stays(lambda: self.started() == number, f"{number} have started, and no more", QUIET)

    def judge(self, report: Report) -> None:
        """Wait for the last job, and check that each ran once."""
        self._site.await_processed(len(self.enqueued), 20.0)
        runs = Counter(self._site.runs())
        report.count("jobs", len(self.enqueued))
        report.count("lost", len(set(self.enqueued) - set(runs)))
        report.count("re-runs", runs.total() - len(runs))
        assert runs == Counter(self.enqueued)
        assert self._site.count("failed") == 0


def await_moment(moment: float) -> None:
    wait_until(lambda: time.monotonic() >= moment, "the moment", every=0.001)


def await_pause(master: Start) -> None:
    wait_until(lambda: state(master)["paused"], "the pause to be known", every=0.001)


def pause(master: Start, signum: signal.Signals = signal.SIGUSR1) -> float:
    """Send a pause signal, and return when."""
    asked_at = time.monotonic()
    master.send_signal(signum)
    return asked_at


def resume(master: Start) -> float:
    asked_at = time.monotonic()
    master.send_signal(signal.SIGCONT)
    return asked_at


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("rounds", sized(2, 20))
def test_no_claim_begins_after_a_pause_in_a_stream_of_jobs(
    start: Starter, site: Site, report: Report, *, rounds: int, workers: int, seed: int
) -> None:
    report.seed("test_no_claim_begins_after_a_pause_in_a_stream_of_jobs", seed)
    chance, stream = random.Random(seed), Stream(site)
    master = start(*APP, "-c", str(workers))
    idle_workers(master, workers)

    for _ in range(rounds):
        stream.add(JOBS)
        stream.await_flow(chance)
        asked_at = pause(master, chance.choice(PAUSES))
        await_moment(asked_at + LIMIT)
        in_time = stream.started()
        stream.rest(in_time)

        starts = stream.starts()
        assert any(asked_at - LIMIT < at <= asked_at for at in starts), "it was no stream"
        assert starts[-1] <= asked_at + LIMIT
        assert (site.slots(), bool(site.waiting())) == (0, True)
        report.time("pause to last claim", max(0.0, starts[-1] - asked_at))
        resumed_at = resume(master)
        stream.await_more_than(in_time)
        report.time("resume to first claim", max(0.0, stream.starts()[in_time] - resumed_at))

    stream.judge(report)
    assert workers > 1 or site.runs() == stream.enqueued, "the order is another one"


@pytest.mark.parametrize("seed", [2])
@pytest.mark.parametrize("signals", sized(30, 1_000))
def test_any_mix_of_pauses_and_resumes_ends_as_the_last_one_says(
    start: Starter, site: Site, report: Report, *, signals: int, seed: int
) -> None:
    report.seed("test_any_mix_of_pauses_and_resumes_ends_as_the_last_one_says", seed)
    chance, stream = random.Random(seed), Stream(site)
    master = start(*APP, "-c", "3")
    idle_workers(master, 3)
    for _ in ticks(0.01, signals * 0.01):
        stream.add(10)
        master.send_signal(chance.choice((*PAUSES, signal.SIGCONT)))

    stream.add(JOBS)
    resume(master)
    stream.await_flow(chance)
    asked_at = pause(master)
    await_pause(master)
    stays(lambda: site.waiting(), "jobs wait", QUIET)
    assert stream.starts()[-1] <= asked_at + LIMIT
    assert 0 < master.log().count("paused") <= signals + 1

    resume(master)
    stream.judge(report)


@pytest.mark.parametrize("rounds", sized(1, 20))
def test_what_is_recovered_in_a_pause_waits_and_whoever_is_new_claims_nothing(
    start: Starter, site: Site, report: Report, rounds: int
) -> None:
    stream = Stream(site)
    master = start(*APP, "-c", "2")
    for number in range(1, rounds + 1):
        lose_workers_in_a_pause(master, site, stream, number)
        report.count("kills of workers")
        report.count("kills of clerks")
    gates = [f"{what} {number + 1}" for what in ("kept", "lost") for number in range(rounds)]
    assert sorted(site.runs()) == sorted(stream.enqueued + gates)


def lose_workers_in_a_pause(master: Start, site: Site, stream: Stream, number: int) -> None:
    """Pause, kill the clerk and one of two workers with a job in hand, and resume."""
    kept, lost = f"kept {number}", f"lost {number}"
    keeper, victim = site.gates(kept, lost)
    stream.add(20)
    behind = site.waiting()
    pause(master)
    await_pause(master)

    (clerk,) = wait_until(lambda: master.children("clerk"), "a clerk")
    for process in (psutil.Process(victim), clerk):
        process.kill()
    # The lost job comes back to the head, by the new clerk, and stands there for nobody.
    wait_until(lambda: len(site.waiting()) == len(behind) + 1, "the recovery")
    wait_until(lambda: is_gone(victim), "the victim's end")
    site.release(kept)
    idle_workers(master, 2)
    stays(lambda: site.waiting()[1:] == behind, "all jobs wait", QUIET)
    assert site.starts(kept) == site.starts(lost) == 1
    assert site.runs().count(kept) == 1, "what ran was left to run"
    assert not is_gone(keeper)

    resume(master)
    assert site.started(lost, times=2) != victim
    site.release(lost)
    site.await_processed(number * 22)


# -- Ruby's key ----------------------------------------------------------------------------------


def set_pause_key(site: Site, word: str) -> int:
    """Set Ruby's key, and return how many jobs waited at that very instant."""
    with site.redis.pipeline(transaction=True) as pipe:
        pipe.set(KEYS.pause_all(), word)
        pipe.llen(KEYS.queue("math"))
        return int(pipe.execute()[-1])


@pytest.mark.parametrize("seed", [3])
@pytest.mark.parametrize("rounds", sized(2, 20))
def test_after_rubys_pause_key_is_set_not_one_job_is_claimed(
    start: Starter, site: Site, report: Report, *, rounds: int, seed: int
) -> None:
    report.seed("test_after_rubys_pause_key_is_set_not_one_job_is_claimed", seed)
    chance, stream = random.Random(seed), Stream(site)
    master = start(*APP, "-c", "3")
    for _ in range(rounds):
        stream.add(JOBS)
        stream.await_flow(chance)
        waited = set_pause_key(site, chance.choice(("true", "TRUE", " True ")))
        assert waited > 0
        wait_until(lambda: site.slots() == 0, "the jobs in hand to end")
        stream.rest(len(stream.enqueued) - waited)
        assert len(site.waiting()) == waited, "not one was claimed after that"

        started = stream.started()
        resumed_at = time.monotonic()
        site.redis.set(KEYS.pause_all(), chance.choice(("false", "", "paused")))
        stream.await_more_than(started)
        report.time("resume to first claim", max(0.0, stream.starts()[started] - resumed_at))
    stream.judge(report)
    assert state(master)["paused"] is False, "the key is no order to this master"


@pytest.mark.parametrize("last", sized(["key", "signal"], ["key", "signal"]))
def test_of_two_pauses_both_must_end(
    start: Starter, site: Site, report: Report, last: list[str]
) -> None:
    stream = Stream(site)
    master = start(*APP, "-c", "2")
    idle_workers(master, 2)
    for latter in last:
        site.redis.set(KEYS.pause_all(), "true")
        pause(master)
        await_pause(master)
        before = len(stream.enqueued)
        stream.add(10)
        stream.rest(before)
        for end in sorted(("key", "signal"), key=latter.__eq__):
            assert stream.started() == before
            if end == "key":
                site.redis.delete(KEYS.pause_all())
            else:
                resume(master)
            if end != latter:
                stream.rest(before)
        site.await_processed(len(stream.enqueued), 3.0)
    stream.judge(report)

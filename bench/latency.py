"""How long after its enqueue does a job start, in an idle pool of eight?

    python -m bench.latency --quick

Single jobs 20 ms apart, jobs a second apart (the pool has fallen asleep between them), and
with --full bursts: eight jobs of 50 ms in a row. All pools are there all the time, each beside a
server of its own, and have turns; a job a second is sent to all of them in the same seconds.

Each from the moment before the producer's call to the job's first line; both read
CLOCK_MONOTONIC, which all processes share. The first job of a producer opens its connection and
does not count, so the figures of a burst are those of the other seven, from the second's sending
on, while one worker is busy with the first.

Beside the peers stand eight bare processes in BLPOP: no pool can wake a process sooner.
"""

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median

from bench.harness import roster
from bench.harness.contestant import Contestant, Group
from bench.harness.heats import attempt, heats
from bench.harness.question import Plan, Question
from bench.harness.records import BEGAN, SENT
from bench.harness.report import Report, at_most
from bench.harness.rounds import Spread, beside, paired, percentile
from bench.harness.stage import LIMIT, Stage

WORKERS, BURST = 8, 8
NEAR, SPARSE = 0.02, 1.0  # seconds between two jobs
_RESTLESS = ("arq-eager", "limit", "limit-full", "classic")  # poll, and so disturb who waits
_TARGET_P99, _TARGET_SPARSE = 2.0, 1.2  # ms


@dataclass(frozen=True, slots=True)
class Sample:
    """What one round found, in ms."""

    near: list[float]
    bursts: list[list[float]]  # of each burst: until the k-th of the seven has begun


class Pool:
    """A contestant's pool that idles between its turns."""

    def __init__(self, contestant: Contestant, stack: ExitStack) -> None:
        self.contestant = contestant
        self.name, self.group = contestant.name, contestant.group
        self.samples: list[Sample] = []
        self.sparse: list[float] = []
        self.stage = stack.enter_context(Stage(contestant, workers=WORKERS))
        self.stage.start()

    def sample(self, near: int, bursts: int) -> Sample:
        """Send jobs that are close together."""
        stage = self.stage
        first = stage.put_so_far + 1
        stage.put("noop", near + 1, how=NEAR)
        stage.await_records(stage.put_so_far)
        return Sample(
            stage.records().latencies(range(first, first + near)),
            [self._burst() for _ in range(bursts)],
        )

    def _burst(self) -> list[float]:
        stage = self.stage
        first = stage.put_so_far + 1
        stage.put("io", BURST, how=0.0)
        stage.await_records(stage.put_so_far)
        records = stage.records()
        since = next(event.moment for event in records.of(SENT) if event.number == first)
        began = [event.moment for event in records.of(BEGAN) if event.number >= first]
        return [(moment - since) / 1e6 for moment in sorted(began)]

    def begin_sparse(self, jobs: int) -> None:
        """Begin to send jobs that are a second apart."""
        self._first = self.stage.put_so_far + 1
        self._producer = self.stage.putting("noop", jobs + 1, how=SPARSE)

    def end_sparse(self) -> None:
        """Wait for them, and for all others: each must have run once."""
        stage = self.stage
        self._producer.communicate(timeout=LIMIT)
        stage.await_records(stage.put_so_far)
        self.sparse = stage.records().latencies(range(self._first, stage.put_so_far))
        stage.demand_all()


def waiting() -> Contestant:
    """Return the bare processes in BLPOP."""
    ours = roster.named("forkresque")
    return Contestant(
        name="blpop",
        group=Group.LIMIT,
        setting="eight bare processes in BLPOP",
        start=lambda workers: [[sys.executable, "-m", "bench.peers.waiting_loop"]] * workers,
        produce=ours.produce,
        kinds=ours.kinds,
        pace=5_000,
    )


def measure(plan: Plan, report: Report) -> None:
    """Ask everybody, and compare us with the best peer."""
    near, sparse, bursts = (200, 30, 4) if plan.full else (100, 9, 0)
    with ExitStack() as stack:
        pools = [
            pool
            for each in (*plan.contestants, waiting())
            for pool in attempt(each, partial(Pool, each, stack), report)
        ]
        pools = [
            each for each, _ in heats(pools, 1, lambda each: each.stage.warm_up(rest=0.0), report)
        ]
        for pool, samples in heats(
            pools, plan.rounds, lambda each: each.sample(near, bursts), report
        ):
            pool.samples = samples
        pools = _sparse_together([each for each in pools if each.samples], sparse, report)
    report.table(
        f"Idle pool of {WORKERS}, ms: {near} jobs 20 ms apart; {sparse} a second apart; bursts",
        [*("", "p50", "p95", "p99", "max", "sparse p50", "sparse max"), "1st of 7", "7th of 7"],
        [_row(each) for each in pools],
    )
    for each in pools:
        shares, sparse_ms = _shares(each.samples), Spread.of(each.sparse)
        report.figure(each.name, near=shares, sparse=sparse_ms.as_json())
    _judge(report, {each.name: each for each in pools})


def _sparse_together(pools: list[Pool], jobs: int, report: Report) -> list[Pool]:
    """Send everybody a job a second, at moments spread over the second."""
    for each in pools:
        each.begin_sparse(jobs)
        time.sleep(SPARSE / len(pools))
    return [each for each in pools if attempt(each, each.end_sparse, report)]


def _at(samples: list[Sample], share: float) -> Spread:
    return Spread.of([percentile(each.near, share) for each in samples])


def _shares(samples: list[Sample]) -> dict[str, dict[str, float]]:
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: _at(samples, share).as_json() for name, share in shares.items()}


def _row(pool: Pool) -> list[str]:
    form = ",.2f"
    bursts = [burst for each in pool.samples for burst in each.bursts]
    return [
        pool.name,
        *(_at(pool.samples, share).told(form) for share in (0.5, 0.95, 0.99, 1.0)),
        f"{median(pool.sparse):{form}}",
        f"{max(pool.sparse):{form}}",
        *(_rank(bursts, rank) for rank in (0, -1)),
    ]


def _rank(bursts: list[list[float]], rank: int) -> str:
    return f"{median(burst[rank] for burst in bursts):,.2f}" if bursts else "-"


def _judge(report: Report, pools: dict[str, Pool]) -> None:
    ours = pools.get("forkresque")
    if ours is None:
        return
    peers = [each for each in pools.values() if each.group in (Group.PYTHON, Group.OTHER)]
    if peers:
        best = min(peers, key=lambda each: _at(each.samples, 0.5).median)
        ratio = paired(_medians(ours), _medians(best)).median
        told = f"{best.name}: {_at(best.samples, 0.5).median:.2f} ms"
        told += f"; ours {_at(ours.samples, 0.5).median:.2f}"
        report.verdict(at_most("latency p50 to the best peer", ratio, 1.0, unit=" x", against=told))
    tails = {each.name: _tails(each) for each in peers}
    sparse = {each.name: each.sparse for each in peers}
    report.verdict(
        at_most(
            *("latency p99", median(_tails(ours)), _TARGET_P99),
            unit=" ms",
            against=beside(_tails(ours), tails, best=min, form=".2f"),
        ),
        at_most(
            *("latency p50, one job a second", median(ours.sparse), _TARGET_SPARSE),
            unit=" ms",
            against=beside(ours.sparse, sparse, best=min, form=".2f"),
        ),
    )


def _medians(pool: Pool) -> list[float]:
    return [median(each.near) for each in pool.samples]


def _tails(pool: Pool) -> list[float]:
    return [percentile(each.near, 0.99) for each in pool.samples]


QUESTION = Question(
    *("latency", "From enqueue to the job's first line", measure),
    quick=("huey", "sidekiq"),
    full=tuple(each.name for each in roster.EVERYBODY if each.name not in _RESTLESS),
)

if __name__ == "__main__":
    QUESTION.main()

"""How long after its enqueue does a job start, in an idle pool of eight?

    python -m bench.latency --quick

Single jobs 20 ms apart, jobs a second apart (the pool has fallen asleep between them), and
bursts: eight jobs of 50 ms in a row. Each from the moment before the producer's call to the
job's first line; both read CLOCK_MONOTONIC, which all processes share. The first job of a
producer opens its connection and does not count, so the figures of a burst are those of the
other seven, from the second's sending on, while one worker is busy with the first.

Beside the peers stand eight bare processes in BLPOP: no pool can wake a process sooner.
"""

import sys
from dataclasses import dataclass
from statistics import median

from bench.harness import roster
from bench.harness.contestant import Contestant, Group
from bench.harness.heats import heats
from bench.harness.question import Plan, Question
from bench.harness.records import BEGAN, SENT
from bench.harness.report import Report, at_most
from bench.harness.rounds import Spread, paired, percentile
from bench.harness.stage import Stage

WORKERS, BURST = 8, 8
NEAR, SPARSE = 0.02, 1.0  # seconds between two jobs
_TARGET_P99, _TARGET_SPARSE = 2.0, 1.2  # ms


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run found, in ms."""

    near: list[float]
    sparse: list[float]
    bursts: list[list[float]]  # of each burst: until the k-th of the seven has begun


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


def sample(contestant: Contestant, *, near: int, sparse: int, bursts: int) -> Sample:
    """Run a pool that is idle, and send it jobs."""
    with Stage(contestant, workers=WORKERS) as stage:
        stage.start()
        stage.warm_up()
        found = Sample(
            near=_singles(stage, near, NEAR),
            sparse=_singles(stage, sparse, SPARSE),
            bursts=[_burst(stage) for _ in range(bursts)],
        )
        stage.demand_all()
        return found


def _singles(stage: Stage, count: int, apart: float) -> list[float]:
    first = stage.put_so_far + 1
    stage.put("noop", count + 1, how=apart)
    stage.await_records(stage.put_so_far)
    records = stage.records()
    sent = {event.number: event.moment for event in records.of(SENT)}
    began = {event.number: event.moment for event in records.of(BEGAN)}
    return [(began[job] - sent[job]) / 1e6 for job in range(first, first + count)]


def _burst(stage: Stage) -> list[float]:
    first = stage.put_so_far + 1
    stage.put("io", BURST, how=0.0)
    stage.await_records(stage.put_so_far)
    records = stage.records()
    since = next(event.moment for event in records.of(SENT) if event.number == first)
    began = [event.moment for event in records.of(BEGAN) if event.number >= first]
    return [(moment - since) / 1e6 for moment in sorted(began)]


def measure(plan: Plan, report: Report) -> None:
    """Ask everybody, and compare us with the best peer."""
    sizes = (200, 30, 10) if plan.full else (200, 6, 4)
    near, sparse, bursts = sizes
    found = heats(
        [*plan.contestants, waiting()],
        plan.rounds,
        lambda each: sample(each, near=near, sparse=sparse, bursts=bursts),
        report,
    )
    report.table(
        f"Idle pool of {WORKERS}, ms: {near} jobs 20 ms apart; {sparse} a second apart; bursts",
        [*("", "p50", "p95", "p99", "max", "sparse p50", "sparse max"), "1st of 7", "7th of 7"],
        [_row(each, samples) for each, samples in found],
    )
    for each, samples in found:
        report.figure(each.name, near=_shares(samples), sparse=_sparse(samples).as_json())
    _judge(report, found)


def _at(samples: list[Sample], share: float) -> Spread:
    return Spread.of([percentile(each.near, share) for each in samples])


def _sparse(samples: list[Sample]) -> Spread:
    return Spread.of([median(each.sparse) for each in samples])


def _shares(samples: list[Sample]) -> dict[str, dict[str, float]]:
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: _at(samples, share).as_json() for name, share in shares.items()}


def _row(contestant: Contestant, samples: list[Sample]) -> list[str]:
    form = ",.2f"
    bursts = [burst for each in samples for burst in each.bursts]
    return [
        contestant.name,
        *(_at(samples, share).told(form) for share in (0.5, 0.95, 0.99, 1.0)),
        _sparse(samples).told(form),
        f"{max(delay for each in samples for delay in each.sparse):,.2f}",
        *(f"{median(burst[rank] for burst in bursts):,.2f}" for rank in (0, -1)),
    ]


def _judge(report: Report, found: list[tuple[Contestant, list[Sample]]]) -> None:
    ours = next((samples for each, samples in found if each.group is Group.OURS), None)
    peers = [(each, runs) for each, runs in found if each.group in (Group.PYTHON, Group.OTHER)]
    if ours is None:
        return
    if peers:
        best, theirs = min(peers, key=lambda peer: _at(peer[1], 0.5).median)
        ratio = paired([median(run.near) for run in ours], [median(run.near) for run in theirs])
        told = f"{best.name}: {_at(theirs, 0.5).median:.2f} ms; ours {_at(ours, 0.5).median:.2f}"
        report.verdict(
            at_most("latency p50 to the best peer", ratio.median, 1.0, unit="x", against=told)
        )
    report.verdict(
        at_most("latency p99", _at(ours, 0.99).median, _TARGET_P99, unit=" ms"),
        at_most("latency p50, one job a second", _sparse(ours).median, _TARGET_SPARSE, unit=" ms"),
    )


QUESTION = Question(
    "latency", "From enqueue to the job's first line", measure, quick=("huey", "sidekiq")
)

if __name__ == "__main__":
    QUESTION.main()

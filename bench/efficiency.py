"""How much of two cores do jobs get that compute, and how much of their time jobs that wait?

    python -m bench.efficiency --quick

Jobs of 5 ms of computing with two workers: 100 % is what the same job takes in a process of its
own, in the contestant's own language, measured just before while nothing else runs. Where the
bare loop is asked in the same round, the ratio to it tells what the pool costs and what the
machine: two busy processes and a server never have two cores to themselves.

Jobs that wait 50 ms: 100 % is a job every 50 ms for each of eight places. Who runs several jobs
in a process gets one process if it has eight places or more.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median

from bench.harness import processes
from bench.harness.contestant import Contestant, Group
from bench.harness.drains import drain
from bench.harness.heats import heats
from bench.harness.question import Plan, Question
from bench.harness.report import Report, at_least
from bench.harness.rounds import Spread, beside, paired
from bench.harness.stage import Span
from bench.peers.kinds import IO_SECONDS

CORES, PLACES = 2, 8
_ALONE = "60"  # jobs that are timed alone
_SLOTS = {"sidekiq-c10": 10, "node-multi": 10, "dramatiq": 8, "arq": 10, "saq": 10}
_ASYNC = ("taskiq", "arq-eager")  # a hundred places a process: eight of them are nothing to them


@dataclass(frozen=True, slots=True)
class Run:
    """What one run reached."""

    efficiency: float
    span: Span


def computing(contestant: Contestant, loops: str, jobs: int) -> Run:
    """Drain jobs that compute, and compare with the job alone."""
    alone = float(_said(contestant.kinds, "alone", loops, _ALONE))
    span = drain(contestant, "cpu", jobs, workers=CORES, loops=loops)
    return Run(span.rate * alone / CORES, span)


def waiting(contestant: Contestant, jobs: int) -> Run:
    """Drain jobs that wait."""
    slots = _SLOTS.get(contestant.name, 1)
    workers = 1 if slots > 1 else PLACES
    span = drain(contestant, "io", jobs, workers=workers, loops="1", places=workers * slots)
    return Run(span.rate * IO_SECONDS / (workers * slots), span)


@cache
def _loops(*kinds: str) -> str:
    """Return the loops of 5 ms in one language, as the least disturbed of three looks has it."""
    return str(max(int(_said(kinds, "calibrate")) for _ in range(3)))


def _said(kinds: Sequence[str], *words: str) -> str:
    return subprocess.check_output(
        [*kinds, *words],
        cwd=processes.ROOT,
        env=processes.environment({}),
        text=True,
        timeout=30,
    )


def measure(plan: Plan, report: Report) -> None:
    """Ask everybody both questions."""
    seconds = plan.lasting(0.8, 2)
    computed = heats(
        plan.contestants,
        plan.rounds,
        lambda each: computing(each, _loops(*each.kinds), round(seconds * _pace(each, 400))),
        report,
    )
    waited = heats(
        [each for each in plan.contestants if each.name not in _ASYNC],
        plan.rounds,
        lambda each: waiting(each, round(seconds * _pace(each, 160))),
        report,
    )
    _tell(report, "cpu", f"5 ms of computing, {CORES} workers on {CORES} cores", computed)
    _tell(report, "io", f"50 ms of waiting, {PLACES} places", waited)
    _judge(report, "5 ms CPU jobs, efficiency", computed, 98.0)
    _judge(report, "50 ms I/O jobs, efficiency", waited, 98.5)


def _pace(contestant: Contestant, ideal: float) -> float:
    return min(ideal, contestant.pace)


Found = list[tuple[Contestant, list[Run]]]


def _of(found: Found, name: str) -> list[float]:
    return [run.efficiency * 100 for each, runs in found if each.name == name for run in runs]


def _tell(report: Report, kind: str, caption: str, found: Found) -> None:
    bare = _of(found, "limit")
    rows = []
    for each, runs in found:
        shares = [run.efficiency * 100 for run in runs]
        reached = Spread.of(shares)
        ratio = paired(shares, bare).told(".3f") if bare else "-"
        worker, redis = (
            median(run.span.worker_us for run in runs) / 1000,
            median(run.span.redis_us for run in runs) / 1000,
        )
        rate = Spread.of([run.span.rate for run in runs]).told()
        row = [each.name, rate, reached.told(".1f"), ratio, f"{worker:.2f}", f"{redis:.2f}"]
        rows.append(row)
        report.figure(each.name, kind=kind, efficiency=reached.as_json(), worker_ms=worker)
        report.noise([run.span.noise for run in runs])
    head = ["", "jobs/s", "% of ideal", "to the bare loop", "worker CPU ms/job", "Redis CPU ms/job"]
    report.table(caption, head, rows)


def _judge(report: Report, row: str, found: Found, floor: float) -> None:
    ours, bare = _of(found, "forkresque"), _of(found, "limit")
    peers = {
        each.name: _of(found, each.name)
        for each, _ in found
        if each.group in (Group.PYTHON, Group.OTHER)
    }
    told = beside(ours, peers, best=max, form=".1f")
    report.verdict(at_least(row, median(ours), floor, unit=" %", form=".1f", against=told))
    if bare:
        ratio = paired(ours, bare).median * 100
        told = f"{median(ours):.1f} to {median(bare):.1f} %"
        row = f"{row}, to the bare loop"
        report.verdict(at_least(row, ratio, floor, unit=" %", form=".1f", against=told))


QUESTION = Question(
    *("efficiency", "Jobs that compute and jobs that wait", measure),
    quick=("sidekiq", "limit"),
)

if __name__ == "__main__":
    QUESTION.main()

"""What does it cost that no job gets lost: the slot and the token?

    python -m bench.safety --full

forkresque's worker against itself: `classic` is the same master, worker and loop around what
Resque's workers do, a pop and a record in one script (`bench/peers/classic_jobs.py`). So what
differs is the script, and what it is given and answers: the slot, the token, and the look at the
lease, at pauses and at suspects. A full queue is drained as for `bench.throughput`, in pairs that
follow each other; the cost is taken within a pair. Where the machine is disturbed, the part of the
CPU says more than that of the throughput.
"""

from bench.harness.drains import drain
from bench.harness.question import Plan, Question
from bench.harness.report import Report, at_most
from bench.harness.rounds import Spread, turns
from bench.harness.stage import Span

COST, TARGET_WORKERS = 20.0, 2  # % of throughput


def costs(safe: list[Span], classic: list[Span]) -> list[float]:
    """Return what part of the classic throughput is missing, in %, pair by pair."""
    pairs = zip(safe, classic, strict=True)
    return [(1 - ours.rate / theirs.rate) * 100 for ours, theirs in pairs]


def cpu_costs(safe: list[Span], classic: list[Span]) -> list[float]:
    """Return what part of the CPU a job, of workers and server, is the safety's, in %."""
    pairs = zip(safe, classic, strict=True)
    return [(1 - theirs.cpu_us / ours.cpu_us) * 100 for ours, theirs in pairs]


def measure(plan: Plan, report: Report) -> None:
    """Run both by turns, with each number of workers."""
    seconds = plan.lasting(quick=0.5, full=1.5)
    rows = []
    for workers in plan.counts(quick=(TARGET_WORKERS,), full=(1, 2, 4, 8)):
        found = {each.name: list[Span]() for each in plan.contestants}
        for each in turns(plan.contestants, plan.rounds):
            jobs = each.jobs(seconds, workers)
            found[each.name].append(drain(each, "noop", jobs, workers=workers))
        rows += [_row(workers, name, results) for name, results in found.items()]
        _conclude(workers, found["forkresque"], found["classic"], report)
        report.noise([result.noise for results in found.values() for result in results])
    head = ["workers", "", "jobs/s", "worker CPU us/job", "Redis CPU us/job"]
    report.table("With the slot and the token, and without, median (extremes)", head, rows)


def _conclude(workers: int, safe: list[Span], classic: list[Span], report: Report) -> None:
    cost, cpu = Spread.of(costs(safe, classic)), Spread.of(cpu_costs(safe, classic))
    report.figure(
        "forkresque",
        workers=workers,
        cost_in_percent=cost.as_json(),
        cpu_cost_in_percent=cpu.as_json(),
    )
    told = f"{cost.told('.1f')} % of throughput, {cpu.told('.1f')} % of CPU"
    if workers == TARGET_WORKERS:
        row = f"cost of the safety, {workers} workers"
        report.verdict(at_most(row, cost.median, COST, unit=" %", form=".1f", against=told))
    else:
        report.note(f"{workers} workers: the safety costs {told}")


def _row(workers: int, name: str, results: list[Span]) -> list[str]:
    rates = Spread.of([each.rate for each in results])
    used = [Spread.of([each.worker_us for each in results])]
    used += [Spread.of([each.redis_us for each in results])]
    return [str(workers), name, rates.told(), *(each.told(".0f") for each in used)]


QUESTION = Question(
    "safety",
    "What does it cost that no job gets lost?",
    measure,
    quick=("classic",),
    full=("classic",),
    rounds=4,
)

if __name__ == "__main__":
    QUESTION.main()

"""How many no-op jobs a second, beside the peers and beside a bare loop?

    python -m bench.throughput --full

The queue is full before the workers start. The rate is that between the job at 10 % and the job at
90 %, by the moments that the jobs themselves have recorded; so start-up is left out. CPU is that of
all of a contestant's processes, and the server's, over the same span. Every job must have begun
exactly once.

`limit` is what the machine allows: a prefork of processes that pop and record a job in one script
call, on the same connection class, without any safety; `limit-full` also arms a time limit and
logs a line for each job.
"""

from dataclasses import dataclass
from statistics import median

from bench.harness.contestant import Contestant, Group
from bench.harness.drains import drain
from bench.harness.heats import heats
from bench.harness.question import Plan, Question
from bench.harness.report import Report, Verdict, at_least, at_most
from bench.harness.rounds import Spread, paired
from bench.harness.stage import Span

OF_PYTHON = 3.0  # times the best Python peer
OF_SIDEKIQ = 1.2
OF_LIMIT = 0.6
CPU_US = 100.0  # of workers and Redis, a job
NO_FALL = 0.97  # from 4 to 8 workers; what lies above is noise


@dataclass(frozen=True, slots=True)
class Lap:
    """A contestant with so many workers, and how many jobs it is given."""

    contestant: Contestant
    workers: int
    jobs: int

    @property
    def name(self) -> str:
        """Return what the lap is called."""
        return f"{self.contestant.name} with {self.workers} workers"

    @property
    def group(self) -> Group:
        """Return whom the contestant is compared with."""
        return self.contestant.group


Results = dict[tuple[str, int], list[Span]]


def measure(plan: Plan, report: Report) -> None:
    """Run everybody with each number of workers, round after round."""
    seconds = plan.lasting(quick=0.4, full=1.0)
    counts = plan.counts(quick=(1, 2, 4, 8), full=(1, 2, 4, 8))
    laps = [
        Lap(each, workers, each.jobs(seconds, workers))
        for workers in counts
        for each in plan.contestants
    ]
    found = {
        (lap.contestant.name, lap.workers): spans
        for lap, spans in heats(
            laps,
            plan.rounds,
            lambda lap: drain(lap.contestant, "noop", lap.jobs, workers=lap.workers),
            report,
        )
    }
    tell(plan, counts, found, report)
    report.verdict(*verdicts(plan, counts, found))
    report.noise([span.noise for spans in found.values() for span in spans])


def tell(plan: Plan, counts: tuple[int, ...], found: Results, report: Report) -> None:
    """Print rates and CPU, one row a contestant, and keep all figures."""
    rates, costs = [], []
    ours = plan.group(Group.OURS)[0].name if plan.group(Group.OURS) else ""
    for each in plan.contestants:
        runs = [found.get((each.name, workers), []) for workers in counts]
        rates.append([each.name, *(_rate(results) for results in runs), _others(runs)])
        costs.append([each.name, *(_cost(results) for results in runs)])
        for workers, results in zip(counts, runs, strict=True):
            if results:
                against = found.get((ours, workers))
                report.figure(each.name, **_figures(workers, results, against))
    head = ["", *(f"{workers} workers" for workers in counts)]
    told = [*head, "others used meanwhile"]
    report.table("No-op jobs a second, median (extremes)", told, rates)
    report.table("CPU a job in us: workers + redis-server", head, costs)


def _rate(results: list[Span]) -> str:
    return Spread.of([each.rate for each in results]).told() if results else "-"


def _others(runs: list[list[Span]]) -> str:
    shares = [each.noise.others for results in runs for each in results]
    return Spread.of(shares).told(".0%") if shares else "-"


def _cost(results: list[Span]) -> str:
    if not results:
        return "-"
    workers = median(each.worker_us for each in results)
    redis = median(each.redis_us for each in results)
    return f"{workers:,.0f} + {redis:,.0f}"


def _figures(workers: int, results: list[Span], ours: list[Span] | None) -> dict[str, object]:
    told: dict[str, object] = {
        "workers": workers,
        "jobs_per_second": Spread.of([each.rate for each in results]).as_json(),
        "worker_us": Spread.of([each.worker_us for each in results]).as_json(),
        "redis_us": Spread.of([each.redis_us for each in results]).as_json(),
        "others": Spread.of([each.noise.others for each in results]).as_json(),
    }
    if ours and len(ours) == len(results):
        told["forkresque_is_faster_by"] = _ratio(ours, results).as_json()
    return told


def _ratio(ours: list[Span], theirs: list[Span]) -> Spread:
    return paired([each.rate for each in ours], [each.rate for each in theirs])


def verdicts(plan: Plan, counts: tuple[int, ...], found: Results) -> list[Verdict]:
    """Return what became of the targets."""
    told: list[Verdict] = []
    for workers in counts:
        ours = found.get(("forkresque", workers))
        if ours:
            told += _verdicts(workers, ours, _rivals(plan, workers, found))
    if found.get(("forkresque", 4)) and found.get(("forkresque", 8)):
        ratio = _ratio(found["forkresque", 8], found["forkresque", 4])
        row = "no-op drain, 8 workers to 4: no fall, but for noise"
        told.append(at_least(row, ratio.median, NO_FALL, unit=" x"))
    return told


def _rivals(
    plan: Plan, workers: int, found: Results
) -> list[tuple[str, float, Contestant, list[Span]]]:
    """Return whom we are compared with: what it is called, the least ratio, who, its runs."""
    python = [each for each in plan.group(Group.PYTHON) if found.get((each.name, workers))]
    best = max(
        python, key=lambda each: median(run.rate for run in found[each.name, workers]), default=None
    )
    named = {each.name: each for each in plan.contestants}
    wanted = [("the best Python peer", OF_PYTHON, best)]
    wanted += [("Huey as pip installs it", OF_PYTHON, named.get("huey-plain"))]
    wanted += [("Sidekiq", OF_SIDEKIQ, named.get("sidekiq"))]
    wanted += [("the bare loop", OF_LIMIT, named.get("limit"))]
    return [
        (text, floor, each, found[each.name, workers])
        for text, floor, each in wanted
        if each is not None and found.get((each.name, workers))
    ]


def _verdicts(
    workers: int, ours: list[Span], rivals: list[tuple[str, float, Contestant, list[Span]]]
) -> list[Verdict]:
    told = []
    for text, floor, who, theirs in rivals:
        told.append(
            at_least(
                f"no-op drain, {workers} workers, to {text}",
                _ratio(ours, theirs).median,
                floor,
                unit=" x",
                against=f"{_rate(ours)} to {_rate(theirs)} of {who.name}",
            )
        )
    used = median(each.cpu_us for each in ours)
    row = f"CPU of workers and Redis a no-op job, {workers} workers"
    return [*told, at_most(row, used, CPU_US, unit=" us", form=".0f", against=_cost(ours))]


QUESTION = Question(
    "throughput",
    "How many no-op jobs a second, beside the peers and beside a bare loop?",
    measure,
    quick=("huey", "sidekiq", "limit"),
)

if __name__ == "__main__":
    QUESTION.main()

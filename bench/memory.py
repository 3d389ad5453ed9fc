"""How much memory do eight workers take, with a plain application and with one of 100 MB?

    python -m bench.memory --quick

PSS counts a shared page in parts, so the sum over all processes is what the pool takes; USS is
what a process has to itself. A worker's USS is the median of those that have run jobs. With the
application of 100 MB (small objects, as most are): idle, after 500 no-ops, and after 100 jobs
that read all of it, which in CPython writes each object's reference count.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.harness.contestant import Contestant
from bench.harness.heats import heats
from bench.harness.question import Plan, Question
from bench.harness.report import Report, at_most
from bench.harness.rounds import Spread, beside
from bench.harness.stage import Stage

WORKERS = 8
Found = list[tuple[Contestant, list[dict[str, "Weight"]]]]
STAGES = ("plain", "heavy, idle", "after no-ops", "after reads")
_JOBS = (("after no-ops", "noop", 500), ("after reads", "read", 100))
_ROOFS = {"plain": 70, "heavy, idle": 165, "after no-ops": 170}  # MB


@dataclass(frozen=True, slots=True)
class Weight:
    """Memory in MB: of all processes, and private to a worker."""

    pool: float
    worker: float


def weigh(stage: Stage) -> Weight:
    """Weigh the contestant as it is now."""
    found = {pid: _read(pid) for pid in stage.pids()}
    worked = {int(path.name) for path in stage.records_folder.iterdir()}
    private = [uss for pid, (_, uss) in found.items() if pid in worked]
    return Weight(sum(pss for pss, _ in found.values()), median(private) if private else 0.0)


def _read(pid: int) -> tuple[float, float]:
    try:
        return rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, 0.0


def rollup(text: str) -> tuple[float, float]:
    """Return PSS and USS, in MB of 2**20 bytes, from what the kernel tells of a process."""
    kilobytes = {
        line.split(":")[0]: int(line.split()[1]) for line in text.splitlines() if " kB" in line
    }
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return kilobytes["Pss"] / 1024, private / 1024


def run(contestant: Contestant, *, reads: bool) -> dict[str, Weight]:
    """Weigh a contestant in all stages; both pools are there at once, each with its server."""
    heavy = {"BENCH_HEAVY": "1"}
    with (
        Stage(contestant, workers=WORKERS) as plain,
        Stage(contestant, workers=WORKERS, environment=heavy) as stage,
    ):
        stage.start()
        plain.start()
        plain.warm_up()
        found = {"plain": weigh(plain)}
        plain.kill()
        stage.warm_up()
        found["heavy, idle"] = weigh(stage)
        for name, kind, jobs in _JOBS[: 2 if reads else 1]:
            stage.put(kind, jobs)
            stage.await_records(stage.put_so_far)
            found[name] = weigh(stage)
        stage.demand_all()
    return found


def measure(plan: Plan, report: Report) -> None:
    """Weigh everybody."""
    stages = STAGES if plan.full else STAGES[:-1]
    found = heats(plan.contestants, plan.rounds, lambda each: run(each, reads=plan.full), report)
    for part, caption in (("pool", "PSS of all processes"), ("worker", "USS of a worker")):
        rows = [
            [each.name, *(_spread(runs, name, part).told(",.1f") for name in stages)]
            for each, runs in found
        ]
        report.table(f"{caption}, {WORKERS} workers, MB", ["", *stages], rows)
    for each, runs in found:
        pools = {name: _spread(runs, name, "pool").as_json() for name in stages}
        workers = {name: _spread(runs, name, "worker").as_json() for name in stages}
        report.figure(each.name, pool=pools, worker=workers)
    _judge(report, found)


def _judge(report: Report, found: Found) -> None:
    for name, roof in _ROOFS.items():
        pools = {each.name: [run[name].pool for run in runs] for each, runs in found}
        ours = pools.pop("forkresque", None)
        if ours:
            told = beside(ours, pools, best=min, form=".1f")
            row = f"memory, {name}"
            report.verdict(at_most(row, median(ours), roof, unit=" MB", form=".1f", against=told))


def _spread(runs: list[dict[str, Weight]], name: str, part: str) -> Spread:
    return Spread.of([getattr(each[name], part) for each in runs])


QUESTION = Question("memory", "Memory of eight workers", measure, quick=("huey",))

if __name__ == "__main__":
    QUESTION.main()

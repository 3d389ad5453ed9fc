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

from bench.harness.contestant import Contestant, Group
from bench.harness.heats import heats
from bench.harness.question import Plan, Question
from bench.harness.report import Report, at_most
from bench.harness.rounds import Spread
from bench.harness.stage import Stage

WORKERS = 8
_NOOPS, _READS = 500, 100
STAGES = ("plain", "heavy, idle", "after no-ops", "after reads")
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


def run(contestant: Contestant) -> dict[str, Weight]:
    """Weigh a contestant in all stages."""
    found = {}
    with Stage(contestant, workers=WORKERS) as stage:
        stage.start()
        stage.warm_up()
        found["plain"] = weigh(stage)
    with Stage(contestant, workers=WORKERS, environment={"BENCH_HEAVY": "1"}) as stage:
        stage.start()
        stage.warm_up()
        found["heavy, idle"] = weigh(stage)
        for name, kind, jobs in (
            ("after no-ops", "noop", _NOOPS),
            ("after reads", "read", _READS),
        ):
            stage.put(kind, jobs)
            stage.await_records(stage.put_so_far)
            found[name] = weigh(stage)
        stage.demand_all()
    return found


def measure(plan: Plan, report: Report) -> None:
    """Weigh everybody. Weights repeat to within a hundredth, so once will do for --quick."""
    found = heats(plan.contestants, plan.rounds if plan.full else 1, run, report)
    for part, caption in (("pool", "PSS of all processes"), ("worker", "USS of a worker")):
        rows = [
            [each.name, *(_spread(runs, name, part).told(",.1f") for name in STAGES)]
            for each, runs in found
        ]
        report.table(f"{caption}, {WORKERS} workers, MB", ["", *STAGES], rows)
    for each, runs in found:
        pools = {name: _spread(runs, name, "pool").as_json() for name in STAGES}
        workers = {name: _spread(runs, name, "worker").as_json() for name in STAGES}
        report.figure(each.name, pool=pools, worker=workers)
        if each.group is Group.OURS:
            for name, roof in _ROOFS.items():
                pss = _spread(runs, name, "pool").median
                report.verdict(at_most(f"memory, {name}", pss, roof, unit=" MB", form=".1f"))


def _spread(runs: list[dict[str, Weight]], name: str, part: str) -> Spread:
    return Spread.of([getattr(each[name], part) for each in runs])


QUESTION = Question("memory", "Memory of eight workers", measure, quick=("huey", "celery"))

if __name__ == "__main__":
    QUESTION.main()

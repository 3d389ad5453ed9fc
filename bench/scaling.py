"""How does the scaling rule fare against those of seven other servers?

    python -m bench.scaling

This is a simulation, in fifteen scenarios: a toy plant (tests/simulation/plant.py) of cores that
are shared fairly, a queue and workers, under the controller of forkresque/policy/autoscale.py and
under seven rival rules (tests/simulation/rivals.py). It tells rules apart, not servers: there is
no Redis, no context switch, no cache and no cost of a fork in it, claims take no time, workers
own all their memory as soon as they have booted, and nothing happens to who has more than there
is. Of the rivals there is the scaling rule with its defaults and nothing else; where they
would have no figure (how many wait, on a Celery that sees what it has prefetched), they get ours.
The constants of our rule were chosen on the like of this plant: a sanity check, no proof.

4 cores, 2 to 64 workers, a boot of 0.07 s, unless the scenario says otherwise. Figures are
medians over the seeds. `done` is when the last job was over, in seconds since the first came;
`left` what was never started; `p95` and `max` are waits in seconds, those of the jobs that still
wait included; `peak` and `mean` count workers; `turns` are changes of direction; `forks` and
`lost` count all births, and those that died in boot; `memory` is the peak in GiB.
"""

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench.harness.report import table
from tests.simulation.plant import Pool
from tests.simulation.rivals import RIVALS
from tests.simulation.workloads import SCENARIOS, percentile, reversals, simulate, sizes, waits

OURS = "forkresque"
RESULTS = Path(__file__).parent / "results" / "scaling-2026-11-24.json"
GIB = 2**30

FIGURES: dict[str, Callable[[Pool], float]] = {
    "done": lambda pool: pool.finished_at - pool.queue.waits[0][0],
    "left": lambda pool: len(pool.queue.jobs),
    "p50": lambda pool: percentile(waits(pool), 0.5),
    "p95": lambda pool: percentile(waits(pool), 0.95),
    "max": lambda pool: waits(pool)[-1],
    "peak": lambda pool: max(sizes(pool)),
    "mean": lambda pool: pool.worker_seconds / pool.world.now,
    "turns": reversals,
    "forks": lambda pool: pool.forks,
    "lost": lambda pool: pool.crashes,
    "dismissed while busy": lambda pool: pool.busy_retired,
    "memory": lambda pool: (
        max(seen.memory.used if seen.memory else 0 for _, seen in pool.history) / GIB
    ),
}
SHOWN = {
    "io burst": ("done", "peak"),
    "cpu burst": ("done", "peak", "mean"),
    "mixed burst": ("done", "peak"),
    "drip": ("p95", "peak", "turns"),
    "steady": ("p95", "mean", "turns"),
    "square wave": ("p95", "mean", "turns"),
    "ramp": ("p95", "mean", "turns"),
    "long after short": ("max", "peak"),
    "bimodal": ("p95", "mean", "turns"),
    "slow boot": ("p95", "peak", "forks"),
    "stolen cores": ("p95", "peak", "turns"),
    "memory": ("memory", "done"),
    "silence": ("max", "peak", "forks"),
    "crash loop": ("lost", "done"),
    "quota": ("done", "peak"),
}
DETERMINED = {"io burst", "cpu burst", "memory", "quota"}  # one seed is as good as many


def figures(name: str, rule: type | None, seeds: int) -> dict[str, float]:
    """Return the medians of a contestant in a scenario."""
    scenario = SCENARIOS[name]
    found = []
    for seed in range(1 if name in DETERMINED else seeds):
        scaler = rule(scenario.least, scenario.most) if rule else None
        pool = simulate(name, scaler, seed=seed)
        found.append({figure: read(pool) for figure, read in FIGURES.items()})
    return {figure: round(median(one[figure] for one in found), 3) for figure in FIGURES}


def written(name: str, found: dict[str, float]) -> str:
    """Return the figures that matter in a scenario."""
    shown = [f"{figure} {_short(found[figure])}" for figure in SHOWN[name]]
    return ", ".join(shown + [f"left {found['left']:g}"] * (found["left"] > 0))


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or value == round(value) else f"{value:.2g}"


def main() -> None:
    """Run and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=5, help="seeds for each (5)")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args()
    contestants: dict[str, type | None] = {OURS: None, **{rule.name: rule for rule in RIVALS}}
    found = {
        name: {who: figures(name, rule, options.seeds) for who, rule in contestants.items()}
        for name in SCENARIOS
    }
    print("A simulation: see the docstring for what it leaves out\n")
    rows = [
        [SCENARIOS[name].what, *(written(name, one) for one in row.values())]
        for name, row in found.items()
    ]
    print(table(["scenario", *contestants], rows))
    if options.write:
        report = {
            "what": f"a simulation: python -m bench.scaling --seeds {options.seeds} --write",
            "units": "seconds; workers; memory in GiB; medians over the seeds",
            "python": platform.python_version(),
            "scenarios": {name: {"what": SCENARIOS[name].what, **found[name]} for name in found},
        }
        RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

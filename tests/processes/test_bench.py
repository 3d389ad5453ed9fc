"""The bench itself, with few jobs: what it prints and writes."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_throughput_is_told_with_its_figures_and_targets(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    argv = [sys.executable, "-m", "bench.throughput", "--only", "forkresque", "--json", str(file)]
    argv += ["--rounds", "1", "--workers", "1", "--seconds", "0.02"]
    said = subprocess.run(argv, cwd=ROOT, check=True, timeout=25, capture_output=True, text=True)

    found = json.loads(file.read_text())
    [figure] = found["figures"]
    assert (figure["contestant"], figure["workers"]) == ("forkresque", 1)
    assert figure["jobs_per_second"]["median"] > 0
    assert figure["worker_us"]["median"] > 0
    assert found["versions"]["forkresque"]["forkresque"]
    [verdict] = found["verdicts"]  # there is nobody to compare it with, but the CPU has a target
    assert verdict["row"].startswith("CPU")
    assert f"| {verdict['row']}" in said.stdout

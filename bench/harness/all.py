"""What `bench/run` does: each question in a process of its own, then all targets in one table.

A question that fails is told of at the end, and makes the command fail; the others are asked
all the same.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.harness import machine
from bench.harness.processes import ROOT
from bench.harness.questions import QUESTIONS
from bench.harness.report import Verdict, targets

RESULTS = ROOT / "bench" / "results"
_LIMITS = {"quick": 120.0, "full": 1200.0}  # seconds for one question: more is a hang


def ask(name: str, size: str, file: Path) -> dict[str, Any] | None:
    """Ask one question; return what it found, or None if it failed."""
    began = time.monotonic()
    argv = [sys.executable, "-m", f"bench.{name}", f"--{size}", "--json", str(file)]
    script = subprocess.Popen(argv, cwd=ROOT)
    try:
        code = script.wait(_LIMITS[size])
    except subprocess.TimeoutExpired:
        code = 1
    finally:
        script.terminate()  # and not kill: it has processes to end and folders to remove
        script.wait()
    took = time.monotonic() - began
    print(f"\n({name}: {took:.0f} s)\n", flush=True)
    if code:
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return {**found, "took": round(took, 1)}


def main() -> int:
    """Ask, print the table of targets, and write the results."""
    parser = argparse.ArgumentParser(prog="bench/run", description="Ask every question.")
    sizes = parser.add_mutually_exclusive_group(required=True)
    sizes.add_argument("--quick", action="store_const", dest="size", const="quick")
    sizes.add_argument("--full", action="store_const", dest="size", const="full")
    parser.add_argument("--questions", default=",".join(QUESTIONS), help="only these")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began, first = time.monotonic(), machine.clocks()
    names = options.questions.split(",")
    with tempfile.TemporaryDirectory(prefix="forkresque-bench-") as folder:
        found = {name: ask(name, options.size, Path(folder) / f"{name}.json") for name in names}
    report = {
        "size": options.size,
        "machine": machine.facts(),
        "versions": machine.versions(),
        "stolen": round(machine.noise(first, machine.clocks(), known=0.0).stolen, 4),
        "seconds": round(time.monotonic() - began),
        "questions": [each for each in found.values() if each],
    }
    failed = [name for name, each in found.items() if not each]
    _tell(report, failed, options.results)
    return 1 if failed else 0


def _tell(report: dict[str, Any], failed: list[str], folder: Path) -> None:
    verdicts = [
        Verdict(**each) for question in report["questions"] for each in question["verdicts"]
    ]
    missed = sum(not each.met for each in verdicts)
    print(f"# Targets: {len(verdicts) - missed} met, {missed} missed\n\n{targets(verdicts)}\n")
    for name in failed:
        print(f"FAILED: {name} told nothing; see above")
    path = folder / f"speed-{report['size']}-{datetime.now(UTC):%Y-%m-%d}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{report['seconds']} s; written to {path.name} in the results' folder")


if __name__ == "__main__":
    sys.exit(main())

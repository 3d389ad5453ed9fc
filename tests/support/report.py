"""What the reliability suite has measured: one row a figure, added up over all its tests.

`reliability-report.json` holds it when the suite ends, and the terminal shows it as a table.
A row is a count, or times of which the median, the 99th percentile and the worst are shown.
"""

import json
import os
import platform
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import quantiles
from threading import Lock
from typing import Any

import pytest


class Report:
    """Figures of one run of the suite. Tests in several threads may add to it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.counts: dict[str, int] = defaultdict(int)
        self.times: dict[str, list[float]] = defaultdict(list)
        self.seeds: dict[str, list[int]] = defaultdict(list)
        self.notes: dict[str, str] = {}

    def count(self, row: str, number: int = 1) -> None:
        """Add to a count. Adding 0 makes the row appear: `lost: 0` is a result."""
        with self._lock:
            self.counts[row] += number

    def time(self, row: str, seconds: float | Iterable[float]) -> None:
        """Add one time, or several, in seconds."""
        with self._lock:
            self.times[row] += [seconds] if isinstance(seconds, float | int) else list(seconds)

    def seed(self, test: str, seed: int) -> None:
        """Note with which seed a test ran, so that it can be run again."""
        self.seeds[test].append(seed)

    def note(self, row: str, text: str) -> None:
        """Say in words what no number says."""
        self.notes[row] = text

    @property
    def is_empty(self) -> bool:
        """Return whether no test has reported anything."""
        return not (self.counts or self.times or self.notes)

    def as_json(self) -> dict[str, Any]:
        """Return all figures; times in milliseconds."""
        return {
            "commit": _commit(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
            "python": platform.python_version(),
            "counts": dict(sorted(self.counts.items())),
            "times_ms": {row: summary(values) for row, values in sorted(self.times.items())},
            "notes": dict(sorted(self.notes.items())),
            "seeds": dict(sorted(self.seeds.items())),
        }

    def as_table(self) -> list[str]:
        """Return lines for the terminal."""
        rows = [(row, str(number)) for row, number in sorted(self.counts.items())]
        for row, values in sorted(self.times.items()):
            told = summary(values)
            rows.append(
                (
                    f"{row}, ms",
                    f"p50 {told['p50']}  p99 {told['p99']}  worst {told['worst']}  n {told['n']}",
                )
            )
        rows += sorted(self.notes.items())
        width = max((len(row) for row, _ in rows), default=0)
        return [f"{row:<{width}}  {value}" for row, value in rows]

    def write(self, path: Path) -> None:
        """Write the figures as JSON."""
        path.write_text(json.dumps(self.as_json(), indent=2, ensure_ascii=False) + "\n")


REPORT = pytest.StashKey[Report]()  # where the configuration of a run has its report


def summary(seconds: list[float]) -> dict[str, float]:
    """Return number, median, 99th percentile and worst of some times, in milliseconds."""
    values = sorted(1000 * value for value in seconds)
    cuts = quantiles(values, n=100, method="inclusive") if len(values) > 1 else values * 99
    return {
        "n": len(values),
        "p50": round(cuts[49], 1),
        "p99": round(cuts[98], 1),
        "worst": round(values[-1], 1),
    }


def _commit() -> str:
    answer = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or "unknown"

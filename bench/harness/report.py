"""Report: what a question found, as tables for people and as JSON.

    report = Report("throughput", "No-op jobs a second")
    report.table("2 workers", ["", "jobs/s"], [["huey", "4,166"]])
    report.figure("huey", workers=2, rate=Spread.of(rates).as_json())
    report.verdict(at_least("no-op drain, 2 workers, to the best Python peer", 3.1, 3.0, unit="x"))
    report.noise(noises)
    report.note("arq is bound by its poll of 0.5 s")

A verdict is a row of the table of targets: `bench/run` prints those of all questions together.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench.harness.machine import Noise, worst
from bench.harness.rounds import percentile


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target, what was measured, and whether that meets it."""

    row: str
    target: str
    figure: str
    met: bool
    against: str = ""  # whom the figure is compared with, and that one's figure


def at_least(
    row: str, figure: float, floor: float, *, unit: str = "", form: str = ",.2f", against: str = ""
) -> Verdict:
    """Return whether a figure reaches its floor."""
    return Verdict(row, _told("≥", floor, unit), f"{figure:{form}}{unit}", figure >= floor, against)


def at_most(
    row: str, figure: float, roof: float, *, unit: str = "", form: str = ",.2f", against: str = ""
) -> Verdict:
    """Return whether a figure stays below its roof."""
    return Verdict(row, _told("≤", roof, unit), f"{figure:{form}}{unit}", figure <= roof, against)


def _told(sign: str, limit: float, unit: str) -> str:
    return f"{sign} {limit:,g}{unit}"


class Report:
    """What one question found."""

    def __init__(self, question: str, title: str) -> None:
        self.question = question
        self.title = title
        self.tables: list[str] = []
        self.figures: list[dict[str, Any]] = []
        self.verdicts: list[Verdict] = []
        self.notes: list[str] = []
        self.noises: list[Noise] = []

    def table(self, caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table, and print it at once."""
        text = f"{caption}\n\n{table(head, rows)}"
        self.tables.append(text)
        print(f"\n{text}", flush=True)

    def figure(self, contestant: str, **values: Any) -> None:
        """Keep figures of a contestant: numbers, or spreads as JSON."""
        self.figures.append({"contestant": contestant, **values})

    def verdict(self, *verdicts: Verdict) -> None:
        """Add rows to the table of targets."""
        self.verdicts.extend(verdicts)

    def note(self, *notes: str) -> None:
        """Add what a reader must know."""
        self.notes.extend(notes)

    def noise(self, noises: Sequence[Noise]) -> None:
        """Keep how disturbed the runs were."""
        self.noises.extend(noises)

    def close(self) -> None:
        """Print what stands below the tables."""
        if self.verdicts:
            print(f"\n{targets(self.verdicts)}")
        if self.noises:
            self.notes.append(f"noise, the worst of {len(self.noises)} runs: {worst(self.noises)}")
        for note in self.notes:
            print(f"\n* {note}", flush=True)

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return {
            "question": self.question,
            "title": self.title,
            "figures": self.figures,
            "verdicts": [asdict(each) for each in self.verdicts],
            "notes": self.notes,
            "noise": [asdict(each) for each in self.noises],
        }


def quantiles(values: Sequence[float], form: str = ".2f") -> list[str]:
    """Return min, p50, p99 and max, as cells of a table."""
    shown = (min(values), median(values), percentile(values, 0.99), max(values))
    return [f"{value:{form}}" for value in shown]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns stand under each other."""
    widths = [max(len(row[index]) for row in [head, *rows]) for index in range(len(head))]
    lines = []
    for row in (head, ["-" * width for width in widths], *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def targets(verdicts: Sequence[Verdict]) -> str:
    """Return the table of targets."""
    return table(
        ["row", "target", "measured", "against", "met"],
        [
            [each.row, each.target, each.figure, each.against, "yes" if each.met else "MISSED"]
            for each in verdicts
        ],
    )

"""Question: a script of the bench, as a command and as one line of `bench/run`.

    def measure(plan: Plan, report: Report) -> None: ...

    QUESTION = Question("throughput", "No-op jobs a second", measure, quick=("huey",))

    if __name__ == "__main__":
        QUESTION.main()

`python -m bench.throughput --quick` asks forkresque and the peers in `quick`, `--full` all of
`full` (everybody, if that is empty), `--only huey,limit` whom you name. A name that nobody has is
left out of `quick` and `full`, and refused after `--only`. Everybody stands in `roster.EVERYBODY`;
`bench/run` asks what stands in `questions.QUESTIONS`.
"""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.harness import bytecode, machine, roster
from bench.harness.contestant import Contestant, Group
from bench.harness.report import Report


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is to be measured, and with whom: forkresque first."""

    full: bool
    contestants: tuple[Contestant, ...]
    rounds: int
    workers: tuple[int, ...]  # what --workers names, or nothing
    seconds: float  # what one run should take; 0: as the question thinks best

    def counts(self, quick: Sequence[int], full: Sequence[int]) -> tuple[int, ...]:
        """Return the numbers of workers to measure with."""
        return self.workers or tuple(full if self.full else quick)

    def lasting(self, quick: float, full: float) -> float:
        """Return what one run should take, in seconds."""
        return self.seconds or (full if self.full else quick)

    def group(self, *groups: Group) -> list[Contestant]:
        """Return the contestants of some groups."""
        return [each for each in self.contestants if each.group in groups]


@dataclass(frozen=True, slots=True)
class Question:
    """A script: its name below `bench`, what it asks, and whom."""

    name: str
    title: str
    measure: Callable[[Plan, Report], None]
    quick: tuple[str, ...] = ()  # contestants of --quick
    full: tuple[str, ...] = ()  # contestants of --full; all, if empty
    rounds: int = 3

    def main(self) -> None:
        """Measure, print, and write JSON if that is asked for."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that stages are cleared away
        options = self._parser().parse_args()
        bytecode.complete()
        plan, missing = self._plan(options)
        report = Report(self.name, self.title)
        print(f"# {self.title}\n\n{_preamble()}", flush=True)
        if missing:
            report.note(f"not installed, so not measured: {', '.join(missing)} (bench/setup.sh)")
        self.measure(plan, report)
        report.close()
        if options.json:
            versions = {each.name: dict(each.versions()) for each in plan.contestants}
            settings = {each.name: each.setting for each in plan.contestants}
            told = {**report.as_json(), "versions": versions, "settings": settings}
            options.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")

    def _parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(prog=f"bench.{self.name}", description=self.title)
        parser.add_argument("--quick", action="store_true", help="few, and short (the default)")
        parser.add_argument("--full", action="store_true", help="everybody, and long")
        parser.add_argument("--only", default="", help="names of contestants")
        parser.add_argument("--rounds", type=int, default=self.rounds)
        parser.add_argument("--workers", default="", help="numbers of workers")
        parser.add_argument("--seconds", type=float, default=0.0, help="what one run should take")
        parser.add_argument("--json", type=Path, help="a file to write what was found to")
        return parser

    def _plan(self, options: argparse.Namespace) -> tuple[Plan, list[str]]:
        wanted = [name for name in options.only.split(",") if name]
        if not wanted:
            named = self.full if options.full else self.quick
            everybody = roster.names()
            known = [name for name in named if name in everybody]
            wanted = ["forkresque", *(known or (everybody if options.full else ()))]
        found = [roster.named(name) for name in dict.fromkeys(wanted)]
        plan = Plan(
            full=options.full,
            contestants=tuple(each for each in found if each.is_installed),
            rounds=options.rounds,
            workers=tuple(int(each) for each in options.workers.split(",") if each),
            seconds=options.seconds,
        )
        return plan, [each.name for each in found if not each.is_installed]


def _preamble() -> str:
    told = {**machine.facts(), **machine.versions()}
    return f"{' '.join(f'{name}={value}' for name, value in told.items())}"

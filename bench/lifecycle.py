"""How fast do pools start and stop?

    python -m bench.lifecycle --quick

Start: from spawning the command to the first line of a job that waits, twice. Idle stop: from
SIGTERM to the exit of all that was started, by pidfd. Busy stop: SIGTERM when 1.7 s of a job of 2 s
are left, and whether that job came to its end. Who has not stopped after 3 s is killed. Of
forkresque also `forkresque --help`; beside it, a Python that only imports click and redis; and
SIGUSR1 to the last job that begins after it, on a queue that never gets empty (0 if none came
after it).
"""

import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.harness.contestant import Contestant, Group
from bench.harness.heats import heats
from bench.harness.question import Plan, Question
from bench.harness.records import BEGAN, ENDED
from bench.harness.report import Report, at_most
from bench.harness.rounds import Spread, beside
from bench.harness.stage import RunFailed, Stage
from bench.peers.kinds import LONG_SECONDS

WORKERS = 2
_INTO_THE_JOB = 0.3  # seconds from the job's first line to the signal
_REST = 0.3  # seconds from the last job to the idle stop
_PATIENCE = 3.0  # seconds that a stop may take; who takes longer is killed
_STORM = 40_000  # jobs that a pause meets
_WAIT = 0.3  # seconds from that signal to the look at what has begun
_HELPS = 5


@dataclass(frozen=True, slots=True)
class Life:
    """Two starts, one idle stop and one busy stop, in seconds."""

    starts: tuple[float, float]
    idle_stop: float
    busy_stop: float
    finished: bool  # the job that the busy stop met

    @property
    def start(self) -> float:
        """Return what a start takes."""
        return sum(self.starts) / len(self.starts)


def live(contestant: Contestant) -> Life:
    """Start and stop a contestant twice."""
    with Stage(contestant, workers=WORKERS) as stage:
        first = _first_line(stage, "long")
        began = stage.records().moments(BEGAN)[0] / 1e9
        time.sleep(max(0.0, began + _INTO_THE_JOB - time.monotonic()))
        busy_stop = stop(stage)
        finished = bool(stage.records().of(ENDED))
    with Stage(contestant, workers=WORKERS) as stage:
        second = _first_line(stage, "noop")
        time.sleep(_REST)
        return Life((first, second), stop(stage), busy_stop, finished)


def _first_line(stage: Stage, kind: str) -> float:
    stage.put(kind, 1)
    began = time.monotonic_ns()
    stage.start(guarded=False)
    stage.await_records(1)
    return (stage.records().moments(BEGAN)[0] - began) / 1e9


def stop(stage: Stage) -> float:
    """Send SIGTERM to all commands; return the seconds until all have exited."""
    waiting = {os.pidfd_open(process.pid) for process in stage.processes}
    began = time.monotonic()
    for process in stage.processes:
        process.send_signal(signal.SIGTERM)
    while waiting and (left := began + _PATIENCE - time.monotonic()) > 0:
        for pidfd in select.select(waiting, [], [], left)[0]:
            waiting.remove(pidfd)
            os.close(pidfd)
    taken = time.monotonic() - began
    for pidfd in waiting:
        os.close(pidfd)
    return taken


def pauses(contestant: Contestant, count: int) -> list[float]:
    """Return how many ms after SIGUSR1 the last job began, `count` times."""
    found = []
    for _ in range(count):
        with Stage(contestant, workers=WORKERS) as stage:
            stage.put("noop", _STORM)
            stage.start()
            stage.await_records(1_000)
            signalled = time.monotonic_ns()
            stage.processes[0].send_signal(signal.SIGUSR1)
            time.sleep(_WAIT)
            moments = stage.records().moments(BEGAN)
            if len(moments) == _STORM:
                raise RunFailed("the storm was over at the pause: it needs more jobs")
            found.append(max(0, moments[-1] - signalled) / 1e6)
    return found


def seconds_of(argv: list[str]) -> float:
    """Return how long a command takes."""
    began = time.perf_counter()
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def measure(plan: Plan, report: Report) -> None:
    """Ask everybody, then what only we have."""
    found = heats(plan.contestants, plan.rounds, live, report)
    report.table(
        f"Seconds, {WORKERS} workers ({LONG_SECONDS - _INTO_THE_JOB:.1f} s of the job left)",
        ["", "start to first line", "idle stop", "busy stop", "job finished"],
        [_row(each, lives) for each, lives in found],
    )
    for each, lives in found:
        report.figure(each.name, **{name: _of(lives, name).as_json() for name in _ROOFS})
    _judge(report, found)
    for each in plan.group(Group.OURS):
        _ours(each, plan, report)


_ROOFS = {"start": 0.25, "idle_stop": 0.05, "busy_stop": 1.75}


def _judge(report: Report, found: list[tuple[Contestant, list[Life]]]) -> None:
    for name, roof in _ROOFS.items():
        taken = {
            each.name: [getattr(life, name) for life in lives]
            for each, lives in found
            if name != "busy_stop" or all(life.finished for life in lives)
        }
        ours = taken.pop("forkresque", None)
        if ours:
            told = beside(ours, taken, best=min, form=".3f")
            row = name.replace("_", " ")
            verdict = at_most(row, median(ours), roof, unit=" s", form=".3f", against=told)
            report.verdict(verdict)
        else:
            report.note(f"{name}: a job was cut")


def _of(lives: list[Life], name: str) -> Spread:
    return Spread.of([getattr(each, name) for each in lives])


def _row(contestant: Contestant, lives: list[Life]) -> list[str]:
    finished = [each.finished for each in lives]
    told = "yes" if all(finished) else f"{sum(finished)} of {len(finished)}"
    return [contestant.name, *(_of(lives, name).told(".3f") for name in _ROOFS), told]


def _ours(contestant: Contestant, plan: Plan, report: Report) -> None:
    paused = Spread.of(pauses(contestant, 10 if plan.full else 1))
    command = str(Path(sys.executable).parent / "forkresque")
    helps, bares = [], []
    for _ in range(_HELPS):
        helps.append(seconds_of([command, "--help"]))
        bares.append(seconds_of([sys.executable, "-c", "import click, redis"]))
    told, bare = Spread.of(helps), Spread.of(bares)
    rows = [
        ["SIGUSR1 to the last start, ms", paused.told(".2f")],
        ["forkresque --help, s", told.told(".3f")],
        ["python -c 'import click, redis', s", bare.told(".3f")],
    ]
    report.table("forkresque alone", ["", "median (extremes)"], rows)
    report.figure(contestant.name, pause_ms=paused.as_json(), help=told.as_json())
    against = f"a Python that imports click and redis: {bare.median:.3f}"
    report.verdict(
        at_most("forkresque --help", told.median, 0.15, unit=" s", form=".3f", against=against)
    )


QUESTION = Question(
    *("lifecycle", "How fast do pools start and stop?", measure),
    quick=("huey", "sidekiq"),
)

if __name__ == "__main__":
    QUESTION.main()

"""How fast do pools start and stop?

    python -m bench.lifecycle --quick

Start: from spawning the command to the first line of a job that waits. Idle stop: from SIGTERM
to the exit of all that was started, by pidfd. Busy stop: SIGTERM when 1.7 s of a job of 2 s are
left, and whether that job came to its end. Of forkresque also `forkresque --help`; beside
it, a Python that only imports click and redis; and SIGUSR1 to the last job that begins after it,
on a queue that never gets empty (0 if none came after it). Our bytecode is there, as after
an installation.
"""

import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.harness import bytecode
from bench.harness.contestant import Contestant, Group
from bench.harness.heats import heats
from bench.harness.question import Plan, Question
from bench.harness.records import BEGAN, ENDED
from bench.harness.report import Report, at_most
from bench.harness.rounds import Spread
from bench.harness.stage import RunFailed, Stage
from bench.peers.kinds import LONG_SECONDS

WORKERS = 2
_INTO_THE_JOB = 0.3  # seconds from the job's first line to the signal
_PATIENCE = 20.0
_STORM = 40_000  # jobs that a pause meets
_WAIT = 0.3  # seconds from that signal to the look at what has begun
_HELPS = 10


@dataclass(frozen=True, slots=True)
class Life:
    """One start, one idle stop and one busy stop, in seconds."""

    start: float
    idle_stop: float
    busy_stop: float
    finished: bool  # the job that the busy stop met


def live(contestant: Contestant) -> Life:
    """Start and stop a contestant twice."""
    with Stage(contestant, workers=WORKERS) as stage:
        started = _first_line(stage)
        stage.put("long", 1)
        stage.await_records(2)
        began = stage.records().moments(BEGAN)[-1] / 1e9
        time.sleep(max(0.0, began + _INTO_THE_JOB - time.monotonic()))
        busy_stop = stop(stage)
        finished = bool(stage.records().of(ENDED))
    with Stage(contestant, workers=WORKERS) as stage:
        stage.start()
        stage.warm_up()
        return Life(started, stop(stage), busy_stop, finished)


def _first_line(stage: Stage) -> float:
    stage.put("noop", 1)
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
    bytecode.complete()
    found = heats(plan.contestants, plan.rounds, live, report)
    report.table(
        f"Seconds, {WORKERS} workers ({LONG_SECONDS - _INTO_THE_JOB:.1f} s of the job left)",
        ["", "start to first line", "idle stop", "busy stop", "job finished"],
        [_row(each, lives) for each, lives in found],
    )
    for each, lives in found:
        report.figure(each.name, **{name: _of(lives, name).as_json() for name in _ROOFS})
        if each.group is Group.OURS:
            for name, roof in _ROOFS.items():
                row = name.replace("_", " ")
                figure = _of(lives, name).median
                report.verdict(at_most(row, figure, roof, unit=" s", form=".3f"))
            _ours(each, plan, report)


_ROOFS = {"start": 0.25, "idle_stop": 0.05, "busy_stop": 1.75}


def _of(lives: list[Life], name: str) -> Spread:
    return Spread.of([getattr(each, name) for each in lives])


def _row(contestant: Contestant, lives: list[Life]) -> list[str]:
    finished = [each.finished for each in lives]
    told = "yes" if all(finished) else f"{sum(finished)} of {len(finished)}"
    return [contestant.name, *(_of(lives, name).told(".3f") for name in _ROOFS), told]


def _ours(contestant: Contestant, plan: Plan, report: Report) -> None:
    paused = Spread.of(pauses(contestant, 10 if plan.full else plan.rounds))
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
    report.verdict(at_most("forkresque --help", told.median, 0.15, unit=" s", form=".3f"))


QUESTION = Question(
    *("lifecycle", "How fast do pools start and stop?", measure),
    quick=("huey", "rq", "node-resque", "sidekiq"),
)

if __name__ == "__main__":
    QUESTION.main()

"""What do eight idle workers cost: requests to Redis and CPU?

    python -m bench.idle --quick

All contestants idle at the same time, each beside a server of its own, which disturbs nobody and
meets all with the same machine. Requests are what MONITOR shows with a client's address:
it marks what runs inside a script apart, which the counters of INFO do not. Each address is
looked up in /proc, so that requests of workers and of the clerk are told apart. MONITOR makes
the server write, so the server's CPU is told but not judged; clients do not notice it.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import psutil

from bench.harness.contestant import Contestant, Group
from bench.harness.heats import attempt
from bench.harness.question import Plan, Question
from bench.harness.report import Report, at_most
from bench.harness.rounds import Spread, beside
from bench.harness.stage import Stage

WORKERS = 8
_SETTLING = 3.0  # seconds after the last job, in which a pool goes to sleep
_MARK = "bench-idle-mark"
CLERK, WORKER = "clerk", "worker"


@dataclass(frozen=True, slots=True)
class Window:
    """What one window of time has cost, a minute."""

    requests: dict[str, float]  # by who asked
    cpu: float
    redis: float


class Watched:
    """A contestant that idles, and what is seen of it."""

    def __init__(self, contestant: Contestant, stack: ExitStack) -> None:
        self.contestant = contestant
        self.windows: list[Window] = []
        self._stage = stack.enter_context(Stage(contestant, workers=WORKERS))
        self._client = stack.enter_context(self._stage.server.client())
        self._stage.start()
        self._monitor: Any = None

    def warm_up(self) -> bool:
        """Have it work, once."""
        self._stage.warm_up(rest=0.0)
        return True

    def begin(self) -> None:
        """Begin a window."""
        self._monitor = self._client.monitor()
        self._monitor.__enter__()
        self._roles = self._addresses()
        self._began = self._stage.read()

    def end(self) -> None:
        """End the window, and count."""
        ended = self._stage.read()
        self._client.echo(_MARK)
        roles = {**self._roles, **self._addresses()}
        asked = Counter(roles.get(port, WORKER) for port in self._asking())
        self._monitor.__exit__(None, None, None)
        minutes = (ended.clocks.at - self._began.clocks.at) / 60
        self.windows.append(
            Window(
                {role: times / minutes for role, times in asked.items()},
                (ended.workers - self._began.workers) / minutes,
                (ended.redis - self._began.redis) / minutes,
            )
        )

    def _asking(self) -> Iterator[int]:
        """Yield the client's port of each request since the window began."""
        while _MARK not in (seen := self._monitor.next_command())["command"]:
            if seen["client_type"] == "tcp":  # the bench itself comes by the Unix socket
                yield int(seen["client_port"])

    def _addresses(self) -> dict[int, str]:
        found = {}
        for pid in self._stage.pids():
            try:
                process = psutil.Process(pid)
                role = CLERK if ": clerk" in " ".join(process.cmdline()) else WORKER
                found.update({each.laddr.port: role for each in process.net_connections("tcp")})
            except psutil.NoSuchProcess:
                continue
        return found


def total(windows: list[Window], role: str = "") -> Spread:
    """Return requests a minute, of one role or of all: of all windows together."""
    counts = [
        sum(times for who, times in each.requests.items() if role in ("", who)) for each in windows
    ]
    return Spread(sum(counts) / len(counts), min(counts), max(counts), len(counts))


def measure(plan: Plan, report: Report) -> None:
    """Let everybody idle for some windows of time."""
    seconds = plan.lasting(4, 30)
    with ExitStack() as stack:
        opened = [
            each
            for who in plan.contestants
            for each in attempt(who, partial(Watched, who, stack), report)
        ]
        watched = [each for each in opened if attempt(each.contestant, each.warm_up, report)]
        time.sleep(_SETTLING)
        for _ in range(plan.rounds):
            for each in watched:
                each.begin()
            time.sleep(seconds)
            for each in watched:
                each.end()
    report.table(
        f"{WORKERS} idle workers, a minute ({plan.rounds} windows of {seconds:g} s)",
        ["", "requests", "of the clerk", "CPU s", "Redis CPU s"],
        [_row(each) for each in watched],
    )
    for each in watched:
        report.figure(
            each.contestant.name,
            requests=total(each.windows).as_json(),
            cpu=Spread.of([window.cpu for window in each.windows]).as_json(),
            redis=Spread.of([window.redis for window in each.windows]).as_json(),
        )
    _judge(report, {each.contestant.name: each.windows for each in watched})


def _row(watched: Watched) -> list[str]:
    ours = watched.contestant.group is Group.OURS
    return [
        watched.contestant.name,
        total(watched.windows).told(),
        total(watched.windows, CLERK).told() if ours else "-",
        Spread.of([window.cpu for window in watched.windows]).told(".3f"),
        Spread.of([window.redis for window in watched.windows]).told(".3f"),
    ]


def _judge(report: Report, found: dict[str, list[Window]]) -> None:
    ours = found.pop("forkresque")
    asked = beside(
        _requests(ours), {name: _requests(each) for name, each in found.items()}, best=min
    )
    cpus = {name: [window.cpu for window in each] for name, each in found.items()}
    cpu = [window.cpu for window in ours]
    workers, clerk = total(ours, WORKER).median, total(ours, CLERK).median
    burnt = beside(cpu, cpus, best=min, form=".3f")
    report.verdict(
        at_most("idle: requests of workers a minute", workers, 0, form=".0f", against=asked),
        at_most("idle: requests of the clerk a minute", clerk, 40, form=".0f", against=asked),
        at_most("idle: CPU a minute", median(cpu), 0.05, unit=" s", form=".3f", against=burnt),
    )


def _requests(windows: list[Window]) -> list[float]:
    return [sum(each.requests.values()) for each in windows]


QUESTION = Question("idle", "Eight idle workers", measure, quick=("huey", "celery", "node-resque"))

if __name__ == "__main__":
    QUESTION.main()

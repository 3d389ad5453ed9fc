"""How many no-op jobs a second, if each has a process of its own?

    python -m bench.fork_per_job --quick

`--max-jobs 1` against RQ's default worker, with two workers; beside them a bare loop of pop,
fork, run and wait, which tells what forking itself allows here.
"""

import sys
from dataclasses import replace
from statistics import median

from bench.harness import roster
from bench.harness.contestant import Command, Contestant, Group
from bench.harness.drains import drain
from bench.harness.heats import heats
from bench.harness.question import Plan, Question
from bench.harness.report import Report, at_least
from bench.harness.rounds import Spread, paired

WORKERS = 2
_FLOOR = 500  # jobs a second


def ours() -> Contestant:
    """Return forkresque with a process for each job."""
    usual = roster.named("forkresque")

    def start(workers: int) -> list[Command]:
        return [[*command, "--max-jobs", "1"] for command in usual.start(workers)]

    return replace(usual, setting="--max-jobs 1", start=start, pace=100)


def bare() -> Contestant:
    """Return the loop that forks and does nothing else."""
    usual = roster.named("forkresque")
    loop = [sys.executable, "-m", "bench.peers.fork_loop"]
    return replace(
        usual,
        name="bare fork",
        group=Group.LIMIT,
        setting="pop, fork, run, wait",
        start=lambda workers: [loop] * workers,
        pace=350,
    )


def measure(plan: Plan, report: Report) -> None:
    """Ask forkresque, RQ and the bare loop."""
    seconds = plan.lasting(1, 10)
    who = [ours(), *plan.group(Group.PYTHON), bare()]
    found = heats(
        who,
        plan.rounds,
        lambda each: drain(each, "noop", each.jobs(seconds, WORKERS), workers=WORKERS),
        report,
    )
    mine = [span.rate for span in found[0][1]]
    rows = []
    for each, spans in found:
        rates = [span.rate for span in spans]
        report.figure(each.name, rate=Spread.of(rates).as_json())
        report.noise([span.noise for span in spans])
        used = [median(span.worker_us for span in spans), median(span.redis_us for span in spans)]
        ratio = paired(mine, rates).told(".2f")
        rows.append([each.name, Spread.of(rates).told(), ratio, *(f"{us:,.0f}" for us in used)])
    head = ["", "jobs/s", "forkresque to it", "worker CPU us/job", "Redis CPU us/job"]
    report.table(f"A process a job, {WORKERS} workers", head, rows)
    told = ", ".join(f"{row[0]}: {row[1]}" for row in rows[1:])
    report.verdict(
        at_least("a fork a job, 2 workers", median(mine), _FLOOR, form=",.0f", against=told)
    )


QUESTION = Question(
    "fork_per_job", "No-op jobs a second, each in a process of its own", measure, ("rq",), ("rq",)
)

if __name__ == "__main__":
    QUESTION.main()

"""How long after its worker is killed does a job run again?

    python -m bench.recovery --full

A job records that it began, and waits; its worker gets SIGKILL; the time is that from the kill to
the record of the second run. With four workers another one stands by; with one, the job waits for
the replacement: the master's fork, its connection and its claim. Every kill must bring exactly one
second run.
"""

import os
import signal
import tempfile
import time
from collections import Counter

import redis

from bench.harness.ours import ALONE
from bench.harness.question import Plan, Question
from bench.harness.records import BEGAN, Event
from bench.harness.report import Report, quantiles
from bench.harness.stage import RunFailed, Stage
from bench.peers.kinds import QUEUE
from forkresque.queue import Queue

_REST = 0.02  # seconds until a worker is asleep


def recoveries(workers: int, kills: int) -> list[float]:
    """Return how many ms each recovery took."""
    found = []
    with (
        tempfile.TemporaryDirectory() as marks,
        Stage(ALONE, workers=workers, environment={"BENCH_MARKS": marks}) as stage,
        stage.server.client() as client,
    ):
        stage.start()
        stage.warm_up()
        warm, queue = stage.put_so_far, Queue(stage.url)
        for number in range(kills):
            queue.enqueue(QUEUE, "victim", [warm + number])
            first = _latest(stage, warm + 2 * number + 1)
            time.sleep(_REST)
            killed_ns = time.monotonic_ns()
            os.kill(first.process, signal.SIGKILL)
            second = _latest(stage, warm + 2 * number + 2)
            found.append((second.moment - killed_ns) / 1e6)
            _await_replacement(client, workers)
        queue.end()
        _demand_two_runs(stage, range(warm, warm + kills))
    return found


def _latest(stage: Stage, records: int) -> Event:
    stage.await_records(records, stall=20)
    return stage.records().of(BEGAN)[-1]


def _await_replacement(client: "redis.Redis", workers: int) -> None:
    deadline = time.monotonic() + 20
    while client.scard("resque:workers") != workers:
        if time.monotonic() > deadline:
            raise RunFailed("the dead worker was not replaced in 20 s")
        time.sleep(0.005)
    time.sleep(_REST)


def _demand_two_runs(stage: Stage, numbers: range) -> None:
    runs = Counter(event.number for event in stage.records().of(BEGAN))
    if odd := {number: runs[number] for number in numbers if runs[number] != 2}:
        raise RunFailed(f"each job should run twice; of these it is not so: {odd}")


def measure(plan: Plan, report: Report) -> None:
    """Kill with each number of workers."""
    kills = 200 if plan.full else 30
    rows = []
    for workers in plan.counts(quick=(4, 1), full=(4, 1)):
        found = recoveries(workers, kills)
        rows.append([str(workers), str(kills), *quantiles(found, ".1f")])
        report.figure("forkresque", workers=workers, ms=sorted(found))
    head = ["workers", "kills", "min", "p50", "p99", "max"]
    report.table("From SIGKILL to the job's second run, ms", head, rows)
    report.note("every job ran exactly twice")


QUESTION = Question("recovery", "How long after a kill does its job run again?", measure)

if __name__ == "__main__":
    QUESTION.main()

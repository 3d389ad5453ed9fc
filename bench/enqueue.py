"""How many jobs a second can one producer put on a queue, one after another and in bulk?

    python -m bench.enqueue --full

One process, one thread, no workers, a fresh server each time. "One at a time" awaits each answer
before the next job; "in bulk" is a peer's own call for many jobs, where it has one. The times hold
encoding, the way to Redis and back, and what Redis does; the first job, which opens the connection,
is not counted. A job has its number as the only argument.
"""

from statistics import median
from typing import Literal

from bench.harness.contestant import Contestant, Group
from bench.harness.heats import heats
from bench.harness.question import Plan, Question
from bench.harness.report import Report, Verdict, at_least
from bench.harness.rounds import Spread, paired
from bench.harness.stage import Produced, RunFailed, Stage

BULK = 150_000.0  # jobs a second
_PACES = {"one": 5_000, "bulk": 100_000}  # jobs a second, roughly
_SLOW = {"rq": {"one": 1_500, "bulk": 6_000}}

Runs = dict[str, list[Produced]]


def run(contestant: Contestant, how: Literal["one", "bulk"], seconds: float) -> Produced:
    """Have a producer put jobs for about so many seconds."""
    pace = _SLOW.get(contestant.name.partition("-")[0], _PACES)[how]
    with Stage(contestant, workers=0) as stage:
        produced = stage.put("noop", int(seconds * pace), how=how)
    if produced is None:
        raise RunFailed("the producer told nothing")
    return produced


def measure(plan: Plan, report: Report) -> None:
    """Have everybody put jobs, round after round."""
    seconds = plan.lasting(quick=0.4, full=1.0)
    who = [each for each in plan.contestants if each.group is not Group.LIMIT]
    one = _runs(heats(who, plan.rounds, lambda each: run(each, "one", seconds), report))
    able = [each for each in who if each.bulk]
    bulk = _runs(heats(able, plan.rounds, lambda each: run(each, "bulk", seconds), report))
    rows = [
        [name, _told(one[name]), _told(bulk[name]) if name in bulk else "-", _cpu(one[name])]
        for name in one
    ]
    head = ["", "one at a time, jobs/s", "in bulk, jobs/s", "producer's CPU, us, one at a time"]
    report.table("Enqueued by one process, median (extremes)", head, rows)
    for how, runs in (("one", one), ("bulk", bulk)):
        for name, produced in runs.items():
            rates = Spread.of([each.rate for each in produced]).as_json()
            report.figure(name, how=how, jobs_per_second=rates)
    report.verdict(*verdicts(one, bulk))


def _runs(found: list[tuple[Contestant, list[Produced]]]) -> Runs:
    return {each.name: produced for each, produced in found}


def _told(produced: list[Produced]) -> str:
    return Spread.of([each.rate for each in produced]).told()


def _cpu(produced: list[Produced]) -> str:
    return f"{median(each.cpu / each.jobs * 1e6 for each in produced):.0f}"


def verdicts(one: Runs, bulk: Runs) -> list[Verdict]:
    """Return what became of the targets: ahead of every peer, and so many in bulk."""
    told = []
    for how, runs in (("one at a time", one), ("in bulk", bulk)):
        peers = {name: produced for name, produced in runs.items() if name != "forkresque"}
        if "forkresque" not in runs or not peers:
            continue
        best = max(peers, key=lambda name: median(each.rate for each in peers[name]))
        ours, theirs = runs["forkresque"], peers[best]
        ratio = paired([each.rate for each in ours], [each.rate for each in theirs]).median
        against = f"{_told(ours)} to {_told(theirs)} of {best}"
        told.append(
            at_least(f"enqueue {how}, to the best peer", ratio, 1.0, unit=" x", against=against)
        )
    if "forkresque" in bulk:
        rate = median(each.rate for each in bulk["forkresque"])
        told.append(at_least("enqueue in bulk, jobs/s", rate, BULK, form=",.0f"))
    return told


QUESTION = Question(
    "enqueue",
    "How many jobs a second can one producer put on a queue?",
    measure,
    quick=("huey", "rq", "sidekiq", "node-resque"),
)

if __name__ == "__main__":
    QUESTION.main()

"""How many jobs a second can one producer put on a queue, one after another and in bulk?

    python -m bench.enqueue --full

One process, one thread, no workers, a fresh server each time. "One at a time" awaits each answer
before the next job; "in bulk" is a peer's own call for many jobs, where it has one. The times hold
encoding, the way to Redis and back, and what Redis does; the first job, which opens the connection,
is not counted. A job has its number as the only argument.
"""

from statistics import median

from bench.harness.contestant import Contestant, Group
from bench.harness.question import Plan, Question
from bench.harness.report import Report, Verdict, at_least
from bench.harness.rounds import Spread, paired, turns
from bench.harness.stage import Produced, Stage

BULK = 150_000.0  # jobs a second
_PACE = 5_000  # jobs a second, one at a time, roughly
_BULK_PACE = 100_000  # of who puts jobs in bulk faster than RQ

Runs = dict[str, list[Produced]]


def run(contestant: Contestant, jobs: int, how: str) -> Produced:
    """Have a producer put jobs."""
    with Stage(contestant, workers=0) as stage:
        produced = stage.put("noop", jobs, how="bulk" if how == "bulk" else "one")
    if produced is None:
        raise SystemExit(f"{contestant.name}'s producer told nothing")
    return produced


def measure(plan: Plan, report: Report) -> None:
    """Have everybody put jobs, round after round."""
    seconds = plan.lasting(quick=0.6, full=2.0)
    who = [each for each in plan.contestants if each.group is not Group.LIMIT]
    one: Runs = {each.name: [] for each in who}
    bulk: Runs = {each.name: [] for each in who if each.bulk}
    for each in turns(who, plan.rounds):
        one[each.name].append(run(each, int(seconds * _PACE), "one"))
        if each.bulk:
            pace = _PACE if each.group is Group.PYTHON else _BULK_PACE
            bulk[each.name].append(run(each, int(seconds * pace), "bulk"))
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
    quick=("huey", "dramatiq", "rq", "sidekiq", "node-resque"),
)

if __name__ == "__main__":
    QUESTION.main()

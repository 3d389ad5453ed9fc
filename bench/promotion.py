"""How fast are overdue jobs promoted, and does the leader keep its time meanwhile?

    python -m bench.promotion --quick

So many jobs are overdue, a thousand for each second, when a master starts whose workers listen to
another queue. Told are promotions a second from the moment the leader begins; how late a job
comes that is scheduled meanwhile, for 0.3 s later, on a queue of its own; and the least that was
left of the leader's and the host's lease. node-resque's Scheduler has fewer jobs to promote.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.harness import roster
from bench.harness.contestant import Contestant, Group
from bench.harness.heats import heats
from bench.harness.question import Plan, Question
from bench.harness.report import Report, at_least
from bench.harness.rounds import Spread, beside
from bench.harness.stage import LIMIT, RunFailed, Stage
from bench.peers.kinds import QUEUE
from forkresque.protocol.payload import encode_job

_A_SECOND = 1_000  # jobs due in the same second
_LATE_QUEUE = "late"
_AHEAD = 1  # seconds from now at which the job comes due that is scheduled meanwhile
_LOOK = 0.01
_FLOOR = 20_000  # promotions a second
_JOBS = {False: 100_000, True: 1_000_000}  # short and full
_NODE_JOBS = {False: 1_000, True: 5_000}  # which node-resque promotes


@dataclass(frozen=True, slots=True)
class Promoted:
    """What one run found."""

    rate: float  # promotions a second
    late: tuple[float, ...]  # seconds by which the jobs scheduled meanwhile came late
    lease: float  # seconds, the least that any lease had left
    cpu_us: float  # of the contestant, a promotion
    redis_us: float


_FILL = """
local first, count, second, bucket, schedule, head, tail = unpack(ARGV)
for number = first, first + count - 1 do
  local payload = head .. string.format("%d", number) .. tail
  redis.call("RPUSH", bucket, payload)
  redis.call("SADD", "resque:timestamps:" .. payload, "delayed:" .. second)
end
redis.call("ZADD", schedule, second, second)
"""


def fill(client: Any, jobs: int) -> None:
    """Schedule so many no-ops in the past, byte for byte as producers do, a second a script."""
    since = int(client.time()[0]) - jobs // _A_SECOND - 10
    head, tail = encode_job(QUEUE, "noop", [7]).split(b"7")
    script = client.register_script(_FILL)
    for first in range(0, jobs, _A_SECOND):
        second = since + first // _A_SECOND
        keys = f"resque:delayed:{second}", "resque:delayed_queue_schedule"
        script(args=[first, min(_A_SECOND, jobs - first), second, *keys, head, tail])


class Watch:
    """Looks at Redis while jobs are promoted."""

    def __init__(self, client: Any, jobs: int) -> None:
        self._client, self._jobs = client, jobs
        self._due: float | None = None
        self._keys: list[bytes] = []
        self.late: list[float] = []
        self.lease = float("inf")

    def look(self) -> int:
        """Look once; return how many jobs have been promoted."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.llen(f"resque:queue:{QUEUE}")
        pipeline.time()
        pipeline.lpop(f"resque:queue:{_LATE_QUEUE}")
        for key in self._leases():
            pipeline.pttl(key)
        promoted, (seconds, us), came, *left = pipeline.execute()
        self.lease = min([self.lease, *(each / 1000 for each in left if each >= 0)])
        self._schedule(seconds + us / 1e6, came=came, over=promoted >= self._jobs)
        return int(promoted)

    @property
    def waits(self) -> bool:
        """Return whether a job that was scheduled meanwhile has not come yet."""
        return self._due is not None

    def _leases(self) -> list[bytes]:
        if len(self._keys) < 2:  # the master's name is known when it has begun
            self._keys = [b"resque:fr:leader", *self._client.keys("resque:fr:master:*")]
        return self._keys

    def _schedule(self, now: float, *, came: bytes | None, over: bool) -> None:
        if came is not None and self._due is not None:
            self.late.append(max(0.0, now - self._due))
            self._due = None
        if self._due is None and not over:
            second = int(now) + _AHEAD
            payload = encode_job(_LATE_QUEUE, "noop", [second])
            pipeline = self._client.pipeline()
            pipeline.rpush(f"resque:delayed:{second}", payload)
            pipeline.zadd("resque:delayed_queue_schedule", {str(second): second})
            pipeline.sadd(b"resque:timestamps:" + payload, f"delayed:{second}")
            pipeline.execute()
            self._due = float(second)


def promote(contestant: Contestant, fill_with: Callable[[Stage], int]) -> Promoted:
    """Let a contestant promote what `fill_with` has scheduled."""
    with Stage(contestant, workers=1) as stage, stage.server.client() as client:
        jobs = fill_with(stage)
        watch = Watch(client, jobs)
        stage.start()
        deadline = time.monotonic() + LIMIT
        while (promoted := watch.look()) == 0:
            _in_time(stage, deadline)
        first, already = stage.read(), promoted
        while (promoted := watch.look()) < jobs:
            _in_time(stage, deadline)
        last = stage.read()
        while watch.waits and contestant.group is Group.OURS:  # node-resque looks every 5 s
            watch.look()
            _in_time(stage, deadline)
        done, seconds = promoted - already, last.clocks.at - first.clocks.at
        return Promoted(
            rate=done / seconds,
            late=tuple(watch.late),
            lease=watch.lease,
            cpu_us=(last.workers - first.workers) / done * 1e6,
            redis_us=(last.redis - first.redis) / done * 1e6,
        )


def _in_time(stage: Stage, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise RunFailed(f"it has not promoted all\n{stage.said()}")
    time.sleep(_LOOK)


def masters() -> Contestant:
    """Return forkresque with a worker that leaves the promoted jobs alone."""
    command = [sys.executable, "-m", "forkresque", "start", "-A", "bench.peers.forkresque_jobs"]
    return _variant("forkresque", [*command, "-q", "other", "-c", "1", "--log-level", "error"])


def _variant(name: str, command: list[str]) -> Contestant:
    usual = roster.named(name)
    return Contestant(
        name=name,
        group=usual.group,
        setting="its scheduler; node-resque's looks after half a second, not five",
        start=lambda _workers: [command],
        produce=usual.produce,
        kinds=usual.kinds,
        pace=usual.pace,
        environment={"BENCH_POLL": "500"},  # its rate is told from the first job on
        needs=usual.needs,
        versions=usual.versions,
    )


def _filled(jobs: int) -> Callable[[Stage], int]:
    def fill_with(stage: Stage) -> int:
        with stage.server.client() as client:
            fill(client, jobs)
        return jobs

    return fill_with


def _filled_by_node(jobs: int) -> Callable[[Stage], int]:
    def fill_with(stage: Stage) -> int:
        producer = stage.contestant.produce[:-1]
        stage.spawn([*producer, "overdue", str(jobs)]).wait(LIMIT)
        stage.processes.clear()
        return jobs

    return fill_with


def measure(plan: Plan, report: Report) -> None:
    """Ask forkresque with many, and node-resque with fewer."""
    jobs = _JOBS[plan.full]
    fills = {"forkresque": _filled(jobs), "node-resque": _filled_by_node(_NODE_JOBS[plan.full])}
    who = {each.name: each for each in plan.contestants if each.name in fills}
    variants = {"forkresque": masters()}
    if "node-resque" in who:
        node = who["node-resque"].start(1)[0]
        variants["node-resque"] = _variant("node-resque", [*node[:-1], "scheduler"])
    found = heats(
        [variants[name] for name in who],
        plan.rounds,
        lambda each: promote(each, fills[each.name]),
        report,
    )
    report.table(
        f"Promotion of {jobs:,} overdue jobs (node-resque: {_NODE_JOBS[plan.full]:,})",
        [
            "",
            "promotions/s",
            "due meanwhile: late s, p50",
            "max",
            "least lease s",
            "CPU us",
            "Redis",
        ],
        [_row(each, runs) for each, runs in found],
    )
    for each, runs in found:
        rate = Spread.of([run.rate for run in runs])
        report.figure(each.name, rate=rate.as_json(), late=json.dumps([run.late for run in runs]))
    mine, peers = found[0][1], found[1:]
    rates = [run.rate for run in mine]
    rivals = {each.name: [run.rate for run in runs] for each, runs in peers}
    told = f"with {jobs:,} overdue; {beside(rates, rivals, best=max)}"
    verdict = at_least("promotions a second", median(rates), _FLOOR, form=",.0f", against=told)
    report.verdict(verdict)


def _row(contestant: Contestant, runs: list[Promoted]) -> list[str]:
    late = [each for run in runs for each in run.late]
    lease = min(run.lease for run in runs)
    return [
        contestant.name,
        Spread.of([run.rate for run in runs]).told(),
        f"{median(late):.2f}" if late else "-",
        f"{max(late):.2f}" if late else "-",
        f"{lease:.1f}" if lease != float("inf") else "-",
        f"{median(run.cpu_us for run in runs):,.1f}",
        f"{median(run.redis_us for run in runs):,.1f}",
    ]


QUESTION = Question(
    *("promotion", "Promotion of overdue jobs", measure, ("node-resque",), ("node-resque",))
)

if __name__ == "__main__":
    QUESTION.main()

"""The oracle: once all is at rest, was every job accounted for, exactly once?

It trusts no process. The audit stream says how each claim ended, written by the very script that
ended it; the places in Redis say where each job is now; the ledger, which no fault touches, says
which jobs ran. All three must tell one story. Reading is apart from judging, so that the judge
itself can be tried.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forkresque.protocol.failure import parse_failure
from forkresque.protocol.payload import digest
from tests.support.report import Report
from tests.support.site import KEYS, Site

AUDIT = 2_000_000  # entries to keep; the oracle refuses a stream that has been cut
PAGE = 10_000

RETURNS = frozenset({"REQUEUED", "REQUEUE", "RELEASE", "RETRY"})  # the job will run again
GONE = frozenset({"DONE", "DROP"})  # the job is nowhere any more
INTO_FAILED = frozenset({"FAIL", "FAILED", "POISON", "FOREIGN"})
COUNTED_FAILED = frozenset({"FAIL", "RETRY", "FAILED", "POISON"})


@dataclass(frozen=True, slots=True)
class Event:
    """How one claim ended. `at` is when, in seconds of Redis' clock."""

    at: float
    event: str
    worker: str
    token: str
    job: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What Redis and the ledger hold. Jobs are named by their digests, runs by marks."""

    events: Sequence[Event]  # in the order in which they happened
    placed: Counter[str]  # jobs in queues and delayed buckets
    failed: Counter[str]
    in_hand: Sequence[str]  # slots that are not empty
    processed_count: int
    failed_count: int
    runs: Counter[str]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the oracle found; `complaints` is empty if every promise was kept."""

    lost: int
    doubled: int
    reruns: int
    complaints: Sequence[str]


def read(site: Site, queues: Sequence[str] = ("math",)) -> Evidence:
    """Read all evidence. Nothing may work meanwhile."""
    placed = Counter[str]()
    seconds = [int(second) for second in site.redis.zrange(KEYS.schedule(), 0, -1)]
    for key in [*map(KEYS.queue, queues), *map(KEYS.delayed, seconds)]:
        placed.update(digest(raw) for raw in _pages(site.redis, key))
    return Evidence(
        events=list(events(site.redis)),
        placed=placed,
        failed=Counter(
            digest(parse_failure(entry).payload) for entry in _pages(site.redis, KEYS.failed())
        ),
        in_hand=[
            key.decode() for key in site.redis.scan_iter(match=KEYS.slot("") + b"*", count=PAGE)
        ],
        processed_count=site.count("processed"),
        failed_count=site.count("failed"),
        runs=Counter(mark.decode() for mark in _pages(site.ledger, "runs")),
    )


def judge(evidence: Evidence, acknowledged: Mapping[bytes, str], *, faults: int) -> Judgement:
    """Compare the evidence with what was acknowledged: payloads, all different, and their marks.

    A job whose mark is "" tells nothing to the ledger. `faults` is how many kills, cuts and other
    faults there were; no more runs than that may have been repeated.
    """
    marks = {digest(raw): mark for raw, mark in acknowledged.items()}
    assert len(marks) == len(acknowledged), "equal jobs cannot be told apart"
    gone = Counter(event.job for event in evidence.events if event.event in GONE)
    places = gone + evidence.placed + evidence.failed
    lost = [job for job in marks if not places[job]]
    doubled = [job for job, number in places.items() if number > 1]
    again = {mark: number - 1 for mark, number in evidence.runs.items() if number > 1}
    complaints = [
        *_list("lost", lost),
        *_list("accounted for twice", doubled),
        *_list("never acknowledged, but somewhere", places.keys() - marks.keys()),
        *_list("still in hand", evidence.in_hand),
        *_of_claims(evidence.events),
        *_of_runs(evidence, marks),
        *_of_counters(evidence),
    ]
    if sum(again.values()) > faults:
        complaints.append(f"{sum(again.values())} runs repeated after {faults} faults")
    return Judgement(len(lost), len(doubled), sum(again.values()), complaints)


def prove(
    site: Site, acknowledged: Mapping[bytes, str], report: Report, *, faults: int
) -> Evidence:
    """Read the evidence, add what it says to the report, and fail unless it is spotless."""
    evidence = read(site)
    judgement = judge(evidence, acknowledged, faults=faults)
    report.count("jobs", len(acknowledged))
    report.count("lost", judgement.lost)
    report.count("doubled", judgement.doubled)
    report.count("re-runs", judgement.reruns)
    print(f"faults={faults} failed={evidence.failed.total()} {judgement}")
    assert judgement.complaints == []
    return evidence


def events(redis: Any) -> Iterator[Event]:
    """Yield all audit events, oldest first. Fails if the stream was not kept whole."""
    if not redis.exists(KEYS.audit()):
        return
    about = redis.xinfo_stream(KEYS.audit())
    assert about["entries-added"] == about["length"], "the audit stream has been cut"
    after = "-"
    while page := redis.xrange(KEYS.audit(), min=after, count=PAGE):
        for number, told in page:
            yield Event(
                at=int(number.split(b"-")[0]) / 1000,
                event=told[b"event"].decode(),
                worker=told[b"worker"].decode(),
                token=told[b"token"].decode(),
                job=told[b"job"].decode(),
            )
        after = f"({page[-1][0].decode()}"


def _of_claims(told: Sequence[Event]) -> Iterator[str]:
    """Each claim ends once, and a job's last claim is the only one that ends it."""
    tokens = Counter(event.token for event in told)
    yield from _list("claims ended twice", [token for token, n in tokens.items() if n > 1])
    story: dict[str, list[str]] = defaultdict(list)
    for event in told:
        story[event.job].append(event.event)
    known = RETURNS | GONE | INTO_FAILED
    wrong = [
        f"{job}: {' '.join(words)}"
        for job, words in story.items()
        if not RETURNS.issuperset(words[:-1]) or words[-1] not in known
    ]
    yield from _list("went on after their end", wrong)


def _of_runs(evidence: Evidence, marks: Mapping[str, str]) -> Iterator[str]:
    """Each run belongs to a claim, so before a second run the first claim was given back."""
    claims = Counter[str]()
    done = set[str]()
    for event in evidence.events:
        mark = marks.get(event.job, "")
        claims[mark] += 1
        if event.event == "DONE":
            done.add(mark)
    runs = evidence.runs
    yield from _list("ran without being acknowledged", runs.keys() - set(marks.values()))
    yield from _list(
        "ran again without being recovered between",
        [
            f"{mark}: {n} runs, {claims[mark]} claims"
            for mark, n in runs.items()
            if n > claims[mark]
        ],
    )
    yield from _list("done without a run", [mark for mark in done if mark and not runs[mark]])


def _of_counters(evidence: Evidence) -> Iterator[str]:
    """The counters and the failed list agree with the audit."""
    told = Counter(event.event for event in evidence.events)
    pairs = {
        "processed": (evidence.processed_count, told["DONE"]),
        "failed": (evidence.failed_count, sum(told[word] for word in COUNTED_FAILED)),
        "failure records": (
            evidence.failed.total(),
            sum(told[word] for word in INTO_FAILED),
        ),
    }
    for name, (found, audited) in pairs.items():
        if found != audited:
            yield f"{name}: {found}, by the audit {audited}"


def _list(what: str, jobs: Any) -> Iterator[str]:
    some = sorted(jobs)
    if some:
        yield f"{len(some)} {what}: {some[:5]}"


def _pages(redis: Any, key: bytes | str) -> Iterator[bytes]:
    for start in range(0, redis.llen(key), PAGE):
        yield from redis.lrange(key, start, start + PAGE - 1)

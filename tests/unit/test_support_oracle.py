"""The oracle must find every fault there is to find: each is put into evidence that is spotless."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from forkresque.protocol.payload import digest
from tests.support.oracle import Event, Evidence, judge

ACKNOWLEDGED = {b"done": "done", b"again": "again", b"bad": "bad", b"waiting": "waiting"}
DONE, AGAIN, BAD, WAITING = map(digest, ACKNOWLEDGED)
FAULTS = 1

SPOTLESS = Evidence(
    events=[
        Event(1.0, "DONE", "w", "t1", DONE),
        Event(2.0, "REQUEUED", "w", "t2", AGAIN),
        Event(3.0, "DONE", "w", "t3", AGAIN),
        Event(4.0, "FAIL", "w", "t4", BAD),
    ],
    placed=Counter({WAITING: 1}),
    failed=Counter({BAD: 1}),
    in_hand=[],
    processed_count=2,
    failed_count=1,
    runs=Counter({"done": 1, "again": 2, "bad": 1}),
)


def without(evidence: Evidence, token: str) -> Evidence:
    return replace(evidence, events=[one for one in evidence.events if one.token != token])


def with_event(evidence: Evidence, event: str, token: str, job: str) -> Evidence:
    return replace(evidence, events=[*evidence.events, Event(9.0, event, "w", token, job)])


def counting(evidence: Evidence, *, processed: int = 0, failed: int = 0) -> Evidence:
    return replace(
        evidence,
        processed_count=evidence.processed_count + processed,
        failed_count=evidence.failed_count + failed,
    )


FLAWS: dict[str, Callable[[Evidence], Evidence]] = {
    "lost": lambda seen: replace(seen, placed=Counter()),
    "accounted for twice": lambda seen: replace(seen, placed=Counter({WAITING: 1, DONE: 1})),
    "never acknowledged": lambda seen: replace(seen, placed=seen.placed + Counter(["stranger"])),
    "still in hand": lambda seen: replace(seen, in_hand=["slot"]),
    "claims ended twice": lambda seen: with_event(seen, "RELEASE", "t1", WAITING),
    "went on after their end": lambda seen: with_event(seen, "REQUEUED", "t9", DONE),
    "ran without being acknowledged": lambda seen: replace(seen, runs=seen.runs + Counter(["x"])),
    "ran again without being recovered": lambda seen: without(seen, "t2"),
    "done without a run": lambda seen: replace(seen, runs=seen.runs - Counter(["done"])),
    "processed: 3, by the audit 2": lambda seen: counting(seen, processed=1),
    "failed: 2, by the audit 1": lambda seen: counting(seen, failed=1),
    "failure records: 1, by the audit 0": lambda seen: without(seen, "t4"),
}


def test_spotless_evidence_is_accepted() -> None:
    judgement = judge(SPOTLESS, ACKNOWLEDGED, faults=FAULTS)

    assert judgement.complaints == []
    assert (judgement.lost, judgement.doubled, judgement.reruns) == (0, 0, 1)


@pytest.mark.parametrize(("complaint", "flaw"), FLAWS.items(), ids=FLAWS)
def test_a_flaw_is_found(complaint: str, flaw: Callable[[Evidence], Evidence]) -> None:
    complaints = judge(flaw(SPOTLESS), ACKNOWLEDGED, faults=FAULTS).complaints

    assert any(complaint in one for one in complaints), complaints


def test_more_repeated_runs_than_faults_are_found() -> None:
    complaints = judge(SPOTLESS, ACKNOWLEDGED, faults=0).complaints

    assert complaints == ["1 runs repeated after 0 faults"]


def test_a_failure_that_is_recorded_twice_is_found() -> None:
    twice = replace(SPOTLESS, failed=Counter({BAD: 2}))

    assert judge(twice, ACKNOWLEDGED, faults=FAULTS).doubled == 1

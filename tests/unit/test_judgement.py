"""Which child is stuck, frozen, overdue or too large, and what becomes of it."""

import math

import pytest

from forkresque.policy.child import Action, Child, Doing, Dump, Facts, Fault, Kill, Kind, Rouse
from forkresque.policy.judgement import (
    CLERK_SILENCE,
    DUMP_GRACE,
    FROZEN_AFTER,
    LEAST_FROZEN,
    REPORT_AFTER,
    ROUSE_GRACE,
    Judge,
)

MEGABYTE = 1 << 20


def child(kind: Kind = Kind.WORKER, *, fault: Fault = Fault.NONE) -> Child:
    return Child(1, kind, 0.0, fault=fault)


def judged(judge: Judge, one: Child, seen: Facts, now: float = 1000.0) -> list[Action]:
    return list(judge.judge(one, seen, now))


def carried_out(one: Child, now: float, doing: Doing = Doing.IDLE) -> list[Action]:
    return list(Judge().carry_out(one, Facts(doing, 0.0), now))


@pytest.mark.parametrize("kind", [Kind.WORKER, Kind.CLERK])
def test_a_boot_may_take_its_time_and_no_longer(kind: Kind) -> None:
    judge, one, seen = Judge(boot_timeout=30.0), child(kind), Facts(Doing.BOOT, 1e9)

    assert judged(judge, one, seen, 30.0) == []
    assert judged(judge, one, seen, 30.1) == [Dump(1, Fault.BOOT)]
    assert judged(judge, one, seen, 30.2) == []
    assert one.kill_at == 30.1 + DUMP_GRACE


def test_a_worker_that_waits_for_redis_has_booted() -> None:
    judge, one = Judge(boot_timeout=30.0), child(Kind.WORKER)
    one.ready = True

    assert judged(judge, one, Facts(Doing.BOOT, FROZEN_AFTER), 1000.0) == []
    assert judged(judge, one, Facts(Doing.BOOT, FROZEN_AFTER + 1), 1000.0) == [
        Dump(1, Fault.SILENT)
    ]


@pytest.mark.parametrize(
    ("timeout", "after"),
    [
        (0.0, FROZEN_AFTER),
        (300.0, FROZEN_AFTER),
        (60.0, 60.0),
        (20.0, 20.0),
        (LEAST_FROZEN, LEAST_FROZEN),
        (1.0, LEAST_FROZEN),
    ],
)
def test_a_worker_without_a_job_is_frozen_after_a_minute_or_the_timeout(
    timeout: float, after: float
) -> None:
    judge, one = Judge(heartbeat_timeout=timeout), child()

    assert judged(judge, one, Facts(Doing.IDLE, after)) == []
    assert judged(judge, one, Facts(Doing.IDLE, after + 0.1)) == [Dump(1, Fault.SILENT)]


def test_a_clerk_is_not_roused_but_killed() -> None:
    one = child(Kind.CLERK)

    assert judged(Judge(), one, Facts(Doing.SETTLE, CLERK_SILENCE)) == []
    assert judged(Judge(), one, Facts(Doing.SETTLE, CLERK_SILENCE + 0.1)) == [Dump(1, Fault.SILENT)]
    assert one.rouse_at == math.inf
    assert carried_out(one, 1000.0 + DUMP_GRACE) == [Kill(1, Fault.SILENT)]


@pytest.mark.parametrize("doing", list(Doing))
def test_nobody_judges_the_watcher(doing: Doing) -> None:
    assert judged(Judge(), child(Kind.WATCHER), Facts(doing, 1e9, soft_in=-1, hard_in=-1)) == []


def test_a_job_is_overdue_at_its_hard_limit_whether_it_beats_or_not() -> None:
    assert judged(Judge(), child(), Facts(Doing.RUN, 0.0, hard_in=0.1)) == []
    assert judged(Judge(), child(), Facts(Doing.RUN, 0.0, hard_in=0.0)) == [Dump(1, Fault.OVERDUE)]
    silent = Facts(Doing.RUN, 1e9, hard_in=0.0)
    assert judged(Judge(), child(), silent) == [Dump(1, Fault.OVERDUE)]


@pytest.mark.parametrize("doing", [Doing.IDLE, Doing.CALL, Doing.RUN, Doing.SETTLE, Doing.LEAVE])
def test_a_worker_is_too_large_beyond_twice_its_memory(doing: Doing) -> None:
    judge = Judge(max_memory=100 * MEGABYTE)

    assert judged(judge, child(), Facts(doing, 0.0, grows=200 * MEGABYTE)) == []
    large = Facts(doing, 0.0, grows=200 * MEGABYTE + 1)
    assert judged(judge, child(), large) == [Dump(1, Fault.TOO_LARGE)]
    assert judged(Judge(), child(), large) == []
    assert judged(judge, child(Kind.CLERK), large) == []


def test_what_it_had_grown_by_after_its_last_job_is_no_reason_to_kill() -> None:
    grown = Facts(Doing.IDLE, 0.0, grown=1000 * MEGABYTE)

    assert judged(Judge(max_memory=100 * MEGABYTE), child(), grown) == []


def test_each_silent_job_is_reported_once() -> None:
    one = child()

    told = [
        judged(Judge(), one, Facts(Doing.RUN, silent, epoch))
        for epoch, silent in [(0, REPORT_AFTER), (0, 61.0), (0, 62.0), (1, 0.0), (1, 61.0), (1, 99)]
    ]

    assert told == [[], [Dump(1, Fault.NONE)], [], [], [Dump(1, Fault.NONE)], []]
    assert one.kill_at == math.inf


def test_who_will_be_killed_is_not_reported() -> None:
    condemned = child(fault=Fault.CUT)

    assert judged(Judge(), condemned, Facts(Doing.RUN, 61.0)) == []
    assert judged(Judge(), condemned, Facts(Doing.RUN, 301.0)) == []


def test_a_frozen_worker_gives_its_stacks_is_roused_and_then_killed_each_once() -> None:
    one = child()
    judged(Judge(), one, Facts(Doing.IDLE, 61.0), 1000.0)

    moments = [0.0, DUMP_GRACE - 0.1, DUMP_GRACE, DUMP_GRACE + 0.1, ROUSE_GRACE, ROUSE_GRACE + 1]
    told = [carried_out(one, 1000.0 + moment) for moment in moments]

    assert told == [[], [], [Rouse(1)], [], [Kill(1, Fault.SILENT)], []]


def test_a_master_that_slept_rouses_and_kills_at_once() -> None:
    one = child()
    judged(Judge(), one, Facts(Doing.IDLE, 61.0), 1000.0)

    assert carried_out(one, 1010.0) == [Rouse(1), Kill(1, Fault.SILENT)]


def test_a_fault_gives_nobody_more_time() -> None:
    one = child()
    one.kill_at = 1000.1

    judged(Judge(), one, Facts(Doing.IDLE, 61.0), 1000.0)

    assert one.kill_at == 1000.1


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.CUT_OFF])
@pytest.mark.parametrize(
    ("doing", "cut"),
    [(Doing.RUN, True), (Doing.SETTLE, True), (Doing.IDLE, False), (Doing.LEAVE, False)],
)
def test_a_job_was_cut_if_there_was_one(fault: Fault, doing: Doing, *, cut: bool) -> None:
    one = child(fault=fault)
    one.kill_at = 5.0

    assert carried_out(one, 5.0, doing) == [Kill(1, fault)]
    assert one.cut is cut


def test_a_job_that_is_killed_for_its_own_fault_was_not_cut() -> None:
    one = child(fault=Fault.STUCK)
    one.kill_at = 5.0

    assert carried_out(one, 5.0, Doing.RUN) == [Kill(1, Fault.STUCK)]
    assert not one.cut

"""The crew's decisions, case by case. `test_crew_in_trouble` lives through many."""

import math
from collections.abc import Iterable

import pytest

from forkresque.policy.child import (
    Action,
    Baton,
    Dismiss,
    Doing,
    Dump,
    Facts,
    Fault,
    Interrupt,
    Kill,
    Kind,
    Release,
    Rouse,
    Spawn,
)
from forkresque.policy.crew import BOOKS_GRACE, Crew
from forkresque.policy.judgement import CLERK_SILENCE, DUMP_GRACE, FROZEN_AFTER, ROUSE_GRACE, Judge
from forkresque.policy.renewal import Renewal
from tests.support.crews import (
    CLERK,
    booting,
    born,
    facts_of,
    idle,
    new_crew,
    planned,
    ready_crew,
    resize,
    running,
)


def test_a_pool_whose_children_are_well_has_nothing_to_do() -> None:
    crew = ready_crew()

    assert planned(crew, 10.0) == []
    assert crew.next_step_at(10.0, facts_of(crew)) == math.inf


def test_a_crashed_worker_that_was_ready_is_replaced_at_once() -> None:
    crew = ready_crew()

    crew.died(1, 10.0, jitter=0.5)

    assert planned(crew, 10.0) == [Spawn(1, Kind.WORKER)]


def test_a_worker_that_dies_in_boot_is_replaced_after_a_pause() -> None:
    crew = new_crew(1, seats=5)
    crew.spawned(Spawn(0, Kind.CLERK), 0.0)
    crew.got_ready(0)
    crew.spawned(Spawn(1, Kind.WORKER), 0.0)

    crew.died(1, 1.0, jitter=1.0)

    assert planned(crew, 1.0) == []
    assert crew.next_step_at(1.0, facts_of(crew)) == pytest.approx(1.1)
    assert planned(crew, 1.1) == [Spawn(1, Kind.WORKER)]


def test_the_first_worker_that_gets_ready_ends_the_pause_for_all() -> None:
    crew = new_crew(4, seats=8)
    crew.spawned(Spawn(0, Kind.CLERK), 0.0)
    crew.got_ready(0)
    for seat in range(1, 5):
        crew.spawned(Spawn(seat, Kind.WORKER), 0.0)
        crew.died(seat, 1.0, jitter=1.0)
    booting = {1: Facts(Doing.BOOT, 0.0)}
    assert planned(crew, 10.0) == [Spawn(1, Kind.WORKER)]
    crew.spawned(Spawn(1, Kind.WORKER), 10.0)
    assert planned(crew, 10.1, booting) == []

    crew.got_ready(1)

    assert planned(crew, 10.2) == [Spawn(seat, Kind.WORKER) for seat in (2, 3, 4)]


def test_a_worker_that_was_dismissed_in_boot_is_no_boot_failure() -> None:
    crew = ready_crew(1)
    resize(crew, +1)
    crew.spawned(Spawn(2, Kind.WORKER), 1.0)
    resize(crew, -1)
    crew.dismissed(2, 1.0)
    crew.died(2, 1.1, jitter=1.0)

    resize(crew, +1)

    assert planned(crew, 1.1) == [Spawn(2, Kind.WORKER)]


def test_a_fork_that_the_kernel_refuses_is_tried_again_after_a_pause() -> None:
    crew = new_crew(1, seats=5)
    crew.spawned(Spawn(0, Kind.CLERK), 0.0)

    crew.spawn_failed(Spawn(1, Kind.WORKER), 1.0, jitter=0.0)

    assert planned(crew, 1.049) == []
    assert planned(crew, 1.051) == [Spawn(1, Kind.WORKER)]


def test_a_stop_lets_jobs_run_for_its_time_then_interrupts_and_then_kills_them() -> None:
    crew, job = ready_crew(), {1: running(epoch=7)}

    crew.stop(100.0, 5.0)

    assert planned(crew, 100.0, job) == [Dismiss(2), Dismiss(1)]
    assert crew.next_step_at(100.0, facts_of(crew)) == 105.0
    crew.died(2, 100.1, jitter=0.5)
    assert planned(crew, 104.9, job) == []
    assert planned(crew, 105.0, job) == [Interrupt(1, 7, overdue=False)]
    assert planned(crew, 105.1, job) == []
    assert planned(crew, 106.9, job) == []
    assert crew.next_step_at(106.9, facts_of(crew)) == 107.0
    assert planned(crew, 107.0, job) == [Kill(1, Fault.CUT)]
    assert planned(crew, 107.1, job) == []
    assert crew.died(1, 107.2, jitter=0.5).cut
    assert crew.cuts == 1


def test_the_clerk_leaves_last_when_the_deaths_are_settled() -> None:
    crew = ready_crew(1)
    crew.stop(0.0, 5.0)
    planned(crew, 0.0)

    crew.died(1, 1.0, jitter=0.5)
    crew.unsettled_deaths = 1
    assert planned(crew, 1.0) == []
    crew.unsettled_deaths = 0
    assert planned(crew, 1.1) == [Dismiss(CLERK)]
    assert planned(crew, 1.2) == []
    assert not crew.finished
    crew.died(CLERK, 1.2, jitter=0.5)

    assert crew.finished
    assert crew.cuts == 0


def test_a_clerk_that_does_not_leave_is_killed() -> None:
    crew = ready_crew(1)
    crew.stop(0.0, 5.0)
    planned(crew, 0.0)
    crew.died(1, 1.0, jitter=0.5)

    assert planned(crew, 1.0) == [Dismiss(CLERK)]
    assert planned(crew, 1.0 + BOOKS_GRACE) == [Kill(CLERK, Fault.BOOKS)]


def test_a_clerk_that_dies_during_a_drain_is_replaced() -> None:
    crew, job = ready_crew(1), {1: running()}
    crew.stop(0.0, 25.0)
    planned(crew, 0.0, job)

    crew.died(CLERK, 1.0, jitter=0.5)

    assert planned(crew, 1.0, job) == [Spawn(CLERK, Kind.CLERK)]


def test_a_stop_does_not_wait_for_books_that_nobody_can_finish() -> None:
    crew = ready_crew(1)
    crew.stop(0.0, 5.0)
    planned(crew, 0.0)
    crew.died(1, 1.0, jitter=0.5)
    crew.unsettled_deaths = 1  # and Redis is away, so it stays so

    actions: list[Action] = []
    for tenth in range(10, 10 + 50):
        actions += planned(crew, tenth / 10)

    assert actions[-1] == Kill(CLERK, Fault.BOOKS)


def test_a_stop_does_not_wait_for_a_boot_that_hangs() -> None:
    crew = ready_crew(1)
    crew.spawned(Spawn(2, Kind.WORKER), 0.0)
    crew.stop(1.0, 5.0)
    booting = {2: Facts(Doing.BOOT, 1.0)}
    planned(crew, 1.0, booting)
    crew.died(1, 1.1, jitter=0.5)

    actions = [action for second in range(2, 11) for action in planned(crew, second, booting)]

    assert Kill(2, Fault.CUT) in actions


def test_a_second_stop_shortens_the_first() -> None:
    crew, job = ready_crew(1), {1: running()}
    crew.stop(0.0, 25.0)
    planned(crew, 0.0, job)

    crew.stop(3.0, 1.0)

    assert planned(crew, 3.9, job) == []
    assert planned(crew, 4.0, job) == [Interrupt(1, 1, overdue=False)]
    assert planned(crew, 6.0, job) == [Kill(1, Fault.CUT)]


def test_a_second_stop_never_gives_more_time() -> None:
    crew, job = ready_crew(1), {1: running()}
    crew.stop(0.0, 5.0)
    planned(crew, 0.0, job)

    crew.stop(1.0, math.inf)
    crew.stop(2.0, 25.0)

    assert planned(crew, 5.0, job) == [Interrupt(1, 1, overdue=False)]


def test_a_stop_without_a_limit_waits_for_the_job_however_long_it_takes() -> None:
    crew, job = ready_crew(1), {1: running()}
    crew.stop(0.0, math.inf)

    assert planned(crew, 0.0, job) == [Dismiss(1)]
    assert planned(crew, 1e6, job) == []


def test_an_end_kills_all_workers_at_once_and_leaves_the_clerk_its_books() -> None:
    crew, job = ready_crew(), {1: running()}

    crew.end(3.0)

    assert planned(crew, 3.0, job) == [
        Dismiss(2),
        Dismiss(1),
        Kill(1, Fault.CUT),
        Kill(2, Fault.CUT),
    ]
    crew.died(1, 3.0, jitter=0.5)
    crew.died(2, 3.0, jitter=0.5)
    assert planned(crew, 3.0) == [Dismiss(CLERK)]


def test_an_end_during_a_drain_kills_at_once() -> None:
    crew, job = ready_crew(1), {1: running()}
    crew.stop(0.0, 25.0)
    planned(crew, 0.0, job)

    crew.end(3.0)

    assert planned(crew, 3.0, job) == [Kill(1, Fault.CUT)]


def test_a_worker_that_leaves_when_asked_has_not_been_cut() -> None:
    crew = ready_crew(1)
    crew.stop(0.0, 0.0)

    planned(crew, 0.0)
    planned(crew, 0.1, {1: Facts(Doing.LEAVE, 0.0)})  # it unregisters
    crew.died(1, 0.2, jitter=0.5)

    assert crew.cuts == 0


def test_a_dismissal_gives_a_silent_clerk_no_more_time() -> None:
    crew, silent = ready_crew(1), {CLERK: Facts(Doing.SETTLE, CLERK_SILENCE + 0.1)}
    crew.stop(0.0, 5.0)
    planned(crew, 0.0)

    assert planned(crew, 1.0, silent) == [Dump(CLERK, Fault.SILENT)]
    crew.died(1, 1.1, jitter=0.5)
    planned(crew, 1.1, silent)

    last = planned(crew, 1.0 + DUMP_GRACE, silent)
    assert [type(action) for action in last] == [Kill]


def test_a_job_over_its_limit_is_interrupted_once_and_killed_at_the_hard_limit() -> None:
    crew = ready_crew(1)

    assert planned(crew, 1.0, {1: running(4, soft_in=0.1, hard_in=10.1)}) == []
    assert planned(crew, 1.1, {1: running(4, soft_in=0.0, hard_in=10.0)}) == [
        Interrupt(1, 4, overdue=True)
    ]
    assert planned(crew, 2.0, {1: running(4, soft_in=-1.0, hard_in=9.0)}) == []
    assert planned(crew, 11.0, {1: running(4, soft_in=-10.0, hard_in=0.0)}) == [
        Dump(1, Fault.OVERDUE)
    ]
    assert planned(crew, 11.4, {1: running(4, soft_in=-10.4, hard_in=-0.4)}) == []
    assert planned(crew, 11.5, {1: running(4, soft_in=-10.5, hard_in=-0.5)}) == [
        Kill(1, Fault.OVERDUE)
    ]
    assert not crew.died(1, 11.6, jitter=0.5).cut


def test_each_job_over_its_limit_is_interrupted_once() -> None:
    crew = ready_crew(1)

    interrupts = [
        planned(crew, float(epoch), {1: running(epoch, soft_in=-0.1)}) for epoch in (1, 1, 2, 2, 3)
    ]

    assert interrupts == [
        [Interrupt(1, 1, overdue=True)],
        [],
        [Interrupt(1, 2, overdue=True)],
        [],
        [Interrupt(1, 3, overdue=True)],
    ]


def test_a_job_without_a_sign_of_life_is_reported_and_stuck_after_the_timeout() -> None:
    crew = ready_crew(1, judge=Judge(heartbeat_timeout=300.0))

    assert planned(crew, 60.0, {1: running(silent=60.0)}) == []
    assert planned(crew, 61.0, {1: running(silent=61.0)}) == [Dump(1, Fault.NONE)]
    assert planned(crew, 300.0, {1: running(silent=300.0)}) == []
    assert planned(crew, 301.0, {1: running(silent=301.0)}) == [Dump(1, Fault.STUCK)]
    assert planned(crew, 301.5, {1: running(silent=301.5)}) == [Kill(1, Fault.STUCK)]
    assert planned(crew, 302.0, {1: running(silent=302.0)}) == []


def test_without_a_heartbeat_timeout_no_job_is_stuck_but_each_is_reported_once() -> None:
    crew = ready_crew(1, judge=Judge(heartbeat_timeout=0.0))

    reports = [planned(crew, 1e6, {1: running(epoch, silent=1e6)}) for epoch in (1, 1, 2, 2)]

    assert reports == [[Dump(1, Fault.NONE)], [], [Dump(1, Fault.NONE)], []]


def test_a_job_whose_worker_will_be_killed_is_not_reported_as_well() -> None:
    """Its stacks are the last words in its failure record; another dump would empty the file."""
    crew, silent = ready_crew(1, judge=Judge(heartbeat_timeout=40.0)), {1: running(silent=100.0)}

    assert planned(crew, 100.0, silent) == [Dump(1, Fault.STUCK)]
    assert planned(crew, 100.1, silent) == []


def test_a_boot_that_takes_too_long_ends_in_a_kill() -> None:
    crew = ready_crew(1)
    crew.spawned(Spawn(2, Kind.WORKER), 10.0)
    resize(crew, +1)
    booting = {2: Facts(Doing.BOOT, 0.0)}

    assert planned(crew, 70.0, booting) == []
    assert planned(crew, 70.1, booting) == [Dump(2, Fault.BOOT)]
    assert planned(crew, 70.6, booting) == [Kill(2, Fault.BOOT)]


@pytest.mark.parametrize("doing", [Doing.IDLE, Doing.CALL, Doing.SETTLE, Doing.LEAVE])
def test_a_worker_that_is_frozen_between_jobs_is_roused_and_then_killed(doing: Doing) -> None:
    crew, dumped_at = ready_crew(1), 60.1

    def after(seconds: float) -> list[Action]:
        return planned(crew, dumped_at + seconds, {1: Facts(doing, FROZEN_AFTER + 0.1 + seconds)})

    assert after(-0.1) == []
    assert after(0.0) == [Dump(1, Fault.SILENT)]
    assert after(DUMP_GRACE - 0.01) == []
    assert after(DUMP_GRACE) == [Rouse(1)]
    assert crew.next_step_at(61.0, facts_of(crew)) == dumped_at + ROUSE_GRACE
    assert after(ROUSE_GRACE - 0.01) == []
    assert after(ROUSE_GRACE) == [Kill(1, Fault.SILENT)]
    assert after(ROUSE_GRACE + 1.0) == []
    crew.died(1, 64.0, jitter=0.5)
    assert planned(crew, 64.0) == [Spawn(1, Kind.WORKER)]


def test_a_silent_clerk_is_killed_after_ten_seconds_and_replaced_at_once() -> None:
    crew = ready_crew(1)

    assert planned(crew, 10.0, {CLERK: Facts(Doing.SETTLE, 10.0)}) == []
    assert planned(crew, 10.1, {CLERK: Facts(Doing.SETTLE, 10.1)}) == [Dump(CLERK, Fault.SILENT)]
    assert planned(crew, 10.6, {CLERK: Facts(Doing.SETTLE, 10.6)}) == [Kill(CLERK, Fault.SILENT)]
    crew.died(CLERK, 10.7, jitter=0.5)
    assert planned(crew, 10.7) == [Spawn(CLERK, Kind.CLERK)]


@pytest.mark.parametrize(
    "seen",
    [
        {1: Facts(Doing.BOOT, 1e4)},
        {1: idle(1e4)},
        {1: running(silent=1e4)},
        {1: running(silent=1e4, hard_in=-1e4)},
        {CLERK: Facts(Doing.SETTLE, 1e4)},
    ],
)
def test_a_machine_that_stood_still_condemns_nobody(seen: dict[int, Facts]) -> None:
    crew = ready_crew(1)

    assert crew.plan(1e4, facts_of(crew, seen), late=True) == []
    assert crew.next_step_at(1e4, facts_of(crew)) == math.inf
    assert [type(action) for action in planned(crew, 1e4, seen)] == [Dump]


def test_one_worker_more_is_forked_at_once() -> None:
    crew = ready_crew()

    resize(crew, +1)

    assert planned(crew, 1.0) == [Spawn(3, Kind.WORKER)]


def test_one_worker_fewer_is_one_that_is_idle_and_the_oldest_of_these() -> None:
    crew = ready_crew(3)
    crew.children[2].born_at = 2.0
    crew.children[3].born_at = 1.0

    resize(crew, -1)

    assert planned(crew, 5.0, {1: running()}) == [Dismiss(3)]
    assert planned(crew, 5.1, {1: running()}) == []


def test_when_all_are_busy_one_leaves_after_its_job_and_is_not_cut() -> None:
    crew = ready_crew()
    busy = {1: running(), 2: running()}

    resize(crew, -1)

    assert planned(crew, 1.0, busy) == [Dismiss(1)]
    assert planned(crew, 1e4, busy) == []
    assert not crew.died(1, 1e4, jitter=0.5).cut
    assert planned(crew, 1e4, {2: running()}) == []


def test_a_pool_never_wants_fewer_than_one_worker_nor_more_than_it_has_seats() -> None:
    crew = ready_crew(2, seats=6)

    for _ in range(5):
        resize(crew, -1)
    assert crew.target == 1
    for _ in range(9):
        resize(crew, +1)
    assert crew.target == 4


def test_a_pool_that_stops_cannot_be_resized() -> None:
    crew = ready_crew()
    crew.stop(0.0, 5.0)

    resize(crew, +1)

    assert crew.target == 0


def test_a_seat_is_kept_free_for_the_clerk() -> None:
    crew = ready_crew(2, seats=3)
    crew.pools[0].allow(3)  # more than there are seats for
    assert planned(crew, 1.0) == []
    crew.children[CLERK].ready = False  # it dies in boot, so its successor has to wait

    crew.died(CLERK, 4.0, jitter=1.0)

    assert planned(crew, 4.0) == []
    assert planned(crew, 5.0) == [Spawn(CLERK, Kind.CLERK)]


def test_a_pool_whose_workers_are_idle_with_nobody_on_call_gets_one_baton() -> None:
    crew = ready_crew()

    assert crew.baton(0, facts_of(crew), pipe_empty=True) == [Baton()]
    assert crew.baton(0, facts_of(crew), pipe_empty=False) == []


@pytest.mark.parametrize(("silent", "batons"), [(0.0, 0), (5.9, 0), (6.0, 1), (60.0, 1)])
def test_who_is_on_call_counts_while_it_gives_signs_of_life(silent: float, batons: int) -> None:
    crew = ready_crew()

    given = crew.baton(0, facts_of(crew, {1: Facts(Doing.CALL, silent)}), pipe_empty=True)

    assert given == [Baton()] * batons


@pytest.mark.parametrize("doing", [Doing.BOOT, Doing.RUN, Doing.SETTLE, Doing.LEAVE])
def test_one_baton_waits_in_the_pipe_for_the_first_who_is_idle(doing: Doing) -> None:
    crew = ready_crew(1)
    facts = facts_of(crew, {1: Facts(doing, 0.0)})

    assert crew.baton(0, facts, pipe_empty=True) == [Baton()]
    assert crew.baton(0, facts, pipe_empty=False) == []


def test_a_worker_that_was_dismissed_is_not_on_call() -> None:
    crew = ready_crew()
    resize(crew, -1)
    planned(crew, 1.0, {2: running()})
    leaving = {1: Facts(Doing.CALL, 0.0)}

    assert crew.baton(0, facts_of(crew, leaving), pipe_empty=True) == [Baton()]


def test_a_pool_without_workers_gets_no_baton() -> None:
    crew = ready_crew(1)
    crew.died(1, 1.0, jitter=0.5)

    assert crew.baton(0, facts_of(crew), pipe_empty=True) == []


def test_a_paused_or_stopping_pool_gets_no_baton() -> None:
    paused, stopping = ready_crew(), ready_crew()
    paused.paused = True
    stopping.stop(0.0, 5.0)

    assert paused.baton(0, facts_of(paused), pipe_empty=True) == []
    assert stopping.baton(0, facts_of(stopping), pipe_empty=True) == []


def test_a_pause_dismisses_nobody() -> None:
    crew = ready_crew()
    crew.paused = True

    assert planned(crew, 1.0, {1: running()}) == []


def test_a_pool_that_cannot_boot_a_worker_forks_them_ever_more_slowly() -> None:
    crew, forks = new_crew(8, seats=12), []
    crew.spawned(Spawn(0, Kind.CLERK), 0.0)
    crew.got_ready(0)
    now = 0.0
    while now < 600.0:
        for action in planned(crew, now):
            assert isinstance(action, Spawn)
            forks.append(now)
            crew.spawned(action, now)
        for seat in _booting(crew.children):
            crew.died(seat, now, jitter=1.0)
        now = crew.next_step_at(now, facts_of(crew))

    assert forks[:8] == [0.0] * 8
    assert len(forks) <= 8 + 600 / 30 + 1
    assert len(set(forks[8:])) == len(forks[8:]), "more than one probe at a time"


def cut_off(crew: Crew, now: float, seen: dict[int, Facts]) -> list[Action]:
    return crew.plan(now, facts_of(crew, seen), cut_off=True)


def test_a_job_of_a_host_that_is_cut_off_is_stopped_and_its_worker_lives_on() -> None:
    crew, job = ready_crew(), {1: running(epoch=7)}

    assert cut_off(crew, 100.0, job) == [Interrupt(1, 7, overdue=False)]
    assert cut_off(crew, 101.0, job) == []
    assert (
        cut_off(crew, 101.5, {1: Facts(Doing.SETTLE, 0.0)}) == []
    )  # it asks Redis to take it back

    assert planned(crew, 200.0) == []
    assert crew.children[1].fault is Fault.NONE
    assert crew.cuts == 0


def test_a_job_that_does_not_stop_when_its_host_is_cut_off_is_killed_without_blame() -> None:
    crew, job = ready_crew(), {1: running(epoch=7)}

    cut_off(crew, 100.0, job)

    assert cut_off(crew, 101.9, job) == []
    assert cut_off(crew, 102.0, job) == [Kill(1, Fault.CUT_OFF)]
    assert crew.died(1, 102.1, jitter=0.5).cut
    assert crew.cuts == 0, "the exit code tells of drains"


def test_a_host_that_is_in_touch_again_too_late_kills_what_did_not_stop() -> None:
    crew, job = ready_crew(), {1: running(epoch=7)}

    cut_off(crew, 100.0, job)

    assert planned(crew, 101.0, job) == []
    assert planned(crew, 102.0, job) == [Kill(1, Fault.CUT_OFF)]


def test_a_drain_ends_what_a_cut_has_begun() -> None:
    crew, job = ready_crew(1), {1: running(epoch=7)}
    cut_off(crew, 100.0, job)

    crew.stop(100.5, 1.0)
    settling = {1: Facts(Doing.SETTLE, 0.0)}

    assert cut_off(crew, 101.0, settling) == [Dismiss(1)]
    crew.dismissed(1, 101.0)
    cut_off(crew, 101.5, settling)
    assert Kill(1, Fault.CUT) in cut_off(crew, 103.5, settling)


def _booting(seats: Iterable[int]) -> list[int]:
    return [seat for seat in seats if seat != CLERK]


# -- renewal -----------------------------------------------------------------------------------


def renewing_crew() -> Crew:
    """Return a crew of two at the moment at which the first is due, and its replacement ready."""
    crew = ready_crew(2, renewal=Renewal(max_age=10.0))
    born(crew, planned(crew, 10.0), 10.0)
    assert [child.replaces for child in crew.children.values()] == [None, None, None, 1]
    return crew


def test_a_replacement_takes_over_once_redis_knows_it() -> None:
    crew = renewing_crew()

    assert planned(crew, 10.1, {3: booting()}) == []
    assert planned(crew, 10.2) == [Dismiss(1)]


def test_an_idle_worker_that_leaves_has_to_be_gone_before_the_next_is_due() -> None:
    crew = renewing_crew()
    planned(crew, 10.1)

    assert planned(crew, 10.2, {1: Facts(Doing.LEAVE, 0.0)}) == []
    crew.died(1, 10.3, jitter=0.0)
    assert planned(crew, 10.3) == [Release(3), Spawn(1, Kind.WORKER, 0, 2, "it is 10 s old")]


def test_a_job_in_hand_does_not_keep_the_others_from_being_replaced() -> None:
    crew = renewing_crew()
    planned(crew, 10.1, {1: running()})

    (birth,) = planned(crew, 10.2, {1: running()})
    assert isinstance(birth, Spawn)
    assert birth.replaces == 2


# -- births that only seem to be good ----------------------------------------------------------


def test_workers_that_get_ready_and_die_before_they_work_are_slowed_down() -> None:
    crew, now, forks = new_crew(1), 0.0, 0
    while now < 60.0:
        for action in crew.plan(now, facts_of(crew, dict.fromkeys(crew.children, booting()))):
            if isinstance(action, Spawn):
                crew.spawned(action, now)
                crew.got_ready(action.seat)
                if action.kind is Kind.WORKER:
                    forks += 1
                    crew.died(action.seat, now, jitter=1.0, booted=False)
        now += 0.05

    assert crew.pools[0].births.broken
    assert forks <= 12
    assert crew.failing_for(now) == pytest.approx(now, abs=0.2)


def test_a_worker_that_dies_at_its_first_job_was_a_good_birth() -> None:
    crew = new_crew(1)
    born(crew, crew.plan(0.0, {}), 0.0)

    crew.died(1, 0.01, jitter=1.0, booted=True)

    assert crew.pools[0].births.failures == 0
    assert planned(crew, 0.01) == [Spawn(1, Kind.WORKER)]


def test_what_old_workers_do_makes_no_new_one_a_success() -> None:
    crew = ready_crew(2)
    planned(crew, 0.5)
    crew.died(1, 1.0, jitter=1.0)
    born(crew, planned(crew, 1.0), 1.0)

    crew.died(1, 1.1, jitter=1.0, booted=False)
    planned(crew, 1.15)

    assert crew.pools[0].births.failures == 1

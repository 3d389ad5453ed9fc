"""How a crew replaces workers, moves its targets and reloads, case by case."""

import math

import pytest

from forkresque.policy.child import (
    Dismiss,
    Doing,
    Dump,
    Facts,
    Fault,
    Interrupt,
    Kill,
    Kind,
    Release,
    Spawn,
)
from forkresque.policy.crew import BOOKS_GRACE, Crew
from forkresque.policy.judgement import Judge
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

OLD_CODE = "it runs older code"
LEAVING = "it is leaving"


def worker(seat: int, replaces: int | None = None, reason: str = "", *, pool: int = 0) -> Spawn:
    return Spawn(seat, Kind.WORKER, pool, replaces, reason)


def reloaded(crew: Crew) -> Crew:
    """Have the crew run newer code; its clerk was replaced already."""
    crew.generation += 1
    crew.children[CLERK].generation = crew.generation
    return crew


def begun(crew: Crew, now: float, seen: dict[int, Facts] | None = None) -> list[Spawn]:
    """Return the births that are planned, and have them begin."""
    births = [action for action in planned(crew, now, seen) if isinstance(action, Spawn)]
    for birth in births:
        crew.spawned(birth, now)
    return births


# -- one after the other -----------------------------------------------------------------------


def test_a_worker_is_replaced_in_four_steps_with_its_place_never_taken_twice() -> None:
    crew = reloaded(ready_crew(1))

    assert planned(crew, 1.0) == [worker(2, 1, OLD_CODE)]
    crew.spawned(worker(2, 1, OLD_CODE), 1.0)
    assert crew.children[2].held
    assert planned(crew, 1.1, {2: booting()}) == []
    crew.got_ready(2)
    assert planned(crew, 2.0, {1: running()}) == [Dismiss(1)]
    assert planned(crew, 3.0, {1: running()}) == []
    crew.died(1, 4.0, jitter=0.5)
    assert planned(crew, 4.0) == [Release(2)]

    assert not crew.children[2].held
    assert planned(crew, 5.0) == []
    assert not crew.is_rolling
    assert crew.counts["recycled"] == 1


def test_the_idle_are_replaced_first_and_the_oldest_of_these() -> None:
    crew = reloaded(ready_crew(3))
    crew.children[3].born_at = -1.0

    assert planned(crew, 1.0, {1: running(), 2: idle()}) == [worker(4, 3, OLD_CODE)]


def test_the_busy_are_replaced_as_well_and_end_after_their_jobs() -> None:
    crew, busy = reloaded(ready_crew(2)), {1: running(), 2: running()}

    assert begun(crew, 1.0, busy) == [worker(3, 1, OLD_CODE)]
    crew.got_ready(3)
    assert planned(crew, 2.0, busy) == [Dismiss(1)]
    assert begun(crew, 2.1, busy) == [worker(4, 2, OLD_CODE)], "a long job holds up nobody"
    crew.got_ready(4)
    assert planned(crew, 3.0, busy) == [Dismiss(2)]
    assert planned(crew, 1e3, busy) == []
    crew.died(2, 1e3, jitter=0.5)
    assert planned(crew, 1e3, {1: running()}) == [Release(3)], "the first who is held"


@pytest.mark.parametrize(("size", "at_once"), [(2, 1), (9, 1), (20, 2), (35, 3)])
def test_at_most_a_tenth_waits_for_replacements_at_once(size: int, at_once: int) -> None:
    crew = reloaded(ready_crew(size, seats=2 * size + 2))
    boots = {seat: booting() for seat in range(size + 1, size + 1 + at_once)}

    assert len(begun(crew, 1.0)) == at_once
    assert begun(crew, 1.1, boots) == []
    crew.got_ready(size + 1)
    del boots[size + 1]
    leaving = [action.seat for action in planned(crew, 2.0, boots) if isinstance(action, Dismiss)]
    assert len(leaving) == 1
    assert begun(crew, 2.1, boots) == [], "one that is on its way out counts"
    crew.died(leaving[0], 2.2, jitter=0.5)
    begun_then = [action for action in planned(crew, 2.2, boots) if isinstance(action, Spawn)]
    assert len(begun_then) == 1


def test_each_pool_has_its_own_tenth() -> None:
    crew = reloaded(ready_crew(1, 2))

    assert planned(crew, 1.0) == [
        worker(4, 1, OLD_CODE, pool=0),
        worker(5, 2, OLD_CODE, pool=1),
    ]


@pytest.mark.parametrize(
    ("renewal", "seen", "now", "reason"),
    [
        (Renewal(max_jobs=100), Facts(Doing.IDLE, 0.0, jobs=99), 1.0, "it has carried out 99 jobs"),
        (Renewal(max_age=60.0), idle(), 60.0, "it is 60 s old"),
        (
            Renewal(max_memory=1 << 20),
            Facts(Doing.IDLE, 0.0, grown=2 << 20),
            1.0,
            "its own memory has grown by 2 MB",
        ),
    ],
)
def test_a_worker_that_is_due_is_replaced(
    renewal: Renewal, seen: Facts, now: float, reason: str
) -> None:
    crew = ready_crew(1, renewal=renewal)

    assert planned(crew, now - 0.1) == []
    assert planned(crew, now, {1: seen}) == [worker(2, 1, reason)]


def test_a_worker_that_may_take_no_other_job_leaves_and_is_replaced_at_once() -> None:
    crew = ready_crew(2, renewal=Renewal(max_jobs=1))
    assert planned(crew, 1.0, {1: Facts(Doing.LEAVE, 0.0, jobs=1)}) == []

    crew.died(1, 1.1, jitter=0.5)

    assert planned(crew, 1.1) == [worker(1)]


# -- what may go wrong meanwhile ---------------------------------------------------------------


def test_a_replacement_that_dies_in_boot_is_tried_again_and_the_old_one_works_on() -> None:
    crew = reloaded(ready_crew(1))
    begun(crew, 1.0)

    crew.died(2, 1.5, jitter=1.0)

    assert planned(crew, 1.5) == []
    assert planned(crew, 1.6) == [worker(2, 1, OLD_CODE)]
    assert crew.failing_for(1e6) == 0.0, "there is a worker"


def test_a_replacement_whose_predecessor_dies_works_at_once() -> None:
    crew = reloaded(ready_crew(1))
    begun(crew, 1.0)

    crew.died(1, 1.5, jitter=0.5)

    assert planned(crew, 1.5, {2: booting()}) == [Release(2)]
    assert planned(crew, 1.6, {2: booting()}) == []


def test_a_replacement_that_dies_once_its_predecessor_leaves_has_a_successor_that_is_held() -> None:
    crew, busy = reloaded(ready_crew(1)), {1: running()}
    begun(crew, 1.0)
    crew.got_ready(2)
    assert planned(crew, 2.0, busy) == [Dismiss(1)]

    crew.died(2, 3.0, jitter=0.5)

    assert begun(crew, 3.0, busy) == [worker(2, 1, LEAVING)]
    crew.got_ready(2)
    assert planned(crew, 4.0, busy) == []
    crew.died(1, 5.0, jitter=0.5)
    assert planned(crew, 5.0) == [Release(2)]
    assert crew.counts["recycled"] == 1


def test_a_replacement_that_is_to_be_killed_takes_nobodys_place() -> None:
    crew = reloaded(ready_crew(1))
    begun(crew, 1.0)
    crew.got_ready(2)

    crew.condemn(2, Fault.ORDERED, 2.0)

    assert planned(crew, 2.0) == [Kill(2, Fault.ORDERED)]


def test_a_replacement_of_older_code_is_replaced_after_it_has_taken_over() -> None:
    crew = reloaded(ready_crew(1))
    begun(crew, 1.0)
    reloaded(crew)
    crew.got_ready(2)

    assert planned(crew, 2.0) == [Dismiss(1)]
    crew.died(1, 2.1, jitter=0.5)
    assert planned(crew, 2.1) == [Release(2)]
    assert planned(crew, 2.2) == [worker(1, 2, OLD_CODE)]


def test_a_stop_dismisses_the_old_and_the_new_at_once() -> None:
    crew = reloaded(ready_crew(1))
    begun(crew, 1.0)
    crew.got_ready(2)

    crew.stop(2.0, 5.0)

    assert planned(crew, 2.0) == [Dismiss(2), Dismiss(1)]
    crew.died(1, 2.1, jitter=0.5)
    assert planned(crew, 2.1) == [], "a held worker that leaves is not released"
    crew.died(2, 2.2, jitter=0.5)
    assert planned(crew, 2.2) == [Dismiss(CLERK)]


def test_no_seats_means_no_replacements_until_one_is_free() -> None:
    crew = reloaded(ready_crew(1, seats=2))
    assert planned(crew, 1.0) == []

    crew.seats = 3

    assert planned(crew, 2.0) == [worker(2, 1, OLD_CODE)]


# -- targets that move -------------------------------------------------------------------------


def test_whoever_comes_after_one_that_leaves_is_held_until_it_has_left() -> None:
    crew, busy = ready_crew(2), {1: running(), 2: running()}
    resize(crew, -1)
    assert planned(crew, 1.0, busy) == [Dismiss(1)]

    resize(crew, +2)

    assert begun(crew, 2.0, busy) == [worker(3), worker(4, 1, LEAVING)]
    crew.got_ready(3)
    crew.got_ready(4)
    assert planned(crew, 3.0, busy) == []
    crew.died(1, 4.0, jitter=0.5)
    assert planned(crew, 4.0, {2: running()}) == [Release(4)]
    assert crew.counts["recycled"] == 0


def test_one_that_leaves_in_boot_can_have_no_job_and_keeps_no_place() -> None:
    crew = ready_crew(1)
    resize(crew, +1)
    begun(crew, 1.0)
    resize(crew, -1)
    assert planned(crew, 1.1, {1: running(), 2: booting()}) == [Dismiss(2)]

    resize(crew, +1)

    assert planned(crew, 1.2, {1: running(), 2: booting()}) == [worker(3)]


def test_a_held_worker_is_the_first_to_go() -> None:
    crew, busy = reloaded(ready_crew(2)), {1: running()}
    crew.children[2].generation = 2
    begun(crew, 1.0, busy)
    crew.got_ready(3)
    assert planned(crew, 2.0, busy) == [Dismiss(1)]

    resize(crew, -1)

    assert planned(crew, 3.0, busy) == [Dismiss(3)], "2 can work now, 3 only after 1"


def test_of_two_held_workers_one_goes_and_the_other_works() -> None:
    crew, busy = reloaded(ready_crew(2)), {1: running(), 2: running()}
    for now, old, new in [(1.0, 1, 3), (3.0, 2, 4)]:
        begun(crew, now, busy)
        crew.got_ready(new)
        assert planned(crew, now + 1.0, busy) == [Dismiss(old)]
    for old in (1, 2):
        crew.died(old, 5.0, jitter=0.5)

    resize(crew, -1)

    assert planned(crew, 5.0) == [Dismiss(3), Release(4)]


def test_who_goes_takes_its_replacement_along() -> None:
    crew = reloaded(ready_crew(2))
    crew.children[2].generation = 2
    begun(crew, 1.0)
    seen = {2: running(), 3: booting()}

    resize(crew, -1)

    assert planned(crew, 2.0, seen) == [Dismiss(1), Dismiss(3)]
    assert planned(crew, 2.1, seen) == []


def test_nobody_is_dismissed_twice_for_two_reasons() -> None:
    crew = reloaded(ready_crew(1, 1))
    begun(crew, 1.0)
    crew.got_ready(3)
    crew.got_ready(4)

    crew.stop(2.0, 5.0)

    assert planned(crew, 2.0) == [Dismiss(seat) for seat in (3, 1, 4, 2)]


def test_a_pool_with_too_many_replaces_nobody() -> None:
    crew = reloaded(ready_crew(3))

    resize(crew, -1)

    assert planned(crew, 1.0) == [Dismiss(1)]
    assert planned(crew, 1.1) == [], "the one that leaves counts as well"
    crew.died(1, 1.2, jitter=0.5)
    assert planned(crew, 1.2) == [worker(1, 2, OLD_CODE)]


def test_a_pool_that_is_abolished_empties_itself() -> None:
    crew = reloaded(ready_crew(2, 1))
    pool = crew.pools[0]
    pool.least = pool.most = pool.target = 0

    assert planned(crew, 1.0, {1: running()}) == [
        Dismiss(2),
        Dismiss(1),
        worker(4, 3, OLD_CODE, pool=1),
    ]
    crew.died(2, 1.1, jitter=0.5)
    crew.died(1, 1e3, jitter=0.5)
    assert crew.staying(0) == []
    assert not [action for action in planned(crew, 1e3) if action == worker(1)]


@pytest.mark.parametrize(("watched", "spare"), [(False, 2), (True, 3)])
def test_a_pool_may_grow_as_far_as_there_are_seats_for_the_others(
    *, watched: bool, spare: int
) -> None:
    crew = ready_crew(2, 3, seats=12, watched=watched)

    crew.allow(crew.pools[0], 99)
    assert crew.pools[0].most == 12 - 3 - spare
    crew.allow(crew.pools[0], -99)
    assert crew.pools[0].most == 1
    assert crew.pools[1].most == 3


def test_a_crew_that_stops_is_elastic_nowhere() -> None:
    crew = ready_crew(2)

    crew.stop(0.0, 5.0)

    assert not any(pool.is_elastic for pool in crew.pools), "or its controller would never rest"


# -- the clerk and the watcher -----------------------------------------------------------------


def test_the_clerk_of_an_older_generation_is_dismissed_and_replaced() -> None:
    crew = ready_crew(1)
    crew.children[1].generation = crew.generation = 2

    assert planned(crew, 1.0) == [Dismiss(CLERK)]
    assert planned(crew, 1.1) == []
    crew.died(CLERK, 1.2, jitter=0.5)
    assert planned(crew, 1.2) == [Spawn(CLERK, Kind.CLERK)]
    crew.spawned(Spawn(CLERK, Kind.CLERK), 1.2)
    assert crew.children[CLERK].generation == 2
    assert planned(crew, 1.3) == []


def test_a_clerk_of_an_older_generation_that_does_not_leave_is_killed() -> None:
    crew = ready_crew(1)
    crew.children[1].generation = crew.generation = 2
    planned(crew, 1.0)

    assert planned(crew, 1.0 + BOOKS_GRACE) == [Kill(CLERK, Fault.BOOKS)]


def test_a_drain_keeps_the_clerk_that_there_is() -> None:
    crew = ready_crew(1)
    crew.generation = 2
    crew.stop(1.0, 5.0)

    assert planned(crew, 1.0, {1: running()}) == [Dismiss(1)]


def test_there_is_a_watcher_where_files_are_watched() -> None:
    crew = new_crew(1, watched=True)

    births = crew.plan(0.0, {})

    assert births == [Spawn(0, Kind.CLERK), Spawn(1, Kind.WATCHER), worker(2)]
    born(crew, births, 0.0)
    crew.died(1, 1.0, jitter=0.5)
    assert planned(crew, 1.0) == [Spawn(1, Kind.WATCHER)]


def test_a_watcher_that_does_not_leave_holds_no_stop_up() -> None:
    crew = ready_crew(1, watched=True)
    watcher = 1

    crew.stop(1.0, 5.0)

    assert planned(crew, 1.0) == [Dismiss(2), Dismiss(watcher)]
    crew.died(2, 1.1, jitter=0.5)
    assert planned(crew, 1.1) == [Dismiss(CLERK)]
    crew.died(CLERK, 1.2, jitter=0.5)
    assert planned(crew, 1.0 + BOOKS_GRACE) == [Kill(watcher, Fault.DEAF)]
    crew.died(watcher, 1.8, jitter=0.5)
    assert crew.finished
    assert crew.cuts == 0, "there was no job in it"


# -- what is killed, and when to give up -------------------------------------------------------


@pytest.mark.parametrize("seen", [idle(), running()])
def test_a_worker_whose_kill_was_ordered_is_killed_once(seen: Facts) -> None:
    crew = ready_crew(1)

    crew.condemn(1, Fault.ORDERED, 3.0)

    assert planned(crew, 3.0, {1: seen}) == [Kill(1, Fault.ORDERED)]
    assert planned(crew, 4.0, {1: seen}) == []
    assert not crew.died(1, 4.1, jitter=0.5).cut
    assert planned(crew, 4.1) == [worker(1)]


def test_a_kill_that_was_ordered_is_not_forgiven_with_a_cut() -> None:
    crew = ready_crew(1)
    job = facts_of(crew, {1: running(epoch=7)})
    assert crew.plan(1.0, job, cut_off=True) == [Interrupt(1, 7, overdue=False)]

    crew.condemn(1, Fault.ORDERED, 2.0)

    settling = {1: Facts(Doing.SETTLE, 0.0)}
    assert planned(crew, 2.0, settling) == [Kill(1, Fault.ORDERED)]


def test_a_worker_that_is_too_large_is_killed_and_replaced() -> None:
    crew = ready_crew(1, judge=Judge(max_memory=1 << 20))
    large = {1: Facts(Doing.RUN, 0.0, grows=3 << 20)}

    assert planned(crew, 1.0, large) == [Dump(1, Fault.TOO_LARGE)]
    assert planned(crew, 1.5, large) == [Kill(1, Fault.TOO_LARGE)]
    crew.died(1, 1.6, jitter=0.5)
    assert planned(crew, 1.6) == [worker(1)]
    assert crew.counts["killed"] == 1


def test_the_patience_with_failing_workers_begins_with_the_first_failure() -> None:
    crew = new_crew(1)
    born(crew, [Spawn(CLERK, Kind.CLERK)], 0.0)
    assert crew.failing_for(1e6) == 0.0

    for now in (10.0, 20.0):
        crew.spawned(worker(1), now - 1.0)
        crew.died(1, now, jitter=0.5)

    assert crew.failing_for(25.0) == 15.0
    crew.spawned(worker(1), 30.0)
    assert crew.failing_for(31.0) == 21.0
    crew.got_ready(1)
    assert crew.failing_for(32.0) == 0.0


def test_forks_that_the_kernel_refuses_exhaust_no_patience() -> None:
    crew = new_crew(1)

    crew.spawn_failed(worker(1), 10.0, jitter=0.5)

    assert crew.failing_for(1e6) == 0.0
    assert crew.counts["fork_failures"] == 1
    assert not crew.pools[0].births.broken


def test_the_patience_begins_anew_when_the_last_ready_worker_is_lost() -> None:
    """A reload whose workers do not boot may go on for days, as long as the old ones work."""
    crew = reloaded(ready_crew(1))
    begun(crew, 1.0)
    crew.died(2, 2.0, jitter=0.5)
    assert crew.failing_for(1e6) == 0.0

    crew.died(1, 1e6, jitter=0.5)

    assert crew.failing_for(1e6) == 0.0
    assert crew.failing_for(1e6 + 20.0) == 20.0


def test_a_pool_that_wants_nobody_exhausts_no_patience() -> None:
    crew = new_crew(1, 1)
    crew.spawned(worker(1), 1.0)
    crew.died(1, 2.0, jitter=0.5)

    crew.pools[0].least = crew.pools[0].target = 0

    assert crew.failing_for(1e3) == 0.0


def test_each_pool_has_a_breaker_of_its_own() -> None:
    crew = ready_crew(1, 1)
    for now in (10.0, 20.0, 40.0):
        crew.children.pop(1, None)
        crew.spawned(worker(1), now - 1.0)
        crew.died(1, now, jitter=1.0)
    assert [pool.births.broken for pool in crew.pools] == [True, False]

    crew.died(2, 40.0, jitter=0.5)

    assert planned(crew, 40.0) == [worker(1, pool=1)]
    assert crew.next_step_at(40.0, facts_of(crew)) < math.inf


def test_the_moment_to_rouse_is_a_next_step() -> None:
    crew = ready_crew(1)
    planned(crew, 100.0, {1: idle(silent=61.0)})

    assert crew.next_step_at(100.0, facts_of(crew)) == crew.children[1].rouse_at


def test_those_who_leave_or_boot_are_not_ready() -> None:
    crew = ready_crew(1)
    resize(crew, +1)
    begun(crew, 1.0)

    assert crew.ready(0) == 1
    crew.got_ready(2)
    assert crew.ready(0) == 2
    resize(crew, -1)
    assert planned(crew, 2.0, {2: running()}) == [Dismiss(1)]
    assert crew.ready(0) == 1


# -- one job each ------------------------------------------------------------------------------

LAST = "it has its last job in hand"


def with_last_job(*, gone: bool = False) -> Facts:
    return Facts(Doing.SETTLE if gone else Doing.RUN, 0.0, epoch=1, last=True, gone=gone)


def test_one_that_may_do_one_job_has_a_successor_once_it_has_that_in_hand() -> None:
    crew = ready_crew(1, renewal=Renewal(max_jobs=1))
    assert planned(crew, 1.0) == []

    assert begun(crew, 2.0, {1: with_last_job()}) == [worker(2, 1, LAST)]
    assert crew.children[2].held
    crew.got_ready(2)

    assert planned(crew, 3.0, {1: with_last_job()}) == [], "it leaves without being asked to"
    assert planned(crew, 4.0, {1: with_last_job(gone=True)}) == [Release(2)]
    crew.died(1, 5.0, jitter=0.5)
    assert planned(crew, 5.0) == []


def test_whoever_ends_first_makes_room_for_the_one_that_waits() -> None:
    crew = ready_crew(2, renewal=Renewal(max_jobs=1))
    busy = {1: with_last_job(), 2: with_last_job()}
    assert begun(crew, 1.0, busy) == [worker(3, 1, LAST)]
    crew.got_ready(3)
    assert planned(crew, 2.0, busy) == []

    crew.died(2, 3.0, jitter=0.5)

    assert planned(crew, 3.0, {1: with_last_job()}) == [Release(3), worker(2, 1, LAST)]


def test_one_that_is_gone_keeps_no_place_though_it_has_not_ended() -> None:
    crew = ready_crew(2, renewal=Renewal(max_jobs=1))
    gone = {1: with_last_job(gone=True)}

    assert begun(crew, 1.0, gone) == [worker(3)]

    assert planned(crew, 2.0, gone) == []
    crew.died(1, 3.0, jitter=0.5)
    assert planned(crew, 3.0) == []


def test_of_many_with_their_last_jobs_no_more_work_than_there_are_places() -> None:
    crew, seen = ready_crew(3, renewal=Renewal(max_jobs=1)), dict[int, Facts]()
    for now in range(1, 400):
        at_work = [child for child in crew.of(Kind.WORKER) if not child.held]
        at_work = [child for child in at_work if not seen.get(child.seat, idle()).gone]
        assert len(at_work) <= 3
        oldest = min(at_work, key=lambda child: child.born_at).seat
        if now % 4 == 0:
            seen[oldest] = with_last_job()
        elif now % 4 == 1 and oldest in seen:
            seen[oldest] = with_last_job(gone=True)
        elif now % 4 == 2:
            bury_the_gone(crew, seen, now)
        begun(crew, now, seen)
        for child in crew.of(Kind.WORKER):
            crew.got_ready(child.seat)
    assert crew.counts["died"] > 90
    assert len(crew.of(Kind.WORKER)) <= 4


def bury_the_gone(crew: Crew, seen: dict[int, Facts], now: float) -> None:
    for seat in [seat for seat, each in seen.items() if each.gone]:
        del seen[seat]
        crew.died(seat, now, jitter=0.5)

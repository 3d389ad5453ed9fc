"""Somebody gives up the lease at the end, though the clerk was being replaced when it came."""

import pytest

from forkresque.policy.child import Dismiss, Doing, Facts, Kind, Spawn
from forkresque.policy.crew import BOOKS_GRACE, CLERK_SEAT, Crew
from forkresque.policy.pool import Pool

WORKER_SEAT = 1
CLERK = Spawn(CLERK_SEAT, Kind.CLERK)


@pytest.fixture
def crew() -> Crew:
    """Return a clerk and one worker, ready, at the beginning of a drain in a reload."""
    crew = Crew(4, [Pool(("math",), 1, 1)])
    for spawn in (CLERK, Spawn(WORKER_SEAT, Kind.WORKER)):
        crew.spawned(spawn, 0.0, chance=0.5)
        crew.got_ready(spawn.seat)
    crew.generation += 1
    crew.dismissed(CLERK_SEAT, 1.0)
    crew.stop(1.0, 25.0)
    return crew


def facts(crew: Crew) -> dict[int, Facts]:
    return {seat: Facts(Doing.IDLE, 0.0) for seat in crew.children}


def die(crew: Crew, seat: int, now: float) -> None:
    crew.died(seat, now, jitter=0.5)


def test_a_clerk_comes_back_for_the_lease(crew: Crew) -> None:
    die(crew, CLERK_SEAT, 1.1)
    die(crew, WORKER_SEAT, 1.2)

    assert not crew.finished
    assert crew.plan(1.2, facts(crew)) == [CLERK]
    crew.spawned(CLERK, 1.2, chance=0.5)
    crew.got_ready(CLERK_SEAT)
    assert crew.plan(1.3, facts(crew)) == [Dismiss(CLERK_SEAT)]
    crew.dismissed(CLERK_SEAT, 1.3)
    die(crew, CLERK_SEAT, 1.4)
    assert crew.finished


def test_a_clerk_that_sees_the_last_worker_go_is_the_last(crew: Crew) -> None:
    die(crew, WORKER_SEAT, 1.1)
    die(crew, CLERK_SEAT, 1.2)
    assert crew.finished


def test_its_time_is_limited(crew: Crew) -> None:
    die(crew, CLERK_SEAT, 1.1)
    die(crew, WORKER_SEAT, 1.2)

    assert crew.plan(1.2 + BOOKS_GRACE, facts(crew)) == []
    assert crew.finished

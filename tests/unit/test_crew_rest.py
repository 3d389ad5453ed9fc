"""Until when a master may sleep although nobody tells it anything."""

import math

import pytest

from forkresque.policy.child import Doing, Facts, Kind, Spawn
from forkresque.policy.crew import Crew
from forkresque.policy.judgement import CLERK_SILENCE, FROZEN_AFTER, Judge
from forkresque.policy.renewal import Renewal
from tests.support.crews import CLERK, booting, facts_of, idle, ready_crew, running

DEAF_AFTER = 6.0
RESTING = {CLERK: idle()}


def on_call(silent: float = 0.0) -> Facts:
    return idle(silent)._replace(doing=Doing.CALL)


def rest_of(crew: Crew, seen: dict[int, Facts] | None = None, now: float = 100.0) -> float:
    """Return for how long there is nothing to do."""
    return crew.rest_until(now, facts_of(crew, RESTING | (seen or {}))) - now


@pytest.mark.parametrize(
    ("seen", "left"),
    [
        ({}, CLERK_SILENCE),
        ({CLERK: idle(4.0)}, CLERK_SILENCE - 4.0),
        ({1: idle(55.0)}, FROZEN_AFTER - 55.0),
        ({1: on_call()}, DEAF_AFTER),
        ({1: on_call(4.5)}, DEAF_AFTER - 4.5),
        ({1: on_call(7.0)}, 0.0),
        ({CLERK: idle(11.0)}, 0.0),
    ],
)
def test_a_crew_that_waits_is_looked_at_when_silence_would_mean_something(
    seen: dict[int, Facts], left: float
) -> None:
    assert rest_of(ready_crew(), seen) == pytest.approx(left)


@pytest.mark.parametrize(
    "seen", [{1: running()}, {1: booting()}, {CLERK: Facts(Doing.RUN, 0.0)}, {2: idle(61.0)}]
)
def test_a_crew_at_work_is_not_at_rest(seen: dict[int, Facts]) -> None:
    assert rest_of(ready_crew(), seen) == 0.0


def test_a_crew_in_which_something_is_under_way_is_not_at_rest() -> None:
    lacking, leaving, stopping, unsettled = (ready_crew() for _ in range(4))
    lacking.died(1, 99.0, jitter=0.5)
    leaving.dismissed(1, 99.0)
    stopping.stop(99.0, math.inf)
    unsettled.unsettled_deaths = 1

    assert [rest_of(crew) for crew in (lacking, leaving, stopping, unsettled)] == [0.0] * 4


def test_who_was_just_forked_is_not_at_rest() -> None:
    """What was seen before its birth does not show it."""
    crew = ready_crew()
    seen = facts_of(crew, RESTING)
    crew.died(1, 99.0, jitter=0.5)
    crew.spawned(Spawn(3, Kind.WORKER), 100.0)

    assert crew.rest_until(100.0, seen) == 100.0


def test_a_limit_of_age_ends_the_rest() -> None:
    crew = ready_crew(renewal=Renewal(max_age=105.0))
    limit = min(child.max_age for child in crew.children.values())

    assert rest_of(crew, now=limit - 3.0) == pytest.approx(3.0)


def test_an_impatient_judge_ends_the_rest_earlier() -> None:
    crew = ready_crew(judge=Judge(heartbeat_timeout=12.0))

    assert rest_of(crew, {1: idle(9.0)}) == pytest.approx(3.0)

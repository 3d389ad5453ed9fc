"""Which workers are due, and how many of them at once."""

import math
from random import Random

import pytest

from forkresque.policy.child import Child, Doing, Facts, Kind
from forkresque.policy.renewal import EARLIEST, Renewal, room

MEGABYTE = 1 << 20


def worker(*, generation: int = 1, max_jobs: float = math.inf, max_age: float = math.inf) -> Child:
    return Child(1, Kind.WORKER, 100.0, generation=generation, max_jobs=max_jobs, max_age=max_age)


def after(jobs: int = 0, *, grown: int = 0) -> Facts:
    return Facts(Doing.IDLE, 0.0, jobs=jobs, grown=grown)


def reason(child: Child, seen: Facts, now: float = 100.0, *, max_memory: int = 0) -> str:
    return Renewal(max_memory=max_memory).reason(child, seen, generation=2, now=now)


def test_without_limits_nobody_is_ever_due() -> None:
    assert Renewal().limits(0.5) == (math.inf, math.inf)
    assert reason(worker(generation=2), after(10**9, grown=10**12), 1e9) == ""


@pytest.mark.parametrize(("chance", "jobs", "age"), [(0.0, 800, 480.0), (1.0, 999, 600.0)])
def test_limits_are_spread_below_what_was_asked_for(chance: float, jobs: int, age: float) -> None:
    assert Renewal(max_jobs=1000, max_age=600.0).limits(chance) == (jobs, age)


@pytest.mark.parametrize("max_jobs", [5, 6, 10, 99, 100_000])
def test_a_worker_is_due_before_it_must_leave(max_jobs: int) -> None:
    chance = Random(max_jobs)
    parts = [0.0, 1.0, *(chance.random() for _ in range(99))]

    drawn = [Renewal(max_jobs).limits(part)[0] for part in parts]

    assert all(math.floor(max_jobs * EARLIEST) <= jobs < max_jobs for jobs in drawn)


@pytest.mark.parametrize("max_jobs", [1, 2, 3, 4])
def test_a_worker_of_few_jobs_carries_them_all_out(max_jobs: int) -> None:
    assert Renewal(max_jobs).limits(0.0)[0] == math.inf


def test_an_older_generation_is_due_and_a_newer_one_is_not() -> None:
    assert reason(worker(generation=1), after()) == "it runs older code"
    assert reason(worker(generation=2), after()) == ""
    assert reason(worker(generation=3), after()) == ""


def test_a_worker_is_due_after_its_jobs() -> None:
    child = worker(generation=2, max_jobs=80)

    assert reason(child, after(79)) == ""
    assert reason(child, after(80)) == "it has carried out 80 jobs"
    assert reason(child, after(95)) == "it has carried out 95 jobs"


def test_a_worker_is_due_at_its_age() -> None:
    child = worker(generation=2, max_age=60.0)

    assert reason(child, after(), 159.9) == ""
    assert reason(child, after(), 160.0) == "it is 60 s old"


def test_a_worker_is_due_when_it_has_grown_too_much() -> None:
    child = worker(generation=2)

    assert reason(child, after(grown=200 * MEGABYTE), max_memory=200 * MEGABYTE) == ""
    told = reason(child, after(grown=201 * MEGABYTE), max_memory=200 * MEGABYTE)
    assert told == "its own memory has grown by 201 MB"


@pytest.mark.parametrize(
    ("size", "places"), [(0, 1), (1, 1), (9, 1), (10, 1), (19, 1), (20, 2), (30, 3), (100, 10)]
)
def test_a_tenth_of_a_pool_is_renewed_at_once_and_at_least_one_worker(
    size: int, places: int
) -> None:
    assert room(size, 0) == places
    assert room(size, places) == 0
    assert room(size, places + 3) < 0, "a pool that has become smaller has none"

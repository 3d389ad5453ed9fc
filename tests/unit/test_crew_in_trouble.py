"""What must hold of a crew in any trouble, and after it. The rules themselves are the plant's."""

import math
from collections import Counter

import pytest

from forkresque.policy.crew import ABORT_GRACE, BOOKS_GRACE
from forkresque.policy.judgement import FROZEN_AFTER
from tests.support.plant import BOOT_TIMEOUT, Plant

SEEDS = [*range(15), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(15, 200))]
SLACK = 2.5  # seconds by which a stop may be late: one tick at the abort, one at the books
ROLL = 400.0  # seconds for all workers to be replaced, some at a time, jobs included


@pytest.mark.parametrize("seed", SEEDS)
def test_a_crew_in_trouble_keeps_its_rules_and_is_whole_again_when_trouble_ends(seed: int) -> None:
    plant = Plant(seed)
    plant.run_in_trouble(700)

    plant.heal()
    # The longest way back: a boot or a job that hangs, and after it the longest back-off.
    hangs = max(FROZEN_AFTER, plant.judge.heartbeat_timeout) + BOOT_TIMEOUT
    plant.run_until(plant.whole, hangs + 30.0 + 30.0 + ROLL)
    plant.run(100)

    plant.run_until(plant.whole, 60.0)  # some worker is always due
    for index, pool in enumerate(plant.crew.pools):
        assert len(plant.working(index)) == pool.target


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stop_in_any_trouble_ends_in_its_time(seed: int) -> None:
    plant = Plant(seed)
    plant.run_in_trouble(plant.chance.randrange(300))
    within = plant.chance.choice([0.0, 1.0, 5.0, 25.0])

    plant.stop(within)
    plant.run_until(lambda: plant.crew.finished, within + ABORT_GRACE + BOOKS_GRACE + SLACK)

    assert not plant.processes


@pytest.mark.parametrize("seed", SEEDS)
def test_who_stops_a_healthy_crew_twice_waits_for_the_shorter_time(seed: int) -> None:
    plant = Plant(seed)
    plant.heal()
    plant.run(plant.chance.randrange(300))
    first, second = plant.chance.choice([(25.0, 1.0), (math.inf, 3.0), (1.0, 25.0)])

    plant.stop(first)
    plant.run(plant.chance.randrange(3))
    deadline = min(first, second) + ABORT_GRACE + BOOKS_GRACE + SLACK
    plant.stop(second)
    plant.run_until(lambda: plant.crew.finished, deadline)

    assert not plant.processes


@pytest.mark.parametrize("seed", SEEDS)
def test_an_end_in_any_trouble_leaves_only_the_books_to_do(seed: int) -> None:
    plant = Plant(seed)
    plant.run_in_trouble(plant.chance.randrange(300))
    if plant.chance.random() < 0.5:
        plant.stop(25.0)
        plant.run(plant.chance.randrange(10))

    if not plant.crew.finished:
        plant.end()
    plant.run_until(lambda: plant.crew.finished, BOOKS_GRACE + SLACK)

    assert not plant.processes


def test_the_trouble_has_been_all_that_there_is() -> None:
    """No rule was kept only because it was never put to the test."""
    seen: Counter[str] = Counter()
    for seed in range(30):
        plant = Plant(seed)
        plant.run_in_trouble(500)
        seen += plant.seen

    actions = {"Spawn", "Dismiss", "Release", "Interrupt", "Dump", "Rouse", "Kill"}
    faults = {"BOOT", "SILENT", "STUCK", "OVERDUE", "TOO_LARGE", "reported", "failing"}
    renewals = {"renewed, runs", "renewed, has", "renewed, is", "renewed, own"}
    assert not (actions | faults | renewals | {"abolished"}) - seen.keys()

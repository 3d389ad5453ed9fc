"""Which deaths are laid to the kernel's out-of-memory killer."""

import random

import pytest

from forkresque.policy.oom import FRESH, OomKills


def test_a_rise_explains_as_many_deaths() -> None:
    kills = OomKills(7)

    kills.observe(9, 0.0)

    assert [kills.explain_one() for _ in range(3)] == [True, True, False]


def test_what_was_counted_before_explains_nothing() -> None:
    kills = OomKills(7)
    assert not kills.explain_one()

    kills.observe(7, 0.0)

    assert not kills.explain_one()


def test_a_kill_of_somebody_else_is_soon_forgotten() -> None:
    kills = OomKills(0)
    kills.observe(1, 0.0)

    kills.observe(1, FRESH - 0.1)
    kills.observe(2, FRESH + 0.1)

    assert [kills.explain_one() for _ in range(2)] == [True, False]


@pytest.mark.parametrize("counted", [0, 5, 10**15])
def test_a_count_that_leaps_or_falls_does_no_harm(counted: int) -> None:
    kills = OomKills(7)

    kills.observe(counted, 0.0)
    kills.observe(counted + 1, 1.0)

    assert kills.explain_one()


@pytest.mark.parametrize("seed", range(20))
def test_never_more_deaths_are_explained_than_kills_counted(seed: int) -> None:
    chance = random.Random(seed)
    kills, counted, explained, now = OomKills(0), 0, 0, 0.0
    for _ in range(1000):
        now += chance.expovariate(1.0)
        counted += chance.choice([0, 0, 0, 1, 3])
        kills.observe(counted, now)
        explained += chance.random() < 0.5 and kills.explain_one()
        assert explained <= counted

    assert explained > 0

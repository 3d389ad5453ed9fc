"""When the next child may be forked."""

import math
from random import Random

import pytest

from forkresque.policy.births import FIRST_DELAY, LONGEST_DELAY, Births


def fail(births: Births, times: int, *, now: float = 0.0) -> None:
    for _ in range(times):
        births.failed(now, jitter=1.0)


def test_children_that_get_ready_are_forked_without_a_pause() -> None:
    births = Births(8)

    assert births.allowed(0.0, booting=7)
    births.succeeded()
    assert births.allowed(0.0, booting=7)


def test_each_failure_doubles_the_pause_up_to_half_a_minute() -> None:
    births, pauses = Births(8), []

    for second in range(12):
        births.failed(float(second), jitter=1.0)
        pauses.append(births.next_at - second)

    assert pauses == pytest.approx(
        [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0, 30.0]
    )


def test_nobody_is_forked_during_a_pause() -> None:
    births = Births(8)
    fail(births, 1, now=5.0)

    assert not births.allowed(5.09, booting=0)
    assert births.allowed(5.1, booting=0)


@pytest.mark.parametrize(
    ("size", "failures"), [(1, 3), (2, 3), (6, 3), (7, 4), (8, 4), (9, 5), (100, 50)]
)
def test_the_breaker_opens_after_three_failures_or_half_the_pool(size: int, failures: int) -> None:
    births = Births(size)

    fail(births, failures - 1)
    assert not births.broken
    fail(births, 1)
    assert births.broken


def test_before_the_breaker_opens_several_may_boot_at_once() -> None:
    births = Births(8)
    fail(births, 3)

    assert births.allowed(100.0, booting=5)


def test_an_open_breaker_lets_one_probe_at_a_time_through() -> None:
    births = Births(8)
    fail(births, 4)

    assert not births.allowed(100.0, booting=1)
    assert births.allowed(100.0, booting=0)


def test_one_success_closes_the_breaker_and_ends_the_pause() -> None:
    births = Births(8)
    fail(births, 20)

    births.succeeded()

    assert not births.broken
    assert births.next_at == -math.inf
    assert births.allowed(0.0, booting=7)
    births.failed(0.0, jitter=1.0)
    assert births.next_at == pytest.approx(FIRST_DELAY)


@pytest.mark.parametrize("seed", range(50))
def test_whatever_happens_the_next_fork_is_at_most_half_a_minute_away(seed: int) -> None:
    chance, now, longest = Random(seed), 0.0, 0.0
    births = Births(chance.randint(1, 40))

    for _ in range(2000):
        now += chance.expovariate(1.0)
        if chance.random() < 0.9:
            births.failed(now, jitter=chance.random())
            longest = max(longest, births.next_at - now)
        elif chance.random() < 0.1:
            births.succeeded()
        assert births.next_at <= now + LONGEST_DELAY
        assert births.allowed(now + LONGEST_DELAY, booting=0)
        assert births.broken == (births.failures >= max(3, births.size / 2))

    assert longest > LONGEST_DELAY / 2


def test_a_fork_that_the_kernel_refuses_makes_wait_and_is_no_failure() -> None:
    births, pauses = Births(1), []

    for second in range(12):
        births.refused(float(second), jitter=1.0)
        pauses.append(births.next_at - second)

    assert pauses[:3] == pytest.approx([0.1, 0.2, 0.4])
    assert pauses[-1] == LONGEST_DELAY
    assert births.failures == 0
    assert not births.broken
    assert births.failing_since == math.inf


def test_a_success_ends_the_wait_for_the_kernel() -> None:
    births = Births(1)
    births.refused(0.0, jitter=1.0)

    births.succeeded()

    assert births.allowed(0.0, booting=0)


def test_the_clock_of_failure_starts_at_the_first_one_since_a_success() -> None:
    births = Births(1)
    assert births.failing_since == math.inf

    births.failed(7.0, jitter=1.0)
    births.failed(9.0, jitter=1.0)
    assert births.failing_since == 7.0
    births.succeeded()
    assert births.failing_since == math.inf
    births.failed(11.0, jitter=1.0)
    assert births.failing_since == 11.0


def test_a_pool_that_becomes_larger_needs_more_failures_to_break() -> None:
    births = Births(2)
    fail(births, 3)
    assert births.broken

    births.size = 20

    assert not births.broken

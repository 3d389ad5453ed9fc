"""Delays between attempts."""

from random import Random

import pytest

from forkresque.policy.backoff import Backoff


def test_delays_double_up_to_the_longest() -> None:
    backoff = Backoff(first=0.1, most=1.0)

    delays = [backoff.next(jitter=1.0) for _ in range(7)]

    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0])


def test_half_of_each_delay_is_left_to_chance() -> None:
    backoff = Backoff(first=0.1, most=1.0)

    assert [backoff.next(jitter=0.0) for _ in range(5)] == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.5])


def test_a_success_starts_over() -> None:
    backoff = Backoff(first=0.1, most=1.0)
    for _ in range(5):
        backoff.next(jitter=1.0)

    backoff.reset()

    assert backoff.attempts == 0
    assert backoff.next(jitter=1.0) == pytest.approx(0.1)


@pytest.mark.parametrize("seed", range(50))
def test_no_delay_is_longer_than_the_longest_nor_shorter_than_half_the_first(seed: int) -> None:
    chance = Random(seed)
    first = chance.uniform(0.001, 5.0)
    backoff = Backoff(first, first * chance.uniform(1.0, 1e6))

    for _ in range(2000):
        delay = backoff.next(jitter=chance.random())
        assert first / 2 <= delay <= backoff.most
        if chance.random() < 0.01:
            backoff.reset()


def test_attempts_without_end_overflow_nothing() -> None:
    backoff = Backoff(first=0.1, most=30.0, attempts=10**9)

    assert backoff.next(jitter=1.0) == 30.0

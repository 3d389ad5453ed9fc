"""What the tests' own `wait_until` does."""

import pytest

from tests.support.waiting import wait_until


def test_it_returns_the_first_truthy_value() -> None:
    values = iter([0, None, 7, 8])

    assert wait_until(lambda: next(values), "a number", every=0.0) == 7


def test_it_says_what_it_waited_for_and_what_it_saw_last() -> None:
    with pytest.raises(AssertionError, match=r"waited 0\.0 s for the moon; last value \[\]"):
        wait_until(list, "the moon", timeout=0.0)


def test_it_looks_once_more_after_the_deadline() -> None:
    values = iter([False, True])

    assert wait_until(lambda: next(values), "the second look", timeout=0.001, every=0.01)

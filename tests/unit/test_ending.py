"""What ends a master, and its exit code."""

import signal

import pytest

from forkresque.errors import ExitCode
from forkresque.policy.ending import REPEAT_GRACE, Ending


def test_nothing_has_ended_a_new_master() -> None:
    assert Ending().exit_code(cuts=0) == ExitCode.OK


def test_a_drain_that_has_cut_jobs_says_so() -> None:
    ending = Ending()

    assert not ending.term(5.0)
    assert ending.exit_code(cuts=0) == ExitCode.OK
    assert ending.exit_code(cuts=1) == ExitCode.CUT


def test_a_term_that_comes_twice_at_once_is_one() -> None:
    ending = Ending()

    answers = [ending.term(100.0 + after) for after in (0.0, 0.1, REPEAT_GRACE)]

    assert answers == [False, False, False]
    assert ending.exit_code(cuts=0) == ExitCode.OK


def test_another_term_ends_at_once() -> None:
    ending = Ending()
    ending.term(100.0)

    assert ending.term(100.0 + REPEAT_GRACE + 0.1)
    assert ending.exit_code(cuts=3) == 128 + signal.SIGTERM


def test_repeated_terms_do_not_put_the_end_off() -> None:
    ending = Ending()

    assert [ending.term(float(second)) for second in range(4)] == [False, False, False, True]


def test_the_second_interrupt_ends_at_once() -> None:
    ending = Ending()

    assert not ending.interrupt()
    assert ending.exit_code(cuts=0) == ExitCode.OK
    assert ending.interrupt()
    assert ending.exit_code(cuts=1) == 128 + signal.SIGINT


def test_a_term_after_an_interrupt_is_a_first_one() -> None:
    ending = Ending()
    ending.interrupt()

    assert not ending.term(100.0)


@pytest.mark.parametrize("failure", [ExitCode.CONFIG, ExitCode.INTERNAL])
def test_a_master_that_gave_up_says_why_whatever_was_cut(failure: ExitCode) -> None:
    assert Ending(failure=failure).exit_code(cuts=2) == failure


def test_the_signal_that_ended_a_master_that_gave_up_is_what_counts() -> None:
    ending = Ending(failure=ExitCode.INTERNAL)
    ending.interrupt()
    ending.interrupt()

    assert ending.exit_code(cuts=0) == 128 + signal.SIGINT

"""Whether a death is the job's fault."""

import pytest

from forkresque.policy.verdicts import (
    CRASH_LIMIT,
    HOST_LIMIT,
    Blame,
    Sentence,
    is_host_lost,
    look_pause,
    sentence,
)


@pytest.mark.parametrize("once", [False, True])
def test_a_job_that_nobody_blames_goes_back_uncounted_if_it_may_run_again(
    once: bool,  # noqa: FBT001
) -> None:
    assert sentence(Blame.NOBODY, once=once) == Sentence(
        counted=False, limit=CRASH_LIMIT, fail=once
    )


def test_a_crash_counts_and_the_third_is_final() -> None:
    assert sentence(Blame.JOB, once=False) == Sentence(counted=True, limit=3, fail=False)


def test_the_loss_of_a_host_counts_less_than_a_crash() -> None:
    assert sentence(Blame.HOST, once=False) == Sentence(counted=True, limit=10, fail=False)
    assert HOST_LIMIT > CRASH_LIMIT


@pytest.mark.parametrize("blame", [Blame.JOB, Blame.HOST])
def test_a_job_that_must_not_run_twice_fails_at_its_first_death(blame: Blame) -> None:
    assert sentence(blame, once=True).fail


@pytest.mark.parametrize("once", [False, True])
def test_a_job_killed_at_its_limit_fails_and_is_not_counted(once: bool) -> None:  # noqa: FBT001
    assert sentence(Blame.LIMIT, once=once) == Sentence(counted=False, limit=CRASH_LIMIT, fail=True)


@pytest.mark.parametrize(
    ("misses", "reached_for", "lost"),
    [(0, 1e6, False), (1, 1e6, False), (2, 29.9, False), (2, 30.0, True), (9, 0.0, False)],
)
def test_a_host_is_lost_after_two_looks_by_a_clerk_that_was_itself_in_touch_for_a_lease(
    misses: int,
    reached_for: float,
    lost: bool,  # noqa: FBT001
) -> None:
    assert is_host_lost(misses=misses, reached_for=reached_for, lease=30.0) is lost


def test_a_lease_that_was_deleted_is_back_at_the_second_look() -> None:
    first = look_pause(missing=False, orphans=False, renewal=5.0)
    second = look_pause(missing=True, orphans=False, renewal=5.0)

    assert second > 5.0
    assert first + second == pytest.approx(10.0)
    assert look_pause(missing=True, orphans=True, renewal=5.0) == second
    assert look_pause(missing=False, orphans=True, renewal=5.0) < 1.0

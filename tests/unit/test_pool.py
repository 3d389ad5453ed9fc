"""One pool: its bounds and its target."""

import pytest

from forkresque.policy.pool import Pool

QUEUES = ("high", "ma*")


def test_a_pool_is_named_by_its_queues_and_begins_with_the_least() -> None:
    pool = Pool(QUEUES, 2, 5)

    assert (pool.name, pool.target, pool.births.size) == ("high,ma*", 2, 2)
    assert pool.is_elastic


def test_the_target_of_before_is_kept_as_far_as_the_bounds_allow() -> None:
    assert [Pool(QUEUES, 2, 5, target=target).target for target in (1, 2, 4, 9)] == [2, 2, 4, 5]


def test_a_pool_that_is_not_configured_wants_nobody() -> None:
    pool = Pool(QUEUES, 0, 0, target=4)

    assert pool.target == 0
    assert not pool.is_elastic


@pytest.mark.parametrize(("asked", "target"), [(-1, 2), (2, 2), (3, 3), (5, 5), (6, 5)])
def test_a_wish_is_kept_within_the_bounds(asked: int, target: int) -> None:
    pool = Pool(QUEUES, 2, 5)

    pool.want(asked)

    assert pool.target == pool.births.size == target


def test_a_fixed_pool_has_as_many_workers_as_it_may() -> None:
    pool = Pool(QUEUES, 3, 3)

    for most in (4, 1, 2):
        pool.allow(most)
        assert (pool.least, pool.most, pool.target) == (most, most, most)
        assert not pool.is_elastic


def test_an_elastic_pool_gets_another_upper_bound_and_keeps_its_target() -> None:
    pool = Pool(QUEUES, 2, 5, target=4)

    pool.allow(9)
    assert (pool.least, pool.most, pool.target) == (2, 9, 4)
    pool.allow(3)
    assert (pool.least, pool.most, pool.target) == (2, 3, 3)


def test_an_elastic_pool_that_was_narrowed_to_one_size_is_elastic_again_when_it_may() -> None:
    pool = Pool(QUEUES, 2, 5, target=4)

    pool.allow(1)
    assert (pool.least, pool.most, pool.target) == (1, 1, 1)
    assert not pool.is_elastic
    pool.allow(2)
    assert (pool.least, pool.most) == (2, 2)
    pool.allow(6)

    assert (pool.least, pool.most, pool.target) == (2, 6, 2)
    assert pool.is_elastic


@pytest.mark.parametrize("pool", [Pool(QUEUES, 2, 5, target=4), Pool(QUEUES, 3, 3)])
def test_a_pool_that_was_closed_wants_nobody_whatever_the_load(pool: Pool) -> None:
    pool.close()
    pool.want(4)

    assert pool.target == 0
    assert not pool.is_elastic, "or somebody would go on to scale it"
    assert pool.most > 0, "it is wanted, unlike one that a reload has abolished"

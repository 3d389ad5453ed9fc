"""What a master begins with, and what is left of its pools after a reload."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from forkresque.errors import ConfigError
from forkresque.options import PoolSpec, SupervisorOptions
from forkresque.policy.child import Fault, Kind, Spawn
from forkresque.policy.pool import Pool
from forkresque.scoreboard import MOST_POOLS, Role
from forkresque.supervisor.estate import HEADROOM, Estate, pools_after
from forkresque.supervisor.messages import Died


def spec(name: str, least: int, most: int) -> PoolSpec:
    return PoolSpec(tuple(name.split(",")), least, most)


def told(*pools: tuple[str, int]) -> list[dict[str, Any]]:
    """Return what the image before has told of its pools."""
    return [{"queues": name.split(","), "target": target} for name, target in pools]


def sizes(pools: list[Pool]) -> list[tuple[str, int, int, int]]:
    return [(pool.name, pool.least, pool.most, pool.target) for pool in pools]


# -- pools after a reload ----------------------------------------------------------------------


def test_pools_that_stay_keep_their_numbers_and_targets() -> None:
    pools = pools_after(told(("a", 3), ("b,c", 2)), [spec("b,c", 2, 2), spec("a", 1, 5)])

    assert sizes(pools) == [("a", 1, 5, 3), ("b,c", 2, 2, 2)]


@pytest.mark.parametrize(("before", "target"), [(1, 2), (3, 3), (9, 4)])
def test_a_target_is_moved_into_the_new_bounds(before: int, target: int) -> None:
    assert sizes(pools_after(told(("a", before)), [spec("a", 2, 4)])) == [("a", 2, 4, target)]


def test_a_pool_that_is_not_configured_any_more_wants_nobody() -> None:
    pools = pools_after(told(("a", 3), ("b", 2)), [spec("b", 2, 2)])

    assert sizes(pools) == [("a", 0, 0, 0), ("b", 2, 2, 2)]
    assert not pools[0].is_elastic


def test_new_pools_come_after_those_of_before() -> None:
    pools = pools_after(told(("a", 3)), [spec("n", 1, 2), spec("a", 3, 3), spec("m", 2, 2)])

    assert [pool.name for pool in pools] == ["a", "n", "m"]


def test_a_pool_that_comes_back_has_its_number_again() -> None:
    gone = pools_after(told(("a", 3), ("b", 1)), [spec("b", 1, 1)])
    again = told(*((pool.name, pool.target) for pool in gone))

    assert sizes(pools_after(again, [spec("b", 1, 1), spec("a", 2, 4)])) == [
        ("a", 2, 4, 2),
        ("b", 1, 1, 1),
    ]


def test_other_queues_are_another_pool_also_in_another_order() -> None:
    pools = pools_after(told(("a,b", 3)), [spec("b,a", 3, 3)])

    assert sizes(pools) == [("a,b", 0, 0, 0), ("b,a", 3, 3, 3)]


def test_no_failure_of_the_old_code_counts_against_the_new() -> None:
    assert all(not pool.births.failures for pool in pools_after(told(("a", 1)), [spec("a", 1, 1)]))


# -- the whole ---------------------------------------------------------------------------------


@pytest.fixture
def estate() -> Iterator[Estate]:
    options = SupervisorOptions(
        max_jobs=100, max_age=60.0, max_memory=1 << 20, boot_timeout=7.0, heartbeat_timeout=9.0
    )
    estate = Estate.new(options, [spec("a", 2, 5), spec("b", 1, 1)])
    yield estate
    close(estate)


def close(estate: Estate) -> None:
    os.close(estate.board.fd)
    for pipe in estate.batons:
        os.close(pipe.reader)
        os.close(pipe.writer)


def test_a_new_master_has_seats_for_the_most_workers_and_some_more(estate: Estate) -> None:
    assert estate.crew.seats == len(estate.board.seats) == 5 + 1 + HEADROOM
    assert sizes(list(estate.crew.pools)) == [("a", 2, 5, 2), ("b", 1, 1, 1)]
    assert len(estate.batons) == 2
    assert estate.crew.generation == 1
    assert (estate.members, estate.deaths, estate.mask) == ([], [], None)


def test_a_crew_knows_the_limits_of_its_options(estate: Estate) -> None:
    judge, renewal = estate.crew.judge, estate.crew.renewal

    assert (judge.boot_timeout, judge.heartbeat_timeout, judge.max_memory) == (7.0, 9.0, 1 << 20)
    assert (renewal.max_jobs, renewal.max_age, renewal.max_memory) == (100, 60.0, 1 << 20)
    assert not estate.crew.watched


def test_there_cannot_be_more_pools_than_the_shared_memory_has_room_for() -> None:
    specs = [spec(f"q{number}", 1, 1) for number in range(MOST_POOLS + 1)]

    with pytest.raises(ConfigError, match=f"there can be {MOST_POOLS} pools, got 33"):
        Estate.new(SupervisorOptions(), specs)


def handed_over(estate: Estate, specs: list[PoolSpec], *, renewed: bool = True) -> Estate:
    """Return the next image's estate, its descriptors being copies as after an exec."""
    state = json.loads(
        json.dumps(
            estate.state(
                members=[],
                deaths=[
                    {
                        "worker": "w",
                        "owner": "o",
                        "pid": 7,
                        "signum": 9,
                        "status": 0,
                        "working": True,
                        "claim": 3,
                        "cut": False,
                        "fault": "",
                        "job": "j",
                        "dump": ["line 1"],
                    }
                ],
                control=["/run/one.sock", True, os.dup(0), os.dup(0)],
                announced=True,
                strays=None,
                pidfile=None,
                mask=[15],
            )
        )
    )
    state["board"] = os.dup(state["board"])
    for pool in state["pools"]:
        pool["baton"] = list(map(os.dup, pool["baton"]))
    return Estate.inherited(state, SupervisorOptions(), specs, renewed=renewed)


def test_the_next_image_knows_all_that_the_one_before_has_left(estate: Estate) -> None:
    crew = estate.crew
    for seat in (0, 1):
        crew.spawned(Spawn(seat, Kind.WORKER, seat, replaces=seat - 1 if seat else None), 5.0)
    crew.got_ready(0)
    crew.condemn(1, Fault.ORDERED, 6.0)
    crew.pools[0].want(4)
    crew.counts["killed"] = 3
    estate.board.seats[0].take(Role.WORKER, 1)
    estate.board.seats[0].pid = 77
    estate.board.orders.paused = 1

    after = handed_over(estate, [spec("a", 2, 6), spec("c", 1, 1)])

    assert after.crew.children == crew.children
    assert after.crew.children[1].fault is Fault.ORDERED
    assert after.crew.children[1].kind is Kind.WORKER
    assert after.crew.counts == crew.counts
    assert after.crew.generation == 2
    assert after.crew.paused
    assert after.crew.ever_ready
    assert sizes(list(after.crew.pools)) == [("a", 2, 6, 4), ("b", 0, 0, 0), ("c", 1, 1, 1)]
    assert len(after.batons) == 3
    assert [seat.pid for seat in after.board.taken(Role.WORKER)] == [77]
    assert after.identity.nonce == estate.identity.nonce
    assert [(died.pid, died.dump) for died in after.deaths] == [(7, ("line 1",))]
    assert isinstance(after.deaths[0], Died)
    assert (after.pidfile, after.mask) == (None, [15])
    assert after.control is not None
    assert after.announced
    assert (after.control.path, after.control.is_named) == ("/run/one.sock", True)
    descriptors = (after.control.server, after.control.lock)
    for number in (after.board.fd, *descriptors, after.batons[0].reader, after.batons[2].writer):
        assert not os.get_inheritable(number)
    after.batons[0].give()
    assert estate.batons[0].take() == 0, "it is the same pipe"
    for number in (after.control.server, after.control.lock):
        os.close(number)
    close(after)


def test_an_image_without_new_code_replaces_nobody(estate: Estate) -> None:
    estate.crew.spawned(Spawn(0, Kind.WORKER), 5.0)

    after = handed_over(estate, [spec("a", 2, 5), spec("b", 1, 1)], renewed=False)

    assert after.crew.generation == 1
    assert not after.crew.is_rolling
    assert after.control is not None
    for number in (after.control.server, after.control.lock):
        os.close(number)
    close(after)

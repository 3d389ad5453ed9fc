"""The scaling controller in the toy plant: the scenarios that it was designed for.

What depends on chance is lived through with several seeds, and with many before a release.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from forkresque.policy.autoscale import Autoscaler
from forkresque.policy.births import Births
from tests.simulation.plant import Job, Machine, Pool, Queue, World
from tests.simulation.rivals import RIVALS, NodeResque, Rule
from tests.simulation.workloads import (
    MIB,
    SCENARIOS,
    Coming,
    Scenario,
    build,
    burst,
    change,
    cpu,
    io,
    last_start,
    percentile,
    poisson,
    reversals,
    simulate,
    sizes,
    waits,
)
from tests.support.sizes import sized

few = pytest.mark.parametrize("seeds", sized(range(3), range(100)))
several = pytest.mark.parametrize("seeds", sized(range(10), range(200)))


def grown(pool: Pool, start: float, stop: float = math.inf) -> list[int]:
    """Return by how much each decision of a time changed the size."""
    return [found.target - size for at, size, found in pool.decisions if start <= at < stop]


# -- bursts ------------------------------------------------------------------------------------


def test_an_io_burst_is_cleared_at_full_size_and_everybody_goes_home() -> None:
    pool = simulate("io burst")

    assert sizes(pool, 18)[0] >= 0.9 * 64
    assert max(sizes(pool)) == 64
    assert last_start(pool) + 1.0 - 10.0 <= 1.15 * (2000 / 64 + 6)
    assert max(sizes(pool, last_start(pool) + 160)) == 2
    assert reversals(pool) <= 2


def test_a_cpu_burst_fills_the_cores_without_crowding_them() -> None:
    pool = build(SCENARIOS["cpu burst"])
    pool.world.run(11.0)
    before = pool.machine.used
    pool.world.run(111.0)

    assert pool.completed >= 400 - 4
    assert max(sizes(pool)) <= math.ceil(1.25 * 4) + 1
    assert pool.machine.used - before >= 0.97 * 4 * 100 - 3
    pool.world.run(113.0)
    assert pool.completed == 400


@few
def test_a_mixed_burst_takes_little_longer_than_the_cores_need(seeds: range) -> None:
    for seed in seeds:
        pool = simulate("mixed burst", seed=seed)
        needed = pool.machine.used / 4

        assert max(sizes(pool)) <= 3 * 4
        assert last_start(pool) + 1 - 10 <= 1.06 * needed
        assert pool.completed == 600


# -- steady and changing load ------------------------------------------------------------------


@several
def test_a_drip_never_scales(seeds: range) -> None:
    for seed in seeds:
        pool = simulate("drip", seed=seed)

        assert pool.decisions == []
        assert set(sizes(pool)) == {1}


@few
def test_a_steady_load_has_what_it_needs_and_little_more(seeds: range) -> None:
    for seed in seeds:
        pool, offered = simulate("steady", seed=seed), 10
        steady = sizes(pool, 60)

        assert percentile(waits(pool), 0.95) <= 0.5
        assert sum(steady) / len(steady) <= 1.8 * offered
        assert reversals(pool) <= 10


@few
def test_a_square_wave_does_not_make_it_flap(seeds: range) -> None:
    for seed in seeds:
        pool = simulate("square wave", seed=seed)

        assert reversals(pool) <= 8
        assert percentile(waits(pool), 0.95) <= 0.5


@few
def test_a_ramp_is_followed_up_in_ten_seconds_and_down_in_a_minute_or_two(seeds: range) -> None:
    for seed in seeds:
        pool = simulate("ramp", seed=seed)

        assert percentile(waits(pool), 0.95) <= 0.5
        for second in range(30, 300, 10):
            offered = 60 * second / 300 * 0.3
            assert max(sizes(pool, second, second + 10)) >= offered
        for second in range(390, 600, 10):
            offered_before = 60 * (1 - (second - 90 - 300) / 300) * 0.3
            assert min(sizes(pool, second, second + 10)) <= 1.8 * offered_before + 3


@several
def test_long_jobs_after_short_ones_all_start_soon(seeds: range) -> None:
    for seed in seeds:
        pool = simulate("long after short", seed=seed)

        assert last_start(pool) <= 60 + 10
        assert pool.busy_retired == 0
        assert pool.completed == len(pool.queue.waits)


@few
def test_short_jobs_do_not_wait_behind_long_ones(seeds: range) -> None:
    for seed in seeds:
        pool = simulate("bimodal", seed=seed)

        assert percentile(waits(pool), 0.95) <= 0.5
        assert pool.busy_retired == 0


# -- what the machine does ---------------------------------------------------------------------


@several
def test_a_slow_boot_does_not_make_it_fork_for_ever(seeds: range) -> None:
    for seed in seeds:
        pool = simulate("slow boot", seed=seed)

        assert max(sizes(pool)) <= 4 * 15 * 0.5 / 0.8
        for _, seen in pool.history:
            size = seen.busy + seen.idle + seen.booting
            assert seen.booting <= max(4, size / 2)


@several
def test_neighbours_that_take_the_cores_are_seen(seeds: range) -> None:
    for seed in seeds:
        pool = simulate("stolen cores", seed=seed)

        assert max(sizes(pool)) <= math.ceil(1.25 * 4) + 1
        assert sizes(pool, 119)[0] <= 3
        assert max(sizes(pool, 120, 130)) >= 4
        assert not pool.queue.jobs


def test_memory_is_never_filled_by_growth() -> None:
    pool = simulate("memory")

    assert max(seen.memory.used for _, seen in pool.history if seen.memory) <= 0.9 * 2048 * MIB
    assert max(sizes(pool)) == 9
    assert not pool.queue.jobs


def test_memory_that_others_fill_makes_idle_workers_go() -> None:
    workload = Scenario(
        "twenty workers with little to do, when something else fills the memory",
        lambda _: burst(5.0, 200, io(1.0)),
        60.0,
        most=20,
        changes=((0.0, change(own=50 * MIB, limit=2000 * MIB)), (30.0, change(ballast=950 * MIB))),
    )
    pool = build(workload)
    pool.world.run(29.0)
    assert pool.size == 20
    pool.world.run(32.0)

    assert pool.memory <= 0.9 * 2000 * MIB
    assert pool.decisions[-1][2].reason == "memory at 98%"
    assert pool.busy_retired == 0


@several
def test_a_silent_redis_changes_nothing(seeds: range) -> None:
    for seed in seeds:
        pool = simulate("silence", seed=seed)

        assert grown(pool, 100, 160) == []
        assert len(set(sizes(pool, 100, 160))) == 1
        assert max(came_at + waited for came_at, waited in pool.queue.waits if came_at < 160) < 195
        assert not [waited for came_at, waited in pool.queue.waits if came_at > 200 and waited > 2]


@several
def test_children_that_do_not_boot_are_not_forked_for_ever(seeds: range) -> None:
    for seed in seeds:
        pool = simulate("crash loop", seed=seed)

        assert pool.crashes <= 12
        assert min(at for at, _, _ in pool.decisions if at > 65) <= 65 + 30
        assert pool.completed == 300


def test_a_quota_of_one_and_a_half_cores_is_two_workers() -> None:
    pool = simulate("quota")

    assert max(sizes(pool)) == 2
    assert last_start(pool) + 0.5 - 10 <= 1.06 * 150 * 0.5 / 1.5


def test_a_wave_that_wakes_in_step_does_not_look_like_a_lack_of_cores() -> None:
    workload = Scenario(
        "I/O jobs that all begin and end in the same moment",
        lambda _: burst(10.0, 2000, io(1.0, cpu=0.008)),
        60.0,
    )
    pool = build(workload)
    pool.world.run(40.0)

    assert sizes(pool, 18)[0] >= 0.9 * 64
    assert pool.machine.used / 30 < 0.5 * 4
    assert not any("core" in decision.reason for _, _, decision in pool.decisions)


# -- two masters -------------------------------------------------------------------------------


@few
def test_two_masters_at_one_queue_do_not_play_against_each_other(seeds: range) -> None:
    for seed in seeds:
        chance, world, queue = Random(seed), World(), Queue()
        one, other = (
            Pool(world, Machine(4.0), queue, Autoscaler(2, 64), least=2, births=Births(2))
            for _ in range(2)
        )
        world.feed(queue, poisson(20, 0, 300, lambda: io(0.5), chance))
        world.run(300.0)
        together = [x + y for x, y in zip(sizes(one, 60), sizes(other, 60), strict=True)]

        assert sum(together) / len(together) <= 1.8 * 10
        assert reversals(one) + reversals(other) <= 10
        assert opposed(one, other) <= 2


def opposed(one: Pool, other: Pool) -> int:
    """Return how often one grew within two seconds of the other's shrinking."""
    return sum(
        abs(at - then) <= 2 and (found.target > size) is not (there.target > before)
        for at, size, found in one.decisions
        for then, before, there in other.decisions
    )


# -- pauses, surprises, clocks -----------------------------------------------------------------


def test_a_pause_holds_everything_and_the_backlog_is_cleared_after_it() -> None:
    usual = SCENARIOS["io burst"]
    workload = replace(usual, changes=((5.0, change(paused=True)), (60.0, change(paused=False))))
    pool = build(workload)
    pool.world.run(130.0)

    assert grown(pool, 0, 60) == []
    assert set(sizes(pool, 0, 60)) == {2}
    assert sizes(pool, 68)[0] >= 0.9 * 64
    assert last_start(pool) + 1.0 - 60.0 <= 1.15 * (2000 / 64 + 6)


def test_when_nothing_is_known_of_the_jobs_it_doubles() -> None:
    workload = Scenario("jobs of a minute", lambda _: burst(10.0, 100, io(60.0)), 60.0)
    pool = build(workload)
    pool.world.run(30.0)

    assert sizes(pool, 18)[0] >= 32
    assert all(
        change <= max(2, size)
        for (_, size, _), change in zip(pool.decisions, grown(pool, 0), strict=True)
    )


@several
def test_jobs_that_get_a_hundred_times_longer_get_their_workers(seeds: range) -> None:
    def coming(chance: Random) -> Coming:
        return poisson(30, 0, 60, lambda: io(0.02), chance) + poisson(
            30, 60, 120, lambda: io(2.0), chance
        )

    for seed in seeds:
        pool = build(Scenario("from 20 ms to 2 s", coming, 120.0), seed=seed)
        pool.world.run(70.0)

        assert sizes(pool, 68)[0] >= 32


@several
def test_jobs_that_get_a_hundred_times_shorter_do_not_call_for_more(seeds: range) -> None:
    def coming(chance: Random) -> Coming:
        return poisson(1, 0, 120, lambda: io(10.0), chance) + poisson(
            20, 120, 240, lambda: io(0.1), chance
        )

    for seed in seeds:
        pool = build(Scenario("from 10 s to 0.1 s", coming, 240.0), seed=seed)
        pool.world.run(240.0)

        assert max(sizes(pool, 131)) == sizes(pool, 131)[0]


def test_only_differences_of_time_matter() -> None:
    for seed in range(3):
        here, there = (build(SCENARIOS["square wave"], seed=seed) for _ in range(2))
        there.slept = 2.0**20
        for pool in (here, there):
            pool.world.run(200.0)

        assert here.decisions == there.decisions
        assert here.decisions


@pytest.mark.parametrize("moment", [5.1, 11.3, 13.3, 30.1, 60.2, 100.1])
def test_ten_minutes_of_suspension_cost_one_decision(moment: float) -> None:
    plain, slept = (build(SCENARIOS["io burst"]) for _ in range(2))

    def sleep() -> None:
        slept.slept += 600.0
        slept.busy_seconds += 600.0 * slept.history[-1][1].busy
        slept.machine.pressed += 600.0

    slept.world.at(moment, sleep)
    for pool in (plain, slept):
        pool.world.run(240.0)

    assert grown(slept, moment, moment + 1) == []
    assert reversals(slept) == reversals(plain)
    assert last_start(slept) <= last_start(plain) + 2
    assert sizes(slept)[-1] == 2


# -- pools on the same cores -------------------------------------------------------------------


def side_by_side(*workloads: Callable[[Random], Coming], cores: float, seed: int) -> list[Pool]:
    """Return pools of one to sixteen workers on one machine, each with its queue."""
    world, machine, pools = World(), Machine(cores), []
    for coming in workloads:
        queue, births = Queue(), Births(1)
        pools.append(Pool(world, machine, queue, Autoscaler(1, 16), least=1, births=births))
        world.feed(queue, coming(Random(seed)))
    return pools


def test_two_cpu_bursts_share_the_cores() -> None:
    pools = side_by_side(
        lambda _: burst(10.0, 400, cpu(1.0)),
        lambda _: burst(40.0, 100, cpu(1.0)),
        cores=4.0,
        seed=0,
    )
    pools[0].world.run(150.0)
    together = [x + y for x, y in zip(*(sizes(pool, 75, 85) for pool in pools), strict=True)]

    assert sizes(pools[0], 30)[0] == 5
    assert max(together) <= math.ceil(1.25 * 4) + 1
    assert min(sizes(pools[1], 75, 85)) >= 2
    assert not pools[0].queue.jobs
    assert not pools[1].queue.jobs


def test_cpu_jobs_beside_do_not_stop_an_io_pool_from_growing() -> None:
    pools = side_by_side(
        lambda _: burst(10.0, 400, cpu(1.0)), lambda _: burst(20.0, 400, io(1.0)), cores=4.0, seed=0
    )
    pools[0].world.run(60.0)

    assert max(sizes(pools[0])) <= 6
    assert sizes(pools[1], 30)[0] == 16


# -- a small pool on two cores, with jobs of 10 ms to 1 s --------------------------------------


def small(rate: float, kind: Callable[[float], Job], least: int) -> Scenario:
    def coming(chance: Random) -> Coming:
        return poisson(rate, 0, 600, lambda: kind(0.01 * 100 ** chance.random()), chance)

    return Scenario("a small pool", coming, 600.0, least=least, most=8, cores=2.0)


MEAN = 0.215  # seconds a job, in the logarithm evenly between 10 ms and 1 s


@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize("rate", [0.5, 2, 8, 15])
@pytest.mark.parametrize("seeds", sized(range(2), range(50)))
def test_a_small_pool_serves_io_jobs_soon_and_stands_still(
    seeds: range, rate: float, least: int
) -> None:
    for seed in seeds:
        pool = build(small(rate, lambda seconds: io(seconds, cpu=0.002), least), seed=seed)
        pool.world.run(600.0)

        assert percentile(waits(pool), 0.95) <= 1.0
        assert sum(sizes(pool)) / len(sizes(pool)) <= 1.8 * rate * MEAN + 2
        assert reversals(pool) <= 10
        assert pool.busy_retired == 0


@pytest.mark.parametrize("rate", [0.5, 5, 8, 30])
@pytest.mark.parametrize("seeds", sized(range(2), range(50)))
def test_a_small_pool_of_cpu_jobs_has_three_workers_for_two_cores(
    seeds: range, rate: float
) -> None:
    for seed in seeds:
        pool = build(small(rate, cpu, 1), seed=seed)
        pool.world.run(600.0)

        assert max(sizes(pool)) <= 3
        assert pool.machine.used >= min(0.95, 0.9 * rate * MEAN / 2) * 2 * 590
        assert reversals(pool) <= 10
        assert pool.busy_retired == 0


# -- the rivals of bench/scaling.py ------------------------------------------------------------


@pytest.mark.parametrize("rule", RIVALS, ids=lambda rule: rule.__name__)
def test_a_rival_lives_in_the_same_plant_within_the_same_bounds(rule: type[Rule]) -> None:
    pool = simulate("quota", rule(2, 64))

    assert max(sizes(pool)) > 2 or rule is NodeResque
    assert min(sizes(pool)) >= 2
    assert max(sizes(pool)) <= 64
    assert pool.completed == 150

"""The scaling controller: exact cases. How it behaves over time is in tests/simulation."""

from collections.abc import Callable

import pytest

from forkresque.policy.autoscale import (
    CPU_PATIENCE,
    DOWN_EVERY,
    DOWN_WINDOW,
    GAP,
    Autoscaler,
    Decision,
    Memory,
    Sample,
)

MIB = 2**20


class Watch:
    """A controller that is shown the same picture again and again, a quarter second apart.

    The counters follow from the picture: jobs of `job` seconds that want `cpu` cores and wait
    for `queueing` more, and `others` cores used by other pools.
    """

    def __init__(self, least: int, most: int, *, now: float = 1000.0) -> None:
        self.scaler = Autoscaler(least, most)
        self.sample = Sample(now=now, waiting=0, busy=0, idle=least, booting=0, run=0.0, wait=0.0)
        self.job, self.cpu, self.queueing, self.pressure, self.others = 1.0, 0.0, 0.0, 0.0, 0.0

    def show(self, **seen: object) -> "Watch":
        self.sample = self.sample._replace(**seen)  # type: ignore[arg-type]
        return self

    def tick(self, by: float = 0.25) -> Decision | None:
        old, busy = self.sample, self.sample.busy * by
        self.sample = old._replace(
            now=old.now + by,
            busy_seconds=old.busy_seconds + busy,
            served=old.served + busy,
            completed=old.completed + round(busy / self.job),
            cpu_used=old.cpu_used + busy * self.cpu + by * self.others,
            others=old.others + by * self.others,
            run=None if old.run is None else old.run + busy * self.cpu,
            wait=None if old.wait is None else old.wait + busy * self.queueing,
            pressure=(old.pressure or 0.0) + by * self.pressure,
        )
        return self.scaler.step(self.sample)

    def settle(self, target: int) -> None:
        """Have all the workers that are wanted: busy, if anything waits."""
        busy = target if self.sample.waiting else min(self.sample.busy, target)
        self.show(busy=busy, idle=target - busy, booting=0)

    def over(self, seconds: float) -> list[Decision]:
        """Return the decisions of some seconds in which nothing else changes."""
        return [found for _ in range(round(seconds * 4)) if (found := self.tick())]

    def until(self, done: Callable[[], bool], within: float) -> list[Decision]:
        """Carry out the decisions until it is done."""
        found = []
        for _ in range(round(within * 4)):
            if decision := self.tick():
                found.append(decision)
                self.settle(decision.target)
            if done():
                return found
        raise AssertionError(f"not done after {within:g} s: {found}")


def test_a_standing_queue_makes_it_grow_and_the_reason_says_by_what_figures() -> None:
    watch = Watch(2, 32)
    watch.job = 0.5
    watch.show(waiting=0, busy=2, idle=0).over(3)

    decisions = watch.show(waiting=120).over(2)

    assert decisions[0].target == 4
    assert decisions[0].reason == "120 waiting, all 2 busy; 18 would clear it in 5 s"
    assert not decisions[0].retire_busy


def test_jobs_that_idle_workers_can_take_are_no_reason_to_grow() -> None:
    watch = Watch(4, 32)
    watch.show(waiting=3, busy=1, idle=3)

    assert watch.over(20) == []


def test_jobs_that_booting_workers_will_take_are_no_reason_to_grow() -> None:
    watch = Watch(4, 32)
    watch.show(waiting=2, busy=2, idle=0, booting=2)

    assert watch.over(20) == []


def test_a_spike_that_is_gone_within_a_second_does_not_count() -> None:
    watch = Watch(2, 32)
    watch.show(busy=1, idle=1)

    for _ in range(30):
        assert watch.show(waiting=500).over(0.75) == []
        assert watch.show(waiting=0).over(0.75) == []


def test_growth_doubles_and_takes_sixteen_at_most() -> None:
    watch = Watch(2, 64)
    watch.show(waiting=100_000, busy=2, idle=0)
    targets = []

    for _ in range(60):
        if decision := watch.tick():
            targets.append(decision.target)
            watch.show(busy=decision.target)

    assert targets == [4, 8, 16, 32, 48, 64]


def test_no_more_than_half_or_four_boot_at_the_same_time() -> None:
    watch = Watch(2, 64)
    watch.show(waiting=100_000, busy=2, idle=0, booting=0)

    for _ in range(400):
        if decision := watch.tick():
            watch.show(booting=decision.target - watch.sample.busy)
            assert watch.sample.booting <= max(4, decision.target / 2)
        elif watch.sample.booting and watch.scaler.target % 3:
            watch.show(busy=watch.sample.busy + 1, booting=watch.sample.booting - 1)


def test_no_redis_means_no_change() -> None:
    watch = Watch(2, 32)
    watch.show(waiting=500, busy=2, idle=0).over(2)
    target = watch.scaler.target

    assert watch.show(waiting=None, busy=0, idle=target).over(3600) == []
    assert watch.scaler.target == target


def test_nothing_happens_while_held() -> None:
    watch = Watch(2, 32)

    assert watch.show(waiting=500, busy=2, idle=0, held=True).over(60) == []
    assert watch.show(held=False).over(2)[0].target == 4


def test_a_gap_skips_a_decision_and_starts_the_windows_over() -> None:
    watch = Watch(2, 32)
    watch.show(waiting=500, busy=2, idle=0).over(0.75)

    assert watch.tick(GAP + 0.1) is None
    assert watch.over(0.75) == []
    assert watch.tick() is not None


def test_idle_workers_go_by_a_tenth_after_half_a_minute() -> None:
    watch = Watch(2, 32)
    watch.show(waiting=10_000, busy=2, idle=0)
    watch.until(lambda: watch.scaler.target == 32, 20)
    watch.show(waiting=0, busy=0, idle=32)

    decisions = watch.until(lambda: watch.scaler.target == 25, DOWN_WINDOW + DOWN_EVERY + 10)

    assert [decision.target for decision in decisions] == [28, 25]
    assert decisions[0].reason == "32 of 32 idle, 7 were enough for 30 s"


def test_a_shrink_takes_no_more_than_is_idle() -> None:
    watch = Watch(2, 40)
    watch.scaler.target = 40
    watch.show(busy=10, idle=1, booting=29)

    decisions = watch.over(DOWN_WINDOW + 2)

    assert [decision.target for decision in decisions] == [39]


def test_too_many_for_the_cores_leave_after_their_job() -> None:
    watch = Watch(1, 32)
    watch.scaler.target = 20
    watch.cpu, watch.queueing, watch.pressure = 0.1, 0.9, 1.0
    watch.show(waiting=1000, busy=20, idle=0, cores=2.0)

    decisions = watch.over(CPU_PATIENCE + 2)

    assert decisions == [Decision(18, "2 cores used up, good for 3", retire_busy=True)]


def test_one_busy_job_on_free_cores_sends_nobody_away() -> None:
    watch = Watch(1, 32)
    watch.scaler.target = 20
    watch.cpu = 1.0
    watch.show(waiting=0, busy=1, idle=19, cores=4.0)

    assert watch.over(CPU_PATIENCE + 10) == []


def test_pools_on_the_same_cores_leave_each_other_an_equal_part() -> None:
    watch = Watch(1, 32)
    watch.cpu, watch.queueing, watch.pressure, watch.others = 0.5, 0.5, 1.0, 3.5
    watch.show(waiting=1000, busy=1, idle=0, cores=4.0, pools=2)

    watch.until(lambda: watch.scaler.target == 3, 10)
    assert watch.over(10) == []


def test_what_other_pools_leave_is_free_for_the_taking() -> None:
    watch = Watch(1, 32)
    watch.cpu, watch.others = 1.0, 0.5
    watch.show(waiting=1000, busy=1, idle=0, cores=4.0, pools=2)

    watch.until(lambda: watch.scaler.target == 5, 10)


def test_the_claims_between_short_jobs_count_as_work() -> None:
    scaler, sample = Autoscaler(1, 8), Sample(now=0.0, waiting=20_000, busy=0, idle=1, booting=0)
    found = []

    for _ in range(16):  # 4,000 jobs of 20 us a second: 92 % of the time goes into claiming them
        sample = sample._replace(
            now=sample.now + 0.25,
            busy_seconds=sample.busy_seconds + 0.02,
            served=sample.served + 0.02,
            completed=sample.completed + 1000,
        )
        found.append(scaler.step(sample))

    assert any(found)


def test_many_that_wake_together_do_not_lack_cores() -> None:
    watch = Watch(8, 64)
    watch.cpu, watch.queueing, watch.pressure = 0.008, 0.3, 0.3
    watch.show(waiting=1000, busy=8, idle=0, cores=4.0)

    watch.until(lambda: watch.scaler.target == 64, 10)


def test_neighbours_that_take_our_cores_stop_the_growth() -> None:
    watch = Watch(2, 64)
    watch.cpu, watch.queueing, watch.pressure = 0.5, 0.5, 1.0
    watch.show(waiting=1000, busy=2, idle=0, cores=4.0)

    assert watch.over(10) == []


def test_without_figures_on_waiting_it_stops_growing_when_the_cores_are_full() -> None:
    watch = Watch(2, 64)
    watch.cpu = 1.0
    watch.show(waiting=1000, busy=2, idle=0, cores=4.0, run=None, wait=None)
    watch.until(lambda: watch.scaler.target == 4, 10)

    assert watch.over(30) == []


def test_memory_stops_the_growth_at_nine_tenths() -> None:
    watch = Watch(4, 64)
    watch.show(waiting=1000, busy=4, idle=0)
    watch.show(memory=Memory(limit=1000 * MIB, used=750 * MIB, worker=50 * MIB))

    first = watch.over(1.25)[0]

    assert first.target == 7
    assert "memory has room for 7" in first.reason
    watch.show(busy=7, memory=Memory(1000 * MIB, 900 * MIB, 50 * MIB))
    assert watch.over(10) == []


def test_full_memory_lets_idle_workers_go_at_once() -> None:
    watch = Watch(1, 20)
    watch.scaler.target = 20
    watch.show(busy=12, idle=8, memory=Memory(1000 * MIB, 960 * MIB, 20 * MIB))

    decisions = watch.over(2)

    assert decisions == [Decision(17, "memory at 96%")]


def test_a_growth_soon_after_a_shrink_doubles_the_patience_with_the_next() -> None:
    watch = Watch(2, 32)
    watch.scaler.target = 10
    watch.show(busy=2, idle=8)
    watch.until(lambda: watch.scaler.target == 9, DOWN_WINDOW + 2)
    watch.show(waiting=100)
    watch.until(lambda: watch.scaler.target > 9, 5)
    watch.show(waiting=0, busy=2, idle=watch.scaler.target - 2)

    assert watch.over(2 * DOWN_WINDOW - 2) == []
    assert "for 60 s" in watch.over(12)[0].reason


def test_ten_minutes_without_a_mistake_halve_the_patience_again() -> None:
    watch = Watch(2, 32)
    watch.scaler.target = 10
    watch.show(busy=2, idle=8)
    watch.until(lambda: watch.scaler.target == 9, DOWN_WINDOW + 2)
    watch.show(waiting=100)
    watch.until(lambda: watch.scaler.target == 18, 5)
    watch.show(waiting=0, busy=15, idle=3)
    assert watch.over(700) == []

    assert "for 30 s" in watch.show(busy=2, idle=16).over(DOWN_WINDOW + 20)[0].reason


def test_nearly_all_busy_is_no_reason_to_grow_and_all_busy_is() -> None:
    watch = Watch(20, 32)
    watch.show(busy=17, idle=3)
    assert watch.over(60) == []

    decision = watch.show(busy=20, idle=0).over(10)[0]

    assert decision.target > 20
    assert "busy on average" in decision.reason


def test_those_that_leave_after_their_job_do_not_count_as_busy() -> None:
    watch = Watch(4, 32)
    watch.show(busy=1, idle=3, leaving=10)

    for _ in range(80):
        watch.show(busy_seconds=watch.sample.busy_seconds + 10 * 0.25)
        assert watch.tick() is None


def test_of_a_queue_with_other_masters_only_the_own_share_counts() -> None:
    watch = Watch(2, 32)
    watch.show(waiting=10, busy=1, idle=1, share=0.1)

    assert watch.over(10) == []
    assert watch.show(share=1.0).over(2)


def test_a_young_worker_is_expected_to_own_more_one_day() -> None:
    watch = Watch(4, 64)
    watch.show(waiting=1000, busy=4, idle=0, memory=Memory(1000 * MIB, 880 * MIB, 1))

    watch.until(lambda: watch.scaler.target == 6, 2)
    watch.show(memory=Memory(1000 * MIB, 900 * MIB, 1))
    assert watch.over(10) == []


def test_what_neighbours_leave_is_what_we_get_while_we_want_more() -> None:
    watch = Watch(1, 64)
    watch.scaler.target = 8
    watch.cpu, watch.queueing, watch.pressure = 0.25, 0.75, 1.0
    watch.show(waiting=1000, busy=8, idle=0, cores=4.0)

    assert watch.over(CPU_PATIENCE + 2)[0].reason == "2 cores used up, good for 3"


def test_workers_that_jostle_now_and_then_have_no_such_neighbours() -> None:
    watch = Watch(8, 64)
    watch.cpu, watch.queueing, watch.pressure = 0.2, 0.3, 0.3
    watch.show(waiting=1000, busy=8, idle=0, cores=4.0)

    watch.until(lambda: watch.scaler.target == 18, 10)


def test_workers_in_step_that_fill_the_cores_by_turns_have_no_such_neighbours() -> None:
    watch = Watch(8, 64)
    watch.cpu, watch.queueing, watch.pressure = 0.33, 0.33, 0.66
    watch.show(waiting=1000, busy=8, idle=0, cores=4.0)

    watch.until(lambda: watch.scaler.target >= 10, 10)


def test_neighbours_that_take_all_leave_us_one_core_to_ask_for() -> None:
    watch = Watch(1, 64)
    watch.scaler.target = 10
    watch.cpu, watch.queueing, watch.pressure = 0.01, 0.99, 1.0
    watch.show(waiting=1000, busy=10, idle=0, cores=4.0)

    assert watch.over(CPU_PATIENCE + 2)[0].reason == "1 core used up, good for 2"


def test_counters_that_go_backwards_teach_nothing() -> None:
    watch = Watch(2, 64)
    watch.cpu = 1.0
    watch.show(waiting=1000, busy=2, idle=0, cores=4.0)
    watch.until(lambda: watch.scaler.target == 5, 10)

    for _ in range(20):
        watch.show(busy_seconds=0.0, served=0.0, completed=0, run=0.0, wait=0.0, cpu_used=0.0)
        assert watch.over(1.0) == []


def test_a_pool_that_is_there_already_keeps_its_size() -> None:
    assert Autoscaler(2, 8, target=6).target == 6
    assert Autoscaler(2, 8, target=60).target == 8


@pytest.mark.parametrize("latency", [0.0, -1.0])
def test_a_latency_that_cannot_be_is_refused(latency: float) -> None:
    with pytest.raises(ValueError, match=f"got {latency:g}"):
        Autoscaler(1, 2, latency)


@pytest.mark.parametrize(("least", "most"), [(0, 4), (5, 4), (-1, -1), (1, 0)])
def test_bounds_that_cannot_be_are_refused(least: int, most: int) -> None:
    with pytest.raises(ValueError, match=f"got {least} and {most}"):
        Autoscaler(least, most)
    scaler = Autoscaler(2, 3)
    with pytest.raises(ValueError, match=f"got {least} and {most}"):
        scaler.resize(least, most)
    assert (scaler.least, scaler.most, scaler.target) == (2, 3, 2)


def test_those_whom_an_operator_has_taken_away_are_no_reason_to_grow() -> None:
    watch = Watch(1, 8)
    watch.scaler.target = 8
    watch.show(busy=8, idle=0)
    watch.over(20.0)

    watch.scaler.resize(1, 1)
    watch.show(busy=0, idle=1)
    watch.over(1.0)
    watch.scaler.resize(1, 8)

    assert watch.over(10.0) == []


def test_new_bounds_move_the_target_at_once() -> None:
    scaler = Autoscaler(2, 8)

    scaler.resize(4, 8)
    assert scaler.target == 4
    scaler.resize(1, 3)
    assert scaler.target == 3
    scaler.resize(1, 30)
    assert scaler.target == 3

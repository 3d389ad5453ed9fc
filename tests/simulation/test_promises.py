"""What the scaling controller never does, whatever it is told."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from forkresque.policy.autoscale import GAP, LARGEST_STEP, Autoscaler, Decision, Memory, Sample


@dataclass(frozen=True)
class Moment:
    """What becomes different by the next sample; counters move by seconds a second."""

    by: float
    waiting: int | None
    busy: float  # of the target
    booting: float  # of what is not busy
    held: bool
    counters: tuple[float, ...]
    jobs: int
    age: float
    cores: float
    memory: Memory | None
    bounds: tuple[int, int] | None


moments = st.builds(
    Moment,
    by=st.sampled_from([0.25] * 8 + [0.1, 0.3, 1.0, 2.0, 4.9, 5.1, 600.0]),
    waiting=st.sampled_from([0, 0, 0, 0, 1, 50, 50, 10_000, 10_000, None]),
    busy=st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0, 1.0, 1.2]),
    booting=st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0]),
    held=st.sampled_from([False] * 19 + [True]),
    counters=st.tuples(*[st.sampled_from([0.0, 0.01, 0.3, 1.0, 1.0, 5.0, 1.0, 1.0, -3.0])] * 7),
    jobs=st.sampled_from([0, 0, 1, 5, 5000, -7]),
    age=st.sampled_from([0.0, 0.1, 30.0]),
    cores=st.sampled_from([0.2, 1.0, 2.0, 64.0]),
    memory=st.none()
    | st.builds(Memory, st.integers(1, 10**9), st.integers(0, 10**9), st.integers(0, 10**9)),
    bounds=st.sampled_from([None] * 19 + [(1, 1), (2, 5), (8, 80)]),
)
# Most of the time nothing changes: each moment lasts for some samples.
lives = st.lists(st.tuples(moments, st.sampled_from([1, 4, 20, 150, 150])), min_size=1, max_size=8)
promise = settings(deadline=None, max_examples=40)
scalers = st.builds(
    lambda bounds, target: Autoscaler(*bounds, target=target),
    st.sampled_from([(1, 1), (1, 8), (2, 64), (2, 64), (10, 11)]),
    st.sampled_from([0, 64]),
)


def live(scaler: Autoscaler, life: list[tuple[Moment, int]]) -> Iterator[Sample]:
    """Yield sample after sample, for a pool that has become what was wanted."""
    sample = Sample(now=1e6, waiting=0, busy=0, idle=scaler.target, booting=0, run=0.0, wait=0.0)
    for moment, times in life:
        if moment.bounds:
            scaler.resize(*moment.bounds)
        for _ in range(times):
            sample = following(sample, moment, scaler.target)
            yield sample


def following(sample: Sample, moment: Moment, target: int) -> Sample:
    served, used, others, run, wait, pressure, spent = (
        moment.by * seconds for seconds in moment.counters
    )
    busy = round(moment.busy * target)
    booting = round(moment.booting * max(0, target - busy))
    return Sample(
        now=sample.now + moment.by,
        waiting=moment.waiting,
        busy=busy,
        idle=max(0, target - busy - booting),
        booting=booting,
        held=moment.held,
        busy_seconds=sample.busy_seconds + busy * spent,
        served=sample.served + served,
        completed=sample.completed + moment.jobs,
        age=moment.age,
        cores=moment.cores,
        pools=2,
        cpu_used=sample.cpu_used + used,
        others=sample.others + others,
        run=(sample.run or 0.0) + run,
        wait=None if moment.cores == 64.0 else (sample.wait or 0.0) + wait,
        pressure=(sample.pressure or 0.0) + pressure,
        memory=moment.memory,
    )


@promise
@given(scalers, lives)
def test_the_target_is_within_the_bounds(
    scaler: Autoscaler, life: list[tuple[Moment, int]]
) -> None:
    for sample in live(scaler, life):
        before, decision = scaler.target, scaler.step(sample)

        assert scaler.least <= scaler.target <= scaler.most
        assert scaler.target == (decision.target if decision else before)
        assert decision is None or decision.target != before
        assert decision is None or decision.reason


@promise
@given(scalers, lives)
def test_a_shrink_takes_no_more_than_is_idle_unless_the_cores_are_used_up(
    scaler: Autoscaler, life: list[tuple[Moment, int]]
) -> None:
    for sample in live(scaler, life):
        before, decision = scaler.target, scaler.step(sample)
        if decision and decision.target < before:
            assert decision.retire_busy or before - decision.target <= sample.idle
            assert decision.retire_busy == ("used up" in decision.reason)


@promise
@given(scalers, lives)
def test_a_growth_doubles_at_the_most(scaler: Autoscaler, life: list[tuple[Moment, int]]) -> None:
    for sample in live(scaler, life):
        before, decision = scaler.target, scaler.step(sample)
        if decision and decision.target > before:
            assert decision.target - before <= min(LARGEST_STEP, max(2, before))
            assert decision.target - sample.busy - sample.idle <= max(4, decision.target / 2)


@promise
@given(scalers, lives)
def test_nothing_is_decided_while_it_is_held_or_blind_or_was_asleep(
    scaler: Autoscaler, life: list[tuple[Moment, int]]
) -> None:
    seen_at = 0.0

    for sample in live(scaler, life):
        asleep, seen_at = sample.now - seen_at > GAP, sample.now
        decision = scaler.step(sample)
        if sample.held or sample.waiting is None or asleep:
            assert decision is None


@promise
@given(scalers, lives)
def test_the_same_samples_lead_to_the_same_decisions(
    scaler: Autoscaler, life: list[tuple[Moment, int]]
) -> None:
    twin = copy.deepcopy(scaler)

    for sample in live(scaler, life):
        twin.resize(scaler.least, scaler.most)
        assert scaler.step(sample) == twin.step(copy.copy(sample))


@promise
@given(scalers, lives, st.integers(1, 10_000))
def test_a_longer_queue_never_lowers_the_target(
    scaler: Autoscaler, life: list[tuple[Moment, int]], more: int
) -> None:
    for sample in live(scaler, life):
        if sample.waiting is not None:
            with_more = copy.deepcopy(scaler)
            with_more.step(sample._replace(waiting=sample.waiting + more))
            scaler.step(sample)
            assert with_more.target >= scaler.target
        else:
            assert scaler.step(sample) is None


@promise
@given(scalers, lives)
def test_decisions_are_at_least_a_second_apart(
    scaler: Autoscaler, life: list[tuple[Moment, int]]
) -> None:
    found: list[tuple[float, Decision]] = []

    for sample in live(scaler, life):
        if decision := scaler.step(sample):
            assert not found or sample.now - found[-1][0] >= 0.95
            found.append((sample.now, decision))

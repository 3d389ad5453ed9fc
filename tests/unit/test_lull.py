"""For how long a master that has nothing to do may sleep."""

import time
from typing import Any

import pytest

from forkresque.app import Forkresque
from forkresque.errors import ConfigError
from forkresque.options import SupervisorOptions
from forkresque.supervisor.lull import GLANCE, TICK, Lull, nap, unnoticed, within


def application(*timeouts: float | None) -> Forkresque:
    app = Forkresque()
    for number, timeout in enumerate(timeouts):
        app.job(f"job-{number}", timeout=timeout)(lambda: None)
    return app


@pytest.mark.parametrize(
    ("options", "timeouts", "seconds"),
    [
        (SupervisorOptions(), (), GLANCE),
        (SupervisorOptions(), (None, 60.0), GLANCE),
        (SupervisorOptions(), (None, 2.5, 60.0), 2.5),
        (SupervisorOptions(), (0.1,), TICK),
        (SupervisorOptions(job_timeout=3.0), (None, 60.0), 3.0),
        (SupervisorOptions(heartbeat_timeout=2.0), (None,), 2.0),
        (SupervisorOptions(heartbeat_timeout=0.0), (None,), GLANCE),
        (SupervisorOptions(on_partition="stop"), (), TICK),
        (SupervisorOptions(preload=False), (), TICK),
    ],
)
def test_a_job_is_noticed_before_any_limit_of_its_own_is_over(
    options: SupervisorOptions, timeouts: tuple[float | None, ...], seconds: float
) -> None:
    assert unnoticed(lambda: application(*timeouts), options) == seconds


def test_jobs_that_could_not_be_imported_may_have_any_limit() -> None:
    def load() -> Forkresque:
        raise ConfigError("gone")

    assert unnoticed(load, SupervisorOptions()) == TICK


@pytest.mark.parametrize(
    ("limits", "seconds"), [((), GLANCE), ((0.0,), GLANCE), ((0.0, 4.0, 9.0), 4.0), ((0.2,), TICK)]
)
def test_no_limit_is_no_reason_to_look(limits: tuple[float, ...], seconds: float) -> None:
    assert within(limits) == seconds


@pytest.mark.parametrize(
    ("rest_until", "seconds"), [(0.0, TICK), (100.2, TICK), (103.0, 3.0), (999.0, GLANCE)]
)
def test_a_master_sleeps_no_longer_than_its_children_may_be_silent(
    rest_until: float, seconds: float
) -> None:
    assert nap(100.0, rest_until, GLANCE) == pytest.approx(seconds)


class Dozer:
    """A selector, a crew and a clock in one: each sleep takes as long as it says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.oversleeps, self.begun = 1000.0, 0.0, 0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def select(self, timeout: float) -> list[object]:
        self.now += timeout + self.oversleeps
        return []

    def facts(self) -> dict[int, object]:
        return {}

    def rest_until(self, now: float, _facts: object) -> float:
        return now + 20.0

    def are_as_before(self) -> bool:
        return True

    def lull(self) -> Lull:
        """Return a lull of all this."""
        parts: Any = self
        return Lull(parts, parts, parts, parts, lambda _now: False, lambda: GLANCE)


@pytest.mark.parametrize(("held_up", "late"), [(0.0, False), (4.0, False), (6.0, True)])
def test_a_standstill_is_noticed_in_a_sleep_and_in_a_pass(
    monkeypatch: pytest.MonkeyPatch, *, held_up: float, late: bool
) -> None:
    dozer = Dozer(monkeypatch)
    lull = dozer.lull()
    lull.notice()
    lull.sleep(lull.length(dozer.now, 60.0))
    assert lull.late_until < dozer.now

    dozer.oversleeps = held_up
    lull.sleep(lull.length(dozer.now, 60.0))
    assert (lull.late_until > dozer.now) == late

    dozer.oversleeps = 0.0
    lull.sleep(lull.length(dozer.now, 60.0))
    assert lull.late_until <= dozer.now
    dozer.now += held_up  # from waking up to what the master sees of its children
    lull.notice()
    assert (lull.late_until > dozer.now) == late

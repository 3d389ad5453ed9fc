"""For how long a master that has nothing to do may sleep."""

import pytest

from forkresque.app import Forkresque
from forkresque.errors import ConfigError
from forkresque.options import SupervisorOptions
from forkresque.supervisor.lull import GLANCE, TICK, nap, unnoticed, within


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

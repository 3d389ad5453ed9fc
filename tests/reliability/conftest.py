"""The report of the reliability suite, and what its tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.support.hosts import Network
from tests.support.report import REPORT, Report
from tests.support.servers import Server
from tests.support.site import Site
from tests.support.sizes import sized

REPORT_FILE = Path(__file__).parents[2] / "reliability-report.json"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORT] = Report()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    report = config.stash[REPORT]
    if report.is_empty:
        return
    report.write(REPORT_FILE)
    terminalreporter.section(f"reliability report, also in {REPORT_FILE.name}")
    for line in report.as_table():
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    """Return the report, to which a test adds what it has counted and timed."""
    return pytestconfig.stash[REPORT]


@pytest.fixture
def site(one_redis: Redis, ledger: Redis) -> Site:
    """Return the Redis under test and the ledger, both empty."""
    return Site(one_redis, ledger)


@pytest.fixture
def network(ledger: Redis, ledger_server: Server) -> Iterator[Network]:
    """Return a network with a Redis that is this test's own, and no hosts yet."""
    with Network(ledger, ledger_server.url) as network:
        yield network


@pytest.fixture(params=sized("small", "full"))
def both_sizes() -> None:
    """Run a test in both sizes although there is no difference."""

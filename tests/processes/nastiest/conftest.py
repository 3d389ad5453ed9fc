"""Each test of this package runs twice: as anybody's child, and (`-m full`) as PID 1."""

from collections.abc import Iterator, Mapping, Sequence

import pytest
from redis import Redis

from tests.processes.nastiest.harness import Begin, Run, subreaper
from tests.support.servers import Server


class _Beginner:
    """What `begin` is."""

    def __init__(self, server: Server, ledger_url: str, *, is_init: bool) -> None:
        self.is_init = is_init
        self.runs: list[Run] = []
        self._server = server
        self._ledger_url = ledger_url

    def __call__(
        self,
        *args: str,
        url: str | None = None,
        env: Mapping[str, str] | None = None,
        inside: Sequence[str] = (),
    ) -> Run:
        env = {"LEDGER_URL": self._ledger_url, **(env or {})}
        url = url or self._server.url
        run = Run(*args, url=url, env=env, inside=inside, is_init=self.is_init)
        self.runs.append(run)
        return run


@pytest.fixture(params=["normal", pytest.param("pid1", marks=pytest.mark.full)])
def begin(
    request: pytest.FixtureRequest, one_server: Server, ledger_server: Server, ledger: Redis
) -> Iterator[Begin]:
    """Return what starts masters. When the test is over nothing of them may be left."""
    beginner = _Beginner(one_server, ledger_server.url, is_init=request.param == "pid1")
    try:
        with subreaper():
            yield beginner
            for run in beginner.runs:
                print(run.account())
                run.stop()
    finally:
        for run in beginner.runs:
            run.remove()

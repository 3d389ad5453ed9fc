"""The kernel runs out of memory: a job that leaks pays for it, and not its master."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from forkresque.errors import ExitCode
from tests.support.memory_groups import MemoryGroup, memory_group, replayed
from tests.support.processes import Start, assert_nothing_left
from tests.support.servers import Server
from tests.support.site import Site, idle_workers, is_gone
from tests.support.waiting import wait_until

LIMIT = 200 << 20
APP = ("-A", "tests.support.ballast", "-q", "math")


@pytest.fixture(params=["the kernel's", "replayed"])
def group(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MemoryGroup]:
    """Return a group with 200 MB; the kernel's own where that can be had."""
    if request.param == "replayed":
        yield replayed(LIMIT, tmp_path)
        return
    with memory_group(LIMIT, tmp_path) as group:
        yield group


@pytest.fixture
def master(group: MemoryGroup, one_server: Server, ledger_server: Server) -> Iterator[Start]:
    """Start a master with ballast and two workers in that group."""
    env = {"LEDGER_URL": ledger_server.url, **group.env}
    start = Start(*APP, "-c", "2", url=one_server.url, env=env, inside=group.inside)
    yield start
    start.stop()
    print(f"-- log, of exit {start.process.returncode}\n{start.log()}")
    start.remove()


def score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score").read_text())


def test_a_leaking_job_dies_and_the_master_lives(
    master: Start, group: MemoryGroup, site: Site
) -> None:
    before = {worker.pid for worker in idle_workers(master, 2)}
    memory = group.memory()
    assert memory is not None
    assert memory.limit_bytes == LIMIT
    assert (100 << 20) < memory.used_bytes < LIMIT
    assert group.kills() == 0
    assert all(score(child.pid) > score(master.pid) for child in master.children())

    site.enqueue("leak", "leaked")
    failure = wait_until(site.failures, "the job to be recorded as failed")[0]

    assert group.kills() == 1
    assert site.runs() == ["leaked"]
    assert failure["payload"]["class"] == "leak"
    assert failure["exception"] == "DirtyExit"
    assert "was killed by SIGKILL" in failure["error"]
    chosen = "the kernel ran out of memory and chose it" in failure["error"]
    assert chosen is group.real, "a kill that nobody counted is nobody's"
    assert master.process.poll() is None
    after = {worker.pid for worker in idle_workers(master, 2)}
    (victim,) = before - after
    assert is_gone(victim)
    site.enqueue("note", "life goes on")
    site.await_processed(1)

    master.stop()
    assert master.process.returncode == ExitCode.OK
    assert_nothing_left(master, site.redis)

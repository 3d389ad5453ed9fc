"""Two installed versions of forkresque on one namespace, as in a rolling deploy (T-MIX-13).

The other version is a copy of the package in which something is changed: a comment in every script,
so that no digest is the same, or the number of the protocol.
"""

import random
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from forkresque.errors import ExitCode
from forkresque.protocol.payload import encode_job
from forkresque.protocol.registry import PROTOCOL
from forkresque.protocol.script import load
from tests.support import mutants, oracle
from tests.support.monitor import Intake
from tests.support.patience import Bench, patient
from tests.support.processes import Start, assert_nothing_left
from tests.support.site import APP, KEYS, Site, idle_workers, ticks
from tests.support.sizes import sized
from tests.support.tools import program
from tests.support.waiting import wait_until

SEED = 13
WORKERS = 2
SCRIPTS = ("claim", "done", "settle", "recover", "register", "beat")
DIGESTS = f"""
from forkresque.protocol.script import load
for name in {SCRIPTS}:
    print(load(name).digest)
"""


def another_version(bench: Bench) -> Path:
    """Return the folder of a copy of package and tests."""
    root = bench.directory / "another"
    root.mkdir()
    mutants.copy(root)
    return root


def change_scripts(root: Path) -> None:
    """Have every script be another text that does the same."""
    for path in (root / "forkresque" / "protocol" / "lua").rglob("*.lua"):
        path.write_text(f"{path.read_text()}\n-- of another version\n")


def start(bench: Bench, root: Path | None, *args: str) -> Start:
    """Start a master of the version in `root`, or of this one."""
    inside = (program("env", "coreutils"), "-C", str(root)) if root else ()
    return bench.start(*APP, "-c", str(WORKERS), *args, inside=inside)


def digests_of(root: Path) -> list[str]:
    """Return the digests of the scripts of a version."""
    told = subprocess.run(
        [sys.executable, "-c", DIGESTS], cwd=root, capture_output=True, text=True, check=True
    )
    return told.stdout.split()


@patient
def test_a_newer_protocol_refuses_those_before_it_and_works_on(bench: Bench) -> None:
    site, root = bench.site, another_version(bench)
    registry = root / "forkresque" / "protocol" / "registry.py"
    text, line = registry.read_text(), f"PROTOCOL = {PROTOCOL} "
    assert text.count(line) == 1
    registry.write_text(text.replace(line, f"PROTOCOL = {PROTOCOL + 1} "))
    newer = start(bench, root)
    idle_workers(newer, WORKERS)
    known = site.redis.smembers(KEYS.workers())

    older = start(bench, None)

    assert older.wait(10) == ExitCode.CONFIG
    told = f"kept by a newer forkresque (protocol {PROTOCOL + 1}, ours is {PROTOCOL})"
    assert told in older.log()
    assert "upgrade this one" in older.log()
    assert site.redis.smembers(KEYS.workers()) == known
    assert site.redis.get(KEYS.proto()) == b"%d" % (PROTOCOL + 1)
    site.enqueue("note", "by the newer")
    site.await_processed(1)


@dataclass(frozen=True)
class Size:
    """How many jobs, in how many seconds."""

    jobs: int
    seconds: float


@dataclass
class Deploy:
    """A master of each version. They are killed in turn, so each brings back the other's jobs."""

    begin: list[Callable[[], Start]]  # of each version
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))
    kills: int = 0
    blows: int = 0
    started: list[Start] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.masters = [begin() for begin in self.begin]
        self.started += self.masters

    def kill_a_worker(self) -> None:
        """Kill some worker of either version."""
        if workers := self.chance.choice(self.masters).children("worker"):
            self._kill([self.chance.choice(workers)])

    def replace(self) -> None:
        """Kill all processes of the older master in one stroke, and start its version again."""
        master = self.masters.pop(0)
        everybody = [psutil.Process(master.pid), *master.children()]
        for process in everybody:
            process.send_signal(signal.SIGSTOP)
        self._kill(everybody)
        master.process.wait()
        self.masters.append(self.begin[self.blows % 2]())
        self.started.append(self.masters[-1])
        self.blows += 1

    def _kill(self, processes: list[psutil.Process]) -> None:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
                self.kills += 1


@pytest.mark.parametrize("size", sized(Size(400, 4.0), Size(8_000, 60.0), timeout=240), ids=str)
@patient
def test_two_versions_side_by_side_and_in_turn_lose_and_double_nothing(
    bench: Bench, size: Size
) -> None:
    site, root = bench.site, another_version(bench)
    change_scripts(root)
    theirs = digests_of(root)
    ours = [load(name).digest for name in SCRIPTS]
    assert not set(ours) & set(theirs)
    bench.report.seed("rolling deploy", SEED)
    audit = ("--audit", str(oracle.AUDIT))
    deploy = Deploy([lambda: start(bench, None, *audit), lambda: start(bench, root, *audit)])
    for master in deploy.masters:
        idle_workers(master, WORKERS)

    intake = Intake(site.redis)
    steps = round(size.seconds / 0.1)
    for tick in ticks(0.1, size.seconds):
        _enqueue(intake, range(size.jobs * tick // steps, size.jobs * (tick + 1) // steps))
        deploy.kill_a_worker()
        if tick % 10 == 5:
            deploy.replace()
    wait_until(lambda: _is_settled(site), "all jobs to be settled", 30.0)
    for master in deploy.masters:
        idle_workers(master, WORKERS)

    assert all(site.redis.script_exists(*ours, *theirs)), "both have worked"
    assert deploy.blows >= 4
    bench.report.count("kills of workers", deploy.kills)
    evidence = oracle.prove(site, intake.acknowledged, bench.report, faults=deploy.kills)
    assert any(event.event == "REQUEUED" for event in evidence.events), "no job was in hand"
    for master in deploy.masters:
        master.send_signal(signal.SIGTERM)
    assert [master.wait(10) for master in deploy.masters] == [ExitCode.OK] * 2
    for one in deploy.started:
        assert_nothing_left(one, site.redis)


def _enqueue(intake: Intake, marks: range) -> None:
    intake.put({encode_job("math", "slow", [f"job {mark}", 0.02]): f"job {mark}" for mark in marks})


def _is_settled(site: Site) -> bool:
    return not site.waiting() and not site.slots()

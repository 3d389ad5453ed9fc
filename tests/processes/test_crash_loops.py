"""Children that cannot boot any more, and forks that the kernel refuses: nothing spins, all mends.

That a master gives up by itself, and how much it forks meanwhile, is shown in `nastiest`.
"""

import re
import signal
import socket
from pathlib import Path
from typing import Any

from forkresque.errors import ExitCode
from forkresque.policy.births import FIRST_DELAY
from tests.support.patience import Bench, patient
from tests.support.processes import Start, assert_nothing_left
from tests.support.site import APP, Site, await_rest, is_gone, state, stays
from tests.support.waiting import wait_until

SLACK = 0.15  # seconds by which one child may be faster than another to tell of its birth
PATIENCE = 0.5  # seconds after which a master would give up, where nobody looks after it

# An application that no child survives as long as the file FLAG is there. Each tells when it began.
FICKLE = """
import os, pathlib, time
from tests.support.jobs import app

if pathlib.Path(os.environ["FLAG"]).exists():
    with pathlib.Path(os.environ["FLAG"] + ".births").open("a") as births:
        births.write(f"{time.monotonic()}\\n")
    os._exit(3)
"""
# An application under which forks fail as often as the file FLAG says; each failure is told.
REFUSING = """
import errno, os, pathlib
from tests.support.jobs import app

flag, fork = pathlib.Path(os.environ["FLAG"]), os.fork


def refusing():
    left = int(flag.read_text() or 0)
    if not left:
        return fork()
    flag.write_text(str(left - 1))
    with pathlib.Path(os.environ["FLAG"] + ".refused").open("a") as refused:
        refused.write("x")
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


os.fork = refusing
"""


class Cause:
    """What keeps children of an application from being born, as long as it is there."""

    def __init__(self, directory: Path, source: str) -> None:
        (directory / "faulty_app.py").write_text(source)
        self.flag = directory / "flag"
        self.env = {"PYTHONPATH": str(directory), "FLAG": str(self.flag)}
        self.args = ("-A", "faulty_app", "-q", "math")

    def births(self) -> list[float]:
        """Return when children have begun in vain, in seconds of the monotonic clock."""
        told = self.flag.with_suffix(".births")
        return [float(line) for line in told.read_text().split()] if told.exists() else []

    def refused(self) -> int:
        """Return how many forks have failed."""
        told = self.flag.with_suffix(".refused")
        return len(told.read_text()) if told.exists() else 0


def pool(master: Start) -> dict[str, Any]:
    """Return what a master says of its only pool."""
    (told,) = state(master)["pools"]
    return dict(told)


def workers(master: Start) -> set[int]:
    return {worker.pid for worker in master.children("worker")}


def drain(master: Start, site: Site) -> None:
    """End the master; nothing may be left."""
    master.send_signal(signal.SIGTERM)
    assert master.wait(5) == ExitCode.OK
    assert_nothing_left(master, site.redis)


def perform(site: Site, mark: str) -> None:
    """See a job done."""
    site.enqueue("note", mark)
    wait_until(lambda: mark in site.runs(), f"{mark} to be done")


# -- children that do not boot -----------------------------------------------------------------


@patient
def test_one_at_a_time_finds_out_whether_the_cause_is_gone(bench: Bench) -> None:
    site, fickle = bench.site, Cause(bench.directory, FICKLE)
    options = ("-c", "4", "--no-preload", "--give-up", str(PATIENCE))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(bench.directory / "notify"))
        env = {**fickle.env, "NOTIFY_SOCKET": str(bench.directory / "notify")}
        master = bench.start(*fickle.args, *options, env=env)
        await_rest(master, 4)

        fickle.flag.touch()
        for worker in master.children("worker"):
            worker.kill()
        wait_until(lambda: pool(master)["broken"], "the breaker to open")
        wait_until(lambda: pool(master)["booting"] == 0, "those on their way to fail")
        before = len(fickle.births())

        def probed() -> bool:
            assert pool(master)["booting"] <= 1
            return len(fickle.births()) >= before + 2

        wait_until(probed, "two probes")
        births = fickle.births()
        for number in (before, before + 1):
            least = 0.5 * FIRST_DELAY * 2 ** (number - 1)
            assert births[number] - births[number - 1] >= least - SLACK, births
        trouble = f"workers of pool math do not boot: {len(births)} in a row"
        wait_until(lambda: trouble in state(master)["trouble"], "the master to count it")
        assert pool(master)["broken"]
        assert not state(master)["ready"]
        assert births[-1] - births[0] > PATIENCE
        assert master.process.poll() is None, "whether to give up is for the service manager"

        fickle.flag.unlink()
        await_rest(master, 4, 20.0)
        told = state(master)
        assert (told["ready"], told["trouble"], told["pools"][0]["broken"]) == (True, [], False)
        assert told["counters"]["fork_failures"] == 0
        perform(site, "after")
        drain(master, site)


@patient
def test_replacements_that_cannot_boot_leave_the_others_at_work(bench: Bench) -> None:
    site, fickle = bench.site, Cause(bench.directory, FICKLE)
    options = ("-c", "2", "--no-preload", "--max-age", "2", "--give-up", str(PATIENCE))
    master = bench.start(*fickle.args, *options, env=fickle.env)
    await_rest(master, 2)

    fickle.flag.touch()
    wait_until(lambda: fickle.births(), "a replacement to fail")
    old = {w["pid"] for w in state(master)["workers"] if w["phase"] in ("idle", "call")}
    wait_until(lambda: pool(master)["broken"], "the breaker to open", 15.0)
    stays(lambda: old <= workers(master), "the old ones go on", PATIENCE)
    perform(site, "meanwhile")
    assert len(old) == 2
    assert len(fickle.births()) <= 5
    assert not state(master)["ready"]

    fickle.flag.unlink()
    wait_until(lambda: not old & workers(master), "the old ones to be replaced", 15.0)
    wait_until(lambda: state(master)["ready"], "the master to be ready")
    perform(site, "after")
    assert site.count("failed") == 0
    drain(master, site)


@patient
def test_workers_go_on_while_no_clerk_can_boot(bench: Bench) -> None:
    site, fickle = bench.site, Cause(bench.directory, FICKLE)
    master = bench.start(*fickle.args, "-c", "2", "--no-preload", env=fickle.env)
    await_rest(master, 2)
    wait_until(lambda: state(master)["ready"], "the clerk")
    before = workers(master)

    fickle.flag.touch()
    (clerk,) = master.children("clerk")
    clerk.kill()
    wait_until(lambda: len(fickle.births()) >= 3, "three clerks to fail")
    told = state(master)
    assert "there is no clerk" in told["trouble"]
    assert not told["ready"]
    assert not told["pools"][0]["broken"]
    perform(site, "meanwhile")
    assert len(fickle.births()) <= 6
    assert workers(master) == before

    fickle.flag.unlink()
    wait_until(lambda: state(master)["ready"], "a clerk that can")
    assert is_gone(clerk.pid)
    assert workers(master) == before
    drain(master, site)


@patient
def test_workers_that_wait_for_redis_have_booted(bench: Bench) -> None:
    site = bench.site
    master = bench.start(
        *APP, "-c", "2", "--boot-timeout", "1", url=f"unix://{bench.directory}/nobody"
    )
    wait_until(
        lambda: len(re.findall("worker=.* waits for", master.log())) == 2, "both to wait for Redis"
    )
    before = workers(master)

    stays(lambda: before == workers(master), "they wait for longer than a boot may take", 2.6)

    told = state(master)
    assert told["trouble"] == ["the clerk does not reach Redis"]
    assert told["counters"]["killed"] == 0
    assert not told["pools"][0]["broken"]
    assert "did not boot in time" not in master.log()
    drain(master, site)


# -- forks that fail ---------------------------------------------------------------------------


@patient
def test_forks_that_fail_are_tried_again_and_told_once(bench: Bench) -> None:
    site = bench.site
    cause = Cause(bench.directory, REFUSING)
    cause.flag.write_text("4")
    master = bench.start(*cause.args, "-c", "2", env=cause.env)
    await_rest(master, 2)
    assert cause.refused() == 4, "the first ones failed"

    cause.flag.write_text("3")
    victim, other = sorted(workers(master))
    master.children("worker")[0].kill()
    wait_until(lambda: cause.refused() == 7, "three more to fail")
    perform(site, "meanwhile")
    await_rest(master, 2)

    wait_until(lambda: state(master)["ready"], "the master to be ready")
    assert state(master)["counters"]["fork_failures"] == 7
    assert not pool(master)["broken"]
    assert len({victim, other} & workers(master)) == 1
    assert master.log().count("cannot fork a") == 1
    assert "Resource temporarily unavailable" in master.log()
    assert "Traceback" not in master.log()
    drain(master, site)

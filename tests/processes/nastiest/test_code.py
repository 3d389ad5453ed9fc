"""Failures 9, 11 and 20: code that cannot be imported, or not any more, or not in time."""

import signal
from pathlib import Path
from typing import Any

import pytest

from forkresque.errors import ExitCode
from tests.processes.nastiest.harness import (
    Begin,
    Run,
    assert_calm,
    assert_nothing_left,
    draining,
    end,
    has_logged,
    idle,
)
from tests.support.site import Site, stays
from tests.support.waiting import wait_until

WATCHED = 2.5  # seconds for which births are counted
MOST_BIRTHS = 12

BROKEN = "import tests.support.jobs\n\n\ndef helper():\n    return 1 / 0\n\n\nhelper()\n"
SOUND = "from tests.support.jobs import app\n"
# An application that takes its time as long as the file FLAG is there.
SLOW = """
import os, pathlib, time
from tests.support.jobs import app

if pathlib.Path(os.environ["FLAG"]).exists():
    pathlib.Path(os.environ["FLAG"] + ".seen").touch()
    time.sleep(1.0)
"""
# An application that no child survives as long as the file FLAG is there.
FICKLE = """
import ctypes, os, pathlib, time
from tests.support.jobs import app

if pathlib.Path(os.environ["FLAG"]).exists():
    with pathlib.Path(os.environ["FLAG"] + ".births").open("a") as births:
        births.write("x")
    {fault}
"""
FAULTS = {
    "exits": ("os._exit(3)", "ended status=3"),
    "crashes": ("ctypes.string_at(0)", "ended signal=11"),
    "sleeps": ("time.sleep(60)", "it did not boot in time"),
}


def environment(directory: Path) -> dict[str, str]:
    """Return an environment in which modules of this directory can be imported, and with a FLAG."""
    # No file of compiled code: of two sources in the same second the second would not be read.
    return {
        "PYTHONPATH": str(directory),
        "FLAG": str(directory / "flag"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


# -- 9 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["in the check", "in the import"])
def test_09_term_during_a_reload(begin: Begin, site: Site, tmp_path: Path, when: str) -> None:
    (tmp_path / "slow_app.py").write_text(SLOW)
    flag, seen = tmp_path / "flag", tmp_path / "flag.seen"
    run = begin("-A", "slow_app", "-q", "math", "-c", "2", env=environment(tmp_path))
    site.gates("a", "b")

    flag.touch()
    run.send_signal(signal.SIGHUP)
    wait_until(seen.exists, "the new code to be tried")
    if when == "in the import":
        has_logged(run, "replacing this master")
        seen.unlink()
        wait_until(seen.exists, "the new code to be imported")
    run.send_signal(signal.SIGTERM)
    draining(run)
    site.release("a", "b")

    assert run.wait(5) == ExitCode.OK
    assert sorted(site.runs()) == ["a", "b"]
    assert (site.count("processed"), site.count("failed")) == (2, 0)
    assert run.log().count("draining within=") == 1
    assert_calm(run)
    assert_nothing_left(run, site.redis)


# -- 11 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
def test_11_child_dies_in_boot(begin: Begin, site: Site, tmp_path: Path, fault: str) -> None:
    code, how = FAULTS[fault]
    (tmp_path / "fickle_app.py").write_text(FICKLE.format(fault=code))
    flag, births = tmp_path / "flag", tmp_path / "flag.births"
    options = ("-c", "2", "--no-preload", "--boot-timeout", "1")
    run = begin("-A", "fickle_app", "-q", "math", *options, env=environment(tmp_path))
    before = idle(run, 2)
    born = run.state()["counters"]["born"]

    flag.touch()
    for worker in before:
        worker.kill()
    stays(lambda: run.process.poll() is None, "the master goes on", WATCHED)
    assert 2 <= len(births.read_text()) <= MOST_BIRTHS
    wait_until(lambda: pool(run)["broken"], "the breaker to open", 10.0)
    report = run.state()
    assert not report["ready"]
    assert any("math" in trouble for trouble in report["trouble"])
    assert {worker["phase"] for worker in report["workers"]} <= {"boot"}
    assert len(births.read_text()) <= report["counters"]["born"] - born
    assert how in run.log()

    flag.unlink()
    idle(run, 2, 20.0)
    wait_until(lambda: run.state()["ready"] and not pool(run)["broken"], "it to be ready")
    site.enqueue("note", "n")
    site.await_processed(1)
    end(run, site.redis)


def pool(run: Run) -> dict[str, Any]:
    """Return what a master says of its only pool."""
    (told,) = run.state()["pools"]
    return dict(told)


def test_11_crash_loop_is_given_up(begin: Begin, site: Site, tmp_path: Path) -> None:
    (tmp_path / "fickle_app.py").write_text(FICKLE.format(fault="os._exit(3)"))
    options = ("-c", "2", "--no-preload", "--give-up", "1.5")
    run = begin("-A", "fickle_app", "-q", "math", *options, env=environment(tmp_path))
    before = idle(run, 2)

    (tmp_path / "flag").touch()
    for worker in before:
        worker.kill()

    assert run.wait(10) == ExitCode.INTERNAL
    assert "giving up" in run.log()
    assert_nothing_left(run, site.redis)


# -- 20 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("preload", ["--preload", "--no-preload"])
def test_20_import_error_at_start(begin: Begin, site: Site, tmp_path: Path, preload: str) -> None:
    (tmp_path / "broken_app.py").write_text(BROKEN)

    run = begin("-A", "broken_app", "-c", "2", preload, env=environment(tmp_path))

    assert run.wait(5) == ExitCode.CONFIG
    assert "in helper" in run.log()
    assert "ZeroDivisionError" in run.log()
    assert_nothing_left(run, site.redis)


def test_20_import_error_at_reload(begin: Begin, site: Site, tmp_path: Path) -> None:
    source = tmp_path / "changing_app.py"
    source.write_text(SOUND)
    run = begin("-A", "changing_app", "-q", "math", "-c", "2", env=environment(tmp_path))
    idle(run, 2)
    children = run.children()
    site.gates("held")

    rewrite(source, BROKEN)
    run.send_signal(signal.SIGHUP)
    wait_until(lambda: run.state()["reload"]["state"] == "refused", "the new code to be refused")

    report = run.state()
    assert "ZeroDivisionError" in report["reload"]["reason"]
    assert report["generation"] == 1
    assert report["ready"]
    site.enqueue("note", "n")
    site.await_processed(1)
    assert run.children() == children, "the old generation goes on"

    rewrite(source, SOUND)
    run.send_signal(signal.SIGHUP)
    wait_until(lambda: run.state()["generation"] == 2, "the new generation")
    site.release("held")
    site.await_processed(2)
    wait_until(lambda: run.state()["reload"] == {"state": "none", "reason": ""}, "its end")
    assert not set(idle(run, 2)) & set(children)
    assert site.starts("held") == 1
    end(run, site.redis)


def rewrite(source: Path, text: str) -> None:
    """Replace a module in one step."""
    fresh = source.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(source)

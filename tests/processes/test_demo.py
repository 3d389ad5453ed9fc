"""`forkresque demo`: the first thing that anybody runs. It leaves no process and no file."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from forkresque.errors import ExitCode
from tests.support.processes import ROOT, is_alive, kill, outlasting, title
from tests.support.servers import dying_with_runner
from tests.support.site import is_gone
from tests.support.waiting import wait_until

KINDS = {"fast", "slow", "failing", "delayed", "crash"}
PLACES = ("HOME", "TMPDIR", "XDG_RUNTIME_DIR")
SHARED = Path("/tmp") / f"forkresque-{os.getuid()}"  # where sockets are without XDG_RUNTIME_DIR


class Demo:
    """One run of `forkresque demo` whose home, temporary and runtime directories are its own."""

    def __init__(self, *words: str, without: str = "") -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="fr-demo-"))
        places = {name: self.directory / name.lower() for name in PLACES if name != without}
        for place in places.values():
            place.mkdir(mode=0o700)
        ours = ("FORKRESQUE_", "REDIS_URL", *PLACES)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                dying_with_runner(
                    [sys.executable, "-m", "forkresque", "demo", *words], signal.SIGTERM
                ),
                cwd=ROOT,
                env=clean | {name: str(place) for name, place in places.items()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def _log(self) -> Path:
        return self.directory / "log"

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def told(self) -> set[str]:
        """Return the kinds of jobs of which it has told."""
        return set(re.findall(r"^\d\d:\d\d:\d\d (\w+) +\S", self.log(), re.M)) & KINDS

    def await_told(self, text: str) -> None:
        wait_until(lambda: text in self.log(), f"{text!r} to be told")

    def wait(self, timeout: float) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the demo still runs after {timeout} s\n{self.log()}") from None

    def left(self) -> list[psutil.Process]:
        """Return all processes that it started: they share its session or its directories."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                of_us = os.getsid(process.pid) == self.process.pid
                if of_us or str(self.directory) in (title(process) + str(process.environ())):
                    found.append(process)
        return [process for process in found if is_alive(process)]

    def files(self) -> list[Path]:
        """Return what is in its directories."""
        places = [self.directory / name.lower() for name in PLACES]
        return [path for place in places for path in place.rglob("*")]

    def assert_nothing_left(self) -> None:
        wait_until(
            lambda: not self.left(), f"the end of {[title(p) for p in self.left()]}", timeout=2.0
        )
        assert self.files() == []

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        self.process.poll()
        kill(outlasting(self.left(), 1.0))
        self.process.wait(5)
        print(f"-- log of the demo, which ended with {self.process.returncode}\n{self.log()}")
        shutil.rmtree(self.directory)


@pytest.fixture
def demo() -> Iterator[Callable[..., Demo]]:
    """Return what starts a demo; the fixture ends it."""
    started: list[Demo] = []

    def start(*words: str, without: str = "") -> Demo:
        started.append(Demo(*words, without=without))
        return started[-1]

    yield start
    for one in started:
        one.end()


def test_the_demo_shows_every_kind_of_job_and_leaves_nothing(demo: Callable[..., Demo]) -> None:
    was_there = SHARED.exists()
    before = set(SHARED.iterdir()) if was_there else set()  # of masters that were killed, too

    both = [demo("--for", "4s", without=without) for without in ("", "XDG_RUNTIME_DIR")]

    for shown in both:
        assert shown.wait(12) == ExitCode.OK
        assert_has_shown_all(shown)
        shown.assert_nothing_left()
    # In the directory that all share there may be masters of others, but nothing of ours.
    others = list(SHARED.iterdir()) if SHARED.exists() else []
    ours = tuple(f"{shown.process.pid}." for shown in both)
    assert not [path for path in others if path.name.startswith(ours) and path not in before]
    assert was_there or others or not SHARED.exists()


def assert_has_shown_all(shown: Demo) -> None:
    """Check that it told of every kind of job, and of its end."""
    assert shown.told() == KINDS
    for line in (
        "embedded server at unix://",
        "one master, 8 workers; Ctrl-C drains",
        "time is up, draining",
        "drained; the server is stopped and its directory removed",
    ):
        assert line in shown.log()
    told = re.search(r"(\d+) jobs succeeded, 1 are in the failed list", shown.log())
    assert told
    assert int(told[1]) >= 503
    assert "is back after its worker died, and done" in shown.log()
    assert "Traceback" not in shown.log()


def test_ctrl_c_lets_the_demo_finish_the_jobs_in_hand(demo: Callable[..., Demo]) -> None:
    shown = demo("-c", "2")
    shown.await_told("slow     begins")

    os.killpg(shown.process.pid, signal.SIGINT)  # what a terminal does

    assert shown.wait(8) == ExitCode.OK
    log = shown.log()
    assert log.count("slow     done") == log.count("slow     begins") >= 1
    assert "drained; the server is stopped and its directory removed" in log
    assert "KeyboardInterrupt" not in log
    assert "Traceback" not in log
    shown.assert_nothing_left()


def test_a_demo_that_is_killed_leaves_no_process_and_no_data(demo: Callable[..., Demo]) -> None:
    shown = demo("-c", "2")
    shown.await_told("slow     begins")
    before = [process.pid for process in shown.left()]
    assert len(before) >= 6  # master, clerk, two workers, server, guardian; and the narrator

    shown.process.kill()

    assert shown.wait(5) == -signal.SIGKILL
    wait_until(lambda: all(map(is_gone, before)), "all of its processes to end", 8.0)
    wait_until(lambda: not shown.left(), "no other to be there")
    # Nobody is left who could remove the socket; the next master of this name replaces it.
    left = [path for path in shown.files() if path.suffix not in (".sock", ".lock")]
    assert [path.name for path in left] in ([], ["forkresque"])

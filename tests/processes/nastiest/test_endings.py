"""Failures 9, 23 and 24: storms of signals, a terminal's keys and its end, a drain too slow."""

import os
import pty
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
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
from tests.support.site import APP, Site, stays, ticks
from tests.support.tools import program
from tests.support.waiting import wait_until

EARLY = (0.01, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2, 0.25)  # seconds after the start
STORM = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
DRAIN, SOFT, BOOKS = 2.0, 2.0, 1.0
SLACK = 1.0  # seconds for a busy machine

# Becomes a command whose controlling terminal, and standard input, is the one named first.
ON_TERMINAL = """
import fcntl, os, sys, termios
if os.getsid(0) != os.getpid():
    os.setsid()
terminal = os.open(sys.argv[1], os.O_RDWR)
fcntl.ioctl(terminal, termios.TIOCSCTTY, 1)
os.dup2(terminal, 0)
os.execvp(sys.argv[2], sys.argv[2:])
"""


# -- 9 -----------------------------------------------------------------------------------------


def test_09_five_hundred_terms(begin: Begin, site: Site) -> None:
    run = begin(*APP, "-c", "2", "-t", "20")
    site.gates("a", "b")

    for _ in range(500):
        run.send_signal(signal.SIGTERM)
    draining(run)
    stays(lambda: site.slots() == 2, "nothing is cut", 0.5)
    site.release("a", "b")

    assert_one_drain(run, site)


def test_09_all_signals_at_a_kilohertz(begin: Begin, site: Site) -> None:
    run = begin(*APP, "-c", "2", "-t", "20")
    site.gates("a", "b")

    for number in ticks(0.001, 1.0):
        run.send_signal(STORM[number % len(STORM)])
    draining(run)
    stays(lambda: site.slots() == 2, "nothing is cut", 0.5)
    site.release("a", "b")

    assert_one_drain(run, site)


def assert_one_drain(run: Run, site: Site) -> None:
    """Fail unless a master drains in order, once, and its two jobs have ended."""
    assert run.wait(5) == ExitCode.OK
    assert sorted(site.runs()) == ["a", "b"]
    assert (site.count("processed"), site.count("failed")) == (2, 0)
    assert run.log().count("draining within=") == 1
    assert "is killed" not in run.log()
    assert_calm(run)
    assert_nothing_left(run, site.redis)


def test_09_term_in_the_first_tenth_of_a_second(begin: Begin, site: Site) -> None:
    codes: list[int] = []
    for delay in EARLY:
        began = time.monotonic()
        run = begin(*APP, "-c", "2")
        pid = run.pid
        wait_until(lambda: time.monotonic() - began >= delay, "the moment", every=0.001)  # noqa: B023

        run.send_signal(signal.SIGTERM)
        if begin.is_init and not hears(run, pid):
            idle(run, 2)  # the kernel keeps from an init what it has no handler for
            run.send_signal(signal.SIGTERM)

        codes.append(run.wait(5))
        assert_calm(run)
        assert_nothing_left(run, site.redis)
    # Until it hears signals it dies of them: nothing is there yet that would need care.
    assert set(codes) <= {ExitCode.OK, -signal.SIGTERM}


def hears(run: Run, pid: int) -> bool:
    """Tell whether a master has heard the first TERM: it ends, or it is said to be at work."""

    def told() -> str:
        if run.process.poll() is not None or "draining" in run.log():
            return "heard"
        return "deaf" if "started pid" in run.log() and psutil.Process(pid).children() else ""

    return wait_until(told, "a sign") == "heard" or run.process.poll() is not None


# -- 23 ----------------------------------------------------------------------------------------


@dataclass
class Terminal:
    """A terminal, from which a command may be started, and where somebody may press keys."""

    keys: int = -1
    path: str = ""
    other_end: int = field(default=-1, repr=False)

    def open(self) -> list[str]:
        """Return what runs a command on the terminal."""
        self.keys, self.other_end = pty.openpty()
        self.path = os.ttyname(self.other_end)
        return [sys.executable, "-I", "-S", "-c", ON_TERMINAL, self.path]

    def press(self, key: bytes) -> None:
        """Press a key."""
        os.write(self.keys, key)

    def close(self) -> None:
        """Close the window. Closing again does nothing."""
        for number in (self.keys, self.other_end):
            if number >= 0:
                os.close(number)
        self.keys = self.other_end = -1


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """Return a terminal that is closed in the end."""
    terminal = Terminal()
    yield terminal
    terminal.close()


def test_23_control_c(begin: Begin, site: Site, terminal: Terminal) -> None:
    run = begin(*APP, "-c", "2", inside=terminal.open())
    site.gates("a", "b")

    terminal.press(b"\x03")
    draining(run)
    stays(lambda: site.slots() == 2, "both jobs go on", 0.5)
    site.release("a", "b")

    assert "KeyboardInterrupt" not in run.log()
    assert_one_drain(run, site)


def test_23_terminal_closed(begin: Begin, site: Site, terminal: Terminal) -> None:
    run = begin(*APP, "-c", "2", inside=terminal.open())
    site.gates("a", "b")

    terminal.close()
    draining(run)
    stays(lambda: site.slots() == 2, "both jobs go on", 0.5)
    site.release("a", "b")

    assert_one_drain(run, site)


def test_23_terminal_closed_under_nohup(begin: Begin, site: Site, terminal: Terminal) -> None:
    command = [*terminal.open(), program("nohup", "coreutils")]
    run = begin(*APP, "-c", "2", inside=command)
    site.gates("a", "b")

    terminal.close()
    stays(lambda: run.process.poll() is None and site.slots() == 2, "it goes on", 1.0)
    site.release("a", "b")
    site.enqueue("note", "n")
    site.await_processed(3)

    assert "draining" not in run.log()
    end(run, site.redis)


# -- 24 ----------------------------------------------------------------------------------------


def test_24_drain_deadline(begin: Begin, site: Site) -> None:
    run = begin(*APP, "-c", "3", "-t", str(DRAIN))
    jobs = [site.enqueue("slow", "long", 100), site.enqueue("stubborn", "s")]
    jobs.append(site.enqueue("once_gate", "o"))
    wait_until(lambda: site.ledger.llen("begun") == 1, "the job to begin")
    site.started("s")
    site.started("o")
    behind = site.enqueue("note", "behind")

    asked_at = time.monotonic()
    run.send_signal(signal.SIGTERM)
    stays(lambda: site.slots() == 3, "nothing is cut before the deadline", DRAIN - 0.3)

    assert run.wait(DRAIN + SOFT + BOOKS + SLACK) == ExitCode.CUT
    assert DRAIN <= time.monotonic() - asked_at <= DRAIN + SOFT + BOOKS + SLACK
    *cut, last = site.waiting()
    assert (sorted(cut), last) == (sorted(jobs[:2]), behind)
    (failure,) = site.failures()  # by policy: it must not be begun twice
    assert (failure["payload"]["class"], failure["exception"]) == ("once_gate", "JobAborted")
    assert (site.runs(), site.count("processed"), site.count("failed")) == ([], 0, 1)
    assert site.redis.exists("resque:fr:suspects") == 0, "a drain is not the job's fault"
    assert_nothing_left(run, site.redis)


def test_24_idle_drain(begin: Begin, site: Site) -> None:
    run = begin(*APP, "-c", "8")
    idle(run, 8)
    has_logged(run, "scheduler=promote")
    end(run, site.redis, within=1.0 + SLACK)

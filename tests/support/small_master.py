"""A master with one worker, which only looks after what the worker's jobs leave behind.

Everybody says what it is, and its pid. The master does what a line of its input says: `kill` the
worker, `look` once more, or `end`. The worker has two processes escape, of which the second has one
of its own, and starts a third that is to stay.
"""

import os
import select
import signal
import subprocess
import sys
import time

from forkresque.processes import start_of
from forkresque.supervisor.resources import become_subreaper
from forkresque.supervisor.strays import Leftovers

TICK = 0.1


def say(*words: object) -> None:
    """Write a line at one go: others write as well."""
    os.write(1, f"{' '.join(map(str, words))}\n".encode())


def start(role: str, **env: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", __spec__.name, role],
        stdin=subprocess.DEVNULL,
        env={**os.environ, **env},
    )


def master() -> None:
    become_subreaper()
    leftovers, worker = Leftovers(None, 0.0), start("worker")
    began = start_of(worker.pid)
    assert began is not None
    known = {worker.pid, start("companion").pid}
    while True:
        order = sys.stdin.readline() if select.select([sys.stdin], [], [], TICK)[0] else ""
        if order == "kill\n":
            os.kill(worker.pid, signal.SIGKILL)
        elif order == "end\n":
            leftovers.end(known, time.monotonic())
            say("ended")
        for pid in reaped():
            known.discard(pid)
            if pid == worker.pid:
                leftovers.died(pid, began, time.monotonic())
        if order != "end\n":
            leftovers.look(known, time.monotonic())
        if order == "look\n":
            say("looked")


def reaped() -> list[int]:
    """Return who has died, as PID 1 or a master would see it."""
    found: list[int] = []
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        found.append(pid)


def worker() -> None:
    become_subreaper()
    escape("escaped")
    escape("parent")
    start("daemon", FORKRESQUE_STAY="1")
    say("worker", os.getpid())
    signal.pause()


def escape(name: str) -> None:
    """Start a process as daemons do: in a session of its own, and its parent ends."""
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    if name == "parent" and not os.fork():
        os.setsid()
        name = "child"
    say(name, os.getpid())
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pause()


def idle(name: str) -> None:
    say(name, os.getpid())
    signal.pause()


if __name__ == "__main__":
    match sys.argv[1]:
        case "master":
            master()
        case "worker":
            worker()
        case name:
            idle(name)

"""Schedulers that stand alone, each in a fork: no master, no clerk.

`python -m tests.support.lone_promoters 4` keeps four running, and forks another for each that
dies. All have one name, as the first processes of two containers have. With a token as a second
argument they share it, so that each of them believes it leads.
"""

import ctypes
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from forkresque.promoter import Promoter
from forkresque.protocol.connection import Target
from forkresque.protocol.delayed import Delayed
from forkresque.protocol.keys import Keys
from tests.support.jobs import app
from tests.support.processes import ROOT, is_alive, kill
from tests.support.servers import Server, dying_with_runner
from tests.support.waiting import wait_until

NAME = "host:1"
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Nursery:
    """Schedulers that are replaced when they die, and what they say."""

    process: psutil.Popen
    log_file: Path

    def living(self) -> list[psutil.Process]:
        return [one for one in self.process.children() if is_alive(one)]

    def log(self) -> str:
        return self.log_file.read_text()


@contextmanager
def lone_promoters(number: int, server: Server, token: str = "") -> Iterator[Nursery]:
    """Run schedulers without a master."""
    module = [sys.executable, "-m", "tests.support.lone_promoters"]
    with tempfile.NamedTemporaryFile(prefix="forkresque-schedulers-") as log:
        process = psutil.Popen(
            dying_with_runner([*module, str(number), *([token] if token else [])], signal.SIGKILL),
            cwd=ROOT,
            env={**os.environ, "FORKRESQUE_REDIS_URL": server.url},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        nursery = Nursery(process, Path(log.name))
        try:
            wait_until(lambda: len(nursery.living()) == number, f"{number} schedulers")
            yield nursery
        finally:
            children = process.children()
            kill([process])  # first, or it would replace its children
            process.wait(5)
            kill(children)
            print(f"-- log of schedulers\n{nursery.log()}")


def live(token: str) -> None:
    """Be a scheduler until killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with_name = f"{os.getpid()} %(message)s"
    logging.basicConfig(level=logging.INFO, format=with_name)
    link = Target(app.url).link(tracking=True)
    promoter = Promoter(Delayed(link, Keys(app.namespace)), name=NAME)
    promoter.token = token or promoter.token
    while True:
        pause = promoter.step().pause
        if pause:
            socket = link.fileno()
            select.select([] if socket is None else [socket], [], [], pause)
            link.pushed()


def main() -> None:
    """Keep schedulers running."""
    number, token, pids = int(sys.argv[1]), "".join(sys.argv[2:]), set[int]()
    while True:
        while len(pids) < number:
            pid = os.fork()
            if pid == 0:
                live(token)
            pids.add(pid)
        pids.discard(os.wait()[0])


if __name__ == "__main__":
    main()

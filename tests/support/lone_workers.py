"""Workers that stand alone, each in a fork: no master, no clerk, no scoreboard.

`python -m tests.support.lone_workers 4 1000` keeps four running, with an audit stream of 1000
entries, and forks another for each that dies. TERM lets them finish. Nobody here recovers the
jobs of the dead.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from forkresque.worker import Worker
from tests.support.jobs import app
from tests.support.oracle import AUDIT
from tests.support.processes import ROOT, kill
from tests.support.servers import Server, dying_with_runner

_PR_SET_PDEATHSIG = 1
TERM = {signal.SIGTERM}


@contextmanager
def running(number: int, server: Server, ledger_server: Server) -> Iterator[psutil.Popen]:
    """Run workers without a master, each replaced when it is killed."""
    process = psutil.Popen(
        dying_with_runner(
            [sys.executable, "-m", "tests.support.lone_workers", str(number), str(AUDIT)],
            signal.SIGTERM,
        ),
        cwd=ROOT,
        env={**os.environ, "FORKRESQUE_REDIS_URL": server.url, "LEDGER_URL": ledger_server.url},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            kill([process, *process.children()])
            process.wait(5)


def live(audit: int) -> None:
    """Be a worker until TERM comes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    worker = Worker(app.url, app.jobs, queues=("math",), audit=audit)
    signal.signal(signal.SIGTERM, lambda _signum, _frame: worker.stop())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TERM)
    worker.run()


def main() -> None:
    """Keep workers running until TERM comes, then wait for them."""
    number, audit = map(int, sys.argv[1:])
    pids, stopping = set[int](), False

    def stop(_signum: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True
        for pid in pids:
            os.kill(pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.pthread_sigmask(signal.SIG_BLOCK, TERM)
    while not stopping or pids:
        while len(pids) < number and not stopping:
            pid = os.fork()
            if pid == 0:
                live(audit)
                os._exit(0)
            pids.add(pid)
        # TERM is let in only while no pid can be given back to the system.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, TERM)
        if pids:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        signal.pthread_sigmask(signal.SIG_BLOCK, TERM)
        if pids:
            pids.discard(os.wait()[0])


if __name__ == "__main__":
    main()

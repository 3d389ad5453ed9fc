"""Workers that stand alone, each in a fork: no master, no clerk, no scoreboard.

`python -m tests.support.lone_workers 4` keeps four running, and forks another for each that
dies. TERM lets them finish. Nobody here recovers the jobs of the dead.
"""

import ctypes
import os
import signal
import sys

from forkresque.worker import Worker
from tests.support.jobs import app

_PR_SET_PDEATHSIG = 1
TERM = {signal.SIGTERM}


def live() -> None:
    """Be a worker until TERM comes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    worker = Worker(app.url, app.jobs, queues=("math",))
    signal.signal(signal.SIGTERM, lambda _signum, _frame: worker.stop())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TERM)
    worker.run()


def main() -> None:
    """Keep workers running until TERM comes, then wait for them."""
    number, pids, stopping = int(sys.argv[1]), set[int](), False

    def stop(_signum: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True
        for pid in pids:
            os.kill(pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    while not stopping or pids:
        while len(pids) < number and not stopping:
            signal.pthread_sigmask(signal.SIG_BLOCK, TERM)
            pid = os.fork()
            if pid == 0:
                live()
                os._exit(0)
            pids.add(pid)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, TERM)
        pids.discard(os.wait()[0])


if __name__ == "__main__":
    main()

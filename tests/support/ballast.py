"""The application of `jobs.py`, grown large, and a job that grows without end.

A leak is stopped by the kernel, in a memory group; see `memory_groups.py`. Where that cannot be
had, OOM_CONTROL names a file that looks like the kernel's, and the job plays the kernel's part.
"""

import os
import signal
from pathlib import Path

from tests.support.jobs import app, ledger

BALLAST = b"x" * (100 << 20)  # before the fork, so the master is the largest but for a leak
PIECE = 4 << 20
MOST = 400 << 20


@app.job("leak", queue="math", on_crash="fail")
def leak(mark: str) -> None:
    """Tell that it ran, and hold more and more memory."""
    ledger().rpush("runs", mark)
    held: list[bytes] = []
    while len(held) * PIECE < MOST:
        held.append(b"x" * PIECE)
    _be_killed(Path(os.environ["OOM_CONTROL"]))


def _be_killed(oom_control: Path) -> None:
    counted = int(oom_control.read_text().split()[-1])
    oom_control.write_text(f"under_oom 0\noom_kill {counted + 1}\n")
    os.kill(os.getpid(), signal.SIGKILL)

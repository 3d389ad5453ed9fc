"""The application whose costs are counted: jobs that do nothing, each in its own way."""

import time

from forkresque import Forkresque, JobLock, Retry

app = Forkresque()


@app.job("noop", queue="cost")
def noop(*_: object) -> None:
    """Do nothing."""


@app.job("limited", queue="cost", timeout=30)
def limited(*_: object) -> None:
    """Do nothing within a limit."""


@app.job("locked", queue="cost", plugins=[JobLock()])
def locked(*_: object) -> None:
    """Do nothing with a lock."""


@app.job("broken", queue="cost")
def broken(*_: object) -> None:
    """Fail."""
    raise ValueError("broken")


@app.job("retried", queue="cost", plugins=[Retry(attempts=2, delay=3600)])
def retried(*_: object) -> None:
    """Fail, and be tried again when nobody looks."""
    raise ValueError("broken")


@app.job("nap", queue="cost")
def nap(_: object) -> None:
    """Take a second, in which the master's loop has a few turns."""
    time.sleep(1.0)

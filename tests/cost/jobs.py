"""The application whose costs are counted: jobs that do nothing, each in its own way."""

import time

from forkresque import Forkresque, JobLock, Retry, aftermath

app = Forkresque()
is_traced = False  # set by traced_jobs


def count_as(*, long: bool) -> None:
    """Have a traced job count as long, or as short, whatever the tracer adds to its time."""
    if is_traced:
        aftermath._LONG_NS = 0 if long else 10**12


@app.job("noop", queue="cost")
def noop(*_: object) -> None:
    """Do nothing."""
    count_as(long=False)


@app.job("lasting", queue="cost")
def lasting(*_: object) -> None:
    """Do nothing, for so long that what it may have left is looked for."""
    count_as(long=True)


@app.job("limited", queue="cost", timeout=30)
def limited(*_: object) -> None:
    """Do nothing within a limit."""
    count_as(long=False)


@app.job("locked", queue="cost", plugins=[JobLock()])
def locked(*_: object) -> None:
    """Do nothing with a lock."""


@app.job("broken", queue="cost")
def broken(*_: object) -> None:
    """Fail."""
    count_as(long=False)
    raise ValueError("broken")


@app.job("retried", queue="cost", plugins=[Retry(attempts=2, delay=3600)])
def retried(*_: object) -> None:
    """Fail, and be tried again when nobody looks."""
    raise ValueError("broken")


@app.job("nap", queue="cost")
def nap(_: object) -> None:
    """Take a second, in which the master's loop has a few turns."""
    time.sleep(1.0)

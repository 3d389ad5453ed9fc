"""The application whose costs are counted: jobs that do nothing, each in its own way."""

from forkresque import Forkresque, JobLock

app = Forkresque()


@app.job("noop", queue="cost")
def noop(*_: object) -> None:
    """Do nothing."""


@app.job("limited", queue="cost", timeout=30)
def limited() -> None:
    """Do nothing within a limit."""


@app.job("locked", queue="cost", plugins=[JobLock()])
def locked() -> None:
    """Do nothing with a lock."""


@app.job("broken", queue="cost")
def broken() -> None:
    """Fail."""
    raise ValueError("broken")

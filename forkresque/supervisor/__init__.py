"""Processes: a master that forks, and its children."""

from forkresque.app import Forkresque
from forkresque.options import SupervisorOptions

__all__ = ["supervise"]


def supervise(app: Forkresque, options: SupervisorOptions) -> int:
    """Run a master with its children in this process until it is told to stop.

    Returns the exit code. Must be called from the main thread, with no other thread alive.
    """
    from forkresque.supervisor.master import Master

    return Master(app, options).run()

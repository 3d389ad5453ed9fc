"""Processes: a master that forks, and its children."""

from collections.abc import Callable

from forkresque.app import Forkresque
from forkresque.options import SupervisorOptions

__all__ = ["supervise"]


def supervise(load: Callable[[], Forkresque], options: SupervisorOptions) -> int:
    """Run a master with its children in this process until it is told to stop.

    `load` imports the application: here and once with `options.preload`, else in every child.
    Returns the exit code. Must be called from the main thread.
    """
    from forkresque.supervisor.master import Master
    from forkresque.supervisor.preload import preloaded

    return Master(preloaded(load) if options.preload else load, options).run()

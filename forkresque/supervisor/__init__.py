"""Processes: a master that forks, and its children."""

from collections.abc import Callable

from forkresque.app import Forkresque
from forkresque.events import POOL_EVENTS, Emitter
from forkresque.options import SupervisorOptions

__all__ = ["supervise"]


def supervise(
    load: Callable[[], Forkresque],
    options: SupervisorOptions,
    *,
    pinned: str = "",
    events: Emitter | None = None,
) -> int:
    """Run a master with its children in this process until it is told to stop.

    `load` imports the application: here and once with `options.preload`, else in every child.
    `pinned` says why this process cannot be replaced in place by newer code, if it cannot. Who
    listens to `events` is called in the process that tells.
    Returns the exit code. Must be called from the main thread.
    """
    from forkresque.supervisor.beginning import begin

    return begin(load, options, pinned=pinned, events=events or Emitter(POOL_EVENTS))

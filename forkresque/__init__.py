"""Background jobs for Python that speak Resque. This is the public API; all else may change.

Names are imported when they are first used, so that short commands need not load Redis' client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forkresque.app import Forkresque, Job
    from forkresque.connection import Connection
    from forkresque.errors import (
        AlreadyScheduled,
        BadKey,
        ConfigError,
        ControlError,
        EnqueueUnknown,
        ForkresqueError,
        InvalidArgs,
        InvalidPayload,
        JobAborted,
        JobTimeout,
        NotFailed,
        RedisRefused,
        RedisUnavailable,
        UnknownJob,
    )
    from forkresque.jobs import OnCrash
    from forkresque.plugins import DelayQueueLock, JobLock, Noop, Plugin, QueueLock, Retry
    from forkresque.queue import Queue
    from forkresque.scheduler import Scheduler
    from forkresque.supervisor.multiworker import MultiWorker
    from forkresque.worker import Worker

__version__ = "0.1.0"

__all__ = [
    "AlreadyScheduled",
    "BadKey",
    "ConfigError",
    "Connection",
    "ControlError",
    "DelayQueueLock",
    "EnqueueUnknown",
    "Forkresque",
    "ForkresqueError",
    "InvalidArgs",
    "InvalidPayload",
    "Job",
    "JobAborted",
    "JobLock",
    "JobTimeout",
    "MultiWorker",
    "Noop",
    "NotFailed",
    "OnCrash",
    "Plugin",
    "Queue",
    "QueueLock",
    "RedisRefused",
    "RedisUnavailable",
    "Retry",
    "Scheduler",
    "UnknownJob",
    "Worker",
    "__version__",
]

_HOMES = {
    "Connection": "connection",
    "DelayQueueLock": "plugins",
    "Forkresque": "app",
    "Job": "app",
    "JobLock": "plugins",
    "MultiWorker": "supervisor.multiworker",
    "Noop": "plugins",
    "OnCrash": "jobs",
    "Plugin": "plugins",
    "Queue": "queue",
    "QueueLock": "plugins",
    "Retry": "plugins",
    "Scheduler": "scheduler",
    "Worker": "worker",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home; errors are at home in `errors`."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)

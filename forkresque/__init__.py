"""Background jobs for Python that speak Resque. This is the public API; all else may change."""

from forkresque.app import Forkresque, Job
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
    RedisRefused,
    RedisUnavailable,
    UnknownJob,
)
from forkresque.jobs import OnCrash
from forkresque.queue import Queue
from forkresque.scheduler import Scheduler
from forkresque.worker import Worker

__version__ = "0.1.0"

__all__ = [
    "AlreadyScheduled",
    "BadKey",
    "ConfigError",
    "ControlError",
    "EnqueueUnknown",
    "Forkresque",
    "ForkresqueError",
    "InvalidArgs",
    "InvalidPayload",
    "Job",
    "JobAborted",
    "JobTimeout",
    "OnCrash",
    "Queue",
    "RedisRefused",
    "RedisUnavailable",
    "Scheduler",
    "UnknownJob",
    "Worker",
    "__version__",
]

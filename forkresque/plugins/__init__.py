"""Plugins: hooks around enqueue and perform. The names that users import."""

from forkresque.plugins.base import Context, Performance, Plugin
from forkresque.plugins.locks import DelayQueueLock, JobLock, QueueLock
from forkresque.plugins.noop import Noop
from forkresque.plugins.retry import Retry

__all__ = [
    "Context",
    "DelayQueueLock",
    "JobLock",
    "Noop",
    "Performance",
    "Plugin",
    "QueueLock",
    "Retry",
]

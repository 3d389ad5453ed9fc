"""What can go wrong, as a tree, and the exit codes of the command line.

    Exception
    └─ ForkresqueError          what a caller may catch
       ├─ ConfigError           an option, a URL or the application cannot be used (exit 78)
       ├─ InvalidArgs           arguments that JSON cannot carry, or that do not fit the job
       ├─ InvalidPayload        bytes in Redis that are not a job
       ├─ UnknownJob            a job name that the application does not register
       ├─ AlreadyScheduled      an equal job waits for the same second already
       ├─ NotFailed             a failed job that is no longer in the failed list
       ├─ JobLost               a job that others have recovered from its worker meanwhile
       ├─ RedisUnavailable      no answer from Redis (exit 69)
       │  └─ EnqueueUnknown     the answer was lost: the job may be stored; carries the request id
       ├─ RedisRefused          Redis answered with an error, which is named
       │  └─ BadKey             a key holds another type than Resque keeps there
       └─ ControlError          a running master did not do what it was told
    BaseException               what ends a job, so that no `except Exception` of a job swallows it
    ├─ JobTimeout               the job is over its time limit
    └─ JobAborted               the worker has to leave now; the job goes back to its queue

`DirtyExit` is a name in failure records, as in Resque, and never raised.
"""

from enum import IntEnum

DIRTY_EXIT = "DirtyExit"


class ExitCode(IntEnum):
    """What `forkresque` tells the shell and the service manager."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REDIS_UNREACHABLE = 69
    INTERNAL = 70
    LOCKED = 73
    CUT = 75
    CONFIG = 78


class ForkresqueError(Exception):
    """What a caller may catch. `hint` says what to do next."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(ForkresqueError):
    """An option, a URL or the application cannot be used."""

    exit_code = ExitCode.CONFIG


class InvalidArgs(ForkresqueError):
    """Arguments that JSON cannot carry, or that do not fit the job's signature."""


class InvalidPayload(ForkresqueError):
    """Bytes in Redis that are not a job. The message says why."""


class UnknownJob(ForkresqueError):
    """A job name that the application does not register."""


class AlreadyScheduled(ForkresqueError):
    """An equal job waits for the same second already, as `unique` forbids."""


class NotFailed(ForkresqueError):
    """A failed job that is no longer in the failed list: retried or removed by somebody else."""


class JobLost(ForkresqueError):
    """The job in hand is in other hands by now; what this worker does for it no longer counts."""


class RedisUnavailable(ForkresqueError):
    """Redis did not answer. Unless `sent`, it was not even asked, and nothing was stored."""

    exit_code = ExitCode.REDIS_UNREACHABLE

    def __init__(self, message: str, *, sent: bool = True, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.sent = sent


class EnqueueUnknown(RedisUnavailable):
    """The answer to an enqueue was lost, so the job may be stored.

    Enqueueing again with this `request_id` within ten minutes adds nothing if it is.
    """

    def __init__(self, message: str, *, request_id: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.request_id = request_id


class RedisRefused(ForkresqueError):
    """Redis answered with an error: no right, no memory, a replica, a broken script."""


class BadKey(RedisRefused):
    """A key holds another type than Resque keeps there; nothing was changed."""


class ControlError(ForkresqueError):
    """A running master did not do what it was told, or there is none."""


class JobTimeout(BaseException):
    """The job is over its time limit. A BaseException, so that jobs do not swallow it."""


class JobAborted(BaseException):
    """The worker has to leave now; the job goes back to the head of its queue."""

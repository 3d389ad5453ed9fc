"""Plugin: what runs around the enqueueing and the performing of a job. What a hook is told.

A plugin is made once for a job's definition, and is told of each job by a context. So it keeps
nothing of a job in itself, and two threads may be in it at once.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self

from forkresque.errors import ConfigError
from forkresque.protocol.canonical import decode
from forkresque.protocol.connection import Caller
from forkresque.protocol.keys import Keys

log = logging.getLogger("forkresque.plugins")


class Enqueuer(Protocol):
    """What a hook may enqueue with: a `Queue`."""

    def enqueue(self, queue: str, name: str, args: Sequence[object] = ()) -> bool:
        """Put a job on `queue`."""

    def enqueue_in(self, delay: float, queue: str, name: str, args: Sequence[object] = ()) -> bool:
        """Put a job on `queue` after `delay` seconds."""


class Context:
    """One job on its way to a queue, as a hook sees it.

    `redis` sends scripts and commands, again and again until Redis answers; `queues` enqueues.
    """

    def __init__(
        self,
        *,
        queue: str,
        name: str,
        payload: bytes,
        keys: Keys,
        redis: Caller,
        now: Callable[[], float],
        queues: Callable[[], Enqueuer],
    ) -> None:
        self.queue = queue
        self.name = name
        self.payload = payload
        self.keys = keys
        self.redis = redis
        self.now = now  # epoch seconds by Redis' clock
        self._queues = queues
        self._settled: list[Callable[[bool], None]] = []

    @cached_property
    def job(self) -> dict[str, Any]:
        """Return the decoded payload; a copy, which no job and no listener changes."""
        job = decode(self.payload)
        return job if isinstance(job, dict) else {}

    @property
    def args(self) -> list[Any]:
        """Return the arguments as they stand in Redis."""
        args = self.job.get("args")
        return args if isinstance(args, list) else []

    @property
    def queues(self) -> Enqueuer:
        """Return what enqueues other jobs."""
        return self._queues()

    def when_enqueued(self, call: Callable[[bool], None]) -> None:
        """Have `call` told whether Redis has the job: False when a later plugin vetoed.

        It is not called when nobody knows, which is an EnqueueUnknown to the producer.
        """
        self._settled.append(call)

    def enqueued(self, *, stored: bool) -> None:
        """Tell those who wait for it. What they raise is logged: it is no news of the job."""
        for call in self._settled:
            try:
                call(stored)
            except Exception:
                log.exception("job=%s a plugin failed after the job was sent", self.name)


class Plugin:
    """Hooks around one kind of job; override what is wanted. `options` are as they were given.

    `before_enqueue` and `before_perform` of all plugins are called in their order until one
    returns False: then the job is not enqueued, or not performed and gone. An error in
    `before_perform` is the job's. `after_enqueue` and `after_perform` are called in the same order,
    until one returns False. `after_perform` sees the job's error as `context.error`, and may clear
    it: then the job has succeeded. A plugin whose `before_perform` did not let the job pass does
    not hear of its end. `enqueue_in`, `enqueue_at`, a retry and a scheduler run no enqueue hooks.
    `after_delete` is called once for each payload that a Queue with this job's definition deletes.
    """

    name: ClassVar[str] = ""  # what `plugin_options` calls it; the class' name, if empty
    options: Mapping[str, Any] = {}

    def __init__(self, **options: Any) -> None:
        self.options = options

    @classmethod
    def label(cls) -> str:
        """Return what `plugin_options` calls this plugin."""
        return cls.name or cls.__name__

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Return a plugin with the options of `plugin_options`. Raises ConfigError."""
        try:
            return cls(**options)
        except TypeError as error:
            raise ConfigError(f"the options of plugin {cls.label()} do not fit: {error}") from error

    def before_enqueue(self, context: Context) -> bool | None:
        """Return False to have the job not enqueued."""

    def after_enqueue(self, context: Context) -> bool | None:
        """Hear that Redis has the job. What is raised here is logged."""

    def after_delete(self, context: Context) -> None:
        """Hear that jobs like this were deleted from their queue. What is raised here is logged."""

    def before_perform(self, context: "Performance") -> bool | None:
        """Return False to have the job not performed."""

    def around_perform(
        self,
        context: "Performance",  # noqa: ARG002 - for those who make it their own
        proceed: Callable[[], object],
    ) -> object:
        """Call `proceed`, which performs the job, and return its result."""
        return proceed()

    def on_failure(self, context: "Performance", error: BaseException) -> None:
        """Hear of an attempt that failed, before `after_perform`. What is raised here is logged."""

    def after_perform(self, context: "Performance") -> bool | None:
        """Hear that the job was performed, or failed with `context.error`."""


class Hand(Protocol):
    """What the worker lends a plugin for the job in hand; each asks until Redis has answered."""

    def take_lock(self, lock: bytes, seconds: int) -> bool:
        """Take a lock that ends with the job. Raises JobLost."""

    def count_attempt(
        self, counter: bytes, attempt: int, *, record: tuple[bytes, bytes], keep: int
    ) -> int:
        """Note a failed attempt; see `Claims.count_attempt`."""


class WorkerView:
    """The worker, as a hook sees it. `error` is what the job has raised, None to clear it."""

    def __init__(self, worker_id: str) -> None:
        self.id = worker_id  # host:pid:queues
        self.name = worker_id.rpartition(":")[0]
        self.error: BaseException | None = None
        self.result: object = None


class Performance(Context):
    """One job in hand, as a hook sees it. `hand` is what the worker can do about it."""

    def __init__(self, *, worker: str, hand: Hand, **about: Any) -> None:
        super().__init__(**about)
        self.worker = WorkerView(worker)
        self.hand = hand
        self.forgotten: list[bytes] = []
        self.later: Later | None = None

    @property
    def error(self) -> BaseException | None:
        """What the job has raised. Set it to None, and the job has succeeded."""
        return self.worker.error

    @error.setter
    def error(self, error: BaseException | None) -> None:
        self.worker.error = error

    def forget(self, *keys: bytes) -> None:
        """Have keys deleted in the very step in which the job ends, if it does end now."""
        self.forgotten += keys

    def retry_in(self, delay: float, *, remaining: int | None = None) -> None:
        """Have the failed job performed again after `delay` seconds; 0 for at once.

        It counts as a failed attempt, of which `remaining` are left, and leaves no record in the
        failed list. Clears the error.
        """
        self.later, self.error = Later(delay, remaining, self.error), None

    def put_off(self, delay: float) -> None:
        """Have the job performed after `delay` seconds instead of now; return False after it."""
        self.later = Later(delay, None, None)


class Later:
    """That a job is to be performed later: `error` is what has brought it to that, if anything."""

    def __init__(self, delay: float, remaining: int | None, error: BaseException | None) -> None:
        self.delay, self.remaining, self.error = delay, remaining, error


def snake(name: str) -> str:
    """Return an option's name as it is spelt here, whichever way it was."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()

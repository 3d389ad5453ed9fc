"""Events: what workers and pools tell, and who listens. Names and arguments as in node-resque.

    start(moment)      end(moment)      pause()      poll(queues)      ping(second)
    job(queue, job)    success(queue, job, result, duration_ms)
    failure(queue, job, failure, duration_ms)    re_enqueue(queue, job, details)
    error(error, queue, job)    cleaning_worker(worker, pid)

A `Worker` tells these. `job` is the decoded payload, a copy; of bytes that are no job, what
stands for them. `moment` is a datetime, `poll` has the names that one question to Redis asks for,
`failure` is what was raised, and `details` are `delay` in seconds, `remaining_attempts`, None where
nobody counts, and `err`. `error` has a queue and a job if it is about one, else None.

A `MultiWorker` tells them with the worker's number in front, except `error(error, number, queue,
job)`; its `start`, `end` and `pause` have the number alone, and number 0 is the pool as a whole. It
adds `multi_worker_action(verb, reason)`: one more worker "+", one less "-", all are to end "--",
and "x" for what changes no number.

A `Scheduler` tells `start(moment)`, `end(moment)` and, while it leads,

    leader()           poll()           working_timestamp(second)
    transferred_job(second, job)        clean_stuck_worker(name, failure, seconds)
    error(error)

`leader` comes when it begins to lead, `poll` at each look. `second` is an int, where node-resque's
`workingTimestamp` has a string. `transferred_job` tells of jobs that are in their queues by then;
one that can be put on no queue is in the failed list, and told by `error`. `failure` is the decoded
record of the job that a silent worker `host:pid` had, or None, and `seconds` is for how long it was
seen to be silent. What Redis has done and could not answer, nobody is told.

Nobody listens, mostly, and a worker does thousands of jobs a second. So whoever emits in a hot
place looks into `heard` first, and decodes, measures and calls nothing that nobody wants.
"""

import inspect
import logging
import os
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar, overload

from forkresque.errors import ConfigError, JobAborted, JobTimeout

log = logging.getLogger("forkresque.events")

C = TypeVar("C", bound=Callable[..., Any])

WORKER_EVENTS = (
    "start",
    "end",
    "poll",
    "ping",
    "job",
    "re_enqueue",
    "success",
    "failure",
    "error",
    "pause",
    "cleaning_worker",
)
POOL_EVENTS = (*WORKER_EVENTS, "multi_worker_action")
SCHEDULER_EVENTS = (
    "start",
    "end",
    "poll",
    "leader",
    "working_timestamp",
    "transferred_job",
    "clean_stuck_worker",
    "error",
)
_TOLD_BY_MASTER = ("start", "end")  # it sees those of workers that say nothing, too


class Emitter:
    """Calls who listens. `heard` holds their callbacks, and only names that have some."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)
        self.heard: dict[str, list[Callable[..., Any]]] = {}
        self.closed = ""  # why nobody new may listen

    @overload
    def on(self, name: str) -> Callable[[C], C]: ...

    @overload
    def on(self, name: str, callback: C) -> C: ...

    def on(self, name: str, callback: Any = None) -> Any:
        """Call `callback` at each event of that name; see `Observable.on`."""
        if self.closed:
            raise ConfigError(f"nobody new can listen to {name!r}: {self.closed}")
        known = self._known(name)
        if callback is None:
            return partial(self.on, known)
        if not callable(callback) or inspect.iscoroutinefunction(callback):
            raise ConfigError(f"a plain function has to listen to {name!r}, got {callback!r}")
        self.heard.setdefault(known, []).append(callback)
        return callback

    def emit(self, name: str, *args: object) -> None:
        """Call who listens to `name`, in the order of their `on`."""
        for callback in tuple(self.heard.get(name, ())):
            _call(callback, name, args)

    def numbered(self, number: int) -> "Emitter":
        """Return the emitter of worker `number` of a pool: its events arrive here, numbered."""
        emitter = Emitter(WORKER_EVENTS)
        for name in self.heard.keys() & set(WORKER_EVENTS).difference(_TOLD_BY_MASTER):
            emitter.on(name, partial(self.emit, name, number))
        if "error" in self.heard:  # node-resque has it so
            emitter.heard["error"] = [lambda error, *job: self.emit("error", error, number, *job)]
        return emitter

    def _known(self, name: str) -> str:
        """Return an event's name as it is spelt here. Raises ConfigError for an unknown one."""
        spelt = re.sub("(?<=[a-z])(?=[A-Z])", "_", str(name)).lower()
        if spelt in self._names:
            return spelt
        from difflib import get_close_matches

        near = get_close_matches(spelt, self._names, n=1)
        raise ConfigError(
            f"there is no event {name!r}",
            hint=f"did you mean {near[0]}?" if near else f"there are {', '.join(self._names)}",
        )


class Observable:
    """Something that tells of `events`."""

    events: Emitter

    @overload
    def on(self, name: str) -> Callable[[C], C]: ...

    @overload
    def on(self, name: str, callback: C) -> C: ...

    def on(self, name: str, callback: Any = None) -> Any:
        """Call `callback` at each event `name`, in the process and thread in which it happens.

        Without a callback this is a decorator. Node's spelling, `reEnqueue`, is understood. What
        there is and what it brings is in `forkresque.events`. What a callback raises is logged
        and changes nothing; it should be short, since what it is told of waits for it. Raises
        ConfigError for an event that does not exist, and for a coroutine function.
        """
        return self.events.on(name) if callback is None else self.events.on(name, callback)


def _call(callback: Callable[..., Any], name: str, args: tuple[object, ...]) -> None:
    pid = os.getpid()
    try:
        callback(*args)
    except (JobTimeout, JobAborted, KeyboardInterrupt):
        raise  # a signal's handler has raised it in here, and it is meant for what is told of
    except BaseException:
        log.exception("event=%s a listener failed: %r", name, callback)
    finally:
        if os.getpid() != pid:
            os._exit(0)  # a copy that the callback forked: the original goes on

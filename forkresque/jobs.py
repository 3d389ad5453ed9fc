"""What a job is: a function with a name on the wire, and how a payload's arguments fit it.

Only what is registered runs: a name from Redis is looked up, never imported.
"""

import asyncio
import inspect
import os
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from types import CoroutineType
from typing import Any, Final

from forkresque.errors import ConfigError, InvalidArgs
from forkresque.plugins.base import Plugin, snake
from forkresque.plugins.hooks import Hooks, PluginLike, resolve

DEFAULT_QUEUE: Final = "default"


class OnCrash(StrEnum):
    """What becomes of a job whose worker died."""

    REQUEUE = "requeue"  # back to the head of its queue; the third death goes to the failed list
    FAIL = "fail"  # to the failed list at once, for what must not run twice


@dataclass(frozen=True, slots=True)
class Definition:
    """A registered job.

    `timeout` is in seconds, None for no limit. `least` and `most` positional arguments fit the
    function; `most` is None when it takes any number. `hooks` are those of the `plugins`, None
    if there are none.
    """

    name: str
    function: Callable[..., Any]
    queue: str
    timeout: float | None
    on_crash: OnCrash
    least: int
    most: int | None
    plugins: tuple[Plugin, ...] = ()
    hooks: Hooks | None = None

    def check(self, args: Sequence[object]) -> None:
        """Raise InvalidArgs if `args` are too few or too many for the function."""
        if len(args) < self.least or (self.most is not None and len(args) > self.most):
            raise InvalidArgs(f"{self.name} takes {self._wanted()}, got {len(args)}")

    def run(self, args: Sequence[object]) -> object:
        """Call the function; a coroutine is run to its end in this process' own event loop."""
        result = self.function(*args)
        return _run(result) if isinstance(result, CoroutineType) else result

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return a call's arguments by position. Raises InvalidArgs if they do not fit."""
        if not kwargs:
            self.check(args)
            return args
        signature = inspect.signature(self.function)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidArgs(f"{self.name}: {error}") from error
        names = list(signature.parameters)
        last = max(len(args) - 1, *map(names.index, kwargs))
        bound.apply_defaults()  # a default before a given argument has to be sent as well
        return bound.args[: last + 1]

    def _wanted(self) -> str:
        if self.most is None:
            return f"at least {_arguments(self.least)}"
        if self.least == self.most:
            return _arguments(self.least)
        return f"{self.least} to {_arguments(self.most)}"


def define(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    queue: str = DEFAULT_QUEUE,
    timeout: float | None = None,
    on_crash: OnCrash | str = OnCrash.REQUEUE,
    plugins: Sequence[PluginLike] = (),
    plugin_options: Mapping[Any, Mapping[str, Any]] | None = None,
) -> Definition:
    """Describe `function` as a job. Raises ConfigError if it cannot be one.

    `plugins` are objects, or classes or names that get their part of `plugin_options`. Arguments
    travel by position, as in every Resque, so a job takes no keyword-only ones.
    """
    label = name or f"{function.__module__}.{function.__qualname__}"
    if not label.strip():
        raise ConfigError("a job needs a name, got an empty one")
    check_queue_name(queue)
    if timeout is not None and timeout <= 0:
        raise ConfigError(f"the timeout of {label} must be more than 0 seconds, got {timeout}")
    try:
        policy = OnCrash(on_crash)
    except ValueError:
        raise ConfigError(
            f"on_crash of {label} must be 'requeue' or 'fail', got {on_crash!r}"
        ) from None
    least, most = _arity(label, function)
    found = resolve(plugins, plugin_options)
    hooks = Hooks(found) if found else None
    return Definition(label, function, queue, timeout, policy, least, most, found, hooks)


def definitions(jobs: Mapping[str, Any]) -> Mapping[str, Definition]:
    """Return jobs as they are described in node-resque: a function, or a mapping with `perform`.

    Beside `perform` it may have what `define` takes, `plugins` and `plugin_options` (or
    `pluginOptions`) among that. What consists of definitions is returned as it is, so that those
    added later are seen. Raises ConfigError.
    """
    if all(isinstance(job, Definition) for job in jobs.values()):
        return jobs
    return {name: _defined(name, job) for name, job in jobs.items()}


def _defined(name: str, job: Any) -> Definition:
    known = getattr(job, "definition", job)  # what `@app.job` has made has one
    if isinstance(known, Definition):
        return known if known.name == name else replace(known, name=name)
    about = {snake(key): value for key, value in job.items()} if isinstance(job, Mapping) else {}
    function = about.pop("perform", None) if about else job
    if not callable(function):
        raise ConfigError(
            f"job {name!r} has nothing to perform, got {job!r}",
            hint="give a function, or {'perform': function, 'plugins': […]}",
        )
    try:
        return define(function, name=name, **about)
    except TypeError as error:
        raise ConfigError(f"job {name!r} cannot be described so: {error}") from error


def check_queue_name(queue: str) -> None:
    """Raise ConfigError for a name that some Resque could not read again."""
    named = isinstance(queue, str) and queue
    if not named or "," in queue or any(character in queue for character in "\r\n\0"):
        raise ConfigError(
            f"{queue!r} cannot be a queue's name",
            hint="use a name without commas and line ends, such as 'mail'",
        )


def _arity(label: str, function: Callable[..., Any]) -> tuple[int, int | None]:
    least, most = 0, 0
    unlimited = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
            raise ConfigError(
                f"job {label} takes {parameter.name!r} by keyword only; Resque has no keywords",
                hint="make it an ordinary parameter",
            )
        if parameter.kind is parameter.VAR_POSITIONAL:
            unlimited = True
            continue
        most += 1
        least += parameter.default is parameter.empty
    return least, None if unlimited else most


def _arguments(number: int) -> str:
    return "1 argument" if number == 1 else f"{number} arguments"


class _Loop(threading.local):
    """The event loop of a worker: one a thread, and a new one after a fork."""

    pid = 0
    runner: asyncio.Runner | None = None


_loop = _Loop()


def close_loop() -> None:
    """Close the event loop of this thread, if a job has opened one."""
    if _loop.runner is not None and _loop.pid == os.getpid():
        _loop.runner.close()
    _loop.runner = None


def _run(coroutine: Coroutine[Any, Any, object]) -> object:
    if _loop.runner is None or _loop.pid != os.getpid():
        _loop.pid, _loop.runner = os.getpid(), asyncio.Runner()
    try:
        return _loop.runner.run(coroutine)
    except BaseException:
        close_loop()  # an interrupt may have left the job in it; closing cancels that
        raise

"""Retry: a job that fails is performed again, later, a number of times."""

import traceback
from collections.abc import Mapping, Sequence
from enum import StrEnum
from math import ceil
from os import urandom
from typing import Any, ClassVar, Self

from forkresque.errors import BadKey, ConfigError
from forkresque.plugins.base import Performance
from forkresque.plugins.settings import Configured, Duration, delays, seconds
from forkresque.protocol.failure import ERROR_LIMIT, failure_entry
from forkresque.protocol.retries import RetryKeys, node_keys, node_record, ruby_keys

BACKLOG = 3 * 86_400  # seconds for which a counter outlives the longest delay: a retry may have
# to wait in its queue, and must not find its attempts forgotten
_FRAMES = 50
_MOST_ATTEMPTS = 10_000  # beyond which a counter is not ours

Errors = type[BaseException] | Sequence[type[BaseException]]


class RetryStyle(StrEnum):
    """Whose keys hold the attempts."""

    NODE = "node"  # resque-retry:<name>:<arguments>
    RUBY = "ruby"  # resque-retry:<name>:<digest of the arguments>


class Retry(Configured):
    """Perform a job that fails up to `attempts` times in all; None for without end.

    `delay` is the time from a failure to the next attempt, and `backoff` how it grows: None or
    "constant" not at all, "exponential" to the double each time, at most `max_delay`; or a list of
    delays, the last of them for all further attempts. `jitter` adds up to that part of the delay,
    by chance. `retry_on` names the only errors worth another attempt, `give_up_on` those that are
    not. `keys="ruby"` counts where Ruby's resque-retry does. Without delay the job goes straight
    to the tail of its queue.

    Attempts are counted by name and arguments, as node-resque and Ruby do it, so equal jobs count
    together. Death of the worker is no attempt; see `on_crash`.
    """

    node_ms: ClassVar = frozenset({"retry_delay", "backoff_strategy"})
    node_names: ClassVar = {
        "retry_limit": "attempts",
        "retry_delay": "delay",
        "backoff_strategy": "backoff",
    }

    def __init__(
        self,
        attempts: int | None,
        *,
        delay: Duration = 5.0,
        backoff: str | Sequence[Duration] | None = None,
        max_delay: Duration = 3600.0,
        jitter: float = 0.0,
        retry_on: Errors = (),
        give_up_on: Errors = (),
        keys: RetryStyle | str = RetryStyle.NODE,
    ) -> None:
        super().__init__(attempts=attempts, delay=delay, backoff=backoff, max_delay=max_delay)
        self._attempts = _attempts(attempts)
        self._most = seconds("Retry's max_delay", max_delay)
        self._delays = _delays(backoff, seconds("Retry's delay", delay))
        self._doubles = backoff == "exponential"
        if not 0 <= jitter <= 1:
            raise ConfigError(f"Retry's jitter must be between 0 and 1, got {jitter!r}")
        self._jitter = jitter
        self._retry_on = _errors("retry_on", retry_on)
        self._give_up_on = _errors("give_up_on", give_up_on)
        try:
            self._style = RetryStyle(keys)
        except ValueError:
            raise ConfigError(f"Retry's keys must be 'node' or 'ruby', got {keys!r}") from None

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Return a plugin with node-resque's options and defaults: one attempt is no retry."""
        spelt = {"retryLimit", "retry_limit"} & options.keys()
        limits = {name: options[name] or 1 for name in spelt}  # node takes 0 for 1
        unnamed = {"retryLimit": 1} if not spelt and "attempts" not in options else {}
        return super().from_options({**options, **limits, **unnamed})

    def delay_after(self, failures: int, *, chance: float = 0.0) -> float:
        """Return the delay in seconds after so many failures, at least one; chance is 0 to 1."""
        if self._doubles:
            delay = min(self._most, self._delays[0] * 2.0 ** min(failures - 1, 60))
        else:
            delay = self._delays[min(failures, len(self._delays)) - 1]
        return delay * (1 + self._jitter * chance)

    def after_perform(self, context: Performance) -> None:
        """Have the job back if it failed and has attempts left; forget them if that ends it."""
        keys = self._keys_of(context)
        error = context.error
        if error is None or not self._is_worth(error):
            context.forget(keys.counter, keys.failure)
            return
        failures = self._counted(context, keys, error)
        remaining = None if self._attempts is None else max(0, self._attempts - failures)
        if remaining == 0:
            context.forget(keys.counter, keys.failure)
            return
        delay = self.delay_after(failures, chance=urandom(1)[0] / 255)
        context.retry_in(delay, remaining=remaining)

    def _is_worth(self, error: BaseException) -> bool:
        if isinstance(error, self._give_up_on):
            return False
        return not self._retry_on or isinstance(error, self._retry_on)

    def _keys_of(self, context: Performance) -> RetryKeys:
        of = ruby_keys if self._style is RetryStyle.RUBY else node_keys
        return of(context.keys, context.name, context.args)

    def _counted(self, context: Performance, keys: RetryKeys, error: BaseException) -> int:
        """Count a failure, and return how many there are."""
        if self._attempts == 1:
            return 1
        try:
            seen = context.redis.command("GET", keys.counter)
        except BadKey:
            seen = None
        before = int(seen) if seen and seen.isdigit() and int(seen) < _MOST_ATTEMPTS else -1
        record = (keys.failure, self._record(context, error))
        longest = self._most if self._doubles else max(self._delays)
        keep = ceil(longest * (1 + self._jitter)) + BACKLOG
        counted = context.hand.count_attempt(keys.counter, before + 1, record=record, keep=keep)
        return counted + 1

    def _record(self, context: Performance, error: BaseException) -> bytes:
        label, message = type(error).__name__, _message(error)
        if self._style is RetryStyle.NODE:
            text = f"{label}: {message}" if message else label
            return node_record(
                name=context.name,
                queue=context.queue,
                args=context.args,
                error=text,
                backtrace=[text, *_backtrace(error)],
                at=context.now(),
            )
        return failure_entry(
            raw=context.payload,
            exception=label,
            error=message,
            backtrace=_backtrace(error),
            worker=context.worker.id,
            queue=context.queue,
            failed_at=context.now(),
        )


def _message(error: BaseException) -> str:
    try:
        return str(error)[:ERROR_LIMIT]
    except BaseException:  # noqa: BLE001 - an exception's own method runs here
        return "(it cannot be shown)"


def _backtrace(error: BaseException) -> list[str]:
    lines = traceback.format_tb(error.__traceback__, limit=-_FRAMES)
    return "".join(lines).rstrip("\n").split("\n")


def _attempts(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_ATTEMPTS:
        raise ConfigError(
            f"Retry's attempts must be 1 to {_MOST_ATTEMPTS}, or None, got {value!r}",
            hint="attempts=1 is no retry; the first attempt counts",
        )
    return value


def _delays(backoff: object, delay: float) -> tuple[float, ...]:
    if backoff in (None, "constant", "exponential"):
        return (delay,)
    if isinstance(backoff, list | tuple):
        return delays("Retry's backoff", backoff)
    raise ConfigError(
        f"Retry's backoff must be 'constant', 'exponential' or a list of delays, got {backoff!r}"
    )


def _errors(label: str, given: Errors) -> tuple[type[BaseException], ...]:
    kinds = (given,) if isinstance(given, type) else tuple(given)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise ConfigError(f"Retry's {label} must name exception classes, got {kind!r}")
    return kinds

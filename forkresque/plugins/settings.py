"""The options of the built-in plugins, in node-resque's spelling or in ours.

A name in node's spelling, `retryDelay`, has node's unit; in ours, `retry_delay`, a length of time
is in seconds or a timedelta.
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from math import ceil, isfinite
from typing import Any, ClassVar, Self

from forkresque.errors import ConfigError
from forkresque.plugins.base import Plugin, snake

Duration = float | timedelta


class Configured(Plugin):
    """A plugin of ours. `node_ms` are the options that node-resque takes in milliseconds."""

    node_ms: ClassVar[frozenset[str]] = frozenset()
    node_names: ClassVar[Mapping[str, str]] = {}  # what node calls otherwise than we do

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Return a plugin with the options of `plugin_options`; an absent one is node's default."""
        found: dict[str, Any] = {}
        for given, value in options.items():
            name = snake(given)
            foreign = given != name
            ours = cls.node_names.get(name, name)
            if ours in found:
                raise ConfigError(f"plugin {cls.label()} has the option {given!r} twice")
            found[ours] = _seconds_of(value) if foreign and name in cls.node_ms else value
        return super().from_options(found)


def _seconds_of(value: Any) -> Any:
    """Return milliseconds, or a list of them, in seconds; what is no number, as it is."""
    if isinstance(value, list | tuple):
        return [_seconds_of(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return value / 1000


def seconds(label: str, value: object, *, least: float = 0.0) -> float:
    """Return an option in seconds. Raises ConfigError, naming it by `label`."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ConfigError(f"{label} must be seconds or a timedelta, got {value!r}")
    if value < least:
        raise ConfigError(f"{label} must be at least {least:g} seconds, got {value:g}")
    return float(value)


def whole_seconds(label: str, value: object) -> int:
    """Return an option in whole seconds, at least one, as Redis' EXPIRE takes it."""
    return ceil(seconds(label, value, least=1.0))


def delays(label: str, values: Iterable[object]) -> tuple[float, ...]:
    """Return a list of lengths of time in seconds."""
    found = tuple(seconds(f"{label}[{index}]", value) for index, value in enumerate(values))
    if not found:
        raise ConfigError(f"{label} must hold at least one delay")
    return found

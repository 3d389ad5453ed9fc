"""What the options are set to: by flags, the environment, a file, or their defaults.

The order is the order of strength. Variables of other tools, as REDIS_URL, come after the file.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import Field, fields
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

from forkresque.configfile import File
from forkresque.errors import ConfigError
from forkresque.options import Size, variable
from forkresque.order import Refused

T = TypeVar("T")


class Rank(IntEnum):
    """Where a value comes from, the strongest first."""

    GIVEN = 0
    ENVIRONMENT = 1
    FILE = 2
    OTHERS = 3
    DEFAULT = 4


class Setting(NamedTuple):
    """The value of an option; `source` is the name it was given under."""

    value: Any
    source: str
    rank: Rank


def chosen(name: str, *, given: Mapping[str, Any], environ: Mapping[str, str]) -> str | None:
    """Return the text that was given for an option or stands in its variable, else None.

    It is not parsed. Neither files nor variables of other tools count: this tells what is
    stronger than the application's code.
    """
    return given.get(name) or environ.get(variable(name)) or None


def resolve(
    kind: type[T],
    *,
    given: Mapping[str, Any],
    environ: Mapping[str, str],
    file: File | None = None,
) -> T:
    """Return the options, from what was given, the environment, a file and the defaults.

    A given None counts as not given; text is parsed. Raises ConfigError that names every
    mistake in one message.
    """
    found = settings(kind, given=given, environ=environ, file=file)
    options = kind(**{name: each.value for name, each in found.items()})
    _refuse(getattr(options, "contradictions", list)())
    return options


def settings(
    kind: type,
    *,
    given: Mapping[str, Any],
    environ: Mapping[str, str],
    file: File | None = None,
) -> dict[str, Setting]:
    """Return every option of a kind with its source. Raises ConfigError, as `resolve` does."""
    found: dict[str, Setting] = {}
    mistakes: list[str] = []
    for declared in fields(kind):
        candidates = _candidates(declared, given, environ, file or File())
        try:
            found[declared.name] = _setting(declared, candidates)
        except ValueError as error:
            mistakes.append(str(error))
    _refuse(mistakes)
    return _without_hidden(kind, found)


def _refuse(mistakes: Iterable[str]) -> None:
    if text := "; ".join(mistakes):
        raise ConfigError(text, hint="see forkresque COMMAND --help")


def _candidates(
    declared: Field[Any], given: Mapping[str, Any], environ: Mapping[str, str], file: File
) -> Iterator[tuple[Rank, str, Any]]:
    """Yield where a value may stand, under which name, and what stands there."""
    name = declared.name
    yield Rank.GIVEN, name, given.get(name)
    yield Rank.ENVIRONMENT, variable(name), environ.get(variable(name)) or None
    yield Rank.FILE, f"{name} in {file.path}", file.values.get(name)
    for other in declared.metadata["also"]:
        yield Rank.OTHERS, other, environ.get(other) or None


def _setting(declared: Field[Any], candidates: Iterable[tuple[Rank, str, Any]]) -> Setting:
    for rank, source, raw in candidates:
        if raw is not None:
            return Setting(_value(declared, source, raw), source, rank)
    return _by_default(declared)


def _by_default(declared: Field[Any]) -> Setting:
    return Setting(declared.default, "default", Rank.DEFAULT)


def _without_hidden(kind: type, found: dict[str, Setting]) -> dict[str, Setting]:
    """Return the settings; what a stronger source makes void has its default."""
    declared = {each.name: each for each in fields(kind)}
    void: set[str] = set()
    for name in sorted(found, key=lambda name: found[name].rank):
        if name not in void:
            hides = declared[name].metadata["hides"]
            void |= {each for each in hides if found[each].rank > found[name].rank}
    return found | {name: _by_default(declared[name]) for name in void}


def _value(declared: Field[Any], source: str, raw: Any) -> Any:
    """Return what was given, parsed and checked. Raises ValueError that names the source."""
    about = declared.metadata
    if about["many"]:
        items = raw.split() if isinstance(raw, str) else raw
        return tuple(_parsed(declared, source, item) for item in items)
    value = _parsed(declared, source, raw)
    if isinstance(value, int | float):
        if about["at_least"] is not None and value < about["at_least"]:
            raise ValueError(f"{source} must be at least {about['at_least']:g}, got {value}")
        if about["at_most"] is not None and value > about["at_most"]:
            raise ValueError(f"{source} must be at most {about['at_most']:g}, got {value}")
    return value


def _parsed(declared: Field[Any], source: str, raw: Any) -> Any:
    if isinstance(raw, int) and isinstance(declared.default, Size):
        raw = str(raw)
    if not isinstance(raw, str):
        return raw
    try:
        return declared.metadata["parse"](raw)
    except Refused as refused:
        raise ValueError(f"{source} {refused}") from None
    except (ValueError, KeyError):
        wanted = declared.metadata["metavar"]
        raise ValueError(f"{source} must be {wanted}, got {raw!r}") from None

"""The configuration file: where it is, and what it says.

It says what the variables say, under the options' names and with the types of TOML:

    redis = "redis://cache:6379/0"
    shutdown_timeout = "2m"
    [[pools]]
    queues = ["high", "mail"]
    concurrency = "2:8"

It is `forkresque.toml`, or the table `[tool.forkresque]` of `pyproject.toml`, in the first
directory from the working directory upward that has either. It is read anew each time.
"""

import json
import stat
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from forkresque.errors import ConfigError
from forkresque.options import (
    ClientOptions,
    InterfaceOptions,
    Size,
    SupervisorOptions,
    size,
    variable,
)
from forkresque.order import Order

_OWN, _SHARED = "forkresque.toml", "pyproject.toml"
_CONFIG = "config"
_ELSEWHERE = "--config or FORKRESQUE_CONFIG names another; /dev/null is none"
_EXAMPLE = "the README has an example, and all options"
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_WORDS |= {list: "a list", dict: "a table"}
_TYPES: dict[type, tuple[type, ...]] = {  # by the type of the default
    bool: (bool,),
    float: (int, float, str),
    int: (int,),
    tuple: (list, str),
    Size: (int, str),
    Order: (str,),
    str: (str,),
}


@dataclass(frozen=True, slots=True)
class File:
    """What a configuration file says, as texts or lists of texts, like flags."""

    path: Path | None = None
    values: Mapping[str, str | list[str]] = field(default_factory=dict)


def read(environ: Mapping[str, str]) -> File:
    """Read the file that FORKRESQUE_CONFIG names, or the first found, if there is one.

    Raises ConfigError with the path, and the line where one can be told.
    """
    named = environ.get(variable(_CONFIG))
    if named:
        return read_from(Path(named))
    try:
        here = Path.cwd()
    except FileNotFoundError:
        return File()  # somebody has removed the working directory
    for directory in (here, *filter(_is_safe, here.parents)):
        for path in filter(_is_there, (directory / _OWN, directory / _SHARED)):
            if (table := _table(path)) is not None:
                return File(path, _texts(path, table))
    return File()


def read_from(path: Path) -> File:
    """Read this file. Raises ConfigError, also when it says nothing to us."""
    table = _table(path)
    if table is None:
        raise ConfigError(f"{path} has no table [tool.forkresque]", hint="name another, or add it")
    return File(path, _texts(path, table))


def _is_safe(directory: Path) -> bool:
    """Return whether we may look there, and not everybody may leave a file, as in /tmp."""
    try:
        return not directory.stat().st_mode & stat.S_IWOTH
    except OSError:
        return False


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False  # in a directory that we may not enter


def _table(path: Path) -> dict[str, Any] | None:
    """Return what is ours in a file; None if it is the project's and has nothing for us."""
    import tomllib  # here, and difflib below, since mostly there is no file to read

    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"the configuration {path} cannot be read: {error.strerror}", hint=_ELSEWHERE
        ) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path} is not UTF-8 (at line {line})", hint=_ELSEWHERE) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", hint=_ELSEWHERE) from error
    if path.name != _SHARED:
        return content
    tool = content.get("tool")
    table = tool.get("forkresque") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise ConfigError(_misfit("tool.forkresque", path, table, (dict,)), hint=_EXAMPLE)
    return table


def _texts(path: Path, table: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """Return the table with every value as a flag would say it. Raises ConfigError."""
    declared = {
        each.name: each
        for kind in (ClientOptions, InterfaceOptions, SupervisorOptions)
        for each in fields(kind)
        if each.name != _CONFIG
    }
    mistakes: list[str] = []
    found: dict[str, str | list[str]] = {}
    for key, value in table.items():
        try:
            _known(key, path, declared)
            found[key] = _text(declared[key], path, value)
        except ValueError as error:
            mistakes.append(str(error))
    if mistakes:
        raise ConfigError("; ".join(mistakes), hint=_EXAMPLE)
    return found


def _known(key: str, path: Path, known: Iterable[str], *, inside: str = "") -> None:
    """Raise ValueError, with what may have been meant, if there is no such key."""
    if key not in known:
        import difflib

        near = difflib.get_close_matches(key.replace("-", "_").lower(), known, n=1, cutoff=0.7)
        offer = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{inside}{key} in {path} is no option{offer}")


def _text(declared: Field[Any], path: Path, value: Any) -> str | list[str]:
    name = declared.name
    _check(name, path, value, _types(declared))
    if declared.metadata["many"]:
        return [_pool(f"{name}[{at}]", path, each) for at, each in enumerate(value)]
    return _joined(name, path, value)


def _types(declared: Field[Any]) -> tuple[type, ...]:
    """Return what an option may be in TOML."""
    if declared.metadata["many"]:
        return (list,)
    return (int, str) if declared.metadata["parse"] is size else _TYPES[type(declared.default)]


def _check(name: str, path: Path, value: object, types: tuple[type, ...]) -> None:
    if type(value) not in types:  # a bool is an int only to Python
        raise ValueError(_misfit(name, path, value, types))


def _misfit(name: str, path: Path, value: object, types: Iterable[type]) -> str:
    wanted = " or ".join(_WORDS[each] for each in types if not (each is int and float in types))
    return f"{name} in {path} must be {wanted}, got {json.dumps(value, default=str)}"


def _joined(name: str, path: Path, value: Any) -> str:
    """Return a value as the text of a flag; a list has commas."""
    if not isinstance(value, list):
        return str(value)
    for each in value:
        _check(f"each of {name}", path, each, (str,))
    return ",".join(value)


def _pool(name: str, path: Path, table: Any) -> str:
    """Return a table of `[[pools]]` as --pool has it. Raises ValueError."""
    _check(name, path, table, (dict, str))
    if isinstance(table, str):
        return table
    known = {"queues": (list, str), "concurrency": (int, str), "min": (int,), "max": (int,)}
    for key, value in table.items():
        _known(key, path, known, inside=f"{name}.")
        _check(f"{name}.{key}", path, value, known[key])
    match sorted(table):
        case ["concurrency", "queues"]:
            bounds = table["concurrency"]
        case ["max", "min", "queues"]:
            bounds = f"{table['min']}:{table['max']}"
        case keys:
            raise ValueError(
                f"{name} in {path} must have queues, and concurrency or min and max, "
                f"got {', '.join(keys) or 'nothing'}"
            )
    return f"{_joined(f'{name}.queues', path, table['queues'])}={bounds}"

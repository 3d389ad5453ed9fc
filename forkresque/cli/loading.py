"""Find the application that `-A module[:attr]` names."""

import importlib
import sys
import traceback
from operator import attrgetter
from pathlib import Path
from types import ModuleType, TracebackType

from forkresque.app import Forkresque
from forkresque.cli.output import show_trace
from forkresque.errors import ConfigError


def load(name: str) -> Forkresque:
    """Import an application, from the working directory first.

    Raises ConfigError that says why not. The traceback of an error inside the module goes to
    stderr, from the module's own lines on.
    """
    module_name, _, attribute = name.partition(":")
    working_directory = str(Path.cwd())
    if sys.path[:1] != [working_directory]:
        sys.path.insert(0, working_directory)
    module = _imported(module_name)
    return _attribute(module, attribute) if attribute else _only_one(module)


def _imported(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(
            f"the application {name!r} is no module's name", hint="write it as in an import: a.b"
        )
    try:
        return importlib.import_module(name)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        if _is_missing(name, error):
            raise ConfigError(
                f"the application {name!r} cannot be imported: {error}",
                hint=f"modules are looked for in {Path.cwd()} first",
            ) from error
        trace = traceback.format_exception(type(error), error, _own_lines(error.__traceback__))
        show_trace("".join(trace))
        raise ConfigError(
            f"the application {name!r} cannot be imported: {type(error).__name__}: {error}",
            hint="the traceback is above",
        ) from error


def _is_missing(name: str, error: BaseException) -> bool:
    """Return whether the module itself, or a package it is in, is not there."""
    return isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")


def _own_lines(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback without our frames and those of the import system."""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file not in (__file__, importlib.__file__) and not file.startswith("<frozen importlib"):
            break
        trace = trace.tb_next
    return trace


def _attribute(module: ModuleType, attribute: str) -> Forkresque:
    try:
        found = attrgetter(attribute)(module)
    except AttributeError as error:
        raise ConfigError(
            f"the module {module.__name__!r} has no {attribute!r}", hint=_offer(module)
        ) from error
    if not isinstance(found, Forkresque):
        raise ConfigError(
            f"{attribute!r} in module {module.__name__!r} is a {type(found).__name__}, "
            "not a Forkresque",
            hint=_offer(module),
        )
    return found


def _only_one(module: ModuleType) -> Forkresque:
    apps = _apps(module)
    if "app" in apps:
        return apps["app"]
    if len({id(app) for app in apps.values()}) == 1:
        return next(iter(apps.values()))
    names = ", ".join(apps)
    held = f"holds more than one Forkresque: {names}" if apps else "holds no Forkresque"
    raise ConfigError(f"the module {module.__name__!r} {held}", hint=_offer(module))


def _offer(module: ModuleType) -> str:
    names = list(_apps(module))
    if names:
        return "name one: " + ", ".join(f"-A {module.__name__}:{name}" for name in names)
    return f"make one in it: app = Forkresque(), or name another module than {module.__file__}"


def _apps(module: ModuleType) -> dict[str, Forkresque]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Forkresque)}

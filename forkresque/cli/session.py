"""What the global options of one command line say, wherever among the words they stood."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click

from forkresque.configfile import File, read
from forkresque.configuration import chosen, resolve
from forkresque.options import InterfaceOptions

T = TypeVar("T")


@dataclass(slots=True)
class Session:
    """One run of the command line. `given` holds the global options that were there."""

    given: dict[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def json(self) -> bool:
        """Return whether stdout gets one JSON document."""
        return bool(self.given.get("json"))

    @property
    def verbose(self) -> bool:
        """Return whether errors come with their traceback."""
        return bool(self.given.get("verbose"))

    @property
    def quiet(self) -> bool:
        """Return whether nothing is said but what was asked for."""
        return bool(self.given.get("quiet"))

    def resolve(self, kind: type[T], given: Mapping[str, Any]) -> T:
        """Return options of a kind: as given, from the environment, a file, or the defaults."""
        return resolve(kind, given=given, environ=self.environ, file=self.file())

    def file(self) -> File:
        """Return what the configuration file says now. Raises ConfigError."""
        return read(self.environ)

    def chosen(self, name: str) -> str | None:
        """Return what a flag or our own variable says, or None."""
        return chosen(name, given=self.given, environ=self.environ)

    def interface(self) -> InterfaceOptions:
        """Return the application's name and how to log; `-v` and `--quiet` are levels, too."""
        level = "debug" if self.verbose else "warning" if self.quiet else None
        return self.resolve(InterfaceOptions, {"log_level": level} | self.given)

    def say(self, text: str) -> None:
        """Tell what is no result, on stderr, unless quiet."""
        if not self.quiet:
            click.echo(text, err=True)


pass_session = click.make_pass_decorator(Session, ensure=True)

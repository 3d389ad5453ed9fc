"""`forkresque config`: what every option is set to, and by what."""

from collections.abc import Iterator

import click

from forkresque.cli import output
from forkresque.cli.parameters import Noun
from forkresque.cli.session import Session, pass_session
from forkresque.configfile import File
from forkresque.configuration import Rank, Setting, resolve, settings
from forkresque.errors import ConfigError
from forkresque.options import ClientOptions, InterfaceOptions, SupervisorOptions, flag
from forkresque.protocol.address import masked

_KINDS: tuple[type, ...] = (SupervisorOptions, ClientOptions, InterfaceOptions)


class Showing(Noun):
    """A group that shows when no verb is named."""

    usual = "show"


@click.group(cls=Showing)
def config() -> None:
    """Look at the configuration: flags, environment and file together."""


@config.command()
@pass_session
def show(session: Session, /) -> None:
    """Show every option, its value and where that comes from. Passwords are left out."""
    file = session.file()
    found = list(_found(session, file))
    if session.json:
        rows = {
            name: {"value": _plain(name, each), "source": _source(name, each, file)}
            for name, each in found
        }
        output.document(file=_name(file), options=rows)
    else:
        output.table(
            ["OPTION", "VALUE", "SOURCE"],
            [(name, _text(name, each), _source(name, each, file)) for name, each in found],
        )


@config.command()
@pass_session
def check(session: Session, /) -> None:
    """Exit 78 and name every mistake, if there are any."""
    file = session.file()
    mistakes = [text for kind in _KINDS if (text := _mistakes(session, kind, file))]
    if mistakes:
        raise ConfigError("; ".join(mistakes), hint="the README has the options and an example")
    if session.json:
        output.document(file=_name(file), good=True)
    elif not session.quiet:
        output.line(f"{_name(file) or 'the configuration, without a file,'} is good")


def _name(file: File) -> str | None:
    return None if file.path is None else str(file.path)


def _found(session: Session, file: File) -> Iterator[tuple[str, Setting]]:
    for kind in _KINDS:
        found = settings(kind, given=session.given, environ=session.environ, file=file)
        yield from found.items()


def _mistakes(session: Session, kind: type, file: File) -> str:
    try:
        resolve(kind, given=session.given, environ=session.environ, file=file)
    except ConfigError as error:
        return str(error)
    return ""


def _source(name: str, setting: Setting, file: File) -> str:
    match setting.rank:
        case Rank.GIVEN:
            return flag(name)
        case Rank.FILE:
            return str(file.path)
        case _:
            return setting.source


def _plain(name: str, setting: Setting) -> object:
    """Return a value as JSON has it."""
    match setting.value:
        case tuple() as items:
            return [str(each) for each in items]
        case bool() | int() | float() as number:
            return number
        case other:
            return masked(str(other)) if name == "redis" else str(other)


def _text(name: str, setting: Setting) -> str:
    match _plain(name, setting):
        case list() as items:
            return (" " if name == "pools" else ",").join(items)
        case bool() as truth:
            return "yes" if truth else "no"
        case float() as number:
            return f"{number:g}"
        case other:
            return str(other)

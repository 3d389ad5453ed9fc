"""The shape of all commands: options made from their declarations, and the global options.

Global options may stand before and after a command, at every level; the later one wins.
"""

import os
from collections.abc import Iterable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click

from forkresque.cli.session import Session
from forkresque.options import ClientOptions, InterfaceOptions, flag, variable


class GlobalOption(click.Option):
    """An option that every command takes. Its value goes to the session."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, callback=_remember, expose_value=False, **kwargs)


def _remember(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    session = ctx.ensure_object(Session)
    if parameter.name and value not in (None, False):
        session.given[parameter.name] = value
    if parameter.name == "config" and value:
        # The application reads it as well, and so does the process that checks a reload.
        os.environ[variable("config")] = str(Path(str(value)).absolute())


def declared(
    kind: type, *, only: Iterable[str] = (), make: type[click.Option] = click.Option
) -> list[click.Parameter]:
    """Return the options of a declaration; the value of one that is absent is None."""
    wanted = set(only)
    return [_option(each, make) for each in fields(kind) if not wanted or each.name in wanted]


def _option(declaration: Field[Any], make: type[click.Option]) -> click.Option:
    name, about = declaration.name, declaration.metadata
    text = f"{about['help']} [{_origin(declaration)}]"
    if isinstance(declaration.default, bool):
        switch = f"{flag(name)}/--no-{flag(name).removeprefix('--')}"
        return make([name, switch], default=None, help=text)
    words = [name, flag(name), *filter(None, [about["short"]])]
    more: dict[str, Any] = {"multiple": True, "callback": _or_none} if about["many"] else {}
    return make(words, metavar=about["metavar"], default=None, help=text, **more)


def _or_none(ctx: click.Context, parameter: click.Parameter, value: object) -> object:  # noqa: ARG001 - click's signature
    """Return None for an option that is repeated zero times."""
    return value or None


def _origin(declaration: Field[Any]) -> str:
    """Return the default and the environment variables, for the help."""
    default = declaration.default
    if isinstance(default, tuple):
        default = ",".join(default)
    elif isinstance(default, bool):
        default = "yes" if default else "no"
    elif isinstance(default, float):
        default = f"{default:g}"
    variables = " or ".join([variable(declaration.name), *declaration.metadata["also"]])
    return f"default {default}; {variables}" if default else variables


def _global_options() -> list[click.Parameter]:
    return [
        *declared(ClientOptions, make=GlobalOption),
        *declared(InterfaceOptions, make=GlobalOption),
        GlobalOption(["--json"], is_flag=True, help="Print one JSON document."),
        GlobalOption(["-v", "--verbose"], is_flag=True, help="Log more, show tracebacks."),
        GlobalOption(["--quiet"], is_flag=True, help="Log and say less."),
    ]


class Command(click.Command):
    """A command that takes the global options as well, and shows them apart."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _global_options()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, then the global ones."""
        for title, shared in (("Options", False), ("Global options", True)):
            parameters = [p for p in self.get_params(ctx) if isinstance(p, GlobalOption) is shared]
            rows = [row for p in parameters if (row := p.get_help_record(ctx))]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class Group(click.Group, Command):
    """A group of such commands."""

    command_class = Command


class Noun(Group):
    """A group that lists when no verb is named: `failed --limit 5` is `failed list --limit 5`."""

    usual = "list"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the verb where there is none."""
        named = {*self.commands, *ctx.help_option_names} & set(args)
        if not named and (not args or args[0].startswith("-")):
            args = [self.usual, *args]
        return super().parse_args(ctx, args)

"""The README says what the code does."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from forkresque.cli.program import COMMANDS
from forkresque.errors import ExitCode
from forkresque.options import ClientOptions, InterfaceOptions, SupervisorOptions, flag, variable

README = Path(__file__).parents[2] / "README.md"


def shown(default: Any) -> str:
    if isinstance(default, tuple):
        return f"`{','.join(default)}`" if default else ""
    if isinstance(default, bool):
        return "yes" if default else "no"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`" if default else ""


def rows(kind: type) -> list[str]:
    found = []
    for each in fields(kind):
        about = each.metadata
        words = ", ".join(f"`{word}`" for word in (about["short"], flag(each.name)) if word)
        found.append(
            f"| {words} | `{variable(each.name)}` | {shown(each.default)} | {about['help']} |"
        )
    return found


def table() -> str:
    lines = ["| flag | variable | default | |", "|---|---|---|---|"]
    for kind in (SupervisorOptions, ClientOptions, InterfaceOptions):
        lines += rows(kind)
    return "\n".join(lines)


def test_the_table_of_options_is_the_declarations() -> None:
    text = README.read_text()
    found = re.search(r"checked by the tests -->\n(.*)<!-- end of options", text, re.DOTALL)
    assert found is not None
    assert found[1].strip() == table()


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_in_the_readme(command: str) -> None:
    assert f"`{command}`" in README.read_text()


@pytest.mark.parametrize("code", list(ExitCode))
def test_every_exit_code_is_in_the_readme(code: ExitCode) -> None:
    section = README.read_text().split("### Exit codes")[1].split("##")[0]
    assert re.search(rf"\b{code.value}\b", section)


def test_the_readme_has_exactly_two_commands_that_set_everything_up() -> None:
    commands = re.findall(r"^    (python3 -m venv .*)$", README.read_text(), re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("forkresque demo")
    assert commands[1].endswith("python -m pytest")

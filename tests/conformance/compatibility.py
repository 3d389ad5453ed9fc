"""The page on compatibility, docs/compatibility.md: from compatibility.toml and the mirrored tests.

`python -m tests.conformance.compatibility` writes it. A row of a section has six cells: the name in
node-resque, the name here, what it takes or returns, what is otherwise, the name in Ruby, and the
tests that show it. A test is "queue 2", the second upstream test of that suite, or "file::test",
one of ours. Deviations and bugs have four cells, the last of which are tests, too.
"""

import inspect
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import forkresque
from forkresque import events
from forkresque.options import SupervisorOptions
from tests.conformance.table import mirrors
from tests.conformance.upstream import SUITES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "compatibility.md"
DATA: dict[str, Any] = tomllib.loads(
    Path(__file__).with_name("compatibility.toml").read_text(encoding="utf-8")
)
_SUITES = {suite.rpartition("/")[2]: suite for suite in SUITES}
_HEADS = {
    "section": ("node-resque", "here", "takes, returns", "otherwise here", "Ruby", "shown by"),
    "wire": ("what", "we write", "we read", "shown by"),
    "bugs": ("", "node-resque", "here", "shown by"),
}


@dataclass(frozen=True)
class Name:
    """A name of ours on the page; `kind` says what it is the name of."""

    kind: str
    text: str

    def exists(self) -> bool:
        """Return whether it is there; may raise AttributeError instead of returning False."""
        if self.kind == "event":
            return self.text in {*events.POOL_EVENTS, *events.SCHEDULER_EVENTS}
        owner, _, parameter = self.text.removesuffix(")").partition("(")
        found: Any = attrgetter(owner)(forkresque)
        return not parameter or parameter in _parameters(found)


def _parameters(owner: Any) -> set[str]:
    known = set(inspect.signature(owner).parameters)
    if owner is forkresque.MultiWorker:
        known |= set(SupervisorOptions.__dataclass_fields__)
    return known


def names() -> Iterator[Name]:
    """Yield our names on the page."""
    for section in DATA["section"]:
        yield from (Name(section["kind"], row[1]) for row in section["rows"] if row[1])


def references() -> Iterator[str]:
    """Yield the tests that the page names."""
    tables = [section["rows"] for section in DATA["section"]]
    for row in (*(row for rows in tables for row in rows), *DATA["wire"], *DATA["bugs"]):
        yield from filter(None, row[-1].split(", "))


def upstream_name(reference: str) -> str:
    """Return the name of the upstream test "queue 2". Raises KeyError, ValueError or IndexError."""
    suite, number = reference.split(" ")
    return SUITES[_SUITES[suite]][range(len(SUITES[_SUITES[suite]]))[int(number) - 1]]


def page() -> str:
    """Return the page."""
    text = DATA["text"]
    lines = [f"{text['head']}\n"]
    for section in DATA["section"]:
        lines += [f"## {section['title']}\n", f"{section['text']}\n"]
        lines += _table("section", map(_spelt, section["rows"]))
    lines += [f"## On the wire\n\n{text['wire']}\n", *_table("wire", map(_shown, DATA["wire"]))]
    lines += [f"## What goes wrong there\n\n{text['bugs']}\n"]
    lines += [*_table("bugs", map(_shown, DATA["bugs"])), f"## Its tests\n\n{text['tests']}\n"]
    return "\n".join([*lines, *_upstream()]).rstrip() + "\n"


def _spelt(row: Sequence[str]) -> list[str]:
    theirs, ours, *cells = row
    return _shown([_code(theirs), _code(ours), *cells])


def _shown(row: Sequence[str]) -> list[str]:
    *cells, tests = row
    return [*cells, ", ".join(_code(test) if "::" in test else test for test in tests.split(", "))]


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _upstream() -> Iterator[str]:
    found = {(mirror.suite, mirror.upstream): mirror for mirror in mirrors()}
    for suite, tests in SUITES.items():
        of_suite = [found[suite, test] for test in tests]
        yield f"### {suite}\n"
        yield f"`tests/conformance/{of_suite[0].module}.py`\n"
        yield from _numbered((mirror.upstream, mirror.note) for mirror in of_suite)


def _numbered(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for number, (name, note) in enumerate(rows, start=1):
        yield f"{number}. {name}" + (f" - *{note}*" if note else "")
    yield ""


def _table(kind: str, rows: Iterable[Sequence[str]]) -> Iterator[str]:
    head = _HEADS[kind]
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")

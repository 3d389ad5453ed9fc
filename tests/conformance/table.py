"""Which test here mirrors which upstream test: read from the headers of the test files.

A header names its suite, and has an entry for each test of it:

    * name of the upstream test
      -> test_that_mirrors_it: what is otherwise here, if anything is
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parents[1]
_ENTRY = re.compile(r"(?P<upstream>.+) -> (?P<test>test_\w+)(?:: (?P<note>.+))?")


@dataclass(frozen=True)
class Mirror:
    """One upstream test, and the test here that shows the same."""

    suite: str
    upstream: str
    module: str
    test: str
    note: str


def mirrors() -> list[Mirror]:
    """Return all entries of all headers, in their order."""
    found = []
    for path in sorted(Path(__file__).parent.glob("test_upstream_*.py")):
        header = ast.get_docstring(ast.parse(path.read_text())) or ""
        suite = re.search(r"upstream suite (\S+?)[,.:\s]", header)
        for entry in re.split(r"^\* ", header, flags=re.MULTILINE)[1:]:
            parts = _ENTRY.fullmatch(" ".join(entry.split()))
            if suite is None or parts is None:
                raise ValueError(f"{path.name} has no suite, or an entry without a test: {entry}")
            found.append(
                Mirror(suite[1], parts["upstream"], path.stem, parts["test"], parts["note"] or "")
            )
    return found


def functions(module: str) -> set[str]:
    """Return the tests in the file of this name, wherever it is."""
    (path,) = TESTS.rglob(f"{module}.py")
    body = ast.parse(path.read_text()).body
    return {
        each.name
        for each in body
        if isinstance(each, ast.FunctionDef) and each.name.startswith("test_")
    }


def words(text: str) -> list[str]:
    """Return the words of an upstream test's name, or of a test's name here."""
    return re.findall(
        r"[a-z0-9]+", re.sub("(?<=[a-z])(?=[A-Z])", " ", text.replace("'", "")).lower()
    )

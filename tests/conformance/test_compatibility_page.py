"""The page on compatibility says what is so."""

import pytest

from tests.conformance.compatibility import DATA, PAGE, Name, names, page, references, upstream_name
from tests.conformance.table import functions

OWN = sorted({reference for reference in references() if "::" in reference})
UPSTREAM = sorted({reference for reference in references() if "::" not in reference})


def test_the_page_is_what_its_table_gives() -> None:
    assert PAGE.read_text() == page(), "run python -m tests.conformance.compatibility"


@pytest.mark.parametrize("name", [*names()], ids=lambda name: name.text)
def test_what_the_page_names_is_there(name: Name) -> None:
    assert name.exists()


@pytest.mark.parametrize("reference", OWN)
def test_a_test_that_the_page_names_exists(reference: str) -> None:
    module, _, test = reference.partition("::")

    assert test in functions(module)


@pytest.mark.parametrize("reference", UPSTREAM)
def test_an_upstream_test_that_the_page_names_exists(reference: str) -> None:
    assert upstream_name(reference)


def test_rows_have_all_their_cells_and_deviations_are_shown() -> None:
    assert {len(row) for section in DATA["section"] for row in section["rows"]} == {6}
    assert {len(row) for row in (*DATA["wire"], *DATA["bugs"])} == {4}
    assert all(row[-1] for row in (*DATA["wire"], *DATA["bugs"]))

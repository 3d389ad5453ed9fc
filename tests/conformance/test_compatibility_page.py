"""The page on compatibility says what is so."""

from itertools import groupby

import pytest

from tests.conformance.compatibility import DATA, PAGE, Name, names, page, references, upstream_name
from tests.conformance.table import functions


def test_the_page_is_what_its_table_gives() -> None:
    assert PAGE.read_text() == page(), "run python -m tests.conformance.compatibility"


@pytest.mark.parametrize("name", [*names()], ids=lambda name: name.text)
def test_what_the_page_names_is_there(name: Name) -> None:
    assert name.exists()


def test_the_tests_that_the_page_names_exist() -> None:
    own = sorted({each for each in references() if "::" in each})

    assert own
    for module, named in groupby(own, lambda each: each.partition("::")[0]):
        assert {each.partition("::")[2] for each in named} <= functions(module)


def test_the_upstream_tests_that_the_page_names_exist() -> None:
    upstream = {each for each in references() if "::" not in each}

    assert len({upstream_name(each) for each in upstream}) > 80


def test_rows_have_all_their_cells_and_deviations_are_shown() -> None:
    assert {len(row) for section in DATA["section"] for row in section["rows"]} == {6}
    assert {len(row) for row in (*DATA["wire"], *DATA["bugs"])} == {4}
    assert all(row[-1] for row in (*DATA["wire"], *DATA["bugs"]))

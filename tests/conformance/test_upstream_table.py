"""Every test of node-resque is mirrored here, once, by a test that exists."""

from collections import Counter
from pathlib import Path

import pytest

from tests.conformance.table import Mirror, functions, mirrors, words
from tests.conformance.upstream import SUITES

HERE = Path(__file__).parent
MIRRORS = mirrors()


def test_there_are_115_upstream_tests() -> None:
    assert sum(map(len, SUITES.values())) == 115
    assert len(SUITES) == 14


@pytest.mark.parametrize("suite", SUITES)
def test_each_upstream_test_of_a_suite_is_mirrored_once(suite: str) -> None:
    found = Counter(mirror.upstream for mirror in MIRRORS if mirror.suite == suite)

    assert found == Counter(SUITES[suite])


def test_no_suite_is_mirrored_that_does_not_exist() -> None:
    assert {mirror.suite for mirror in MIRRORS} == SUITES.keys()


@pytest.mark.parametrize("module", sorted({mirror.module for mirror in MIRRORS}))
def test_a_header_names_the_tests_of_its_file(module: str) -> None:
    named = Counter(mirror.test for mirror in MIRRORS if mirror.module == module)

    assert named == Counter(functions(module))


def test_a_mirror_is_named_after_its_upstream_test() -> None:
    assert [mirror.test for mirror in MIRRORS if not is_named_after(mirror)] == []


def is_named_after(mirror: Mirror) -> bool:
    """Return whether a test has words of the upstream test only, in their order."""
    upstream = iter(words(mirror.upstream))
    return all(word in upstream for word in words(mirror.test)[1:])

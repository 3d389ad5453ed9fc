"""How many files a master may have open."""

import resource
from collections.abc import Iterator

import pytest

from forkresque.errors import ConfigError
from forkresque.supervisor.limits import allow_descriptors


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    """Return the soft and the hard limit, and put the soft one back."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    yield 256, before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_is_raised_to_what_is_needed(limits: tuple[int, int]) -> None:
    allow_descriptors(300)

    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, limits[1])


def test_a_limit_that_will_do_stays(limits: tuple[int, int]) -> None:
    allow_descriptors(200)

    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits


def test_more_than_the_hard_limit_is_refused_with_both_numbers(limits: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=f"need {limits[1] + 1} open files.* is {limits[1]}"):
        allow_descriptors(limits[1] + 1)

    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits

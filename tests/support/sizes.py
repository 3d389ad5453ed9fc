"""Two sizes of one test: the one of every day, and the long one before a release."""

from typing import Any

import pytest


def sized(small: Any, full: Any, *, timeout: float = 600.0) -> list[Any]:
    """Return the values of a parameter: `small` by default, `full` with `pytest -m full`.

    `timeout`, in seconds, is for the full size.
    """
    marks = [pytest.mark.full, pytest.mark.timeout(timeout)]
    return [pytest.param(small, id="small"), pytest.param(full, id="full", marks=marks)]

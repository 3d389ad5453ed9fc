"""Waiting for a fact, with a deadline. The only sleep in the tests."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T | None], what: str, timeout: float = 10.0, every: float = 0.01
) -> T:
    """Return the first truthy value of `condition`; fail after `timeout`, naming `what`.

    It is asked at least once, and once more after the deadline: a runner that was itself
    held up for long blames nobody else.
    """
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() >= deadline
        value = condition()
        if value:
            return value
        if late:
            raise AssertionError(f"waited {timeout:.1f} s for {what}; last value {value!r}")
        time.sleep(every)

"""Whom to kill before the kernel does, when the memory of our control group is nearly used up.

The kernel may choose the master, and in a container it may take all of it down. One job that
runs again, or fails after its third time, is the lesser evil.
"""

from collections.abc import Mapping

FULL = 0.95  # of the limit
WATCHFUL = 0.8  # of the limit, from which on it is looked at more often
SHARE = 0.1  # of the limit: who has grown by less is not to blame


def most_to_blame(*, limit: int, used: int, growth: Mapping[int, int]) -> int | None:
    """Return whose memory has grown most, if it is time for somebody to go. All in bytes."""
    if used < FULL * limit or not growth:
        return None
    largest = max(growth, key=lambda seat: growth[seat])
    return largest if growth[largest] >= SHARE * limit else None

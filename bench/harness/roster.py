"""The roster: everybody who can compete, by name."""

from collections.abc import Sequence

from bench.harness.contestant import Contestant
from bench.harness.foreign_peers import FOREIGN_PEERS
from bench.harness.ours import LIMITS, OURS
from bench.harness.python_peers import PYTHON_PEERS

EVERYBODY: tuple[Contestant, ...] = (*OURS, *PYTHON_PEERS, *FOREIGN_PEERS, *LIMITS)


def names() -> Sequence[str]:
    """Return everybody's name."""
    return [each.name for each in EVERYBODY]


def named(name: str) -> Contestant:
    """Return a contestant; exit with the names there are if there is none of that name."""
    for each in EVERYBODY:
        if each.name == name:
            return each
    raise SystemExit(f"unknown contestant {name!r}; there are {', '.join(names())}")

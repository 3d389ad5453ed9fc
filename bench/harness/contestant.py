"""Contestant: who competes, as commands. What it is called, how it is started and fed."""

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from bench.harness.processes import ROOT

PEERS = ROOT / "bench" / ".peers"
Command = list[str]

_VERSIONS = """
import importlib.metadata, json, sys
print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))
"""


class Group(StrEnum):
    """Whom a contestant is compared with."""

    OURS = "forkresque"
    PYTHON = "Python peer"
    OTHER = "peer in another language"
    LIMIT = "limit"  # no product: a bare loop that tells what the machine allows


@dataclass(frozen=True, slots=True)
class Contestant:
    """One product in one setting.

    `start` returns the commands that make so many workers: one, if the product has a command for
    many, else one for each; "{url}" in a word becomes the server's URL. `produce` is the start of
    a command that takes the four words of `bench.peers.producing`. `kinds` is the start of one
    that takes `calibrate` or `alone LOOPS COUNT`, as `bench.peers.kinds` does, in the contestant's
    language. The environment of all of them is `environment` with BENCH_REDIS and REDIS_URL (the
    server's URL, with a database), BENCH_DIR (where records go), and BENCH_LOOPS and BENCH_HEAVY
    if a question sets them.
    """

    name: str
    group: Group
    setting: str  # what a reader must know of it: "process workers, no results, hiredis"
    start: Callable[[int], list[Command]]
    produce: Command
    kinds: Command
    pace: float  # jobs a second with one worker, roughly: sizes the runs
    bulk: bool = False  # whether it has a call for many jobs
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: Path | None = None  # a file that is there when the peer is installed
    versions: Callable[[], Mapping[str, str]] = dict

    @property
    def is_installed(self) -> bool:
        """Return whether `bench/setup.sh` has put it there."""
        return self.needs is None or self.needs.exists()

    def jobs(self, seconds: float, workers: int) -> int:
        """Return how many no-op jobs so many workers do in about so many seconds."""
        return max(100, round(self.pace * seconds * min(workers, 2)))


def installed(python: Path, *names: str) -> Callable[[], dict[str, str]]:
    """Return what tells the versions of some distributions in another Python's environment."""

    def look() -> dict[str, str]:
        found: dict[str, str] = json.loads(
            subprocess.check_output([str(python), "-c", _VERSIONS, *names], text=True)
        )
        return found

    return look

"""Births in one go: what each child has for itself, and what it must not have."""

import subprocess
import sys

# Each child ends with the number of pairs and dumps that it has; the parent tells these, and how
# many page faults it had at most from one fork to the next.
SCRIPT = """
import os
import resource
from pathlib import Path

from forkresque.scoreboard import Scoreboard
from forkresque.supervisor.child import Cradle, spawn_all

fork, faults = os.fork, []

def counted():
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    return fork()

def count(inherited):
    names = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sum(name.startswith(("socket:", "/memfd:forkresque-dump")) for name in names)

os.fork = counted
cradles = [Cradle.make(seat, count, death_signal=15) for seat in Scoreboard(4).seats]
children = spawn_all(cradles, let_go=lambda: None)
statuses = [os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) for child in children]
print(max(after - before for before, after in zip(faults, faults[1:])), *statuses)
"""


def told() -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=30,
    )
    return [*map(int, done.stdout.split())]


def test_children_born_in_one_go_have_only_their_own_descriptors() -> None:
    _, *descriptors = told()

    assert descriptors == [2, 2, 2, 2]


def test_a_parent_writes_hardly_anything_between_two_forks() -> None:
    """Each page that it does write, the children before have for themselves. It was 300."""
    faults, *_ = told()

    assert faults < 100

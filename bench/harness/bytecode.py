"""Bytecode of our own modules, which an installation has and a fresh checkout has not.

pip compiles what it installs, so every peer has it. Where PYTHONDONTWRITEBYTECODE is set, as in
many containers, a checkout never gets it, and each start compiles all of forkresque anew: half of
what it takes to import.
"""

import compileall
from collections.abc import Sequence
from pathlib import Path

from bench.harness.processes import ROOT

OURS = (ROOT / "forkresque", ROOT / "bench" / "peers")


def complete(folders: Sequence[Path] = OURS) -> None:
    """Compile what is not compiled, or older than its source."""
    for folder in folders:
        compileall.compile_dir(folder, quiet=1)

"""Programs that single tests need beside Python, installed by apt where they are missing.

A test that wants one and cannot get it fails: what was not tested must not look tested.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

INSTALL_TIMEOUT = 200.0


@cache
def program(name: str, package: str) -> str:
    """Return the path of a program, after installing `package` if need be."""
    return _needed(lambda: shutil.which(name), name, package)


@cache
def library(pattern: str, package: str) -> str:
    """Return the path of a shared library below /usr/lib, likewise."""
    return _needed(
        lambda: next((str(path) for path in sorted(Path("/usr/lib").glob(pattern))), None),
        pattern,
        package,
    )


def _needed(look: Callable[[], str | None], what: str, package: str) -> str:
    found = look()
    if found is None:
        with (Path(tempfile.gettempdir()) / "forkresque-tests-apt.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _install(package)
        found = look()
    if found is None:
        raise AssertionError(f"{what} is missing: install it (Debian: apt-get install {package})")
    return found


def _install(package: str) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    for words in (["update"], ["install", "-y", "--no-install-recommends", package]):
        subprocess.run(
            ["apt-get", "-qq", *words],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=INSTALL_TIMEOUT,
            check=False,
        )

"""`forkresque start` under strace, and what each of its processes asks of the kernel."""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import Start
from tests.support.tools import program
from tests.support.waiting import wait_until

_CALL = re.compile(r"^(\w+)\(", re.MULTILINE)
_SAME = {"fstat": "newfstatat", "epoll_pwait": "epoll_wait"}  # with other C libraries
_OPENED = re.compile(r'^open(?:at)?\((?:AT_FDCWD, )?"([^"]+)"', re.MULTILINE)
_A_SCRIPT_IS_CALLED = re.compile(r"^(?=\w+\(.*EVALSHA)", re.MULTILINE)


def strace() -> str:
    """Return the path of strace; fail where it may not trace."""
    path = program("strace", "strace")
    tried = subprocess.run(
        [path, "-qq", "-e", "trace=none", "true"], capture_output=True, text=True, check=False
    )
    assert tried.returncode == 0, (
        "strace may not trace here: allow ptrace (a container needs --cap-add SYS_PTRACE, a host "
        f"kernel.yama.ptrace_scope below 2)\n{tried.stderr}"
    )
    return path


class Traced:
    """A master and its children, each with a file of what it asks; strace is nobody's parent."""

    def __init__(self, directory: Path, *args: str, url: str) -> None:
        self._directory = directory
        inside = [strace(), "-D", "-ff", "-qq", "-o", str(directory / "trace")]
        self.master = Start(*args, url=url, inside=inside)

    def length(self, pid: int) -> int:
        """Return how much was written about a process so far."""
        return self._file(pid).stat().st_size

    def calls(self, pid: int, since: int = 0) -> str:
        """Return what a process asked after the first so many bytes of its file, one a line."""
        with self._file(pid).open(errors="replace") as file:
            file.seek(since)
            return file.read()

    def _file(self, pid: int) -> Path:
        return self._directory / f"trace.{pid}"


@contextmanager
def traced(*args: str, url: str) -> Iterator[Traced]:
    """Run a master and all its children under strace."""
    with tempfile.TemporaryDirectory(prefix="forkresque-traces-") as directory:
        run = Traced(Path(directory), *args, url=url)
        try:
            yield run
        finally:
            run.master.stop()
            wait_until(lambda: not run.master.left(), "strace to end")
            print(run.master.log())
            run.master.remove()


def counted(calls: str) -> Counter[str]:
    """Return how often each call is in a trace."""
    return Counter(_SAME.get(name, name) for name in _CALL.findall(calls))


def opened(calls: str) -> set[str]:
    """Return the files that were opened."""
    return set(_OPENED.findall(calls))


def jobs(calls: str) -> list[Counter[str]]:
    """Return what was asked for each job, where a script is called once a job."""
    _, *between = _A_SCRIPT_IS_CALLED.split(calls)
    return [counted(part) for part in between]

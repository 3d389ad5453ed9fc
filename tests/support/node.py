"""The real node-resque, installed once and run by the scripts in `tests/interop/node`.

Without node, npm or the registry a test that wants it fails: interop that was not tested
must not look tested.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

SCRIPTS = Path(__file__).parents[1] / "interop" / "node"
INSTALL_TIMEOUT = 200.0
STOP_TIMEOUT = 10.0


def node_modules() -> Path:
    """Return the folder with node-resque, installing it into the user's cache if need be."""
    package = SCRIPTS / "package.json"
    digest = hashlib.sha256(package.read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forkresque-tests"
    installed = cache / f"node-{digest}"
    if not installed.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / "node.lock"):
            if not installed.exists():
                _install(package, installed)
    return installed / "node_modules"


def run_node(
    script: str,
    *args: object,
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, with its stdin open; fail unless it ends with 0 in time."""
    with NodeProcess(script, *args, env=env) as process:
        code = process.wait(timeout)
        if check and code != 0:
            raise AssertionError(f"{script} ended with {code}:\n{process.errors()}")
        return subprocess.CompletedProcess(
            process.command, code, process.output(), process.errors()
        )


class NodeProcess:
    """A script that runs until `stop`, which closes its stdin, waits, and then kills it.

    When `piped`, what it prints is left for whoever reads `process.stdout`.
    """

    def __init__(
        self,
        script: str,
        *args: object,
        env: Mapping[str, str] | None = None,
        piped: bool = False,
    ) -> None:
        self.command = [_program("node"), str(SCRIPTS / script), *(str(arg) for arg in args)]
        modules = node_modules()
        self._directory = Path(tempfile.mkdtemp(prefix="forkresque-node-"))
        with self._file("out").open("wb") as out, self._file("err").open("wb") as err:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, "NODE_PATH": str(modules), **(env or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if piped else out,
                stderr=err,
            )

    @property
    def pid(self) -> int:
        """Its pid, which is part of the names of its workers."""
        return self.process.pid

    def output(self) -> str:
        """Return what it has printed so far."""
        return self._file("out").read_text(errors="replace")

    def errors(self) -> str:
        """Return what it has written to stderr so far."""
        return self._file("err").read_text(errors="replace")

    def wait(self, timeout: float = 60.0) -> int:
        """Return the exit code when it ends by itself; fail after `timeout`."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.command[1:]} still runs after {timeout} s\n{self.output()}{self.errors()}"
            ) from None

    def stop(self) -> int:
        """Close its stdin and return its exit code; kill it if that does not end it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return self.process.wait()

    def kill(self) -> None:
        """Kill it at once, and collect its status."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if error is not None:
            print(f"-- {self.command[1:]}\n{self.output()}{self.errors()}")
        shutil.rmtree(self._directory, ignore_errors=True)

    def _file(self, name: str) -> Path:
        return self._directory / name


def _install(package: Path, target: Path) -> None:
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix="node-new-"))
    try:
        shutil.copy(package, work)
        command = [_program("npm"), "install", "--no-audit", "--no-fund", "--no-package-lock"]
        done = subprocess.run(
            command,
            cwd=work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT,
            check=False,
        )
        if done.returncode != 0:
            raise AssertionError(f"npm install failed:\n{done.stdout}{done.stderr}")
        work.rename(target)  # at once: an install that was cut short is never taken for one
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise AssertionError(
            f"{name} is not on PATH. These tests run the real node-resque: install Node.js 18 "
            "or newer with npm, or leave tests/interop out."
        )
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

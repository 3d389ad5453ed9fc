"""A container as far as a test needs one: the start of an image under the same conditions.

The master is PID 1 of a PID namespace, its root file system is read-only, it is nobody special
and has no right left. What it may write is one directory, as an emptyDir or a tmpfs would be.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.support.processes import Start
from tests.support.tools import program
from tests.support.waiting import wait_until

_PREPARE = """
set -e
mount --make-rprivate /
mount -o remount,bind,ro /
mount -t tmpfs -o mode=0777 tmpfs "$XDG_RUNTIME_DIR"
exec "$@"
"""


class Container(Start):
    """One start of an image, as `user`."""

    def __init__(self, *args: str, user: int, url: str, env: dict[str, str]) -> None:
        self._user = user
        unshare = program("unshare", "util-linux")
        inside = [unshare, "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--"]
        inside += ["/bin/sh", "-c", _PREPARE, "prepare"]
        inside += [unshare, "--user", f"--map-user={user}", f"--map-group={user}", "--"]
        super().__init__(*args, url=url, env=env, inside=inside)
        self._master = wait_until(psutil.Process(self.process.pid).children, "a master")[0]

    @property
    def pid(self) -> int:
        """The master's pid, as it is outside."""
        return self._master.pid

    def send_signal(self, signum: signal.Signals) -> None:
        """Send a signal to the master, as an engine does: from outside."""
        os.kill(self.pid, signum)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the image in the container, as `docker exec` and probes do."""
        enter = [program("nsenter", "util-linux"), f"--target={self.pid}"]
        enter += ["--user", "--pid", "--mount", f"--setuid={self._user}", f"--setgid={self._user}"]
        return subprocess.run(
            [*enter, "--", *command],
            env={
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "XDG_RUNTIME_DIR": str(self.runtime_directory),
            },
            capture_output=True,
            text=True,
            timeout=15,
            check=False,
        )

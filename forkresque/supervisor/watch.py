"""A child that looks at files, and tells the master when one of the application has changed.

For development: it needs the package `watchfiles`.
"""

import importlib.util
import signal
from pathlib import Path

from forkresque.errors import ConfigError, ExitCode
from forkresque.supervisor.child import Inheritance
from forkresque.supervisor.messages import Changed, Ready, send
from forkresque.supervisor.titles import set_title

_SUFFIXES = (".py", ".toml")


def check_installed() -> None:
    """Raise ConfigError where files cannot be watched."""
    if importlib.util.find_spec("watchfiles") is None:
        raise ConfigError(
            "--reload needs the package watchfiles", hint='pip install "forkresque[reload]"'
        )


def watch(inherited: Inheritance) -> int:
    """Tell of each change below the working directory until the master has us leave."""
    from watchfiles import Change, watch

    for signum in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_DFL)
    set_title("watcher")
    inherited.listen()
    send(inherited.pair, Ready())

    def counts(_change: Change, path: str) -> bool:
        return path.endswith(_SUFFIXES)

    for changes in watch(Path.cwd(), watch_filter=counts, raise_interrupt=False):
        send(inherited.pair, Changed(min(path for _, path in changes)))
    return ExitCode.OK

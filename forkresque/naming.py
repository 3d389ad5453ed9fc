"""Names of workers, `host:pid`: such that every Resque can read them, and no two that live agree.

Ruby Resque's list of workers breaks on an id of two parts, and its workers remove those of their
own host whose pid no process has.
"""

import os
import threading
from collections.abc import Iterator
from itertools import count
from weakref import WeakValueDictionary

from forkresque.errors import ConfigError


class Names:
    """The names of the workers of one process."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._holders: WeakValueDictionary[str, object] = WeakValueDictionary()

    def take(self, name: str, holder: object, *, host: str) -> str:
        """Return the host part of `name`, which is the holder's from now on, while that lives.

        Without a name it is `host`, and for the second worker of a process `host_2`, which
        no host is called. Raises ConfigError.
        """
        with self._guard:
            if not name:
                host = next(h for h in _numbered(host) if _named(h) not in self._holders)
            else:
                host = _checked(name)
                if name in self._holders:
                    raise ConfigError(
                        f"another worker of this process is called {name!r}",
                        hint=f"call this one {_named(host + '_2')!r}, or end the other one",
                    )
            self._holders[_named(host)] = holder
        return host

    def free(self, name: str) -> None:
        """Let another worker have the name."""
        with self._guard:
            self._holders.pop(name, None)


def _numbered(host: str) -> Iterator[str]:
    yield host
    yield from (f"{host}_{number}" for number in count(2))


def _named(host: str) -> str:
    return f"{host}:{os.getpid()}"


def _checked(name: str) -> str:
    """Return the host part of a worker's name. Raises ConfigError for one that would do harm."""
    host, colon, pid = str(name).partition(":")
    label = host or "host"
    hint = f"call it {_named(label)!r}; what tells two workers apart belongs in front"
    if not host or not colon or ":" in pid or not name.isprintable() or " " in name:
        raise ConfigError(f"a worker's name must be host:pid, got {name!r}", hint=hint)
    if pid != str(os.getpid()):
        raise ConfigError(
            f"a worker's name must end with the pid of its process, {os.getpid()}, got {name!r}",
            hint=hint,
        )
    return host

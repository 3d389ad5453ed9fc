"""Connection: where the jobs are, which is a Redis and a namespace in it."""

from collections.abc import Mapping, Sequence
from typing import Any

from forkresque.protocol.connection import SOCKET_TIMEOUT, Client, Link, Target
from forkresque.protocol.keys import Keys

DEFAULT_URL = "redis://localhost:6379/0"


class Connection:
    """A Redis and a namespace: a name, or names that are joined by colons.

    `timeout` is in seconds, for connecting and for each answer. Nothing is connected before the
    first question. Raises ConfigError for an address that cannot be used.
    """

    scan_count: int = 1000  # keys that Redis looks at in one step of a search

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str | Sequence[str] = "resque",
        timeout: float = SOCKET_TIMEOUT,
    ) -> None:
        self.target = Target(url or DEFAULT_URL, timeout=timeout)
        self.keys = Keys(namespace)

    @classmethod
    def of(cls, given: "Connectable") -> "Connection":
        """Return the connection that is given, as such, as a URL or as keywords."""
        if isinstance(given, Connection):
            return given
        return cls(given) if isinstance(given, str) else cls(**given)

    def client(self) -> Client:
        """Return what any number of threads may ask, before and after a fork."""
        return self.target.client()

    def link(self, *, tracking: bool = False) -> Link:
        """Return one connection for one thread."""
        return self.target.link(tracking=tracking)


Connectable = Connection | str | Mapping[str, Any]

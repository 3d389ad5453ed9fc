"""A Redis Cluster: which of its nodes owns the slot that all keys of a namespace are in.

A node that is asked for a key of another's slot says whose it is. So every connect asks for a key
of ours: the node that owned it last, or else those that are known by address. Whoever closes a
connection, after MOVED or after a silence, and opens it again finds the owner of now.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    MovedError,
    ReadOnlyError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as CannotConnect
from redis.exceptions import TimeoutError as TookTooLong

from forkresque.protocol.keys import to_text

# What a node answers that is not, or not all, or not yet the owner: nothing was done. ASK and
# TRYAGAIN come while a slot moves, for a script always: most of what it touches does not exist.
# MovedError is an AskError; MasterDownError is a ClusterDownError.
ELSEWHERE = (AskError, TryAgainError, ClusterDownError, ReadOnlyError)
MORE_ATTEMPTS = 3  # than there are known nodes, for those that MOVED names
_REFUSALS = (AuthenticationError, AuthorizationError)  # which redis-py counts as ConnectionErrors
_PASSED_OVER = (CannotConnect, TookTooLong, ClusterDownError, ReadOnlyError, OSError)

Place = tuple[str, int]


class Nodes:
    """The nodes of one Cluster that are known, and which one owned `home`, a key of ours, last."""

    def __init__(self, places: Sequence[Place], home: bytes) -> None:
        self.known = list(places)
        self.home = home
        self._owner: Place | None = None

    @property
    def first(self) -> Place:
        """Whom to ask first."""
        return self._owner or self.known[0]

    @property
    def attempts(self) -> int:
        """How many to ask before giving up for now."""
        return len(self.known) + MORE_ATTEMPTS

    def trust(self, place: Place) -> None:
        """Take note of the owner."""
        self._owner = place

    def distrust(self, place: Place) -> None:
        """Ask another one first next time."""
        if self._owner == place:
            self._owner = None
        known = self.known  # two threads may be here at once
        if known[0] == place:
            self.known = [*known[1:], place]


class OwnerConnection(redis.Connection):
    """A connection to whatever node owns our slot at the moment it is opened."""

    def __init__(self, *, nodes: Nodes, **settings: Any) -> None:
        super().__init__(**settings)  # type: ignore[no-untyped-call]
        self._nodes = nodes

    def connect_check_health(self, *given: Any, **named: Any) -> None:
        """Find the owner, connect and shake hands, unless that is done."""
        troubles: list[str] = []
        for _ in range(self._nodes.attempts):
            if self.is_connected:
                return
            place = self.host, self.port = self._nodes.first
            try:
                super().connect_check_health(*given, **named)
                self._ask_for_home()
                self._nodes.trust(place)
            except MovedError as moved:
                self._nodes.trust((moved.host or self.host, moved.port))
            except _REFUSALS:
                raise
            except _PASSED_OVER as error:
                self._nodes.distrust(place)
                troubles.append(f"{place[0]}:{place[1]}: {error}")
        told = "; ".join(dict.fromkeys(troubles)) or "each names another one"
        raise CannotConnect(f"no node owns the slot of {to_text(self._nodes.home)}: {told}")

    def _ask_for_home(self) -> None:
        """Ask for a key of ours. Raises MovedError if it is not here, and closes the connection."""
        try:
            self.send_command("EXISTS", self._nodes.home, check_health=False)  # type: ignore[no-untyped-call]
            self.read_response()
        except BaseException as error:
            if type(error) is AskError:  # the slot is about to move: until it has, it is here
                return
            self.disconnect()  # type: ignore[no-untyped-call]
            raise


class OwnerTlsConnection(OwnerConnection, redis.SSLConnection):
    """The same over TLS."""


def settings(places: Sequence[Place], home: bytes, tls: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a pool needs besides for the owner of `home`, a key. Raises ValueError."""
    if not places:
        raise ValueError("a Cluster needs at least one node")
    kind = OwnerConnection if tls is None else OwnerTlsConnection
    return {"connection_class": kind, "nodes": Nodes(places, home), **(tls or {})}

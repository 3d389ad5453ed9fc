"""Redis behind Sentinel: which of several servers is the primary now.

Every connect asks the sentinels anew. So whoever closes a connection, after READONLY or after a
silence, and opens it again finds the server that was promoted meanwhile.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import to_bool
from redis.exceptions import ConnectionError as CannotConnect
from redis.exceptions import ReadOnlyError, RedisError
from redis.retry import Retry

DEFAULT_PORT = 26379
LOOKUP_TIMEOUT = 1.0  # for each sentinel: the next one knows as much
_PRIMARY = (b"master", b"primary")

Place = tuple[str, int]


class Sentinels:
    """The sentinels that watch one primary, by the name they know it by."""

    def __init__(
        self,
        places: Sequence[Place],
        name: str,
        *,
        kind: type[redis.Connection] = redis.Connection,
        **settings: Any,
    ) -> None:
        self.places = list(places)
        self.name = name
        self._kind = kind
        self._settings: dict[str, Any] = {
            "socket_timeout": LOOKUP_TIMEOUT,
            "socket_connect_timeout": LOOKUP_TIMEOUT,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "driver_info": None,
            **settings,
        }

    def primary(self) -> tuple[str, int]:
        """Return the primary's host and port. Asks the one first that answered last."""
        troubles = []
        for place in self.places:
            try:
                found = self._ask(*place)
            except (RedisError, OSError) as error:
                troubles.append(f"{place[0]}:{place[1]}: {error}")
                continue
            if found:
                self.places = [place, *(other for other in self.places if other != place)]
                return found[0].decode(), int(found[1])
            troubles.append(f"{place[0]}:{place[1]} knows no {self.name}")
        raise CannotConnect(f"no sentinel says where {self.name} is: {'; '.join(troubles)}")

    def distrust(self) -> None:
        """Ask another one first next time: a sentinel can be behind, for a minute and more."""
        places = self.places  # two threads may be here at once
        self.places = [*places[1:], *places[:1]]

    def _ask(self, host: str, port: int) -> list[bytes] | None:
        connection: Any = self._kind(host=host, port=port, **self._settings)
        try:
            connection.connect()
            # Unlike SENTINEL MASTERS, it tells of the new one as soon as that is promoted.
            connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
            answer: list[bytes] | None = connection.read_response()
            return answer
        finally:
            connection.disconnect()


class PrimaryConnection(redis.Connection):
    """A connection to whatever is the primary at the moment it is opened."""

    def __init__(self, *, sentinels: Sentinels, **settings: Any) -> None:
        super().__init__(**settings)  # type: ignore[no-untyped-call]
        self._sentinels = sentinels

    def connect_check_health(self, *given: Any, **named: Any) -> None:
        """Connect and shake hands, unless that is done."""
        try:
            super().connect_check_health(*given, **named)
        except (RedisError, OSError):
            self._sentinels.distrust()
            raise

    def _connect(self) -> Any:
        self.host, self.port = self._sentinels.primary()
        return super()._connect()  # type: ignore[no-untyped-call]

    def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - redis-py's
        """Shake hands. Raises ReadOnlyError if the sentinels are behind and this is a replica."""
        super().on_connect_check_health(check_health)
        metadata: Any = self.handshake_metadata
        role: bytes = metadata[b"role"]
        if role not in _PRIMARY:
            raise ReadOnlyError(f"{self.host}:{self.port} says that it is a {role.decode()}")


class PrimaryTlsConnection(PrimaryConnection, redis.SSLConnection):
    """The same over TLS."""


def settings(
    places: Sequence[Place], own: Mapping[str, Any], tls: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return what a pool needs besides for the primary behind these sentinels.

    `own` are the sentinels' options: `sentinel_name` is how they call the primary,
    `sentinel_username` and `sentinel_password` are for themselves, and `sentinel_ssl` says whether
    they speak TLS, if not as the servers do. Raises ValueError.
    """
    if not places or not own.get("sentinel_name"):
        raise ValueError("sentinels need at least one place and the primary's sentinel_name")
    login: dict[str, Any] = {name: own.get(f"sentinel_{name}") for name in ("username", "password")}
    guarded: Any = own.get("sentinel_ssl", tls is not None)
    if to_bool(guarded):  # type: ignore[no-untyped-call]
        sentinels = Sentinels(
            places, own["sentinel_name"], kind=redis.SSLConnection, **{**login, **(tls or {})}
        )
    else:
        sentinels = Sentinels(places, own["sentinel_name"], **login)
    kind = PrimaryConnection if tls is None else PrimaryTlsConnection
    return {"connection_class": kind, "sentinels": sentinels, **(tls or {})}

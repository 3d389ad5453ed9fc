"""Redis behind Sentinel: which of several servers is the primary now.

Every connect asks the sentinels anew. So whoever closes a connection, after READONLY or after a
silence, and opens it again finds the server that was promoted meanwhile.
"""

from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import ConnectionError as CannotConnect
from redis.exceptions import ReadOnlyError, RedisError
from redis.retry import Retry

SCHEME = "sentinel://"
DEFAULT_PORT = 26379
LOOKUP_TIMEOUT = 1.0  # for each sentinel: the next one knows as much
_PRIMARY = (b"master", b"primary")


class Sentinels:
    """The sentinels that watch one primary, by the name they know it by."""

    def __init__(self, places: list[tuple[str, int]], name: str, **settings: Any) -> None:
        self.places = places
        self.name = name
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
        self.places = [*self.places[1:], *self.places[:1]]

    def _ask(self, host: str, port: int) -> list[bytes] | None:
        connection: Any = redis.Connection(host, port, **self._settings)  # type: ignore[no-untyped-call]
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


def settings_of(url: str) -> dict[str, Any]:
    """Return what a pool needs for `sentinel://[user:password@]host[:port],…/name[/db]`.

    The name and password in front are the servers'; the sentinels' own are the parameters
    `sentinel_username` and `sentinel_password`. Raises ValueError for any other shape.
    """
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    name, _, db = parts.path.strip("/").partition("/")
    if not name or not (db or "0").isdigit():
        raise ValueError("it must end in the primary's name, or in /name/db")
    places = [_place(host) for host in hosts.split(",")]
    settings: dict[str, Any] = parse_url(  # type: ignore[no-untyped-call]
        f"redis://{login}{at}primary/{db}?{parts.query}"
    )
    own = {key: settings.pop(f"sentinel_{key}", None) for key in ("username", "password")}
    sentinels = Sentinels(places, unquote(name), **own)
    return settings | {"connection_class": PrimaryConnection, "sentinels": sentinels}


def _place(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a sentinel has no host name")
    return parts.hostname, parts.port or DEFAULT_PORT

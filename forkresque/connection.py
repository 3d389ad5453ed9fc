"""Connection: where the jobs are, which is a Redis and a namespace in it.

What node-resque's `connection` can say, by the same names, and what redis-py's clients can.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from copy import copy
from enum import StrEnum
from typing import Any

from forkresque.errors import ConfigError
from forkresque.protocol.address import OPTIONS, SENTINEL_OPTIONS, WHERE, Address
from forkresque.protocol.connection import SOCKET_TIMEOUT, Client, Link, Target
from forkresque.protocol.keys import Keys, to_bytes, to_text
from forkresque.protocol.locks import scan
from forkresque.protocol.store import check_server

DEFAULT_URL = "redis://localhost:6379/0"
SCAN_COUNT = 1000

_OWN = ("url", "database", "port", "redis", "namespace", "scan_count", "timeout", "failure_backend")
KNOWN = frozenset({*_OWN, *WHERE, *OPTIONS, *SENTINEL_OPTIONS}) - {"db"}

PLACING = frozenset({*WHERE, "port", "redis"})  # without a URL, what says where Redis is


class FailureBackend(StrEnum):
    """Where failed jobs are recorded, by the names that Ruby's FAILURE_BACKEND has."""

    REDIS = "redis"  # one list for all
    REDIS_MULTI_QUEUE = "redis_multi_queue"  # one list for each queue


class Connection:
    """A Redis and a namespace: a name, or names that are joined by colons; blank ones vanish.

    Redis is given as a `url`; or as `host` and `port`; or as the `path` of a Unix socket; or as
    `sentinels`, places `(host, port)`, with the primary's `sentinel_name`; or as the `cluster`,
    places of some of its nodes; or as `redis`, a client of redis-py: then connections of our own go
    where that client's go, and those it has are left alone. `options` are redis-py's: `ssl`,
    `ssl_ca_certs`, `client_name` and so on; they can stand beside a URL, and in it. `timeout` is in
    seconds, for connecting and for each answer. `scan_count` is how many keys Redis looks at in one
    step. `failure_backend` is "redis" for one list of failed jobs, or "redis_multi_queue" for one
    for each queue, as in Ruby. Nothing is connected before the first question, and what is
    connected is not shared with a child that is forked later. Raises ConfigError for what cannot
    be used.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        host: str | None = None,
        port: int | None = None,
        username: str | None = None,
        password: str | None = None,
        database: int | None = None,
        namespace: str | Sequence[str] = "resque",
        redis: object = None,
        scan_count: int = SCAN_COUNT,
        timeout: float = SOCKET_TIMEOUT,
        failure_backend: str = FailureBackend.REDIS,
        **options: Any,
    ) -> None:
        given = {"host": host, "port": _number("port", port, 1), "username": username}
        given |= {"password": password, "db": _number("database", database, 0), **options}
        given = {name: value for name, value in given.items() if value is not None}
        _refuse_unknown(given)
        self.keys = Keys(_checked(namespace), failed_by_queue=_has_many_lists(failure_backend))
        self.scan_count = _number("scan_count", scan_count, 1) or SCAN_COUNT
        if not 0 < timeout < math.inf:
            raise ConfigError(f"timeout must be a number of seconds above 0, got {timeout!r}")
        self.target = Target(_address(url, redis, given, self.keys), timeout=timeout)
        self._scanner: Client | None = None

    @classmethod
    def of(cls, given: "Connectable") -> "Connection":
        """Return the connection that is given: as such, as a URL, as keywords or as a client.

        Keywords may be in node-resque's spelling, with ioredis' options within. Raises ConfigError.
        """
        if isinstance(given, Connection):
            return given
        if isinstance(given, str):
            return cls(given)
        if isinstance(given, Mapping):
            return cls(**_spelt(given))
        if given is None:
            raise ConfigError(
                "a connection must say where Redis is, got None",
                hint="give a URL, keywords or a client; is a variable not set?",
            )
        return cls(redis=given)

    def within(self, timeout: float) -> "Connection":
        """Return the same Redis and namespace with another patience, in seconds."""
        other = copy(self)
        vars(other).update(target=self.target.within(timeout), _scanner=None)
        return other

    @property
    def place(self) -> str:
        """Return where Redis is, as a URL without passwords."""
        return self.target.address.place

    def prepare(self) -> None:
        """Make what the first link of each process forked from now on needs."""
        self.target.prepare()

    def client(self) -> Client:
        """Return what any number of threads may ask, before and after a fork."""
        return self.target.client()

    def link(self, *, tracking: bool = False) -> Link:
        """Return one connection for one thread."""
        return self.target.link(tracking=tracking)

    def key(self, *parts: str | None) -> str:
        """Return the namespace and these parts, joined by colons; blank ones vanish."""
        named = (str(part) for part in parts if part is not None)
        return ":".join(part for part in (self.keys.namespace, *named) if part.strip())

    def get_keys(self, match: str, count: int | None = None) -> list[str]:
        """Return the keys that match a pattern of SCAN, each once, in no order.

        The pattern begins with the namespace, as `key` gives it, in which nothing is special.
        `count` is how many keys Redis looks at in one step. Raises RedisUnavailable, RedisRefused.
        """
        namespace = self.keys.namespace
        inside = match.removeprefix(namespace)
        escaped = re.sub(r"([*?\[\]\\])", r"\\\1", namespace) if inside != match else ""
        found = self._scan(to_bytes(escaped + inside), count or self.scan_count)
        return list(dict.fromkeys(map(to_text, found)))

    def connect(self) -> None:
        """Reach Redis now, and refuse one on which jobs would get lost.

        Nobody has to: the first question connects. Raises RedisUnavailable and RedisRefused.
        """
        with closing(self.client()) as client:
            check_server(client, self.keys.namespace)

    def end(self) -> None:
        """Close what this object has connected itself; the next question connects again."""
        if self._scanner is not None:
            self._scanner.close()

    def _scan(self, pattern: bytes, count: int) -> Iterator[bytes]:
        self._scanner = self._scanner or self.client()
        return scan(self._scanner, self.keys, pattern, count)

    def __repr__(self) -> str:
        return f"<Connection {self.place} namespace {self.keys.namespace!r}>"


Connectable = Connection | str | Mapping[str, Any] | object


def _address(url: str | None, client: object, given: dict[str, Any], keys: Keys) -> Address:
    if client is not None:
        if url is not None or given:
            beside = ["url"] * (url is not None) + sorted(map(_ours, given))
            raise ConfigError(
                f"redis is a client, which says where Redis is; {', '.join(beside)} says it too",
                hint="give one of them",
            )
        return Address.of_client(client, keys)
    if url is not None and not isinstance(url, str):
        raise ConfigError(f"a URL must be a string, got {type(url).__qualname__}")
    if not (given.keys() & {*WHERE, "port"}):
        return Address.of_url(url or DEFAULT_URL, keys, given)
    if url is not None:
        where = sorted(given.keys() & {*WHERE, "port"})
        raise ConfigError(
            f"Redis is given twice: by its URL and by {', '.join(where)}", hint="give one of them"
        )
    return Address.of(given, keys)


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    if unknown := sorted(set(map(_ours, given)) - KNOWN):
        raise ConfigError(
            f"a Connection has no option {', '.join(map(repr, unknown))}",
            hint=f"there are {', '.join(sorted(KNOWN))}",
        )


def _ours(name: str) -> str:
    return "database" if name == "db" else name


def _number(name: str, given: object, least: int) -> int | None:
    if given is None:
        return None
    if isinstance(given, str) and given.isdecimal():
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, int) or given < least:
        raise ConfigError(f"{name} must be a number, {least} or more, got {given!r}")
    return given


def _has_many_lists(backend: str) -> bool:
    try:
        return FailureBackend(backend) is FailureBackend.REDIS_MULTI_QUEUE
    except ValueError:
        raise ConfigError(
            f"failure_backend must be redis or redis_multi_queue, got {backend!r}"
        ) from None


def _checked(namespace: object) -> str | list[str]:
    if isinstance(namespace, str):
        return namespace
    if not isinstance(namespace, Sequence) or not all(isinstance(one, str) for one in namespace):
        raise ConfigError(f"a namespace must be a string or a list of strings, got {namespace!r}")
    return list(namespace)


# -- node-resque's spelling ----------------------------------------------------------------------

_IOREDIS = {
    "scanCount": "scan_count",
    "failureBackend": "failure_backend",
    "db": "database",
    "name": "sentinel_name",
    "sentinelUsername": "sentinel_username",
    "sentinelPassword": "sentinel_password",
    "connectionName": "client_name",
}
_WITHOUT_MEANING = ("pkg", "looping")  # which JavaScript module; what node-resque never reads


def _spelt(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return keywords in our spelling; what ioredis is told stands within `options`."""
    flat = {name: value for name, value in given.items() if name not in _WITHOUT_MEANING}
    for name, value in (flat.pop("options", None) or {}).items():
        if flat.setdefault(name, value) != value:
            raise ConfigError(f"{name} is given twice, once within options")
    found: dict[str, Any] = {}
    for name, value in flat.items():
        ours = _IOREDIS.get(name, name)
        if found.setdefault(ours, value) != value:
            raise ConfigError(f"{ours} is given twice, once as {name}")
    if "tls" in found:
        found |= _tls(found.pop("tls"))
    return found


def _tls(given: Mapping[str, Any] | None) -> dict[str, Any]:
    if given is None:
        return {}
    if unknown := sorted(given.keys() - {"ca", "rejectUnauthorized"}):
        raise ConfigError(
            f"tls has {', '.join(unknown)}, which Python takes otherwise",
            hint="use ssl_ca_certs, ssl_certfile and ssl_keyfile, which name files",
        )
    found: dict[str, Any] = {"ssl": True, "ssl_ca_data": given.get("ca")}
    if given.get("rejectUnauthorized") is False:
        found |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    return found

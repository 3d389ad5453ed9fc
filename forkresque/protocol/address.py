"""Where Redis is: a URL, keywords or a client of redis-py, as what a connection of ours needs.

All three are read into the same keywords, so whatever one can say the others can. Nothing here
connects; of a client only the settings are read, and its own connections are left alone.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.connection import parse_url, to_bool
from redis.crc import key_slot
from redis.exceptions import RedisError
from redis.sentinel import SentinelConnectionPool

from forkresque.errors import ConfigError
from forkresque.protocol import cluster, sentinel
from forkresque.protocol.keys import Keys

Place = tuple[str, int]

DEFAULT_HOST, DEFAULT_PORT = "localhost", 6379
# Each says where Redis is, so there can be but one of them.
WHERE = ("host", "path", "sentinels", "cluster")
SEVERAL = {"sentinels": sentinel.DEFAULT_PORT, "cluster": DEFAULT_PORT}
LOGIN = frozenset({"username", "password", "credential_provider"})
OPTIONS = LOGIN | {
    *("db", "client_name", "socket_type", "ssl"),
    *("ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile"),
    *("ssl_check_hostname", "ssl_ciphers", "ssl_exclude_verify_flags", "ssl_include_verify_flags"),
    *("ssl_keyfile", "ssl_min_version", "ssl_password"),
}
SENTINEL_OPTIONS = frozenset(
    {"sentinel_name", "sentinel_username", "sentinel_password", "sentinel_ssl"}
)
_HINT = (
    "use redis://host:port/db, rediss://…, unix:///path, embedded://, "
    "sentinel://host:port,host:port/name or cluster://host:port,host:port"
)


def masked(url: str) -> str:
    """Return `url` without any password, for messages."""
    # Up to the last @: one may be within.
    url = re.sub(r"(?s)^([^:/?#]*://[^:@/?#]*:).*@", r"\1***@", url)
    return re.sub(r"(?s)([?&][^=&#]*password=)[^&#]*", r"\1***", url)


@dataclass(frozen=True, slots=True)
class Address:
    """Which Redis. `place` says it in messages; `settings` are a redis-py connection's.

    `slot` is the slot of a Cluster that all keys of the namespace are in, else None.
    """

    place: str
    settings: Mapping[str, Any] = field(repr=False)
    slot: int | None = None

    @classmethod
    def of(cls, keywords: Mapping[str, Any], keys: Keys | None = None) -> "Address":
        """Return the address that keywords give: one of WHERE, and OPTIONS. Raises ConfigError."""
        with refusing("that is given"):
            keywords = dict(keywords)
            for name, port in SEVERAL.items():
                if keywords.get(name) is not None:
                    keywords[name] = [_as_place(one, port) for one in _listed(keywords[name])]
            place = _shown(keywords)
        with refusing(place):
            return cls(place, _settings(keywords, keys), _slot(keywords, keys))

    @classmethod
    def of_url(
        cls, url: str, keys: Keys | None = None, more: Mapping[str, Any] | None = None
    ) -> "Address":
        """Return the address that a URL and further OPTIONS give. Raises ConfigError."""
        with refusing(masked(url)):
            keywords = _of_url(url)
            if twice := keywords.keys() & (more or {}).keys():
                raise ValueError(f"{', '.join(sorted(twice))} is given beside it as well")
            keywords |= more or {}
            return cls(masked(url), _settings(keywords, keys), _slot(keywords, keys))

    @classmethod
    def of_client(cls, client: object, keys: Keys | None = None) -> "Address":
        """Return the address that a client of redis-py has. Raises ConfigError."""
        if isinstance(client, redis.RedisCluster):
            return cls.of(_of_cluster(client), keys)
        if isinstance(client, redis.Redis):
            return cls.of(_of_pool(client.connection_pool), keys)
        kind = f"{type(client).__module__}.{type(client).__qualname__}"
        raise ConfigError(
            f"redis must be a redis.Redis or a redis.RedisCluster, got {kind}",
            hint="give its URL, or host and port, instead",
        )


@contextmanager
def refusing(place: str) -> Iterator[None]:
    """Turn what redis-py and Python say of a bad address into a ConfigError that names `place`."""
    try:
        yield
    except (ValueError, TypeError, RedisError) as error:
        raise ConfigError(
            f"the Redis address {place} cannot be used: {error}", hint=_HINT
        ) from error


# -- from a URL --------------------------------------------------------------------------------


def _of_url(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    _refuse_broken_login(url)
    if parts.scheme == "sentinel":
        name, _, db = parts.path.strip("/").partition("/")
        if not name or not (db or "0").isdigit():
            raise ValueError("it must end in the primary's name, or in /name/db")
        places = _places(parts.netloc, sentinel.DEFAULT_PORT)
        return _beside(url, db) | {"sentinels": places, "sentinel_name": unquote(name)}
    if parts.scheme == "cluster":
        db = parts.path.strip("/")
        if not (db or "0").isdigit():
            raise ValueError("it must end in the last node, or in /db")
        return _beside(url, db) | {"cluster": _places(parts.netloc, DEFAULT_PORT)}
    return _plain(parse_url(url))  # type: ignore[no-untyped-call]


def _refuse_broken_login(url: str) -> None:
    """Refuse a password that ends the host part: it would be taken for a port, and be shown."""
    parts = urlsplit(url)
    if parts.scheme == "unix" or "@" in parts.netloc:
        return
    _, colon, port = parts.netloc.rpartition(":")
    if "@" in parts.path or ("@" in url and colon and not port.isdigit()):
        raise ValueError("in what stands before the @ write / as %2F, ? as %3F and # as %23")


def _beside(url: str, db: str) -> dict[str, Any]:
    """Return what a URL with several places says besides them."""
    parts = urlsplit(url)
    login, at, _ = parts.netloc.rpartition("@")
    found: dict[str, Any] = parse_url(f"redis://{login}{at}/{db}?{parts.query}")  # type: ignore[no-untyped-call]
    return found


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what redis-py makes of a URL, in our keywords."""
    kind = settings.pop("connection_class", redis.Connection)
    if kind is redis.UnixDomainSocketConnection:
        return {"path": "", **settings}
    if kind is redis.SSLConnection:
        settings["ssl"] = True
    return {"host": DEFAULT_HOST, **settings}


def _places(netloc: str, default_port: int) -> list[Place]:
    return [_place(host, default_port) for host in _listed(netloc.rpartition("@")[2])]


def _listed(given: Any) -> list[Any]:
    return given.split(",") if isinstance(given, str) else list(given)


def _as_place(given: Any, default_port: int) -> Place:
    """Return a place that is given as text, as a pair, or in ioredis' way as a mapping."""
    if isinstance(given, str):
        return _place(given, default_port)
    if isinstance(given, Mapping):
        given = (given.get("host", DEFAULT_HOST), given.get("port", default_port))
    if len(given) == 2 and isinstance(given[0], str) and str(given[1]).isdecimal():
        return given[0], int(given[1])
    raise ValueError(f"{given!r} is no pair of a host and a port")


def _place(text: str, default_port: int) -> Place:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(f"{text!r} has no host name")
    return parts.hostname, parts.port or default_port


# -- from a client -----------------------------------------------------------------------------


def _of_pool(pool: Any) -> dict[str, Any]:
    given: dict[str, Any] = pool.connection_kwargs
    keywords = _kept(given)
    kind: type = pool.connection_class
    if issubclass(kind, redis.SSLConnection):
        keywords["ssl"] = True
    if isinstance(pool, SentinelConnectionPool):
        return keywords | _of_sentinel(pool)
    if issubclass(kind, redis.UnixDomainSocketConnection):
        return keywords | {"path": given.get("path", "")}
    host, port = given.get("host", DEFAULT_HOST), given.get("port", DEFAULT_PORT)
    return keywords | {"host": host, "port": port}


def _of_sentinel(pool: Any) -> dict[str, Any]:
    if not pool.is_master:
        raise ConfigError(
            f"the client for {pool.service_name} reads from replicas",
            hint="give the one of Sentinel.master_for",
        )
    pools = [client.connection_pool for client in pool.sentinel_manager.sentinels]
    own: dict[str, Any] = pools[0].connection_kwargs
    keywords = {f"sentinel_{name}": own.get(name) for name in ("username", "password")}
    return keywords | {
        "sentinels": [
            (one.connection_kwargs["host"], int(one.connection_kwargs["port"])) for one in pools
        ],
        "sentinel_name": pool.service_name,
        "sentinel_ssl": issubclass(pools[0].connection_class, redis.SSLConnection),
    }


def _of_cluster(client: Any) -> dict[str, Any]:
    given: dict[str, Any] = client.nodes_manager.connection_kwargs
    keywords = _kept(given)
    if issubclass(given.get("connection_class", redis.Connection), redis.SSLConnection):
        keywords["ssl"] = True
    nodes = client.get_nodes()
    return keywords | {"cluster": [(node.host, int(node.port)) for node in nodes]}


def _kept(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a client's settings: not its patience, nor how it reads answers."""
    return {name: given[name] for name in OPTIONS if given.get(name) is not None}


# -- what a connection needs -------------------------------------------------------------------


def _settings(keywords: Mapping[str, Any], keys: Keys | None) -> dict[str, Any]:
    """Return redis-py's settings of a connection."""
    given = {name: value for name, value in keywords.items() if value is not None}
    if len(where := [name for name in WHERE if name in given]) > 1:
        raise ValueError(f"{' and '.join(where)} are different places")
    own = {name: given.pop(name) for name in SENTINEL_OPTIONS & given.keys()}
    tls = _tls(given)
    if "sentinels" in given:
        return sentinel.settings(given.pop("sentinels"), own, tls) | given
    if own:
        raise ValueError(f"{', '.join(sorted(own))} is of no use without sentinels")
    if "cluster" in given:
        home = keys.queues() if keys else b""
        return cluster.settings(given.pop("cluster"), home, tls) | given
    return _of_one_server(given, tls)


def _of_one_server(given: dict[str, Any], tls: dict[str, Any] | None) -> dict[str, Any]:
    if "path" in given:
        if tls is not None:
            raise ValueError("a Unix socket has no TLS")
        return {"connection_class": redis.UnixDomainSocketConnection, **given}
    kind = redis.Connection if tls is None else redis.SSLConnection
    return {"connection_class": kind, **given, **(tls or {})}


def _tls(given: dict[str, Any]) -> dict[str, Any] | None:
    """Take the settings of TLS from what was given, and return them; None is without TLS."""
    wanted = to_bool(given.pop("ssl", None))  # type: ignore[no-untyped-call]
    tls = {name: given.pop(name) for name in list(given) if name.startswith("ssl_")}
    if tls and wanted is False:
        raise ValueError(f"{', '.join(sorted(tls))} is of no use without TLS")
    return tls if tls or wanted else None


def _slot(keywords: Mapping[str, Any], keys: Keys | None) -> int | None:
    if keywords.get("cluster") is None:
        return None
    if keys is None:
        raise ValueError("a Redis Cluster needs a namespace")
    if not keys.hash_tag:
        raise ValueError(
            f"the keys of a namespace must live on one node of a Redis Cluster, and "
            f"{keys.namespace!r} has no hash tag: use one such as {{resque}}"
        )
    return key_slot(keys.queues())


def _shown(keywords: Mapping[str, Any]) -> str:
    """Return the URL that says where the keywords point, without any password."""
    user = f"{keywords['username']}@" if keywords.get("username") else ""
    db = f"/{keywords['db']}" if keywords.get("db") else ""
    if keywords.get("sentinels") is not None:
        name = keywords.get("sentinel_name") or ""
        return f"sentinel://{user}{_joined(keywords['sentinels'])}/{name}{db}"
    if keywords.get("cluster") is not None:
        return f"cluster://{user}{_joined(keywords['cluster'])}{db}"
    if keywords.get("path") is not None:
        return f"unix://{user}{keywords['path']}{db and f'?db={db[1:]}'}"
    scheme = (
        "rediss" if any(name.startswith("ssl") and keywords[name] for name in keywords) else "redis"
    )
    place = (keywords.get("host") or DEFAULT_HOST, keywords.get("port") or DEFAULT_PORT)
    return f"{scheme}://{user}{_joined([place])}{db}"


def _joined(places: Sequence[Any]) -> str:
    return ",".join(
        f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}" for host, port in places
    )

"""Where Redis is can be said by a URL, by keywords and by a client, and comes to the same."""

from contextlib import closing
from typing import Any

import pytest
import redis
from redis import sentinel
from redis.asyncio import Redis as AsyncRedis

from forkresque import ConfigError, Connection
from forkresque.connection import KNOWN
from forkresque.protocol.cluster import Nodes, OwnerConnection, OwnerTlsConnection
from forkresque.protocol.connection import Target
from forkresque.protocol.direct import direct
from forkresque.protocol.keys import Keys
from forkresque.protocol.sentinel import PrimaryConnection, PrimaryTlsConnection, Sentinels

SECRETS = ("s3cret", "guard3d", "k3y")
TAGGED = {"namespace": "{resque}"}
Watch: Any = sentinel.Sentinel  # which redis-py leaves without types
PLACES = [("one", 1), ("two", 2)]


def said(connection: Connection) -> dict[str, Any]:
    """Return what tells two connections apart: what redis-py is told besides its own defaults."""
    found = {"host": "localhost", "db": 0} | dict(connection.target.address.settings)
    for name, value in list(found.items()):
        if isinstance(value, Sentinels):
            own = {k: v for k, v in value._settings.items() if k != "retry"}
            found[name] = (value.places, value.name, value._kind, own)
        if isinstance(value, Nodes):
            found[name] = (value.known, value.home)
    return found


# -- the same by URL and by keywords -------------------------------------------------------------

SAME: dict[str, tuple[str, dict[str, Any]]] = {
    "a host": ("redis://cache", {"host": "cache"}),
    "a port alone": ("redis://localhost:1234", {"port": 1234}),
    "a database": ("redis://cache:1/4", {"host": "cache", "port": 1, "database": 4}),
    "a login": (
        "redis://user:s3cret@cache/1",
        {"host": "cache", "username": "user", "password": "s3cret", "database": 1},
    ),
    "a password": ("redis://:s3cret@cache", {"host": "cache", "password": "s3cret"}),
    "IPv6": ("redis://[::1]:1", {"host": "::1", "port": 1}),
    "a socket": ("unix:///run/redis.sock?db=2", {"path": "/run/redis.sock", "database": 2}),
    "TLS": ("rediss://cache:1", {"host": "cache", "port": 1, "ssl": True}),
    "trust": (
        "rediss://cache?ssl_ca_certs=/ca&ssl_cert_reqs=optional",
        {"host": "cache", "ssl_ca_certs": "/ca", "ssl_cert_reqs": "optional"},
    ),
    "a certificate of one's own": (
        "rediss://cache?ssl_certfile=/crt&ssl_keyfile=/key&ssl_password=k3y",
        {"host": "cache", "ssl_certfile": "/crt", "ssl_keyfile": "/key", "ssl_password": "k3y"},
    ),
    "a name": ("redis://cache?client_name=us", {"host": "cache", "client_name": "us"}),
    "sentinels": (
        "sentinel://user:s3cret@one:1,two:2/jobs/3?sentinel_username=w&sentinel_password=guard3d",
        {
            "sentinels": PLACES,
            "sentinel_name": "jobs",
            "database": 3,
            "username": "user",
            "password": "s3cret",
            "sentinel_username": "w",
            "sentinel_password": "guard3d",
        },
    ),
    "sentinels at the usual port": (
        "sentinel://one,two/jobs",
        {"sentinels": "one,two", "sentinel_name": "jobs"},
    ),
    "sentinels over TLS": (
        "sentinel://one:1,two:2/jobs?ssl=true&ssl_ca_certs=/ca",
        {"sentinels": PLACES, "sentinel_name": "jobs", "ssl_ca_certs": "/ca"},
    ),
    "sentinels without TLS before servers with it": (
        "sentinel://one:1,two:2/jobs?ssl=yes&sentinel_ssl=no",
        {"sentinels": PLACES, "sentinel_name": "jobs", "ssl": True, "sentinel_ssl": False},
    ),
    "a cluster": (
        "cluster://user:s3cret@one:1,two:2",
        {"cluster": PLACES, "username": "user", "password": "s3cret", **TAGGED},
    ),
    "a cluster at the usual port": ("cluster://one,two", {"cluster": ["one", "two"], **TAGGED}),
    "a cluster over TLS": (
        "cluster://one:1,two:2?ssl=true",
        {"cluster": PLACES, "ssl": True, **TAGGED},
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_a_url_and_keywords_say_the_same(case: str) -> None:
    url, keywords = SAME[case]
    by_url = Connection(url, namespace=keywords.get("namespace", "resque"))

    assert said(by_url) == said(Connection(**keywords))


@pytest.mark.parametrize("case", SAME)
def test_what_is_said_of_it_holds_no_secret(case: str) -> None:
    url, keywords = SAME[case]
    by_url = Connection(url, namespace=keywords.get("namespace", "resque"))

    for one in (by_url, Connection(**keywords)):
        shown = f"{one!r} {one.place} {one.target.address!r}"
        assert not [secret for secret in SECRETS if secret in shown]


@pytest.mark.parametrize("case", SAME)
def test_the_place_that_keywords_have_is_a_url(case: str) -> None:
    keywords = SAME[case][1]
    place = Connection(**keywords).place
    again = Connection(place, namespace=keywords.get("namespace", "resque"))

    assert again.target.pool().connection_class.__name__.replace("Tls", "") in (
        Connection(**keywords).target.pool().connection_class.__name__.replace("Tls", "")
    )
    assert again.place == place


def test_a_login_can_stand_beside_the_url() -> None:
    apart = Connection("redis://cache", username="user", password="s3cret", ssl_ca_certs="/ca")

    assert said(apart) == said(Connection("rediss://user:s3cret@cache?ssl_ca_certs=/ca"))
    assert apart.place == "redis://cache"


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://h", redis.Connection),
        ("rediss://h", redis.SSLConnection),
        ("unix:///s", redis.UnixDomainSocketConnection),
        ("sentinel://h/n", PrimaryConnection),
        ("sentinel://h/n?ssl=true", PrimaryTlsConnection),
        ("cluster://h", OwnerConnection),
        ("cluster://h?ssl=true", OwnerTlsConnection),
    ],
)
def test_a_scheme_has_its_kind_of_connection(url: str, kind: type) -> None:
    assert Connection(url, namespace="{resque}").target.pool().connection_class is direct(kind)


def test_nothing_is_asked_twice_by_redis_py() -> None:
    for url in ("redis://h", "cluster://h"):
        settings = Connection(url, namespace="{resque}").target.pool().connection_kwargs
        assert settings["retry"].get_retries() == 0


# -- a client ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "url"),
    [
        (redis.Redis("cache", 1, 2), "redis://cache:1/2"),
        (redis.Redis(host="cache", username="u", password="s3cret"), "redis://u:s3cret@cache:6379"),
        (redis.Redis(unix_socket_path="/run/r", db=3), "unix:///run/r?db=3"),
        (redis.Redis.from_url("redis://cache:1?client_name=us"), "redis://cache:1?client_name=us"),
        (
            redis.Redis("cache", ssl=True, ssl_ca_certs="/ca"),
            "rediss://cache:6379?ssl_ca_certs=/ca&ssl_cert_reqs=required&ssl_check_hostname=True",
        ),
        (
            Watch(PLACES, sentinel_kwargs={"password": "guard3d"}, password="s3cret").master_for(
                "jobs", db=1
            ),
            "sentinel://:s3cret@one:1,two:2/jobs/1?sentinel_password=guard3d&sentinel_ssl=no",
        ),
    ],
)  # fmt: skip
def test_the_settings_of_a_client_are_used(client: Any, url: str) -> None:
    with closing(client):
        ours, its = said(Connection(url)), said(Connection(redis=client))

    assert its == ours


def test_neither_the_patience_nor_the_encoding_of_a_client_is_used() -> None:
    with closing(redis.Redis("cache", socket_timeout=None, decode_responses=True)) as client:
        settings = Connection(redis=client).target.pool().connection_kwargs

    assert settings["socket_timeout"] == 5.0
    assert "decode_responses" not in settings


def test_a_client_of_replicas_is_refused() -> None:
    with (
        closing(Watch(PLACES).slave_for("jobs")) as client,
        pytest.raises(ConfigError, match="reads from replicas") as refused,
    ):
        Connection(redis=client)

    assert "master_for" in refused.value.hint


@pytest.mark.parametrize("what", [AsyncRedis(host="cache"), object(), 7])
def test_what_is_no_client_is_refused(what: object) -> None:
    with pytest.raises(ConfigError, match=r"must be a redis\.Redis or a redis\.RedisCluster, got"):
        Connection(redis=what)


def test_a_client_and_an_address_contradict_each_other() -> None:
    with closing(redis.Redis("cache")) as client:
        for beside in ({"url": "redis://h"}, {"host": "h"}, {"database": 1}):
            with pytest.raises(ConfigError, match=f"{next(iter(beside))} says it too"):
                Connection(redis=client, **beside)


# -- what cannot be used -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "why"),
    [
        ({"url": "redis://h", "host": "h"}, "given twice: by its URL and by host"),
        ({"url": "redis://h", "port": 1}, "given twice: by its URL and by port"),
        ({"url": "redis://:s3cret@h", "password": "guard3d"}, "password is given beside it"),
        ({"url": 7}, "a URL must be a string, got int"),
        ({"host": "h", "path": "/p"}, "host and path are different places"),
        ({"host": "h", "sentinels": PLACES}, "host and sentinels are different places"),
        ({"sentinels": PLACES}, "sentinel_name"),
        ({"sentinels": [], "sentinel_name": "n"}, "at least one"),
        ({"sentinels": [("h",)], "sentinel_name": "n"}, "no pair of a host and a port"),
        ({"host": "h", "sentinel_name": "n"}, "sentinel_name is of no use without sentinels"),
        ({"cluster": [], **TAGGED}, "at least one node"),
        ({"cluster": PLACES}, "'resque' has no hash tag"),
        ({"cluster": PLACES, "namespace": ["{}", "{app}"]}, "has no hash tag"),
        ({"host": "h", "ssl": False, "ssl_ca_certs": "/ca"}, "ssl_ca_certs is of no use"),
        ({"path": "/p", "ssl": True}, "a Unix socket has no TLS"),
        ({"host": "h", "ssl_cert_reqs": "perhaps"}, "perhaps"),
        ({"host": "h", "port": 0}, "port must be a number, 1 or more, got 0"),
        ({"host": "h", "port": "http"}, "port must be a number, 1 or more, got 'http'"),
        ({"host": "h", "database": -1}, "database must be a number, 0 or more, got -1"),
        ({"scan_count": 0}, "scan_count must be a number, 1 or more, got 0"),
        ({"timeout": 0}, "timeout must be a number of seconds above 0, got 0"),
        ({"namespace": 7}, "a namespace must be a string or a list of strings, got 7"),
        ({"namespace": [None]}, "a list of strings"),
        ({"pasword": "s3cret"}, "no option 'pasword'"),
        ({"url": "cluster://one:1/two", **TAGGED}, "/db"),
        ({"url": "cluster://", **TAGGED}, "no host name"),
        ({"url": "redis://user:s3cr/et@h"}, "%2F"),
        ({"url": "redis://user:s3cr?et@h"}, "%3F"),
        ({"url": "sentinel://user:12/et@h/name"}, "%2F"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(keywords: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why) as refused:
        Connection(**keywords)

    told = f"{refused.value} {refused.value.hint}"
    assert refused.value.hint or "must be" in told
    assert not [secret for secret in (*SECRETS, "s3cr", "12/et") if secret in told]


def test_an_unknown_option_is_told_what_there_is() -> None:
    with pytest.raises(ConfigError) as refused:
        Connection(sentinel="h")

    assert set(refused.value.hint.removeprefix("there are ").split(", ")) == KNOWN
    assert "database" in KNOWN
    assert "ssl_ca_certs" in KNOWN


def test_an_unknown_parameter_of_a_url_is_refused() -> None:
    with pytest.raises(ConfigError, match="typo"):
        Connection("cluster://h?typo=1", namespace="{resque}")


def test_a_cluster_needs_to_know_the_namespace() -> None:
    with pytest.raises(ConfigError, match="needs a namespace"):
        Target("cluster://h")


# -- whatever Connection.of takes ----------------------------------------------------------------


def test_a_connection_is_itself() -> None:
    connection = Connection("redis://h")

    assert Connection.of(connection) is connection


def test_another_patience_leaves_all_else() -> None:
    connection = Connection(host="cache", namespace=["a", "b"], scan_count=7)

    other = connection.within(1.5)

    assert (other.target.timeout, connection.target.timeout) == (1.5, 5.0)
    assert said(other) == said(connection)
    assert (other.keys.namespace, other.scan_count) == ("a:b", 7)


def test_nodes_spelling_is_understood() -> None:
    nodes = {
        "pkg": "ioredis",
        "host": "cache",
        "port": "1",
        "database": 2,
        "scanCount": 10,
        "namespace": ["a", "", "b"],
        "looping": True,
        "options": {"password": "s3cret", "tls": {"rejectUnauthorized": False, "ca": "PEM"}},
    }
    ours = Connection(
        host="cache",
        port=1,
        database=2,
        scan_count=10,
        password="s3cret",
        namespace="a:b",
        ssl_cert_reqs="none",
        ssl_check_hostname=False,
        ssl_ca_data="PEM",
    )

    found = Connection.of(nodes)

    assert said(found) == said(ours)
    assert (found.keys.namespace, found.scan_count) == ("a:b", 10)


def test_the_sentinels_of_ioredis_are_understood() -> None:
    given = {"sentinels": [{"host": "one", "port": 1}, {"host": "two"}], "name": "jobs"}

    found = Connection.of({"options": given | {"sentinelPassword": "guard3d", "db": 1}})

    url = "sentinel://one:1,two/jobs/1?sentinel_password=guard3d"
    assert said(found) == said(Connection(url))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"host": "h", "options": {"host": "g"}}, "host is given twice"),
        ({"scanCount": 1, "scan_count": 2}, "scan_count is given twice"),
        ({"options": {"keyPrefix": "x"}}, "no option 'keyPrefix'"),
        ({"options": {"tls": {"cert": "PEM"}}}, "tls has cert"),
    ],
)
def test_what_node_says_that_has_no_meaning_here_is_refused(
    given: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        Connection.of(given)


# -- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("namespace", "key"),
    [
        ("resque", "resque:thing:1"),
        ("custom", "custom:thing:1"),
        (["custom", "namespace"], "custom:namespace:thing:1"),
        (["", "custom", " "], "custom:thing:1"),
        ("", "thing:1"),
        (" ", "thing:1"),
        ([], "thing:1"),
    ],
)
def test_a_key_has_the_namespace_in_front(namespace: str | list[str], key: str) -> None:
    connection = Connection(namespace=namespace)

    assert connection.key("thing", "1") == key
    assert connection.key("", "thing", None, " ", "1") == key


@pytest.mark.parametrize(
    ("namespace", "tag"),
    [
        ("resque", ""),
        ("{resque}", "resque"),
        (["{app}", "resque"], "app"),
        ("a:{b}:{c}", "b"),
        ("a{{b}c", "{b"),
        ("{}{b}", ""),
        ("{b", ""),
        ("}b{", ""),
        ("", ""),
    ],
)
def test_the_hash_tag_is_what_redis_takes_for_it(namespace: str | list[str], tag: str) -> None:
    assert Keys(namespace).hash_tag == tag

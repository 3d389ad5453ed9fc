"""A sentinel:// URL says whom to ask for the primary, and shows its passwords to nobody."""

import socket
from contextlib import closing
from typing import Any

import pytest
from redis.exceptions import ConnectionError as CannotConnect

from forkresque.errors import ConfigError
from forkresque.protocol.address import masked
from forkresque.protocol.connection import Target
from forkresque.protocol.direct import direct
from forkresque.protocol.sentinel import PrimaryConnection, Sentinels

SECRETS = ("s3cret", "guard3d")
FULL = (
    "sentinel://user:s3cret@one:1,two,[::1]:3/my%20master/4"
    "?sentinel_username=watch&sentinel_password=guard3d&client_name=us"
)


def settings_of(url: str) -> dict[str, Any]:
    pool = Target(url).pool()
    assert pool.connection_class is direct(PrimaryConnection)
    return dict(pool.connection_kwargs)


def test_a_short_url_has_defaults() -> None:
    settings = settings_of("sentinel://host/mymaster")

    assert settings["sentinels"].places == [("host", 26379)]
    assert settings["sentinels"].name == "mymaster"
    assert not settings.keys() & {"username", "password"}
    assert settings.get("db", 0) == 0


def test_a_full_url_says_all() -> None:
    settings = settings_of(FULL)

    sentinels: Sentinels = settings["sentinels"]
    assert sentinels.places == [("one", 1), ("two", 26379), ("::1", 3)]
    assert sentinels.name == "my master"
    assert (sentinels._settings["username"], sentinels._settings["password"]) == (
        "watch",
        "guard3d",
    )
    assert (settings["username"], settings["password"]) == ("user", "s3cret")
    assert (settings["db"], settings["client_name"]) == (4, "us")


def test_nothing_is_asked_twice_by_redis_py() -> None:
    settings = settings_of(FULL)

    assert settings["retry"].get_retries() == 0
    assert settings["sentinels"]._settings["retry"].get_retries() == 0


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sentinel://host:1", "primary's name"),
        ("sentinel://host:1/", "primary's name"),
        ("sentinel://host:1/name/zero", "/name/db"),
        ("sentinel://host:1/name/0/1", "/name/db"),
        ("sentinel:///name", "no host name"),
        ("sentinel://host:1,/name", "no host name"),
        ("sentinel://host:port/name", "[Pp]ort"),
        ("sentinel://host:99999/name", "[Pp]ort"),
        ("sentinel://user:s3cret@host/name?typo=1", "typo"),
    ],
)
def test_a_bad_url_is_refused(url: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as refused:
        Target(url)

    assert "sentinel://host:port,host:port/name" in refused.value.hint
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            FULL,
            "sentinel://user:***@one:1,two,[::1]:3/my%20master/4"
            "?sentinel_username=watch&sentinel_password=***&client_name=us",
        ),
        ("redis://:s3cret@host:1/0", "redis://:***@host:1/0"),
        ("redis://host/0?password=s3cret&db=1", "redis://host/0?password=***&db=1"),
        ("rediss://u:s3cret@[::1]:1?ssl_password=guard3d", "rediss://u:***@[::1]:1?ssl_password=***"),
        ("redis://u:s3c/ret@s3cret@host", "redis://u:***@host"),
        ("sentinel://one:1,two:2/name/4", "sentinel://one:1,two:2/name/4"),
        ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
    ],
)  # fmt: skip
def test_a_url_is_shown_without_its_passwords(url: str, shown: str) -> None:
    assert masked(url) == shown
    assert not any(secret in masked(url) for secret in SECRETS)


def test_an_unreachable_sentinel_is_named() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]  # nobody listens there once it is closed

    with pytest.raises(CannotConnect, match=f"no sentinel says where mymaster is: .*:{port}"):
        Sentinels([("127.0.0.1", port)], "mymaster").primary()

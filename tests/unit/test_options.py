"""Options: flag beats environment beats default, and all mistakes come in one message."""

from dataclasses import fields

import pytest

from forkresque.errors import ConfigError
from forkresque.options import (
    ClientOptions,
    InterfaceOptions,
    SupervisorOptions,
    chosen,
    duration,
    flag,
    resolve,
    variable,
)

KINDS = [ClientOptions, InterfaceOptions, SupervisorOptions]


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_hold_where_nothing_is_said(kind: type) -> None:
    assert resolve(kind, given={}, environ={}) == kind()


def test_what_is_given_beats_the_environment_and_that_beats_the_default() -> None:
    environ = {"FORKRESQUE_SHUTDOWN_TIMEOUT": "7", "FORKRESQUE_BOOT_TIMEOUT": "8"}

    options = resolve(
        SupervisorOptions,
        given={"shutdown_timeout": 5, "boot_timeout": None},
        environ=environ,
    )

    assert options.shutdown_timeout == 5
    assert options.boot_timeout == 8
    assert options.interval == SupervisorOptions().interval


def test_the_variables_of_other_tools_serve_when_ours_is_not_set() -> None:
    both = {"REDIS_URL": "redis://theirs", "FORKRESQUE_REDIS_URL": "redis://ours"}
    theirs = {"REDIS_URL": "redis://theirs", "FORKRESQUE_REDIS_URL": ""}

    assert resolve(ClientOptions, given={}, environ=both).redis == "redis://ours"
    assert resolve(ClientOptions, given={}, environ=theirs).redis == "redis://theirs"


def test_chosen_is_what_was_meant_for_us() -> None:
    environ = {"REDIS_URL": "redis://theirs"}

    assert chosen("redis", given={}, environ=environ) is None
    assert chosen("redis", given={"redis": "redis://flag"}, environ=environ) == "redis://flag"
    assert chosen("redis", given={}, environ={"FORKRESQUE_REDIS_URL": "x"}) == "x"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("queues", "high, low,,!x", ("high", "low", "!x")),
        ("concurrency", "4", 4),
        ("concurrency", "auto", "auto"),
        ("preload", "no", False),
        ("preload", "ON", True),
        ("shutdown_timeout", "1.5m", 90.0),
        ("shutdown_timeout", "0", 0.0),
    ],
)
def test_texts_are_parsed(name: str, text: str, value: object) -> None:
    given = resolve(SupervisorOptions, given={name: text}, environ={})
    from_environment = resolve(SupervisorOptions, given={}, environ={variable(name): text})

    assert getattr(given, name) == getattr(from_environment, name) == value


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("concurrency", "0", "concurrency must be at least 1, got 0"),
        ("concurrency", "501", "concurrency must be at most 500, got 501"),
        ("concurrency", "many", "concurrency must be N|auto, got 'many'"),
        ("shutdown_timeout", "-1", "shutdown_timeout must be at least 0, got -1.0"),
        ("shutdown_timeout", "nan", "shutdown_timeout must be SECONDS, got 'nan'"),
        ("shutdown_timeout", "inf", "shutdown_timeout must be SECONDS, got 'inf'"),
        ("interval", "soon", "interval must be SECONDS, got 'soon'"),
        ("queues", " , ", "queues must name at least one queue, got none"),
        ("queues", "a,!", "queues must not hold an empty name, got '!'"),
        ("host_label", "a:b", "host_label must not hold a colon, got 'a:b'"),
    ],
)
def test_a_mistake_is_named_with_its_value(name: str, text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(SupervisorOptions, given={name: text}, environ={})

    assert str(caught.value) == reason


def test_all_mistakes_are_in_one_message_and_name_their_source() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(
            SupervisorOptions,
            given={"concurrency": "0", "interval": "soon"},
            environ={"FORKRESQUE_PRELOAD": "perhaps"},
        )

    assert str(caught.value).split("; ") == [
        "concurrency must be at least 1, got 0",
        "interval must be SECONDS, got 'soon'",
        "FORKRESQUE_PRELOAD must be yes|no, got 'perhaps'",
    ]


@pytest.mark.parametrize(
    ("name", "text"), [("log_level", "loud"), ("log_level", ""), ("log_format", "xml")]
)
def test_a_word_that_is_not_offered_is_refused(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be "):
        resolve(InterfaceOptions, given={name: text}, environ={})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 10.0), ("1.5s", 1.5), ("500ms", 0.5), ("10m", 600.0), ("2h", 7200.0)],
)
def test_durations_have_units(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "1d2", "nan", "inf", "1e999", "ten"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - Python's own message for a number
        duration(text)


def test_flags_variables_and_short_flags_are_unique_on_one_command_line() -> None:
    names = [each for kind in KINDS for each in fields(kind)]
    shorts = [each.metadata["short"] for each in names if each.metadata["short"]]

    assert flag("shutdown_timeout") == "--shutdown-timeout"
    assert variable("redis") == "FORKRESQUE_REDIS_URL"
    assert len({flag(each.name) for each in names}) == len(names)
    assert len({variable(each.name) for each in names}) == len(names)
    assert len(set(shorts)) == len(shorts)

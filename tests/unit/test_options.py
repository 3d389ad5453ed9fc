"""Options: flag beats environment beats default, and all mistakes come in one message."""

from dataclasses import fields

import pytest

from forkresque.configuration import chosen, resolve
from forkresque.errors import ConfigError
from forkresque.options import (
    ClientOptions,
    InterfaceOptions,
    PoolSpec,
    Size,
    SupervisorOptions,
    duration,
    flag,
    size,
    variable,
)
from forkresque.order import Order

_HIGH = PoolSpec(("high", "mail"), 2, 8)
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
        ("queues", "{a,b}*,c", ("{a,b}*", "c")),
        ("order", "round-robin", Order.parse("round_robin")),
        ("order", "high=6,low*=2", Order.of({"high": 6, "low*": 2})),
        ("concurrency", "4", Size(4, 4)),
        ("concurrency", "2:8", Size(2, 8)),
        ("concurrency", "auto", Size(None, None)),
        ("concurrency", "auto:8", Size(None, 8)),
        ("concurrency", "2:auto", Size(2, None)),
        ("min", "3", 3),
        ("pools", "high,mail=2:8 low=1", (_HIGH, PoolSpec(("low",), 1, 1))),
        ("max_memory", "200M", 200 * 2**20),
        ("max_memory", "1.5g", 3 * 2**29),
        ("max_memory", "65536", 65536),
        ("reload", "yes", True),
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
        ("concurrency", "many", "concurrency must be N|MIN:MAX|auto, got 'many'"),
        ("concurrency", "1:2:3", "concurrency must be N|MIN:MAX|auto, got '1:2:3'"),
        ("concurrency", "2:", "concurrency must be N|MIN:MAX|auto, got '2:'"),
        ("concurrency", "0:4", "concurrency must be at least 1, got 0:4"),
        ("concurrency", "1:501", "concurrency must be at most 500, got 1:501"),
        ("concurrency", "8:2", "concurrency must not have a MIN above its MAX, got 8:2"),
        ("max", "501", "max must be at most 500, got 501"),
        ("min", "-1", "min must be at least 0, got -1"),
        ("min", "few", "min must be N, got 'few'"),
        ("pools", "high", "pools must be QUEUES=N|MIN:MAX, got 'high'"),
        ("pools", "high=0 low=2", "pools must be at least 1, got 0 in 'high=0'"),
        ("pools", "high=auto", "pools must have numbers, got 'high=auto'"),
        ("pools", "=2", "pools must name at least one queue, got none in '=2'"),
        ("pools", "!=2", "pools must not hold an empty name, got '!' in '!=2'"),
        ("pools", "a=2 b=1 a=3", "pools must differ in their queues, got a 2 times"),
        ("pools", "a=300 b=1:201", "pools must have at most 500 workers together, got 501"),
        ("max_memory", "lots", "max_memory must be SIZE, got 'lots'"),
        ("max_memory", "-1", "max_memory must be SIZE, got '-1'"),
        ("shutdown_timeout", "-1", "shutdown_timeout must be at least 0, got -1.0"),
        ("shutdown_timeout", "nan", "shutdown_timeout must be SECONDS, got 'nan'"),
        ("shutdown_timeout", "inf", "shutdown_timeout must be SECONDS, got 'inf'"),
        ("interval", "soon", "interval must be SECONDS, got 'soon'"),
        ("queues", " , ", "queues must name at least one queue, got none"),
        ("order", "high", "order must be strict|round_robin|QUEUE=WEIGHT,.., got 'high'"),
        ("order", "a=0", "order must be strict|round_robin|QUEUE=WEIGHT,.., got 'a=0'"),
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


# -- pools ---------------------------------------------------------------------------------


def pools_of(
    given: dict[str, object], environ: dict[str, str] | None = None, *, cores: int = 4
) -> list[str]:
    options = resolve(SupervisorOptions, given=given, environ=environ or {})
    return [f"{spec.name} {spec.least} {spec.most}" for spec in options.pool_specs(cores)]


@pytest.mark.parametrize(
    ("given", "bounds"),
    [
        ({}, "4 4"),
        ({"concurrency": 8}, "8 8"),
        ({"concurrency": "2:8"}, "2 8"),
        ({"concurrency": "auto:8"}, "4 8"),
        ({"concurrency": "auto:3"}, "3 3"),
        ({"concurrency": "2:auto"}, "2 4"),
        ({"concurrency": "6:auto"}, "6 6"),
        ({"min": 2}, "2 4"),
        ({"max": 9}, "4 9"),
        ({"min": 1, "max": 9}, "1 9"),
        ({"concurrency": "2:8", "min": 3}, "3 8"),
        ({"concurrency": "2:8", "max": 4}, "2 4"),
        ({"concurrency": 3, "max": 4}, "3 4"),
    ],
)
def test_one_pool_has_the_bounds_that_were_asked_for(given: dict[str, object], bounds: str) -> None:
    assert pools_of(given | {"queues": "high,low"}) == [f"high,low {bounds}"]


def test_a_machine_of_any_size_stays_within_the_limit() -> None:
    assert pools_of({}, cores=1000) == ["* 500 500"]


def test_pools_are_what_the_flags_say() -> None:
    assert pools_of({"pools": ("high, mail=2:8", "a=b=1")}) == ["high,mail 2 8", "a=b 1 1"]


def test_a_pool_is_shown_as_it_is_written() -> None:
    assert [str(PoolSpec.parse(text)) for text in ("high,mail=2:8", "low=3")] == [
        "high,mail=2:8",
        "low=3",
    ]


def refusal(given: dict[str, object], environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(SupervisorOptions, given=given, environ=environ or {})
    return str(caught.value)


def test_a_minimum_above_the_maximum_is_refused() -> None:
    assert refusal({"min": 5, "max": 2}) == "min must not be above max, got 5 and 2"
    assert refusal({"concurrency": 4, "max": 2}) == "min must not be above max, got 4 and 2"


def test_pools_exclude_what_is_said_of_one_pool() -> None:
    given = {"pools": ["a=1"], "queues": "b,c", "concurrency": "2:3", "min": 1, "max": 4}

    assert refusal(given).split("; ") == [
        "queues says nothing when there are pools, got b,c",
        "concurrency says nothing when there are pools, got 2:3",
        "min says nothing when there are pools, got 1",
        "max says nothing when there are pools, got 4",
    ]


@pytest.mark.parametrize(
    ("given", "environ", "pools"),
    [
        ({"pools": ["a=1"]}, {"QUEUES": "b", "CONCURRENCY": "2", "MAX": "3"}, ["a 1 1"]),
        ({"queues": "b"}, {"POOLS": "a=1"}, ["b 4 4"]),
        ({"concurrency": 2}, {"POOLS": "a=1"}, ["* 2 2"]),
        ({"max": 6}, {"POOLS": "a=1"}, ["* 4 6"]),
        ({"concurrency": 8}, {"MIN": "1", "MAX": "2", "QUEUES": "b"}, ["b 8 8"]),
        ({"max": 6}, {"CONCURRENCY": "2:3"}, ["* 2 6"]),
    ],
)
def test_a_stronger_source_makes_void_what_contradicts_it(
    given: dict[str, object], environ: dict[str, str], pools: list[str]
) -> None:
    variables = {f"FORKRESQUE_{name}": text for name, text in environ.items()}

    assert pools_of(given, variables) == pools


@pytest.mark.parametrize("text", ["", "M", "1X", "nan", "1e3", "-1", "1.2.3G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        size(text)


@pytest.mark.parametrize(
    "given", [{"queues": "high,low"}, {"pools": ["high=2", "low=1"]}], ids=["queues", "pools"]
)
def test_a_weight_of_a_queue_that_nobody_serves_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="order weighs hihg=6, but the queues are high,low"):
        resolve(SupervisorOptions, given=given | {"order": "hihg=6,low=1"}, environ={})

    for order in ("high=6", "hi*=6", "round_robin"):
        resolve(SupervisorOptions, given=given | {"order": order}, environ={})
    resolve(SupervisorOptions, given={"queues": "h*", "order": "hihg=6"}, environ={})

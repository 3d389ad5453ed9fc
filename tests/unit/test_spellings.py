"""How each Resque spells one and the same job, and which jobs are equal."""

from typing import Any

import pytest

from forkresque.errors import InvalidArgs
from forkresque.protocol.payload import decoded, encode_job, name_of, stand_in
from forkresque.protocol.spellings import Sought, same
from tests.support.rubbish import BAD, good

PLAIN = [1, "é/", None, {"b": True}]
NODE = '{"class":"x","queue":"q","args":[1,"é/",null,{"b":true}]}'.encode()
RUBY_DELAYED = '{"class":"x","args":[1,"é/",null,{"b":true}],"queue":"q"}'.encode()
RUBY_WAITING = '{"class":"x","args":[1,"é/",null,{"b":true}]}'.encode()


def test_a_delayed_job_is_spelt_as_node_and_as_ruby_do_it() -> None:
    assert Sought("q", "x", PLAIN).delayed() == [NODE, RUBY_DELAYED]


def test_a_waiting_job_may_also_name_no_queue() -> None:
    assert Sought("q", "x", PLAIN).waiting() == [NODE, RUBY_DELAYED, RUBY_WAITING]


def test_the_first_spelling_is_what_we_write_ourselves() -> None:
    for args in ([], [1.0, 1e21, -0.0], [{"2": 1, "1": 2}], ["\ud800"]):
        assert Sought("q", "x", args).delayed()[0] == encode_job("q", "x", args)


def test_floats_are_spelt_in_both_languages() -> None:
    assert Sought("q", "x", [1.0, 1e20, 0.5]).waiting() == [
        b'{"class":"x","queue":"q","args":[1,100000000000000000000,0.5]}',
        b'{"class":"x","queue":"q","args":[1.0,1.0e+20,0.5]}',
        b'{"class":"x","args":[1,100000000000000000000,0.5],"queue":"q"}',
        b'{"class":"x","args":[1.0,1.0e+20,0.5],"queue":"q"}',
        b'{"class":"x","args":[1,100000000000000000000,0.5]}',
        b'{"class":"x","args":[1.0,1.0e+20,0.5]}',
    ]


def test_ruby_keeps_the_order_of_keys_that_javascript_changes() -> None:
    spelt = Sought("q", "x", [{"b": 1, "7": 2}]).delayed()

    assert spelt[0].endswith(b'"args":[{"7":2,"b":1}]}')
    assert b'{"class":"x","args":[{"b":1,"7":2}],"queue":"q"}' in spelt


def test_integers_of_any_size_can_be_looked_for() -> None:
    assert Sought("q", "x", [2**70]).delayed()[0].endswith(b"[%d]}" % 2**70)


@pytest.mark.parametrize("args", [[float("nan")], [{1: 2}], [object()]])
def test_what_json_cannot_carry_cannot_be_looked_for(args: list[Any]) -> None:
    with pytest.raises(InvalidArgs, match=r"args\[0\]"):
        Sought("q", "x", args)


def test_a_job_without_a_name_cannot_be_looked_for() -> None:
    with pytest.raises(InvalidArgs, match="name"):
        Sought("q", "", [])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (0, -0.0),
        (2**60, float(2**60)),
        ([1, [2.0]], [1.0, [2]]),
        ({"a": 1, "b": {}}, {"b": {}, "a": 1.0}),
        ("é", "\u00e9"),
    ],
)
def test_equal_values_are_the_same(one: Any, other: Any) -> None:
    assert same(one, other)
    assert same(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (0, False),
        (0, None),
        (1, "1"),
        ("", None),
        (2**60, 2**60 + 1),
        ([], {}),
        ([1], [1, 1]),
        ([[1]], [[True]]),
        ({"a": 1}, {"a": 1, "b": None}),
        ({"a": 0}, {"a": False}),
    ],
)
def test_different_values_are_not_the_same(one: Any, other: Any) -> None:
    assert not same(one, other)
    assert not same(other, one)


def test_deep_values_are_compared_all_the_same() -> None:
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]

    assert same(deep, [deep[0]])
    assert not same(deep, [deep])


@pytest.mark.parametrize(
    "raw",
    [
        NODE,
        RUBY_DELAYED,
        RUBY_WAITING,
        b'{"args":[1.0,"\\u00e9\\/",null,{"b":true}],"class":"x"}',
        '{"cl\\u0061ss":"\\u0078", "args":[1, "é/", null, {"b":true}], "id":"7"}'.encode(),
    ],
)
def test_an_equal_job_fits_however_it_is_written(raw: bytes) -> None:
    assert Sought("q", "x", PLAIN).fits(raw)


@pytest.mark.parametrize(
    "raw",
    [
        NODE.replace(b'"q"', b'"other"'),
        NODE.replace(b'"x"', b'"y"'),
        NODE.replace(b"[1,", b"[2,"),
        NODE.replace(b"[1,", b"[true,"),
        NODE.replace(b"null,", b""),
        b'{"class":"x"}',
    ],
)
def test_another_job_does_not_fit(raw: bytes) -> None:
    assert not Sought("q", "x", PLAIN).fits(raw)


def test_absent_arguments_are_no_arguments() -> None:
    for raw in (b'{"class":"x"}', b'{"class":"x","args":null}', b'{"class":"x","args":[]}'):
        assert Sought("q", "x", []).fits(raw)


@pytest.mark.parametrize("label", sorted(good("m")))
def test_jobs_that_look_odd_are_found(label: str) -> None:
    queue = "other" if label == "of another queue" else "math"

    assert Sought(queue, "note", ["m"]).fits(good("m")[label])
    assert name_of(good("m")[label]) == "note"


@pytest.mark.parametrize("label", sorted(BAD))
def test_no_bytes_make_a_look_raise(label: str) -> None:
    assert not Sought("math", "note", ["nobody has this"]).fits(BAD[label])
    assert name_of(BAD[label]) != "nobody has this"
    assert isinstance(decoded(BAD[label]), dict)


def test_what_is_no_object_is_shown_by_what_stands_for_it() -> None:
    for raw in (b"", b"{broken", b"7", b"[1]", b"\xff"):
        assert decoded(raw) == stand_in(raw)
    assert decoded(b'{"x":1}') == {"x": 1}

"""JSON as JavaScript writes it: the vectors, the refusals, and the strict reader."""

import contextlib
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from enum import IntEnum, StrEnum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forkresque.errors import InvalidArgs, InvalidPayload
from forkresque.protocol import canonical
from forkresque.protocol.canonical import MAX_LEVELS, decode, encode, encode_as_ruby, reencode

NO_TYPE = "JSON has no such type. Send a string or a number instead."


class Level(IntEnum):
    HIGH = 3


class Colour(StrEnum):
    RED = "red"


class Celsius(float):
    pass


class Box(list[object]):
    pass


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


def from_deep_in_the_stack(frames: int, call: Callable[[], bytes]) -> bytes:
    return call() if frames == 0 else from_deep_in_the_stack(frames - 1, call)


FLOATS = st.floats(allow_nan=False, allow_infinity=False).filter(
    lambda value: not 2**53 < abs(value) < 1e21  # there JavaScript writes integers
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | FLOATS
    | st.text(st.characters(exclude_categories=()))
)
KEYS = st.text(st.characters(exclude_categories=())) | st.integers(0, 2**33).map(str)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=8
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            {"class": "add", "queue": "math", "args": [1, 2]},
            b'{"class":"add","queue":"math","args":[1,2]}',
        ),
        (
            [1.0, 0.1, 1e21, 1e20, 1e-7, 1e-6, -0.0],
            b"[1,0.1,1e+21,100000000000000000000,1e-7,0.000001,0]",
        ),
        (
            [5e-324, 1.7976931348623157e308, 0.1 + 0.2, 2**53],
            b"[5e-324,1.7976931348623157e+308,0.30000000000000004,9007199254740992]",
        ),
        (
            [1e16, 123456789012345678901.0, -1.5e-5],
            b"[10000000000000000,123456789012345680000,-0.000015]",
        ),
        (
            ['é\u2028/<>&"\\\n\u0001\u007f😀'],
            '["é\u2028/<>&\\"\\\\\\n\\u0001\u007f😀"]'.encode(),
        ),
        (["\b\f\r\t\x1f"], b'["\\b\\f\\r\\t\\u001f"]'),
        (["\ud800"], b'["\\ud800"]'),
        (["\udfff\ud83d\ude00\ud83d"], '["\\udfff😀\\ud83d"]'.encode()),
        ([{"b": 1, "2": 1, "a": {}, "1": []}], b'[{"1":[],"2":1,"b":1,"a":{}}]'),
        (
            {"": 1, "01": 2, "-1": 3, "1.5": 4, "10": 5, "9": 6},
            b'{"9":6,"10":5,"":1,"01":2,"-1":3,"1.5":4}',
        ),
        ({"4294967295": 1, "4294967294": 2}, b'{"4294967294":2,"4294967295":1}'),
        ({"\ud83d\ude00": 1, "😀": 2}, '{"😀":2}'.encode()),
        (None, b"null"),
        ([True, False, None, 0, -1], b"[true,false,null,0,-1]"),
        ((1, ("a",)), b'[1,["a"]]'),
        ([], b"[]"),
        ({}, b"{}"),
    ],
)
def test_bytes_are_those_of_json_stringify(value: object, expected: bytes) -> None:
    assert encode(value) == expected


def test_a_large_integral_float_comes_back_as_the_integer_that_javascript_writes() -> None:
    assert decode(encode(6.610779413825034e16)) == 66107794138250340


def test_subclasses_are_written_by_their_base_value() -> None:
    value = [Level.HIGH, Colour.RED, Celsius(2.0), Box([1]), {Colour.RED: True}]

    assert encode(value) == b'[3,"red",2,[1],{"red":true}]'


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            [1, {"when": datetime(2026, 11, 24, tzinfo=UTC)}],
            f'args[1]["when"] is a datetime; {NO_TYPE}',
        ),
        (b"raw", f"args is a bytes; {NO_TYPE}"),
        ([{1}], f"args[0] is a set; {NO_TYPE}"),
        ([object()], f"args[0] is an object; {NO_TYPE}"),
        ([0.5, math.nan], "args[1] is nan; JSON has no such number. Send null or a string."),
        ([math.inf], "args[0] is inf; JSON has no such number. Send null or a string."),
        ([-math.inf], "args[0] is -inf; JSON has no such number. Send null or a string."),
        ({"a": {1: 2}}, 'args["a"] has a key that is an int; JSON has string keys only.'),
        ([{None: 2}], "args[0] has a key that is a NoneType; JSON has string keys only."),
        ({True: 2}, "args has a key that is a bool; JSON has string keys only."),
        ({"x": {1.5: 2}}, 'args["x"] has a key that is a float; JSON has string keys only.'),
        ({(1,): 2}, "args has a key that is a tuple; JSON has string keys only."),
        (
            [0, 2**53 + 1],
            "args[1] is an integer beyond 2**53, which JavaScript readers would change. "
            "Send a string, or pass allow_bigint=True.",
        ),
        ({"\ud800": b""}, f'args["\\ud800"] is a bytes; {NO_TYPE}'),
    ],
)
def test_what_json_cannot_carry_is_refused_by_its_place(value: object, message: str) -> None:
    with pytest.raises(InvalidArgs) as caught:
        encode(value, name="args")

    assert str(caught.value) == message


@pytest.mark.parametrize("edge", [2**53, -(2**53)])
def test_integers_that_a_double_holds_pass(edge: int) -> None:
    assert encode(edge) == str(edge).encode()
    with pytest.raises(InvalidArgs, match=r"2\*\*53"):
        encode(edge * 2)


def test_big_integers_pass_when_they_are_allowed() -> None:
    assert encode([2**64, -(2**64)], allow_bigint=True) == b"[%d,%d]" % (2**64, -(2**64))


def test_an_integer_that_python_cannot_print_is_refused() -> None:
    with pytest.raises(InvalidArgs, match="too many digits"):
        encode(10**5000, allow_bigint=True)


def test_512_levels_pass_and_513_are_refused() -> None:
    deepest = nested(MAX_LEVELS)
    assert encode(deepest) == b"[" * MAX_LEVELS + b"1" + b"]" * MAX_LEVELS

    values: list[object] = [[deepest], [[], [deepest]], nested(100_000)]
    for value in values:
        with pytest.raises(InvalidArgs, match="value is nested deeper than 512 levels"):
            encode(value)


def test_the_levels_of_empty_containers_count_as_well() -> None:
    assert encode([[]], levels=2) == b"[[]]"
    values: list[object] = [[[]], [{}], {"a": []}, [1.0, []]]
    for value in values:
        with pytest.raises(InvalidArgs, match="deeper than 1 level"):
            encode(value, levels=1)


def test_what_holds_itself_is_refused() -> None:
    once: list[object] = []
    once.append(once)
    twice: list[object] = []
    twice.extend([twice, twice])
    through_a_dict: dict[str, object] = {}
    through_a_dict["me"] = [through_a_dict, through_a_dict]

    values: list[object] = [once, twice, through_a_dict]
    for value in values:
        with pytest.raises(InvalidArgs, match="or holds itself"):
            encode(value)


def test_what_is_only_shared_is_written_twice() -> None:
    shared = {"a": [1]}

    assert encode([shared, shared, [shared]]) == b'[{"a":[1]},{"a":[1]},[{"a":[1]}]]'


def test_a_caller_deep_in_its_stack_may_encode_deep_values() -> None:
    value = nested(500)

    assert from_deep_in_the_stack(700, lambda: encode(value)) == encode(value)


@settings(deadline=None, max_examples=300)
@given(VALUES)
def test_encoding_is_stable(value: object) -> None:
    encoded = encode(value)

    assert encode(decode(encoded)) == encoded
    assert reencode(decode(encoded)) == encoded


@settings(deadline=None, max_examples=300)
@given(VALUES)
def test_what_was_encoded_means_the_same(value: object) -> None:
    as_python = json.loads(json.dumps(value))  # joins surrogate pairs, as JavaScript does

    assert decode(encode(value)) == as_python


def test_without_the_encoder_in_c_the_bytes_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    value = [17, 'é\u2028"', {"to": ["a", None, True], "weight": 1.5}, ()]
    monkeypatch.setattr(json.encoder, "c_make_encoder", None)

    assert canonical._writer()(value).encode() == encode(value)


@settings(deadline=None, max_examples=300)
@given(VALUES)
def test_wrapping_a_value_so_that_it_goes_the_exact_way_changes_nothing(value: object) -> None:
    assert encode([Box(), value]) == b"[[]," + encode(value) + b"]"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1.0, 0.1, -0.0, 123456789.5], "[1.0,0.1,-0.0,123456789.5]"),
        ([1e14, 1e15, 1.5e15, 1e16], "[100000000000000.0,1.0e+15,1.5e+15,1.0e+16]"),
        ([1e20, -1e21, 1.5e100], "[1.0e+20,-1.0e+21,1.5e+100]"),
        ([1e-4, 1e-5, -1.5e-5, 1e-100], "[0.0001,1.0e-05,-1.5e-05,1.0e-100]"),
        ([123456789012345680.0], "[1.2345678901234568e+17]"),
        ([2**60, True, None], "[1152921504606846976,true,null]"),
        ({"b": "é/\u2028\n", "7": []}, '{"b":"é/\u2028\\n","7":[]}'),
    ],
)
def test_ruby_is_imitated_byte_for_byte(value: object, expected: str) -> None:
    """What is expected was written by Ruby 3.1 with json 2.6.1."""
    assert encode_as_ruby(value) == expected.encode()


@pytest.mark.parametrize("value", [math.nan, math.inf, {1: 2}, object()])
def test_what_json_cannot_carry_ruby_cannot_either(value: object) -> None:
    with pytest.raises(InvalidArgs, match="value"):
        encode_as_ruby(value)


def test_reencoding_rounds_integers_as_javascript_does() -> None:
    value = decode(b"[12345678901234567890, -9007199254740993, 1%s]" % (b"0" * 400))

    assert reencode(value) == b"[12345678901234567000,-9007199254740992,null]"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty"),
        (b"x", "not JSON: Expecting value (character 0)"),
        (b"{}x", "not JSON: Extra data (character 2)"),
        (b"{} {}", "not JSON: Extra data (character 3)"),
        (b"[1 2]", "not JSON: Expecting ',' delimiter (character 3)"),
        (b'"a\nb"', "not JSON: Invalid control character at (character 2)"),
        (b"\xef\xbb\xbf{}", "not JSON: starts with a byte order mark"),
        (b'"\xff"', "not UTF-8 at byte 1"),
        (b'"\xc0\xaf"', "not UTF-8 at byte 1"),
        (b'"\xed\xa0\x80"', "not UTF-8 at byte 1"),
        ("{}".encode("utf-16"), "not UTF-8 at byte 0"),
        (b"NaN", "not JSON: NaN is not a number there"),
        (b"[Infinity]", "not JSON: Infinity is not a number there"),
        (b"[-Infinity]", "not JSON: -Infinity is not a number there"),
        (b"1e400", "holds a number too large for a double"),
        (b"[-1e400]", "holds a number too large for a double"),
        (b"1" * 5000, "holds an integer of too many digits"),
        (b"[" * 513 + b"]" * 513, "nested deeper than 512 levels"),
        (b"[" * 1100 + b"]" * 1100, "nested deeper than 512 levels"),
        (b"[" * 100_000 + b"]" * 100_000, "nested deeper than 512 levels"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested deeper than 512 levels"),
    ],
)
def test_the_reader_refuses_in_one_line(raw: bytes, reason: str) -> None:
    with pytest.raises(InvalidPayload) as caught:
        decode(raw)

    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b' \t\r\n{"a" : 1} ', {"a": 1}),
        (b'{"a":1,"a":2}', {"a": 2}),
        (b'["\\ud800","\\ud83d\\ude00"]', ["\ud800", "😀"]),
        (b'"\\u0000"', "\0"),
        (b"[" * 512 + b"]" * 512, None),
        (b"[" + b"[]," * 1000 + b"[]]", [[]] * 1001),
        (b'"%s"' % (b"[" * 1000), "[" * 1000),
    ],
)
def test_the_reader_takes_what_json_parse_takes(raw: bytes, value: object) -> None:
    assert value is None or decode(raw) == value
    assert encode(decode(raw)) is not None


@settings(deadline=None, max_examples=300)
@given(st.binary() | st.text('[]{}",:0123456789eE+-.nulltrueNaI\\u \n').map(str.encode))
def test_the_reader_raises_nothing_else(raw: bytes) -> None:
    with contextlib.suppress(InvalidPayload):
        again = reencode(decode(raw))
        assert reencode(decode(again)) == again

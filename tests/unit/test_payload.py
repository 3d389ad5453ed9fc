"""Jobs, pings and working records as they are in Redis."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forkresque.errors import InvalidArgs, InvalidPayload
from forkresque.protocol import payload
from forkresque.protocol.canonical import encode
from forkresque.protocol.payload import encode_job, parse

SMALL = b'{"class":"add","queue":"math","args":[1,2]}'


def nested(levels: int) -> list[object]:
    value: list[object] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_a_job_has_the_field_order_of_node_resque() -> None:
    assert encode_job("math", "add", [1, 2]) == SMALL
    assert encode_job("m", "noArgs", []) == b'{"class":"noArgs","queue":"m","args":[]}'
    assert encode_job("m", "t", (1, None)) == b'{"class":"t","queue":"m","args":[1,null]}'


def test_a_queue_name_of_foreign_bytes_is_escaped() -> None:
    assert encode_job("\udcff", "a", []) == b'{"class":"a","queue":"\\udcff","args":[]}'


def test_a_refused_argument_is_named_by_its_place() -> None:
    with pytest.raises(InvalidArgs, match=r'^args\[1\]\["when"\] is a set; JSON has no such type'):
        encode_job("math", "add", [1, {"when": set()}])


@pytest.mark.parametrize("args", ["text", b"bytes", {"a": 1}, {1}, None])
def test_arguments_that_are_not_a_list_are_refused(args: Any) -> None:
    with pytest.raises(InvalidArgs, match="args must be a list or a tuple, got "):
        encode_job("math", "add", args)


def test_a_job_without_a_name_is_refused() -> None:
    with pytest.raises(InvalidArgs, match="a job needs a name"):
        encode_job("math", "", [])


def test_big_integers_need_to_be_allowed() -> None:
    with pytest.raises(InvalidArgs, match=r"^args\[0\] is an integer beyond 2\*\*53"):
        encode_job("math", "add", [2**60])

    job = encode_job("math", "add", [2**60], allow_bigint=True)
    assert parse(job).args == [2**60]


def test_the_deepest_job_that_can_be_written_can_be_read() -> None:
    assert parse(encode_job("q", "deep", nested(511))).args == nested(511)
    with pytest.raises(InvalidArgs, match="args is nested deeper than 511 levels"):
        encode_job("q", "deep", nested(512))


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(-(2**53), 2**53)
    | st.text(max_size=20)
)
ARGS = st.lists(
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner),
        max_leaves=6,
    ),
    max_size=4,
)


@settings(deadline=None, max_examples=300)
@given(st.text(), st.text(min_size=1), ARGS)
def test_parsing_gives_back_what_was_encoded(queue: str, name: str, args: list[object]) -> None:
    raw = encode_job(queue, name, args)
    job = parse(raw)

    assert (job.queue, job.name, job.args, job.raw) == (queue, name, args, raw)
    assert encode_job(queue, name, job.args) == raw


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty"),
        (b"\xff", "not UTF-8 at byte 0"),
        (SMALL + b"x", "not JSON: Extra data (character 43)"),
        (b"\xef\xbb\xbf" + SMALL, "not JSON: starts with a byte order mark"),
        (b"1", "the payload is a number, not an object"),
        (b"1.5", "the payload is a number, not an object"),
        (b'"x"', "the payload is a string, not an object"),
        (b"[]", "the payload is a list, not an object"),
        (b"null", "the payload is null, not an object"),
        (b"true", "the payload is a boolean, not an object"),
        (b"{}", "the payload has no class"),
        (b'{"args":[]}', "the payload has no class"),
        (b'{"class":null}', "class is null, not a string"),
        (b'{"class":7}', "class is a number, not a string"),
        (b'{"class":["a"]}', "class is a list, not a string"),
        (b'{"class":""}', "class is empty"),
        (b'{"class":"a","args":{}}', "args is an object, not a list"),
        (b'{"class":"a","args":"x"}', "args is a string, not a list"),
        (b'{"class":"a","args":0}', "args is a number, not a list"),
        (b'{"class":"a","args":false}', "args is a boolean, not a list"),
        (b'{"class":"a","args":[NaN]}', "not JSON: NaN is not a number there"),
        (b'{"class":"a","args":[1e400]}', "holds a number too large for a double"),
        (b'{"class":"a","args":[%s]}' % (b"9" * 4301), "holds an integer of too many digits"),
        (b'{"class":"a","args":%s}' % (b"[" * 512 + b"]" * 512), "nested deeper than 512 levels"),
        (b'{"class":"a","args":%s}' % (b"[" * 1100 + b"]" * 1100), "nested deeper than 512 levels"),
        (b'{"class":"a","args":' + b"[" * 100_000, "nested deeper than 512 levels"),
    ],
)
def test_what_is_not_a_job_is_refused_in_one_line(raw: bytes, reason: str) -> None:
    with pytest.raises(InvalidPayload) as caught:
        parse(raw)

    assert str(caught.value) == reason


def test_a_payload_over_the_limit_is_refused_unread() -> None:
    assert parse(SMALL, limit=len(SMALL)).name == "add"
    with pytest.raises(InvalidPayload, match="43 bytes, more than the limit of 42"):
        parse(SMALL, limit=42)
    with pytest.raises(InvalidPayload, match="more than the limit of 8388608"):
        parse(b" " * (8 * 1024 * 1024 + 1))


@pytest.mark.parametrize(
    ("raw", "args", "queue"),
    [
        (b'{"class":"a"}', [], None),
        (b'{"class":"a","args":null,"queue":null}', [], None),
        (b'{"class":"a","args":[1],"queue":7}', [1], None),
        (b'{"class":"a","args":[[]],"queue":"other","id":"x"}', [[]], "other"),
        (b'{"args":["\\ud800"],"queue":"q","class":"b","class":"a"}', ["\ud800"], "q"),
        (b'{"class":"a","args":[-0,1.0,1E2]}', [0, 1.0, 100.0], None),
        (b'{"class":"a","args":[%s]}' % (b"9" * 4300), [int("9" * 4300)], None),
    ],
)
def test_what_other_clients_write_is_read(
    raw: bytes, args: list[object], queue: str | None
) -> None:
    job = parse(raw)

    assert (job.name, job.args, job.queue, job.raw) == ("a", args, queue, raw)


@pytest.mark.parametrize(
    "name", ["a" * 1_000_000, "x\0y", "a\nb", "\x1b[31m", "../x", "__import__", "A::B", "\u202eab"]
)
def test_a_class_may_be_any_text(name: str) -> None:
    assert parse(encode_job("q", name, [])).name == name


def test_a_million_arguments_fit() -> None:
    assert len(parse(encode_job("q", "sum", [1] * 1_000_000)).args) == 1_000_000


@settings(deadline=None, max_examples=300)
@given(
    st.binary()
    | st.text().map(lambda text: json.dumps({"class": text, "args": text}).encode())
    | st.builds(lambda at, byte: SMALL[:at] + byte + SMALL[at:], st.integers(0, 43), st.binary())
)
def test_parsing_raises_nothing_but_invalid_payload(raw: bytes) -> None:
    with contextlib.suppress(InvalidPayload):
        assert parse(raw).raw is raw


def test_an_unreadable_payload_has_a_stand_in() -> None:
    assert payload.stand_in(b"\xff") == {"class": "(unreadable payload)", "args": []}


def test_equal_payloads_have_the_same_digest() -> None:
    assert payload.digest(b"abc") == "a9993e364706816aba3e25717850c26c9cd0d89d"


def test_a_ping_has_nodes_form() -> None:
    expected = b'{"time":1795487768,"name":"host-a:123","queues":"high,math"}'

    assert payload.ping("host-a:123", "high,math", 1795487768) == expected


def test_a_working_record_is_finished_with_queue_and_raw_payload() -> None:
    head = payload.record_head("host:77", 1795488308)
    assert head == b'{"run_at":"2026-11-24T02:45:08Z","worker":"host:77","queue":'

    record = head + encode('a"b') + b',"payload":' + SMALL + b"}"
    assert json.loads(record) == {
        "run_at": "2026-11-24T02:45:08Z",
        "worker": "host:77",
        "queue": 'a"b',
        "payload": json.loads(SMALL),
    }


def test_moments_are_written_in_utc_and_rounded_down() -> None:
    assert payload.utc_second(1795487686.9) == "2026/11/24 02:34:46 UTC"
    assert payload.iso_second(1795488308.5) == "2026-11-24T02:45:08Z"
    assert payload.ruby_second(1795487674) == "2026-11-24 02:34:34 +0000"

"""Failure records: written for everybody's readers, read from everybody's writers."""

import json
from base64 import b64decode, b64encode
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forkresque.protocol.canonical import encode, reencode
from forkresque.protocol.failure import Failure, failure_entry, parse_failure
from forkresque.protocol.payload import digest

JOB = b'{"class":"add","queue":"math","args":[1,2]}'
UNREADABLE = {"class": "(unreadable payload)", "args": []}


def entry_of(raw: bytes = JOB, **changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "exception": "ValueError",
        "error": "no",
        "backtrace": ["a.py:1", "b.py:2"],
        "worker": "host:77:math",
        "queue": "math",
        "failed_at": 1795487686.25,
    }
    return failure_entry(raw=raw, **(fields | changes))


def test_a_record_has_rubys_fields_in_rubys_order() -> None:
    assert entry_of() == (
        b'{"failed_at":"2026/11/24 02:34:46 UTC","payload":' + JOB + b',"exception":"ValueError",'
        b'"error":"no","backtrace":["a.py:1","b.py:2"],"worker":"host:77:math","queue":"math"}'
    )


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b'{"class":"a","args":[1.0]}', b'{"class":"a","args":[1]}'),
        (b'{"class": "a"}', b'{"class":"a"}'),
        (b'{"class":"a","class":"b"}', b'{"class":"b"}'),
        (b'{"b":1,"1":2}', b'{"1":2,"b":1}'),
        (b'{"n":12345678901234567890}', b'{"n":12345678901234567000}'),
        (b'{"n":1%s}' % (b"0" * 400), b'{"n":null}'),
        (b'{"s":"\\u00e9\\/"}', '{"s":"é/"}'.encode()),
        (b"", encode(UNREADABLE)),
        (b"\xff", encode(UNREADABLE)),
        (b"[1]", encode(UNREADABLE)),
        (b"null", encode(UNREADABLE)),
        (b'{"n":1e400}', encode(UNREADABLE)),
        (b"[" * 100_000, encode(UNREADABLE)),
    ],
)
def test_a_payload_that_javascript_would_change_is_kept_beside(raw: bytes, shown: bytes) -> None:
    entry = entry_of(raw)

    assert b'"payload":' + shown + b',"exception"' in entry
    assert entry.endswith(b',"forkresque":{"raw":"' + b64encode(raw) + b'"}}')
    assert parse_failure(entry).payload == raw


@pytest.mark.parametrize(
    "raw", [JOB, b"{}", b'{"x":"\\ud800"}', b'{"class":"a","args":%s}' % (b"[" * 511 + b"]" * 511)]
)
def test_a_payload_that_javascript_would_write_is_embedded_alone(raw: bytes) -> None:
    entry = entry_of(raw)

    assert b'"payload":' + raw + b"," in entry
    assert b'"forkresque"' not in entry
    assert parse_failure(entry).payload == raw


def test_a_long_error_is_cut_with_a_mark() -> None:
    failure = parse_failure(entry_of(error="x" * 65536))
    assert failure.error == "x" * 65536

    failure = parse_failure(
        entry_of(error="x" * 65546, exception="E" * 5000, backtrace=["l" * 5000])
    )
    assert failure.error == "x" * 65536 + "… (10 more characters left out)"
    assert failure.exception == "E" * 4096 + "… (904 more characters left out)"
    assert failure.backtrace == ["l" * 4096 + "… (904 more characters left out)"]


def test_a_long_backtrace_keeps_both_ends() -> None:
    lines = [str(number) for number in range(1000)]
    assert parse_failure(entry_of(backtrace=lines[:200])).backtrace == lines[:200]

    kept = parse_failure(entry_of(backtrace=lines)).backtrace
    assert len(kept) == 200
    assert kept[:100] == lines[:100]
    assert kept[100] == "… (801 lines left out)"
    assert kept[101:] == lines[-99:]


def test_a_queue_name_of_foreign_bytes_comes_back_as_it_was() -> None:
    failure = parse_failure(entry_of(queue="q\udcff", worker="h:1:q\udcff", error="\ud800"))

    assert (failure.queue, failure.worker, failure.error) == ("q\udcff", "h:1:q\udcff", "\ud800")


ANY_TEXT = st.text(st.characters(exclude_categories=()))
JSON_LIKE = st.dictionaries(
    st.text(),
    st.integers() | st.floats() | st.text() | st.lists(st.integers(-9, 9), max_size=3),
    max_size=4,
)
RAW = (
    st.binary()
    | JSON_LIKE.map(lambda value: json.dumps(value).encode())
    | JSON_LIKE.map(lambda value: json.dumps({"class": "a", "args": [value]}).encode())
)


@settings(deadline=None, max_examples=300)
@given(RAW, ANY_TEXT, ANY_TEXT, st.lists(ANY_TEXT, max_size=4), st.floats(0, 1e10))
def test_a_record_can_be_written_and_read_whatever_it_holds(
    raw: bytes, text: str, name: str, lines: list[str], failed_at: float
) -> None:
    entry = entry_of(
        raw, exception=name, error=text, backtrace=lines, queue=name, failed_at=failed_at
    )
    fields = json.loads(entry)

    assert reencode(fields) == entry
    failure = parse_failure(entry)
    assert failure.payload == raw
    assert failure.error == fields["error"]
    assert len(failure.backtrace) == len(lines)


def test_the_exact_arguments_are_shown_where_they_are_kept() -> None:
    failure = parse_failure(entry_of(b'{"class":"a","args":[12345678901234567890]}'))

    assert (failure.name, failure.args) == ("a", [12345678901234567890])


def test_an_unreadable_payload_is_shown_by_its_stand_in() -> None:
    failure = parse_failure(entry_of(b"\xff"))

    assert (failure.name, failure.args, failure.payload) == ("(unreadable payload)", [], b"\xff")


def test_a_record_is_named_by_its_digest() -> None:
    entry = entry_of()

    assert parse_failure(entry).id == digest(entry)[:12]


def test_a_record_of_ruby_is_read() -> None:
    entry = (
        b'{"failed_at":"2026/11/24 02:45:08 CET","payload":{"class":"Add","args":[1.0,'
        b'12345678901234567890]},"exception":"RuntimeError","error":"no","backtrace":["a"],'
        b'"worker":"host:1:math","queue":"math","retried_at":"2026/11/24 02:46:00"}'
    )

    assert parse_failure(entry) == Failure(
        raw_entry=entry,
        failed_at="2026/11/24 02:45:08 CET",
        payload=b'{"class":"Add","args":[1.0,12345678901234567890]}',
        name="Add",
        args=[1, 12345678901234567890],
        exception="RuntimeError",
        error="no",
        backtrace=["a"],
        worker="host:1:math",
        queue="math",
        retried_at="2026/11/24 02:46:00",
    )


def test_a_record_of_node_is_read() -> None:
    entry = (
        b'{"worker":"host:1","queue":"math","payload":' + JOB + b',"backtrace":null,'
        b'"failed_at":"Tue Nov 24 2026 02:36:10 GMT+0000 (Coordinated Universal Time)"}'
    )
    failure = parse_failure(entry)

    assert (failure.name, failure.args, failure.payload) == ("add", [1, 2], JOB)
    assert (failure.exception, failure.error, failure.backtrace) == ("", "", [])
    assert failure.worker == "host:1"


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (b"", "empty"),
        (b"Boom", "not JSON: Expecting value (character 0)"),
        (b"[]", "not an object"),
        (b"null", "not an object"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b"[" * 100_000, "nested deeper than 513 levels"),
    ],
)
def test_a_broken_record_is_shown_as_such(entry: bytes, reason: str) -> None:
    failure = parse_failure(entry)

    assert (failure.exception, failure.error) == ("(unreadable record)", reason)
    assert (failure.payload, failure.raw_entry) == (b"", entry)


@pytest.mark.parametrize(
    ("entry", "payload", "name", "args"),
    [
        (b"{}", b"", "", []),
        (b'{"payload":null}', b"", "", []),
        (b'{"payload":[1]}', b"[1]", "", []),
        (b'{"payload":"x"}', b'"x"', "", []),
        (b'{"payload":{"class":7,"args":{"a":1}}}', b'{"class":7,"args":{"a":1}}', "7", [{"a": 1}]),
        (b'{"payload":{"class":"a"}}', b'{"class":"a"}', "a", []),
        (b'{"payload":{"class":"a"},"forkresque":{"raw":"!"}}', b'{"class":"a"}', "a", []),
        (b'{"payload":{"class":"a"},"forkresque":{"raw":"\xc3\xa9"}}', b'{"class":"a"}', "a", []),
        (b'{"payload":{"class":"a"},"forkresque":{"raw":7}}', b'{"class":"a"}', "a", []),
        (b'{"payload":{"class":"a"},"forkresque":7}', b'{"class":"a"}', "a", []),
        (b'{"payload":{"class":"a"},"forkresque":{"raw":""}}', b"", "a", []),
    ],
)
def test_a_damaged_record_says_what_it_can(
    entry: bytes, payload: bytes, name: str, args: list[object]
) -> None:
    failure = parse_failure(entry)

    assert (failure.payload, failure.name, failure.args) == (payload, name, args)


def test_fields_of_other_types_are_shown_as_text() -> None:
    failure = parse_failure(b'{"error":{"a":1.0},"worker":7,"backtrace":"x\\ny","queue":false}')

    assert (failure.error, failure.worker, failure.queue) == ('{"a":1}', "7", "false")
    assert failure.backtrace == ["x", "y"]
    assert parse_failure(b'{"backtrace":["x",null,1]}').backtrace == ["x", "", "1"]


FIELD = st.sampled_from(["payload", "error", "backtrace", "forkresque", "worker", "class", "raw"])
VALUE = st.recursive(
    st.none() | st.text() | st.integers() | st.binary().map(lambda raw: b64encode(raw).decode()),
    lambda inner: st.lists(inner) | st.dictionaries(FIELD, inner),
    max_leaves=8,
)


@settings(deadline=None, max_examples=300)
@given(st.binary() | st.dictionaries(FIELD, VALUE).map(lambda value: json.dumps(value).encode()))
def test_reading_a_record_never_raises(entry: bytes) -> None:
    failure = parse_failure(entry)

    assert failure.raw_entry == entry
    assert len(failure.id) == 12


def test_the_kept_bytes_are_plain_base64() -> None:
    entry = json.loads(entry_of(b"\x00\xff"))

    assert b64decode(entry["forkresque"]["raw"]) == b"\x00\xff"
    assert list(entry)[-1] == "forkresque"

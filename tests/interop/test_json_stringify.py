"""Our JSON against JSON.stringify itself, through one node process for the module.

Values reach node as recipes that no JSON parser can change: floats as the hex digits of
their 64 bits, strings as UTF-16 code units.
"""

import json
import shutil
import struct
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forkresque.protocol.canonical import encode
from forkresque.protocol.failure import failure_entry

ANSWER = """
const units = (codes) => codes.map((code) => String.fromCharCode(code)).join("");
function build([kind, value]) {
  if (kind === "literal") return value;
  if (kind === "number") return Buffer.from(value, "hex").readDoubleBE(0);
  if (kind === "string") return units(value);
  if (kind === "list") return value.map(build);
  const made = Object.create(null); // so that __proto__ is a key like any other
  for (const [key, inner] of value) made[units(key)] = build(inner);
  return made;
}
const again = (text) => JSON.parse(Buffer.from(text, "base64").toString("utf8"));
const lines = require("readline").createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const { recipes, texts } = JSON.parse(line);
  const values = recipes ? recipes.map(build) : texts.map(again);
  const answers = values.map((value) => Buffer.from(JSON.stringify(value)).toString("base64"));
  process.stdout.write(JSON.stringify(answers) + "\\n");
});
"""


class Node:
    """A node process that answers one line with one line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def stringify(self, values: list[object]) -> list[bytes]:
        """Return what JSON.stringify writes for values that node builds from recipes."""
        return self._ask({"recipes": [recipe(value) for value in values]})

    def parse_and_stringify(self, texts: list[bytes]) -> list[bytes]:
        """Return JSON.stringify(JSON.parse(text)) for each text."""
        return self._ask({"texts": [b64encode(text).decode() for text in texts]})

    def _ask(self, request: dict[str, Any]) -> list[bytes]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"node ended with code {self._process.wait(timeout=5)}"
        return [b64decode(text) for text in cast("list[str]", json.loads(answer))]


def recipe(value: object) -> list[object]:
    """Return how node builds the same value."""
    if value is None or isinstance(value, bool):
        return ["literal", value]
    if isinstance(value, int | float):
        return ["number", struct.pack(">d", value).hex()]
    if isinstance(value, str):
        return ["string", code_units(value)]
    if isinstance(value, list):
        return ["list", [recipe(item) for item in value]]
    assert isinstance(value, dict)
    return ["object", [[code_units(key), recipe(inner)] for key, inner in value.items()]]


def code_units(text: str) -> list[int]:
    raw = text.encode("utf-16-be", "surrogatepass")
    return [unit for (unit,) in struct.iter_unpack(">H", raw)]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    program = shutil.which("node")
    if program is None:
        pytest.fail("node is not on PATH; the wire format cannot be checked without JSON.stringify")
    with subprocess.Popen(
        [program, "-e", ANSWER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Node(process)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(timeout=10) == 0
        finally:
            process.kill()


BITS = st.integers(0, 2**64 - 1).map(
    lambda bits: cast("float", struct.unpack(">d", struct.pack(">Q", bits))[0])
)
EDGES = [0.0, -0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 1e21, 1e-7]
FLOATS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    BITS.filter(lambda value: value - value == 0),
    st.builds(lambda m, power: float(f"{m}e{power}"), st.integers(-999, 999), st.integers(-30, 30)),
    st.integers(-(2**75), 2**75).map(float),
    st.sampled_from(EDGES),
)
TRAPS = ["\ud83d", "\ude00", "😀", "\0", "\x1f", "\x7f", "\u2028", '"', "\\", "/"]
TEXTS = st.one_of(
    st.text(),
    st.lists(st.integers(0, 0xFFFF).map(chr)).map("".join),
    st.lists(st.sampled_from(TRAPS)).map("".join),
)
KEYS = st.one_of(
    TEXTS,
    st.integers(0, 200).map(str),
    st.integers(2**32 - 3, 2**32 + 1).map(str),
    st.sampled_from(["", "-1", "01", "1.0", "1e3", "4294967294", "__proto__", "toJSON", "٣"]),
)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | FLOATS | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=8
)


@settings(deadline=None, max_examples=300)
@given(values=st.lists(VALUES, min_size=1, max_size=5))
def test_values_are_written_as_json_stringify_writes_them(node: Node, values: list[object]) -> None:
    assert [encode(value) for value in values] == node.stringify(values)


@settings(deadline=None, max_examples=300)
@given(numbers=st.lists(FLOATS, min_size=10, max_size=30))
def test_numbers_are_written_as_json_stringify_writes_them(
    node: Node, numbers: list[float]
) -> None:
    values: list[object] = [*numbers]

    assert [encode(value) for value in values] == node.stringify(values)


JOBS = st.dictionaries(KEYS, VALUES | st.integers() | st.integers(-(10**330), 10**330), max_size=4)
RAW = st.one_of(
    st.binary(),
    VALUES.map(encode),
    JOBS.map(lambda job: json.dumps(job).encode()),
    JOBS.map(lambda job: json.dumps({"class": "a", "args": [job]}, indent=1).encode()),
    st.sampled_from(
        [
            b"[" * 600,
            b'{"a":1e400}',
            b'{"a":-0,"b":-0.0,"c":1E2}',
            b'{"a":%s}' % (b"[" * 511 + b"]" * 511),
            b'{"a":1%s}' % (b"0" * 4000),
        ]
    ),
)


@settings(deadline=None, max_examples=300)
@given(raws=st.lists(RAW, min_size=1, max_size=3), text=TEXTS, lines=st.lists(TEXTS, max_size=3))
def test_a_failure_record_survives_javascript_unchanged(
    node: Node, raws: list[bytes], text: str, lines: list[str]
) -> None:
    entries = [
        failure_entry(
            raw=raw,
            exception=text,
            error=text,
            backtrace=lines,
            worker=text,
            queue=text,
            failed_at=1795487686.25,
        )
        for raw in raws
    ]

    assert entries == node.parse_and_stringify(entries)

"""Arguments of jobs that JSON writers like to spell differently, and how JavaScript spells them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest

ESCAPES = 'é\u2028/<>&"\\\n\u0001\u007f😀'
DEEP = 200  # lists inside each other


@dataclass(frozen=True)
class Shape:
    """What a Python caller gives, the args that stand in Redis, what a JavaScript caller gives.

    `javascript` is source; without it node is given what it would read from the wire.
    """

    name: str
    given: Any
    wire: str
    javascript: str = ""

    def call(self, *before: str) -> str:
        """Return the arguments of a call in JavaScript: names, and then those of the job."""
        return f"[{','.join([*map(repr, before), self.javascript or self.wire])}]"

    def payload(self, queue: str, name: str) -> bytes:
        """Return the job as it stands in Redis."""
        return f'{{"class":"{name}","queue":"{queue}","args":{self.wire}}}'.encode(
            "utf-8", "surrogatepass"
        )


def each(shapes: Iterable[Shape]) -> pytest.MarkDecorator:
    """Run a test once with each shape."""
    return pytest.mark.parametrize("shape", shapes, ids=lambda shape: shape.name.replace(" ", "-"))


def nested(levels: int) -> list[object]:
    """Return lists inside each other."""
    value: list[object] = []
    for _ in range(levels - 1):
        value = [value]
    return value


# The decoder of Redis' Lua refuses it, after node's script has popped the job.
LOST_BY_NODE = Shape("a lone surrogate", ["\ud800", "a\udfffb"], '["\\ud800","a\\udfffb"]')

LISTS = [
    Shape("none", (), "[]", "undefined"),
    Shape("an empty list", [[]], "[[]]"),
    Shape("null", [None], "[null]"),
    Shape("a tuple of integers", (1, 2), "[1,2]"),
    Shape("booleans", [True, False], "[true,false]"),
    Shape(
        "integral floats",
        [1.0, -0.0, 1e2, 1e16],
        "[1,0,100,10000000000000000]",
        "[1.0,-0,1e2,1e16]",
    ),
    Shape(
        "floats at the ends of a spelling",
        [0.1, 0.1 + 0.2, 1e20, 1e21, 1e-6, 1e-7, -1.5e-10],
        "[0.1,0.30000000000000004,100000000000000000000,1e+21,0.000001,1e-7,-1.5e-10]",
    ),
    Shape(
        "the least and the greatest float",
        [5e-324, 1.7976931348623157e308],
        "[5e-324,1.7976931348623157e+308]",
    ),
    Shape("integers at the end of what is safe", [2**53, -(2**53)], f"[{2**53},{-(2**53)}]"),
    Shape(
        "long integers as strings",
        ["12345678901234567890", "9007199254740993"],
        '["12345678901234567890","9007199254740993"]',
    ),
    Shape(
        "text to be escaped",
        [ESCAPES, "\b\f\r\t\x1f"],
        '["é\u2028/<>&\\"\\\\\\n\\u0001\u007f😀","\\b\\f\\r\\t\\u001f"]',
    ),
    LOST_BY_NODE,
    Shape("empty and blank text", ["", " "], '[""," "]'),
    Shape(
        "keys that are indexes",
        [{"b": 1, "2": 1, "a": {}, "1": []}],
        '[{"1":[],"2":1,"b":1,"a":{}}]',
        "[{b: 1, 2: 1, a: {}, 1: []}]",
    ),
    Shape(
        "keys that only look like indexes",
        [{"": 0, "01": 1, "-1": 2, "1.5": 3, "4294967295": 4, "4294967294": 5, " ": 6, "é": 7}],
        '[{"4294967294":5,"":0,"01":1,"-1":2,"1.5":3,"4294967295":4," ":6,"é":7}]',
        '[{"": 0, "01": 1, "-1": 2, "1.5": 3, "4294967295": 4, "4294967294": 5, " ": 6, "é": 7}]',
    ),
    Shape(
        "a key with a meaning",
        [{"__proto__": 1, "constructor": None}],
        '[{"__proto__":1,"constructor":null}]',
        """[JSON.parse('{"__proto__":1,"constructor":null}')]""",
    ),
    Shape(
        "nested",
        [[[], {}, [[None]]], {"x": {"y": [{"z": []}]}}],
        '[[[],{},[[null]]],{"x":{"y":[{"z":[]}]}}]',
    ),
    Shape("deeply nested", nested(DEEP), "[" * DEEP + "]" * DEEP),
    Shape("long", ["é" * 50_000], f'["{"é" * 50_000}"]'),
    Shape(
        "what JSON has no word for",
        [None, None, None, {"a": None}, "1970-01-01T00:00:00.000Z"],
        '[null,null,null,{"a":null},"1970-01-01T00:00:00.000Z"]',
        "[undefined, NaN, () => 1, {b: undefined, a: -Infinity}, new Date(0)]",
    ),
]

RUNNABLE = [shape for shape in LISTS if shape is not LOST_BY_NODE]

SINGLES = [
    Shape("text alone", "str", '["str"]', '"str"'),
    Shape("a number alone", 1, "[1]", "1"),
    Shape("null alone", None, "[null]", "null"),
    Shape("an object alone", {"a": 1}, '[{"a":1}]', "{a: 1}"),
    Shape("false alone", False, "[false]", "false"),
]

"""The bytes that anybody may put where a Resque keeps its own."""

import json
import random
from collections.abc import Iterator

from forkresque.protocol.payload import encode_job

DEEP = 100_000


def _job(name: object, args: object = "[]") -> bytes:
    return f'{{"class":{json.dumps(name)},"queue":"math","args":{args}}}'.encode()


NAMES: dict[str, object] = {
    "null": None,
    "number": 7,
    "list": ["note"],
    "object": {"note": 1},
    "truth": True,
    "empty": "",
    "1 MB": "x" * 2**20,
    "NUL": "a\0b",
    "newline": "a\nb",
    "ESC": "\x1b[2J",
    "path": "../../etc/passwd",
    "import": "__import__",
    "dotted": "os.system",
    "builtin": "eval",
    "keyword": "lambda",
    "Ruby": "Mail::Send",
    "right to left": "\u202eeton",
    "surrogate": "\ud800",
    "space": " ",
    "unknown": "nobody.knows",
}
ARGS = {
    "object": "{}",
    "string": '"mark"',
    "number": "1",
    "too few": "[]",
    "too many": "[1,2,3]",
    "keywords": '[{"mark":"x"}]',
    "nested": "[[[]]]",
    "a million": "[" + "0," * 999_999 + "0]",
    "5,000 digits": f"[{'9' * 5000}]",
    "NaN": "[NaN]",
    "Infinity": "[-Infinity]",
    "beyond a float, with company": "[1e400,1]",
    "deep list": "[" * DEEP + "]" * DEEP,
    "deep object": '{"a":' * DEEP + "1" + "}" * DEEP,
}
# Whatever is here ends in the failed list, byte by byte as it was.
BAD: dict[str, bytes] = {
    "empty": b"",
    "one byte": b"x",
    "NUL": b"\0",
    "no JSON": b"not JSON at all",
    "BOM": b"\xef\xbb\xbf" + _job("note", '["m"]'),
    "trailing bytes": _job("note", '["m"]') + b"x",
    "two objects": _job("note", '["m"]') * 2,
    "cut": _job("note", '["m"]')[:-1],
    "number": b"7",
    "string": b'"note"',
    "list": b'["note"]',
    "null": b"null",
    "truth": b"true",
    "no class": b'{"queue":"math","args":[]}',
    "invalid UTF-8": b'{"class":"note","args":["\xff\xfe"]}',
    "overlong": b'{"class":"note","args":["\xc0\xaf"]}',
    "encoded surrogate": b'{"class":"note","args":["\xed\xa0\x80"]}',
    "UTF-16": _job("note", '["m"]').decode().encode("utf-16"),
    "UTF-32": _job("note", '["m"]').decode().encode("utf-32"),
    "single quotes": b"{'class':'note','args':['m']}",
    "comment": b'{"class":"note",/* m */"args":["m"]}',
    "trailing comma": b'{"class":"note","args":["m",]}',
    "pickle": b"\x80\x04cos\nsystem\n",
    "YAML": b"--- !ruby/object:Mail {}\n",
    "deep list alone": b"[" * DEEP,
    "class again, but null": b'{"class":"note","class":null,"args":["m"]}',
    **{f"class: {label}": _job(name) for label, name in NAMES.items()},
    **{f"args: {label}": _job("note", args) for label, args in ARGS.items()},
}


def good(mark: str) -> dict[str, bytes]:
    """Return payloads that look odd, and are jobs all the same: each tells a mark."""
    told = json.dumps(mark)
    return {
        "in Ruby's order": f'{{"class":"note","args":[{told}]}}'.encode(),
        "in node's order": encode_job("math", "note", (mark,)),
        "back to front": f'{{"args":[{told}],"class":"note"}}'.encode(),
        "with unknown fields": f'{{"class":"note","args":[{told}],"x":[1],"id":""}}'.encode(),
        "of another queue": encode_job("other", "note", (mark,)),
        "of a queue that is no text": f'{{"class":"note","args":[{told}],"queue":[1]}}'.encode(),
        "with white space": f' {{\n"class" : "note",\t"args" : [ {told} ] }}\r\n'.encode(),
        "with a class twice": f'{{"class":"x","class":"note","args":[{told}]}}'.encode(),
        "with escapes": f'{{"cl\\u0061ss":"not\\u0065","args":[{told}]}}'.encode(),
    }


QUEUE_NAMES = (
    b"a:b",
    b"*",
    b"?",
    b"[a",
    b"!x",
    b"a\nb",
    b"",
    b" ",
    b"q" * 10_240,
    b"\xff\xfe",
    b"\0",
    b"\x1b[2J",
    b"{tag}",
    b"a,b",
    "\u202e\ufeff".encode(),
)
WORKER_IDS = (
    b"",
    b":",
    b"host",
    b"host:1",
    b"host:x:math",
    b"host:1:2:3:4:math",
    b"host name:1:math",
    b"host::math",
    b"host:99999999999999999999:math",
    b"\xff:1:math",
    b"h\x1b[2J:1:m\na",
    b"x" * 10_240,
)


def generated(seed: int, number: int) -> Iterator[bytes]:
    """Yield random payloads: noise, and jobs of which some bytes were changed."""
    chance = random.Random(seed)
    seeds = [raw for raw in BAD.values() if len(raw) < 200] + [*good("never").values()]
    for _ in range(number):
        if chance.random() < 0.3:
            yield chance.randbytes(chance.randrange(64))
            continue
        raw = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(raw) + 1)
            raw[at : at + chance.randrange(4)] = chance.randbytes(chance.randrange(4))
        yield bytes(raw)

"""Lua scripts, called by name. The header of the file is the signature.

A script's first comment holds a line `-- KEYS a b c*` and a line `-- ARGV x y*`. The names
become Lua locals (a name with a star, always last, takes any number of values and becomes
`first_<name>`, the index of the first). Python gives values by the same names; a missing or
unknown one is a TypeError. A line `-- USES part` puts `lua/parts/<part>.lua` in front.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

Scalar = bytes | str | int
Value = Scalar | Sequence[Scalar]

_HEADER = re.compile(r"^-- (KEYS|ARGV|USES)((?: +[a-z_]+\*?)*)$", re.MULTILINE)


_PLACE = b"$%d\r\n%b\r\n"  # of a value that varies, in the template of a call


class Varying:
    """Stands for a value that is given at each call of a `Prepared`."""


VARYING: Final = Varying()


@dataclass(slots=True)  # not frozen, which takes twice as long to make
class Call:
    """A command, packed: by the script's digest, or with its source if Redis forgot it."""

    digest_head: bytes
    source_head: bytes
    tail: bytes

    @property
    def by_digest(self) -> bytes:
        """Return what to send."""
        return self.digest_head + self.tail

    @property
    def by_source(self) -> bytes:
        """Return what to send after NOSCRIPT."""
        return self.source_head + self.tail


def pack_value(value: Scalar) -> bytes:
    """Return one RESP bulk string."""
    raw = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
    return b"$%d\r\n%b\r\n" % (len(raw), raw)


def pack(*values: Scalar) -> bytes:
    """Return one RESP command."""
    return b"*%d\r\n" % len(values) + b"".join(map(pack_value, values))


class Script:
    """One Lua file. Stateless and immutable, so that it may be shared by all connections."""

    def __init__(self, name: str, source: str) -> None:
        header = {kind: names.split() for kind, names in _HEADER.findall(source)}
        self.name = name
        self.keys: list[str] = header["KEYS"]
        self.args: list[str] = header["ARGV"]
        parts = [_read(f"parts/{part}.lua") for part in header.get("USES", [])]
        self.source = "\n".join([_prelude(self.keys, self.args), *parts, source])
        self.digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    @property
    def names(self) -> list[str]:
        """Return what the keys and arguments are called, without stars."""
        return [name.rstrip("*") for name in (*self.keys, *self.args)]

    def prepare(self, **values: Value | Varying) -> "Prepared":
        """Pack everything but the values given as VARYING, for a call made again and again."""
        return Prepared(self, values)

    def pack(self, **values: Value) -> Call:
        """Pack one call."""
        return self.prepare(**values).fill()

    def flatten(self, values: dict[str, Value | Varying]) -> tuple[int, list[bytes | str]]:
        """Return the number of keys, and each argument: packed, or the name of a varying one."""
        wanted = self.names
        if sorted(wanted) != sorted(values):
            missing, unknown = set(wanted) - set(values), set(values) - set(wanted)
            raise TypeError(f"{self.name}: missing {sorted(missing)}, unknown {sorted(unknown)}")
        keys = [piece for name in self.keys for piece in _pieces(name, values)]
        args = [piece for name in self.args for piece in _pieces(name, values)]
        return len(keys), keys + args


class Prepared:
    """A call of which only some values change. `fill` takes those, in the header's order."""

    def __init__(self, script: Script, values: dict[str, Value | Varying]) -> None:
        key_count, pieces = script.flatten(values)
        head, keys = b"*%d\r\n" % (len(pieces) + 3), pack_value(key_count)
        digest, source = pack_value(script.digest), pack_value(script.source)
        self._digest_head = head + pack_value("EVALSHA") + digest + keys
        self._source_head = head + pack_value("EVAL") + source + keys
        self._varying = sum(isinstance(piece, str) for piece in pieces)
        self._template = b"".join(
            piece.replace(b"%", b"%%") if isinstance(piece, bytes) else _PLACE for piece in pieces
        )

    def fill(self, *values: bytes) -> Call:
        """Return the call with the varying `values` in their places."""
        sized: list[int | bytes] = []
        for value in values:
            sized += (len(value), value)
        try:
            return Call(self._digest_head, self._source_head, self._template % (*sized,))
        except TypeError:
            raise TypeError(f"{self._varying} values vary, got {len(values)}") from None


@cache
def load(name: str) -> Script:
    """Return the script `lua/<name>.lua`, read and checked once."""
    return Script(name, _read(f"{name}.lua"))


def load_all() -> None:
    """Read every script now, so that a child need not after its fork."""
    for path in _folder().iterdir():
        if path.name.endswith(".lua"):
            load(path.name.removesuffix(".lua"))


@cache
def _folder() -> Traversable:
    return resources.files(__package__).joinpath("lua")


@cache
def _read(path: str) -> str:
    return _folder().joinpath(path).read_text("utf-8")


def _pieces(name: str, values: dict[str, Value | Varying]) -> list[bytes | str]:
    value = values[name.rstrip("*")]
    if isinstance(value, Varying):
        return [name]
    if name.endswith("*"):
        if isinstance(value, bytes | str | int):
            raise TypeError(f"{name} takes a sequence, got {value!r}")
        return [pack_value(item) for item in value]
    if not isinstance(value, bytes | str | int):
        raise TypeError(f"{name} takes one value, got {value!r}")
    return [pack_value(value)]


def _prelude(keys: list[str], args: list[str]) -> str:
    """Return Lua that names the keys and arguments as the header does."""
    lines = []
    for table, names in (("KEYS", keys), ("ARGV", args)):
        for index, name in enumerate(names, start=1):
            if name.endswith("*"):
                lines.append(f"local first_{name[:-1]} = {index}")
            else:
                lines.append(f"local {name} = {table}[{index}]")
    return "\n".join(lines)

"""JSON as JavaScript writes it, byte for byte, and a strict reader.

Resque finds a job by its bytes, and node passes jobs through JSON.parse and JSON.stringify.
So `encode` writes what JSON.stringify would write, and refuses what a JavaScript reader
would change. What a job or a failure record consists of is not known here.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from itertools import chain
from typing import Any, NoReturn

from forkresque.errors import InvalidArgs, InvalidPayload

MAX_LEVELS = 512
SAFE_INTEGER = 2**53

_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
_INDEX_END = 2**32 - 1  # JavaScript's array indexes stop below it
_SURROGATE = re.compile("[\ud800-\udfff]")
_STARTS_INDEX = frozenset("0123456789")

_PLAIN = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")
)


class _Big(StrEnum):
    """What to do with an integer that a double cannot hold for certain."""

    REFUSE = "refuse"
    KEEP = "keep"
    ROUND = "round"


def encode(
    value: object, *, name: str = "value", allow_bigint: bool = False, levels: int = MAX_LEVELS
) -> bytes:
    r"""Return the JSON that JavaScript would write for `value`, as UTF-8.

    Raises InvalidArgs, naming the place as `name[0]["key"]`, for what JSON cannot carry, for
    more than `levels` lists and objects inside each other, and, unless `allow_bigint`, for
    integers beyond 2**53. A lone surrogate becomes an escape like `\ud800`.
    """
    quick = _encode_plain(value, levels)
    if quick is not None:
        return quick
    return _Exact(name, _Big.KEEP if allow_bigint else _Big.REFUSE, levels).write(value)


def reencode(value: object) -> bytes:
    """Return what JavaScript would make of the JSON text that `value` was decoded from.

    As `encode`, but of any depth, and an integer becomes the nearest double, or null if
    there is none. Never raises for what `decode` returned.
    """
    quick = _encode_plain(value, MAX_LEVELS)
    return _Exact("value", _Big.ROUND, None).write(value) if quick is None else quick


def encode_as_ruby(value: object, *, name: str = "value", levels: int = MAX_LEVELS) -> bytes:
    """Return the JSON that Ruby would write for `value`: floats stay floats, keys stay in order.

    Raises InvalidArgs as `encode` does, but takes integers of any size.
    Source: json 2.6.1 with Ruby 3.1, as run; newer ones may write large floats otherwise.
    """
    return _Ruby(name, _Big.KEEP, levels).write(value)


def decode(raw: bytes, *, levels: int = MAX_LEVELS) -> Any:
    """Return the value of a JSON text, as strictly as JSON.parse would read it.

    Raises InvalidPayload, with a reason of one line, for anything else, and for numbers and
    nesting that Python cannot hold or that no job should have.
    """
    try:
        value = _read(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidPayload(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InvalidPayload(_why_not_json(raw, error)) from None
    except ValueError:  # CPython's guard against quadratic parsing, 4300 digits by default
        raise InvalidPayload("holds an integer of too many digits") from None
    except RecursionError:
        raise InvalidPayload(f"nested deeper than {levels} levels") from None
    if raw.count(b"[") + raw.count(b"{") > levels and _is_deeper(value, levels):
        raise InvalidPayload(f"nested deeper than {levels} levels")
    return value


# -- writing -------------------------------------------------------------------------------


def _writer() -> Callable[[object], str]:
    """Return what writes an ordinary value: CPython's encoder in C, made once.

    JSONEncoder.encode makes one for each value, which takes longer than writing most of them.
    """
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # another Python
        return _PLAIN.encode
    quoted = json.encoder.encode_basestring
    write = make(None, _PLAIN.default, quoted, None, ":", ",", False, False, False)
    return lambda value: "".join(write(value, 0))


_write_plain = _writer()


def _encode_plain(value: object, levels: int) -> bytes | None:
    """Return the JSON of an ordinary value, or None if only `_Exact` can tell."""
    try:
        return _write_plain(value).encode() if _are_plain((value,), levels) else None
    except (UnicodeEncodeError, RecursionError):  # a surrogate; a caller deep in its stack
        return None


def _are_plain(values: Iterable[Any], levels: int) -> bool:
    """Return whether Python's own encoder writes `values` as JavaScript would.

    What holds itself, or is too deep, comes to the end of the levels and is not plain.
    """
    for item in values:
        kind = type(item)
        if kind is str or item is None or kind is bool:
            continue
        if kind is int:
            if not -SAFE_INTEGER <= item <= SAFE_INTEGER:
                return False
        elif not (_is_plain_float(item) if kind is float else _is_plain_container(item, levels)):
            return False
    return True


def _is_plain_container(value: Any, levels: int) -> bool:
    """Return whether `value` is a list or a dict, with no more levels in it, that is plain."""
    if levels < 1:
        return False
    kind = type(value)
    if kind is dict:
        return _have_their_order(value) and _are_plain(value.values(), levels - 1)
    return (kind is list or kind is tuple) and _are_plain(value, levels - 1)


def _have_their_order(keys: Iterable[Any]) -> bool:
    """Return whether all keys are exact strings whose order JavaScript keeps."""
    for key in keys:  # noqa: SIM110 - a generator takes twice as long as the keys
        if type(key) is not str or key[:1] in _STARTS_INDEX:
            return False
    return True


def _is_plain_float(value: float) -> bool:
    """Return whether both languages write this float alike, as all but integral ones are."""
    return 1e-4 <= abs(value) < 1e16 and not value.is_integer()


@dataclass(slots=True)
class _Open:
    """A list or an object whose end is not yet written; `at` is the member in hand."""

    members: Iterator[tuple[int | str, str, object]]
    end: str
    at: int | str = 0


class _Exact:
    """Writes one value piece by piece, at any depth, and knows where it is."""

    def __init__(self, name: str, big: _Big, levels: int | None) -> None:
        self._name = name
        self._big = big
        self._levels = levels
        self._out: list[str] = []
        self._open: list[_Open] = []

    def write(self, value: object) -> bytes:
        """Return the bytes. The stack is a list, so no depth ends in a RecursionError."""
        self._add(value)
        while self._open:
            top = self._open[-1]
            member = next(top.members, None)
            if member is None:
                self._out.append(self._open.pop().end)
            else:
                top.at, lead, inner = member
                self._out.append(lead)
                self._add(inner)
        return "".join(self._out).encode("utf-8", "backslashreplace")

    def _add(self, value: object) -> None:
        if isinstance(value, list | tuple):
            self._enter("[", _items(value), "]")
        elif isinstance(value, dict):
            self._enter("{", self._fields(self._checked(value)), "}")
        else:
            self._out.append(self._scalar(value))

    def _fields(self, values: dict[str, object]) -> Iterator[tuple[int | str, str, object]]:
        return _fields(values, _indexes_first(values))

    def _enter(
        self, start: str, members: Iterator[tuple[int | str, str, object]], end: str
    ) -> None:
        if self._levels is not None and len(self._open) >= self._levels:
            raise InvalidArgs(
                f"{self._name} is nested deeper than {self._levels} levels, or holds itself"
            )
        self._out.append(start)
        self._open.append(_Open(members, end))

    def _checked(self, value: dict[Any, object]) -> dict[str, object]:
        for key in value:
            if not isinstance(key, str):
                raise self._refusal(f"has a key that is {_a_type(key)}; JSON has string keys only.")
        return {_join_pairs(key): inner for key, inner in value.items()}

    def _scalar(self, value: object) -> str:
        if value is None:
            return "null"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str):
            return _PLAIN.encode(_join_pairs(value))
        if isinstance(value, int):
            return self._integer(value)
        if isinstance(value, float):
            return self._float(value)
        raise self._refusal(
            f"is {_a_type(value)}; JSON has no such type. Send a string or a number instead."
        )

    def _integer(self, value: int) -> str:
        if -SAFE_INTEGER <= value <= SAFE_INTEGER:
            return int.__repr__(value)
        if self._big is _Big.ROUND:
            return _rounded(value)
        if self._big is _Big.REFUSE:
            raise self._refusal(
                "is an integer beyond 2**53, which JavaScript readers would change. "
                "Send a string, or pass allow_bigint=True."
            )
        try:
            return int.__repr__(value)
        except ValueError:  # CPython's limit of 4300 digits, which its readers have too
            raise self._refusal("is an integer of too many digits. Send a string.") from None

    def _float(self, value: float) -> str:
        if value - value != 0:
            raise self._refusal(
                f"is {float.__repr__(value)}; JSON has no such number. Send null or a string."
            )
        return _number(value)

    def _refusal(self, what: str) -> InvalidArgs:
        """Return the error about the value in hand."""
        steps = (
            f"[{frame.at if isinstance(frame.at, int) else _PLAIN.encode(frame.at)}]"
            for frame in self._open
        )
        message = f"{self._name}{''.join(steps)} {what}"
        return InvalidArgs(message.encode("utf-8", "backslashreplace").decode())


class _Ruby(_Exact):
    """Writes as Ruby does where that is not as JavaScript does."""

    def _fields(self, values: dict[str, object]) -> Iterator[tuple[int | str, str, object]]:
        return _fields(values, values)

    def _float(self, value: float) -> str:
        super()._float(value)  # which refuses what is no number
        return _ruby_number(value)


def _items(values: list[object] | tuple[object, ...]) -> Iterator[tuple[int | str, str, object]]:
    """Yield index, text before and value of each item."""
    for index, value in enumerate(values):
        yield index, "," if index else "", value


def _fields(
    values: dict[str, object], order: Iterable[str]
) -> Iterator[tuple[int | str, str, object]]:
    """Yield key, text before and value of each field."""
    lead = ""
    for key in order:
        yield key, f"{lead}{_PLAIN.encode(key)}:", values[key]
        lead = ","


def _indexes_first(keys: Iterable[str]) -> list[str]:
    """Return the keys as JavaScript orders them: array indexes, then the others as they came."""
    indexes = sorted(filter(_is_index, keys), key=int)
    return [*indexes, *(key for key in keys if not _is_index(key))]


def _is_index(key: str) -> bool:
    return _INDEX.fullmatch(key) is not None and int(key) < _INDEX_END


def _join_pairs(text: str) -> str:
    """Return `text` as an exact str, with surrogates that make a pair as one character."""
    if _SURROGATE.search(text) is None:
        return str.__str__(text)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _number(value: float) -> str:
    """Return a finite float in ECMAScript's form; the shortest digits are those of `repr`."""
    mantissa, _, power = float.__repr__(value).partition("e")
    if not power:
        whole = mantissa.removesuffix(".0")
        return "0" if whole == "-0" else whole
    exponent = int(power)
    sign, digits = "-" * (value < 0), mantissa.lstrip("-").replace(".", "")
    if 0 < exponent < 21:
        return sign + digits.ljust(exponent + 1, "0")
    if -7 < exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    return f"{mantissa}e{exponent:+d}"


def _ruby_number(value: float) -> str:
    """Return a finite float as Ruby's Float#to_s does; the shortest digits are those of `repr`."""
    if value == 0 or 1e-4 <= abs(value) < 1e15:
        return float.__repr__(value)
    exact = Decimal(float.__repr__(value)).normalize()
    first, *rest = exact.as_tuple().digits
    fraction = "".join(map(str, rest)) or "0"
    return f"{'-' * (value < 0)}{first}.{fraction}e{exact.adjusted():+03d}"


def _rounded(value: int) -> str:
    try:
        return _number(float(value))
    except OverflowError:  # JSON.parse makes it Infinity, and JSON.stringify makes that null
        return "null"


def _a_type(value: object) -> str:
    kind = type(value).__name__
    return f"{'an' if kind[:1].lower() in tuple('aeiou') else 'a'} {kind}"


# -- reading -------------------------------------------------------------------------------


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise InvalidPayload("holds a number too large for a double")
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise InvalidPayload(f"not JSON: {text} is not a number there")


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse_constant)
_scan: Callable[[str, int], tuple[Any, int]] = _DECODER.scan_once  # type: ignore[attr-defined]


def _read(text: str) -> Any:
    """Return the value of a text: in half the time, if it has no spaces around it."""
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        return _DECODER.decode(text)
    return value if end == len(text) else _DECODER.decode(text)


def _why_not_json(raw: bytes, error: json.JSONDecodeError) -> str:
    if not raw:
        return "empty"
    if raw.startswith(b"\xef\xbb\xbf"):
        return "not JSON: starts with a byte order mark"
    return f"not JSON: {error.msg} (character {error.pos})"


def _is_deeper(value: object, levels: int) -> bool:
    """Return whether more than `levels` lists and objects are inside each other."""
    level: list[Any] = [value]
    for _ in range(levels):
        insides = (item.values() if isinstance(item, dict) else item for item in level)
        level = [item for item in chain.from_iterable(insides) if isinstance(item, list | dict)]
        if not level:
            return False
    return True

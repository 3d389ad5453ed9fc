"""How results look: one JSON document for programs, aligned columns for people.

Names, arguments and errors in Redis may be hostile, so text for people passes `visible`.
"""

import json
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence

import click

SCHEMA = 1
Cell = str | int | float

_GAP = "  "
_LEAST_WIDTH = 8  # of the last column, however narrow the terminal
_WHOLE_SECONDS = 10  # from here on nobody reads tenths
_FULL_UNIT, _NO_TENTHS = 999.5, 9.95  # `1.0K` and not `1000B`; `10M` and not `10.0M`
_RAW_BYTE, _RAW_END = 0xDC80, 0xDCFF  # a byte that is no UTF-8, as `surrogateescape` keeps it


def visible(text: str) -> str:
    r"""Return `text` with whatever a terminal might obey or hide spelled out, as `\x1b`.

    These are control characters, marks that change the direction of writing, invisible ones,
    line ends, and bytes that are no UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _spelled(ord(each)) for each in text)


def _spelled(code: int) -> str:
    if _RAW_BYTE <= code <= _RAW_END:
        return f"\\x{code & 0xFF:02x}"
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def document(**fields: object) -> None:
    """Print the one JSON document of a command."""
    click.echo(json.dumps({"schema": SCHEMA, **fields}, ensure_ascii=True))


def line(text: str = "") -> None:
    """Print one line for people."""
    click.echo(visible(text))


def complain(message: str, *, hint: str = "") -> None:
    """Print an error, and what to do next, on stderr."""
    click.echo(f"error: {_lines(message)}", err=True)
    if hint:
        click.echo(f"hint: {_lines(hint)}", err=True)


def show_trace(text: str) -> None:
    """Print a traceback on stderr."""
    click.echo(_lines(text.rstrip("\n")), err=True)


def _lines(text: str) -> str:
    return "\n".join(visible(each) for each in text.split("\n"))


def table(titles: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print aligned columns; on a terminal, cut to its width."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for each in columns(titles, list(rows), width=width):
        click.echo(each)


def columns(
    titles: Sequence[str], rows: Sequence[Sequence[Cell]], *, width: int | None = None
) -> list[str]:
    """Return a line for the titles and one for each row; numbers stand at the right.

    Lines longer than `width` are cut in the last column.
    """
    texts = [list(titles), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(map(breadth, column)) for column in zip(*texts, strict=True)]
    right = [
        bool(rows) and not any(isinstance(row[at], str) for row in rows)
        for at in range(len(titles))
    ]
    if width is not None:
        before = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
        widths[-1] = min(widths[-1], max(width - before, _LEAST_WIDTH))
        for row in texts:
            row[-1] = cut(row[-1], widths[-1])
    return [
        _GAP.join(
            padded(text, size, right=numbers)
            for text, size, numbers in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in texts
    ]


def _text(cell: Cell) -> str:
    if isinstance(cell, str):
        return visible(cell)
    return f"{cell:.1f}" if isinstance(cell, float) else str(cell)


def breadth(text: str) -> int:
    """Return how many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    return sum(_character_width(each) for each in text)


def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int) -> str:
    """Return `text` in at most `width` columns of a terminal; `…` stands for what is left out."""
    if breadth(text) <= width:
        return text
    text = text[:width]
    while breadth(text) >= width:
        text = text[:-1]
    return text + "…"


def padded(text: str, width: int, *, right: bool) -> str:
    """Return `text` with blanks up to `width` columns of a terminal, at the left if `right`."""
    blanks = " " * (width - breadth(text))
    return blanks + text if right else text + blanks


def span(seconds: float) -> str:
    """Return a length of time in its two largest units: `3d 4h`, `2m 5s`, `12s`."""
    rest = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or parts or unit == "s":
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def brief(seconds: float) -> str:
    """Return a length of time in at most six characters: `0.4s`, `12s`, `3m12s`, `5h02m`, `12d`."""
    whole = int(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days}d"
    if hours:
        return f"{hours}h{minutes % 60:02}m"
    if minutes:
        return f"{minutes}m{whole % 60:02}s"
    return f"{whole}s" if whole >= _WHOLE_SECONDS else f"{max(seconds, 0.0):.1f}s"


def size(number: int) -> str:
    """Return a number of bytes in at most five characters: `512B`, `1.5M`, `220M`, `3.2G`."""
    value, units = float(number), iter("BKMGTPE")
    unit = next(units)
    while abs(value) >= _FULL_UNIT and unit != "E":
        value, unit = value / 1024, next(units)
    return f"{value:.0f}{unit}" if unit == "B" or abs(value) >= _NO_TENTHS else f"{value:.1f}{unit}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 job`, `2 jobs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

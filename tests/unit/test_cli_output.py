"""What the command line prints: no byte that a terminal obeys, aligned columns, log lines."""

import io
import json
import logging
import sys

import pytest

from forkresque.cli.logs import handler
from forkresque.cli.output import columns, counted, document, span, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with a blank", "plain, with a blank"),
        ("größe 数 🎉", "größe 数 🎉"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\tc\r\0", "a\\x0ab\\x09c\\x0d\\x00"),
        ("\x7f\x9b2J", "\\x7f\\x9b2J"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("tag\U000e0041", "tag\\U000e0041"),
        (b"raw \xff".decode(errors="surrogateescape"), "raw \\xff"),
        ("lone \ud800", "lone \\ud800"),
    ],
)
def test_what_a_terminal_would_obey_or_hide_is_spelled_out(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(text).isprintable()


def test_every_character_is_printable_after_the_filter() -> None:
    assert all(visible(chr(code)).isprintable() for code in range(sys.maxunicode + 1))


def test_numbers_stand_at_the_right_and_texts_at_the_left() -> None:
    assert columns(("QUEUE", "WAITING", "X"), [("math", 5, 1.25), ("a", 12345678, 10.0)]) == [
        "QUEUE   WAITING     X",
        "math          5   1.2",
        "a      12345678  10.0",
    ]


def test_a_table_without_rows_is_its_titles() -> None:
    assert columns(("QUEUE", "WAITING"), []) == ["QUEUE  WAITING"]


def test_wide_characters_and_accents_do_not_shift_columns() -> None:
    lines = columns(("A", "B"), [("数数", "x"), ("e\u0301", "x"), ("abcd", "x")])

    assert lines == ["A     B", "数数  x", "e\u0301     x", "abcd  x"]


def test_only_the_last_column_is_cut_and_only_on_a_terminal() -> None:
    row = ("name", "e" * 100)

    assert columns(("A", "B"), [row], width=20)[1] == "name  " + "e" * 13 + "…"
    assert columns(("A", "B"), [row], width=3)[1] == "name  " + "e" * 7 + "…"
    assert columns(("A", "B"), [row])[1] == "name  " + "e" * 100
    assert columns(("A", "B"), [("name", "数" * 50)], width=20)[1] == "name  " + "数" * 6 + "…"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (61, "1m 1s"), (3600, "1h 0m"), (90_061, "1d 1h"), (0.2, "0s")],
)
def test_a_length_of_time_shows_its_two_largest_units(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_numbers_agree_with_their_noun() -> None:
    assert [counted(number, "job") for number in (0, 1, 2)] == ["0 jobs", "1 job", "2 jobs"]


def test_a_document_is_one_line_of_ascii_with_its_schema(
    capsys: pytest.CaptureFixture[str],
) -> None:
    document(name="\x1b数\ud800")

    printed = capsys.readouterr().out
    assert printed.isascii()
    assert printed.count("\n") == 1
    assert json.loads(printed) == {"schema": 1, "name": "\x1b数\ud800"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def fail() -> None:
    raise ValueError("no\x1b")


def logged(stream: io.StringIO, message: str, *, form: str = "auto") -> str:
    logger = logging.getLogger("forkresque.test")
    logger.propagate = False
    receiver = handler(stream, form=form)
    logger.addHandler(receiver)
    try:
        try:
            fail()
        except ValueError:
            logger.exception("got %s", message)
    finally:
        logger.removeHandler(receiver)
    return stream.getvalue()


def test_a_log_line_on_a_terminal_is_one_harmless_line_and_a_traceback() -> None:
    head, *trace = logged(Terminal(), "a\n\x1b[2J").splitlines()

    assert head[8:] == " ERROR forkresque.test: got a\\x0a\\x1b[2J"
    assert trace[0] == "Traceback (most recent call last):"
    assert trace[-1] == "ValueError: no\\x1b"


def test_a_log_line_elsewhere_is_one_json_object() -> None:
    (line,) = logged(io.StringIO(), "a\nb").splitlines()

    fields = json.loads(line)
    assert line.isascii()
    assert fields["message"] == "got a\nb"
    assert fields["level"] == "ERROR"
    assert fields["logger"] == "forkresque.test"
    assert fields["at"].endswith("Z")
    assert fields["trace"].endswith("ValueError: no\x1b")
    assert isinstance(fields["pid"], int)


def test_the_form_of_logs_can_be_asked_for() -> None:
    assert json.loads(logged(Terminal(), "x", form="json"))["message"] == "got x"
    assert " ERROR forkresque.test: got x\n" in logged(io.StringIO(), "x", form="plain")

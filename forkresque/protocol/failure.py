"""Failure records: what the failed list holds of a job that went wrong.

The fields are Ruby Resque's and the bytes JavaScript's, so that both dashboards show a
record and node can remove it by value. Neither writing nor reading ever raises: a failure
that cannot be recorded would be lost. Where a payload is not what JavaScript would write,
a last member `forkresque` keeps its exact bytes for the retry.
"""

import binascii
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from forkresque.errors import InvalidPayload
from forkresque.protocol.canonical import MAX_LEVELS, decode, reencode
from forkresque.protocol.payload import digest, stand_in, utc_second

_READER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")

JAVASCRIPT = "%a %b %d %Y %H:%M:%S GMT%z"

UNREADABLE_RECORD = "(unreadable record)"
ERROR_LIMIT = 64 * 1024  # characters
LINE_LIMIT = 4 * 1024  # characters
BACKTRACE_LIMIT = 200  # lines


@dataclass(frozen=True, slots=True)
class Failure:
    """A record as it came from Redis; `payload` is what a retry enqueues, empty if unknown.

    `retried_at` is set in a record that Ruby keeps after its job was put back.
    """

    raw_entry: bytes
    failed_at: str
    payload: bytes
    name: str
    args: list[Any]
    exception: str
    error: str
    backtrace: list[str]
    worker: str
    queue: str
    retried_at: str = ""

    @property
    def id(self) -> str:
        """Twelve hex digits of the record's digest: how people name it."""
        return digest(self.raw_entry)[:12]


# -- writing -------------------------------------------------------------------------------


def failure_entry(
    *,
    raw: bytes,
    exception: str,
    error: str,
    backtrace: Sequence[str],
    worker: str,
    queue: str,
    failed_at: float,
) -> bytes:
    """Return the record of one failure, with Ruby's fields in Ruby's order.

    It equals JSON.stringify(JSON.parse(record)), whatever `raw` and the texts hold. Long
    errors and backtraces are cut, with a mark. `failed_at` is in epoch seconds.
    """
    payload = _shown(raw)
    rest: dict[str, object] = {
        "exception": _cut(exception, LINE_LIMIT),
        "error": _cut(error, ERROR_LIMIT),
        "backtrace": [_cut(line, LINE_LIMIT) for line in _thinned(backtrace)],
        "worker": worker,
        "queue": queue,
    }
    if payload != raw:
        rest["forkresque"] = {"raw": b64encode(raw).decode("ascii")}
    head = reencode({"failed_at": utc_second(failed_at)})
    return b'%b,"payload":%b,%b' % (head[:-1], payload, reencode(rest)[1:])


def _shown(raw: bytes) -> bytes:
    """Return the payload as JavaScript would write it again, or what stands for it."""
    try:
        value = decode(raw)
    except InvalidPayload:
        value = None
    return reencode(value if isinstance(value, dict) else stand_in(raw))


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… ({len(text) - limit} more characters left out)"


def _thinned(lines: Sequence[str]) -> list[str]:
    """Return at most `BACKTRACE_LIMIT` lines: both ends, which say where it began and broke."""
    if len(lines) <= BACKTRACE_LIMIT:
        return list(lines)
    head = BACKTRACE_LIMIT // 2
    tail = BACKTRACE_LIMIT - head - 1
    mark = f"… ({len(lines) - head - tail} lines left out)"
    return [*lines[:head], mark, *lines[-tail:]]


# -- reading -------------------------------------------------------------------------------


def parse_failure(raw_entry: bytes) -> Failure:
    """Return what a record says, whoever wrote it: Ruby, node or ourselves. Never raises.

    A missing field is empty. A broken record has the exception `(unreadable record)`.
    """
    try:
        entry = decode(raw_entry, levels=MAX_LEVELS + 1)
    except InvalidPayload as reason:
        return _unreadable(raw_entry, str(reason))
    if not isinstance(entry, dict):
        return _unreadable(raw_entry, "not an object")
    payload = _payload(entry, raw_entry.decode())
    name, args = _job(payload, entry.get("payload"))
    return Failure(
        raw_entry=raw_entry,
        failed_at=_text(entry.get("failed_at")),
        payload=payload,
        name=name,
        args=args,
        exception=_text(entry.get("exception")),
        error=_text(entry.get("error")),
        backtrace=_lines(entry.get("backtrace")),
        worker=_text(entry.get("worker")),
        queue=_text(entry.get("queue")),
        retried_at=_text(entry.get("retried_at")),
    )


def failed_second(failure: Failure) -> float:
    """Return when a job failed, in epoch seconds; 0 for what cannot be read.

    Ruby writes the local time with the name of its zone, which nobody else knows: taken as UTC.
    node-resque writes JavaScript's text.
    """
    node = failure.failed_at.partition(" (")[0]
    for text, form in ((failure.failed_at[:19], "%Y/%m/%d %H:%M:%S"), (node, JAVASCRIPT)):
        try:
            moment = datetime.strptime(text, form)  # noqa: DTZ007 - the next line sees to it
        except ValueError:
            continue
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return 0.0


def _unreadable(raw_entry: bytes, reason: str) -> Failure:
    return Failure(raw_entry, "", b"", "", [], UNREADABLE_RECORD, reason, [], "", "")


def _payload(entry: dict[str, Any], text: str) -> bytes:
    """Return the bytes that failed: as they were kept, or else as they stand in the record."""
    kept = entry.get("forkresque")
    if isinstance(kept, dict) and isinstance(kept.get("raw"), str):
        try:
            return b64decode(kept["raw"], validate=True)
        except (binascii.Error, ValueError):
            pass  # somebody edited the record; what it shows is the next best
    return b"" if entry.get("payload") is None else _member(text, "payload").encode()


def _member(text: str, wanted: str) -> str:
    """Return the text of a member of `text`, which is a valid JSON object that has it."""
    found, at = "", _skip(text, _skip(text, 0) + 1)
    while text[at] != "}":
        name, at = _READER.raw_decode(text, at)
        start = _skip(text, _skip(text, at) + 1)  # behind the colon
        _, end = _READER.raw_decode(text, start)
        if name == wanted:
            found = text[start:end]  # the last one wins, as everywhere
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def _skip(text: str, at: int) -> int:
    """Return the place of the first character from `at` on that is not white space."""
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too


def _job(payload: bytes, shown: object) -> tuple[str, list[Any]]:
    """Return name and arguments, from the exact bytes where those can be read."""
    try:
        job = decode(payload)
    except InvalidPayload:
        job = shown
    if not isinstance(job, dict):
        job = shown if isinstance(shown, dict) else {}
    args = job.get("args")
    if not isinstance(args, list):
        args = [] if args is None else [args]
    return _text(job.get("class")), args


def _text(value: object) -> str:
    """Return a string as it is, nothing as "", and anything else as its JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else reencode(value).decode()


def _lines(value: object) -> list[str]:
    if isinstance(value, list):
        return [_text(line) for line in value]
    return _text(value).splitlines()

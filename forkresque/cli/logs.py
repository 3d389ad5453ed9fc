"""How logs look: a line for people on a terminal, a JSON object a line for programs elsewhere."""

import contextlib
import json
import logging
import os
import select
import stat
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TextIO

from forkresque.cli.output import visible

# Whoever has these loggers must never wait: a master that does hears no signal, reaps nobody.
_CANNOT_WAIT = {
    f"forkresque.{name}" for name in ("master", "clerk", "scheduler", "pidfile", "notify")
}


class PlainFormatter(logging.Formatter):
    """`12:01:03 INFO forkresque.master: message`, in local time; a message is one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and below it the traceback, if there is one."""
        moment = datetime.fromtimestamp(record.created, tz=UTC).astimezone()
        message = visible(record.getMessage())
        head = f"{moment:%H:%M:%S} {record.levelname} {record.name}: {message}"
        return "\n".join([head, *map(visible, _trace(self, record).splitlines())])


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback is its member `trace`."""
        moment = datetime.fromtimestamp(record.created, tz=UTC)
        fields: dict[str, object] = {
            "at": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        if trace := _trace(self, record):
            fields["trace"] = trace
        return json.dumps(fields)


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info else []
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)


class StreamHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream; what master and clerk say is lost where that would have to wait.

    A pipe whose reader stands still is full at some time, and a terminal may be stopped. Workers
    wait like any program, since what jobs log is wanted. The next line that finds room tells how
    many were lost.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lost = 0
        self._outlet: int | None = None
        self._shared: int | None = None  # the stream's own descriptor
        with contextlib.suppress(OSError, ValueError):  # a stream without a file never blocks
            self._shared = stream.fileno()
            self._outlet = _outlet(self._shared)

    def close(self) -> None:
        """Let go of what was opened; the stream stays as it is."""
        if self._outlet is not None and self._outlet != self._shared:
            os.close(self._outlet)
        self._outlet = None
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or count it as lost."""
        if self._outlet is None or record.name not in _CANNOT_WAIT:
            super().emit(record)
            return
        try:
            lines = [self.format(each) for each in (*self._missing(record), record)]
        except Exception:  # noqa: BLE001 - what logging itself does with a record that is wrong
            self.handleError(record)
            return
        text = "".join(line + self.terminator for line in lines)
        is_gone = _write(self._outlet, text.encode(errors="backslashreplace"))
        self._lost = 0 if is_gone else self._lost + 1

    def _missing(self, record: logging.LogRecord) -> Iterator[logging.LogRecord]:
        """Yield what tells of the lines that were lost before this record, if any were."""
        if self._lost:
            message = "%s lines before this one were lost: nobody read them"
            yield logging.LogRecord(
                record.name, logging.WARNING, record.pathname, 0, message, (self._lost,), None
            )


def _write(number: int, line: bytes) -> bool:
    """Write a line without waiting; return whether it is gone, be it only in part."""
    try:
        return bool(select.select([], [number], [], 0)[1] and os.write(number, line))
    except (OSError, ValueError):
        return False


def _outlet(number: int) -> int:
    """Return a descriptor for the same file that never blocks, or as good as never.

    The flag belongs to the open file, which others share, so a pipe or a terminal is opened once
    more. A file on a disk does not block, and opened twice it would be written over.
    """
    mode = os.fstat(number).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        with contextlib.suppress(OSError):  # it may be another user's
            return os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    return number


def handler(stream: TextIO, *, form: str) -> logging.Handler:
    """Return a handler that writes to `stream`; `form` is plain, json or auto."""
    plain = form == "plain" or (form == "auto" and stream.isatty())
    made = StreamHandler(stream)
    made.setFormatter(PlainFormatter() if plain else JsonFormatter())
    return made


def set_up(*, level: str, form: str) -> None:
    """Send everything from `level` up to stderr, the application's own logs too."""
    logging.basicConfig(level=level.upper(), handlers=[handler(sys.stderr, form=form)], force=True)

"""How logs look: a line for people on a terminal, a JSON object a line for programs elsewhere."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from forkresque.cli.output import visible


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


def handler(stream: TextIO, *, form: str) -> logging.Handler:
    """Return a handler that writes to `stream`; `form` is plain, json or auto."""
    plain = form == "plain" or (form == "auto" and stream.isatty())
    made = logging.StreamHandler(stream)
    made.setFormatter(PlainFormatter() if plain else JsonFormatter())
    return made


def set_up(*, level: str, form: str) -> None:
    """Send everything from `level` up to stderr, the application's own logs too."""
    logging.basicConfig(level=level.upper(), handlers=[handler(sys.stderr, form=form)], force=True)

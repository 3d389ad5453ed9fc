"""What master and clerk log never makes them wait."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from forkresque.cli.logs import handler


class Pipe:
    """A log on a pipe that is read only now and then."""

    def __init__(self, stack: ExitStack) -> None:
        self._end, end = os.pipe()
        stack.callback(os.close, self._end)
        os.set_blocking(self._end, False)
        self.stream = stack.enter_context(os.fdopen(end, "w"))
        self.handler = handler(self.stream, form="json")
        stack.callback(self.handler.close)

    def say(self, name: str, text: str) -> None:
        """Log one line in the name of a logger."""
        self.handler.handle(logging.LogRecord(name, logging.INFO, "", 0, text, None, None))

    def read(self) -> list[dict[str, Any]]:
        """Return all that has come."""
        return [json.loads(line) for line in os.read(self._end, 1 << 20).splitlines()]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Return a log on a pipe."""
    with ExitStack() as stack:
        yield Pipe(stack)


@pytest.mark.parametrize("name", ["master", "clerk", "scheduler"])
def test_what_nobody_reads_is_lost_and_counted(pipe: Pipe, name: str) -> None:
    for number in range(2000):
        pipe.say(f"forkresque.{name}", f"{number} {'x' * 100}")
    before = pipe.read()
    assert [line["message"].split()[0] for line in before] == [*map(str, range(len(before)))]

    pipe.say(f"forkresque.{name}", "there is room again")
    told, last = pipe.read()

    lost = f"{2000 - len(before)} lines before this one were lost: nobody read them"
    assert (told["message"], told["level"]) == (lost, "WARNING")
    assert last["message"] == "there is room again"
    pipe.say(f"forkresque.{name}", "told once")
    assert [line["message"] for line in pipe.read()] == ["told once"]


def test_others_see_no_difference(pipe: Pipe) -> None:
    pipe.say("forkresque.worker", "w")
    pipe.say("the.application", "a")
    assert [line["message"] for line in pipe.read()] == ["w", "a"]
    assert os.get_blocking(pipe.stream.fileno()), "the flag is everybody's who has the pipe"


def test_a_reader_that_is_gone_is_no_error() -> None:
    end, other_end = os.pipe()
    os.close(end)
    with os.fdopen(other_end, "w") as stream:
        made = handler(stream, form="json")
        made.handle(logging.LogRecord("forkresque.master", logging.INFO, "", 0, "?", None, None))
        made.close()

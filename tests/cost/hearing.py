"""What Redis was asked and what its scripts did for that, as its own MONITOR tells it."""

import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from forkresque.protocol.script import load
from tests.support.servers import Server


@dataclass(slots=True)
class Request:
    """What one client asked: a script's name, or a command in capitals; `inside`, what it ran."""

    name: str
    client: str
    inside: Counter[str] = field(default_factory=Counter)

    @property
    def cost(self) -> Counter[str]:
        """Return the request itself and the commands in it."""
        return Counter({f"-> {self.name}": 1}) + self.inside


class Heard:
    """What was heard. `trips` counts how often something was read from a client's socket."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.trips = 0

    def cost(self) -> Counter[str]:
        """Return the requests and the commands in them, all together."""
        return sum((request.cost for request in self.requests), Counter())

    def names(self) -> Counter[str]:
        """Return how often each thing was asked."""
        return Counter(request.name for request in self.requests)

    def add(self, told: dict[str, str]) -> None:
        """Take note of a line of MONITOR."""
        if told["client_type"] == "lua":
            self.requests[-1].inside[_word(told["command"])] += 1
        elif told["client_type"] == "tcp":
            self.requests.append(Request(_name(told["command"]), told["client_port"]))


@contextmanager
def hearing(server: Server) -> Iterator[Heard]:
    """Hear what is asked over TCP, as the product does in these tests; it is told at the end."""
    heard = Heard()
    with ExitStack() as stack:
        listener, client = (stack.enter_context(closing(server.client())) for _ in range(2))
        monitor: Any = stack.enter_context(listener.monitor())  # type: ignore[no-untyped-call]
        before = _reads(client)
        yield heard
        heard.trips = _reads(client) - before - 1
        mark = secrets.token_hex(8)
        client.echo(mark)
        while mark not in (told := monitor.next_command())["command"]:
            heard.add(told)


def _reads(client: Any) -> int:
    return int(client.info("stats")["total_reads_processed"])


def _word(command: str) -> str:
    return command.split(" ", 1)[0].upper()


def _name(command: str) -> str:
    """Return what a request is called, a script by the name of its file."""
    words = command.split(" ", 2)
    return _scripts().get(words[1], words[1]) if _word(command) == "EVALSHA" else _word(command)


@cache
def _scripts() -> dict[str, str]:
    """Return the names of the scripts by their digests."""
    files = resources.files("forkresque.protocol").joinpath("lua").iterdir()
    names = [path.name.removesuffix(".lua") for path in files if path.name.endswith(".lua")]
    return {load(name).digest: name for name in names}

"""A node-resque that takes orders, in one process for all tests of a module.

A node takes a third of a second to start, an order less than a millisecond.
"""

import json
import os
import select
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from tests.support.node import NodeProcess
from tests.support.servers import Server

TIMEOUT = 15.0  # seconds for an answer


class NodeError(Exception):
    """What an order has thrown in node."""


class Node:
    """A process of node-resque. It has a queue; `make` gives it workers and schedulers."""

    def __init__(self, server: Server, ledger_server: Server) -> None:
        env = {"LEDGER_URL": ledger_server.tcp_url}
        self.process = NodeProcess("client.js", server.tcp_url, env=env, piped=True)
        self._lines = b""
        self._answers: dict[int, dict[str, Any]] = {}
        self._events: list[dict[str, Any]] = []
        self._orders = 0
        self._await(0)
        self.queue = self.make("Queue")

    @property
    def pid(self) -> int:
        """Its pid."""
        return self.process.pid

    def make(
        self,
        kind: str,
        options: Mapping[str, object] | None = None,
        *,
        events: Sequence[str] = (),
        namespace: str = "resque",
    ) -> "NodeObject":
        """Return a connected Queue, Worker or Scheduler, which remembers these events."""
        made = f"{kind} {self._orders}"
        order = {"make": kind, "as": made, "options": options or {}, "events": list(events)}
        return NodeObject(self, made, self.order({**order, "namespace": namespace}))

    def order(self, order: Mapping[str, object]) -> Any:
        """Have an order carried out, and return its answer; what it throws is a NodeError."""
        self._orders += 1
        line = json.dumps({"id": self._orders, **order}) + "\n"
        assert self.process.process.stdin is not None
        self.process.process.stdin.write(line.encode())
        self.process.process.stdin.flush()
        answer = self._await(self._orders)
        if "error" in answer:
            raise NodeError(answer["error"])
        return answer.get("value")

    def heard(self, of: str, event: str) -> list[list[Any]]:
        """Return the arguments of each such event until now, oldest first."""
        while self._read(0.0):
            pass
        return [one["args"] for one in self._events if (one["of"], one["event"]) == (of, event)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.__exit__(kind, error, trace)

    def _await(self, number: int) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT
        while number not in self._answers:
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"no answer from node:\n{self.process.errors()}")
        return self._answers.pop(number)

    def _read(self, timeout: float) -> bool:
        """Take in what it prints within `timeout`; return False if that is nothing."""
        assert self.process.process.stdout is not None
        descriptor = self.process.process.stdout.fileno()
        if not select.select([descriptor], [], [], timeout)[0]:
            return False
        data = os.read(descriptor, 1 << 16)
        *lines, self._lines = (self._lines + data).split(b"\n")
        for line in map(json.loads, lines):
            if "id" in line:
                self._answers[line["id"]] = line
            else:
                self._events.append(line)
        return bool(data)


class NodeObject:
    """A Queue, a Worker or a Scheduler in the process of `node`. `name` is node's name for it."""

    def __init__(self, node: Node, made: str, name: str | None) -> None:
        self.node, self.name = node, name or ""
        self._made = made

    def ask(self, method: str, *args: object) -> Any:
        """Call a method, and return what its promise brings."""
        return self.node.order({"of": self._made, "method": method, "args": args})

    def evaluate(self, method: str, source: str) -> Any:
        """Do the same; the arguments are those of an array in JavaScript."""
        return self.node.order({"of": self._made, "method": method, "source": source})

    def read(self, name: str) -> Any:
        """Return a property."""
        return self.node.order({"of": self._made, "read": name})

    def heard(self, event: str) -> list[list[Any]]:
        """Return the arguments of each such event until now, oldest first."""
        return self.node.heard(self._made, event)

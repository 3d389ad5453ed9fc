"""What a master says, heard in a thread of its own, so that the screen never waits for it."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from forkresque.cli.reports import Report
from forkresque.errors import ControlError
from forkresque.processes import is_alive, start_of
from forkresque.supervisor.control import ask


@dataclass(frozen=True, slots=True)
class Order:
    """A verb for the master, and what to say once it is carried out."""

    verb: str
    said: str
    arguments: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Heard:
    """A report, or why there is none; and what came of an order."""

    report: Report | None
    silence: str = ""
    said: str = ""


class Feed:
    """Asks a master for its report again and again, and hands it orders in between."""

    def __init__(
        self, socket: Path, pid: int, *, interval: float, tell: Callable[[Heard], None]
    ) -> None:
        self._socket = socket
        self._pid = pid
        self._began = start_of(pid)
        self._interval = interval
        self._tell = tell
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        # A daemon: a master that does not answer keeps nobody from leaving.
        self._thread = threading.Thread(target=self._run, name="top", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask nothing more, once the answer that is waited for has come."""
        self._orders.put(None)

    def give(self, order: Order) -> None:
        """Hand an order to the master, as soon as it listens."""
        self._orders.put(order)

    def _run(self) -> None:
        self._tell(self._look())
        while True:
            try:
                order = self._orders.get(timeout=self._interval)
            except queue.Empty:
                self._tell(self._look())
            else:
                if order is None:
                    return
                self._tell(self._carry_out(order))

    def _carry_out(self, order: Order) -> Heard:
        try:
            report = ask(self._socket, order.verb, **order.arguments)
        except ControlError as error:
            heard = self._look()
            return heard if heard.report is None else Heard(heard.report, said=f"refused: {error}")
        return Heard(report, said=order.said)

    def _look(self) -> Heard:
        try:
            report = ask(self._socket, "status")
        except ControlError as error:
            if self._began is not None and not is_alive(self._pid, self._began):
                return Heard(None, silence=f"master {self._pid} is gone")
            return Heard(None, silence=f"master {self._pid} does not answer: {error}")
        self._pid = int(report["pid"])  # another one may have come to the same socket
        self._began = start_of(self._pid)
        return Heard(report)

"""A master without workers: a thread that serves a report, which the test writes, on a socket."""

import copy
import os
import selectors
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from forkresque.errors import ConfigError
from forkresque.supervisor.control import ControlServer

Report = dict[str, Any]


def worker(pid: int, **changes: Any) -> Report:
    """Return what a report says of a worker that rests."""
    return {
        "pid": pid,
        "pool": 0,
        "seat": pid % 100,
        "phase": "idle",
        "job": "",
        "job_seconds": 0.0,
        "done": 0,
        "failed": 0,
        "busy_seconds": 0.0,
        "cpu": 0.0,
        "memory": 12 << 20,
        "age": 60.0,
        "generation": 1,
    } | changes


def pool(name: str = "math", **changes: Any) -> Report:
    """Return what a report says of a pool of two that rest."""
    return {
        "name": name,
        "queues": name.split(","),
        "least": 2,
        "most": 2,
        "wanted": 2,
        "busy": 0,
        "idle": 2,
        "booting": 0,
        "waiting": 0,
        "broken": False,
        "scalings": [],
    } | changes


def scaling(ago: float, before: int, after: int, reason: str) -> Report:
    """Return what a report says of one decision."""
    return {"ago": ago, "before": before, "after": after, "reason": reason}


def numbered(pools: list[Report]) -> list[Report]:
    """Return pools with their numbers, which workers name."""
    return [{"index": at, **one} for at, one in enumerate(pools)]


def report(**changes: Any) -> Report:
    """Return the report of a healthy master with two workers that rest."""
    told: Report = {
        "pid": os.getpid(),
        "version": "1.2.3",
        "generation": 1,
        "uptime": 100.0,
        "queues": ["math"],
        "wanted": 2,
        "paused": False,
        "draining": False,
        "ready": True,
        "trouble": [],
        "reload": {"state": "none", "reason": ""},
        "namespace": "resque",
        "redis": "redis://localhost:6379/0",
        "clerk": {
            "pid": 4100,
            "leads": "promote",
            "waiting": 0,
            "reached": True,
            "promoted": 0,
            "recovered": 0,
        },
        "pools": [pool()],
        "workers": [worker(4101), worker(4102)],
        "counters": {
            "born": 2,
            "died": 0,
            "killed": 0,
            "recycled": 0,
            "scaled_up": 0,
            "scaled_down": 0,
            "fork_failures": 0,
        },
    } | changes
    return told | {"pools": numbered(told["pools"])}


class FakeMaster:
    """Answers the verbs with `report`, changed as they say; `asked` holds all but `status`.

    `script` has changes of the report, one for each later `status`: what takes a master time.
    """

    def __init__(self, path: Path, **changes: Any) -> None:
        self.path = path
        self.report = report(**changes)
        self.asked: list[tuple[str, Report]] = []
        self.looks = 0
        self.script: list[Report] = []
        self.on_reload: list[Report] = []  # the script from a reload on
        self.before: dict[str, Callable[[], None]] = {}  # happens before a verb is carried out
        self._listens = threading.Event()
        self._listens.set()
        self._waker, self._wake = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._waker, selectors.EVENT_READ, None)
        self._server = ControlServer(self._selector, str(path), self._answer)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._server.open()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """Go away, and take the socket along."""
        if self._thread.is_alive():
            self.hear()
            self._wake.send(b".")
            self._thread.join()
            self._server.close()
            self._selector.close()
            self._waker.close()
            self._wake.close()

    def freeze(self) -> None:
        """Answer nothing more, though clients can connect."""
        self._listens.clear()

    def hear(self) -> None:
        """Answer again, also what was asked meanwhile."""
        self._listens.set()

    def _run(self) -> None:
        while True:
            events = self._selector.select()
            self._listens.wait()
            for key, _ in events:
                if key.data is None:
                    return
                key.data()

    def _answer(self, verb: str, arguments: Report) -> Report:
        verbs: dict[str, Callable[[Report], None]] = {
            "status": self._status,
            "pause": lambda _: self.report.update(paused=True),
            "resume": lambda _: self.report.update(paused=False),
            "drain": lambda _: self.report.update(draining=True, ready=False),
            "scale": self._scale,
            "reload": self._reload,
            "kill": self._kill,
        }
        if verb != "status":
            self.asked.append((verb, arguments))
        self.before.get(verb, lambda: None)()
        verbs[verb](arguments)
        self.report["pools"] = numbered(self.report["pools"])
        return copy.deepcopy(self.report)

    def _status(self, _: Report) -> None:
        self.looks += 1
        if self.script:
            self.report.update(self.script.pop(0))

    def _scale(self, arguments: Report) -> None:
        for one in self.report["pools"]:
            if one["name"] == arguments["pool"]:
                most = arguments.get("to", one["most"] + arguments.get("by", 0))
                is_fixed = one["least"] == one["most"]
                one["most"] = max(1, most)
                one["least"] = one["most"] if is_fixed else min(one["least"], one["most"])
                return
        raise ConfigError(f"there is no pool {arguments['pool']!r}")

    def _reload(self, _: Report) -> None:
        if not self.report["draining"]:
            self.report["reload"] = {"state": "checking", "reason": ""}
            self.script = list(self.on_reload)

    def _kill(self, arguments: Report) -> None:
        left = [one for one in self.report["workers"] if one["pid"] != arguments["pid"]]
        if len(left) == len(self.report["workers"]):
            raise ConfigError(f"there is no worker {arguments['pid']} here")
        self.report["workers"] = left

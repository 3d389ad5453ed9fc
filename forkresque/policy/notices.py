"""What a master tells its service manager, and when (the lines of systemd's sd_notify).

Facts and the time go in, lines come out. There is no socket in here.
"""

import math
from typing import NamedTuple

STATUS_EVERY = 1.0  # seconds between two texts
EXTEND_EVERY = 5.0  # seconds between two requests for more time during a drain
EXTENSION = 15.0  # seconds asked for each time; a loop that hangs is noticed after them
SPARE = 5.0  # seconds asked for beyond the end, for a slow machine
WITHHELD = 1.0  # seconds until the next look when the watchdog may not be told
_LONGEST_STATUS = 400  # characters


class Facts(NamedTuple):
    """How the master is now.

    `ready` means that the least number of workers is ready. `reloading` is true from the order
    until the new code serves or was refused; workers may still have to be rolled then. `ends_in`
    are the seconds that a drain can take at most; infinity for one without limit, 0 if nobody
    knows. `consistent` is false when the loop runs but cannot do its work.
    """

    ready: bool
    reloading: bool = False
    stopping: bool = False
    status: str = ""
    ends_in: float = 0.0
    consistent: bool = True


class Notices:
    """What was said, and what is to be said next. `watchdog` is the manager's patience in seconds.

    `reloaded` says that an earlier image of this process was ready and has announced a reload.
    """

    def __init__(self, pid: int, *, watchdog: float = math.inf, reloaded: bool = False) -> None:
        self._pid = pid
        self._half_patience = watchdog / 2
        self._ready = self._reloading = reloaded
        self._stopping = False
        self._status = ""
        self._next_status_at = self._next_extension_at = -math.inf
        self._next_beat_at = math.inf if watchdog == math.inf else -math.inf

    @property
    def ready(self) -> bool:
        """Return whether it was said once that the master is ready."""
        return self._ready

    def due(self, now: float, facts: Facts) -> list[str]:
        """Return the lines of one message; none if there is nothing to say. Changes nothing.

        `now` must be of CLOCK_MONOTONIC, which the manager compares with its own.
        """
        lines = self._state(now, facts)
        if self._is_status_due(now, facts):
            lines.append("STATUS=" + one_line(facts.status))
        if self._is_extension_due(now, facts):
            lines.append(extension(min(facts.ends_in + SPARE, EXTENSION)))
        if self._is_beat_due(now, facts):
            lines.append("WATCHDOG=1")
        return lines

    def said(self, now: float, facts: Facts) -> None:
        """Note that all that was due at this moment has arrived."""
        if self._is_status_due(now, facts):
            self._status, self._next_status_at = facts.status, now + STATUS_EVERY
        if self._is_extension_due(now, facts):
            self._next_extension_at = now + EXTEND_EVERY
        if self._is_beat_due(now, facts):
            self._next_beat_at = now + self._half_patience
        self._stopping = self._stopping or _is_stopping(facts)
        self._ready = self._ready or facts.ready
        self._reloading = self._ready and facts.reloading

    def next_at(self, now: float, facts: Facts) -> float:
        """Return when there will be something to say although nothing has changed."""
        moments = [self._next_beat_at]
        if facts.status != self._status:
            moments.append(self._next_status_at)
        if _may_extend(facts):
            moments.append(self._next_extension_at)
        first = min(moments)
        return first if first > now else now + WITHHELD

    def _is_status_due(self, now: float, facts: Facts) -> bool:
        return facts.status != self._status and now >= self._next_status_at

    def _is_extension_due(self, now: float, facts: Facts) -> bool:
        return _may_extend(facts) and now >= self._next_extension_at

    def _is_beat_due(self, now: float, facts: Facts) -> bool:
        return facts.consistent and now >= self._next_beat_at

    def _state(self, now: float, facts: Facts) -> list[str]:
        if self._stopping:
            return []
        if _is_stopping(facts):
            return ["STOPPING=1"]
        if self._ready and facts.reloading and not self._reloading:
            return ["RELOADING=1", f"MONOTONIC_USEC={int(now * 1e6)}"]
        over = self._reloading and not facts.reloading
        if over or (facts.ready and not self._ready):
            # A pid 1 is counted in a namespace of its own: outside it names another process.
            return ["READY=1", *([f"MAINPID={self._pid}"] if self._pid != 1 else [])]
        return []


def extension(seconds: float) -> str:
    """Return the line that asks for more time: start, stop and watchdog wait so long from now."""
    return f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}"


def one_line(text: str) -> str:
    """Return a text as one line that fits into a message."""
    return " ".join(text.split())[:_LONGEST_STATUS]


def _is_stopping(facts: Facts) -> bool:
    """Return whether the manager should know of the stop.

    Once it knows, it sets a limit of its own and sends no TERM any more. A drain without limit
    is therefore kept from it: it stays a running service, which a TERM can still bound.
    """
    return facts.stopping and facts.ends_in < math.inf


def _may_extend(facts: Facts) -> bool:
    return _is_stopping(facts) and facts.ends_in > 0

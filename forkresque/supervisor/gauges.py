"""What each worker uses of the machine, seen from outside."""

import math
from collections import defaultdict
from dataclasses import dataclass, replace

from forkresque.scoreboard import Role, Scoreboard, Seat
from forkresque.supervisor.resources import Consumption, consumption

_COUNTED_OVER = (
    0.9  # seconds at least: the kernel counts in steps of 10 ms, looks are more frequent
)


@dataclass(slots=True)
class _Gauge:
    """The last look at one process. `cores` is what it has used in the second before `since`."""

    pid: int
    used: Consumption
    first_bytes: int
    since: float
    cpu_then: float
    cores: float | None = None


class Gauges:
    """Looks at workers now and then. Sums by pool only grow: the dead are not taken out again."""

    def __init__(self, board: Scoreboard) -> None:
        self._board = board
        self._gauges: dict[int, _Gauge] = {}
        self.looked_at = -math.inf
        self.run: dict[int, float] = defaultdict(float)  # seconds of CPU that pools had
        self.wait: dict[int, float] = defaultdict(float)  # seconds for which they waited for it

    def look(self, now: float) -> None:
        """Look at all workers."""
        self.looked_at = now
        found = {}
        for number, seat in enumerate(self._board.seats):
            if seat.pid and seat.role == Role.WORKER and (used := consumption(seat.pid)):
                found[number] = self._compared(number, seat, used, now)
        self._gauges = found

    def cores(self, number: int) -> float | None:
        """Return how many cores the worker in a seat has used lately."""
        gauge = self._gauge_of(number)
        return gauge.cores if gauge else None

    def growth(self) -> dict[int, int]:
        """Return by how many bytes each worker has grown since it was ready, or first seen."""
        return {
            number: max(0, (gauge.used.anonymous_bytes or 0) - self._at_ready(number, gauge))
            for number in self._gauges
            if (gauge := self._gauge_of(number))
        }

    def _gauge_of(self, number: int) -> _Gauge | None:
        gauge = self._gauges.get(number)
        return gauge if gauge and gauge.pid == self._board.seats[number].pid else None

    def _at_ready(self, number: int, gauge: _Gauge) -> int:
        return int(self._board.seats[number].own_at_ready) or gauge.first_bytes

    def _compared(self, number: int, seat: Seat, used: Consumption, now: float) -> _Gauge:
        before, cpu = self._gauges.get(number), used.cpu or 0.0
        if before is None or before.pid != seat.pid:
            return _Gauge(seat.pid, used, used.anonymous_bytes or 0, now, cpu)
        self.run[seat.pool] += _rise(before.used.run, used.run)
        self.wait[seat.pool] += _rise(before.used.wait, used.wait)
        past = now - before.since
        if past < _COUNTED_OVER:
            return replace(before, used=used)
        cores = _rise(before.cpu_then, cpu) / past
        return _Gauge(seat.pid, used, before.first_bytes, now, cpu, cores)


def _rise(before: float | None, after: float | None) -> float:
    return max(0.0, (after or 0.0) - (before or 0.0))

"""Which child is stuck, frozen, overdue or too large, and what becomes of it.

Death is what the kernel says, and is not judged here. A beat that is late makes a child
suspect: its stacks are taken first, then it is asked to leave or killed.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from forkresque.policy.child import Child, Doing, Dump, Facts, Fault, Kill, Kind, Rouse

CLERK_SILENCE = 10.0  # seconds without a beat after which the clerk is killed
FROZEN_AFTER = 60.0  # the same for a worker that has no job in hand
LEAST_FROZEN = 10.0  # no --heartbeat-timeout makes that shorter: a claim may wait for Redis
REPORT_AFTER = 60.0  # seconds without a beat after which the stacks of a job are reported
DUMP_GRACE = 0.5  # seconds from asking for a stack dump to the kill
ROUSE_GRACE = 3.0  # seconds from asking a frozen child to leave to the kill


def frozen_after(heartbeat_timeout: float) -> float:
    """Return the seconds without a beat after which a worker without a job is frozen."""
    if not heartbeat_timeout:
        return FROZEN_AFTER
    return min(FROZEN_AFTER, max(LEAST_FROZEN, heartbeat_timeout))


@dataclass(slots=True)
class Judge:
    """The limits of one master's children. Times are in seconds, memory in bytes; 0: no limit."""

    boot_timeout: float = 60.0
    heartbeat_timeout: float = 300.0
    max_memory: int = 0

    def judge(self, child: Child, seen: Facts, now: float) -> Iterable[Dump]:
        """Condemn a child that has a fault; report a job that has been silent for long."""
        fault = self._fault(child, seen, now)
        if fault and not child.fault:
            child.fault = fault
            if fault is Fault.SILENT and child.kind is Kind.WORKER:
                child.rouse_at = now + DUMP_GRACE
                child.kill_at = min(child.kill_at, now + ROUSE_GRACE)
            else:
                child.kill_at = min(child.kill_at, now + DUMP_GRACE)
            yield Dump(child.seat, fault)
        elif not child.fault and self._is_strange(child, seen):  # its last words would be lost
            child.reported = seen.epoch
            yield Dump(child.seat, Fault.NONE)

    def carry_out(self, child: Child, seen: Facts, now: float) -> Iterable[Rouse | Kill]:
        """Ask a condemned child to leave, and end it when its time is over."""
        if now >= child.rouse_at:
            child.rouse_at = math.inf
            yield Rouse(child.seat)
        if now >= child.kill_at and not child.killed:
            child.killed = True
            cut = child.fault in (Fault.CUT, Fault.CUT_OFF)
            child.cut |= cut and seen.doing in (Doing.RUN, Doing.SETTLE)
            yield Kill(child.seat, child.fault)

    def patience(self, kind: Kind) -> float:
        """Return after how many seconds of silence a child that has no job in hand is condemned."""
        if kind is Kind.WATCHER:
            return math.inf
        return CLERK_SILENCE if kind is Kind.CLERK else frozen_after(self.heartbeat_timeout)

    def _fault(self, child: Child, seen: Facts, now: float) -> Fault:
        if child.kind is Kind.WATCHER:
            return Fault.NONE
        if seen.doing is Doing.BOOT and not child.ready:  # one that is ready waits for Redis
            return Fault.BOOT if now - child.born_at > self.boot_timeout else Fault.NONE
        if child.kind is Kind.CLERK:
            return Fault.SILENT if seen.silent > self.patience(child.kind) else Fault.NONE
        if 0 < 2 * self.max_memory < seen.grows:
            return Fault.TOO_LARGE
        if seen.doing is not Doing.RUN:
            return Fault.SILENT if seen.silent > self.patience(child.kind) else Fault.NONE
        return self._fault_of_job(seen)

    def _fault_of_job(self, seen: Facts) -> Fault:
        if seen.hard_in <= 0:
            return Fault.OVERDUE
        stuck = 0 < self.heartbeat_timeout < seen.silent
        return Fault.STUCK if stuck else Fault.NONE

    def _is_strange(self, child: Child, seen: Facts) -> bool:
        """Return whether a job has been silent for so long that somebody should know where."""
        silent = seen.doing is Doing.RUN and seen.silent > REPORT_AFTER
        return silent and child.kind is Kind.WORKER and child.reported != seen.epoch

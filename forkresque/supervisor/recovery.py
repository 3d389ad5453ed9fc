"""What the clerk does for the jobs of those who are gone: its own workers, and other masters'."""

import logging
import math
import signal
import time
from collections.abc import Mapping

from forkresque import processes
from forkresque.errors import DIRTY_EXIT, BadKey
from forkresque.inquest import Finding, verdict
from forkresque.jobs import Definition
from forkresque.policy.child import Fault
from forkresque.policy.verdicts import Blame, is_host_lost
from forkresque.protocol.connection import RedisClock
from forkresque.protocol.ownership import Held, Lease, carrier_lives
from forkresque.protocol.registry import Recovery, Registry
from forkresque.supervisor.messages import Died

log = logging.getLogger("forkresque.clerk")

LEAP = 1.0  # seconds by which two clocks may part between two looks

_NAMES = {Fault.STUCK: "WorkerStuck", Fault.OVERDUE: "JobTimeout"}


class Coroner:
    """Finds out who is dead, and brings back what they had in hand."""

    def __init__(
        self, registry: Registry, clock: RedisClock, jobs: Mapping[str, Definition], lease: Lease
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._jobs = jobs
        self._lease = lease
        self._misses: dict[str, int] = {}
        self._error = math.nan  # of our clock, against Redis'
        self._steady_since = -math.inf
        self.recovered = 0  # jobs brought back, or recorded as failed

    def settle(self, died: Died) -> Recovery:
        """Settle the death of one of our own workers. Sending it again changes nothing more."""
        account, result = _account(died), Recovery.CHANGED
        while result is Recovery.CHANGED:
            held = self._registry.held(died.worker)
            if held.owner != died.owner:
                return Recovery.NONE  # it has left in good order, or its id is somebody else's
            # A worker that dies in settling may have the next job in its slot, not yet begun.
            begun = died.working and held.token.rpartition(".")[2] == str(died.claim)
            blame = _blame(died) if begun else Blame.NOBODY
            name = _NAMES.get(died.blamed, DIRTY_EXIT)
            result = self._recover(held, Finding(blame, begun, account, name, died.dump))
        if result is not Recovery.NONE:
            log.warning("%s; %s", account, _OUTCOMES[result])
        return result

    @property
    def misses(self) -> bool:
        """Return whether the lease of some master was missing at the last look."""
        return any(self._misses.values())

    def look_around(self, *, reached_for: float) -> bool:
        """Bring back the jobs of dead masters; return whether some of their workers live on.

        A master of this host is dead when its process is; one elsewhere when its lease has run
        out for long enough.
        """
        reached_for = min(reached_for, self._steady_for())
        orphans = False
        masters = [name for name in self._registry.masters() if name != self._lease.master]
        self._misses = {name: self._misses.get(name, 0) for name in masters}
        for name in masters:
            value = self._registry.lease_value(name)
            self._misses[name] = self._misses[name] + 1 if value is None else 0
            if value is None:
                misses, term = self._misses[name], self._lease.term
                if is_host_lost(misses=misses, reached_for=reached_for, lease=term):
                    alive = self._bury(name, local=False)
                    orphans |= alive
                    if not alive:  # should it come back, it takes two looks once more
                        self._misses[name] = 0
            elif processes.is_ours_to_judge(value) and not processes.is_described_alive(value):
                orphans |= self._bury(name, local=True)
        return orphans

    def _steady_for(self) -> float:
        """Return for how long Redis' clock has gone as ours does.

        When it leaps ahead, every lease runs out at once, also those of the living.
        """
        now = time.monotonic()
        error = self._clock.look() - now
        if abs(error - self._error) >= LEAP:  # never at the first look, which has no other
            self._steady_since = now
        self._error = error
        return now - self._steady_since

    def _bury(self, master: str, *, local: bool) -> bool:
        """Recover the workers of a dead master; return whether some are alive."""
        alive = False
        for worker in self._registry.kids(master):
            account = f"the master {master} of worker {worker} is gone"
            try:
                held = self._registry.held(worker)
                if local and carrier_lives(held.owner):
                    alive = True
                    continue
                result = self._recover(
                    held, Finding(Blame.HOST, bool(held.token), account), heed_lease=not local
                )
            except BadKey as error:
                log.warning("%s; %s", account, error)
                alive = True
                continue
            alive |= result is Recovery.ALIVE
            log.warning("%s; %s", account, _OUTCOMES[result])
        if not alive:
            self._registry.forget_master(master)
        return alive

    def _recover(self, held: Held, finding: Finding, *, heed_lease: bool = False) -> Recovery:
        ruling = verdict(held, finding, self._jobs, now=self._clock.now())
        result = self._registry.recover(held, ruling, heed_lease=heed_lease)
        self.recovered += result in (Recovery.REQUEUED, Recovery.FAILED, Recovery.POISON)
        return result


_OUTCOMES = {
    Recovery.REQUEUED: "its job is back at the head of its queue",
    Recovery.FAILED: "its job is recorded as failed",
    Recovery.POISON: "its job has done that too often and is recorded as failed",
    Recovery.FOREIGN: "its job was recorded as failed by a foreign tool already",
    Recovery.NONE: "it had no job in hand",
    Recovery.ALIVE: "it holds on to its job",
    Recovery.CHANGED: "somebody else looks after it",
}


def _account(died: Died) -> str:
    """Say what happened, for the log and the failure record."""
    if died.signum:
        how = f"was killed by {_signal_name(died.signum)}"
    else:
        how = f"exited with status {died.status}"
    doing = f" while performing {died.job}" if died.working and died.job else ""
    why = f": {died.fault}" if died.fault else ""
    return f"worker {died.worker} {how}{doing}{why}"


def _signal_name(signum: int) -> str:
    try:
        return signal.Signals(signum).name
    except ValueError:  # most real-time signals have no name
        return f"signal {signum}"


def _blame(died: Died) -> Blame:
    if died.blamed in (Fault.STUCK, Fault.OVERDUE):
        return Blame.LIMIT
    return Blame.NOBODY if died.cut else Blame.JOB

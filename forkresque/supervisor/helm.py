"""What people want of a master: signals and verbs only change what is wanted."""

import logging
import math
import signal
import sys
import time
from collections.abc import Callable

from forkresque.events import Emitter
from forkresque.options import SupervisorOptions
from forkresque.policy.child import Fault, Kind
from forkresque.policy.ending import Ending
from forkresque.policy.pool import Pool
from forkresque.scoreboard import LAYOUT
from forkresque.supervisor.children import Children
from forkresque.supervisor.estate import Estate
from forkresque.supervisor.reload import Fitness, Reload

log = logging.getLogger("forkresque.master")


class Helm:
    """Carries out orders. `signals` is what each signal to the master means."""

    def __init__(
        self,
        estate: Estate,
        children: Children,
        options: SupervisorOptions,
        reload: Reload,
        events: Emitter,
    ) -> None:
        self._events = events
        self._crew = estate.crew
        self._orders = estate.board.orders
        self._children = children
        self._options = options
        self._reload = reload
        self.ending = Ending()
        # Asked now: of a terminal that was closed, nobody can tell any more that it was one.
        self._on_terminal = sys.stdin is not None and sys.stdin.isatty()
        self.signals: dict[int, Callable[[], None]] = {
            signal.SIGTERM: self._on_term,
            signal.SIGINT: self._on_interrupt,
            signal.SIGQUIT: lambda: self.stop(math.inf),
            signal.SIGHUP: self._on_hangup,
            signal.SIGUSR1: lambda: self.pause(on=True),
            signal.SIGUSR2: lambda: self.pause(on=True),
            signal.SIGCONT: lambda: self.pause(on=False),
            signal.SIGTTIN: lambda: self._resize(+1),
            signal.SIGTTOU: lambda: self._resize(-1),
        }

    @property
    def pools(self) -> list[Pool]:
        """Return the pools that are wanted."""
        return [pool for pool in self._crew.pools if pool.most]

    @property
    def patience(self) -> float:
        """Return what jobs in hand get at a drain, in seconds."""
        return self._options.shutdown_timeout

    def stop(self, within: float) -> None:
        """Drain: jobs in hand get `within` seconds."""
        if not self._crew.stopping:
            log.info("draining within=%g", within)
            self._events.emit("multi_worker_action", "--", f"draining within {within:g} s")
        self._crew.stop(time.monotonic(), within)
        self._orders.draining = 1
        self._reload.cancel()
        self._children.wake_workers()

    def pause(self, *, on: bool) -> None:
        """Let no new job start, or let them start again."""
        if self._crew.paused != on:
            log.info("paused" if on else "resumed")
            self._events.emit("multi_worker_action", "x", "paused" if on else "resumed")
            if on:
                self._events.emit("pause", 0)
        self._crew.paused = on
        self._orders.paused = int(on)
        self._children.wake_workers()

    def scale(self, pool: Pool, most: int) -> None:
        """Let a pool have so many workers; one of fixed size then has as many."""
        self._crew.allow(pool, most)
        log.info("workers=%s pool=%s", pool.most, pool.name)

    def reload(self) -> None:
        """Try the new code; when it can be used, it replaces this image."""
        if not self._crew.stopping:
            log.info("reloading: the new code is checked first")
            within = self._options.boot_timeout
            wanted = Fitness(LAYOUT, self._crew.seats, len(self._crew.pools))
            self._reload.begin(time.monotonic(), wanted, within=within)

    def kill(self, pid: int) -> bool:
        """Kill a worker; return False if there is none with this pid."""
        for member in self._children.members:
            if member.forked.pid == pid and member.kind is Kind.WORKER:
                self._crew.condemn(member.seat, Fault.ORDERED, time.monotonic())
                return True
        return False

    def _resize(self, by: int) -> None:
        pool = self.pools[0]
        self.scale(pool, pool.most + by)

    def _on_term(self) -> None:
        if self.ending.term(time.monotonic()):
            self._end()
        else:
            self.stop(self.patience)

    def _on_interrupt(self) -> None:
        if self.ending.interrupt():
            self._end()
        else:
            self.stop(self.patience)
            log.info("another interrupt would cut the jobs in hand")

    def _on_hangup(self) -> None:
        """Reload; but drain when the terminal is gone from which this was started."""
        if self._on_terminal:
            self.stop(self.patience)
        else:
            self.reload()

    def _end(self) -> None:
        log.warning("ending at once; jobs in hand go back to their queues")
        self._crew.end(time.monotonic())

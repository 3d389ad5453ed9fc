"""The master: forks, reaps, hears signals. No network, one thread, and safe as PID 1.

Sense, decide, act, in one loop. Stopping, pausing, scaling and reloading only change what is
wanted; nothing waits anywhere else, so a TERM is heard during a drain.
"""

import logging
import math
import os
import select
import selectors
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from forkresque.app import Forkresque
from forkresque.errors import ExitCode, ForkresqueError
from forkresque.events import Emitter
from forkresque.options import SupervisorOptions
from forkresque.policy import notices
from forkresque.policy.child import Child, Doing, Facts, Fault, Kind
from forkresque.policy.crew import ABORT_GRACE, BOOKS_GRACE
from forkresque.protocol.script import load_all
from forkresque.scoreboard import Phase
from forkresque.supervisor import report, resources
from forkresque.supervisor.child import freeze_memory
from forkresque.supervisor.children import Children
from forkresque.supervisor.control import ControlServer
from forkresque.supervisor.estate import Estate
from forkresque.supervisor.foreman import Foreman, chance
from forkresque.supervisor.gauges import Gauges
from forkresque.supervisor.helm import Helm
from forkresque.supervisor.limits import allow_descriptors
from forkresque.supervisor.lull import Lull, unnoticed
from forkresque.supervisor.memory import MemoryGuard
from forkresque.supervisor.messages import (
    BatonWanted,
    Changed,
    Died,
    Message,
    Ready,
    Redialled,
    Settled,
)
from forkresque.supervisor.notify import Notifier, forget_manager
from forkresque.supervisor.obituaries import Obituaries
from forkresque.supervisor.pidfile import Pidfile
from forkresque.supervisor.reload import Reload
from forkresque.supervisor.scaling import Scaling
from forkresque.supervisor.strays import Leftovers
from forkresque.supervisor.succession import succeed
from forkresque.supervisor.titles import set_title
from forkresque.supervisor.verbs import Verbs
from forkresque.supervisor.wakeups import Wakeups

log = logging.getLogger("forkresque.master")

PROGRESS_EVERY = 5.0  # seconds between two lines about a drain
UNSTEADY = 0.02  # seconds until the next look for a baton that was on its way
IMPORT_TIME = 60.0  # seconds for which a service manager is asked to wait for an import
_DESCRIPTORS, _OWN_DESCRIPTORS = 3, 64  # open files for each child, and apart from children


class Master:
    """One master and its children."""

    def __init__(
        self,
        load: Callable[[], Forkresque],
        options: SupervisorOptions,
        estate: Estate,
        events: Emitter,
        *,
        pinned: str = "",
        broken: str = "",
    ) -> None:
        self._load = load
        self._options = options
        self._estate = estate
        self._events = events
        self._board = estate.board
        self._crew = estate.crew
        self._selector = selectors.DefaultSelector()
        self._children = Children(self._board, self._selector, estate.identity)
        self._obituaries = Obituaries(self._children, self._crew, estate.deaths)
        self._foreman = Foreman(estate, self._children, load, options, events, let_go=self._let_go)
        self._reload = Reload(pinned=pinned, broken=broken)
        self._helm = Helm(estate, self._children, options, self._reload, events)
        self._gauges = Gauges(self._board)
        self._scaling = Scaling(self._board, self._crew, self._gauges, options.target_latency)
        verbs = Verbs(self._helm, self._report)
        self._control = ControlServer(self._selector, options.control, verbs.answer)
        self._pidfile = Pidfile(Path(options.pidfile)) if options.pidfile else None
        self._notifier = Notifier.from_environ(os.environ, os.getpid(), reloaded=estate.announced)
        self._orders = self._helm.signals | {signal.SIGABRT: self._ask_for_dumps}
        self._wakeups = Wakeups([*self._orders, signal.SIGCHLD])
        self._memory = MemoryGuard(self._gauges, limited=bool(options.max_memory))
        self._leftovers = Leftovers(estate.strays, time.monotonic())
        self._unnoticed = unnoticed(load, options)
        self._lull = Lull(
            self._selector,
            self._crew,
            self._children,
            self._leftovers,
            self._look_at_memory,
            lambda: min(self._unnoticed, self._memory.every),
        )
        self._told_at = -math.inf
        self._lapses = self._board.books.lapses
        self._title = ""

    def run(self) -> int:
        """Supervise until a stop has been carried out; return the exit code."""
        self._wakeups.install()
        self._selector.register(self._wakeups.fileno(), selectors.EVENT_READ)
        allow_descriptors(_DESCRIPTORS * len(self._board.seats) + _OWN_DESCRIPTORS)
        try:
            if self._estate.mask is None:
                self._begin()
            else:
                self._go_on(self._estate)
            load_all()  # a third of what a child takes to be born
            self._foreman.prepare()
            freeze_memory()
            self._events.emit("start", 0)
            self._loop()
        finally:
            self._reload.cancel()
            self._leftovers.end(self._own_pids(), time.monotonic())
            self._control.close()
            if self._pidfile:
                self._pidfile.close()
        self._events.emit("end", 0)
        log.info("stopped exit=%s", self._exit_code())
        return self._exit_code()

    def _begin(self) -> None:
        """Be a new master."""
        resources.become_subreaper()
        self._board.orders.started_ns = time.monotonic_ns()
        if self._pidfile:
            self._pidfile.open()
        self._control.open()
        for baton in self._estate.batons:
            baton.give()  # to the first who is ready, while others are still to be forked
        for pool in self._crew.pools:
            size = f"{pool.least}:{pool.most}" if pool.is_elastic else pool.target
            log.info("started pid=%s queues=%s workers=%s", os.getpid(), pool.name, size)

    def _go_on(self, estate: Estate) -> None:
        """Be the next image of a master that is running."""
        for member in estate.members:
            self._children.admit(member)
        if self._pidfile:
            self._pidfile = Pidfile(Path(self._options.pidfile), fd=estate.pidfile)
            self._pidfile.reopen()
        elif estate.pidfile is not None:
            os.close(estate.pidfile)
        if estate.control:
            self._control.adopt(estate.control)
        signal.pthread_sigmask(signal.SIG_SETMASK, estate.mask or ())
        log.info("reloaded pid=%s generation=%s", os.getpid(), self._crew.generation)

    def _loop(self) -> None:
        while True:
            self._reap()
            if self._crew.finished:
                return
            now = time.monotonic()
            if now >= self._leftovers.due_at:
                self._leftovers.look(self._own_pids(), now)
            facts = self._sense(now)
            self._lull.notice()
            self._scale(now, facts)
            late, cut_off = now < self._lull.late_until, self._is_cut_off(now)
            self._foreman.carry_out(self._crew.plan(now, facts, late=late, cut_off=cut_off))
            self._obituaries.repeat(now)
            self._give_up(now)
            self._tell_progress(now, facts)
            self._control.listen()
            steady = self._look_after_batons()
            self._show(now)
            self._listen(self._pause(now, facts, steady=steady))

    def _pause(self, now: float, facts: Mapping[int, Facts], *, steady: bool) -> float:
        """Return for how long there is nothing to do but to listen."""
        moments: list[float] = [
            self._crew.next_step_at(now, facts),
            self._scaling.due_at(),
            self._notifier.next_at,
            self._control.deaf_until,
        ]
        if not self._leftovers.are_as_before():
            moments.append(self._leftovers.due_at)
        pause = min(self._reload.pause(now), max(0.0, min(moments) - now))
        return self._lull.length(now, pause) if steady else min(pause, UNSTEADY)

    def _look_after_batons(self) -> bool:
        """Replace a baton that was lost; return False if one was on its way while we looked.

        Whoever takes a baton says so before, by its phase and its turns, and whoever has it
        passes it on before that phase ends. So if nobody is on call, the pipe is empty and no
        turn was begun meanwhile, it is nowhere.
        """
        turns, facts = self._children.turns(), self._children.facts()
        poll = select.poll()  # not select, which knows no descriptor beyond 1023
        for pipe in self._estate.batons:
            poll.register(pipe.reader, select.POLLIN)
        full = dict(poll.poll(0))
        if turns != self._children.turns():
            return False
        for index, pipe in enumerate(self._estate.batons):
            for action in self._crew.baton(index, facts, pipe_empty=pipe.reader not in full):
                self._foreman.act(action)
        return True

    # -- sense -------------------------------------------------------------------------------

    def _sense(self, now: float) -> dict[int, Facts]:
        self._lull.expect(now)
        self._look_at_memory(now)
        return self._children.facts(self._memory.growth())

    def _listen(self, timeout: float) -> None:
        ready = self._lull.sleep(timeout)
        self._foreman.log_dumps()
        for key, _ in ready:
            if isinstance(key.data, int):
                for message in self._children.hear(key.data):
                    self._on_message(key.data, message)
            elif key.data is not None:
                key.data()
        for signum in sorted(self._wakeups.take() & self._orders.keys()):
            self._orders[signum]()

    def _look_at_memory(self, now: float) -> bool:
        """Have the worker go that takes too much for the others; return if there is more to do."""
        largest = self._memory.look(now)
        if largest is not None and largest in self._crew.children:
            self._crew.condemn(largest, Fault.CROWDED, now)
            return True
        return bool(self._options.max_memory)  # what each has by now is judged in a pass

    def _on_message(self, seat: int, message: Message) -> None:
        """Do what a child says, if it is that child's to say: a job may write into its pair."""
        kind = self._crew.children[seat].kind
        match message:
            case Ready():
                self._crew.got_ready(seat)
                if kind is Kind.CLERK:
                    self._obituaries.tell(seat)
                elif kind is Kind.WORKER:
                    self._events.emit("start", seat)
            case Settled() if kind is Kind.CLERK:
                self._obituaries.settled(message)
            case BatonWanted() | Redialled() if kind is Kind.CLERK:
                self._rouse(message)
            case Changed(path=path) if kind is Kind.WATCHER:
                log.info("changed file=%s", path)
                self._helm.reload()
            case _:
                log.debug("child=%s said %s", seat, message)

    def _rouse(self, message: BatonWanted | Redialled) -> None:
        """Wake idle workers, for the clerk."""
        if isinstance(message, Redialled):
            self._children.wake_workers()
        elif not self._crew.paused and not self._crew.stopping:
            self._estate.batons[message.pool].give()

    def _reap(self) -> None:
        for member, status in self._children.reap(self._on_stranger):
            for message in self._children.hear(member.seat):  # it may have got ready before it died
                self._on_message(member.seat, message)
            booted = self._board.seats[member.seat].phase is not Phase.BOOT
            child = self._crew.died(member.seat, time.monotonic(), jitter=chance(), booted=booted)
            self._look_for_oom(child, status)
            gone = bool(self._board.seats[member.seat].gone)
            died = self._children.bury(member, child, status)
            self._leftovers.died(died.pid, member.forked.start, time.monotonic())
            quiet = not died.signum and died.status == ExitCode.OK
            level = logging.DEBUG if quiet else logging.WARNING
            how = f"signal={died.signum}" if died.signum else f"status={died.status}"
            log.log(level, "child=%s %s pid=%s ended %s", child.seat, child.kind, died.pid, how)
            if child.kind is not Kind.WORKER or not died.working:  # a job's failure record has them
                for line in died.dump:
                    log.warning("child=%s pid=%s %s", child.seat, died.pid, line)
            if child.kind is Kind.WORKER:
                if not quiet:
                    account = ForkresqueError(f"worker {died.worker} ended: {child.fault or how}")
                    self._events.emit("error", account, child.seat, None, None)
                self._events.emit("end", child.seat)
                self._note_death(died, time.monotonic(), gone=gone)

    def _look_for_oom(self, child: Child, status: int) -> None:
        """Find out whether a kill that nobody here ordered was the kernel's, for want of memory."""
        killed = os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        if killed and not child.fault and self._memory.explains_a_kill(time.monotonic()):
            child.fault = Fault.OOM

    def _own_pids(self) -> set[int]:
        return {member.forked.pid for member in self._children.members} | self._reload.pids

    def _on_stranger(self, pid: int, status: int) -> None:
        """Take note of the end of a process that is no child: the check of new code, an orphan."""
        if not self._reload.is_check(pid):
            log.debug("pid=%s ended, an orphan", pid)
        elif self._reload.checked(status):
            self._become_next()
        elif not self._crew.stopping:
            log.error("reload refused, the old code goes on: %s", self._reload.reason)
        if self._reload.is_wanted_again():
            self._helm.reload()

    def _note_death(self, died: Died, now: float, *, gone: bool) -> None:
        """Have the clerk settle a death, unless the worker was `gone` from Redis before."""
        if not gone:
            self._obituaries.note(died, now)
        if died.status == ExitCode.CONFIG and not self._crew.ever_ready:
            # The application cannot be imported, and never could: trying again is no use.
            self._helm.ending.failure = ExitCode.CONFIG
            self._helm.stop(0.0)

    def _is_cut_off(self, now: float) -> bool:
        """Return whether other hosts may take our jobs, or may have, and ours must be stopped."""
        books, seen = self._board.books, self._lapses
        self._lapses = books.lapses
        is_untrusted = 0 < books.trusted_ns < now * 1e9 or seen != self._lapses
        return self._options.on_partition == "stop" and is_untrusted

    def _give_up(self, now: float) -> None:
        """End when no worker has got ready for long; a service manager has its own patience."""
        patience = self._options.give_up
        if not patience or self._crew.stopping or self._notifier.is_heard:
            return
        if self._crew.failing_for(now) > patience:
            log.error("no worker got ready for %g s; giving up", patience)
            self._helm.ending.failure = ExitCode.INTERNAL
            self._helm.stop(0.0)

    def _tell_progress(self, now: float, facts: Mapping[int, Facts]) -> None:
        """Say now and then whom a drain waits for."""
        if self._crew.stopping and now - self._told_at > PROGRESS_EVERY:
            busy = sum(seen.doing is Doing.RUN for seen in facts.values())
            if self._told_at > -math.inf:
                log.info("draining jobs=%s children=%s", busy, len(facts))
            self._told_at = now

    # -- act ---------------------------------------------------------------------------------

    def _scale(self, now: float, facts: Mapping[int, Facts]) -> None:
        for change in self._scaling.step(now, facts):
            up = change.after > change.before
            self._crew.counts["scaled_up" if up else "scaled_down"] += 1
            self._foreman.reasons[change.pool.name] = change.after, change.reason
            log.info(
                "scaled pool=%s from=%s to=%s: %s",
                change.pool.name,
                change.before,
                change.after,
                change.reason,
            )

    def _let_go(self) -> None:
        """Close, in a new child, what is the master's own."""
        self._wakeups.close_in_child()
        self._selector.close()
        self._control.close_in_child()
        if self._pidfile:
            self._pidfile.close_in_child()
        forget_manager(os.environ)

    def _ask_for_dumps(self) -> None:
        log.warning("state=%s", self._report())
        self._foreman.ask_for_dumps()

    def _become_next(self) -> None:
        """Replace this image by the next one, under the same pid."""
        now = time.monotonic()
        if self._crew.stopping:
            return
        self._notifier.tell(now, self._facts_for_manager())
        self._notifier.ask_for_time(IMPORT_TIME)
        log.info("replacing this master by the new code")
        self._reload.go()
        try:
            succeed(
                self._estate,
                self._children,
                self._obituaries,
                self._leftovers,
                self._control,
                self._pidfile,
                self._wakeups,
                announced=self._notifier.has_announced,
            )
        except OSError as error:
            self._reload.refuse(f"the new code cannot be executed: {error}")
            log.error("reload refused, the old code goes on: %s", error)  # noqa: TRY400

    # -- telling -----------------------------------------------------------------------------

    def _show(self, now: float) -> None:
        title = report.title(self._crew)
        if title != self._title:
            self._title = title
            set_title(title)
        self._notifier.tell(now, self._facts_for_manager())

    def _facts_for_manager(self) -> notices.Facts:
        crew = self._crew
        return notices.Facts(
            ready=report.has_enough(crew),
            reloading=self._reload.state == "checking",
            stopping=crew.stopping,
            status=self._title,
            ends_in=max(0.0, crew.abort_at + ABORT_GRACE + BOOKS_GRACE - time.monotonic()),
        )

    def _report(self) -> dict[str, Any]:
        """Return the state of everything here, as JSON can carry it."""
        told = report.of_master(
            self._board, self._crew, self._gauges, self._scaling, self._children
        )
        return told | self._place() | {"reload": self._reload_state()}

    def _reload_state(self) -> dict[str, str]:
        state = "rolling" if self._crew.is_rolling else self._reload.state
        return {"state": state, "reason": self._reload.reason}

    def _place(self) -> dict[str, str]:
        """Return which Redis it is, where the master can know: if it has the application."""
        try:
            app = self._load() if self._options.preload else None
        except ForkresqueError:  # this image could not import it, see `Reload.reason`
            app = None
        if app is None:
            return {"namespace": "", "redis": ""}
        return {"namespace": app.namespace, "redis": app.masked_url}

    def _exit_code(self) -> int:
        return self._helm.ending.exit_code(cuts=self._crew.cuts)

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
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, assert_never

from forkresque import embedded
from forkresque.app import Forkresque
from forkresque.errors import ExitCode
from forkresque.options import SupervisorOptions
from forkresque.policy import notices
from forkresque.policy.child import (
    Action,
    Baton,
    Child,
    Dismiss,
    Dump,
    Facts,
    Fault,
    Interrupt,
    Kill,
    Kind,
    Release,
    Rouse,
    Spawn,
)
from forkresque.policy.ending import Ending
from forkresque.policy.judgement import REPORT_AFTER
from forkresque.policy.pool import Pool
from forkresque.protocol.script import load_all
from forkresque.supervisor import handover, report, resources
from forkresque.supervisor.child import SOFT, Inheritance, freeze_memory
from forkresque.supervisor.children import Body, Children
from forkresque.supervisor.clerk import Clerk
from forkresque.supervisor.control import ControlServer
from forkresque.supervisor.estate import Estate
from forkresque.supervisor.gauges import Gauges
from forkresque.supervisor.hand import work
from forkresque.supervisor.limits import allow_descriptors
from forkresque.supervisor.messages import (
    BatonWanted,
    Changed,
    Died,
    Interrupted,
    Leave,
    Message,
    Ready,
    Settled,
    Wake,
)
from forkresque.supervisor.notify import Notifier, forget_manager
from forkresque.supervisor.pidfile import Pidfile
from forkresque.supervisor.reload import Reload, argv
from forkresque.supervisor.scaling import Scaling
from forkresque.supervisor.verbs import Verbs
from forkresque.supervisor.wakeups import Wakeups
from forkresque.worker import set_title

log = logging.getLogger("forkresque.master")

TICK = 1.0  # the longest sleep, in seconds
STANDSTILL = 5.0  # a pass that is this much late means that the machine stood still
UNSTEADY = 0.02  # seconds until the next look for a baton that was on its way
GAUGE_EVERY = 1.0  # seconds between looks at memory, where it is limited
COMPLAIN_EVERY = 60.0  # seconds between two lines that say the same
IMPORT_TIME = 60.0  # seconds for which a service manager is asked to wait for an import
_DESCRIPTORS, _OWN_DESCRIPTORS = 3, 64  # open files for each child, and apart from children


class Master:
    """One master and its children."""

    def __init__(
        self,
        load: Callable[[], Forkresque],
        options: SupervisorOptions,
        estate: Estate,
        *,
        pinned: str = "",
        broken: str = "",
    ) -> None:
        self._load = load
        self._options = options
        self._estate = estate
        self._board = estate.board
        self._crew = estate.crew
        self._batons = estate.batons
        self._selector = selectors.DefaultSelector()
        self._children = Children(
            self._board,
            self._selector,
            estate.identity,
            {Kind.CLERK: self._clerk, Kind.WORKER: self._worker},
        )
        self._gauges = Gauges(self._board)
        self._scaling = Scaling(self._board, self._crew, self._gauges, options.target_latency)
        self._control = ControlServer(self._selector, options.control, Verbs(self).answer)
        self._pidfile = Pidfile(Path(options.pidfile)) if options.pidfile else None
        self._notifier = Notifier.from_environ(
            os.environ, os.getpid(), reloaded=estate.mask is not None
        )
        self._orders = self._table_of_signals()
        self._wakeups = Wakeups([*self._orders, signal.SIGCHLD])
        self._deaths = {(died.worker, died.owner): died for died in estate.deaths}
        self._ending = Ending()
        self._reload = Reload(pinned=pinned)
        if broken:
            self._reload.refuse(broken)
        self._told_at = -math.inf
        self._complained_at = -math.inf
        self._oom_kills = resources.oom_kills()
        self._dumps_asked: set[int] = set()
        self._title = ""

    def run(self) -> int:
        """Supervise until a stop has been carried out; return the exit code."""
        self._wakeups.install()
        self._selector.register(self._wakeups.fileno(), selectors.EVENT_READ)
        allow_descriptors(_DESCRIPTORS * len(self._board.seats) + _OWN_DESCRIPTORS)
        if self._estate.mask is None:
            self._begin()
        else:
            self._go_on(self._estate)
        load_all()  # a third of what a child takes to be born
        freeze_memory()
        try:
            self._loop()
        finally:
            self._reload.cancel()
            self._control.close()
            if self._pidfile:
                self._pidfile.close()
        log.info("stopped exit=%s", self._exit_code())
        return self._exit_code()

    def _begin(self) -> None:
        """Be a new master."""
        resources.become_subreaper()
        self._board.orders.started_ns = time.monotonic_ns()
        if self._pidfile:
            self._pidfile.open()
        self._control.open()
        for pool in self._crew.pools:
            size = f"{pool.least}:{pool.most}" if pool.is_elastic else pool.target
            log.info("started pid=%s queues=%s workers=%s", os.getpid(), pool.name, size)

    def _go_on(self, estate: Estate) -> None:
        """Be the next image of a master that is running."""
        for member in estate.members:
            self._children.admit(member)
        self._crew.unsettled_deaths = len(self._deaths)
        if self._pidfile:
            self._pidfile = Pidfile(Path(self._options.pidfile), fd=estate.pidfile)
            self._pidfile.open()
        if estate.control:
            self._control.adopt(*estate.control)
        signal.pthread_sigmask(signal.SIG_SETMASK, estate.mask or ())
        log.info("reloaded pid=%s generation=%s", os.getpid(), self._crew.generation)

    def _loop(self) -> None:
        expected, late_until = time.monotonic() + TICK, -math.inf
        while True:
            self._reap()
            if self._crew.finished:
                return
            now = time.monotonic()
            if now - expected > STANDSTILL:
                late_until = now + STANDSTILL  # the children need a moment to beat again
            facts = self._sense(now)
            self._scale(now, facts)
            late, cut_off = now < late_until, self._is_cut_off(now)
            for action in self._crew.plan(now, facts, late=late, cut_off=cut_off):
                self._act(action)
            self._repeat_deaths(now)
            self._give_up(now)
            self._control.listen()
            steady = self._look_after_batons()
            self._show(now)
            pause = self._pause(now, facts, steady=steady)
            expected = time.monotonic() + pause
            self._listen(pause)

    def _pause(self, now: float, facts: Mapping[int, Facts], *, steady: bool) -> float:
        """Return for how long there is nothing to do but to listen."""
        moments = (
            self._crew.next_step_at(now, facts),
            self._scaling.due_at(),
            self._notifier.next_at,
        )
        pause = min(TICK, self._reload.pause(now), max(0.0, min(moments) - now))
        return pause if steady else min(pause, UNSTEADY)

    def _look_after_batons(self) -> bool:
        """Replace a baton that was lost; return False if one was on its way while we looked.

        Whoever takes a baton says so before, by its phase and its turns, and whoever has it
        passes it on before that phase ends. So if nobody is on call, the pipe is empty and no
        turn was begun meanwhile, it is nowhere.
        """
        turns, facts = self._children.turns(), self._children.facts()
        full = select.select([pipe.reader for pipe in self._batons], [], [], 0)[0]
        if turns != self._children.turns():
            return False
        for index, pipe in enumerate(self._batons):
            for action in self._crew.baton(index, facts, pipe_empty=pipe.reader not in full):
                self._act(action)
        return True

    # -- sense -------------------------------------------------------------------------------

    def _sense(self, now: float) -> dict[int, Facts]:
        if self._options.max_memory and now - self._gauges.looked_at >= GAUGE_EVERY:
            self._gauges.look(now)
        return self._children.facts(self._gauges.growth() if self._options.max_memory else None)

    def _listen(self, timeout: float) -> None:
        ready = self._selector.select(timeout)
        self._log_dumps()
        for key, _ in ready:
            if isinstance(key.data, int):
                for message in self._children.hear(key.data):
                    self._on_message(key.data, message)
            elif key.data is not None:
                key.data()
        for signum in sorted(self._wakeups.take() & self._orders.keys()):
            self._orders[signum]()

    def _on_message(self, seat: int, message: Message) -> None:
        match message:
            case Ready():
                self._crew.got_ready(seat)
                if self._crew.children[seat].kind is Kind.CLERK:
                    for died in self._deaths.values():
                        self._children.tell(seat, died)
            case Settled(worker=worker, owner=owner):
                self._deaths.pop((worker, owner), None)
                self._crew.unsettled_deaths = len(self._deaths)
            case BatonWanted(pool=pool):
                if not self._crew.paused and not self._crew.stopping:
                    self._batons[pool].give()
            case Changed(path=path):
                log.info("changed file=%s", path)
                self.reload()
            case _:
                log.debug("child=%s said %s", seat, message)

    def _reap(self) -> None:
        for member, status in self._children.reap(self._on_stranger):
            for message in self._children.hear(member.seat):  # it may have got ready before it died
                self._on_message(member.seat, message)
            child = self._crew.died(member.seat, time.monotonic(), jitter=_chance())
            self._look_for_oom(child, status)
            died = self._children.bury(member, child, status)
            quiet = not died.signum and died.status == ExitCode.OK
            level = logging.DEBUG if quiet else logging.WARNING
            how = f"signal={died.signum}" if died.signum else f"status={died.status}"
            log.log(level, "child=%s %s pid=%s ended %s", child.seat, child.kind, died.pid, how)
            if child.kind is Kind.WORKER:
                self._note_death(died, child)

    def _look_for_oom(self, child: Child, status: int) -> None:
        """Find out whether a kill that nobody here ordered was the kernel's, for want of memory."""
        kills, before = resources.oom_kills(), self._oom_kills
        self._oom_kills = kills
        if kills > before and not child.fault and os.WTERMSIG(status) == signal.SIGKILL:
            child.fault = Fault.OOM

    def _on_stranger(self, pid: int, status: int) -> None:
        """Take note of the end of a process that is no child: the check of new code, an orphan."""
        if not self._reload.is_check(pid):
            log.debug("pid=%s ended, an orphan", pid)
        elif self._reload.checked(status):
            self._become_next()
        else:
            log.error("reload refused, the old code goes on: %s", self._reload.reason)
        if self._reload.is_wanted_again():
            self.reload()

    def _note_death(self, died: Died, child: Child) -> None:
        """Have the clerk settle it; a clerk that cannot now is told again by its successor."""
        self._deaths[died.worker, died.owner] = died
        self._told_at = time.monotonic()
        self._crew.unsettled_deaths = len(self._deaths)
        self._children.tell_all(Kind.CLERK, died)
        if died.status == ExitCode.CONFIG and not self._crew.ever_ready:
            # The application cannot be imported, and never could: trying again is no use.
            log.debug("child=%s could not boot", child.seat)
            self._ending.failure = ExitCode.CONFIG
            self.stop(0.0)

    def _repeat_deaths(self, now: float) -> None:
        """Tell the clerk again what it has not settled: it may not have listened."""
        if self._deaths and now - self._told_at > TICK:
            self._told_at = now
            for died in self._deaths.values():
                self._children.tell_all(Kind.CLERK, died)

    def _is_cut_off(self, now: float) -> bool:
        """Return whether other hosts may take our jobs soon, and ours must be stopped for that."""
        return self._options.on_partition == "stop" and 0 < self._board.books.trusted_ns < now * 1e9

    def _give_up(self, now: float) -> None:
        """End when no worker has got ready for long; a service manager has its own patience."""
        patience = self._options.give_up
        if not patience or self._crew.stopping or self._notifier.is_heard:
            return
        if self._crew.failing_for(now) > patience:
            log.error("no worker got ready for %g s; giving up", patience)
            self._ending.failure = ExitCode.INTERNAL
            self.stop(0.0)

    # -- act ---------------------------------------------------------------------------------

    def _scale(self, now: float, facts: Mapping[int, Facts]) -> None:
        for change in self._scaling.step(now, facts):
            up = change.after > change.before
            self._crew.counts["scaled_up" if up else "scaled_down"] += 1
            log.info(
                "scaled pool=%s from=%s to=%s: %s",
                change.pool.name,
                change.before,
                change.after,
                change.reason,
            )

    def _act(self, action: Action) -> None:
        match action:
            case Spawn():
                self._spawn(action)
            case Dismiss(seat=seat):
                self._dismiss(seat)
            case Release(seat=seat):
                self._children.release(seat)
            case Interrupt(seat=seat, epoch=epoch, overdue=overdue):
                self._children.tell(seat, Interrupted(epoch, overdue))
                self._children.signal(seat, SOFT)
            case Dump(seat=seat, fault=fault):
                self._dump(seat, fault)
            case Rouse(seat=seat):
                self._children.signal(seat, signal.SIGTERM)
                self._children.signal(seat, signal.SIGCONT)
            case Kill(seat=seat, fault=fault):
                log.warning("%s is killed: %s", self._children.describe(seat), fault)
                self._children.signal(seat, signal.SIGKILL)
            case Baton(pool=pool):
                self._batons[pool].give()
            case _:
                assert_never(action)

    def _spawn(self, wanted: Spawn) -> None:
        now = time.monotonic()
        if wanted.replaces is not None:
            old = self._children.describe(wanted.replaces)
            log.info("%s is replaced: %s", old, wanted.reason)
        try:
            self._children.spawn(wanted, self._crew.generation, let_go=self._let_go)
        except OSError as error:
            self._crew.spawn_failed(wanted, now, jitter=_chance())
            if now - self._complained_at > COMPLAIN_EVERY:
                self._complained_at = now
                log.error("cannot fork a %s: %s", wanted.kind, error)  # noqa: TRY400
        else:
            self._crew.spawned(wanted, now, chance=_chance())

    def _clerk(self, _pool: int) -> Body:
        return self._be_clerk

    def _be_clerk(self, inherited: Inheritance) -> int:
        identity = self._estate.identity
        return Clerk(self._load(), self._options, self._board, inherited, identity).run()

    def _worker(self, pool: int) -> Body:
        def be_worker(inherited: Inheritance) -> int:
            resources.become_subreaper()  # so that what its jobs let go of stays in its sight
            app, identity = self._load(), self._estate.identity
            return work(app, self._options, self._board, self._batons[pool], inherited, identity)

        return be_worker

    def _let_go(self) -> None:
        """Close, in a new child, what is the master's own."""
        self._wakeups.close_in_child()
        self._selector.close()
        self._control.close_in_child()
        if self._pidfile:
            self._pidfile.close_in_child()
        forget_manager(os.environ)

    def _dismiss(self, seat: int) -> None:
        self._crew.dismissed(seat, time.monotonic())
        if self._crew.children[seat].kind is Kind.CLERK:
            self._children.tell(seat, Leave())
        else:
            self._children.signal(seat, signal.SIGTERM)

    def _dump(self, seat: int, fault: Fault) -> None:
        name = self._children.describe(seat)
        if fault:
            log.warning("%s %s; its stacks are dumped", name, fault)
        else:
            log.warning("%s is silent in its job for %g s; it is here:", name, REPORT_AFTER)
            self._dumps_asked.add(seat)
        self._children.dump(seat)

    # -- orders ------------------------------------------------------------------------------

    def _table_of_signals(self) -> dict[int, Callable[[], None]]:
        return {
            signal.SIGTERM: self._on_term,
            signal.SIGINT: self._on_interrupt,
            signal.SIGQUIT: lambda: self.stop(math.inf),
            signal.SIGHUP: self._on_hangup,
            signal.SIGUSR1: lambda: self.pause(on=True),
            signal.SIGUSR2: lambda: self.pause(on=True),
            signal.SIGCONT: lambda: self.pause(on=False),
            signal.SIGTTIN: lambda: self._resize(+1),
            signal.SIGTTOU: lambda: self._resize(-1),
            signal.SIGABRT: self._ask_for_dumps,
        }

    def _on_term(self) -> None:
        if self._ending.term(time.monotonic()):
            self._end()
        else:
            self.stop(self._options.shutdown_timeout)

    def _on_interrupt(self) -> None:
        if self._ending.interrupt():
            self._end()
        else:
            self.stop(self._options.shutdown_timeout)
            log.info("another interrupt would cut the jobs in hand")

    def _on_hangup(self) -> None:
        """Reload; but drain when the terminal is gone from which this was started."""
        if sys.stdin is not None and sys.stdin.isatty():
            self.stop(self._options.shutdown_timeout)
        else:
            self.reload()

    def stop(self, within: float) -> None:
        """Drain: jobs in hand get `within` seconds."""
        if not self._crew.stopping:
            log.info("draining within=%g", within)
        self._crew.stop(time.monotonic(), within)
        self._board.orders.draining = 1
        self._reload.cancel()
        self._children.tell_all(Kind.WORKER, Wake())

    def _end(self) -> None:
        log.warning("ending at once; jobs in hand go back to their queues")
        self._crew.end(time.monotonic())

    def pause(self, *, on: bool) -> None:
        """Let no new job start, or let them start again."""
        if self._crew.paused != on:
            log.info("paused" if on else "resumed")
        self._crew.paused = on
        self._board.orders.paused = int(on)
        self._children.tell_all(Kind.WORKER, Wake())

    def scale(self, pool: Pool, most: int) -> None:
        """Let a pool have so many workers; one of fixed size then has as many."""
        self._crew.allow(pool, most)
        log.info("workers=%s pool=%s", pool.most, pool.name)

    def _resize(self, by: int) -> None:
        pool = next(pool for pool in self._crew.pools if pool.most)
        self.scale(pool, pool.most + by)

    def reload(self) -> None:
        """Try the new code, and replace ourselves by it if it can be used."""
        if not self._crew.stopping:
            log.info("reloading: the new code is checked first")
            self._reload.begin(
                time.monotonic(), within=self._options.boot_timeout, seats=self._crew.seats
            )

    def kill(self, pid: int) -> bool:
        """Kill a worker; return False if there is none with this pid."""
        for member in self._children.members:
            if member.forked.pid == pid and member.kind is Kind.WORKER:
                self._crew.condemn(member.seat, Fault.ORDERED, time.monotonic())
                return True
        return False

    def _become_next(self) -> None:
        """Replace this image by the next one, under the same pid."""
        now = time.monotonic()
        if self._crew.stopping:
            return
        self._notifier.tell(now, self._facts_for_manager())
        self._notifier.ask_for_time(IMPORT_TIME)
        members = [member.state() for member in self._children.members]
        control, lock = self._control.descriptors
        fd = self._pidfile.fd if self._pidfile else None
        state = self._estate.state(
            members=members,
            deaths=[asdict(died) for died in self._deaths.values()],
            control=[control, lock],
            pidfile=fd,
        )
        numbers = [self._board.fd, control, lock, *embedded.holds()]
        numbers += [number for pipe in self._batons for number in (pipe.reader, pipe.writer)]
        numbers += [int(each[name]) for each in members for name in ("pair", "dump")]
        numbers += [] if fd is None else [fd]
        log.info("replacing this master by the new code")
        self._reload.go()
        try:
            handover.execute(state, numbers, argv())
        except OSError as error:
            self._reload.refuse(f"the new code cannot be executed: {error}")
            log.error("reload refused, the old code goes on: %s", error)  # noqa: TRY400

    def _ask_for_dumps(self) -> None:
        log.warning("state=%s", self.report())
        for member in self._children.members:
            self._children.dump(member.seat)
            self._dumps_asked.add(member.seat)

    def _log_dumps(self) -> None:
        """Log the stacks one pass after they were asked for: the children need a moment."""
        if self._dumps_asked:
            for name, line in self._children.dumps(sorted(self._dumps_asked)):
                log.warning("%s %s", name, line)
            self._dumps_asked.clear()

    # -- telling -----------------------------------------------------------------------------

    def _show(self, now: float) -> None:
        self._board.orders.wanted = self._crew.target
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
            ends_in=max(0.0, crew.abort_at - time.monotonic()),
        )

    @property
    def pools(self) -> list[Pool]:
        """Return the pools that are wanted."""
        return [pool for pool in self._crew.pools if pool.most]

    @property
    def patience(self) -> float:
        """Return what jobs in hand get at a drain, in seconds."""
        return self._options.shutdown_timeout

    def report(self) -> dict[str, Any]:
        """Return the state of everything here, as JSON can carry it."""
        from forkresque import __version__

        now_ns = time.monotonic_ns()
        now, crew, board = now_ns / 1e9, self._crew, self._board
        self._gauges.look(now)
        history = list(self._scaling.history)
        return {
            "pid": os.getpid(),
            "version": __version__,
            "generation": crew.generation,
            "uptime": (now_ns - board.orders.started_ns) / 1e9,
            "queues": [name for pool in self.pools for name in pool.queues],
            "wanted": crew.target,
            "paused": crew.paused,
            "draining": crew.stopping,
            "ready": report.is_ready(crew, board),
            "trouble": report.troubles(crew, board),
            "reload": self._reload_state(),
            **self._place(),
            "clerk": report.of_clerk(board, len(crew.pools)),
            "pools": report.of_pools(board, crew, self._children.facts(), history, now),
            "workers": report.of_workers(board, self._gauges, now_ns),
            "counters": report.of_counters(crew),
        }

    def _reload_state(self) -> dict[str, str]:
        state = "rolling" if self._crew.is_rolling else self._reload.state
        return {"state": state, "reason": self._reload.reason}

    def _place(self) -> dict[str, str]:
        """Return which Redis it is, where the master can know: if it has the application."""
        if not self._options.preload:
            return {"namespace": "", "redis": ""}
        app = self._load()
        return {"namespace": app.namespace, "redis": app.masked_url}

    def _exit_code(self) -> int:
        return self._ending.exit_code(cuts=self._crew.cuts)


def _chance() -> float:
    return os.urandom(1)[0] / 255

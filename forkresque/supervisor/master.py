"""The master: forks, reaps, hears signals. No network, one thread, and safe as PID 1.

Sense, decide, act, in one loop. Stopping, pausing and resizing only change what is wanted;
nothing waits anywhere else, so a TERM is heard during a drain.
"""

import logging
import math
import os
import select
import selectors
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, assert_never

from forkresque.app import Forkresque
from forkresque.errors import ConfigError, ExitCode
from forkresque.options import SupervisorOptions
from forkresque.policy.pool import (
    Action,
    Baton,
    Child,
    Dismiss,
    Dump,
    Interrupt,
    Kill,
    Kind,
    Pool,
    Spawn,
)
from forkresque.protocol.script import load_all
from forkresque.scoreboard import Scoreboard
from forkresque.supervisor.child import DUMP, SOFT, Inheritance, freeze_memory
from forkresque.supervisor.children import Children
from forkresque.supervisor.clerk import Clerk
from forkresque.supervisor.control import ControlServer
from forkresque.supervisor.hand import Pipe, work
from forkresque.supervisor.identity import Identity
from forkresque.supervisor.limits import allow_descriptors, usable_cores
from forkresque.supervisor.messages import (
    BatonWanted,
    Died,
    Interrupted,
    Leave,
    Message,
    Ready,
    Settled,
    Wake,
)
from forkresque.supervisor.wakeups import Wakeups
from forkresque.worker import set_title

log = logging.getLogger("forkresque.master")

TICK = 1.0  # the longest sleep, in seconds
STANDSTILL = 5.0  # a pass that is this much late means that the machine stood still
REPEAT_GRACE = 2.0  # seconds in which a second TERM is the same TERM: managers signal everybody
UNSTEADY = 0.02  # seconds until the next look for a baton that was on its way
_DESCRIPTORS, _OWN_DESCRIPTORS = 3, 64  # open files for each child, and apart from children
HEADROOM = 64  # seats beyond those wanted at the start, for TTIN


class Master:
    """One master and its children."""

    def __init__(self, load: Callable[[], Forkresque], options: SupervisorOptions) -> None:
        self._load = load
        self._options = options
        size = sum(spec.most for spec in options.pool_specs(usable_cores()))
        self._board = Scoreboard(size + HEADROOM)
        self._pool = Pool(
            seats=len(self._board.seats),
            target=size,
            boot_timeout=options.boot_timeout,
            heartbeat_timeout=options.heartbeat_timeout,
        )
        self._identity = Identity.of_this_process(options)
        self._baton = Pipe.create()
        self._selector = selectors.DefaultSelector()
        self._children = Children(
            self._board,
            self._selector,
            self._identity,
            {Kind.CLERK: self._be_clerk, Kind.WORKER: self._be_worker},
        )
        self._control = ControlServer(self._selector, options.control, self._answer)
        self._orders = self._table_of_signals()
        self._wakeups = Wakeups([*self._orders, signal.SIGCHLD])
        self._deaths: dict[tuple[str, str], Died] = {}
        self._first_term_at = math.inf
        self._interrupted = False
        self._told_at = -math.inf
        self._dumps_asked = False
        self._ended_by = 0
        self._application_is_broken = False
        self._title = ""

    def run(self) -> int:
        """Supervise until a stop has been carried out; return the exit code."""
        self._wakeups.install()
        self._selector.register(self._wakeups.fileno(), selectors.EVENT_READ)
        self._board.orders.started_ns = time.monotonic_ns()
        allow_descriptors(_DESCRIPTORS * len(self._board.seats) + _OWN_DESCRIPTORS)
        self._control.open()
        load_all()  # a third of what a child takes to be born
        freeze_memory()
        queues = ",".join(self._options.queues)
        log.info("started pid=%s queues=%s workers=%s", os.getpid(), queues, self._pool.target)
        try:
            self._loop()
        finally:
            self._control.close()
        log.info("stopped exit=%s", self._exit_code())
        return self._exit_code()

    def _loop(self) -> None:
        expected, late_until = time.monotonic() + TICK, -math.inf
        while True:
            self._reap()
            if self._pool.finished:
                return
            now = time.monotonic()
            if now - expected > STANDSTILL:
                late_until = now + STANDSTILL  # the children need a moment to beat again
            facts = self._children.facts()
            late, cut_off = now < late_until, self._is_cut_off(now)
            for action in self._pool.plan(now, facts, late=late, cut_off=cut_off):
                self._act(action)
            self._repeat_deaths(now)
            self._control.listen()
            steady = self._look_after_baton()
            self._show()
            pause = min(TICK, max(0.0, self._pool.next_step_at(now, facts) - now))
            pause = pause if steady else min(pause, UNSTEADY)
            expected = time.monotonic() + pause
            self._listen(pause)

    def _look_after_baton(self) -> bool:
        """Replace a baton that was lost; return False if it was on its way while we looked.

        Whoever takes the baton says so before, by its phase and its turns, and whoever has it
        passes it on before that phase ends. So if nobody is on call, the pipe is empty and no
        turn was begun meanwhile, it is nowhere.
        """
        turns, facts = self._children.turns(), self._children.facts()
        empty = not select.select([self._baton.reader], [], [], 0)[0]
        if turns != self._children.turns():
            return False
        for action in self._pool.baton(facts, pipe_empty=empty):
            self._act(action)
        return True

    # -- sense -------------------------------------------------------------------------------

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
                self._pool.got_ready(seat)
                if self._pool.children[seat].kind is Kind.CLERK:
                    for died in self._deaths.values():
                        self._children.tell(seat, died)
            case Settled(worker=worker, owner=owner):
                self._deaths.pop((worker, owner), None)
                self._pool.unsettled_deaths = len(self._deaths)
            case BatonWanted():
                if not self._pool.paused and not self._pool.stopping:
                    self._baton.give()
            case _:
                log.debug("child=%s said %s", seat, message)

    def _reap(self) -> None:
        for member, status in self._children.reap():
            for message in self._children.hear(member.seat):  # it may have got ready before it died
                self._on_message(member.seat, message)
            child = self._pool.died(member.seat, time.monotonic(), jitter=_chance())
            died = self._children.bury(member, child, status)
            quiet = not died.signum and died.status == ExitCode.OK
            level = logging.DEBUG if quiet else logging.WARNING
            how = f"signal={died.signum}" if died.signum else f"status={died.status}"
            log.log(level, "child=%s %s pid=%s ended %s", child.seat, child.kind, died.pid, how)
            if child.kind is Kind.WORKER:
                self._note_death(died, child)

    def _note_death(self, died: Died, child: Child) -> None:
        """Have the clerk settle it; a clerk that cannot now is told again by its successor."""
        self._deaths[died.worker, died.owner] = died
        self._told_at = time.monotonic()
        self._pool.unsettled_deaths = len(self._deaths)
        self._children.tell_all(Kind.CLERK, died)
        if died.status == ExitCode.CONFIG and not self._pool.ever_ready:
            # The application cannot be imported, and never could: trying again is no use.
            log.debug("child=%s could not boot", child.seat)
            self._application_is_broken = True
            self._stop(0.0)

    def _repeat_deaths(self, now: float) -> None:
        """Tell the clerk again what it has not settled: it may not have listened."""
        if self._deaths and now - self._told_at > TICK:
            self._told_at = now
            for died in self._deaths.values():
                self._children.tell_all(Kind.CLERK, died)

    def _is_cut_off(self, now: float) -> bool:
        """Return whether other hosts may take our jobs soon, and ours must be stopped for that."""
        return self._options.on_partition == "stop" and 0 < self._board.books.trusted_ns < now * 1e9

    # -- act ---------------------------------------------------------------------------------

    def _act(self, action: Action) -> None:
        match action:
            case Spawn(seat=seat, kind=kind):
                self._spawn(seat, kind)
            case Dismiss(seat=seat):
                self._dismiss(seat)
            case Interrupt(seat=seat, epoch=epoch, overdue=overdue):
                self._children.tell(seat, Interrupted(epoch, overdue))
                self._children.signal(seat, SOFT)
            case Dump(seat=seat, fault=fault):
                log.warning("%s %s; its stacks are dumped", self._children.describe(seat), fault)
                self._children.signal(seat, DUMP)
            case Kill(seat=seat, fault=fault):
                log.warning("%s is killed: %s", self._children.describe(seat), fault)
                self._children.signal(seat, signal.SIGKILL)
            case Baton():
                self._baton.give()
            case _:
                assert_never(action)

    def _spawn(self, seat: int, kind: Kind) -> None:
        now = time.monotonic()
        try:
            self._children.spawn(seat, kind, let_go=self._let_go)
        except OSError as error:
            self._pool.spawn_failed(kind, now, jitter=_chance())
            log.error("cannot fork a %s: %s", kind, error)  # noqa: TRY400
        else:
            self._pool.spawned(seat, kind, now)

    def _be_clerk(self, inherited: Inheritance) -> int:
        return Clerk(self._load(), self._options, self._board, inherited, self._identity).run()

    def _be_worker(self, inherited: Inheritance) -> int:
        return work(
            self._load(), self._options, self._board, self._baton, inherited, self._identity
        )

    def _let_go(self) -> None:
        """Close, in a new child, what is the master's own."""
        self._wakeups.close_in_child()
        self._selector.close()
        self._control.close_in_child()

    def _dismiss(self, seat: int) -> None:
        self._pool.dismissed(seat, time.monotonic())
        if self._pool.children[seat].kind is Kind.CLERK:
            self._children.tell(seat, Leave())
        else:
            self._children.signal(seat, signal.SIGTERM)

    # -- orders ------------------------------------------------------------------------------

    def _table_of_signals(self) -> dict[int, Callable[[], None]]:
        return {
            signal.SIGTERM: self._on_term,
            signal.SIGINT: self._on_interrupt,
            signal.SIGQUIT: lambda: self._stop(math.inf),
            signal.SIGHUP: self._on_hangup,
            signal.SIGUSR1: lambda: self._pause(on=True),
            signal.SIGUSR2: lambda: self._pause(on=True),
            signal.SIGCONT: lambda: self._pause(on=False),
            signal.SIGTTIN: lambda: self._resize(+1),
            signal.SIGTTOU: lambda: self._resize(-1),
            signal.SIGABRT: self._ask_for_dumps,
        }

    def _on_term(self) -> None:
        now = time.monotonic()
        if now - self._first_term_at > REPEAT_GRACE:
            self._end(signal.SIGTERM)
        else:
            self._first_term_at = min(self._first_term_at, now)
            self._stop(self._options.shutdown_timeout)

    def _on_interrupt(self) -> None:
        if self._interrupted:
            self._end(signal.SIGINT)
        else:
            self._interrupted = True
            self._stop(self._options.shutdown_timeout)
            log.info("another interrupt would cut the jobs in hand")

    def _on_hangup(self) -> None:
        """Drain when the terminal is gone."""
        if sys.stdin is not None and sys.stdin.isatty():
            self._stop(self._options.shutdown_timeout)
        else:
            log.warning("SIGHUP changes nothing yet: restart to load new code")

    def _stop(self, within: float) -> None:
        now = time.monotonic()
        if not self._pool.stopping:
            log.info("draining within=%g", within)
        self._pool.stop(now, within)
        self._board.orders.draining = 1
        self._children.tell_all(Kind.WORKER, Wake())

    def _end(self, signum: int) -> None:
        log.warning("ending at once; jobs in hand go back to their queues")
        self._ended_by = signum
        self._pool.end(time.monotonic())

    def _pause(self, *, on: bool) -> None:
        if self._pool.paused != on:
            log.info("paused" if on else "resumed")
        self._pool.paused = on
        self._board.orders.paused = int(on)
        self._children.tell_all(Kind.WORKER, Wake())

    def _resize(self, by: int) -> None:
        self._pool.resize(by)
        log.info("workers=%s", self._pool.target)

    def _ask_for_dumps(self) -> None:
        log.warning("state=%s", self._report())
        self._children.ask_for_dumps()
        self._dumps_asked = True

    def _log_dumps(self) -> None:
        """Log the stacks one pass after they were asked for: the children need a moment."""
        if self._dumps_asked:
            self._dumps_asked = False
            for name, line in self._children.dumps():
                log.warning("%s %s", name, line)

    # -- telling -----------------------------------------------------------------------------

    def _show(self) -> None:
        self._board.orders.wanted = self._pool.target
        state = "draining" if self._pool.stopping else "paused" if self._pool.paused else ""
        number, queues = len(self._pool.of(Kind.WORKER)), ",".join(self._options.queues)
        title = f"master {queues} {number} workers {state}".rstrip()
        if title != self._title:
            self._title = title
            set_title(title)

    def _answer(self, verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Carry out what came over the control socket. Raises ConfigError for what is unknown."""
        verbs: dict[str, Callable[[], None]] = {
            "status": lambda: None,
            "pause": lambda: self._pause(on=True),
            "resume": lambda: self._pause(on=False),
            "drain": lambda: self._stop(_seconds(arguments, self._options.shutdown_timeout)),
        }
        if verb not in verbs:
            raise ConfigError(f"unknown verb {verb!r}; known are {', '.join(verbs)}")
        verbs[verb]()
        return self._report()

    def _report(self) -> dict[str, Any]:
        from forkresque import __version__

        now_ns = time.monotonic_ns()
        return {
            "pid": os.getpid(),
            "version": __version__,
            "queues": list(self._options.queues),
            "wanted": self._pool.target,
            "paused": self._pool.paused,
            "draining": self._pool.stopping,
            "uptime": (now_ns - self._board.orders.started_ns) / 1e9,
            **self._place(),
            **self._board.report(now_ns),
        }

    def _place(self) -> dict[str, str]:
        """Return which Redis it is, where the master can know: if it has the application."""
        if not self._options.preload:
            return {"namespace": "", "redis": ""}
        app = self._load()
        return {"namespace": app.namespace, "redis": app.masked_url}

    def _exit_code(self) -> int:
        if self._ended_by:
            return 128 + self._ended_by
        if self._application_is_broken:
            return ExitCode.CONFIG
        return ExitCode.CUT if self._pool.cuts else ExitCode.OK


def _seconds(arguments: dict[str, Any], default: float) -> float:
    value = arguments.get("timeout", default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:
        raise ConfigError(f"timeout must be a number of seconds, got {value!r}")
    return float(value)


def _chance() -> float:
    return os.urandom(1)[0] / 255

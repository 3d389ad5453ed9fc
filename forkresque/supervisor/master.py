"""The master: forks, reaps, hears signals. No network, one thread, and safe as PID 1.

Sense, decide, act, in one loop. Stopping, pausing and resizing only change what is wanted;
nothing waits anywhere else, so a TERM is heard during a drain.
"""

import contextlib
import logging
import math
import os
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from forkresque.app import Forkresque
from forkresque.errors import ConfigError, ExitCode
from forkresque.options import SupervisorOptions
from forkresque.policy.pool import (
    Action,
    Baton,
    Child,
    Dismiss,
    Doing,
    Dump,
    Facts,
    Interrupt,
    Kill,
    Kind,
    Pool,
    Spawn,
)
from forkresque.scoreboard import Phase, Role, Scoreboard
from forkresque.supervisor.child import (
    DUMP,
    ORPHANED,
    SOFT,
    Forked,
    Inheritance,
    freeze_memory,
    spawn,
)
from forkresque.supervisor.clerk import Clerk
from forkresque.supervisor.control import ControlServer
from forkresque.supervisor.hand import Pipe, work
from forkresque.supervisor.identity import Identity
from forkresque.supervisor.messages import (
    BatonWanted,
    Died,
    Interrupted,
    Leave,
    Message,
    Ready,
    Settled,
    Wake,
    receive,
    send,
)
from forkresque.supervisor.wakeups import Wakeups
from forkresque.worker import set_title

log = logging.getLogger("forkresque.master")

TICK = 1.0  # the longest sleep, in seconds
STANDSTILL = 5.0  # a pass that is this much late means that the machine stood still
REPEAT_GRACE = 2.0  # seconds in which a second TERM is the same TERM: managers signal everybody
HEADROOM = 64  # seats beyond those wanted at the start, for TTIN
_DUMP_LINES = 200

_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGABRT,
    signal.SIGCHLD,
)
_DOING = {
    Phase.EMPTY: Doing.BOOT,
    Phase.BOOT: Doing.BOOT,
    Phase.IDLE: Doing.IDLE,
    Phase.CALL: Doing.CALL,
    Phase.RUN: Doing.RUN,
    Phase.SETTLE: Doing.OTHER,
    Phase.DRAIN: Doing.OTHER,
    Phase.LEFT: Doing.OTHER,
}
_ROLES = {Kind.CLERK: Role.CLERK, Kind.WORKER: Role.WORKER}


def usable_cores() -> int:
    """Return the number of cores that this process may use: affinity and cgroup quota."""
    cores = float(len(os.sched_getaffinity(0)))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, int(quota) / int(period))
    with contextlib.suppress(OSError, ValueError):
        quota = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text()
        period = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text()
        if int(quota) > 0:
            cores = min(cores, int(quota) / int(period))
    return max(1, int(cores))


@dataclass(slots=True)
class Member:
    """A child as the master holds it."""

    forked: Forked
    kind: Kind


class Master:
    """One master and its children."""

    def __init__(self, app: Forkresque, options: SupervisorOptions) -> None:
        self._app = app
        self._options = options
        size = usable_cores() if options.concurrency == "auto" else int(options.concurrency)
        self._identity = Identity.of_this_process(options)
        self._board = Scoreboard(size + HEADROOM)
        self._baton = Pipe.create()
        self._pool = Pool(
            seats=len(self._board.seats),
            target=size,
            boot_timeout=options.boot_timeout,
            heartbeat_timeout=options.heartbeat_timeout,
        )
        self._members: dict[int, Member] = {}
        self._deaths: dict[tuple[str, str], Died] = {}
        self._wakeups = Wakeups(_SIGNALS)
        self._selector = selectors.DefaultSelector()
        self._control = ControlServer(self._selector, options.control, self._answer)
        self._term_at = -math.inf
        self._ended_by = 0
        self._broken_application = False

    def run(self) -> int:
        """Supervise until a stop has been carried out; return the exit code."""
        self._wakeups.install()
        self._selector.register(self._wakeups.fileno(), selectors.EVENT_READ)
        self._board.orders.started_ns = time.monotonic_ns()
        self._control.open()
        freeze_memory()
        log.info(
            "started version=%s pid=%s queues=%s workers=%s",
            _version(),
            os.getpid(),
            ",".join(self._options.queues),
            self._pool.target,
        )
        try:
            self._loop()
        finally:
            self._control.close()
        log.info("stopped exit=%s", self._exit_code())
        return self._exit_code()

    def _loop(self) -> None:
        expected = time.monotonic() + TICK
        while True:
            now = time.monotonic()
            self._reap()
            if self._pool.finished:
                return
            self._show()
            late = now - expected > STANDSTILL
            for action in self._pool.plan(now, self._facts(), late=late):
                self._act(action)
            for action in self._pool.baton(self._facts(), pipe_empty=self._pipe_is_empty()):
                self._act(action)
            pause = min(TICK, max(0.0, self._pool.next_step_at(now) - now))
            expected = time.monotonic() + pause
            self._listen(pause)

    # -- sense -------------------------------------------------------------------------------

    def _listen(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, int):
                self._hear_child(key.data)
            elif key.data is not None:
                key.data()
        for signum in sorted(self._wakeups.take()):
            self._on_signal(signum)

    def _hear_child(self, seat: int) -> None:
        member = self._members.get(seat)
        if member is None:
            return
        messages = receive(member.forked.pair)
        for message in messages:
            self._on_message(seat, message)
        if not messages:  # the end of the pair proves nothing, but need not be watched
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(member.forked.pair)

    def _on_message(self, seat: int, message: Message) -> None:
        match message:
            case Ready():
                self._pool.got_ready(seat)
                if self._members[seat].kind is Kind.CLERK:
                    for died in self._deaths.values():
                        send(self._members[seat].forked.pair, died)
            case Settled(worker=worker, owner=owner):
                self._deaths.pop((worker, owner), None)
                self._pool.unsettled_deaths = len(self._deaths)
            case BatonWanted():
                if not self._pool.paused and not self._pool.stopping:
                    self._baton.give()
            case _:
                log.debug("child=%s said %s", seat, message)

    def _facts(self) -> dict[int, Facts]:
        now = time.monotonic_ns()
        facts = {}
        for number in self._members:
            seat = self._board.seats[number]
            facts[number] = Facts(
                doing=_DOING[seat.phase],
                silent=(now - seat.beat_ns) / 1e9,
                epoch=seat.epoch,
                soft_in=(seat.soft_ns - now) / 1e9 if seat.soft_ns else math.inf,
                hard_in=(seat.hard_ns - now) / 1e9 if seat.hard_ns else math.inf,
            )
        return facts

    def _pipe_is_empty(self) -> bool:
        with selectors.PollSelector() as poll:
            poll.register(self._baton.reader, selectors.EVENT_READ)
            return not poll.select(0)

    # -- act ---------------------------------------------------------------------------------

    def _act(self, action: Action) -> None:
        match action:
            case Spawn(seat=seat, kind=kind):
                self._spawn(seat, kind)
            case Dismiss(seat=seat):
                self._dismiss(seat)
            case Interrupt(seat=seat, epoch=epoch, overdue=overdue):
                send(self._members[seat].forked.pair, Interrupted(epoch, overdue))
                self._signal(seat, SOFT)
            case Dump(seat=seat, fault=fault):
                log.warning("child=%s pid=%s: %s; dumping its stacks", seat, self._pid(seat), fault)
                self._signal(seat, DUMP)
            case Kill(seat=seat, fault=fault):
                log.warning("child=%s pid=%s is killed: %s", seat, self._pid(seat), fault)
                self._signal(seat, signal.SIGKILL)
            case Baton():
                self._baton.give()
            case _:
                assert_never(action)

    def _spawn(self, number: int, kind: Kind) -> None:
        seat, now = self._board.seats[number], time.monotonic()
        seat.take(_ROLES[kind], time.monotonic_ns())
        body = self._be_clerk if kind is Kind.CLERK else self._be_worker
        death_signal = ORPHANED if kind is Kind.CLERK else signal.SIGTERM
        try:
            forked = spawn(seat, body, let_go=self._let_go, death_signal=death_signal)
        except OSError as error:
            seat.leave()
            self._pool.spawn_failed(kind, now, jitter=_chance())
            log.error("cannot fork a %s: %s", kind, error)  # noqa: TRY400
            return
        self._pool.spawned(number, kind, now)
        self._members[number] = Member(forked, kind)
        self._selector.register(forked.pair, selectors.EVENT_READ, number)
        if forked.pidfd is not None:
            self._selector.register(forked.pidfd, selectors.EVENT_READ)

    def _be_clerk(self, inherited: Inheritance) -> int:
        return Clerk(self._app, self._options, self._board, inherited, self._identity).run()

    def _be_worker(self, inherited: Inheritance) -> int:
        return work(self._app, self._options, self._board, self._baton, inherited, self._identity)

    def _let_go(self) -> None:
        """Close, in a new child, what is the master's own."""
        self._wakeups.close_in_child()
        self._selector.close()
        self._control.close_in_child()
        for member in self._members.values():
            member.forked.pair.close()
            os.close(member.forked.dump)
            if member.forked.pidfd is not None:
                os.close(member.forked.pidfd)

    def _dismiss(self, seat: int) -> None:
        self._pool.dismissed(seat, time.monotonic())
        member = self._members[seat]
        if member.kind is Kind.CLERK:
            send(member.forked.pair, Leave())
        else:
            self._signal(seat, signal.SIGTERM)

    def _signal(self, seat: int, signum: int) -> None:
        """Signal a child; a kill takes with it what its job has started."""
        with contextlib.suppress(ProcessLookupError):
            if signum == signal.SIGKILL:
                os.killpg(self._pid(seat), signum)
            else:
                os.kill(self._pid(seat), signum)  # not reaped yet, so the pid is nobody else's

    def _pid(self, seat: int) -> int:
        return self._members[seat].forked.pid

    # -- deaths ------------------------------------------------------------------------------

    def _reap(self) -> None:
        """Collect whoever has died: our children, and as PID 1 also strangers."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for number, member in list(self._members.items()):
                if member.forked.pid == pid:
                    self._bury(number, status)

    def _bury(self, number: int, status: int) -> None:
        member, seat = self._members.pop(number), self._board.seats[number]
        child = self._pool.died(number, time.monotonic(), jitter=_chance())
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(member.forked.pid, signal.SIGKILL)  # what the job has left behind
        died = self._obituary(member, child, number, status)
        self._log_death(died, child)
        if member.kind is Kind.WORKER:
            self._note_broken_application(died, child)
            self._deaths[died.worker, died.owner] = died
            self._pool.unsettled_deaths = len(self._deaths)
            self._tell_clerk(died)
        self._close(member)
        seat.leave()

    def _obituary(self, member: Member, child: Child, number: int, status: int) -> Died:
        seat, forked = self._board.seats[number], member.forked
        post = self._identity.post(forked.pid, forked.start)
        code = os.waitstatus_to_exitcode(status)
        return Died(
            worker=str(post.worker),
            owner=str(post.owner),
            pid=forked.pid,
            signum=-code if code < 0 else 0,
            status=max(code, 0),
            working=seat.phase in (Phase.RUN, Phase.SETTLE),
            cut=child.cut,
            fault=child.fault,
            job=seat.title,
            dump=_dumped(forked.dump) if child.fault else (),
        )

    def _log_death(self, died: Died, child: Child) -> None:
        quiet = died.status == ExitCode.OK and not died.signum
        how = f"signal={died.signum}" if died.signum else f"status={died.status}"
        level = logging.DEBUG if quiet else logging.WARNING
        log.log(level, "child=%s %s pid=%s ended %s", child.seat, child.kind, died.pid, how)

    def _note_broken_application(self, died: Died, child: Child) -> None:
        """At the first start, an application that cannot be imported ends everything at once."""
        if died.status == ExitCode.CONFIG and not child.ready and not self._pool.ever_ready:
            self._broken_application = True
            self._stop(0.0)

    def _tell_clerk(self, died: Died) -> None:
        for member in self._members.values():
            if member.kind is Kind.CLERK:
                send(member.forked.pair, died)

    def _close(self, member: Member) -> None:
        forked = member.forked
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(forked.pair)
        forked.pair.close()
        if forked.pidfd is not None:
            self._selector.unregister(forked.pidfd)
            os.close(forked.pidfd)
        os.close(forked.dump)

    # -- orders ------------------------------------------------------------------------------

    def _on_signal(self, signum: int) -> None:
        actions: dict[int, Callable[[], None]] = {
            signal.SIGTERM: self._on_term,
            signal.SIGINT: self._on_interrupt,
            signal.SIGQUIT: lambda: self._stop(math.inf),
            signal.SIGHUP: lambda: self._stop(self._options.shutdown_timeout),
            signal.SIGUSR1: lambda: self._pause(on=True),
            signal.SIGUSR2: lambda: self._pause(on=True),
            signal.SIGCONT: lambda: self._pause(on=False),
            signal.SIGTTIN: lambda: self._resize(+1),
            signal.SIGTTOU: lambda: self._resize(-1),
            signal.SIGABRT: self._dump_all,
        }
        if signum in actions:
            actions[signum]()

    def _on_term(self) -> None:
        now = time.monotonic()
        if self._pool.stopping and now - self._term_at > REPEAT_GRACE:
            self._end(signal.SIGTERM)
            return
        if self._term_at == -math.inf:
            self._term_at = now
        self._stop(self._options.shutdown_timeout)

    def _on_interrupt(self) -> None:
        if self._pool.stopping:
            self._end(signal.SIGINT)
            return
        log.info("draining; a second interrupt ends the jobs in hand")
        self._stop(self._options.shutdown_timeout)

    def _stop(self, within: float) -> None:
        if not self._pool.stopping:
            log.info("draining for at most %g s", within)
        self._pool.stop(time.monotonic(), within)
        self._board.orders.draining = 1
        self._wake_workers()

    def _end(self, signum: int) -> None:
        log.warning("ending at once; jobs in hand go back to their queues")
        self._ended_by = signum
        self._pool.end(time.monotonic())

    def _pause(self, *, on: bool) -> None:
        if self._pool.paused != on:
            log.info("paused" if on else "resumed")
        self._pool.paused = on
        self._board.orders.paused = int(on)
        self._wake_workers()

    def _resize(self, by: int) -> None:
        self._pool.resize(by)
        log.info("workers=%s", self._pool.target)

    def _wake_workers(self) -> None:
        for member in self._members.values():
            if member.kind is Kind.WORKER:
                send(member.forked.pair, Wake())

    def _dump_all(self) -> None:
        log.warning("state=%s", self._report())
        for number, member in self._members.items():
            os.ftruncate(member.forked.dump, 0)
            self._signal(number, DUMP)
        for number, member in self._members.items():
            for line in _dumped(member.forked.dump):
                log.warning("child=%s pid=%s %s", number, member.forked.pid, line)

    # -- telling -----------------------------------------------------------------------------

    def _show(self) -> None:
        self._board.orders.wanted = self._pool.target
        state = "draining" if self._pool.stopping else "paused" if self._pool.paused else ""
        number = len(self._pool.of(Kind.WORKER))
        title = f"master {','.join(self._options.queues)} {number} workers {state}".rstrip()
        if title != getattr(self, "_title", ""):
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
        now_ns = time.monotonic_ns()
        return {
            "pid": os.getpid(),
            "version": _version(),
            "queues": list(self._options.queues),
            "wanted": self._pool.target,
            "paused": self._pool.paused,
            "draining": self._pool.stopping,
            "uptime": (now_ns - self._board.orders.started_ns) / 1e9,
            "namespace": self._app.namespace,
            "redis": self._app.masked_url,
            **self._board.report(now_ns),
        }

    def _exit_code(self) -> int:
        if self._ended_by:
            return 128 + self._ended_by
        if self._broken_application:
            return ExitCode.CONFIG
        return ExitCode.CUT if self._pool.cuts else ExitCode.OK


def _seconds(arguments: dict[str, Any], default: float) -> float:
    value = arguments.get("timeout", default)
    if not isinstance(value, int | float) or value < 0:
        raise ConfigError(f"timeout must be a number of seconds, got {value!r}")
    return float(value)


def _dumped(dump: int) -> tuple[str, ...]:
    raw = os.pread(dump, 64 * 1024, 0)
    return tuple(raw.decode("utf-8", "replace").splitlines()[:_DUMP_LINES])


def _chance() -> float:
    return os.urandom(1)[0] / 255


def _version() -> str:
    from forkresque import __version__

    return __version__

"""MultiWorker: the supervisor as an object, for programs and tests. Named as in node-resque.

It is the same master as that of `forkresque start`, but the application is the one in memory. So
its processes are forked, here or from a copy of this process, which no other thread may share.
"""

import atexit
import contextlib
import logging
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from forkresque import embedded
from forkresque.app import Forkresque
from forkresque.configuration import resolve
from forkresque.errors import ConfigError, ControlError
from forkresque.events import POOL_EVENTS, Emitter, Observable
from forkresque.options import SupervisorOptions, variable
from forkresque.order import Order
from forkresque.policy.orders import ordered
from forkresque.scoreboard import Scoreboard
from forkresque.supervisor import supervise
from forkresque.supervisor.beside import Started, borrowed_process, oom_score, private_directory
from forkresque.supervisor.child import Inheritance, other_tasks, spawn
from forkresque.supervisor.control import ask, runtime_directory
from forkresque.supervisor.first_look import look_at_redis
from forkresque.supervisor.notify import forget_manager

log = logging.getLogger("forkresque.master")

LAST_GRACE = 15.0  # seconds beyond a drain's limit until a master that hangs is killed
START_GRACE = 10.0  # seconds beyond the boot of a worker until the start has failed
_LONGEST = 1e9  # seconds, for a drain without limit
_LOOK = 0.02  # seconds between two looks at a master
_IN_MEMORY = ("preload", "reload")  # options about an application that is not in memory yet
_OF_A_SERVICE = ("control", "pidfile")  # whose variables mean another master
_PINNED = "the application is in the memory of its program: start that anew"
_SIGNAL_OF = {"drain": signal.SIGTERM, "pause": signal.SIGUSR1, "resume": signal.SIGCONT}


class MultiWorker(Observable):
    """A master and its workers for the application `app`, in this process or beside it.

    `queues` are names or patterns by priority, `min` and `max` how many workers there may be,
    `pools` texts such as "high=2:8", and `options` those of `forkresque start` by name, such as
    `concurrency=4`; where none is given, the variables FORKRESQUE_… count. Raises ConfigError for
    options that do not exist or contradict each other.

    Who listens by `on` is forked with the rest: job events are told in the worker that does the
    job; `start`, `end`, `pause` of the pool and `multi_worker_action` in the master, which must
    not be kept from its work and cannot fork while a thread of a listener lives. A worker's
    number is its seat in `status()`.
    """

    def __init__(
        self,
        app: Forkresque,
        *,
        queues: str | Iterable[str] | None = None,
        min: int | None = None,
        max: int | None = None,
        pools: str | Iterable[Any] | None = None,
        order: Order | Mapping[str, int] | str | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(app, Forkresque):
            raise ConfigError(
                f"a MultiWorker takes a Forkresque, got {type(app).__qualname__}",
                hint="app = Forkresque(host=…); app.add_jobs(jobs); MultiWorker(app)",
            )
        self.events = Emitter(POOL_EVENTS)
        self.exit_code: int | None = None
        self.options = _resolved(
            {"queues": _listed(queues), "min": min, "max": max, "pools": _listed(pools)}
            | {"order": None if order is None else ordered(order)}
            | options
        )
        self._app = app
        self._started: Started | None = None
        self._control: Path | None = None
        self._master: int | None = None  # its pid, in itself and in its children
        self._told_to_end = False  # in the master

    # -- its life ----------------------------------------------------------------------------

    def run(self) -> int:
        """Supervise here until a signal or a listener says stop; return the exit code.

        Signals mean what they mean to `forkresque start`; afterwards they have their handlers
        back. All children of this process that end meanwhile are collected. Raises ConfigError
        outside the main thread and while another thread is alive, and RedisUnavailable.
        """
        self._check_alone()
        with (
            self._reachable(required=self.options.require_redis),
            borrowed_process(),
            self._closed_to_listeners(),
        ):
            named = self.options.control or runtime_directory(os.environ) / f"{os.getpid()}.sock"
            self._control = Path(named)
            try:
                self.exit_code = self._supervise(self.options)
            finally:
                self._master = self._control = None
        return self.exit_code

    def start(self, timeout: float | None = None) -> Self:
        """Supervise in a child process, and return when its workers are ready.

        They end with this program: at its exit, as by `stop`; if it is killed, they drain. Raises
        ConfigError while another thread is alive, RedisUnavailable, and ControlError when the
        master ends or `timeout` seconds pass before it is ready.
        """
        self._check_alone()
        self.exit_code = None
        with ExitStack() as undo:
            undo.enter_context(self._reachable(required=True))
            undo.enter_context(self._closed_to_listeners())
            directory = private_directory()
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
            self._control = Path(self.options.control or directory / "control")
            forked = spawn(
                Scoreboard(1, shared=False).seats[0],
                partial(self._be_master, directory=directory, score=oom_score()),
                let_go=lambda: None,
                death_signal=signal.SIGTERM,
            )
            undo.callback(forked.close)
            self._started = Started(forked, os.getpid(), undo.pop_all())
        atexit.register(self._at_exit)
        patience = self.options.boot_timeout + START_GRACE if timeout is None else timeout
        try:
            self._await_ready(self._started, patience)
        except BaseException:
            self.stop(0.0)
            raise
        return self

    def stop(self, timeout: float | None = None, *, wait: bool = True) -> int | None:
        """Let jobs in hand finish within `timeout` seconds, and end; return the exit code.

        Without a timeout, and asked by a listener in the master, it is the option
        `shutdown_timeout`. Who does not `wait`, or is a process of this pool, gets None. Does
        nothing when nothing runs.
        """
        if self.pid is None:
            return self.exit_code
        started = self._started
        limit = self.options.shutdown_timeout if timeout is None else min(timeout, _LONGEST)
        try:
            self._order("drain", timeout=limit)
        except ControlError:
            if started is not None and started.look():
                os.kill(started.forked.pid, signal.SIGTERM)
        if started is None or not wait:
            return None
        return self._await_end(started, limit + LAST_GRACE)

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit code once the started master has ended; None after `timeout`."""
        if self._started is None:
            return self.exit_code
        return self._waited(self._started, math.inf if timeout is None else timeout)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # -- orders ------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """Return the master's pid, None when there is no master."""
        if self._started is None:
            return self._master
        if not self._started.look():
            self._close(self._started)
            return None
        return self._started.forked.pid

    def pause(self) -> None:
        """Let no new job start; those in hand go on."""
        self._order("pause")

    def resume(self) -> None:
        """Let jobs start again."""
        self._order("resume")

    def scale(self, to: int | None = None, *, by: int = 0, pool: str | None = None) -> None:
        """Have `to` workers, or so many more; `pool` is its name, the first if not given.

        That is the size of a fixed pool, and the upper bound of one that scales.
        """
        if (to is None) == (not by):
            raise ConfigError(f"scale needs a number or a difference, got to={to} and by={by}")
        size = {"by": by} if to is None else {"to": to}
        self._order("scale", pool=pool, **size)

    def reload(self, timeout: float = 60.0) -> None:
        """Have the workers replaced, and return when they are; ControlError says why if not."""
        before = self._order("reload").get("generation", 1)
        deadline = time.monotonic() + timeout
        while (state := self.status()).get("generation", 1) == before or _is_rolling(state):
            if state["reload"]["state"] == "refused":
                raise ControlError(f"it was not reloaded: {state['reload']['reason']}")
            if time.monotonic() >= deadline:
                raise ControlError(f"the workers were not replaced within {timeout:g} s")
            self._rest()

    def status(self) -> dict[str, Any]:
        """Return what the master says of itself, as `forkresque status --local --json` has it."""
        return self._order("status")

    def _order(self, verb: str, **arguments: object) -> dict[str, Any]:
        """Have the master carry out an order. Raises ControlError."""
        if self.pid is None:
            raise ControlError(f"cannot {verb}: there is no master", hint="start it first")
        if self._control is not None and self._master != os.getpid():
            return ask(self._control, verb, **arguments)
        if self._master is None or verb not in _SIGNAL_OF:
            raise ControlError(
                f"cannot {verb} from here: the master would wait for itself",
                hint="a job may, a program beside which it was started, and forkresque",
            )
        if not self._told_to_end:  # a second TERM would cut the jobs in hand
            os.kill(self._master, _SIGNAL_OF[verb])
        self._told_to_end |= verb == "drain"
        return {}

    def _supervise(self, options: SupervisorOptions) -> int:
        self._master, self._told_to_end = os.getpid(), False
        return int(supervise(lambda: self._app, options, pinned=_PINNED, events=self.events))

    # -- the process beside ------------------------------------------------------------------

    def _be_master(self, inherited: Inheritance, *, directory: Path, score: str) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # until the master hears it; nobody is there
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        with contextlib.suppress(OSError):  # it is its children that should be chosen
            Path("/proc/self/oom_score_adj").write_text(score)
        inherited.pair.close()
        forget_manager(os.environ)  # which looks after the program
        options = replace(self.options, control=str(self._control))
        try:
            return self._supervise(options)
        finally:
            shutil.rmtree(directory, ignore_errors=True)  # its owner may be gone

    def _await_ready(self, started: Started, timeout: float) -> None:
        deadline, trouble = time.monotonic() + timeout, "it does not answer"
        while started.look():
            with contextlib.suppress(ControlError):
                state = self.status()
                if state["ready"] and state["pid"] == started.forked.pid:  # not another's socket
                    return
                trouble = "; ".join(state.get("trouble", ())) or "its workers boot still"
            if time.monotonic() >= deadline:
                raise ControlError(f"the master was not ready within {timeout:g} s: {trouble}")
            started.rest(_LOOK)
        raise ControlError(f"the master ended with {started.exit_code} before it was ready")

    def _await_end(self, started: Started, timeout: float) -> int | None:
        if self._waited(started, timeout) is None and started.look():
            os.kill(started.forked.pid, signal.SIGKILL)  # its workers hear of it, and end
            self._waited(started, LAST_GRACE)
        return self.exit_code

    def _waited(self, started: Started, timeout: float) -> int | None:
        deadline = time.monotonic() + timeout
        while started.look():
            if (left := deadline - time.monotonic()) <= 0:
                return None
            started.rest(min(left, 1.0))
        return self._close(started)

    def _close(self, started: Started) -> int | None:
        """Let go of a master that has ended; return its exit code."""
        self._started = self._control = None
        self.exit_code = started.exit_code
        atexit.unregister(self._at_exit)
        started.undo.close()
        return self.exit_code

    def _at_exit(self) -> None:
        if self._started is not None and os.getpid() == self._started.owner:
            self.stop()  # and no copy of this program that leaves before it

    def _rest(self) -> None:
        threading.Event().wait(_LOOK)

    # -- what must be so ---------------------------------------------------------------------

    def _check_alone(self) -> None:
        if self.pid is not None:
            raise ConfigError(f"this MultiWorker runs already, in process {self.pid}")
        if threading.current_thread() is not threading.main_thread():
            raise ConfigError("a MultiWorker has to be started from the main thread")
        if others := other_tasks():
            raise ConfigError(
                f"cannot fork while other threads are alive: {', '.join(others)}",
                hint="start it before the threads, or run forkresque start beside this program",
            )

    @contextmanager
    def _reachable(self, *, required: bool) -> Iterator[None]:
        """Start or join the embedded server, if it is one, and refuse a Redis that loses jobs.

        One that cannot be reached is waited for, by the clerk and the workers, unless `required`.
        """
        app, url = self._app, self._app.url
        with ExitStack() as undo:
            if embedded.is_embedded(url):
                directory = embedded.directory_of(url)
                if directory is None and "connection" in vars(app):
                    raise ConfigError(
                        f"{url} without a directory is a new server, and jobs are in another",
                        hint="start before the first job is enqueued, or name the directory",
                    )
                server = undo.enter_context(embedded.start(directory))
                app.connect_to(url=server.url)
                undo.callback(app.connect_to, url=url)
            look_at_redis(app, required=required)
            yield

    @contextmanager
    def _closed_to_listeners(self) -> Iterator[None]:
        """Refuse listeners that no process would know of."""
        self.events.closed = "the workers are forked already; listen before they are"
        try:
            yield
        finally:
            self.events.closed = ""


def _listed(given: str | Iterable[Any] | None) -> Any:
    return given if given is None or isinstance(given, str) else tuple(given)


def _resolved(given: Mapping[str, Any]) -> SupervisorOptions:
    """Return the options of a pool. An argument beats the environment, that beats the default."""
    given = {name: value for name, value in given.items() if value is not None}
    known = {each.name for each in fields(SupervisorOptions)}.difference(_IN_MEMORY)
    for name in given.keys() - known:
        near = get_close_matches(name, known, n=1)
        raise ConfigError(
            f"a MultiWorker has no option {name!r}",
            hint=f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}",
        )
    foreign = set(map(variable, (*_IN_MEMORY, *_OF_A_SERVICE)))
    environ = {name: value for name, value in os.environ.items() if name not in foreign}
    return resolve(SupervisorOptions, given=given, environ=environ)


def _is_rolling(state: Mapping[str, Any]) -> bool:
    now = state["generation"]
    return any(worker.get("generation", now) != now for worker in state["workers"])

"""Course: the one run of a worker, in whichever thread, and its end."""

import atexit
import logging
import os
import threading
from collections.abc import Callable

from forkresque.errors import ConfigError

log = logging.getLogger("forkresque.worker")


class Course:
    """One run of `work`, which returns soon after `stop` was called."""

    def __init__(self, name: str, work: Callable[[], None], stop: Callable[[], None]) -> None:
        self._name = name
        self._work = work
        self._stop = stop
        self._guard = threading.Lock()
        self._runner: threading.Thread | None = None
        self._pid = os.getpid()
        self.helper: threading.Thread | None = None  # which the run ends, and waits for
        self._over = threading.Event()
        self._error: BaseException | None = None

    @property
    def begun(self) -> bool:
        """Return whether it was told to run, or to end before that."""
        return self._runner is not None or self._over.is_set()

    def run(self) -> None:
        """Run in this thread. Raises ConfigError for a second run."""
        self._engage(threading.current_thread())
        try:
            self._work()
        finally:
            self._over.set()

    def start(self) -> None:
        """Run in a thread of its own, which the end of the process waits for."""
        thread = threading.Thread(target=self._run_apart, name=f"worker {self._name}", daemon=True)
        self._engage(thread)
        atexit.register(self._at_exit)
        try:
            thread.start()
        except RuntimeError:  # there may be no more threads
            atexit.unregister(self._at_exit)
            self._runner = None
            raise

    def end(self, timeout: float | None) -> bool:
        """Stop, and wait; return whether it was over within `timeout` seconds.

        The thread that runs cannot wait for itself, nor one that it waits for (see `helper`), nor a
        forked copy for the original: there the answer is False, at once. Raises what ended a run
        in its own thread.
        """
        self._stop()
        with self._guard:
            if self._runner is None:
                self._over.set()
        if threading.current_thread() in (self._runner, self.helper) or os.getpid() != self._pid:
            return False
        over = self._over.wait(timeout)
        error, self._error = self._error, None
        if error is not None:
            raise error
        return over

    def check_process(self) -> None:
        """Raise ConfigError in a forked copy, which shares the worker's id with the original."""
        if os.getpid() != self._pid:
            raise ConfigError(
                f"worker {self._name} was made in process {self._pid}, this is {os.getpid()}",
                hint="make the worker in the process that runs it",
            )

    def _engage(self, thread: threading.Thread) -> None:
        self.check_process()
        with self._guard:
            if self.begun:
                state = "has ended" if self._over.is_set() else "runs already"
                raise ConfigError(f"worker {self._name} {state}", hint="make another one")
            self._runner = thread

    def _run_apart(self) -> None:
        try:
            self._work()
        except BaseException as error:
            log.exception("worker %s has failed", self._name)
            self._error = error  # for who waits for the end
        finally:
            atexit.unregister(self._at_exit)
            self._over.set()

    def _at_exit(self) -> None:
        if os.getpid() == self._pid:  # a forked copy has no such thread
            self._stop()
            self._over.wait()

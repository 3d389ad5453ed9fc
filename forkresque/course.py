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
        self._over = threading.Event()
        self._error: BaseException | None = None

    @property
    def begun(self) -> bool:
        """Return whether it was told to run, or to end before that."""
        return self._runner is not None or self._over.is_set()

    @property
    def over(self) -> bool:
        """Return whether it has ended."""
        return self._over.is_set()

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
        thread.start()

    def end(self, timeout: float | None) -> bool:
        """Stop, and wait; return whether it was over within `timeout` seconds.

        The thread that runs cannot wait for itself: there the answer is False, at once. Raises
        what ended a run in its own thread.
        """
        self._stop()
        with self._guard:
            if self._runner is None:
                self._over.set()
        if self._runner is threading.current_thread():
            return False
        over = self._over.wait(timeout)
        error, self._error = self._error, None
        if error is not None:
            raise error
        return over

    def _engage(self, thread: threading.Thread) -> None:
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

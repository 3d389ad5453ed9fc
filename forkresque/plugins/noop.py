"""Noop: a job whose errors do not matter."""

import logging
from collections.abc import Callable

from forkresque.plugins.base import Performance, Plugin

log = logging.getLogger("forkresque.plugins")


def _log(error: BaseException) -> None:
    log.warning("a job's error is ignored: %r", error)


class Noop(Plugin):
    """Hand an error to `logger` and count the job as done; the failed list hears nothing."""

    def __init__(self, *, logger: Callable[[BaseException], object] = _log) -> None:
        super().__init__(logger=logger)
        self._logger = logger

    def after_perform(self, context: Performance) -> None:
        """Clear the error."""
        if context.error is not None:
            error, context.error = context.error, None
            self._logger(error)

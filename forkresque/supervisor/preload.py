"""Import the application before the first fork, so that all children share its memory.

A fork copies only the thread that forks: locks that others hold stay locked in the child for
ever. So an application that starts threads at import is imported by each child for itself.
"""

import logging
import os
import sys
from collections.abc import Callable

from forkresque.app import Forkresque
from forkresque.options import flag, variable
from forkresque.supervisor.child import other_tasks

log = logging.getLogger("forkresque.master")


def preloaded(load: Callable[[], Forkresque]) -> Callable[[], Forkresque]:
    """Import the application here; return what gives it to the children.

    If that has started threads, this process begins anew in its place, without preloading.
    """
    app = load()
    if threads := other_tasks():
        log.warning(
            "importing the application started threads: %s; starting over without preload, "
            "so each worker imports it for itself",
            ", ".join(threads),
        )
        logging.shutdown()
        words = [word for word in sys.orig_argv if word != flag("preload")]  # it would win
        os.execve(sys.executable, words, os.environ | {variable("preload"): "0"})  # noqa: S606
    return lambda: app

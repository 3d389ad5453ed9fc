"""A worker of ours in a thread of the test."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from forkresque import Worker
from forkresque.connection import Connectable
from forkresque.post import Post

HOST = "ours"


@contextmanager
def performing(
    connection: Connectable, jobs: Mapping[str, Any], *, queues: Sequence[str] = ("*",)
) -> Iterator[Worker]:
    """Have a worker perform jobs; in the end it finishes the one in hand."""
    worker = Worker(connection, jobs, queues=queues, post=Post.alone(queues, host=HOST))
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(10.0)
        assert not thread.is_alive(), "the worker does not leave"

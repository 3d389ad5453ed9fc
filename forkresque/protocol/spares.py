"""Connections that nobody uses now: taken by one thread for one exchange, and given back.

In place of redis-py's pool, which spends more on a question than the question itself: two locks,
its metrics, and a poll object made anew to look whether the server has hung up. What is asked
over them, and what an error means, is in connection.py.
"""

import os
import select
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis

Ear = Callable[[int], object]  # takes milliseconds to wait; true if there is something to read


def ear(sock: Any) -> Ear:
    """Return what asks a socket, again and again, whether there is something to read."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return poll.poll


@dataclass(slots=True)
class Spare:
    """A connection in use, and the list that it came from."""

    connection: Any
    home: "list[Spare]"
    poll: Ear


class Spares:
    """The connections of any number of threads. After a fork the child opens its own.

    The last one given back is taken first, so a burst of threads leaves no more in use than needed.
    """

    def __init__(self, pool: redis.ConnectionPool) -> None:
        self._pool: Any = pool  # what it knows about connections; it makes none itself
        self._pid = os.getpid()
        self._idle: list[Spare] = []

    def take(self) -> Spare:
        """Return a connection that is open and silent. Raises what redis-py does."""
        if self._pid != os.getpid():
            self._idle = []  # before the pid: who sees that one must not see the parent's list
            self._pid = os.getpid()
        idle = self._idle
        while idle:
            try:
                spare = idle.pop()
            except IndexError:  # another thread was faster
                break
            if not spare.poll(0):
                return spare
            spare.connection.disconnect()  # the server has hung up, or says what nobody asked
        return self._open(idle)

    def give(self, spare: Spare) -> None:
        """Take a connection back. One of before `close`, or of before a fork, is closed."""
        if spare.home is self._idle and spare.connection.is_connected:
            spare.home.append(spare)
        else:
            spare.connection.disconnect()

    def close(self) -> None:
        """Close all that are here, and those in use when they come back."""
        idle, self._idle = self._idle, []
        while idle:
            idle.pop().connection.disconnect()

    def _open(self, home: list[Spare]) -> Spare:
        connection = self._pool.connection_class(**self._pool.connection_kwargs)
        connection.connect()
        return Spare(connection, home, ear(connection._sock))  # noqa: SLF001 - no public way

"""Connections that nobody uses now: who gets which, and which are never used again."""

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from forkresque.protocol.spares import Spares


class Line:
    """A connection whose far end the test has in hand."""

    def __init__(self, *, lines: "list[Line]") -> None:
        self._sock, self.far = socket.socketpair()
        self.connected = False
        self.users = 0
        lines.append(self)

    @property
    def is_connected(self) -> bool:
        return self.connected

    def connect(self) -> None:
        self.connected = True

    def disconnect(self) -> None:
        self.connected = False
        self._sock.close()


class Lines:
    """What Spares want to know of a pool."""

    connection_class = Line

    def __init__(self) -> None:
        self.made: list[Line] = []
        self.connection_kwargs = {"lines": self.made}


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines = Lines()
    yield lines
    for line in lines.made:
        line.disconnect()
        line.far.close()


@pytest.fixture
def spares(lines: Any) -> Spares:
    return Spares(lines)


def test_what_was_given_back_last_is_taken_first(spares: Spares) -> None:
    first, second = spares.take(), spares.take()
    assert first.connection is not second.connection

    spares.give(first)
    spares.give(second)

    assert spares.take() is second
    assert spares.take() is first


@pytest.mark.parametrize("far", ["hangs up", "says what nobody asked"])
def test_a_connection_that_is_not_silent_is_closed(spares: Spares, lines: Lines, far: str) -> None:
    spare = spares.take()
    spares.give(spare)
    if far == "hangs up":
        lines.made[0].far.close()
    else:
        lines.made[0].far.send(b":7\r\n")

    other = spares.take()

    assert other is not spare
    assert [line.connected for line in lines.made] == [False, True]


def test_one_that_was_disconnected_in_use_is_not_kept(spares: Spares) -> None:
    spare = spares.take()
    spare.connection.disconnect()
    spares.give(spare)

    assert spares.take() is not spare


def test_closing_closes_also_those_that_come_back_later(spares: Spares, lines: Lines) -> None:
    used, idle = spares.take(), spares.take()
    spares.give(idle)

    spares.close()
    assert [line.connected for line in lines.made] == [True, False]
    spares.give(used)

    assert [line.connected for line in lines.made] == [False, False]
    assert spares.take().connection is lines.made[2]


def test_a_child_neither_takes_nor_keeps_its_parents(spares: Spares, lines: Lines) -> None:
    idle, used = spares.take(), spares.take()
    spares.give(idle)
    spares._pid = os.getpid() - 1  # as it is in a child

    own = spares.take()
    spares.give(used)

    assert own.connection is lines.made[2]
    assert spares.take().connection is lines.made[3]


def test_no_two_threads_have_the_same_one(spares: Spares, lines: Lines) -> None:
    start = threading.Barrier(8, timeout=5.0)

    def use(_thread: int) -> int:
        start.wait()
        most = 0
        for _ in range(200):
            spare = spares.take()
            spare.connection.users += 1
            most = max(most, spare.connection.users)
            spare.connection.users -= 1
            spares.give(spare)
        return most

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(use, range(8))) == {1}
    assert len(lines.made) <= 8

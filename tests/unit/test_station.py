"""The station of a worker among others: what a rest hears, and what it does not ask for."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest

from forkresque.scoreboard import Role, Scoreboard
from forkresque.supervisor.hand import Limits, Pipe, Pooled
from forkresque.supervisor.messages import Due, send
from forkresque.supervisor.wakeups import Wakeups


class Counted(Wakeups):
    """Wakeups that count how often the kernel is asked."""

    asked = 0

    def take(self) -> set[int]:
        self.asked += 1
        return super().take()


class Post:
    """A station, and the other ends of all that it listens to."""

    def __init__(self) -> None:
        self.board = Scoreboard(1, shared=False)
        self.seat = self.board.seats[0]
        self.seat.take(Role.WORKER, 1)
        self.master, mine = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mine.setblocking(False)
        self.baton = Pipe.create()
        self.wakeups = Counted(())
        inherited: Any = SimpleNamespace(seat=self.seat, pair=mine, parent=os.getppid())
        limits = Limits(max_jobs=0, max_memory=0)
        self.station = Pooled(self.board, self.baton, inherited, self.wakeups, limits)
        self.bell, self.redis = socket.socketpair()
        self._mine = mine

    def close(self) -> None:
        self.station._sleepers.close()
        for end in (self.master, self._mine, self.bell, self.redis):
            end.close()
        for number in (*self.baton_ends, self.wakeups._reader, self.wakeups._writer):
            os.close(number)

    @property
    def baton_ends(self) -> tuple[int, int]:
        return self.baton.reader, self.baton.writer

    def rest(self, timeout: float = 5.0) -> bool:
        return self.station.rest(timeout, self.bell.fileno())


@pytest.fixture
def post() -> Iterator[Post]:
    with closing(Post()) as post:
        yield post


def test_a_push_ends_a_rest_and_nothing_else_is_asked(post: Post) -> None:
    post.redis.send(b">2\r\n")

    assert not post.rest()

    assert post.wakeups.asked == 0


def test_word_of_the_master_is_heard_beside_a_push(post: Post) -> None:
    post.redis.send(b">2\r\n")
    send(post.master, Due())

    assert post.rest()
    assert not post.rest(), "it was heard already"


def test_a_signal_is_heard_beside_a_push(post: Post) -> None:
    post.redis.send(b">2\r\n")
    post.wakeups._note(15, None)

    assert post.rest()
    assert post.station.leaving
    assert not post.rest(), "it was heard already"


def test_a_pause_is_seen_when_nothing_comes(post: Post) -> None:
    post.board.orders.paused = 1

    assert post.rest(0.0)


def test_a_second_baton_ends_the_rest_of_the_one_on_call(post: Post) -> None:
    post.seat.on_call = 1
    post.baton.give()

    assert post.rest()
    assert not post.baton.take(), "it has taken it"

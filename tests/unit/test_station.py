"""The station of a worker among others: what a rest hears, and what it does not ask for."""

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from types import SimpleNamespace
from typing import Any

import pytest

from forkresque.scoreboard import Phase, Role, Scoreboard
from forkresque.supervisor.hand import Limits, Pipe, Pooled
from forkresque.supervisor.messages import Due, send
from forkresque.supervisor.wakeups import Wakeups
from tests.support.waiting import wait_until


class Counted(Wakeups):
    """Wakeups that count how often the kernel is asked."""

    asked = 0

    def take(self) -> set[int]:
        self.asked += 1
        return super().take()


class Post:
    """A station, and the other ends of all that it listens to."""

    def __init__(self, board: Scoreboard, baton: Pipe, number: int = 0) -> None:
        self.board, self.baton = board, baton
        self.seat = board.seats[number]
        self.seat.take(Role.WORKER, 1)
        self.seat.pid = 1 + number
        self.seat.enter(Phase.IDLE, 1)
        self.master, mine = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mine.setblocking(False)
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
        os.close(self.wakeups._reader)
        os.close(self.wakeups._writer)

    def rest(self, timeout: float = 5.0) -> bool:
        return self.station.rest(timeout, self.bell.fileno())


@pytest.fixture
def posts() -> Iterator[list[Post]]:
    """Return the posts of a pool of eight, all asleep."""
    board, baton = Scoreboard(8, shared=False), Pipe.create()
    with ExitStack() as stack:
        stack.callback(os.close, baton.reader)
        stack.callback(os.close, baton.writer)
        yield [stack.enter_context(closing(Post(board, baton, number))) for number in range(8)]


@pytest.fixture
def post(posts: list[Post]) -> Post:
    return posts[0]


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
    assert post.baton.take() is None, "it has taken it"


# -- the baton -----------------------------------------------------------------------------------


def test_who_knows_of_one_job_or_none_goes_on_call(post: Post) -> None:
    for left in (0, 1):
        post.baton.give(left)

        assert post.station.turn() is not None

        assert post.seat.on_call
        assert post.baton.take() is None
        assert not post.station.is_surplus()


def test_who_knows_of_more_jobs_passes_the_baton_on_before_it_claims(post: Post) -> None:
    post.baton.give(3)

    assert post.station.turn() is not None

    assert not post.seat.on_call
    assert post.station.is_surplus(), "it would stay on call if it finds nothing"
    post.station.pass_on(5)  # it has found a job
    assert post.baton.take() == 2
    assert post.baton.take() is None


def test_a_paused_worker_tells_nobody_of_jobs(post: Post) -> None:
    post.baton.give(3)
    post.board.orders.paused = 1

    with ThreadPoolExecutor(1) as pool:
        turn = pool.submit(post.station.turn)
        wait_until(lambda: post.seat.turns == 1, "it to reach for the baton")
        post.board.orders.draining = 1  # so that the turn ends
        send(post.master, Due())
        assert turn.result(5.0) is None

    assert post.baton.take() is None
    assert not post.seat.on_call


def test_a_baton_tells_of_no_more_jobs_than_there_are_sleepers(posts: list[Post]) -> None:
    first = posts[0]
    first.baton.give()
    assert first.station.turn() is not None
    posts[1].seat.enter(Phase.RUN, 1)
    posts[2].seat.held = 1
    posts[3].seat.pool = 1

    first.station.pass_on(1_000_000)

    assert first.baton.take() == 4


@pytest.mark.parametrize("jobs", range(1, 11))
def test_a_burst_wakes_as_many_as_there_are_jobs_and_one_more(posts: list[Post], jobs: int) -> None:
    posts[0].baton.give()
    waiting, woken = jobs, 0
    for post in posts:
        if not post.station._sleepers.poll(0):
            break
        assert post.station.turn() is not None
        woken += 1
        if waiting:
            waiting -= 1
            post.station.pass_on(waiting)
            post.seat.enter(Phase.RUN, 1)

    assert woken == min(jobs + 1, 8)
    assert sum(post.seat.on_call for post in posts) == (jobs < 8)


def test_the_baton_of_an_older_worker_tells_of_no_jobs(post: Post) -> None:
    os.write(post.baton.writer, b"b")

    assert post.baton.take() == 0

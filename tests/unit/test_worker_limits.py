"""After how many jobs a worker says that it is due, and after how many it leaves."""

import os
from collections.abc import Iterator

import pytest

from forkresque.scoreboard import Role, Scoreboard, Seat
from forkresque.supervisor.hand import Limits


@pytest.fixture
def seat() -> Iterator[Seat]:
    board = Scoreboard(1)
    board.seats[0].take(Role.WORKER, 1)
    yield board.seats[0]
    os.close(board.fd)


def test_it_is_due_once_and_leaves_at_the_last(seat: Seat) -> None:
    limits, told = Limits(max_jobs=10, max_memory=0), []
    seat.due_jobs = 8

    for number in range(1, 11):
        seat.done, seat.failed = number // 2, number - number // 2
        told.append((limits.are_near(seat), limits.are_reached(seat)))

    assert [near for near, _ in told].count(True) == 1
    assert told[7] == (True, False)
    assert [number for number, (_, reached) in enumerate(told, 1) if reached] == [10]


@pytest.mark.parametrize(("max_jobs", "due_jobs"), [(0, 0), (3, 0)])
def test_without_a_limit_of_its_own_it_is_never_due(
    seat: Seat, max_jobs: int, due_jobs: int
) -> None:
    limits = Limits(max_jobs=max_jobs, max_memory=0)
    seat.due_jobs = due_jobs

    for number in range(1, 5):
        seat.done = number
        assert not limits.are_near(seat)

"""What workers use of the machine; this very process is one of them."""

import os
from collections.abc import Iterator

import pytest

from forkresque.scoreboard import Role, Scoreboard
from forkresque.supervisor.gauges import Gauges

NOBODY = 2**22 + 1  # beyond the highest pid that the kernel gives
MEGABYTE = 1 << 20


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    board = Scoreboard(4)
    yield board
    os.close(board.fd)


def sit(board: Scoreboard, number: int, *, pid: int = 0, role: Role = Role.WORKER) -> None:
    board.seats[number].take(role, 0)
    board.seats[number].pid = pid or os.getpid()


def burn(seconds: float = 0.05) -> None:
    begun = os.times().user
    while os.times().user - begun < seconds:
        sum(range(10_000))


def test_the_load_of_a_worker_is_known_after_two_looks(board: Scoreboard) -> None:
    sit(board, 1)
    gauges = Gauges(board)

    gauges.look(100.0)
    assert gauges.cores(1) is None
    burn()
    gauges.look(101.0)

    cores = gauges.cores(1)
    assert cores is not None
    assert cores >= 0.04


def test_two_looks_at_once_say_nothing_new_of_the_load(board: Scoreboard) -> None:
    sit(board, 1)
    gauges = Gauges(board)
    gauges.look(100.0)
    burn()
    gauges.look(101.0)
    before = gauges.cores(1)

    burn()
    gauges.look(101.1)

    assert gauges.cores(1) == before


def test_growth_is_measured_from_when_a_worker_was_ready(board: Scoreboard) -> None:
    sit(board, 1)
    board.seats[1].own_at_ready = 1
    gauges = Gauges(board)

    gauges.look(100.0)

    assert gauges.growth()[1] > MEGABYTE, "all that this process owns"


def test_growth_of_one_who_was_not_measured_is_from_the_first_look(board: Scoreboard) -> None:
    sit(board, 1)
    gauges = Gauges(board)

    gauges.look(100.0)
    assert gauges.growth() == {1: 0}
    ballast = bytearray(os.urandom(1)) * (32 * MEGABYTE)
    gauges.look(101.0)

    assert gauges.growth()[1] > 16 * MEGABYTE
    assert len(ballast) == 32 * MEGABYTE


def test_who_sits_in_a_seat_after_another_is_not_measured_by_that_one(board: Scoreboard) -> None:
    sit(board, 1)
    gauges = Gauges(board)
    gauges.look(100.0)
    gauges.look(101.0)
    assert gauges.growth()

    board.seats[1].pid = os.getppid()

    assert gauges.cores(1) is None
    assert gauges.growth() == {}
    gauges.look(102.0)
    assert gauges.cores(1) is None
    assert gauges.growth() == {1: 0}


def test_only_living_workers_are_looked_at(board: Scoreboard) -> None:
    sit(board, 0, role=Role.CLERK)
    sit(board, 1, pid=NOBODY)
    sit(board, 2)
    board.seats[2].leave()
    gauges = Gauges(board)

    gauges.look(100.0)

    assert gauges.growth() == {}
    assert gauges.looked_at == 100.0


def test_what_a_pool_has_used_is_not_taken_back_when_a_worker_goes(board: Scoreboard) -> None:
    sit(board, 1)
    board.seats[1].pool = 3
    gauges = Gauges(board)
    gauges.look(100.0)
    burn()
    gauges.look(101.0)
    used = gauges.run[3]

    board.seats[1].leave()
    gauges.look(102.0)

    assert gauges.run[3] == used
    assert set(gauges.run) == {3}

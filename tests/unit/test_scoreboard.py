"""The shared memory of one master."""

import mmap
import os
from collections.abc import Iterator
from random import Random

import pytest

from forkresque.scoreboard import MOST_POOLS, Phase, Role, Scoreboard


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    board = Scoreboard(3)
    yield board
    os.close(board.fd)


def words_of(block: object) -> list[str]:
    return [name for name in vars(type(block)) if isinstance(vars(type(block))[name], property)]


def test_a_new_board_is_empty_and_knows_its_layout(board: Scoreboard) -> None:
    assert [seat.phase for seat in board.seats] == [Phase.EMPTY] * 3
    assert list(board.taken(Role.WORKER)) == []


def test_every_word_has_a_place_of_its_own(board: Scoreboard) -> None:
    blocks = [board.orders, board.books, *board.depths, *board.seats]
    expected: dict[tuple[int, str], int | str] = {}
    for index, block in enumerate(blocks):
        for name in words_of(block):
            if name != "phase":
                value = len(expected) + 1
                setattr(block, name, str(value) if name == "title" else value)
                expected[index, name] = str(value) if name == "title" else value

    assert {key: getattr(blocks[key[0]], key[1]) for key in expected} == expected


def test_another_mapping_of_the_same_memory_shows_the_same(board: Scoreboard) -> None:
    board.orders.paused = 77

    with mmap.mmap(board.fd, 0) as other:
        assert memoryview(other).cast("q").tolist().count(77) == 1


@pytest.mark.parametrize("value", [0, 1, -1, 2**63 - 1, -(2**63)])
def test_a_word_holds_64_bits(board: Scoreboard, value: int) -> None:
    board.seats[0].beat_ns = value

    assert board.seats[0].beat_ns == value


def test_a_taken_seat_is_clean_and_boots(board: Scoreboard) -> None:
    seat = board.seats[1]
    for name in words_of(seat):
        if name not in ("phase", "title"):
            setattr(seat, name, 5)
    seat.title = "old"

    seat.take(Role.WORKER, 42)

    assert (seat.role, seat.phase, seat.taken_ns, seat.beat_ns) == (Role.WORKER, Phase.BOOT, 42, 42)
    assert (seat.pid, seat.epoch, seat.soft_ns, seat.hard_ns, seat.done) == (0, 0, 0, 0, 0)
    assert seat.title == ""


def test_a_change_of_phase_is_a_sign_of_life(board: Scoreboard) -> None:
    board.seats[0].enter(Phase.RUN, 99)

    assert (board.seats[0].phase, board.seats[0].beat_ns) == (Phase.RUN, 99)


def test_only_seats_with_a_process_count_as_taken(board: Scoreboard) -> None:
    for seat, role, pid in zip(
        board.seats, (Role.CLERK, Role.WORKER, Role.WORKER), (11, 12, 0), strict=True
    ):
        seat.take(role, 1)
        seat.pid = pid

    assert [seat.pid for seat in board.taken(Role.WORKER)] == [12]
    assert [seat.pid for seat in board.taken(Role.CLERK)] == [11]
    board.seats[1].leave()
    assert list(board.taken(Role.WORKER)) == []
    assert board.seats[1].phase is Phase.EMPTY


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("", ""),
        ("mail.send", "mail.send"),
        ("x" * 64, "x" * 64),
        ("x" * 65, "x" * 64),
        ("é" * 40, "é" * 32),
        ("x" + "é" * 40, "x" + "é" * 31 + "\ufffd"),
        ("a\udcffb", "a?b"),
        ("a\0b", "a\0b"),
    ],
)
def test_a_title_is_cut_to_64_bytes(board: Scoreboard, name: str, title: str) -> None:
    seat = board.seats[0]
    seat.title = "something longer that was there before"

    seat.title = name

    assert seat.title == title
    assert board.seats[1].title == ""


def test_who_adopts_a_board_by_its_descriptor_sees_the_same_seats(board: Scoreboard) -> None:
    board.seats[2].take(Role.WORKER, 9)
    board.seats[2].pid, board.seats[2].title = 12, "mail.send"
    board.depths[MOST_POOLS - 1].waiting = 3

    other = Scoreboard.adopt(board.fd)

    assert other.fd == board.fd
    assert len(other.seats) == 3
    assert other.depths[MOST_POOLS - 1].waiting == 3
    (seat,) = other.taken(Role.WORKER)
    assert (seat.pid, seat.title, seat.phase) == (12, "mail.send", Phase.BOOT)
    seat.done = 5
    assert board.seats[2].done == 5


def test_a_board_of_one_worker_has_no_descriptor() -> None:
    board = Scoreboard(1, shared=False)

    board.seats[0].enter(Phase.RUN, 7)

    assert board.fd == -1
    assert board.seats[0].phase is Phase.RUN
    assert len(board.depths) == MOST_POOLS


@pytest.mark.parametrize("seed", range(10))
def test_seats_never_write_into_each_other(seed: int) -> None:
    chance, board = Random(seed), Scoreboard(8)
    truth = [("", 0)] * 8
    for _ in range(500):
        index = chance.randrange(8)
        truth[index] = ("x" * chance.randint(0, 80), chance.getrandbits(62))
        board.seats[index].title, board.seats[index].hard_ns = truth[index]

        assert [(seat.title, seat.hard_ns) for seat in board.seats] == [
            (title[:64], number) for title, number in truth
        ]
    os.close(board.fd)

"""Whether new code may take over. How it does is in tests/processes."""

import math
import os
from pathlib import Path

import pytest

from forkresque.errors import ConfigError
from forkresque.scoreboard import LAYOUT, MOST_POOLS
from forkresque.supervisor.reload import SPARE, Fitness, Reload, Workplace


@pytest.mark.parametrize("fitness", [Fitness(LAYOUT, 66, 1), Fitness(1, 10_000, 32)])
def test_a_fitness_travels_as_one_word(fitness: Fitness) -> None:
    assert Fitness.parse(str(fitness)) == fitness
    assert str(fitness).split() == [str(fitness)]


@pytest.mark.parametrize("text", ["", "2", ":", "a:b:c", "2:66", "2:3:4:5"])
def test_what_other_code_may_want_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"wants {text!r} of the new"):
        Fitness.parse(text)


@pytest.mark.parametrize("workers", [1, 100 - SPARE])
def test_code_of_the_same_layout_for_which_there_are_seats_may_take_over(workers: int) -> None:
    Fitness(LAYOUT, 100, 1).check(LAYOUT, workers, 1)


def test_workers_for_whom_there_are_no_seats_are_refused_with_both_numbers() -> None:
    workers = 100 - SPARE + 1

    with pytest.raises(
        ConfigError, match=f"^{workers} workers need more seats than the 100 "
    ) as one:
        Fitness(LAYOUT, 100, 1).check(LAYOUT, workers, 1)

    assert "restart" in str(one.value.hint)


def test_another_layout_is_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match="layout 3 of the shared memory, the old one 2") as one:
        Fitness(2, 100, 1).check(3, 1, 1)

    assert "restart" in str(one.value.hint)


@pytest.mark.parametrize("pools", [1, MOST_POOLS - 3])
def test_pools_for_which_there_are_numbers_may_come(pools: int) -> None:
    Fitness(LAYOUT, 100, 3).check(LAYOUT, 1, pools)


def test_pools_for_which_there_are_no_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match=f"{MOST_POOLS} pools after 1 that were") as one:
        Fitness(LAYOUT, 100, 1).check(LAYOUT, 1, MOST_POOLS)

    assert "restart" in str(one.value.hint)


def test_nothing_is_going_on_at_first() -> None:
    reload = Reload()

    assert (reload.state, reload.reason) == ("none", "")
    assert reload.pause(5.0) == math.inf
    assert not reload.is_check(os.getpid())
    assert not reload.is_wanted_again()
    reload.cancel()


def test_a_master_that_is_pinned_to_its_code_refuses_without_a_try() -> None:
    reload = Reload(pinned="it was started by a program")

    reload.begin(5.0, Fitness(LAYOUT, 100, 1), within=60.0)

    assert (reload.state, reload.reason) == ("refused", "it was started by a program")
    assert reload.pause(5.0) == math.inf


def test_the_end_of_no_check_lets_no_code_take_over() -> None:
    reload = Reload()

    assert not reload.checked(0)
    assert (reload.state, reload.reason) == ("refused", "there was no check")


# -- the workplace -----------------------------------------------------------------------------


def test_a_link_that_is_moved_leads_to_the_new_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, current = tmp_path / "1", tmp_path / "2", tmp_path / "current"
    old.mkdir()
    new.mkdir()
    current.symlink_to(old)
    monkeypatch.chdir(current)
    monkeypatch.setenv("PWD", str(current))
    place = Workplace()

    current.unlink()
    current.symlink_to(new)
    place.enter()

    assert Path.cwd() == new.resolve()


@pytest.mark.parametrize("name", ["", "/", "/no/such/place"])
def test_a_name_that_means_another_place_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", name)

    assert Workplace().path == str(tmp_path)


def test_a_place_that_is_gone_is_not_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setenv("PWD", str(gone))
    place = Workplace()
    monkeypatch.chdir(tmp_path)
    gone.rmdir()

    place.enter()

    assert Path.cwd() == tmp_path

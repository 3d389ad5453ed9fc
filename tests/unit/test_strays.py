"""Which strangers below a master are killed, and which are guests."""

import json
import math
import random
import subprocess
import sys

import pytest

from forkresque.policy.strays import GRACE, LATE, Process, Strays
from forkresque.supervisor.strays import Leftovers

WORKER = Process(10, start=1000)
STRAY = Process(20, start=2000)
GUEST = Process(5, start=500)


def test_what_comes_with_a_death_is_killed_after_its_grace() -> None:
    strays = Strays()
    strays.died(WORKER, 100.0)

    assert strays.due({STRAY}, 100.0) == []
    assert strays.next_at() == 100.0 + GRACE
    assert strays.due({STRAY}, 100.0 + GRACE - 0.1) == []
    assert strays.due({STRAY}, 100.0 + GRACE) == [STRAY]
    assert strays.due({STRAY}, 101.0 + GRACE) == [STRAY], "until it is gone"
    assert strays.due(set(), 102.0 + GRACE) == []
    assert strays.next_at() == math.inf


def test_the_death_may_be_noted_after_what_it_leaves() -> None:
    strays = Strays()

    assert strays.due({STRAY}, 100.0) == []
    strays.died(WORKER, 100.0 + LATE / 2)
    assert strays.due({STRAY}, 100.0 + LATE) == []

    assert strays.due({STRAY}, 100.0 + LATE + GRACE) == [STRAY]


def test_what_was_there_before_the_dead_is_a_guest() -> None:
    strays = Strays()
    strays.died(WORKER, 100.0)

    for now in (100.0, 101.0, 200.0):
        assert strays.due({GUEST}, now, at_once=True) == []


def test_what_comes_without_a_death_is_a_guest_for_good() -> None:
    strays = Strays()
    strays.died(WORKER, 50.0)
    for now in range(90, 100):
        assert strays.due({STRAY}, float(now)) == []

    strays.died(WORKER, 101.0)

    for later in (101.0, 105.0, 200.0):
        assert strays.due({STRAY}, later) == []


def test_without_grace_all_go_at_once_but_for_guests() -> None:
    strays = Strays()
    strays.due({GUEST}, 0.0)
    strays.died(WORKER, 100.0)

    assert strays.due({STRAY, GUEST}, 100.0, at_once=True) == [STRAY]


def test_what_a_stray_leaves_is_stray_too() -> None:
    strays = Strays()
    strays.died(WORKER, 100.0)
    strays.due({STRAY}, 100.0)
    strays.due({STRAY}, 100.0 + GRACE)
    child = Process(30, start=3000)

    assert strays.due({child}, 110.0) == [], "its parent is gone, and it has its own grace"

    assert strays.due({child}, 110.0 + GRACE) == [child]


def test_a_pid_used_again_is_another_process() -> None:
    strays = Strays()
    strays.died(WORKER, 100.0)
    strays.due({STRAY}, 100.0)
    again = Process(STRAY.pid, start=STRAY.start + 1)

    assert strays.due({STRAY, again}, 100.0 + GRACE) == [STRAY]


def test_the_next_image_goes_on_where_this_one_was() -> None:
    guest = Process(40, start=4000)
    before, after = Strays(), Strays()
    before.due({guest}, 90.0)
    before.died(WORKER, 100.0)
    before.due({STRAY, guest}, 100.0)

    after.condemn(before.condemned, 101.0)
    after.welcome(before.guests)
    after.died(WORKER, 101.0)  # of the same age, between the images

    assert after.due({STRAY, guest}, 101.0) == []
    assert after.due({STRAY, guest}, 101.0 + GRACE) == [STRAY]
    assert after.guests == [guest]


def test_what_the_next_image_is_told_goes_through_json_and_back() -> None:
    told = {"condemned": [[20, 2000]], "guests": [[5, 500], [40, 4000]]}
    assert json.loads(json.dumps(Leftovers(None, 0.0).state)) == {"condemned": [], "guests": []}

    after = Leftovers(json.loads(json.dumps(told)), 100.0)

    assert json.loads(json.dumps(after.state)) == told


def test_a_stray_that_is_welcome_stays_for_good() -> None:
    strays = Strays()
    strays.died(WORKER, 100.0)
    strays.due({STRAY}, 100.0)

    strays.welcome([STRAY])

    for now in (100.1, 100.0 + GRACE, 200.0):
        assert strays.due({STRAY}, now, at_once=True) == []
    assert strays.next_at() == math.inf


@pytest.mark.parametrize("seed", range(30))
def test_over_a_long_life_strays_go_and_guests_stay(seed: int) -> None:
    """A look every second; guests never come within three seconds of a death."""
    chance = random.Random(seed)
    strays, living, guests = Strays(), dict[Process, int](), set[Process]()
    killed, quiet_since, guest_at = 0, 0, -9
    for second in range(2000):
        event, start = chance.random(), second * 100
        if event < 0.1 and second - quiet_since > 3:
            guests.add(Process(100_000 + second, start))
            guest_at = second
        elif event > 0.7 and second - guest_at > 3:
            strays.died(Process(second + 1, start - chance.randrange(5000)), float(second))
            left = [Process(10_000 + 10 * second + each, start) for each in range(event > 0.8)]
            living.update(dict.fromkeys(left, second))
            quiet_since = second

        due = strays.due({*living, *guests}, float(second))

        assert not guests.intersection(due)
        for stray in due:
            assert second - living.pop(stray) == GRACE
            quiet_since = second + 1  # its end will be seen as a death
            killed += 1
        assert all(second - came < GRACE for came in living.values())

    assert guests
    assert killed > 100


def test_a_glance_shows_whether_somebody_came_or_went() -> None:
    leftovers = Leftovers(None, 0.0)
    assert not leftovers.are_as_before(), "nobody has looked yet"
    leftovers.look((), 0.0)
    assert leftovers.are_as_before()

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert not leftovers.are_as_before()
        leftovers.look({child.pid}, 1.0)
        assert leftovers.are_as_before()
        child.communicate()

    assert not leftovers.are_as_before()

"""What the controllers of elastic pools are told, and what becomes of their word."""

import math
import os
from collections.abc import Iterator
from itertools import pairwise

import pytest

from forkresque.policy.child import Doing, Facts, Kind, Spawn
from forkresque.policy.crew import Crew
from forkresque.policy.pool import Pool
from forkresque.scoreboard import Role, Scoreboard
from forkresque.supervisor.gauges import Gauges
from forkresque.supervisor.scaling import REST, SAMPLE_EVERY, Scaled, Scaling

LATENCY = 5.0
JOB = 0.25  # seconds that each job takes, which is one sample
NOBODY = 2**22 + 1  # beyond the highest pid that the kernel gives


class World:
    """A crew of one elastic pool and a fixed one, whose workers do what they are told to."""

    def __init__(self, least: int = 2, most: int = 12, *, target: int = 0) -> None:
        self.pool = Pool(("a",), least, most, target=target)
        self.crew = Crew(40, [self.pool, Pool(("b",), 1, 1)])
        self.board = Scoreboard(40)
        self.gauges = Gauges(self.board)
        self.scaling = Scaling(self.board, self.crew, self.gauges, LATENCY)
        self.now = 1000.0
        self.doing = Doing.RUN
        self.clerk_looks = True
        self.board.books.reached_ns = 1

    @property
    def waiting(self) -> int:
        return int(self.board.depths[0].waiting)

    @waiting.setter
    def waiting(self, number: int) -> None:
        self.board.depths[0].waiting = number

    def step(self) -> list[Scaled]:
        """Live for one sample; whoever is wanted is there at once."""
        self.now += SAMPLE_EVERY
        if self.clerk_looks:
            for depth in self.board.depths:
                depth.seen_ns = int(self.now * 1e9)
        self._people()
        for seat in self.board.taken(Role.WORKER):
            if self.doing is Doing.RUN:
                seat.busy_ns += int(JOB * 1e9)
                seat.done += 1
        return self.scaling.step(self.now, self.facts())

    def facts(self) -> dict[int, Facts]:
        return {seat: Facts(self.doing, 0.0) for seat in self.crew.children}

    def over(self, seconds: float) -> list[Scaled]:
        return [one for _ in range(round(seconds / SAMPLE_EVERY)) for one in self.step()]

    def _people(self) -> None:
        for index, pool in enumerate(self.crew.pools):
            while len(staying := self.crew.staying(index)) < pool.target:
                number = len(self.crew.children)
                self.crew.spawned(Spawn(number, Kind.WORKER, index), self.now)
                self.crew.got_ready(number)
                seat = self.board.seats[number]
                seat.take(Role.WORKER, 1)
                seat.pid, seat.pool = NOBODY + number, index
            for child in staying[pool.target :]:
                child.dismissed = True


@pytest.fixture
def worlds() -> Iterator[list[World]]:
    made: list[World] = []
    yield made
    for world in made:
        os.close(world.board.fd)


@pytest.fixture
def world(worlds: list[World]) -> World:
    worlds.append(World())
    return worlds[0]


def test_a_queue_that_stands_makes_its_pool_grow_with_a_reason(world: World) -> None:
    world.waiting = 500

    changes = world.over(10.0)

    first = changes[0]
    assert (first.pool, first.before) == (world.pool, 2)
    assert first.after > 2
    assert "waiting" in first.reason
    assert all(one.after == other.before for one, other in pairwise(changes))
    assert world.pool.target == changes[-1].after == 12
    assert world.crew.pools[1].target == 1
    assert list(world.scaling.history) == changes


def test_an_idle_pool_shrinks_to_its_least_in_the_end(world: World) -> None:
    world.waiting = 500
    world.over(10.0)
    assert world.pool.target == 12

    world.waiting, world.doing = 0, Doing.IDLE
    changes = world.over(400.0)

    assert world.pool.target == 2
    assert all(change.after < change.before for change in changes)


@pytest.mark.parametrize("unknown", ["no look", "no Redis", "paused", "broken"])
def test_what_is_not_known_or_no_use_changes_nothing(world: World, unknown: str) -> None:
    world.waiting = 500
    if unknown == "no look":
        world.clerk_looks = False
    elif unknown == "no Redis":
        world.board.books.reached_ns = 0
    elif unknown == "paused":
        world.crew.paused = True
    world._people()
    world.pool.births.failures = 3 * (unknown == "broken")

    assert world.over(10.0) == []
    assert world.pool.target == 2


def test_a_pool_looks_at_its_queues_more_often_while_there_is_work(world: World) -> None:
    world.waiting = 1
    world.step()
    assert world.scaling.due_at() == world.now + SAMPLE_EVERY

    world.waiting, world.doing = 0, Doing.IDLE
    world.step()

    assert world.scaling.due_at() == world.now + REST


def test_while_all_are_idle_nobody_is_looked_at(world: World) -> None:
    world.over(2.0)
    looked_at = world.gauges.looked_at
    assert looked_at == world.now

    world.doing = Doing.IDLE
    assert world.over(100.0) == []
    assert world.gauges.looked_at == looked_at

    world.doing = Doing.RUN
    world.over(2.0)
    assert world.gauges.looked_at == world.now


def test_a_pool_that_shrinks_looks_at_nobody_who_is_idle(world: World) -> None:
    world.waiting = 500
    world.over(10.0)
    looked_at = world.gauges.looked_at

    world.waiting, world.doing = 0, Doing.IDLE
    changes = world.over(400.0)

    assert (changes[-1].after, world.pool.target) == (2, 2)
    assert world.gauges.looked_at == looked_at


def test_a_pool_at_rest_grows_as_soon_as_one_that_was_looked_at_all_the_time(world: World) -> None:
    world.doing = Doing.IDLE
    world.over(100.0)

    world.doing, world.waiting, began = Doing.RUN, 500, world.now
    (first, *_) = world.over(5.0)

    assert first.at - began <= REST + 1.25


def test_before_it_is_time_nothing_is_looked_at(world: World) -> None:
    world.step()
    looked_at = world.gauges.looked_at

    assert world.scaling.step(world.now + SAMPLE_EVERY / 2, world.facts()) == []

    assert world.gauges.looked_at == looked_at


def test_pools_of_fixed_size_are_never_due(worlds: list[World]) -> None:
    world = World(3, 3)
    worlds.append(world)
    world.waiting = 500

    assert world.scaling.due_at() == math.inf
    assert world.over(5.0) == []
    assert world.gauges.looked_at == -math.inf


def test_a_master_that_stops_has_nothing_to_scale(world: World) -> None:
    world.waiting = 500
    world.step()

    world.crew.stop(world.now, 25.0)

    assert world.scaling.due_at() == math.inf, "the master would never sleep"
    assert world.scaling.step(world.now + 1.0, world.facts()) == []


def test_bounds_that_move_move_the_target_at_once_and_the_controller_follows(world: World) -> None:
    world.waiting = 500
    world.over(10.0)

    world.crew.allow(world.pool, 5)
    assert world.pool.target == 5
    assert world.over(5.0) == []
    world.crew.allow(world.pool, 9)
    changes = world.over(10.0)

    assert [change.before for change in changes][:1] == [5]
    assert world.pool.target == 9


def test_only_the_last_decisions_are_remembered(worlds: list[World]) -> None:
    worlds.append(world := World(least=2, most=3))
    world.waiting = 5000
    changes = []
    for most in range(3, 30):
        world.crew.allow(world.pool, most)
        changes += world.over(5.0)

    assert len(changes) > 20
    assert world.scaling.history == changes[-20:]


def test_the_work_of_those_who_are_gone_stays_done(world: World) -> None:
    world.over(2.0)
    tally = world.scaling._tally(0, world.now)
    before = (tally.busy, tally.served, tally.completed)
    assert before == (4.0, 4.0, 16)

    seat = world.board.seats[0]
    seat.take(Role.WORKER, 1)
    seat.pid = NOBODY - 1  # another one, who has done nothing yet
    tally = world.scaling._tally(0, world.now)

    assert (tally.busy, tally.served, tally.completed) == before
    seat.busy_ns, seat.done = 10**9, 1
    tally = world.scaling._tally(0, world.now)
    assert (tally.served, tally.completed) == (5.0, 17)

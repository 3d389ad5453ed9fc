"""Crews for tests of their decisions: small ones of healthy children, and facts of these."""

import math
from collections.abc import Sequence

from forkresque.policy.child import Action, Dismiss, Doing, Facts, Kind, Spawn
from forkresque.policy.crew import Crew
from forkresque.policy.judgement import Judge
from forkresque.policy.pool import Pool
from forkresque.policy.renewal import Renewal

CLERK = 0  # the clerk's seat in the crews below; the workers sit from 1 on
NEVER = Renewal()


def new_crew(
    *sizes: int,
    seats: int = 0,
    judge: Judge | None = None,
    renewal: Renewal = NEVER,
    watched: bool = False,
) -> Crew:
    """Return a crew of pools of these sizes, with nobody in them yet."""
    pools = [Pool((f"queue{index}",), size, size) for index, size in enumerate(sizes)]
    seats = seats or sum(sizes) + 4
    return Crew(seats, pools, judge=judge or Judge(), renewal=renewal, watched=watched)


def ready_crew(
    *sizes: int,
    seats: int = 0,
    judge: Judge | None = None,
    renewal: Renewal = NEVER,
    watched: bool = False,
) -> Crew:
    """Return a crew whose children were all born and ready at 0; without sizes, of two workers."""
    crew = new_crew(*(sizes or (2,)), seats=seats, judge=judge, renewal=renewal, watched=watched)
    born(crew, crew.plan(0.0, {}), 0.0)
    assert len(crew.children) == crew.target + 1 + watched
    return crew


def born(crew: Crew, plan: Sequence[Action], now: float) -> None:
    """Have the children born that a plan asks for, and ready at once; it asks for nothing else."""
    for birth in plan:
        assert isinstance(birth, Spawn), birth
        crew.spawned(birth, now)
        crew.got_ready(birth.seat)


def idle(silent: float = 0.0) -> Facts:
    return Facts(Doing.IDLE, silent)


def booting() -> Facts:
    return Facts(Doing.BOOT, 0.0)


def running(
    epoch: int = 1, *, silent: float = 0.0, soft_in: float = math.inf, hard_in: float = math.inf
) -> Facts:
    return Facts(Doing.RUN, silent, epoch, soft_in, hard_in)


def facts_of(crew: Crew, seen: dict[int, Facts] | None = None) -> dict[int, Facts]:
    """Return facts of all children: a clerk at work and idle workers, but for those in `seen`."""
    usual = {Kind.CLERK: Facts(Doing.SETTLE, 0.0), Kind.WORKER: idle(), Kind.WATCHER: idle()}
    return {seat: usual[child.kind] for seat, child in crew.children.items()} | (seen or {})


def planned(crew: Crew, now: float, seen: dict[int, Facts] | None = None) -> list[Action]:
    """Return the crew's plan, after taking note of the dismissals in it."""
    actions = crew.plan(now, facts_of(crew, seen))
    for action in actions:
        if isinstance(action, Dismiss):
            crew.dismissed(action.seat, now)
    return actions


def resize(crew: Crew, by: int) -> None:
    """Do to the first pool what TTIN and TTOU do."""
    crew.allow(crew.pools[0], crew.pools[0].most + by)

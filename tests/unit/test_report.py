"""What a master says of itself."""

import json
import os
from collections.abc import Iterator

import pytest

from forkresque.policy.child import Doing, Facts, Fault, Kind, Spawn
from forkresque.policy.crew import Crew
from forkresque.scoreboard import Phase, Role, Scoreboard
from forkresque.supervisor import report
from forkresque.supervisor.gauges import Gauges
from forkresque.supervisor.scaling import Scaled
from tests.support.crews import CLERK, booting, facts_of, new_crew, ready_crew, running

SECOND = 10**9
NOBODY = 2**22 + 1  # beyond the highest pid that the kernel gives


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    board = Scoreboard(6)
    yield board
    os.close(board.fd)


def sit(board: Scoreboard, number: int, role: Role, pid: int = NOBODY) -> None:
    board.seats[number].take(role, 0)
    board.seats[number].pid = pid


def test_a_worker_is_told_of_in_its_job_and_after_it(board: Scoreboard) -> None:
    sit(board, 1, Role.WORKER)
    seat = board.seats[1]
    seat.done, seat.failed, seat.busy_ns, seat.pool, seat.generation = 5, 2, 3 * SECOND, 1, 4
    seat.enter(Phase.RUN, SECOND)
    seat.title, seat.job_started_ns = "add", SECOND

    running = report.of_workers(board, Gauges(board), 3 * SECOND)
    seat.job_started_ns = 0
    seat.enter(Phase.IDLE, 3 * SECOND)
    idle = report.of_workers(board, Gauges(board), 9 * SECOND)

    told: dict[str, object] = {
        "pid": NOBODY,
        "seat": 1,
        "pool": 1,
        "done": 5,
        "failed": 2,
        "generation": 4,
    }
    told |= {"cpu": None, "memory": None}
    job = {"phase": "run", "job": "add", "job_seconds": 2.0, "busy_seconds": 5.0, "age": 3.0}
    none = {"phase": "idle", "job": "", "job_seconds": 0.0, "busy_seconds": 3.0, "age": 9.0}
    assert running == [told | job]
    assert idle == [told | none]


def test_a_worker_that_is_held_is_called_so(board: Scoreboard) -> None:
    sit(board, 0, Role.WORKER)
    board.seats[0].held = 1

    (booting,) = report.of_workers(board, Gauges(board), 0)
    board.seats[0].enter(Phase.IDLE, 1)
    (held,) = report.of_workers(board, Gauges(board), 0)
    board.seats[0].held = 0
    (free,) = report.of_workers(board, Gauges(board), 0)

    assert [each["phase"] for each in (booting, held, free)] == ["boot", "held", "idle"]


def test_only_workers_are_told_of_as_workers(board: Scoreboard) -> None:
    sit(board, 0, Role.CLERK)
    sit(board, 1, Role.WATCHER)
    sit(board, 2, Role.WORKER, pid=0)

    assert report.of_workers(board, Gauges(board), 0) == []


def test_a_living_worker_has_a_load_and_a_size(board: Scoreboard) -> None:
    sit(board, 0, Role.WORKER, os.getpid())
    gauges = Gauges(board)
    gauges.look(10.0)
    _burn()
    gauges.look(11.0)

    (told,) = report.of_workers(board, gauges, 0)

    assert told["cpu"] > 0.0
    assert told["memory"] >= 0


def _burn() -> None:
    """Use some ticks of CPU time."""
    begun = os.times().user
    while os.times().user - begun < 0.05:
        sum(range(10_000))


def test_the_clerk_is_told_of_with_what_it_knows(board: Scoreboard) -> None:
    unknown = report.of_clerk(board, 2)
    sit(board, 2, Role.CLERK, 8)
    board.books.leads, board.books.reached_ns = 2, 1
    board.books.promoted, board.books.recovered = 6, 7
    board.depths[0].waiting, board.depths[1].waiting, board.depths[2].waiting = 3, 4, 99

    assert unknown == {
        "pid": 0,
        "leads": "follow",
        "waiting": 0,
        "reached": False,
        "promoted": 0,
        "recovered": 0,
    }
    assert report.of_clerk(board, 2) == {
        "pid": 8,
        "leads": "promote",
        "waiting": 7,
        "reached": True,
        "promoted": 6,
        "recovered": 7,
    }


def pools_of(
    board: Scoreboard, crew: Crew, seen: dict[int, Facts], history: tuple[Scaled, ...] = ()
) -> list[dict[str, object]]:
    return report.of_pools(board, crew, facts_of(crew, seen), history, 100.0)


def test_a_pool_is_told_of_with_who_is_in_it_and_why_it_has_that_size(board: Scoreboard) -> None:
    crew = ready_crew(4, 1)
    pool, other = crew.pools
    board.depths[0].waiting, board.depths[0].seen_ns, board.books.reached_ns = 9, 1, 1
    seen = {
        1: running(),
        2: Facts(Doing.SETTLE, 0.0),
        3: Facts(Doing.CALL, 0.0),
        4: booting(),
        5: running(),
    }
    history = (Scaled(97.5, pool, 2, 4, "9 waiting"), Scaled(99.0, other, 2, 1, "idle"))

    told, _ = pools_of(board, crew, seen, history)

    assert told == {
        "index": 0,
        "name": "queue0",
        "queues": ["queue0"],
        "least": 4,
        "most": 4,
        "wanted": 4,
        "busy": 2,
        "idle": 1,
        "booting": 1,
        "waiting": 9,
        "broken": False,
        "scalings": [{"ago": 2.5, "before": 2, "after": 4, "reason": "9 waiting"}],
    }


def test_what_waits_is_not_known_without_a_look_or_without_redis(board: Scoreboard) -> None:
    crew, told = ready_crew(1), []
    board.depths[0].waiting = 9
    for seen_ns, reached_ns in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        board.depths[0].seen_ns, board.books.reached_ns = seen_ns, reached_ns
        told += pools_of(board, crew, {})

    assert [each["waiting"] for each in told] == [None, None, None, 9]


def test_an_abolished_pool_is_told_of_until_it_is_empty(board: Scoreboard) -> None:
    crew = ready_crew(1, 1)
    crew.pools[0].least = crew.pools[0].most = crew.pools[0].target = 0

    assert [each["name"] for each in pools_of(board, crew, {})] == ["queue0", "queue1"]
    crew.dismissed(1, 1.0)
    crew.died(1, 2.0, jitter=0.5)
    assert [each["name"] for each in pools_of(board, crew, {})] == ["queue1"]


def test_counters_are_all_there_from_the_start() -> None:
    crew = new_crew(1)
    counted = {"born", "died", "killed", "recycled", "scaled_up", "scaled_down", "fork_failures"}

    assert report.of_counters(crew) == dict.fromkeys(counted, 0)
    crew = ready_crew(1)
    crew.died(1, 1.0, jitter=0.5)
    told = report.of_counters(crew)
    assert (told["born"], told["died"]) == (2, 1)


def test_a_master_that_is_well_has_no_trouble_and_is_ready(board: Scoreboard) -> None:
    crew = ready_crew(2)
    board.books.reached_ns = 1

    assert report.troubles(crew, board) == []
    assert report.has_enough(crew)
    assert report.is_ready(crew, board)


def test_workers_that_do_not_boot_are_a_trouble_with_a_number(board: Scoreboard) -> None:
    crew = ready_crew(1, 1)
    board.books.reached_ns = 1
    for second in range(3):
        crew.spawned(Spawn(5, Kind.WORKER, 1), float(second))
        crew.died(5, float(second), jitter=0.5)

    assert report.troubles(crew, board) == ["workers of pool queue1 do not boot: 3 in a row"]
    assert not report.is_ready(crew, board)


def test_a_clerk_that_is_gone_or_cut_off_is_a_trouble(board: Scoreboard) -> None:
    crew = ready_crew(1)

    assert report.troubles(crew, board) == ["the clerk does not reach Redis"]
    board.books.reached_ns = 1
    crew.children[CLERK].ready = False
    assert report.troubles(crew, board) == ["there is no clerk"]
    crew.died(CLERK, 1.0, jitter=0.5)
    assert report.troubles(crew, board) == ["there is no clerk"]
    assert report.has_enough(crew), "but the service manager need not know"
    assert not report.is_ready(crew, board)


def test_a_pool_below_its_least_is_not_enough(board: Scoreboard) -> None:
    crew = ready_crew(2, 2)
    board.books.reached_ns = 1

    crew.died(4, 1.0, jitter=0.5)

    assert not report.has_enough(crew)
    assert not report.is_ready(crew, board)


def test_a_master_that_drains_is_not_ready(board: Scoreboard) -> None:
    crew = ready_crew(1)
    board.books.reached_ns = 1

    crew.stop(1.0, 5.0)

    assert not report.is_ready(crew, board)


def test_the_title_says_for_which_queues_how_many_work_and_in_which_state() -> None:
    crew = ready_crew(2, 1)
    assert report.title(crew) == "master queue0 queue1 3 workers"
    crew.paused = True
    assert report.title(crew) == "master queue0 queue1 3 workers paused"
    crew.stop(1.0, 5.0)
    assert report.title(crew) == "master queue0 queue1 3 workers draining"


def test_all_of_it_can_travel_as_json(board: Scoreboard) -> None:
    crew = ready_crew(1)
    crew.condemn(1, Fault.ORDERED, 1.0)
    sit(board, 1, Role.WORKER, os.getpid())
    gauges = Gauges(board)
    gauges.look(1.0)
    history = (Scaled(1.0, crew.pools[0], 1, 2, "é"),)

    told = [
        report.of_clerk(board, 1),
        report.of_workers(board, gauges, 5),
        pools_of(board, crew, {}, history),
        report.of_counters(crew),
        report.troubles(crew, board),
    ]

    assert json.loads(json.dumps(told)) == told

"""What a pool costs besides its jobs: while there are none, and to know how large it should be."""

from collections import Counter
from pathlib import Path

import pytest

from tests.cost.budget import CLERK, CLERK_A_MINUTE, CLERK_SELDOM
from tests.cost.comparing import assert_cost
from tests.cost.hearing import Request, hearing
from tests.cost.tracing import Traced, counted, opened, traced
from tests.support.patience import Bench, patient
from tests.support.site import KEYS, await_rest
from tests.support.waiting import wait_until

APP = ("-A", "tests.cost.jobs", "-q", "cost")
ROUNDS = 12  # of the clerk in a minute: it renews the lease every five seconds
PATIENCE = 30.0  # seconds for what takes two on a quiet machine: strace makes it slow
TURNS = 2  # of the master's loop, which sleeps for five seconds at most
WAKE_UPS = 3  # of an idle master, at most, from one renewal of the lease to the next


@pytest.mark.parametrize(
    ("size", "busy", "looks"),
    [("2", False, False), ("2", True, False), ("1:3", False, False), ("1:3", True, True)],
)
@patient
def test_a_master_looks_at_its_workers_only_to_size_a_pool_at_work(
    bench: Bench, size: str, *, busy: bool, looks: bool
) -> None:
    with traced(*APP, "-c", size, url=bench.server.url) as pool:
        await_rest(pool.master, int(size[0]), PATIENCE)
        pids = [worker.pid for worker in pool.master.children("worker")]
        since = pool.length(pool.master.pid)
        if busy:
            for number in range(4):
                bench.site.enqueue("nap", number, queue="cost")

        files = opened(a_few_turns(pool, since))

    looked_at = {file for file in files for pid in pids if file.startswith(f"/proc/{pid}/")}
    assert bool(looked_at) == looks, looked_at


def a_few_turns(pool: Traced, since: int) -> str:
    """Return what a master asks of the kernel in a few turns of its loop."""
    pid = pool.master.pid

    def turned() -> str:
        calls = pool.calls(pid, since)
        return calls if counted(calls)["epoll_wait"] > TURNS else ""

    return wait_until(turned, f"{TURNS} turns of the master's loop", PATIENCE)


@pytest.mark.parametrize("rounds", [2, pytest.param(12, marks=pytest.mark.full)])
@patient
def test_of_an_idle_pool_only_the_clerk_asks_redis_and_seldom(bench: Bench, rounds: int) -> None:
    master = bench.start(*APP, "-c", "8", url=bench.server.tcp_url)
    await_rest(master, 8, PATIENCE)

    before = sleeps(master.pid)
    with hearing(bench.server) as heard:
        await_renewals(bench, rounds + 1)

    assert 0 < sleeps(master.pid) - before <= WAKE_UPS * (rounds + 1)
    assert len({request.client for request in heard.requests}) == 1, "a worker has asked"
    costs = between_beats(heard.requests)
    assert len(costs) >= rounds
    usual, times = Counter(frozenset(cost.items()) for cost in costs).most_common(1)[0]
    assert_cost("each round", dict(usual), CLERK["each round"])
    assert times >= len(costs) - len(CLERK_SELDOM)


def await_renewals(bench: Bench, number: int) -> None:
    """Wait until the only lease was renewed so many times."""
    redis = bench.site.redis
    (master,) = redis.smembers(KEYS.masters())
    left: list[int] = [redis.pttl(KEYS.lease(master.decode()))]
    rises = 0

    def renewed() -> bool:
        nonlocal rises
        left.append(redis.pttl(KEYS.lease(master.decode())))
        rises += left[-1] > left[-2]
        return rises >= number

    wait_until(renewed, f"{number} renewals", 20.0 * number, every=0.05)


def sleeps(pid: int) -> int:
    """Return how often a process has given up its core to wait for something."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])


def between_beats(requests: list[Request]) -> list[Counter[str]]:
    """Return what was asked from each beat until the next, without what scripts ran for that."""
    found: list[Counter[str]] = []
    for request in requests:
        if request.name == "beat":
            found.append(Counter())
        if found:
            found[-1][f"-> {request.name}"] += 1
    return found[:-1]


def test_in_a_minute_the_clerk_asks_no_more_than_this() -> None:
    in_rounds = ROUNDS * sum(CLERK["each round"].values())

    assert in_rounds + sum(CLERK_SELDOM.values()) <= CLERK_A_MINUTE

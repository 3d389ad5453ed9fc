"""What a worker of a pool asks of the kernel for each job.

Calls are counted, so the numbers are the same on a busy machine. What happens by the clock, such as
a title or a beat, is in few jobs: what counts is what nearly all of them cost.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest

from forkresque.protocol.payload import encode_job
from tests.conftest import SERVERS
from tests.cost.budget import SYSTEM_CALLS
from tests.cost.comparing import assert_cost
from tests.cost.tracing import Traced, jobs, traced
from tests.support.servers import Server, binaries
from tests.support.site import KEYS, Site, await_rest
from tests.support.sizes import sized
from tests.support.waiting import wait_until

APP = ("-A", "tests.cost.traced_jobs", "-q", "cost")
NEARLY_ALL = 0.9  # of the jobs cost what is in the budget, each
SELDOM = 0.1  # of that, on average, may come on top by the clock


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Server(binaries()[SERVERS[0]]) as server, closing(server.client()) as redis:
        yield Site(redis, redis)


@pytest.fixture(scope="module")
def pool(site: Site) -> Iterator[Traced]:
    """Return a pool of one worker."""
    with traced(*APP, "-c", "1", url=url_of(site)) as pool:
        yield pool


def url_of(site: Site) -> str:
    return f"unix://{site.redis.connection_pool.connection_kwargs['path']}"


def drained(site: Site, pool: Traced, name: str, number: int) -> list[Counter[str]]:
    """Have the pool do so many equal jobs that wait in a row; return what each cost."""
    await_rest(pool.master, 1, 30.0)
    worker = pool.master.children("worker")[0].pid
    before, since = site.count("processed") + site.count("failed"), pool.length(worker)
    site.redis.sadd(KEYS.queues(), "cost")
    site.redis.rpush(KEYS.queue("cost"), *[encode_job("cost", name, [])] * number)

    def done() -> bool:
        return site.count("processed") + site.count("failed") == before + number

    wait_until(done, f"{number} jobs to be done", 60.0)
    return jobs(pool.calls(worker, since))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", sized(100, 1000))
@pytest.mark.parametrize("name", ["noop", "lasting", "limited", "broken"])
def test_a_job_costs_these_system_calls(site: Site, pool: Traced, name: str, number: int) -> None:
    costs = drained(site, pool, name, number)

    assert number <= len(costs) <= 1.1 * number
    usual, times = Counter(frozenset(cost.items()) for cost in costs).most_common(1)[0]
    assert_cost(name, dict(usual), SYSTEM_CALLS[name])
    assert times >= NEARLY_ALL * number, f"only {times} of {number} jobs cost that"
    total = sum(cost.total() for cost in costs)
    assert total <= (1 + SELDOM) * number * sum(SYSTEM_CALLS[name].values())

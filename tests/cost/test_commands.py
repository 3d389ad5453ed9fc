"""What is asked of Redis for each thing that is done, and what its scripts run for that.

Redis itself tells, so nothing here depends on how fast a machine is. `->` marks what a client asks;
the other commands are run by the scripts.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib import resources
from threading import Thread
from typing import Any

import pytest
from redis import Redis

from forkresque.promoter import Promoter
from forkresque.protocol.connection import Target
from forkresque.protocol.delayed import Delayed
from forkresque.protocol.payload import encode_job
from forkresque.protocol.script import load
from forkresque.queue import Queue
from forkresque.worker import Worker
from tests.conftest import Starter
from tests.cost.budget import COMMANDS, TRIPS
from tests.cost.comparing import assert_cost
from tests.cost.hearing import Heard, Request, hearing
from tests.cost.jobs import app
from tests.support.connections import Over
from tests.support.servers import Server
from tests.support.site import KEYS, await_rest
from tests.support.sizes import sized
from tests.support.waiting import wait_until

SETTLES = ("done", "settle")
LONG_AGO, FAR_AWAY = 1_000_000_000, 4_000_000_000  # epoch seconds


@pytest.fixture(autouse=True)
def known_scripts(server: Server, redis: Redis) -> None:
    """Have Redis know all scripts: that one is sent in full happens once in a server's life."""
    for path in resources.files("forkresque.protocol").joinpath("lua").iterdir():
        if path.name.endswith(".lua"):
            redis.script_load(load(path.name.removesuffix(".lua")).source)


def fill(redis: Any, name: str, number: int) -> None:
    payloads = [encode_job("cost", name, [each]) for each in range(number)]
    with redis.pipeline() as pipe:
        pipe.sadd(KEYS.queues(), "cost")
        pipe.rpush(KEYS.queue("cost"), *payloads)
        pipe.execute()


def total(requests: list[Request]) -> Counter[str]:
    return sum((request.cost for request in requests), Counter())


# -- a worker ----------------------------------------------------------------------------------


@contextmanager
def working(server: Server) -> Iterator[Worker]:
    """Run a worker in a thread of its own."""
    worker = Worker(server.tcp_url, app.jobs, queues=("cost",))
    thread = Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(10.0)
        assert not thread.is_alive(), "the worker does not leave"


def lifetime(server: Server, redis: Any, name: str, number: int) -> Heard:
    """Have a worker come, do so many equal jobs, rest, and leave; return what it asked."""
    redis.flushall()  # of what another worker was to be told about, too
    fill(redis, name, number)
    looks = 0

    def rests() -> bool:  # it does when Redis is to tell of a change, for the first time
        nonlocal looks
        looks += 1
        return bool(redis.info("stats")["tracking_total_keys"])

    with hearing(server) as heard, working(server):
        wait_until(rests, "the jobs to be done", 60.0)
    heard.trips -= looks
    return heard


def jobs(requests: list[Request]) -> list[list[Request]]:
    """Return what was asked up to each settle since the one before, and what after the last."""
    found: list[list[Request]] = [[]]
    for request in requests:
        found[-1].append(request)
        if request.name in SETTLES:
            found.append([])
    return found


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", sized(20, 500))
@pytest.mark.parametrize("name", ["noop", "limited", "broken", "locked", "retried"])
def test_a_job_costs_these_commands(server: Server, redis: Redis, name: str, number: int) -> None:
    heard = lifetime(server, redis, name, number)

    (worker,) = {request.client for request in heard.requests if request.name in SETTLES}
    own = [request for request in heard.requests if request.client == worker]
    _, *each, _, _ = jobs(own)  # neither the first, nor the last, nor what is no job

    assert len(each) == number - 2
    for job in each:
        assert_cost(name, total(job), COMMANDS[name])


def test_coming_resting_and_leaving_cost_these_commands(server: Server, redis: Redis) -> None:
    heard = lifetime(server, redis, "noop", 5)

    first, *_, last, after = jobs(heard.requests)

    assert first.pop().name == "done"
    assert_cost("coming", total(first), COMMANDS["coming"])
    assert_cost("the last job", total(last), COMMANDS["the last job"])
    leaves = [request.name for request in after].index("unregister")
    assert_cost("resting", total(after[:leaves]), COMMANDS["resting"])
    assert_cost("leaving", total(after[leaves:]), COMMANDS["leaving"])


@pytest.mark.parametrize("name", ["noop", "limited", "broken", "locked", "retried"])
def test_a_job_costs_so_many_round_trips(server: Server, redis: Redis, name: str) -> None:
    few, many = (lifetime(server, redis, name, number).trips for number in (10, 30))

    assert many - few == 20 * TRIPS[name]


@pytest.mark.parametrize("number", sized(200, 5000))
def test_a_pool_asks_once_for_each_job(
    server: Server, redis: Redis, start: Starter, number: int
) -> None:
    master = start("-A", "tests.cost.jobs", "-q", "cost", "-c", "2", url=server.tcp_url)
    await_rest(master, 2, 30.0)

    with hearing(server) as heard:
        fill(redis, "noop", number)
        wait_until(lambda: redis.get(KEYS.stat("processed")) == b"%d" % number, "all done", 60.0)
        await_rest(master, 2, 30.0)

    workers = {request.client for request in heard.requests if request.name == "done"}
    asked = Counter(request.name for request in heard.requests if request.client in workers)
    assert asked["done"] == number
    assert (len(workers), set(asked)) == (2, {"done", "claim", "CLIENT"})
    # Coming and going, however many jobs there are.
    assert asked["claim"] <= 6 * len(workers)


# -- a producer --------------------------------------------------------------------------------

PRODUCED: dict[str, Callable[[Queue], object]] = {
    "enqueue": lambda queue: queue.enqueue("cost", "noop", [1]),
    "enqueue_at": lambda queue: queue.enqueue_at(FAR_AWAY, "cost", "noop", [2]),
    "bulk of 100": lambda queue: queue.bulk(("cost", "noop", [each]) for each in range(100)),
}


@pytest.mark.parametrize("what", PRODUCED)
def test_putting_jobs_into_redis_costs_one_round_trip(server: Server, what: str) -> None:
    with closing(Target(server.tcp_url).client()) as client:
        queue = Queue(Over(client, KEYS))
        client.command("PING")  # the connection is there

        with hearing(server) as heard:
            PRODUCED[what](queue)

    assert heard.trips == 1
    assert_cost(what, heard.cost(), COMMANDS[what])


# -- the scheduler -----------------------------------------------------------------------------


def test_promoting_a_thousand_jobs_costs_these_commands(server: Server, redis: Any) -> None:
    redis.zadd(KEYS.schedule(), {str(LONG_AGO): LONG_AGO})
    payloads = [encode_job("cost", "noop", [each]) for each in range(1000)]
    redis.rpush(KEYS.delayed(LONG_AGO), *payloads)
    for payload in payloads:
        redis.sadd(KEYS.timestamps(payload), f"delayed:{LONG_AGO}")
    with closing(Target(server.tcp_url).link(tracking=True)) as link:
        promoter = Promoter(Delayed(link, KEYS), name="host:1")
        promoter.renew()

        with hearing(server) as heard:
            while promoter.step().promoted:
                pass

    assert redis.llen(KEYS.queue("cost")) == 1000
    assert_cost("promoting 1000", heard.cost(), COMMANDS["promoting 1000"])

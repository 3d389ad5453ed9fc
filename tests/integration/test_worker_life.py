"""A worker used alone: in a thread, for one job, by its names; what can be read of it."""

import contextlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis

from forkresque import Plugin, Worker
from forkresque.errors import ConfigError, RedisUnavailable
from forkresque.jobs import define
from forkresque.plugins.base import Performance
from forkresque.protocol.keys import Keys
from forkresque.protocol.payload import encode_job
from forkresque.scoreboard import Phase
from tests.support.processes import ROOT
from tests.support.servers import HOST, Server
from tests.support.waiting import wait_until

KEYS = Keys("resque")


class Site:
    """Jobs, one of which waits until it may end."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.made: list[Worker] = []
        self.started, self.release = threading.Event(), threading.Event()
        self.jobs: dict[str, Any] = {
            "add": lambda a, b: a + b,
            "boom": self.boom,
            "gate": self.gate,
        }

    def boom(self) -> None:
        raise ValueError("no")

    def gate(self) -> str:
        self.started.set()
        assert self.release.wait(15.0)
        return "open"

    def worker(self, **options: Any) -> Worker:
        self.made.append(Worker(self.url, self.jobs, **{"queues": "q", **options}))
        return self.made[-1]

    def close(self) -> None:
        """End whoever still works: in the next test it would take the jobs."""
        self.release.set()
        for worker in self.made:
            with contextlib.suppress(Exception):  # what ended it was the test's to see
                worker.end(timeout=10)


@pytest.fixture
def site(one_server: Server) -> Iterator[Site]:
    with closing(Site(one_server.url)) as site:
        yield site


def push(redis: Redis, name: str, *args: object, queue: str = "q") -> None:
    redis.sadd(KEYS.queues(), queue)
    redis.rpush(KEYS.queue(queue), encode_job(queue, name, args))


def order_of(site: Site, redis: Redis, waiting: dict[str, int], **options: Any) -> list[str]:
    """Return the queues from which one worker takes what waits, in the order in which it does."""
    for queue, number in waiting.items():
        for _ in range(number):
            push(redis, "add", 1, 2, queue=queue)
    taken: list[str] = []
    worker = site.worker(**options)
    worker.on("job", lambda queue, _job: taken.append(queue))
    worker.start()
    wait_until(lambda: len(taken) == sum(waiting.values()), "all to be done")
    assert worker.end(timeout=10)
    assert redis.get(KEYS.stat("processed")) == b"%d" % len(taken)
    return taken


def idle_after(worker: Worker, done: list[str], number: int) -> None:
    def idle() -> bool:
        return len(done) == number and worker._seat.phase is Phase.CALL and not worker.working

    wait_until(idle, f"the worker to be idle after {number} jobs")


def registered(redis: Redis) -> list[str]:
    members: Any = redis.smembers(KEYS.workers())
    return sorted(member.decode() for member in members)


# -- in a thread -------------------------------------------------------------------------------


def test_a_started_worker_works_until_its_end(site: Site, one_redis: Redis) -> None:
    push(one_redis, "add", 1, 2)
    worker = site.worker()
    worker.start()
    wait_until(lambda: one_redis.get(KEYS.stat("processed")) == b"1", "the job to be done")
    assert registered(one_redis) == [f"{worker.name}:q"]

    assert worker.end(timeout=10)

    assert registered(one_redis) == []
    assert not [thread for thread in threading.enumerate() if worker.name in thread.name]


def test_the_end_waits_for_the_job_in_hand_as_long_as_it_may(site: Site, one_redis: Redis) -> None:
    push(one_redis, "gate")
    worker = site.worker()
    worker.start()
    assert site.started.wait(10)

    assert not worker.end(timeout=timedelta(seconds=0.01))
    assert worker.working
    site.release.set()

    assert worker.end(timeout=10)
    assert one_redis.get(KEYS.stat("processed")) == b"1"


def test_a_listener_may_end_its_own_worker(site: Site, one_redis: Redis) -> None:
    answers: list[bool] = []
    worker = site.worker()
    worker.on("success", lambda *_: answers.append(worker.end()))
    push(one_redis, "add", 1, 2)
    push(one_redis, "add", 3, 4)

    worker.run()

    assert answers == [False]
    assert one_redis.llen(KEYS.queue("q")) == 1


@pytest.mark.parametrize("again", ["run", "start"])
def test_a_worker_has_one_life(site: Site, again: str) -> None:
    worker = site.worker()
    worker.start()
    with pytest.raises(ConfigError, match=f"worker {worker.name} runs already"):
        getattr(worker, again)()
    assert worker.end(timeout=10)

    with pytest.raises(ConfigError, match=f"worker {worker.name} has ended"):
        getattr(worker, again)()


def test_a_worker_that_has_not_begun_ends_at_once(site: Site) -> None:
    worker = site.worker()
    assert worker.end()
    assert worker.end(timeout=0)
    with pytest.raises(ConfigError, match="has ended"):
        worker.start()


def test_what_ends_a_thread_is_raised_by_end(site: Site, one_redis: Redis) -> None:
    worker = site.worker()

    def fail() -> None:
        raise ZeroDivisionError("of the test")

    worker._course._work = fail
    worker.start()

    with pytest.raises(ZeroDivisionError, match="of the test"):
        worker.end(timeout=10)
    assert worker.end()


def test_a_process_that_ends_waits_for_the_job_in_hand(site: Site, one_redis: Redis) -> None:
    push(one_redis, "slow")
    script = """
import sys, threading
from forkresque import Worker
started = threading.Event()
def slow():
    started.set()
    threading.Event().wait(0.2)
worker = Worker(sys.argv[1], {"slow": slow}, queues="q")
worker.start()
assert started.wait(10)
"""
    command = [sys.executable, "-c", script, site.url]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert one_redis.get(KEYS.stat("processed")) == b"1"
    assert registered(one_redis) == []


def test_workers_of_one_process_share_the_work_under_names_of_their_own(
    site: Site, one_redis: Redis
) -> None:
    workers = [site.worker() for _ in range(3)]
    for worker in workers:
        worker.start()
    wait_until(lambda: len(set(registered(one_redis))) == 3, "three names")
    for _ in range(30):
        push(one_redis, "add", 1, 1)
    wait_until(lambda: one_redis.get(KEYS.stat("processed")) == b"30", "all to be done")

    assert all(worker.end(timeout=10) for worker in workers)
    assert one_redis.llen(KEYS.failed()) == 0


def test_connect_reaches_redis_or_says_that_it_cannot(site: Site) -> None:
    site.worker().connect()

    with pytest.raises(RedisUnavailable):
        Worker(f"redis://{HOST}:1/0", {}).connect()


def test_time_limits_are_not_kept_and_it_says_so(
    site: Site, one_redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    site.jobs["brief"] = define(lambda: None, name="brief", timeout=5)
    with caplog.at_level(logging.WARNING, "forkresque.worker"):
        site.worker(looping=False).run()

    (line,) = [record.getMessage() for record in caplog.records]
    assert "keeps no time limits, which brief have" in line


# -- for one job -------------------------------------------------------------------------------


def test_without_looping_it_does_one_job_and_leaves(site: Site, one_redis: Redis) -> None:
    push(one_redis, "add", 1, 2)
    push(one_redis, "add", 3, 4)
    worker = site.worker(looping=False)

    worker.run()

    assert (worker.result, worker.error, worker.working) == (3, None, False)
    assert one_redis.llen(KEYS.queue("q")) == 1
    assert one_redis.get(KEYS.stat("processed")) == b"1"
    assert registered(one_redis) == []
    assert not one_redis.keys("resque:worker*")


def test_without_looping_and_without_a_job_it_leaves(site: Site, one_redis: Redis) -> None:
    worker = site.worker(queues="*", looping=False)
    worker.start()

    assert worker.end(timeout=10)
    assert worker.result is None


def test_without_looping_the_error_can_be_read_afterwards(site: Site, one_redis: Redis) -> None:
    push(one_redis, "boom")
    worker = site.worker(looping=False)

    worker.run()

    assert repr(worker.error) == "ValueError('no')"
    assert one_redis.llen(KEYS.failed()) == 1


def test_without_looping_the_result_of_a_job_with_plugins_can_be_read(
    site: Site, one_redis: Redis
) -> None:
    class Quiet(Plugin):
        def after_perform(self, context: Performance) -> None:
            context.error = None

    site.jobs["boom"] = {"perform": site.boom, "plugins": [Quiet]}
    push(one_redis, "boom")
    worker = site.worker(looping=False)

    worker.run()

    assert (worker.result, worker.error) == (None, None)
    assert one_redis.get(KEYS.stat("processed")) == b"1"


# -- what it is and has ------------------------------------------------------------------------


def test_the_job_in_hand_can_be_read(site: Site, one_redis: Redis) -> None:
    told: list[tuple[object, ...]] = []
    worker = site.worker(queues=["other", "q"])
    worker.on("success", lambda *_: told.append((worker.result, worker.error, worker.queue)))
    worker.on("failure", lambda *_: told.append((worker.result, worker.error, worker.queue)))
    assert (worker.job, worker.queue, worker.working) == (None, None, False)
    assert worker.queues == ("other", "q")
    push(one_redis, "gate")
    push(one_redis, "boom")
    worker.start()
    assert site.started.wait(10)

    assert worker.job == {"class": "gate", "queue": "q", "args": []}
    assert (worker.queue, worker.working) == ("q", True)
    site.release.set()
    wait_until(lambda: not worker.working and len(told) == 2, "both to end")

    assert worker.end(timeout=10)
    assert [(result, repr(error), queue) for result, error, queue in told] == [
        ("open", "None", "q"),
        (None, "ValueError('no')", "q"),
    ]
    assert [worker.job, worker.error, worker.result] == [None, None, None]


@pytest.mark.parametrize(
    ("given", "queues"),
    [
        ("q", ("q",)),
        ("high, low", ("high", "low")),
        (["high", "low"], ("high", "low")),
        (["high,mid", "low"], ("high", "mid", "low")),
        ("{a,b}*,!ab", ("{a,b}*", "!ab")),
    ],
)
def test_queues_are_a_list_or_a_text(site: Site, given: Any, queues: tuple[str, ...]) -> None:
    assert site.worker(queues=given).queues == queues


@pytest.mark.parametrize("given", ["", [], [","], ["a", "!"], [1]])
def test_a_list_that_names_no_queue_is_refused(site: Site, given: Any) -> None:
    with pytest.raises(ConfigError, match=r"queues must .*, got"):
        site.worker(queues=given)


def test_its_queues_are_those_that_the_patterns_mean_now(site: Site, one_redis: Redis) -> None:
    worker = site.worker(queues="*,!hidden")
    push(one_redis, "gate")
    one_redis.sadd(KEYS.queues(), "hidden", "a")
    worker.start()
    assert site.started.wait(10)

    assert worker.queues == ("a", "q")
    site.release.set()
    assert worker.end(timeout=10)


def test_a_name_is_host_and_pid(site: Site, one_redis: Redis) -> None:
    worker = site.worker(name=f"mailer:{os.getpid()}")
    push(one_redis, "gate")
    worker.start()
    assert site.started.wait(10)

    assert registered(one_redis) == [f"mailer:{os.getpid()}:q"]
    site.release.set()
    assert worker.end(timeout=10)
    with pytest.raises(ConfigError, match="must be host:pid, got 'mailer'"):
        site.worker(name="mailer")


@pytest.mark.parametrize("option", ["interval", "timeout"])
def test_the_interval_has_two_names_and_is_a_length_of_time(site: Site, option: str) -> None:
    assert site.worker(**{option: timedelta(seconds=2)})._bell._interval == 2.0
    with pytest.raises(ConfigError, match=f"a worker's {option} must be at least"):
        site.worker(**{option: 0})
    with pytest.raises(ConfigError, match="give one of them, not both"):
        site.worker(interval=2, timeout=3)


# -- the order of its queues -------------------------------------------------------------------


def test_strict_order_is_the_default(site: Site, one_redis: Redis) -> None:
    taken = order_of(site, one_redis, {"low": 3, "high": 3}, queues="high,low")

    assert taken == ["high"] * 3 + ["low"] * 3


@pytest.mark.parametrize("queues", ["c,a,b", "*,!hidden"])
def test_each_queue_has_its_turn(site: Site, one_redis: Redis, queues: str) -> None:
    push(one_redis, "add", 1, 2, queue="hidden")
    waiting = {"a": 20, "b": 2, "c": 20}

    taken = order_of(site, one_redis, waiting, queues=queues, order="round_robin")

    assert all(set(taken[at : at + 3]) == {"a", "b", "c"} for at in (0, 3))
    assert all(set(taken[at : at + 2]) == {"a", "c"} for at in range(6, 42, 2))
    assert one_redis.llen(KEYS.queue("hidden")) == 1


def test_weights_are_served_in_proportion(site: Site, one_redis: Redis) -> None:
    waiting = {"high": 1000, "low": 1000}

    taken = order_of(site, one_redis, waiting, queues="low,hi*", order={"hi*": 9})

    assert 800 < taken[:1000].count("high") < 980
    assert taken[-50:] == ["low"] * 50


@pytest.mark.parametrize("order", ["round_robin", "a=2,b=3"])
def test_a_job_on_any_queue_wakes_an_idle_worker(site: Site, one_redis: Redis, order: str) -> None:
    done: list[str] = []
    worker = site.worker(queues="a,b,c", order=order)
    worker.on("success", lambda queue, *_: done.append(queue))
    worker.start()
    for number, queue in enumerate("cabbac"):
        idle_after(worker, done, number)
        push(one_redis, "add", 1, 2, queue=queue)
    idle_after(worker, done, 6)

    assert worker.end(timeout=10)
    assert "".join(done) == "cabbac"


def test_what_is_no_order_is_refused(site: Site) -> None:
    with pytest.raises(ConfigError, match="order must be 'strict', 'round_robin' or weights"):
        site.worker(order="random")


# -- where it cannot work ----------------------------------------------------------------------


def test_a_forked_copy_of_a_worker_or_a_scheduler_is_told_to_make_its_own(
    one_server: Server,
) -> None:
    """It would share the original's id, its slot and its lead."""
    source = """
import os, sys
from forkresque import ConfigError, Scheduler, Worker

worker, scheduler = Worker(sys.argv[1], {"a": lambda: 1}), Scheduler(sys.argv[1])
assert scheduler.poll() == 0 and scheduler.leader
if os.fork() == 0:
    told = [scheduler.leader, worker.end(1), scheduler.end(1)]
    for call in (worker.run, worker.start, scheduler.run, scheduler.start, scheduler.poll):
        try:
            call()
        except ConfigError as error:
            told.append("was made in process" in str(error))
    print(*told, flush=True)
    os._exit(0)
os.wait()
assert scheduler.end()
"""
    done = subprocess.run(
        [sys.executable, "-c", source, one_server.url],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )

    assert done.stdout.split() == ["False"] * 3 + ["True"] * 5

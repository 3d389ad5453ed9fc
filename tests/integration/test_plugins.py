"""Plugins on a real Redis: keys and values as node-resque's, and none of its bugs.

What node-resque does wrong, by the number or the place where it is told, and the test that shows
that it is not so here:

    #787, D8   a twin that fails to re-enqueue frees the running job's lock
               test_a_third_equal_job_leaves_the_lock_of_the_first_alone
    [Retry, JobLock]   the last failure leaves the lock for an hour
               test_the_last_failure_frees_the_lock
    #654       a killed worker leaves its lock
               test_whatever_ends_a_claim_frees_its_lock (recovery: test_contracts.py)
    beforePerform false   keeps the lock of an earlier plugin
               test_a_veto_behind_a_lock_frees_it
    L18        a producer that dies behind QueueLock blocks the job for an hour
               test_a_lock_lasts_half_a_minute_until_its_job_is_stored
    #283, #287 a lock without an end
               test_a_waiting_lock_that_never_ends_is_taken_over
    L10        a promoted job vanishes behind QueueLock or DelayQueueLock
               test_a_promoted_job_is_not_lost_to_a_lock
    DelayQueueLock knows only node's order of fields
               test_a_job_that_is_delayed_is_not_enqueued
    D9         a crash after enqueueIn: the retry and the job itself
               test_a_retry_is_where_the_job_was_in_one_step
    #257, 0    retryLimit, retryDelay 0: unit/test_plugin_hooks.py; test_without_delay_…
    #126       success for an attempt that failed
               test_a_job_that_fails_comes_back_and_fails_in_the_end
    ms as s    test_the_attempts_are_kept_for_the_delay_and_three_days
    twins      the second failure of a second goes to the failed list
               test_equal_jobs_that_fail_in_the_same_second_both_come_back
    resets     test_attempts_are_not_forgotten_when_the_worker_dies
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from redis import Redis

from forkresque import Forkresque
from forkresque.errors import EnqueueUnknown, InvalidArgs, RedisUnavailable
from forkresque.plugins import (
    Context,
    DelayQueueLock,
    JobLock,
    Noop,
    Performance,
    Plugin,
    QueueLock,
    Retry,
)
from forkresque.post import Post
from forkresque.promoter import Promoter
from forkresque.protocol.canonical import decode
from forkresque.protocol.claims import Outcome
from forkresque.protocol.connection import Target
from forkresque.protocol.delayed import Delayed
from forkresque.protocol.keys import Keys, to_text
from forkresque.protocol.locks import renew_locks
from forkresque.protocol.payload import encode_job
from forkresque.protocol.script import load
from forkresque.queue import Queue
from forkresque.worker import Worker
from tests.support.connections import Over
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import wait_until
from tests.support.world import FREE, NOW, RAW, WORKER, World, entry_of, open_world

KEYS = Keys("resque")
COUNTER, FAILURE = b"resque:resque-retry:job:1-2", b"resque:failure-resque-retry:job:1-2"
LOCK = b"resque:workerslock:job:q:[1,2]"
WAITING = b"resque:lock:job:q:[1,2]"
JOB = encode_job("q", "job", (1, 2))


def idle(*_args: object) -> None:
    """Be a job that does nothing."""


class Site:
    """An application with one job, `job`, and what its worker told."""

    def __init__(self, url: str, redis: Redis) -> None:
        self.app = Forkresque(url)
        self.redis = redis
        self.runs: list[tuple[Any, ...]] = []
        self.told: list[tuple[Any, ...]] = []
        self.failures = 0  # how many runs fail
        self.inside: Callable[[], object] = lambda: None

    def job(self, *plugins: Plugin, **options: Any) -> None:
        @self.app.job("job", queue="q", plugins=plugins, **options)
        def job(*args: Any) -> str:
            self.runs.append(args)
            self.inside()
            if len(self.runs) <= self.failures:
                raise ValueError("BUSTED")
            return "result"

    def enqueue(self, *args: Any, queue: str = "q") -> bool:
        return self.app.queue.enqueue(queue, "job", args)

    @contextmanager
    def working(self, url: str = "", number: int = 1) -> Iterator[None]:
        """Run workers in threads, and have them leave in the end."""
        workers = [
            Worker(
                url or self.app.url,
                self.app.jobs,
                queues=["q"],
                post=Post.alone(["q"], host=f"h{index}"),
            )
            for index in range(number)
        ]
        for worker in workers:
            for name in ("success", "failure", "re_enqueue"):
                worker.on(name, lambda *args, name=name: self.told.append((name, *args)))
        threads = [threading.Thread(target=worker.run, daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for worker, thread in zip(workers, threads, strict=True):
                worker.stop()
                thread.join(10.0)
                assert not thread.is_alive(), "the worker does not leave"

    def work_off(self, url: str = "") -> None:
        """Have a worker perform what is in the queue, and leave."""
        last = encode_job("q", "last", ())
        done = threading.Event()
        self.app.job("last", queue="q")(done.set)
        self.redis.rpush(KEYS.queue("q"), last)
        with self.working(url):
            assert done.wait(10.0), "the queue is not worked off"
        self.app.jobs.pop("last")
        self.redis.decr(KEYS.stat("processed"))
        self.told = [event for event in self.told if event[2]["class"] != "last"]

    def delayed(self) -> dict[int, list[bytes]]:
        """Return what is delayed, by its second, as the schedule has it."""
        seconds: Any = self.redis.zrange(KEYS.schedule(), 0, -1)
        return {int(at): self.items(KEYS.delayed(int(at))) for at in seconds}

    def bring_back(self) -> int:
        """Put what is delayed into its queue, whenever it is due; return how much it was."""
        number = 0
        # One at a time, for a worker may add to it.
        for bucket in map(to_text, list(self.redis.scan_iter("resque:delayed:*"))):
            mark = bucket.removeprefix("resque:")
            while raw := self.redis.lmove(bucket, "resque:queue:q", "LEFT", "RIGHT"):
                number += 1
                assert isinstance(raw, bytes)
                self.redis.srem(KEYS.timestamps(raw), mark)
            self.redis.zrem(KEYS.schedule(), mark.removeprefix("delayed:"))
        return number

    def items(self, key: bytes) -> list[bytes]:
        values: Any = self.redis.lrange(key, 0, -1)
        return list(values)

    def counts(self) -> tuple[int, int, int]:
        """Return how many jobs count as processed and failed, and the failure records."""
        counts: Any = self.redis.mget(KEYS.stat("processed"), KEYS.stat("failed"))
        failed: Any = self.redis.llen(KEYS.failed())
        return int(counts[0] or 0), int(counts[1] or 0), failed

    def now(self) -> float:
        seconds, micros = self.redis.time()
        return float(seconds) + micros / 1e6

    def names(self) -> list[str]:
        return [event[0] for event in self.told]


@pytest.fixture
def site(server: Server, redis: Redis) -> Iterator[Site]:
    site = Site(server.url, redis)
    with closing(site.app.queue.store.client):
        yield site


@pytest.fixture
def world(server: Server, redis: Redis) -> Iterator[World]:
    yield from open_world(server, redis)


def ttl(redis: Redis, key: bytes) -> int:
    seconds: Any = redis.ttl(key)
    return int(seconds)


# -- hooks around enqueue ----------------------------------------------------------------------


class Said(Plugin):
    """Notes its hooks, and answers or raises what it is told to."""

    def __init__(self, label: str, log: list[str], **says: Any) -> None:
        super().__init__(**says)
        self.title, self.log, self.says = label, log, says

    def _heard(self, hook: str) -> Any:
        self.log.append(f"{self.title} {hook}")
        answer = self.says.get(hook)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def before_enqueue(self, context: Context) -> Any:
        return self._heard("before")

    def after_enqueue(self, context: Context) -> Any:
        return self._heard("after")

    def before_perform(self, context: Performance) -> Any:
        return self._heard("perform")


def test_enqueue_hooks_run_in_order_around_the_push(site: Site) -> None:
    log: list[str] = []
    site.job(Said("a", log), Said("b", log))

    assert site.enqueue(1) is True
    assert log == ["a before", "b before", "a after", "b after"]


def test_the_first_false_vetoes_and_nothing_is_stored(site: Site) -> None:
    log: list[str] = []
    site.job(Said("a", log), Said("b", log, before=False), Said("c", log))

    assert site.enqueue(1) is False
    assert log == ["a before", "b before"]
    assert not site.redis.keys("resque:queue*")


def test_false_after_the_push_only_stops_the_plugins_behind(site: Site) -> None:
    log: list[str] = []
    site.job(Said("a", log, after=False), Said("b", log))

    assert site.enqueue(1) is True
    assert log[-1] == "a after"


def test_an_error_before_the_push_is_the_producers(site: Site) -> None:
    site.job(Said("a", [], before=ValueError("mine")))

    with pytest.raises(ValueError, match="mine"):
        site.enqueue(1)
    assert not site.redis.keys("resque:queue*")


def test_an_error_after_the_push_does_not_hide_that_the_job_is_stored(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.job(Said("a", [], after=ValueError("mine")))

    assert site.enqueue(1) is True
    assert "mine" in caplog.text


def test_delayed_jobs_and_unknown_ones_run_no_hooks(site: Site) -> None:
    log: list[str] = []
    site.job(Said("a", log, before=False))

    assert site.app.queue.enqueue_in(60, "q", "job", [1])
    assert site.app.queue.enqueue_at(10, "q", "job", [1])
    assert site.app.queue.enqueue("q", "other", [1])
    assert log == []


def test_a_queue_takes_jobs_as_node_describes_them(server: Server, redis: Redis) -> None:
    jobs = {"job": {"perform": idle, "plugins": ["QueueLock"]}}
    with closing(Target(server.url).client()) as client:
        queue = Queue(Over(client, KEYS), jobs=jobs)

        assert [queue.enqueue("q", "job", [1]) for _ in range(2)] == [True, False]
        assert redis.llen(KEYS.queue("q")) == 1


def test_a_plugin_sees_the_job_and_may_ask_and_enqueue(site: Site) -> None:
    seen: list[Any] = []

    class Following(Plugin):
        def after_enqueue(self, context: Context) -> None:
            seen.append((context.queue, context.name, context.args, context.payload))
            context.redis.command("SET", "mine", "1")

        def after_perform(self, context: Performance) -> None:
            seen.append(context.redis.command("GET", "mine"))
            context.queues.enqueue("other", "next", [context.worker.result])

    site.job(Following())
    site.enqueue(1, 2)
    site.work_off()

    assert seen == [("q", "job", [1, 2], JOB), b"1"]
    assert site.items(KEYS.queue("other")) == [encode_job("other", "next", ["result"])]


# -- QueueLock ---------------------------------------------------------------------------------


def test_no_two_equal_jobs_wait(site: Site) -> None:
    site.job(QueueLock())

    assert [site.enqueue(1, 2) for _ in range(3)] == [True, False, False]
    assert site.enqueue(1, 3) is True
    assert site.items(KEYS.queue("q"))[0] == JOB
    value: Any = site.redis.get(WAITING)
    assert 3590 < int(value.split(b".")[0]) - site.now() <= 3601
    assert 3590 < ttl(site.redis, WAITING) <= 3600


def test_a_lock_that_node_has_taken_is_respected_until_it_ends(site: Site) -> None:
    site.job(QueueLock(lock_timeout=60))
    site.redis.set(WAITING, str(int(site.now()) + 100), ex=100)

    assert site.enqueue(1, 2) is False
    site.redis.delete(WAITING)
    assert site.enqueue(1, 2) is True
    assert 50 < ttl(site.redis, WAITING) <= 60


def test_a_waiting_lock_that_never_ends_is_taken_over(site: Site) -> None:
    """Node takes one with SETNX and EXPIRE, and may die in between."""
    site.job(QueueLock(lock_timeout=60))
    site.redis.set(WAITING, str(int(site.now()) + 100))
    assert site.enqueue(1, 2) is False

    site.redis.set(WAITING, str(int(site.now()) - 5))

    assert site.enqueue(1, 2) is True
    assert 50 < ttl(site.redis, WAITING) <= 60


@pytest.mark.parametrize("command", ["set", "lpush"])
def test_what_is_no_lock_of_ours_stands(site: Site, command: str) -> None:
    site.job(QueueLock())
    getattr(site.redis, command)(WAITING, "x")

    assert site.enqueue(1, 2) is False
    assert site.redis.dump(WAITING)
    assert ttl(site.redis, WAITING) == -1


def test_a_lock_lasts_half_a_minute_until_its_job_is_stored(site: Site) -> None:
    seen: list[int] = []

    class Looking(Plugin):
        def before_enqueue(self, context: Context) -> None:
            seen.append(ttl(site.redis, WAITING))

    site.job(QueueLock(), Looking())

    assert site.enqueue(1, 2)
    assert 25 < seen[0] <= 30
    assert ttl(site.redis, WAITING) > 3500


def test_a_later_veto_or_error_frees_the_lock(site: Site) -> None:
    for answer in (False, ValueError("mine")):
        site.job(QueueLock(), Said("a", [], before=answer))
        if answer is False:
            assert site.enqueue(1, 2) is False
        else:
            with pytest.raises(ValueError, match="mine"):
                site.enqueue(1, 2)
        assert not site.redis.exists(WAITING)


def test_a_job_that_cannot_be_stored_leaves_no_lock(site: Site) -> None:
    site.job(QueueLock())
    site.redis.set(KEYS.queue("q"), "no list")

    with pytest.raises(Exception, match="another type"):
        site.enqueue(1, 2)
    assert not site.redis.exists(WAITING)
    with pytest.raises(InvalidArgs):
        site.enqueue(object())
    assert not site.redis.keys("resque:lock*")


def test_asking_again_after_a_lost_answer_asks_no_plugin(
    site: Site, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.job(QueueLock())
    monkeypatch.setattr("forkresque.producer.ENQUEUE_TIMEOUT", 0.0)
    assert site.enqueue(5)  # so that the scripts are known
    site.redis.script_load(load("queue_lock").source)
    with Proxy(server.socket) as proxy, closing(Target(proxy.url).client()) as client:
        queue = Queue(Over(client, KEYS), jobs=site.app.jobs)
        lost = proxy.drop_reply(load("enqueue").digest.encode())
        with pytest.raises(EnqueueUnknown) as unknown:
            queue.enqueue("q", "job", [1, 2])
        assert lost.fired == 1
        assert 0 < ttl(site.redis, WAITING) <= 30  # nobody knows, so it ends soon

        assert queue.enqueue("q", "job", [1, 2], request_id=unknown.value.request_id) is True
    assert site.items(KEYS.queue("q")).count(JOB) == 1


def test_a_lost_answer_to_the_lock_itself_is_no_veto(site: Site, server: Server) -> None:
    site.job(QueueLock())
    site.redis.script_load(load("queue_lock").source)
    with Proxy(server.socket) as proxy, closing(Target(proxy.url).client()) as client:
        queue = Queue(Over(client, KEYS), jobs=site.app.jobs)
        lost = proxy.drop_reply(load("queue_lock").digest.encode())

        assert queue.enqueue("q", "job", [1, 2]) is True
        assert lost.fired == 1


def test_the_lock_ends_when_the_job_begins(site: Site) -> None:
    seen: list[Any] = []
    site.job(QueueLock())
    site.inside = lambda: seen.append(site.redis.exists(WAITING))
    assert site.enqueue(1, 2)

    site.work_off()

    assert seen == [0]
    assert site.enqueue(1, 2) is True


def test_the_lock_ends_although_a_plugin_does_not_run_the_job(site: Site) -> None:
    site.job(QueueLock(), Said("a", [], perform=False))
    assert site.enqueue(1, 2)

    site.work_off()

    assert site.runs == []
    assert not site.redis.keys("resque:lock*")


# -- DelayQueueLock ----------------------------------------------------------------------------


RUBYS = b'{"class":"job","args":[1,2],"queue":"q"}'


@pytest.mark.parametrize("raw", [JOB, RUBYS], ids=["node", "ruby"])
def test_a_job_that_is_delayed_is_not_enqueued(site: Site, raw: bytes) -> None:
    site.job(DelayQueueLock())
    site.redis.rpush(KEYS.delayed(9), raw)
    site.redis.sadd(KEYS.timestamps(raw), "delayed:9")
    site.redis.zadd(KEYS.schedule(), {"9": 9})

    assert site.enqueue(1, 2) is False
    assert site.enqueue(1, 3) is True
    assert site.bring_back() == 1
    assert site.enqueue(1, 2) is True


@pytest.mark.parametrize("plugin", [QueueLock(), DelayQueueLock()], ids=["queue", "delay"])
def test_a_promoted_job_is_not_lost_to_a_lock(site: Site, server: Server, plugin: Plugin) -> None:
    site.job(plugin)
    assert site.enqueue(1, 2)
    for second in (10, 20, int(site.now()) + 1000):
        assert site.app.queue.enqueue_at(second, "q", "job", [1, 2])

    with closing(Target(server.url).link()) as link:
        promoter = Promoter(Delayed(link, KEYS), name="host:1")
        assert sum(promoter.step().promoted for _ in range(5)) == 2

    assert site.items(KEYS.queue("q")) == [JOB] * 3


# -- JobLock -----------------------------------------------------------------------------------


def test_the_lock_is_held_while_the_job_runs(site: Site) -> None:
    seen: list[Any] = []
    site.job(JobLock(lock_timeout=60))
    site.inside = lambda: seen.append((site.redis.get(LOCK), ttl(site.redis, LOCK)))
    site.enqueue(1, 2)

    site.work_off()

    value, seconds = seen[0]
    assert 55 < int(value.split(b".")[0]) - site.now() <= 61
    assert 50 < seconds <= 60
    assert not site.redis.keys("resque:workerslock*")
    assert not site.redis.keys("resque:fr:locks*")
    assert site.counts() == (1, 0, 0)


def test_the_lock_lasts_as_long_as_the_job(site: Site) -> None:
    """node-resque's runs out under a job that takes longer, and its twin runs beside it."""
    ttls: list[int] = []
    post = Post.alone(["q"], host="h")
    quick = post._replace(lease=post.lease._replace(term=6.0))  # renewed each second

    def overtime() -> None:
        site.redis.expire(LOCK, 2)
        ttls.append(
            wait_until(lambda: ttl(site.redis, LOCK) > 3 and ttl(site.redis, LOCK), "a renewal")
        )

    site.job(JobLock(lock_timeout=60))
    site.inside = overtime
    site.enqueue(1, 2)
    worker = Worker(site.app.url, site.app.jobs, queues=["q"], post=quick)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    wait_until(lambda: ttls, "the job")
    worker.stop()
    thread.join(10.0)

    assert 3 < ttls[0] <= 6
    assert not site.redis.keys("resque:workerslock*")
    assert site.counts() == (1, 0, 0)


def test_a_lock_that_another_has_by_now_is_not_renewed(world: World) -> None:
    world.push(RAW)
    job = world.claimed()
    for lock in (b"resque:lost", b"resque:kept"):
        assert world.claims.take_lock(job, lock, 5, now=NOW)
    world.redis.set("resque:lost", "9.another", ex=5)
    client = world.store.client

    assert renew_locks(client, KEYS, ["h:1:other", str(WORKER)], 60.0) == 1
    assert 5 < ttl(world.redis, b"resque:kept") <= 60
    assert ttl(world.redis, b"resque:lost") <= 5

    assert renew_locks(client, KEYS, [str(WORKER)], 20.0) == 1
    assert ttl(world.redis, b"resque:kept") > 20, "a lock that lasts longer is cut"


def test_a_job_behind_the_lock_of_a_node_worker_is_put_off_and_not_counted(site: Site) -> None:
    site.job(JobLock())
    nodes = str(int(site.now()) + 3601)
    site.redis.set(LOCK, nodes, ex=3600)
    site.enqueue(1, 2)

    before = site.now()
    site.work_off()

    assert site.runs == []
    ((second, jobs),) = site.delayed().items()
    assert jobs == [JOB]
    assert before + 1.001 <= second <= site.now() + 2.001
    assert site.redis.smembers(KEYS.timestamps(JOB)) == {f"delayed:{second}".encode()}
    assert site.counts() == (0, 0, 0)
    assert site.redis.get(LOCK) == nodes.encode()
    assert [(name, details["delay"]) for name, _, _, details in site.told] == [
        ("re_enqueue", 1.001)
    ]

    site.redis.delete(LOCK)
    site.bring_back()
    site.work_off()
    assert site.runs == [(1, 2)]


def test_a_job_behind_a_lock_can_be_dropped(site: Site) -> None:
    site.job(JobLock(re_enqueue=False))
    site.redis.set(LOCK, "99999999999", ex=60)
    site.enqueue(1, 2)

    site.work_off()

    assert (site.runs, site.delayed(), site.told) == ([], {}, [])
    assert site.counts() == (0, 0, 0)
    assert not site.redis.exists(KEYS.queue("q"))


def test_a_third_equal_job_leaves_the_lock_of_the_first_alone(site: Site) -> None:
    """In node-resque the third cannot be re-enqueued, fails, and frees the lock of the first."""
    started, release = threading.Event(), threading.Event()
    held: list[Any] = []

    def inside() -> None:
        started.set()
        assert release.wait(10.0)

    site.job(JobLock())
    site.inside = inside
    site.enqueue(1, 2)
    with site.working(number=2):
        assert started.wait(10.0)
        held.append(site.redis.get(LOCK))
        for _ in range(3):
            site.enqueue(1, 2)
        wait_until(lambda: sum(map(len, site.delayed().values())) == 3, "three to be put off")
        held.append(site.redis.get(LOCK))
        release.set()
        wait_until(lambda: site.counts()[0] == 1, "the first to be done")

    assert held[0]
    assert held[0] == held[1]
    assert (len(site.runs), site.counts()) == (1, (1, 0, 0))


def test_equal_jobs_never_overlap_and_all_are_run(site: Site) -> None:
    inside, most, guard = 0, 0, threading.Lock()

    def run() -> None:
        nonlocal inside, most
        with guard:
            inside += 1
            most = max(most, inside)
        site.redis.get("something that takes a while")
        with guard:
            inside -= 1

    site.job(JobLock(enqueue_timeout=0.001))
    site.inside = run
    for _ in range(12):
        site.enqueue(1, 2)
    with site.working(number=3):
        wait_until(lambda: (site.bring_back(), len(site.runs) == 12)[1], "all to run")
        wait_until(lambda: site.counts()[0] == 12, "all to be done")

    assert most == 1
    assert site.counts() == (12, 0, 0)


def test_jobs_with_other_arguments_or_keys_run_beside_each_other(site: Site) -> None:
    barrier = threading.Barrier(2, timeout=10.0)
    site.job(JobLock())
    site.inside = barrier.wait
    site.enqueue(1, {"a": 1})
    site.enqueue(1, {"a": 2})
    with site.working(number=2):
        wait_until(lambda: site.counts()[0] == 2, "both to be done")


def test_the_last_failure_frees_the_lock(site: Site) -> None:
    site.job(Retry(1), JobLock())
    site.failures = 1
    site.enqueue(1, 2)

    site.work_off()

    assert site.counts() == (0, 1, 1)
    assert not site.redis.exists(LOCK)


def test_a_veto_behind_a_lock_frees_it(site: Site) -> None:
    site.job(JobLock(), Said("a", [], perform=False))
    site.enqueue(1, 2)

    site.work_off()

    assert site.runs == []
    assert not site.redis.exists(LOCK)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_whatever_ends_a_claim_frees_its_lock(world: World, outcome: Outcome) -> None:
    world.push(RAW)
    held = world.claimed()
    assert world.claims.take_lock(held, LOCK, 60, now=NOW)

    world.settle(held, outcome, entry=entry_of(RAW), due=77, until=77, forget=[COUNTER])

    assert not world.redis.exists(LOCK)


def test_a_lost_answer_to_a_lock_is_asked_for_again(site: Site, server: Server) -> None:
    site.job(JobLock())
    site.redis.script_load(load("lock_take").source)
    site.enqueue(1, 2)
    with Proxy(server.socket) as proxy:
        lost = proxy.drop_reply(load("lock_take").digest.encode())
        site.work_off(proxy.url)
        assert lost.fired == 1

    assert site.runs == [(1, 2)]
    assert site.counts() == (1, 0, 0)
    assert not site.redis.exists(LOCK)


# -- Retry -------------------------------------------------------------------------------------


def test_a_job_that_fails_comes_back_and_fails_in_the_end(site: Site) -> None:
    site.job(Retry(3, delay=7))
    site.failures = 3
    site.enqueue(1, 2)

    counters: list[Any] = []
    for _ in range(2):
        before = site.now()
        site.work_off()
        ((second, jobs),) = site.delayed().items()
        assert jobs == [JOB]
        assert before + 7 <= second <= site.now() + 8
        assert site.redis.smembers(KEYS.timestamps(JOB)) == {f"delayed:{second}".encode()}
        counters.append(site.redis.get(COUNTER))
        site.bring_back()
    assert counters == [b"0", b"1"]
    assert site.counts() == (0, 2, 0)

    site.work_off()

    assert site.counts() == (0, 3, 1)
    assert not site.redis.exists(COUNTER, FAILURE)
    assert site.delayed() == {}
    assert site.names() == ["re_enqueue", "re_enqueue", "failure"]
    details = [event[3] for event in site.told[:2]]
    assert [one["remaining_attempts"] for one in details] == [2, 1]
    assert {one["delay"] for one in details} == {7.0}
    assert str(details[0]["err"]) == "BUSTED"
    assert site.told[0][1:3] == ("q", {"class": "job", "queue": "q", "args": [1, 2]})


def test_a_job_that_succeeds_after_all_leaves_nothing_behind(site: Site) -> None:
    site.job(Retry(3, backoff=[0.1, 0.2]))
    site.failures = 1
    site.enqueue(1, 2)

    site.work_off()
    assert site.redis.get(COUNTER) == b"0"
    record: Any = site.redis.get(FAILURE)
    assert decode(record)["error"] == "ValueError: BUSTED"
    assert site.bring_back() == 1
    site.work_off()

    assert site.counts() == (1, 1, 0)
    assert not site.redis.keys("*resque-retry*")
    assert site.names() == ["re_enqueue", "success"]
    assert site.told[1][3] == "result"


def test_the_attempts_are_kept_for_the_delay_and_three_days(site: Site) -> None:
    """Node takes the milliseconds of the delay for seconds."""
    site.job(Retry(3, delay=100))
    site.failures = 1
    site.enqueue(1, 2)

    site.work_off()

    wanted = 100 + 3 * 86_400
    assert wanted - 10 < ttl(site.redis, COUNTER) <= wanted
    assert wanted - 10 < ttl(site.redis, FAILURE) <= wanted


def test_attempts_that_node_has_counted_count(site: Site) -> None:
    site.job(Retry(3))
    site.failures = 9
    site.redis.set(COUNTER, "1", ex=50)
    site.redis.set(FAILURE, "{}", ex=50)
    site.enqueue(1, 2)

    site.work_off()

    assert site.counts() == (0, 1, 1)
    assert not site.redis.exists(COUNTER, FAILURE)


def test_attempts_are_counted_where_ruby_does_it(site: Site) -> None:
    site.job(Retry(3, keys="ruby"))
    site.failures = 1
    site.enqueue(1, 2)

    site.work_off()

    digest = b"b8a2645298053fb62ea03e27feea6c483d3fd27e"  # of 1-2
    assert site.redis.get(b"resque:resque-retry:job:" + digest) == b"0"
    assert site.redis.exists(b"resque:failure-resque-retry:job:" + digest)


def test_equal_jobs_that_fail_in_the_same_second_both_come_back(site: Site) -> None:
    site.job(Retry(9, delay=50))
    site.failures = 2
    site.enqueue(1, 2)
    site.enqueue(1, 2)

    site.work_off()

    assert sum(map(len, site.delayed().values())) == 2
    assert site.counts() == (0, 2, 0)
    assert site.redis.get(COUNTER) == b"1"


def test_without_delay_a_retry_goes_straight_to_the_tail_and_is_counted(site: Site) -> None:
    site.job(Retry(3, delay=0))
    site.failures = 2
    site.enqueue(1, 2)
    site.enqueue(5)

    site.work_off()
    site.work_off()

    assert site.runs == [(1, 2), (5,), (1, 2), (5,)]
    assert site.delayed() == {}
    assert site.counts() == (2, 2, 0)


def test_a_job_of_ruby_comes_back_with_its_queue(site: Site) -> None:
    """What waits in a queue need not name it; what is delayed has to, or it is lost."""
    site.job(Retry(3))
    site.failures = 1
    site.redis.rpush(KEYS.queue("q"), b'{"class":"job","args":[1,2]}')

    site.work_off()

    ((second, jobs),) = site.delayed().items()
    assert jobs == [JOB]
    assert site.redis.smembers(KEYS.timestamps(JOB)) == {f"delayed:{second}".encode()}


def test_what_the_job_was_written_as_is_what_comes_back(site: Site) -> None:
    raw = b'{ "args":[1.0,[]], "class":"job","id":"x","queue":"q"}'
    site.job(Retry(3))
    site.failures = 1
    site.redis.rpush(KEYS.queue("q"), raw)

    site.work_off()

    assert list(site.delayed().values()) == [[raw]]


def test_a_retry_is_where_the_job_was_in_one_step(site: Site, server: Server) -> None:
    """One settle, sent twice because its answer was lost: the job is delayed once."""
    site.job(Retry(3))
    site.failures = 1
    for name in ("settle", "count_attempt"):
        site.redis.script_load(load(name).source)
    site.enqueue(1, 2)
    with Proxy(server.socket) as proxy:
        lost = [
            proxy.drop_reply(load(name).digest.encode()) for name in ("count_attempt", "settle")
        ]
        site.work_off(proxy.url)
        assert [one.fired for one in lost] == [1, 1]

    assert sum(map(len, site.delayed().values())) == 1
    assert site.counts() == (0, 1, 0)
    assert site.redis.get(COUNTER) == b"0"


def test_attempts_are_not_forgotten_when_the_worker_dies(world: World) -> None:
    """They go with the very settle that ends the job, and with nothing else."""
    record = (FAILURE, b"{}")
    world.push(RAW)
    held = world.claimed()
    assert world.claims.count_attempt(held, COUNTER, 2, record=record, keep=60) == 2
    world.let_leases_age()
    world.registry.recover(world.held(), FREE)

    settled = world.settle(held, Outcome.FAIL, entry=entry_of(RAW), forget=[COUNTER, FAILURE])

    assert settled.lost
    assert world.redis.get(COUNTER) == b"2"
    world.register()
    again = world.claimed(b"m.2")
    world.settle(again, Outcome.FAIL, entry=entry_of(RAW), forget=[COUNTER, FAILURE])
    assert not world.redis.exists(COUNTER, FAILURE)


def test_an_attempt_of_a_job_that_others_have_is_not_counted(world: World) -> None:
    world.push(RAW)
    held = world.claimed()
    world.settle(held, Outcome.DONE)

    with pytest.raises(Exception, match="other hands"):
        world.claims.count_attempt(held, COUNTER, 0, record=(FAILURE, b"{}"), keep=60)
    assert not world.redis.exists(COUNTER, FAILURE)


def test_a_counter_of_another_type_is_counted_anew(world: World) -> None:
    world.push(RAW)
    held = world.claimed()
    world.redis.lpush(COUNTER, "x")
    world.redis.lpush(FAILURE, "x")

    assert world.claims.count_attempt(held, COUNTER, 0, record=(FAILURE, b"{}"), keep=60) == 0
    assert world.redis.get(COUNTER) == b"0"


def test_what_is_forgotten_goes_before_the_next_job_is_claimed(world: World) -> None:
    world.push(RAW, JOB)
    held = world.claimed()
    world.redis.set(COUNTER, "1")
    world.redis.lpush(FAILURE, "of any type")
    world.claims.take_lock(held, LOCK, 60, now=NOW)

    settled = world.settle(held, Outcome.DONE, b"m.2", forget=[COUNTER, FAILURE])

    assert settled.next
    assert not world.redis.exists(COUNTER, FAILURE, LOCK)


def test_noop_leaves_nothing_in_the_failed_list(site: Site) -> None:
    heard: list[BaseException] = []
    site.job(Noop(logger=heard.append))
    site.failures = 1
    site.enqueue(1, 2)

    site.work_off()

    assert site.counts() == (1, 0, 0)
    assert [str(error) for error in heard] == ["BUSTED"]
    assert site.names() == ["success"]


def test_a_worker_takes_jobs_as_node_describes_them(server: Server, redis: Redis) -> None:
    runs: list[int] = []

    def perform(mark: int) -> None:
        runs.append(mark)
        raise ValueError("BUSTED")

    options = {"Retry": {"retryLimit": 2, "retryDelay": 60_000}}
    jobs = {"job": {"perform": perform, "plugins": ["Retry"], "pluginOptions": options}}
    worker = Worker(server.url, jobs, queues=["q"], post=Post.alone(["q"], host="h"))
    redis.rpush(KEYS.queue("q"), encode_job("q", "job", [1]))
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    wait_until(lambda: redis.zcard(KEYS.schedule()) == 1, "the job to be delayed")
    worker.stop()
    thread.join(10.0)

    assert not thread.is_alive()
    assert runs == [1]


def test_a_producer_without_redis_is_told_so_whatever_its_plugins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("forkresque.producer.ENQUEUE_TIMEOUT", 0.0)
    app = Forkresque("redis://127.0.0.1:1/0")
    job = app.job("job", plugins=[QueueLock()])(idle)

    with pytest.raises(RedisUnavailable):
        job.enqueue(1)

"""One scheduler leads. Whatever becomes of it or of its locks, the next one takes over in time.

What a stale leader still wants to move stays where it is, for the locks are compared where the
jobs are moved. All schedulers have one name here, as those of containers may have.
"""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
from redis import Redis

from forkresque.errors import ExitCode
from forkresque.promoter import Promoter
from forkresque.protocol.connection import Target
from forkresque.protocol.delayed import Delayed, Tick
from forkresque.protocol.payload import encode_job
from tests.conftest import Starter
from tests.support.lone_promoters import Nursery, lone_promoters
from tests.support.processes import Start, is_alive, kill
from tests.support.report import Report
from tests.support.servers import Server
from tests.support.site import APP, KEYS, Site, idle_workers, ticks
from tests.support.sizes import sized
from tests.support.waiting import wait_until

AFTER_TERM, AFTER_DEATH = 2.0, 20.0  # seconds until the next leader acts, as promised
LOCKS = (KEYS.leader(), KEYS.node_leader(), KEYS.node_master(), KEYS.ruby_master())
FENCED = "the lead was lost before its term was over"


def job(number: int) -> bytes:
    return encode_job("math", "note", [number])


def delay(redis: Any, *jobs: bytes, second: int) -> None:
    """Put jobs in for one second."""
    with redis.pipeline(transaction=True) as pipe:
        pipe.rpush(KEYS.delayed(second), *jobs)
        for raw in jobs:
            pipe.sadd(KEYS.timestamps(raw), f"delayed:{second}")
        pipe.zadd(KEYS.schedule(), {str(second): second})
        pipe.execute()


def leader(redis: Any) -> bytes:
    return redis.get(KEYS.leader()) or b""


def queue(redis: Any) -> list[bytes]:
    return list(redis.lrange(KEYS.queue("math"), 0, -1))


def await_next(redis: Any, lost: bytes, timeout: float, *, second: int = 1) -> float:
    """Return how long it takes until another leader than `lost` has promoted a job."""
    began = time.monotonic()
    before = redis.llen(KEYS.queue("nowhere"))
    raw = encode_job("nowhere", "note", [before])
    delay(redis, raw, second=second)
    wait_until(lambda: redis.llen(KEYS.queue("nowhere")) > before, "the next leader", timeout)
    assert leader(redis) not in (lost, b"")
    return time.monotonic() - began


# -- masters -------------------------------------------------------------------------------------


def start_two(start: Starter, redis: Any) -> tuple[Start, Start, bytes]:
    """Start one master that leads and one that follows; return the leader's token, too."""
    first = start(*APP, "-c", "1")
    token = wait_until(lambda: leader(redis), "a leader")
    second = start(*APP, "-c", "1")
    idle_workers(second, 1)
    wait_until(lambda: redis.scard(KEYS.masters()) == 2, "the other's clerk")
    return first, second, token


@pytest.mark.parametrize("times", sized(1, 3))
def test_the_next_leader_acts_soon_after_sigterm(
    start: Starter, site: Site, report: Report, times: int
) -> None:
    for number in range(1, times + 1):
        first, second, lost = start_two(start, site.redis)
        first.send_signal(signal.SIGTERM)
        assert first.wait(5) == ExitCode.OK
        took = await_next(site.redis, lost, 10.0)
        report.time("leader ended to next", took)
        assert took <= AFTER_TERM
        assert site.redis.get(KEYS.epoch()) == str(2 * number).encode()
        second.send_signal(signal.SIGTERM)
        assert second.wait(5) == ExitCode.OK


@dataclass(frozen=True)
class Loss:
    """How a host that leads is lost, and how it comes back."""

    lose: Callable[[Start], None]
    back: Callable[[Start], None]


def kill_clerk(master: Start) -> None:
    (clerk,) = master.children("clerk")
    clerk.kill()


def freeze(master: Start) -> None:
    master.send_signal(signal.SIGSTOP)  # first, or it would replace its clerk
    for child in master.children():
        child.suspend()


def thaw(master: Start) -> None:
    for child in master.children():
        child.resume()
    master.send_signal(signal.SIGCONT)


LOSSES = {
    "its clerk is killed": Loss(kill_clerk, lambda _master: None),
    "all of it stands still": Loss(freeze, thaw),
}


@pytest.mark.full  # the locks need their time to run out
@pytest.mark.timeout(60)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_next_leader_acts_soon_after_a_death(
    start: Starter, site: Site, report: Report, loss: str
) -> None:
    first, second, lost = start_two(start, site.redis)
    LOSSES[loss].lose(first)
    report.count("kills of clerks", int(loss == "its clerk is killed"))

    took = await_next(site.redis, lost, 30.0)

    report.time("leader lost to next", took)
    assert took <= AFTER_DEATH
    LOSSES[loss].back(first)
    jobs = [job(number) for number in range(500)]
    delay(site.redis, *jobs, second=1)
    site.await_processed(len(jobs))
    assert Counter(site.runs()) == Counter(str(number) for number in range(500))
    for master in (first, second):
        master.send_signal(signal.SIGTERM)
        assert master.wait(5) == ExitCode.OK


# -- schedulers in the middle of their work ------------------------------------------------------


def backlog(redis: Any, jobs: int) -> list[bytes]:
    """Put jobs in that have been due for long, a hundred for each second; return them in order."""
    raws = [job(number) for number in range(jobs)]
    for start in range(0, jobs, 100):
        delay(redis, *raws[start : start + 100], second=1 + start // 100)
    return raws


def run_out(redis: Any) -> None:
    """Have all locks run out now: the leader would wake with its renewal still ahead of it."""
    for lock in LOCKS:
        assert redis.pexpire(lock, 1)
    wait_until(lambda: not redis.exists(*LOCKS), "all locks to run out", 20.0)


@pytest.mark.usefixtures("both_sizes")
def test_a_leader_that_stood_still_in_mid_promotion_moves_nothing_more(
    one_server: Server, one_redis: Redis, report: Report
) -> None:
    jobs = backlog(one_redis, 30_000)
    with lone_promoters(1, one_server) as stale:
        wait_until(lambda: one_redis.llen(KEYS.queue("math")) > 100, "promotions", every=0.0)
        (process,) = stale.living()
        process.suspend()
        lost, moved = leader(one_redis), len(queue(one_redis))
        assert lost
        assert 0 < moved < len(jobs), "it was not in the middle"
        run_out(one_redis)
        with lone_promoters(1, one_server) as fresh:
            wait_until(
                lambda: one_redis.llen(KEYS.queue("math")) > moved + 100, "the next", every=0.0
            )
            process.resume()
            wait_until(lambda: FENCED in stale.log(), "the stale leader to be refused")
            assert leader(one_redis) not in (lost, b"")
            wait_until(lambda: not one_redis.exists(KEYS.schedule()), "the end of the backlog")
            assert FENCED not in fresh.log()
    report.count("stale leaders fenced")
    report.count("double promotions", one_redis.llen(KEYS.queue("math")) - len(jobs))
    assert queue(one_redis) == jobs


class Mischief:
    """What somebody does to the locks, and to those who hold them."""

    def __init__(self, redis: Any, nursery: Nursery, chance: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._redis = redis
        self._nursery = nursery
        self._chance = chance
        self._stopped: list[psutil.Process] = []

    def do(self) -> None:
        act = self._chance.choice((self.delete, self.steal, self.steal_all, self.stop, self.kill))
        act()
        self.done[act.__name__] += 1

    def delete(self) -> None:
        self._redis.delete(self._chance.choice(LOCKS))

    def steal(self) -> None:
        """Take one lock, as schedulers of other languages would."""
        self._redis.set(self._chance.choice(LOCKS[1:]), "stranger", px=30)

    def steal_all(self) -> None:
        for lock in LOCKS:
            self._redis.set(lock, "stranger", px=30)

    def stop(self) -> None:
        """Stop one scheduler, and let another go on that had been stopped."""
        self._stopped.append(self._victim())
        self._stopped[-1].suspend()
        if len(self._stopped) > 2:
            self.resume(self._stopped.pop(0))

    def kill(self) -> None:
        self._victim().kill()

    def _victim(self) -> psutil.Process:
        return self._chance.choice(wait_until(self._nursery.living, "a scheduler"))

    def resume(self, process: psutil.Process) -> None:
        if is_alive(process):
            process.resume()

    def end(self) -> None:
        """Let all go on, and let new ones begin without waiting for a lock."""
        while self._stopped:
            self.resume(self._stopped.pop())
        kill(self._nursery.living())
        self._redis.delete(*LOCKS)


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("seconds", sized(1.5, 12.0))
def test_whatever_is_done_to_the_locks_each_job_moves_once(
    one_server: Server, one_redis: Redis, report: Report, *, seconds: float, seed: int
) -> None:
    report.seed("test_whatever_is_done_to_the_locks_each_job_moves_once", seed)
    print(f"seed={seed}")
    jobs: list[bytes] = []
    with lone_promoters(4, one_server) as nursery:
        mischief = Mischief(one_redis, nursery, random.Random(seed))
        for tick in ticks(0.02, seconds):
            raws = [job(len(jobs) + number) for number in range(20)]
            delay(one_redis, *raws, second=tick + 1)
            jobs += raws
            mischief.do()
        mischief.end()
        wait_until(lambda: not one_redis.exists(KEYS.schedule()), "the last job to move", 10.0)
        log = nursery.log()

    fenced, leads = log.count(FENCED), log.count("scheduler=promote")
    report.count("stale leaders fenced", fenced)
    report.count("jobs", len(jobs))
    report.count("double promotions", one_redis.llen(KEYS.queue("math")) - len(set(jobs)))
    assert Counter(queue(one_redis)) == Counter(dict.fromkeys(jobs, 1))
    assert len(mischief.done) == 5, f"not all of it was done: {mischief.done}"
    assert fenced > 0, "no stale leader was refused"
    assert leads > 1, "nobody took over"


@pytest.mark.parametrize("moments", sized(300, 10_000))
def test_two_that_lead_by_force_tick_and_promote_once(
    one_server: Server, one_redis: Redis, moments: int
) -> None:
    token = "host:1:by force"
    jobs = backlog(one_redis, moments)
    ticked: Counter[int] = Counter()
    promoted: list[int] = []
    begin = threading.Barrier(2)

    def lead() -> None:
        with closing(Target(one_server.url).link()) as link:
            delayed = Delayed(link, KEYS)
            promoter = Promoter(delayed, name="host:1")
            promoter.token = token
            begin.wait(5)
            for moment in range(moments):
                payload = encode_job("cron", "note", [moment])
                promoted.append(promoter.step().promoted)
                tick = delayed.tick("every second", moment, "cron", payload, token=token)
                assert tick is not Tick.FENCED
                ticked[moment] += tick is Tick.OK

    leaders = [threading.Thread(target=lead) for _ in range(2)]
    for thread in leaders:
        thread.start()
    for thread in leaders:
        thread.join(60)

    assert not any(thread.is_alive() for thread in leaders)
    assert len(promoted) == 2 * moments, "one of them has failed"
    assert sum(promoted) == len(jobs)
    assert Counter(queue(one_redis)) == Counter(jobs)
    found: Any = one_redis.lrange(KEYS.queue("cron"), 0, -1)
    assert len(found) == len(set(found)) == ticked.total()
    # The faster one may leave a moment behind that the other has seen; none comes twice.
    assert max(ticked.values()) == 1
    assert encode_job("cron", "note", [moments - 1]) in found

"""Delayed jobs are promoted once each, whoever believes to lead and whoever dies meanwhile.

Nothing performs the jobs here: they stand in their queue, where each can be counted. Five
schedulers hold the same token, so the locks keep none of them back; what is left to protect the
jobs is that each batch compares the head of its bucket inside Redis.
"""

import random
import time
from collections import Counter
from contextlib import closing
from typing import Any

import pytest
from redis import Redis

from forkresque.promoter import Promoter
from forkresque.protocol.connection import Target
from forkresque.protocol.delayed import Delayed
from forkresque.protocol.failure import parse_failure
from forkresque.protocol.payload import encode_job
from tests.support.lone_promoters import Nursery, lone_promoters
from tests.support.report import Report
from tests.support.servers import Server
from tests.support.site import KEYS, ticks
from tests.support.sizes import sized
from tests.support.waiting import wait_until

ACKNOWLEDGED = "test:acknowledged"  # raised in the transaction that puts jobs in
TICK = 0.01
NO_JOBS = (b"junk", b"", b'{"class":"x","args":[]}', b"[1,2]", b"\xff\xfe", b"null", b'"text"')
RATE = 20_000  # jobs a second, as promised
ADOPTED = 60.0  # seconds until somebody looks at a stray bucket, as promised

# All places where a job can be, and how many there must be: one look, in one instant.
CENSUS = """
local sum = redis.call("LLEN", KEYS[1]) + redis.call("LLEN", KEYS[2])
for _, bucket in ipairs(redis.call("KEYS", ARGV[1])) do sum = sum + redis.call("LLEN", bucket) end
return {sum, tonumber(redis.call("GET", KEYS[3]) or 0)}
"""

# A thousand jobs for each of some seconds, as any Resque would put them in.
BACKLOG = """
local schedule, bucket, timestamps = KEYS[1], KEYS[2], KEYS[3]
for second = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  for number = 1, 1000 do
    local payload = string.format('{"class":"note","queue":"math","args":[%d,%d]}', second, number)
    redis.call("RPUSH", bucket .. second, payload)
    redis.call("SADD", timestamps .. payload, "delayed:" .. second)
  end
  redis.call("ZADD", schedule, second, second)
end
"""


class Backlog:
    """Delayed jobs that are put in while others are promoted."""

    def __init__(self, redis: Any, chance: random.Random) -> None:
        self.jobs: Counter[bytes] = Counter()
        self.no_jobs: Counter[bytes] = Counter()
        self.samples = self.violations = 0
        self._redis = redis
        self._chance = chance
        self._census = redis.register_script(CENSUS)

    def add(self, number: int) -> None:
        """Put jobs in for seconds around now; some equal, some no jobs, some as strays."""
        now = int(self._redis.time()[0])
        for _ in range(number):
            second = now + self._chance.randint(-20, 1)
            raw = self._job()
            is_stray = self._chance.random() < 0.02  # as when Ruby's scheduler dies in between
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.rpush(KEYS.delayed(second), raw)
                pipe.incr(ACKNOWLEDGED)
                if not is_stray:
                    pipe.sadd(KEYS.timestamps(raw), f"delayed:{second}")
                    pipe.zadd(KEYS.schedule(), {str(second): second})
                pipe.execute()

    def look(self) -> None:
        """Count all jobs in all places, in one instant."""
        places = [KEYS.queue("math"), KEYS.failed(), ACKNOWLEDGED]
        found, acknowledged = self._census(keys=places, args=[KEYS.delayed_family()])
        self.samples += 1
        self.violations += found != acknowledged

    @property
    def is_promoted(self) -> bool:
        return not self._redis.exists(KEYS.schedule()) and not self._redis.keys(
            KEYS.delayed_family()
        )

    def judge(self, report: Report) -> None:
        """Check that each job is in its place, once, and report what was found."""
        queued = Counter(self._redis.lrange(KEYS.queue("math"), 0, -1))
        entries = self._redis.lrange(KEYS.failed(), 0, -1)
        failed = Counter(parse_failure(entry).payload for entry in entries)
        report.count("jobs", self.jobs.total())
        report.count("bad inputs tried", self.no_jobs.total())
        report.count("lost", (self.jobs - queued).total() + (self.no_jobs - failed).total())
        report.count("double promotions", (queued - self.jobs).total())
        report.count("conservation samples", self.samples)
        report.count("conservation violations", self.violations)
        assert queued == self.jobs
        assert failed == self.no_jobs
        assert self.violations == 0
        assert int(self._redis.get(KEYS.stat("failed")) or 0) == self.no_jobs.total()

    def _job(self) -> bytes:
        if self._chance.random() < 0.03:
            raw = self._chance.choice(NO_JOBS)
            self.no_jobs[raw] += 1
            return raw
        # Now and then an equal one: what is compared are bytes.
        number = self.jobs.total() - self._chance.choice((0, 0, 0, 1))
        raw = encode_job("math", "note", [number])
        self.jobs[raw] += 1
        return raw


def kill_one(nursery: Nursery, chance: random.Random) -> int:
    """Kill one of the schedulers, if any is there; return how many died of it."""
    living = nursery.living()
    if not living:
        return 0
    victim = chance.choice(living)
    victim.kill()
    return 1


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("size", sized((2_000, 1.5), (20_000, 8.0)))
def test_five_leaders_at_once_that_are_killed_promote_each_job_once(
    one_server: Server, one_redis: Redis, report: Report, *, size: tuple[int, float], seed: int
) -> None:
    jobs, seconds = size
    report.seed("test_five_leaders_at_once_that_are_killed_promote_each_job_once", seed)
    chance, kills, hits = random.Random(seed), 0, 0
    backlog, redis = Backlog(one_redis, chance), one_redis
    planned = round(seconds / TICK)
    with lone_promoters(5, one_server, token="everybody:1:shared") as nursery:
        for tick in ticks(TICK, seconds):
            backlog.add(jobs * (tick + 1) // planned - jobs * tick // planned)
            if tick % 2:
                hits += bool(redis.exists(KEYS.schedule()))
                kills += kill_one(nursery, chance)
            backlog.look()
        wait_until(lambda: backlog.is_promoted, "all jobs to be promoted", 20.0)
        assert nursery.log().count("scheduler=promote") >= 5, "only some of them led"

    report.count("kills of schedulers", kills)
    backlog.judge(report)
    assert kills >= planned / 4, f"only {kills} kills"
    assert hits >= kills / 10, f"only {hits} kills while there was something to promote"


# -- buckets that nobody looks at ----------------------------------------------------------------


@pytest.mark.parametrize("keys", sized(3_000, 100_000))
def test_stray_buckets_are_found_among_any_number_of_keys(
    one_server: Server, one_redis: Redis, report: Report, keys: int
) -> None:
    strays = {second: encode_job("math", "note", [second]) for second in range(1, 51)}
    later = int(one_redis.time()[0]) + 3600
    with one_redis.pipeline(transaction=False) as pipe:
        for number in range(keys):
            pipe.set(f"resque:timestamps:{number}", "")
        for second, raw in strays.items():
            pipe.rpush(KEYS.delayed(second), raw)
        pipe.rpush(KEYS.delayed(later), encode_job("math", "note", ["later"]))
        pipe.set(b"resque:delayed:5000", "no list")
        pipe.set(b"resque:delayed:junk", "no bucket")
        pipe.execute()
    with closing(Target(one_server.url).link(tracking=True)) as link:
        promoter = Promoter(Delayed(link, KEYS), name="host:1", sweep_every=0.1)
        began = time.monotonic()

        def all_adopted() -> bool:
            promoter.step()
            left = one_redis.zrange(KEYS.schedule(), 0, -1) == [str(later).encode()]
            return left and one_redis.llen(KEYS.queue("math")) == len(strays)

        wait_until(all_adopted, "all strays to be adopted, and promoted when due", 20.0)
    report.time("all keys to stray buckets found", time.monotonic() - began)
    queue: Any = one_redis.lrange(KEYS.queue("math"), 0, -1)
    assert Counter(queue) == Counter(dict.fromkeys(strays.values(), 1))
    assert one_redis.llen(KEYS.delayed(later)) == 1


@pytest.mark.full  # it takes a minute
@pytest.mark.timeout(90)
def test_a_stray_bucket_is_adopted_within_a_minute(
    one_server: Server, one_redis: Redis, report: Report
) -> None:
    with lone_promoters(1, one_server):
        wait_until(lambda: one_redis.exists(KEYS.leader()), "a leader, who has looked once")
        first = encode_job("math", "note", ["first"])
        one_redis.rpush(KEYS.delayed(1), first)
        one_redis.zadd(KEYS.schedule(), {"1": 1})
        wait_until(lambda: one_redis.llen(KEYS.queue("math")) == 1, "the first look to be over")
        one_redis.rpush(KEYS.delayed(2), encode_job("math", "note", ["stray"]))
        stray_at = time.monotonic()
        wait_until(lambda: one_redis.llen(KEYS.queue("math")) == 2, "its promotion", 70.0)
    took = time.monotonic() - stray_at
    report.time("stray bucket to promoted", took)
    assert took <= ADOPTED


# -- a backlog -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", sized((5, False), (1_000, True)))
def test_a_backlog_is_promoted_in_order_and_at_speed(
    one_server: Server, one_redis: Redis, report: Report, size: tuple[int, bool]
) -> None:
    thousands, strict = size
    heads = [KEYS.schedule(), KEYS.delayed(0)[:-1], KEYS.timestamps(b"")]
    for second in range(1, thousands + 1, 5):  # a long script would stop the server for all
        one_redis.eval(BACKLOG, len(heads), *heads, second, second + 4)
    jobs = thousands * 1000
    with closing(Target(one_server.url).link(tracking=True)) as link:
        promoter = Promoter(Delayed(link, KEYS), name="host:1")
        began = time.monotonic()
        moved = 0
        while promoted := promoter.step().promoted:
            moved += promoted
        took = time.monotonic() - began

    rate = jobs / took
    report.note("backlog promoted by one scheduler", f"{jobs} jobs, {rate:.0f} a second")
    assert moved == jobs
    assert one_redis.keys(b"resque:*delayed*") == []
    queue: Any = one_redis.lrange(KEYS.queue("math"), 0, -1)
    assert queue == [
        b'{"class":"note","queue":"math","args":[%d,%d]}' % (second, number)
        for second in range(1, thousands + 1)
        for number in range(1, 1001)
    ]
    if strict:
        assert rate >= RATE

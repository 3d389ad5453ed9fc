"""Promoter: one of all leads, and moves what is due, whatever else stands in the schedule."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any, Protocol

import pytest
from redis import Redis

from forkresque.promoter import LOOK, RENEWAL, Promoter
from forkresque.protocol.connection import Target
from forkresque.protocol.delayed import Delayed, Lead
from forkresque.protocol.failure import parse_failure
from forkresque.protocol.keys import Keys
from tests.support.servers import Server

KEYS = Keys("resque")
RAW = b'{ "args" : [1.0, []], "class":"x","queue":"q"}'
PAST = 1_000


class NewPromoter(Protocol):
    def __call__(self, name: str = "host:1", *, tracking: bool = False) -> Promoter: ...


@pytest.fixture
def new(server: Server) -> Iterator[NewPromoter]:
    with ExitStack() as stack:

        def new(name: str = "host:1", *, tracking: bool = False) -> Promoter:
            link = stack.enter_context(closing(Target(server.url).link(tracking=tracking)))
            return Promoter(Delayed(link, KEYS), name=name)

        yield new


def delay(redis: Redis, *raws: bytes, second: int = PAST) -> None:
    redis.rpush(KEYS.delayed(second), *raws)
    for raw in raws:
        redis.sadd(KEYS.timestamps(raw), f"delayed:{second}")
    redis.zadd(KEYS.schedule(), {str(second): second})


def queued(redis: Redis, queue: str = "q") -> Any:
    return redis.lrange(KEYS.queue(queue), 0, -1)


def passes(promoter: Promoter, number: int = 10) -> int:
    """Take some steps and return how many jobs they promoted."""
    return sum(promoter.step().promoted for _ in range(number))


def test_a_step_leads_and_promotes_what_is_due(new: NewPromoter, redis: Redis) -> None:
    delay(redis, RAW, RAW)
    delay(redis, RAW, second=PAST + 1)
    promoter = new()

    assert promoter.step().promoted == 3
    assert promoter.state is Lead.PROMOTE
    assert promoter.step().promoted == 0

    assert queued(redis) == [RAW, RAW, RAW]
    assert not redis.exists(KEYS.schedule(), KEYS.timestamps(RAW), KEYS.delayed(PAST))
    leader: Any = redis.get(KEYS.leader())
    assert leader.startswith(b"host:1:")


def test_a_step_says_for_how_long_nothing_will_be_due(new: NewPromoter, redis: Redis) -> None:
    told, untold = new(tracking=True), new("host:2")
    assert RENEWAL - 1 < told.step().pause <= RENEWAL
    told.resign()
    assert 0 < untold.step().pause <= 1.0  # nobody tells it of a job for the next second

    delay(redis, RAW, second=redis.time()[0] + 2)
    assert 0 < untold.step().pause <= 1.0
    untold.resign()
    assert 0 < told.step().pause <= 2.0
    assert queued(redis) == []


def test_a_backlog_is_promoted_a_hundred_at_a_time(new: NewPromoter, redis: Redis) -> None:
    raws = [b'{"class":"x","queue":"q","args":[%d]}' % number for number in range(250)]
    delay(redis, *raws)
    promoter = new()

    assert [promoter.step().promoted for _ in range(4)] == [100, 100, 50, 0]
    assert queued(redis) == raws


def numbered(number: int) -> bytes:
    return b'{"class":"x","queue":"q","args":[%d]}' % number


def late(redis: Redis, number: int) -> list[bytes]:
    """Leave so many jobs, each at a second of its own long ago; return them, the oldest first."""
    raws = [numbered(each) for each in range(number)]
    pipeline = redis.pipeline()
    for second, raw in enumerate(raws, PAST):
        pipeline.rpush(KEYS.delayed(second), raw)
        pipeline.sadd(KEYS.timestamps(raw), f"delayed:{second}")
        pipeline.zadd(KEYS.schedule(), {str(second): second})
    pipeline.execute()
    return raws


def test_a_batch_takes_many_seconds_in_their_order(new: NewPromoter, redis: Redis) -> None:
    raws = late(redis, 250)
    promoter = new()

    assert [promoter.step().promoted for _ in range(4)] == [100, 100, 50, 0]
    assert queued(redis) == raws
    assert not redis.keys("*delayed*") + redis.keys("*timestamps*")


def test_a_pass_tells_which_job_was_due_when(new: NewPromoter, redis: Redis) -> None:
    delay(redis, numbered(1), numbered(2))
    delay(redis, numbered(3), second=PAST + 1)

    told = {b.second: [job.payload for job in b.jobs] for b in new().step().buckets}

    assert told == {PAST: [numbered(1), numbered(2)], PAST + 1: [numbered(3)]}


def test_a_second_without_jobs_leaves_the_schedule(new: NewPromoter, redis: Redis) -> None:
    redis.zadd(KEYS.schedule(), {"5": 5, "6": 6})
    delay(redis, RAW)

    assert new().step().promoted == 1
    assert not redis.exists(KEYS.schedule())


def test_a_batch_of_large_jobs_is_small(new: NewPromoter, redis: Redis) -> None:
    large = [b'{"class":"x","queue":"q","args":["%b"]}' % (b"%d" % n * 300_000) for n in range(9)]
    for number, raw in enumerate(large):
        delay(redis, raw, second=PAST + number)

    assert new().step().promoted == 4
    assert queued(redis) == large[:4]


def test_a_job_that_is_due_now_does_not_wait_for_all_that_are_late(
    new: NewPromoter, redis: Redis
) -> None:
    raws = late(redis, 1000)
    fresh = b'{"class":"x","queue":"fresh","args":[]}'
    promoter = new()
    promoter.step()

    delay(redis, fresh, second=redis.time()[0])
    passes(promoter, 2)

    assert queued(redis, "fresh") == [fresh]
    passes(promoter, 12)
    assert queued(redis) == raws


def test_those_that_are_late_do_not_wait_for_all_that_come_due(
    new: NewPromoter, redis: Redis
) -> None:
    raws = late(redis, 1000)
    fresh = b'{"class":"x","queue":"fresh","args":[]}'
    promoter = new()
    for _ in range(20):
        delay(redis, *[fresh] * 200, second=redis.time()[0])
        promoter.step()

    assert queued(redis) == raws
    assert redis.llen(KEYS.queue("fresh")) == 1000


def test_while_nothing_is_late_the_oldest_second_comes_first(
    new: NewPromoter, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forkresque.promoter.LATE", 600.0)  # however slow this test is
    second = redis.time()[0]
    for number in range(3):
        delay(
            redis, *map(numbered, range(100 * number, 100 * number + 100)), second=second - number
        )

    assert passes(new(), 3) == 300
    assert queued(redis)[::100] == [numbered(200), numbered(100), numbered(0)]


def test_nothing_that_cannot_move_hides_what_is_behind_it(new: NewPromoter, redis: Redis) -> None:
    redis.set(KEYS.failed(), "no list")
    delay(redis, *[b"junk"] * 150)
    delay(redis, RAW, second=PAST + 1)

    assert passes(new()) == 1
    assert queued(redis) == [RAW]
    assert redis.llen(KEYS.delayed(PAST)) == 150


def test_one_of_two_schedulers_leads(new: NewPromoter, redis: Redis) -> None:
    delay(redis, RAW)
    first, second = new("host:1"), new("host:2")
    first.step()
    delay(redis, RAW)

    result = second.step()

    assert (second.state, result.promoted) == (Lead.FOLLOW, 0)
    assert 0 < result.pause <= LOOK
    assert queued(redis) == [RAW]


def test_two_schedulers_of_one_name_do_not_lead_together(new: NewPromoter) -> None:
    first, second = new("host:1"), new("host:1")
    first.step()
    second.step()

    assert (first.state, second.state) == (Lead.PROMOTE, Lead.FOLLOW)


def test_a_second_scheduler_takes_over_when_the_first_resigns(
    new: NewPromoter, redis: Redis
) -> None:
    first, second = new("host:1"), new("host:2")
    first.step()

    first.resign()
    assert first.state is Lead.FOLLOW
    delay(redis, RAW)

    assert second.step().promoted == 1
    assert second.state is Lead.PROMOTE
    first.step()
    assert first.state is Lead.FOLLOW


@pytest.mark.parametrize("lock", [KEYS.node_leader(), KEYS.node_master(), KEYS.ruby_master()])
def test_a_scheduler_of_another_language_blocks_promotion(
    new: NewPromoter, redis: Redis, lock: bytes
) -> None:
    redis.set(lock, "stranger", ex=60)
    delay(redis, RAW)
    promoter = new()

    assert passes(promoter) == 0

    assert promoter.state is Lead.BLOCKED
    assert redis.llen(KEYS.delayed(PAST)) == 1

    redis.delete(lock)
    promoter.resign()  # so that the next step asks again
    assert promoter.step().promoted == 1


def test_a_lead_that_is_lost_before_its_term_moves_nothing(new: NewPromoter, redis: Redis) -> None:
    promoter = new()
    promoter.step()
    redis.set(KEYS.node_leader(), "stranger")
    delay(redis, RAW)

    assert (promoter.step().promoted, promoter.state) == (0, Lead.FOLLOW)
    assert (promoter.step().promoted, promoter.state) == (0, Lead.BLOCKED)
    assert redis.get(KEYS.node_leader()) == b"stranger"
    assert redis.llen(KEYS.delayed(PAST)) == 1


def test_a_job_is_not_promoted_before_its_second(new: NewPromoter, redis: Redis) -> None:
    second = redis.time()[0] + 100
    delay(redis, RAW, second=second)
    redis.zadd(KEYS.schedule(), {str(second): 5})  # a score that lies

    assert passes(new()) == 0
    assert redis.llen(KEYS.delayed(second)) == 1


def test_what_is_no_job_goes_to_the_failed_list_and_the_rest_moves_on(
    new: NewPromoter, redis: Redis
) -> None:
    delay(redis, b"junk", RAW, b'{"class":"x","args":[]}', RAW)

    assert new().step().promoted == 4

    assert queued(redis) == [RAW, RAW]
    entries: Any = redis.lrange(KEYS.failed(), 0, -1)
    failures = [parse_failure(entry) for entry in entries]
    assert [one.payload for one in failures] == [b"junk", b'{"class":"x","args":[]}']
    assert "names no queue" in failures[1].error


@pytest.mark.parametrize(
    "member",
    [
        "junk",
        "",
        "-",
        "1.5",
        "007",
        "-5",
        "\xb2",
        "--5",
        "9" * 5_000,
    ],
)
def test_a_member_of_the_schedule_that_is_no_second_is_passed_over(
    new: NewPromoter, redis: Redis, member: str
) -> None:
    redis.zadd(KEYS.schedule(), {member: 1})
    delay(redis, RAW)

    assert passes(new()) == 1
    assert queued(redis) == [RAW]


def test_any_number_of_members_that_are_no_second_hide_nothing(
    new: NewPromoter, redis: Redis
) -> None:
    redis.zadd(KEYS.schedule(), {f"junk{number}": 1 for number in range(150)})
    delay(redis, RAW)

    assert passes(new()) == 1


def test_a_member_that_is_passed_over_does_not_keep_the_scheduler_awake(
    new: NewPromoter, redis: Redis
) -> None:
    redis.zadd(KEYS.schedule(), {"junk": 1})

    assert new().step().pause > 0.1


@pytest.mark.parametrize("kind", ["string", "set"])
def test_a_bucket_of_a_wrong_type_stops_no_other_second(
    new: NewPromoter, redis: Redis, kind: str
) -> None:
    if kind == "string":
        redis.set(KEYS.delayed(5), "text")
    else:
        redis.sadd(KEYS.delayed(5), "member")
    redis.zadd(KEYS.schedule(), {"5": 5})
    delay(redis, RAW)

    assert passes(new()) == 1
    assert redis.exists(KEYS.delayed(5))


def test_a_queue_of_a_wrong_type_stops_no_other_second(new: NewPromoter, redis: Redis) -> None:
    redis.set(KEYS.queue("odd"), "text")
    odd = b'{"class":"x","queue":"odd","args":[]}'
    delay(redis, odd, second=PAST - 1)
    delay(redis, RAW)
    promoter = new()

    assert passes(promoter) == 2
    entries: Any = redis.lrange(KEYS.failed(), 0, -1)
    failure = parse_failure(entries[0])
    assert (failure.payload, failure.exception, failure.queue) == (odd, "BadKey", "odd")


def test_a_queue_of_a_wrong_type_stops_no_other_job_of_its_second(
    new: NewPromoter, redis: Redis
) -> None:
    redis.set(KEYS.queue("odd"), "text")
    delay(redis, b'{"class":"x","queue":"odd","args":[]}', RAW)

    assert passes(new()) == 2
    entries: Any = redis.lrange(KEYS.failed(), 0, -1)
    assert [parse_failure(entry).queue for entry in entries] == ["odd"]


def test_without_news_nothing_is_asked_until_something_is_due(redis: Redis, server: Server) -> None:
    with closing(Target(server.url).link(tracking=True)) as link:
        promoter = Promoter(Delayed(link, KEYS), name="host:1")
        promoter.step()
        asked = link.asked

        pause = promoter.step(news=False).pause
        assert (link.asked, 0 < pause <= RENEWAL) == (asked, True)

        delay(redis, RAW)
        assert promoter.step(news=False).promoted == 0, "it was not told"
        assert link.asked == asked
        assert promoter.step(news=True).promoted == 1
        assert promoter.step(news=False).promoted == 0, "a look may have left something"
        assert link.asked > asked


def test_a_new_lead_looks_without_any_news(new: NewPromoter, redis: Redis) -> None:
    first, second = new(tracking=True), new("host:2", tracking=True)
    first.step()
    assert second.step(news=False).promoted == 0
    delay(redis, RAW)
    first.resign()

    second.renew(now=True)

    assert second.step(news=False).promoted == 1
    assert second.state is Lead.PROMOTE

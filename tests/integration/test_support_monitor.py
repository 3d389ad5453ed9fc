"""The monitor must see a sum that is wrong, and count every place where a job can be."""

from redis import Redis

from forkresque.protocol.payload import encode_job
from tests.support.monitor import ACKNOWLEDGED, Intake, Monitor
from tests.support.servers import Server
from tests.support.site import KEYS
from tests.support.waiting import wait_until


def more_samples(monitor: Monitor, number: int = 20) -> None:
    """Wait until the monitor has looked that many times from now on."""
    before = monitor.samples
    wait_until(lambda: monitor.samples >= before + number, "samples")


def test_a_job_in_any_place_is_counted_once(one_server: Server, one_redis: Redis) -> None:
    intake = Intake(one_redis)
    jobs = [encode_job("math", "note", [number]) for number in range(5)]
    with Monitor(one_server) as monitor:
        intake.put(dict.fromkeys(jobs, ""))
        more_samples(monitor)
        # One after the other leaves the queue for another place, in one transaction each.
        for place in ("slot", "failed", "done", "delayed"):
            with one_redis.pipeline() as pipe:
                pipe.lpop(KEYS.queue("math"))
                if place == "slot":
                    pipe.sadd(KEYS.masters(), "m")
                    pipe.sadd(KEYS.kids("m"), "w")
                    pipe.set(KEYS.slot("w"), "job")
                elif place == "failed":
                    pipe.rpush(KEYS.failed(), "job")
                elif place == "done":
                    pipe.incr(KEYS.stat("processed"))
                else:
                    pipe.rpush(KEYS.delayed(7), "job")
                    pipe.zadd(KEYS.schedule(), {"7": 7})
                pipe.execute()
            more_samples(monitor)

    assert one_redis.llen(KEYS.queue("math")) == 1
    assert monitor.violations == []


def test_a_job_too_many_and_one_too_few_are_seen(one_server: Server, one_redis: Redis) -> None:
    intake = Intake(one_redis)
    with Monitor(one_server) as monitor:
        intake.put({encode_job("math", "note", ["a"]): "a"})
        one_redis.rpush(KEYS.queue("math"), "twin")
        wait_until(lambda: (2, 1) in monitor.violations, "one too many to be seen")
        one_redis.delete(KEYS.queue("math"))
        wait_until(lambda: (0, 1) in monitor.violations, "one too few to be seen")

    assert one_redis.get(ACKNOWLEDGED) == b"1"


def test_a_slot_that_no_master_knows_is_no_place(one_server: Server, one_redis: Redis) -> None:
    with Monitor(one_server) as monitor:
        Intake(one_redis).put({encode_job("math", "note", ["a"]): "a"})
        more_samples(monitor)
        assert monitor.violations == []
        one_redis.rename(KEYS.queue("math"), "elsewhere")
        one_redis.set(KEYS.slot("w"), "job")
        wait_until(lambda: (0, 1) in monitor.violations, "the loss to be seen")

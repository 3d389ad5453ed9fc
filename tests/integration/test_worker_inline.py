"""Jobs performed inline: within their hooks, on no queue, and without Redis where none is asked."""

import asyncio
from typing import Any

import pytest
from redis import Redis

from forkresque import JobLock, Plugin, QueueLock, Retry, Worker
from forkresque.errors import ConfigError, InvalidArgs, RedisUnavailable, UnknownJob
from forkresque.plugins.base import Performance
from tests.support.servers import HOST, Server

NOWHERE = f"redis://{HOST}:1/0"


def add(a: int, b: int) -> int:
    return a + b


def boom() -> None:
    raise ValueError("no")


def worker(url: str, function: Any = add, *plugins: Any) -> Worker:
    return Worker(url, {"job": {"perform": function, "plugins": list(plugins)}}, queues="q")


class Told(Plugin):
    """Writes down what it hears; its answers are given beforehand."""

    def __init__(self, passes: bool = True, clears: bool = False) -> None:  # noqa: FBT001, FBT002
        super().__init__()
        self.heard: list[tuple[Any, ...]] = []
        self.passes, self.clears = passes, clears

    def before_perform(self, context: Performance) -> bool:
        self.heard.append(("before", context.queue, context.name, context.args))
        return self.passes

    def after_perform(self, context: Performance) -> None:
        self.heard.append(("after", repr(context.error), context.worker.result))
        if self.clears:
            context.error = None


# -- without Redis -----------------------------------------------------------------------------


def test_a_job_is_performed_and_its_result_returned() -> None:
    assert worker(NOWHERE).perform_inline("job", [1, 2]) == 3


def test_an_async_job_is_run_to_its_end() -> None:
    async def later() -> str:
        await asyncio.sleep(0)
        return "done"

    assert worker(NOWHERE, later).perform_inline("job") == "done"


def test_plugins_see_a_queue_that_is_none() -> None:
    told = Told()
    one = worker(NOWHERE, add, told)

    assert one.perform_inline("job", (1, 2)) == 3
    queue = f"_direct-queue-{one.name}"
    assert told.heard == [("before", queue, "job", [1, 2]), ("after", "None", 3)]


def test_a_veto_is_none() -> None:
    told = Told(passes=False)

    assert worker(NOWHERE, boom, told).perform_inline("job") is None
    assert [heard[0] for heard in told.heard] == ["before"]


@pytest.mark.parametrize("plugins", [[], [Told()]], ids=["bare", "with a plugin"])
def test_the_error_of_the_job_is_raised(plugins: list[Plugin]) -> None:
    with pytest.raises(ValueError, match="no"):
        worker(NOWHERE, boom, *plugins).perform_inline("job")


def test_an_error_that_a_plugin_clears_is_none() -> None:
    told = Told(clears=True)

    assert worker(NOWHERE, boom, told).perform_inline("job") is None
    assert told.heard[-1] == ("after", "ValueError('no')", None)


def test_an_error_of_a_hook_is_the_job_s() -> None:
    class Before(Plugin):
        def before_perform(self, context: Performance) -> None:
            raise ZeroDivisionError("before")

    class After(Plugin):
        def after_perform(self, context: Performance) -> None:
            raise ZeroDivisionError("after")

    told = Told()
    with pytest.raises(ZeroDivisionError, match="before"):
        worker(NOWHERE, add, Before, told).perform_inline("job", [1, 2])
    with pytest.raises(ZeroDivisionError, match="after"):
        worker(NOWHERE, add, After).perform_inline("job", [1, 2])


def test_control_c_is_no_error_of_the_job() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    told = Told(clears=True)
    with pytest.raises(KeyboardInterrupt):
        worker(NOWHERE, interrupted, told).perform_inline("job")


def test_what_is_no_job_is_refused() -> None:
    with pytest.raises(UnknownJob, match="no job is registered under the name 'nobody'"):
        worker(NOWHERE).perform_inline("nobody")
    with pytest.raises(InvalidArgs, match="job takes 2 arguments, got 1"):
        worker(NOWHERE).perform_inline("job", [1])


def test_a_plugin_that_needs_redis_says_that_it_is_away() -> None:
    with pytest.raises(RedisUnavailable):
        worker(NOWHERE, add, JobLock()).perform_inline("job", [1, 2])


# -- with plugins that ask Redis ---------------------------------------------------------------


def test_a_lock_is_held_while_the_job_runs(one_server: Server, one_redis: Redis) -> None:
    seen: list[Any] = []
    one = worker(
        one_server.url, lambda: seen.append(one_redis.keys("resque:workerslock:*")), JobLock()
    )

    one.perform_inline("job")

    assert [len(keys) for keys in seen] == [1]
    assert one_redis.keys("*") == []
    assert one.end()


def test_a_job_whose_lock_another_holds_is_not_performed(
    one_server: Server, one_redis: Redis
) -> None:
    inner: list[object] = []

    def nested() -> str:
        inner.append(other.perform_inline("job"))
        return "outer"

    one = worker(one_server.url, nested, JobLock(key="the-lock"))
    other = worker(one_server.url, nested, JobLock(key="the-lock"))

    assert one.perform_inline("job") == "outer"
    assert inner == [None]
    assert one_redis.keys("*") == []
    assert one.end()
    assert other.end()


def test_the_lock_of_a_waiting_job_is_freed(one_server: Server, one_redis: Redis) -> None:
    one = worker(one_server.url, add, QueueLock(key="waiting"))
    one_redis.set("waiting", "1")

    assert one.perform_inline("job", [1, 2]) == 3
    assert one_redis.keys("*") == []
    assert one.end()


@pytest.mark.parametrize("retry", [Retry(3), Retry(None)], ids=["three", "for ever"])
def test_nobody_would_retry_it_so_the_error_is_raised_and_not_counted(
    one_server: Server, one_redis: Redis, retry: Retry
) -> None:
    one = worker(one_server.url, boom, retry)

    with pytest.raises(ValueError, match="no"):
        one.perform_inline("job")

    assert one_redis.keys("*") == []
    assert one.end()


def test_a_started_worker_performs_what_is_on_its_queues(
    one_server: Server, one_redis: Redis
) -> None:
    one = worker(one_server.url)
    one.start()
    with pytest.raises(ConfigError, match=f"worker {one.name} was started or has ended"):
        one.perform_inline("job", [1, 2])
    assert one.end(timeout=10)
    with pytest.raises(ConfigError, match="was started"):
        one.perform_inline("job", [1, 2])

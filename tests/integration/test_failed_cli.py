"""`forkresque failed` where each queue has its failed list, and beside what Ruby has retried."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from redis import Redis

from forkresque import Connection, Queue
from forkresque.cli.program import program
from forkresque.cli.selection import SMALLEST_PAGE, newest_first
from forkresque.protocol.failure import failed_second, failure_entry, parse_failure
from tests.support.servers import Server

Cli = Callable[..., Result]
BACKENDS = ("redis", "redis_multi_queue")
BEGAN = 1795487686


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def cli(tmp_path: Path, one_server: Server, backend: str) -> Cli:
    environ = {
        "XDG_RUNTIME_DIR": str(tmp_path),
        "FORKRESQUE_REDIS_URL": one_server.url,
        "FORKRESQUE_FAILURE_BACKEND": backend,
    }

    def run(*words: str) -> Result:
        return CliRunner(env=environ).invoke(program, list(words), prog_name="forkresque")

    return run


@pytest.fixture
def fail(one_redis: Redis, backend: str) -> Callable[..., str]:
    def fail(second: int, queue: str, **changes: Any) -> str:
        """Record a failure in the backend's list; return its id."""
        entry = failure_entry(
            raw=b'{"class":"add","args":[%d]}' % second,
            exception="ValueError",
            error="no",
            backtrace=[],
            worker="host:77:math",
            queue=queue,
            failed_at=BEGAN + second,
        )
        if changes:
            entry = json.dumps(json.loads(entry) | changes, separators=(",", ":")).encode()
        name = "failed" if backend == "redis" else f"{queue}_failed"
        if backend != "redis":
            one_redis.sadd("resque:failed_queues", name)
        one_redis.rpush(f"resque:{name}", entry)
        return parse_failure(entry).id

    return fail


def listed(cli: Cli, *words: str) -> list[str]:
    result = cli("failed", *words, "--json")
    assert result.exit_code == 0, result.output
    return [each["id"] for each in json.loads(result.stdout)["failed"]]


def test_the_newest_come_first_whatever_list_they_are_in(
    cli: Cli, fail: Callable[..., str]
) -> None:
    ids = [fail(second, "abc"[second % 3]) for second in range(3 * SMALLEST_PAGE)]

    assert listed(cli, "--limit", "1000") == ids[::-1]
    assert listed(cli, "--limit", "2") == ids[:-3:-1]
    assert listed(cli, "--queue", "b", "--limit", "1000") == ids[1::3][::-1]
    document = json.loads(cli("failed", "--limit", "1", "--json").stdout)
    assert document["total"] == len(ids)


def test_failed_jobs_are_shown_retried_and_removed_in_whichever_list(
    cli: Cli, fail: Callable[..., str], one_redis: Redis
) -> None:
    shown, retried, removed = (fail(second, queue) for second, queue in enumerate("abc"))

    assert cli("failed", "show", shown[:6]).stdout.startswith(f"id:        {shown}\n")
    assert cli("failed", "retry", retried).stdout == "retried 1 failed job\n"
    assert cli("failed", "rm", removed).stdout == "removed 1 failed job\n"

    assert listed(cli) == [shown]
    assert one_redis.lrange("resque:queue:b", 0, -1) == [b'{"class":"add","args":[1]}']
    assert cli("failed", "rm", removed).exit_code == 1


def test_all_failed_jobs_are_retried_and_removed_from_every_list(
    cli: Cli, fail: Callable[..., str], one_redis: Redis
) -> None:
    for second in range(9):
        fail(second, "abc"[second % 3])

    assert cli("failed", "retry", "--all", "--queue", "a", "--yes").exit_code == 0
    assert one_redis.lrange("resque:queue:a", 0, -1) == [
        b'{"class":"add","args":[%d]}' % second for second in (0, 3, 6)
    ]
    assert cli("failed", "rm", "--all", "--yes").stdout == "removed 6 failed jobs\n"
    assert listed(cli) == []


def test_what_ruby_has_retried_is_retried_only_by_name(
    cli: Cli, fail: Callable[..., str], one_redis: Redis
) -> None:
    fail(1, "a")
    kept = fail(2, "a", retried_at="2026/11/24 02:39:15 UTC")

    assert cli("failed", "retry", "--all", "--yes").stdout == "retried 1 failed job\n"
    assert listed(cli) == [kept]
    assert cli("failed", "retry", kept).stdout == "retried 1 failed job\n"
    assert one_redis.llen("resque:queue:a") == 2


def test_all_that_ruby_has_retried_is_removed_with_the_others(
    cli: Cli, fail: Callable[..., str]
) -> None:
    fail(1, "a", retried_at="2026/11/24 02:39:15 UTC")

    assert cli("failed", "rm", "--all", "--yes").stdout == "removed 1 failed job\n"


def test_a_list_of_another_type_hides_no_other(one_server: Server, one_redis: Redis) -> None:
    queue = Queue(Connection(one_server.url, failure_backend="redis_multi_queue"))
    one_redis.set("resque:odd_failed", "a string")
    one_redis.sadd("resque:failed_queues", "odd_failed")
    one_redis.rpush("resque:failed", b"junk")

    found = [failure.raw_entry for failure in newest_first(queue)]
    queue.end()

    assert found == [b"junk"]


@pytest.mark.parametrize(
    ("failed_at", "second"),
    [
        ("2026/11/24 02:34:46 UTC", BEGAN),
        ("2026/11/24 02:34:46 CET", BEGAN),  # nobody but its writer knows that zone
        ("2026/11/24 02:34:46", BEGAN),
        ("Tue Nov 24 2026 02:34:46 GMT+0000 (Coordinated Universal Time)", BEGAN),
        ("Tue Nov 24 2026 03:34:46 GMT+0100 (Central European Standard Time)", BEGAN),
        ("soon", 0),
        ("", 0),
    ],
)
def test_the_moment_of_a_failure_is_read_in_both_languages(failed_at: str, second: int) -> None:
    failure = parse_failure(json.dumps({"failed_at": failed_at}).encode())

    assert failed_second(failure) == second

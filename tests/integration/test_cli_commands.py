"""The commands against a real Redis: what they change, print and exit with."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from redis import Redis

from forkresque.cli.program import COMMANDS, Program, program
from forkresque.cli.selection import PAGE, newest_first
from forkresque.errors import ExitCode
from forkresque.protocol.connection import Target
from forkresque.protocol.failure import failure_entry, parse_failure
from forkresque.protocol.keys import Keys
from forkresque.queue import Queue
from tests.support.connections import Over
from tests.support.servers import Server, free_port

Cli = Callable[..., Result]

HOSTILE = "\x1b]0;x\x07\u202eevil\x9b\n"
ADD = b'{"class":"add","queue":"math","args":[1,2]}'


@pytest.fixture
def logging_untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep what `start` sets up away from the runner's own handlers."""
    root = logging.getLogger()
    level = root.level
    monkeypatch.setattr(root, "handlers", [])
    yield
    root.setLevel(level)


@pytest.fixture
def anywhere(tmp_path: Path, logging_untouched: None) -> Cli:
    """Run the command line; no master of the developer's is in reach."""
    environ = {
        "XDG_RUNTIME_DIR": str(tmp_path),
        "REDIS_URL": None,
        **{f"FORKRESQUE_{name}": None for name in ("REDIS_URL", "NAMESPACE", "APP", "CONTROL")},
    }

    def run(*words: str, **more: str) -> Result:
        return CliRunner(env={**environ, **more}).invoke(
            program, list(words), prog_name="forkresque"
        )

    return run


@pytest.fixture
def cli(anywhere: Cli, one_server: Server) -> Cli:
    """Run the command line on the test's Redis."""
    return lambda *words, **more: anywhere(
        *words, **({"FORKRESQUE_REDIS_URL": one_server.url} | more)
    )


@pytest.fixture
def nowhere() -> str:
    """Return the address of a Redis that is not there."""
    return f"redis://127.0.0.1:{free_port()}"


def ok(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def told(result: Result) -> dict[str, Any]:
    """Return the one document that a command printed."""
    assert result.stdout.isascii()
    document: dict[str, Any] = json.loads(result.stdout)
    assert document.pop("schema") == 1
    return document


def keys(redis: Redis) -> list[bytes]:
    return [key for key in redis.scan_iter() if isinstance(key, bytes)]


def fail(redis: Redis, error: str = "no", **changes: Any) -> str:
    """Add a failure record, and return its id."""
    fields: dict[str, Any] = {
        "raw": ADD,
        "exception": "ValueError",
        "backtrace": ["a.py:1", "b.py:2"],
        "worker": "host:77:math",
        "queue": "math",
        "failed_at": 1795487686.0,
    }
    entry = failure_entry(error=error, **(fields | changes))
    redis.rpush("resque:failed", entry)
    return parse_failure(entry).id


# -- enqueue and queues ----------------------------------------------------------------------


def test_an_enqueued_job_is_there_for_everybody(cli: Cli, one_redis: Redis) -> None:
    printed = ok(cli("enqueue", "math", "add", "1", "-1", '"text"', '{"a":null}'))

    assert printed == "enqueued add on math\n"
    assert one_redis.lrange("resque:queue:math", 0, -1) == [
        b'{"class":"add","queue":"math","args":[1,-1,"text",{"a":null}]}'
    ]
    assert one_redis.smembers("resque:queues") == {b"math"}


def test_arguments_may_be_one_list_and_jobs_many(cli: Cli) -> None:
    result = cli("enqueue", "math", "add", "--args", "[1,2]", "--count", "3", "--json")

    assert told(result) == {
        "enqueued": 3,
        "vetoed": 0,
        "queue": "math",
        "job": "add",
        "args": [1, 2],
        "at": None,
        "delay": None,
    }
    assert told(cli("queues", "--json")) == {
        "queues": [{"name": "math", "waiting": 3, "paused": False}]
    }


def test_what_a_plugin_vetoes_is_not_said_to_be_enqueued(
    cli: Cli, module: Callable[[str, str], str], one_redis: Redis
) -> None:
    name = module(
        "cli_app_with_lock",
        f"{ONE}from forkresque.plugins import QueueLock\n"
        "app = Forkresque()\n"
        "@app.job('once', queue='math', plugins=[QueueLock()])\n"
        "def once() -> None: ...\n",
    )

    first = ok(cli("-A", name, "enqueue", "math", "once", "--count", "3"))
    second = ok(cli("-A", name, "enqueue", "math", "once"))

    assert first == "enqueued once on math 1 times\nvetoed by a plugin of the job: 2\n"
    assert second == "not enqueued: once on math\nvetoed by a plugin of the job: 1\n"
    assert one_redis.llen("resque:queue:math") == 1


def test_a_job_goes_to_the_head_with_front(cli: Cli) -> None:
    ok(cli("enqueue", "math", "second"))
    ok(cli("enqueue", "math", "first", "--front"))

    shown = told(cli("queues", "show", "math", "--json"))

    assert [job["class"] for job in shown["jobs"]] == ["first", "second"]
    assert shown["waiting"] == 2


def test_a_delayed_job_waits_for_its_moment(cli: Cli, one_redis: Redis) -> None:
    ok(cli("enqueue", "math", "add", "--at", "2030-01-01T01:00:00+01:00"))
    ok(cli("enqueue", "math", "add", "--at", "1893456000"))
    ok(cli("enqueue", "math", "add", "--in", "10m"))

    assert one_redis.llen("resque:delayed:1893456000") == 2
    assert one_redis.zcard("resque:delayed_queue_schedule") == 2
    buckets = [key for key in keys(one_redis) if key.startswith(b"resque:delayed:")]
    soon = min(int(key.rpartition(b":")[2]) for key in buckets)
    assert 590 < soon - one_redis.time()[0] <= 601
    assert not one_redis.exists("resque:queue:math")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["hello"], "hint: a string is '\"hello\"'"),
        (["NaN"], "NaN is not JSON"),
        (["1", "--args", "[]"], "not both"),
        (["--args", "null"], "null is no list"),
        (["--at", "2030-01-01T00:00:00"], "no time zone"),
        (["--at", "tomorrow"], "tomorrow is no moment"),
        (["--in", "soon"], "soon is no length of time"),
        (["--in", "-5"], "-5 lies in the past"),
        (["--in", "5", "--front"], "exclude each other"),
        (["--count", "0"], "--count"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    cli: Cli, one_redis: Redis, words: list[str], reason: str
) -> None:
    result = cli("enqueue", "math", "add", *words)

    assert result.exit_code == ExitCode.USAGE
    assert reason in result.stderr
    assert result.stdout == ""
    assert not keys(one_redis)


def test_what_resque_cannot_keep_is_an_error_with_a_hint(cli: Cli) -> None:
    result = cli("enqueue", "a,b", "add")

    assert result.exit_code == ExitCode.FAILED
    assert result.stderr.splitlines() == [
        "error: 'a,b' cannot be a queue's name",
        "hint: use a name without commas and line ends, such as 'mail'",
    ]


def test_queues_are_listed_with_their_depth_and_pause(cli: Cli) -> None:
    ok(cli("enqueue", "math", "add", "--count", "12"))
    ok(cli("pause", "-q", "mail", "-q", "math"))
    ok(cli("resume", "-q", "math"))

    assert ok(cli("queues")).splitlines() == [
        "QUEUE  WAITING  STATE",
        "mail         0  paused",
        "math        12",
    ]


def test_the_jobs_of_a_queue_are_shown_whatever_they_are(cli: Cli, one_redis: Redis) -> None:
    one_redis.rpush("resque:queue:math", ADD, b"\xff\x1b", b"[1]")

    lines = ok(cli("queues", "show", "math", "--limit", "2")).splitlines()

    assert lines == [
        "JOB  ARGUMENTS",
        "add  [1, 2]",
        "     (not UTF-8 at byte 0) \\xff\\x1b",
    ]
    jobs = told(cli("queues", "show", "math", "--json"))["jobs"]
    assert jobs[0] == {"class": "add", "args": [1, 2], "raw": ADD.decode()}
    assert jobs[1]["raw"].encode(errors="surrogateescape") == b"\xff\x1b"


def test_a_queue_that_is_not_there_is_an_error(cli: Cli) -> None:
    result = cli("queues", "show", "nosuch")

    assert result.exit_code == ExitCode.FAILED
    assert result.stderr.startswith("error: there is no queue 'nosuch'\nhint: ")


# -- failed jobs -----------------------------------------------------------------------------


def test_failed_jobs_are_listed_newest_first(cli: Cli, one_redis: Redis) -> None:
    old, new = fail(one_redis, "old"), fail(one_redis, "new")

    lines = ok(cli("failed")).splitlines()

    assert lines[0].split() == ["ID", "FAILED", "AT", "QUEUE", "JOB", "EXCEPTION", "ERROR"]
    assert [line.split()[0] for line in lines[1:]] == [new, old]
    assert lines[1].endswith("2026/11/24 02:34:46 UTC  math   add  ValueError  new")


def test_failed_jobs_are_filtered(cli: Cli, one_redis: Redis) -> None:
    mail = fail(one_redis, raw=b'{"class":"send","args":["Bob"]}', queue="mail")
    zero = fail(one_redis, "by Zero", exception="ZeroDivisionError")
    plain = fail(one_redis)

    def ids(*words: str) -> list[str]:
        return [job["id"] for job in told(cli("failed", *words, "--json"))["failed"]]

    assert ids() == [plain, zero, mail]
    assert ids("--queue", "mail") == ids("--class", "send") == ids("--match", "bob") == [mail]
    assert ids("--exception", "ZeroDivisionError") == ids("--match", "zerO") == [zero]
    assert ids("--queue", "math", "--exception", "ValueError") == [plain]
    assert ids("--queue", "math", "--class", "send") == []
    assert ids("--limit", "2") == [plain, zero]


def test_a_failed_job_is_shown_whole(cli: Cli, one_redis: Redis) -> None:
    identity = fail(one_redis, "first\nsecond")

    lines = ok(cli("failed", "show", identity[:4])).splitlines()

    assert lines[0] == f"id:        {identity}"
    assert "class:     add" in lines
    assert "args:      [1, 2]" in lines
    assert lines[lines.index("error:     first") + 1] == "           second"
    assert lines[-3:] == ["backtrace:", "  a.py:1", "  b.py:2"]
    shown = told(cli("failed", "show", identity, "--json"))
    assert shown["backtrace"] == ["a.py:1", "b.py:2"]
    assert shown["payload"] == ADD.decode()


def test_an_id_that_is_unknown_is_an_error_and_nothing_is_done(cli: Cli, one_redis: Redis) -> None:
    identity = fail(one_redis)
    other = "0000" if not identity.startswith("0000") else "1111"

    for verb in ("show", "retry", "rm"):
        words = [other] if verb == "show" else [identity, other]
        result = cli("failed", verb, *words)
        assert result.exit_code == ExitCode.FAILED
        assert result.stderr.startswith(f"error: there is no failed job {other}\nhint: ")
    assert one_redis.llen("resque:failed") == 1


def test_a_beginning_that_fits_several_is_an_error_that_names_them(
    cli: Cli, one_redis: Redis
) -> None:
    seen: dict[str, str] = {}
    for number in range(100_000):
        entry = failure_entry(
            raw=ADD,
            exception="E",
            error=str(number),
            backtrace=[],
            worker="",
            queue="math",
            failed_at=0,
        )
        identity = parse_failure(entry).id
        one_redis.rpush("resque:failed", entry)
        if identity[:4] in seen:
            break
        seen[identity[:4]] = identity
    else:
        raise AssertionError("no two ids begin alike")

    result = cli("failed", "rm", identity[:4])

    assert result.exit_code == ExitCode.FAILED
    assert identity in result.stderr
    assert seen[identity[:4]] in result.stderr


@pytest.mark.parametrize("identity", ["abc", "xyzw", "0123456789abc"])
def test_what_is_no_id_is_refused(cli: Cli, identity: str) -> None:
    assert cli("failed", "show", identity).exit_code == ExitCode.USAGE
    assert cli("failed", "rm", identity).exit_code == ExitCode.USAGE


def test_a_retry_puts_back_the_very_bytes(cli: Cli, one_redis: Redis) -> None:
    odd = b'{ "class" : "add", "args" : [1.0, 12345678901234567890] }'
    identity = fail(one_redis, raw=odd)
    kept = fail(one_redis)

    assert ok(cli("failed", "retry", identity)) == "retried 1 failed job\n"

    assert one_redis.lrange("resque:queue:math", 0, -1) == [odd]
    assert one_redis.smembers("resque:queues") == {b"math"}
    assert [job["id"] for job in told(cli("failed", "--json"))["failed"]] == [kept]


def test_equal_records_share_their_id_and_their_fate(cli: Cli, one_redis: Redis) -> None:
    first, second = fail(one_redis), fail(one_redis)
    assert first == second

    assert told(cli("failed", "retry", first, "--json")) == {
        "retried": 2,
        "gone": 0,
        "refused": {},
    }
    assert one_redis.lrange("resque:queue:math", 0, -1) == [ADD, ADD]


def test_a_retry_may_name_another_queue(cli: Cli, one_redis: Redis) -> None:
    identity = fail(one_redis)

    assert cli("failed", "retry", identity, "--queue-to", "a,b").exit_code == ExitCode.USAGE
    ok(cli("failed", "retry", identity, "--queue-to", "low"))

    assert one_redis.lrange("resque:queue:low", 0, -1) == [ADD]


def test_all_that_filters_pass_are_retried_oldest_first(cli: Cli, one_redis: Redis) -> None:
    jobs = [b'{"class":"a","args":[%d]}' % number for number in range(PAGE + 50)]
    for raw in jobs:
        fail(one_redis, raw=raw)
    kept = fail(one_redis, exception="Other")

    result = cli("failed", "retry", "--all", "--exception", "ValueError", "--yes")

    assert ok(result) == f"retried {len(jobs)} failed jobs\n"
    assert one_redis.lrange("resque:queue:math", 0, -1) == jobs
    assert [job["id"] for job in told(cli("failed", "--json"))["failed"]] == [kept]


def test_nothing_happens_to_all_before_somebody_agrees(cli: Cli, one_redis: Redis) -> None:
    identity = fail(one_redis)

    asked = cli("failed", "rm", "--all")
    tried = cli("failed", "rm", "--all", "--dry-run", "--json")

    assert asked.exit_code == ExitCode.USAGE
    assert "Remove 1 failed job? Nobody is there to answer; give --yes." in asked.stderr
    assert told(tried) == {"dry_run": True, "count": 1, "ids": [identity]}
    assert one_redis.llen("resque:failed") == 1

    assert told(cli("failed", "rm", "--all", "--yes", "--json"))["removed"] == 1
    assert one_redis.llen("resque:failed") == 0


@pytest.mark.parametrize("words", [[], ["abcd", "--all"], ["abcd", "--queue", "math"]])
def test_a_change_names_ids_or_all(cli: Cli, words: list[str]) -> None:
    assert cli("failed", "retry", *words).exit_code == ExitCode.USAGE


def test_one_that_cannot_be_retried_does_not_stop_the_others(cli: Cli, one_redis: Redis) -> None:
    fail(one_redis)
    one_redis.rpush("resque:failed", b"\xff not a record")
    fail(one_redis, "later")

    result = cli("failed", "retry", "--all", "--yes")

    assert result.exit_code == ExitCode.FAILED
    assert result.stdout == "retried 2 failed jobs\n"
    assert "error: 1 failed job stayed: " in result.stderr
    assert one_redis.lrange("resque:failed", 0, -1) == [b"\xff not a record"]


def test_what_others_remove_meanwhile_makes_a_scan_pass_over_nothing(
    one_server: Server, one_redis: Redis
) -> None:
    names = [f"e{number}" for number in range(3 * PAGE)]
    for name in names:
        fail(one_redis, name)
    client = Target(one_server.url).client()
    scan = newest_first(Queue(Over(client, Keys())))
    seen = [next(scan).error for _ in range(PAGE + 10)]

    one_redis.ltrim("resque:failed", 100, -1)
    seen += [failure.error for failure in scan]
    client.close()

    assert set(seen) >= set(names[100:])


# -- workers, pauses and status --------------------------------------------------------------


def test_workers_of_every_language_are_listed(cli: Cli, one_redis: Redis) -> None:
    record = {"run_at": "2026-11-24T02:45:08Z", "queue": "math", "payload": {"class": "add"}}
    ids = ["broken", "h:1:math", "h:2:*", "h:3:x", "h:4:y"]
    one_redis.sadd("resque:workers", *ids)
    one_redis.set("resque:worker:h:1:math", json.dumps(record))
    one_redis.set("resque:worker:broken", b"\xff")
    one_redis.set("resque:worker:h:3:x", '{"queue":5,"payload":[]}')

    assert ok(cli("workers")).splitlines() == [
        "WORKER    STATE    QUEUE  JOB                  SINCE",
        "broken    working         (unreadable record)",
        "h:1:math  working  math   add                  2026-11-24T02:45:08Z",
        "h:2:*     idle",
        "h:3:x     working  ?      ?                    ?",
        "h:4:y     idle",
    ]
    assert [each["worker"] for each in told(cli("workers", "--json"))["workers"]] == ids


def test_all_workers_are_paused_by_rubys_key(cli: Cli, one_redis: Redis) -> None:
    assert told(cli("pause", "--all", "--json")) == {"paused": True, "all": True}
    assert one_redis.get("resque:pause-all-workers") == b"true"

    assert ok(cli("resume", "--all")) == "resumed all workers\n"
    assert not one_redis.exists("resque:pause-all-workers")


@pytest.mark.parametrize("words", [["-q", "a", "--all"], ["--all", "--pid", "1"]])
def test_a_pause_is_for_one_kind_of_workers(cli: Cli, words: list[str]) -> None:
    assert cli("pause", *words).exit_code == ExitCode.USAGE


def test_without_a_master_here_there_is_none_to_tell(cli: Cli, tmp_path: Path) -> None:
    for words in (
        ["pause"],
        ["resume", "--pid", "4242"],
        ["drain", "--control", str(tmp_path / "no.sock")],
    ):
        result = cli(*words)
        assert result.exit_code == ExitCode.FAILED
        assert result.stderr.startswith("error: ")
        assert "master" in result.stderr
    assert cli("drain", "--timeout", "-5").exit_code == ExitCode.USAGE
    assert cli("status", "--local").exit_code == ExitCode.OK
    assert cli("status", "--local", "--check").exit_code == ExitCode.FAILED


def test_status_tells_what_is_in_redis(cli: Cli, one_redis: Redis) -> None:
    ok(cli("enqueue", "math", "add", "--count", "2"))
    ok(cli("enqueue", "math", "add", "--in", "1h"))
    fail(one_redis)
    one_redis.mset({"resque:stat:processed": 7, "resque:stat:failed": 3})
    one_redis.sadd("resque:workers", "h:1:a", "h:2:b")
    one_redis.set("resque:worker:h:1:a", "{}")
    one_redis.set("resque:fr:leader", "host:9:token")
    ok(cli("pause", "--all"))

    document = told(cli("status", "--json"))
    screen = ok(cli("status", "--check"))

    assert document["masters"] == []
    assert document["redis"].pop("url").startswith("unix://")
    assert document["redis"] == {
        "namespace": "resque",
        "queues": [{"name": "math", "waiting": 2, "paused": False}],
        "delayed": 1,
        "failed": 1,
        "processed": 7,
        "failures": 3,
        "workers": 2,
        "working": 1,
        "leader": "host:9:token",
        "paused": True,
    }
    for text in ("waiting 2, delayed 1, failed 1", "2 workers, 1 working", "resume --all"):
        assert text in screen


def test_status_without_redis_still_shows_the_masters(anywhere: Cli, nowhere: str) -> None:
    result = anywhere("status", "--json", "-u", nowhere)

    assert result.exit_code == ExitCode.REDIS_UNREACHABLE
    assert told(result) == {"redis": None, "masters": []}
    assert anywhere("status", "--check", "-u", nowhere).exit_code == ExitCode.FAILED


# -- global options, errors, and what a terminal gets ----------------------------------------


def test_global_options_stand_anywhere_and_the_later_one_wins(cli: Cli, one_redis: Redis) -> None:
    ok(cli("--namespace", "a", "enqueue", "q", "job"))
    ok(cli("enqueue", "q", "job", "--namespace", "b"))
    ok(cli("--namespace", "a", "enqueue", "--namespace", "c", "q", "job"))
    ok(cli("--namespace", "a", "failed", "--namespace", "d", "list"))
    ok(cli("enqueue", "q", "job", FORKRESQUE_NAMESPACE="e"))

    queues = {key for key in keys(one_redis) if key.endswith(b":queues")}
    assert queues == {b"a:queues", b"b:queues", b"c:queues", b"e:queues"}
    assert "queues" in told(cli("--json", "queues")) | told(cli("queues", "list", "--json"))


@pytest.mark.parametrize(
    "words",
    [
        ["enqueue", "math", "add"],
        ["queues"],
        ["queues", "show", "math"],
        ["workers"],
        ["failed"],
        ["failed", "rm", "--all", "--yes"],
        ["pause", "--all"],
        ["resume", "-q", "math"],
        ["status"],
    ],
)
def test_a_redis_that_is_not_there_is_69_with_a_hint(
    anywhere: Cli, nowhere: str, words: list[str]
) -> None:
    result = anywhere(*words, "-u", nowhere)

    assert result.exit_code == ExitCode.REDIS_UNREACHABLE
    error, hint = result.stderr.splitlines()[-2:]
    assert error.startswith(f"error: cannot reach Redis at {nowhere}")
    assert hint.startswith("hint: ")
    assert "Traceback" not in result.stderr


def test_a_traceback_of_an_error_is_shown_when_asked_for(anywhere: Cli, nowhere: str) -> None:
    assert "Traceback" in anywhere("queues", "-v", "-u", nowhere).stderr


@pytest.mark.parametrize(
    "words",
    [
        ["nosuch"],
        ["queues", "nosuch"],
        ["queues", "--nosuch"],
        ["enqueue", "math"],
        ["failed", "--limit", "0"],
        ["start"],
    ],
)
def test_a_wrong_command_line_is_2(anywhere: Cli, words: list[str]) -> None:
    assert anywhere(*words).exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    "words", [["queues", "-u", "http://x"], ["start", "-A", "never.imported", "-c", "0"]]
)
def test_an_option_that_cannot_be_used_is_78(anywhere: Cli, words: list[str]) -> None:
    result = anywhere(*words)

    assert result.exit_code == ExitCode.CONFIG
    assert "\nhint: " in f"\n{result.stderr}"


def test_hostile_text_from_redis_reaches_no_terminal(cli: Cli, one_redis: Redis) -> None:
    queue = f"q{HOSTILE}"
    raw = json.dumps({"class": HOSTILE, "args": [HOSTILE]}).encode()
    one_redis.rpush(f"resque:queue:{queue}", raw)
    one_redis.sadd("resque:queues", queue)
    one_redis.sadd("resque:workers", f"h:1:{HOSTILE}")
    one_redis.set(f"resque:worker:h:1:{HOSTILE}", json.dumps({"queue": HOSTILE, "run_at": HOSTILE}))
    one_redis.set("resque:fr:leader", HOSTILE)
    identity = fail(one_redis, HOSTILE, raw=raw, queue=HOSTILE, exception=HOSTILE, worker=HOSTILE)

    for words in (
        ["queues"],
        ["queues", "show", queue],
        ["workers"],
        ["failed"],
        ["failed", "show", identity],
        ["status"],
        ["pause", "-q", queue],
    ):
        printed = ok(cli(*words))
        assert printed.replace("\n", "").isprintable(), words
        assert "\\u202eevil" in printed
    assert told(cli("failed", "--json"))["failed"][0]["error"] == HOSTILE


def test_hostile_text_in_an_error_reaches_no_terminal(cli: Cli, one_redis: Redis) -> None:
    result = cli("enqueue", HOSTILE, "add")

    assert result.exit_code == ExitCode.FAILED
    assert result.stderr.replace("\n", "").isprintable()


def test_an_unexpected_error_is_70_with_its_traceback_and_ctrl_c_is_130() -> None:
    def run(error: type[BaseException]) -> Result:
        class Broken(Program):
            def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
                raise error("unlucky")

        return CliRunner().invoke(Broken("forkresque"), ["queues"])

    surprise = run(LookupError)
    assert surprise.exit_code == ExitCode.INTERNAL
    assert "LookupError: unlucky" in surprise.stderr
    assert "error: internal error" in surprise.stderr
    assert run(KeyboardInterrupt).exit_code == 130


def test_help_shows_defaults_variables_and_the_global_options_apart(anywhere: Cli) -> None:
    text = " ".join(ok(anywhere("start", "-h")).split())

    assert "-t, --shutdown-timeout SECONDS" in text
    assert "[default 25; FORKRESQUE_SHUTDOWN_TIMEOUT]" in text
    assert "--preload / --no-preload" in text
    assert "Global options: -u, --redis URL" in text
    assert ok(anywhere("--version")).startswith("forkresque ")


def test_every_command_is_where_the_table_says() -> None:
    context = click.Context(program)
    for name in set(COMMANDS) - {"demo"}:  # which has tests of its own
        command = program.get_command(context, name)
        assert command is not None
        assert command.name == name


# -- applications ----------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """Write a module into the working directory, and return its name."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)

    def write(name: str, source: str) -> str:
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return write


ONE = "from forkresque import Forkresque\n"


def test_the_application_says_which_redis_and_an_option_beats_it(
    anywhere: Cli, one_server: Server, one_redis: Redis, module: Callable[[str, str], str]
) -> None:
    source = f"{ONE}mine = Forkresque({one_server.url!r}, namespace='code')\n"
    name = module("cli_app_of_its_own", source)

    ok(anywhere("-A", name, "enqueue", "q", "job"))
    ok(anywhere("enqueue", "q", "job", FORKRESQUE_APP=f"{name}:mine", FORKRESQUE_NAMESPACE="env"))
    ok(anywhere("enqueue", "-A", name, "q", "job", "--namespace", "flag", REDIS_URL="redis://x"))

    for namespace in ("code", "env", "flag"):
        assert one_redis.llen(f"{namespace}:queue:q") == 1


@pytest.mark.parametrize(
    ("source", "attribute", "reason"),
    [
        ("", "", "holds no Forkresque"),
        (f"{ONE}a = Forkresque(); b = Forkresque()\n", "", "more than one Forkresque: a, b"),
        (f"{ONE}a = Forkresque()\n", ":b", "has no 'b'"),
        (f"{ONE}a = Forkresque(); b = 5\n", ":b", "'b' in module"),
        ("import nosuchmodule\n", "", "No module named 'nosuchmodule'"),
        ("raise SystemExit(3)\n", "", "SystemExit: 3"),
        ("def f(:\n", "", "SyntaxError"),
    ],
)
def test_an_application_that_cannot_be_used_is_78_and_says_why(
    anywhere: Cli,
    module: Callable[[str, str], str],
    request: pytest.FixtureRequest,
    source: str,
    attribute: str,
    reason: str,
) -> None:
    index = request.node.callspec.indices["source"]
    name = module(f"cli_bad_app_{index}", source)

    result = anywhere("start", "-A", f"{name}{attribute}")

    assert result.exit_code == ExitCode.CONFIG
    assert reason in result.stderr
    assert name in result.stderr
    assert result.stderr.splitlines()[-1].startswith("hint: ")


@pytest.mark.parametrize("name", ["no_such_module_of_ours", "tests.nothing", "a/b.py", "", ":app"])
def test_an_application_that_is_not_there_is_no_traceback(anywhere: Cli, name: str) -> None:
    result = anywhere("queues", "-A", name, "-u", "redis://127.0.0.1:1")

    assert "Traceback" not in result.stderr
    assert result.exit_code == (ExitCode.CONFIG if name else ExitCode.REDIS_UNREACHABLE)


def test_an_error_inside_the_application_shows_its_own_lines_only(
    anywhere: Cli, module: Callable[[str, str], str]
) -> None:
    name = module("cli_app_that_raises", "def f():\n    raise RuntimeError('boom')\nf()\n")

    lines = anywhere("start", "-A", name).stderr.splitlines()

    files = [line for line in lines if line.startswith("  File ")]
    assert lines[0] == "Traceback (most recent call last):"
    assert len(files) == 2
    assert all(f"{name}.py" in file for file in files)
    assert lines[-3] == "RuntimeError: boom"


def test_of_several_applications_the_one_named_app_is_meant(
    anywhere: Cli, one_server: Server, one_redis: Redis, module: Callable[[str, str], str]
) -> None:
    source = f"{ONE}other = Forkresque()\napp = Forkresque({one_server.url!r})\n"

    ok(anywhere("-A", module("cli_two_apps", source), "enqueue", "q", "job"))

    assert one_redis.llen("resque:queue:q") == 1


def test_a_start_that_requires_redis_is_69_without_it(
    anywhere: Cli, nowhere: str, module: Callable[[str, str], str]
) -> None:
    name = module("cli_app_without_redis", f"{ONE}app = Forkresque()\n")

    result = anywhere("start", "--require-redis", "-A", name, FORKRESQUE_REDIS_URL=nowhere)

    assert result.exit_code == ExitCode.REDIS_UNREACHABLE
    assert result.stderr.startswith(f"error: cannot reach Redis at {nowhere}")


def test_a_server_that_loses_jobs_is_refused_before_anything_starts(
    anywhere: Cli, module: Callable[[str, str], str]
) -> None:
    name = module("cli_app_with_a_cache", f"{ONE}app = Forkresque()\n")

    with Server(args=("--maxmemory-policy", "allkeys-lru")) as server:
        result = anywhere("start", "-A", name, "-u", server.url)

    assert result.exit_code == ExitCode.CONFIG
    assert "allkeys-lru" in result.stderr
    assert "hint: CONFIG SET maxmemory-policy noeviction" in result.stderr

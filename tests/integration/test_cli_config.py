"""The configuration file seen from the command line: `config`, `--config`, and who reads it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from redis import Redis

from forkresque.cli.program import program
from forkresque.errors import ExitCode
from tests.conftest import Starter
from tests.support.servers import Server
from tests.support.waiting import wait_until

Cli = Callable[..., Result]
APP = "from forkresque import Forkresque\napp = Forkresque()\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("FORKRESQUE_")] + ["REDIS_URL"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(here: Path) -> Cli:
    def run(*words: str, **variables: str) -> Result:
        environ = {"XDG_RUNTIME_DIR": str(here), "FORKRESQUE_CONFIG": None, **variables}
        return CliRunner(env=environ).invoke(program, list(words), prog_name="forkresque")

    return run


def ok(result: Result) -> str:
    assert result.exit_code == ExitCode.OK, result.output
    return result.stdout


def test_config_shows_every_value_with_its_source(cli: Cli, here: Path) -> None:
    file = here / "forkresque.toml"
    file.write_text('lease = 10\nredis = "redis://me:secret@h/0"\npools = ["a=1", "b,c=1:2"]')

    lines = ok(cli("config", "--namespace", "n", FORKRESQUE_AUDIT="5")).splitlines()

    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows["lease"] == ["10", str(file)]
    assert rows["redis"] == ["redis://me:***@h/0", str(file)]
    assert rows["pools"] == ["a=1", "b,c=1:2", str(file)]
    assert rows["audit"] == ["5", "FORKRESQUE_AUDIT"]
    assert rows["namespace"] == ["n", "--namespace"]
    assert rows["preload"] == ["yes", "default"]


def test_config_is_there_for_programs(cli: Cli, here: Path) -> None:
    file = here / "forkresque.toml"
    file.write_text('queues = ["a", "b"]\nmax_memory = "1K"\nredis = "redis://:secret@h"')

    printed = ok(cli("config", "show", "--json"))
    told = json.loads(printed)

    assert told["file"] == str(file)
    assert told["options"]["queues"] == {"value": ["a", "b"], "source": str(file)}
    assert told["options"]["max_memory"]["value"] == 1024
    assert told["options"]["preload"] == {"value": True, "source": "default"}
    assert told["options"]["concurrency"] == {"value": "auto", "source": "default"}
    assert "secret" not in printed


def test_config_check_names_every_mistake_once(cli: Cli, here: Path) -> None:
    file = here / "forkresque.toml"
    assert ok(cli("config", "check")) == "the configuration, without a file, is good\n"

    file.write_text('lease = 10\nlog_level = "debug"')
    assert ok(cli("config", "check")) == f"{file} is good\n"
    assert json.loads(ok(cli("config", "check", "--json")))["good"] is True

    file.write_text('lease = 1\nlog_level = "loud"')
    result = cli("config", "check", FORKRESQUE_ACK="never")
    assert result.exit_code == ExitCode.CONFIG
    assert result.stderr.splitlines()[0] == (
        f"error: lease in {file} must be at least 6, got 1.0; "
        "FORKRESQUE_ACK must be primary|replica|disk, got 'never'; "
        f"log_level in {file} must be debug|info|warning|error, got 'loud'"
    )


@pytest.mark.parametrize("words", [("config", "check"), ("config",), ("queues",), ("status",)])
def test_a_broken_file_ends_every_command_that_reads_it(
    cli: Cli, here: Path, words: tuple[str, ...]
) -> None:
    (here / "forkresque.toml").write_text("lease = ")

    result = cli(*words)

    assert result.exit_code == ExitCode.CONFIG
    assert result.stderr.count("is not TOML") == 1
    assert result.stderr.splitlines()[-1].startswith("hint: --config or FORKRESQUE_CONFIG")


@pytest.mark.parametrize("words", ["--config other.toml config", "config --config other.toml"])
def test_a_flag_names_the_file_wherever_it_stands(cli: Cli, here: Path, words: str) -> None:
    (here / "forkresque.toml").write_text("lease = 10")
    (here / "other.toml").write_text("lease = 20")

    told = json.loads(ok(cli(*words.split(), "--json")))

    assert told["file"] == str(here / "other.toml")
    assert told["options"]["lease"]["value"] == 20


def test_the_application_reads_the_file_that_a_flag_names(
    cli: Cli, here: Path, one_server: Server, one_redis: Redis
) -> None:
    (here / "reading_app.py").write_text(APP)
    (here / "other.toml").write_text(
        f'app = "reading_app"\nredis = "{one_server.url}"\nnamespace = "filed"'
    )

    ok(cli("enqueue", "math", "add", "1", "--config", "other.toml"))

    assert one_redis.llen("filed:queue:math") == 1


def test_a_master_does_what_the_file_says(start: Starter, one_redis: Redis, tmp_path: Path) -> None:
    file = tmp_path / "forkresque.toml"
    file.write_text(
        'queues = "math"\nconcurrency = 2\nhost_label = "filed"\napp = "tests.support.jobs"'
    )

    start(env={"FORKRESQUE_CONFIG": str(file)})

    wait_until(lambda: one_redis.scard("resque:workers") == 2, "two workers")
    for name in map(bytes, one_redis.sscan_iter("resque:workers")):
        assert name.startswith(b"filed:")
        assert name.endswith(b":math")


def test_a_master_refuses_a_file_with_mistakes(start: Starter, tmp_path: Path) -> None:
    file = tmp_path / "forkresque.toml"
    file.write_text("concurrency = 501")

    master = start("-A", "tests.support.jobs", env={"FORKRESQUE_CONFIG": str(file)})

    assert master.wait() == ExitCode.CONFIG
    assert f"concurrency in {file} must be at most 500, got 501" in master.log()


def test_a_master_is_found_where_the_file_says(
    start: Starter, cli: Cli, one_server: Server, here: Path
) -> None:
    (here / "forkresque.toml").write_text(f'control = "{here / "control.sock"}"')
    master = start(
        *("-A", "tests.support.jobs", "-c", "1"),
        env={"FORKRESQUE_CONFIG": str(here / "forkresque.toml")},
    )
    wait_until((here / "control.sock").exists, "the control socket")

    assert ok(cli("pause")) == f"paused master {master.pid}\n"


def test_the_demo_stands_apart_from_the_file_of_a_project(cli: Cli, here: Path) -> None:
    (here / "forkresque.toml").write_text(
        f'pidfile = "{here / "no/such/directory"}"\nack = "replica"'
    )

    demo = subprocess.run(
        [sys.executable, "-m", "forkresque", "demo", "--for", "1s", "-c", "2"],
        capture_output=True,
        text=True,
        timeout=25,
    )

    assert demo.returncode == ExitCode.OK, demo.stderr
    assert re.search(r"[1-9]\d* jobs succeeded", demo.stdout + demo.stderr)
    assert "replica" not in demo.stdout + demo.stderr

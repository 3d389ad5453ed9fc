"""Orders to a master of this machine, and what the command line says of them.

The master is a fake, which answers at once what a true one would take its time for.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from forkresque.cli.program import program
from forkresque.errors import ExitCode
from tests.support.fake_master import FakeMaster, pool, scaling, worker
from tests.support.waiting import wait_until

Cli = Callable[..., Result]
Begin = Callable[..., FakeMaster]

NEW = {"generation": 2, "workers": [worker(4201, generation=2)]}


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the XDG_RUNTIME_DIR of all masters and commands. Its path is short."""
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def cli(runtime: Path) -> Cli:
    """Run the command line; no master of the developer's is in reach."""
    environ = {"XDG_RUNTIME_DIR": str(runtime), "REDIS_URL": None}
    environ |= {f"FORKRESQUE_{name}": None for name in ("REDIS_URL", "APP", "CONTROL", "CONFIG")}
    return lambda *words, **more: CliRunner(env=environ).invoke(
        program, list(words), prog_name="forkresque", **more
    )


@pytest.fixture
def begin(runtime: Path) -> Iterator[Begin]:
    """Return a starter of fake masters."""
    directory = runtime / "forkresque"
    directory.mkdir(mode=0o700)
    with ExitStack() as stack:

        def start(**changes: Any) -> FakeMaster:
            name = f"{changes.get('pid', os.getpid())}.sock"
            return stack.enter_context(FakeMaster(directory / name, **changes))

        yield start


def ok(result: Result) -> str:
    assert result.exit_code == ExitCode.OK, result.output
    return result.stdout


def told(result: Result) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(ok(result))
    assert document.pop("schema") == 1
    return document


# -- scale -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "asked", "size"),
    [("6", {"to": 6}, "6"), ("+3", {"by": 3}, "5"), ("-1", {"by": -1}, "1"), ("-10", None, "1")],
)
def test_a_fixed_pool_is_made_larger_or_smaller(
    cli: Cli, begin: Begin, word: str, asked: dict[str, int] | None, size: str
) -> None:
    master = begin()

    assert ok(cli("scale", word)) == f"pool math: size {size}, was 2\n"

    assert master.asked == [("scale", {"pool": "math", **(asked or {"by": -10})})]


def test_a_pool_that_scales_gets_another_maximum(cli: Cli, begin: Begin) -> None:
    begin(pools=[pool("low"), pool("high,mid", least=2, most=8, wanted=5)])

    document = told(cli("scale", "--pool", "high,mid", "-3", "--json"))

    assert document == {
        "pid": os.getpid(),
        "pool": "high,mid",
        "before": {"least": 2, "most": 8, "wanted": 5},
        "after": {"least": 2, "most": 5, "wanted": 5},
    }
    assert ok(cli("scale", "+1", "--pool", "high,mid")) == "pool high,mid: size 2:6, was 2:5\n"


def test_of_several_pools_one_must_be_named(cli: Cli, begin: Begin) -> None:
    master = begin(pools=[pool("low"), pool("high")])

    unnamed, unknown = cli("scale", "3"), cli("scale", "3", "--pool", "hihg")

    assert unnamed.exit_code == unknown.exit_code == ExitCode.FAILED
    assert "has 2 pools: low; high" in unnamed.stderr
    assert "say which: --pool NAME" in unnamed.stderr
    assert "there is no pool hihg" in unknown.stderr
    assert "there is low; high" in unknown.stderr
    assert master.asked == []


@pytest.mark.parametrize(
    "words", [["0"], ["-0"], ["many"], ["1.5"], ["--nosuch"], ["+"], ["123456"], ["1", "2"], []]
)
def test_what_is_no_number_of_workers_is_refused(cli: Cli, begin: Begin, words: list[str]) -> None:
    master = begin()

    result = cli("scale", *words)

    assert result.exit_code == ExitCode.USAGE
    assert not words or words[-1] in result.stderr
    assert master.asked == []


def test_the_master_is_named_as_for_the_other_orders(cli: Cli, begin: Begin, runtime: Path) -> None:
    one, other = begin(), begin(pid=1)

    assert "2 masters run here" in cli("scale", "3").stderr
    assert "2 masters run here" in cli("reload").stderr
    ok(cli("scale", "-1", "--pid", "1"))
    ok(cli("scale", "+4", "--control", str(one.path)))

    assert [asked for _, asked in other.asked] == [{"pool": "math", "by": -1}]
    assert [asked for _, asked in one.asked] == [{"pool": "math", "by": 4}]


def test_a_master_that_does_not_answer_keeps_nobody_from_another_that_is_named(
    cli: Cli, begin: Begin, runtime: Path
) -> None:
    master = begin()
    elsewhere = {"FORKRESQUE_CONTROL": str(runtime / "gone.sock")}

    unnamed = cli("scale", "3", env=elsewhere)
    named = cli("scale", "3", "--pid", str(os.getpid()), env=elsewhere)

    assert unnamed.exit_code == ExitCode.FAILED
    assert "no master answers at" in unnamed.stderr
    assert named.exit_code == ExitCode.OK
    assert len(master.asked) == 1


# -- reload ----------------------------------------------------------------------------------


def test_a_reload_returns_when_all_workers_run_the_new_code(cli: Cli, begin: Begin) -> None:
    master = begin()
    rolling = {"state": "rolling", "reason": ""}
    old, new = worker(4101), worker(4201, generation=2)
    master.on_reload = [
        {},
        {"generation": 2, "workers": [old, new], "reload": rolling},
        {"workers": [new], "reload": rolling},  # its clerk is of the old generation
        {"reload": {"state": "none", "reason": ""}},
    ]

    result = cli("reload")

    assert ok(result) == f"master {os.getpid()} runs the new code, generation 2\n"
    assert result.stderr.count("workers of the old one finish their jobs") == 1
    assert master.script == []
    assert master.asked == [("reload", {})]


def test_a_reload_that_is_refused_fails_with_the_reason(cli: Cli, begin: Begin) -> None:
    master = begin()
    reason = "Traceback:\nSyntaxError: \x1b[31mbad"
    master.on_reload = [{}, {"reload": {"state": "refused", "reason": reason}}]

    result = cli("reload", "--json")

    assert result.exit_code == ExitCode.FAILED
    assert "stays with the old code: Traceback:\nSyntaxError: \\x1b[31mbad" in result.stderr
    assert "nothing was interrupted" in result.stderr
    assert result.stdout == ""


def test_an_earlier_refusal_is_not_taken_for_this_one(cli: Cli, begin: Begin) -> None:
    master = begin(reload={"state": "refused", "reason": "long ago"})
    master.on_reload = [{}, {**NEW, "reload": {"state": "none", "reason": ""}}]

    assert told(cli("reload", "--json"))["generation"] == 2


def test_a_reload_may_go_on_by_itself(cli: Cli, begin: Begin) -> None:
    master = begin()

    assert ok(cli("reload", "--no-wait")) == f"master {os.getpid()} tries the new code\n"
    assert told(cli("reload", "--no-wait", "--json")) == {
        "pid": os.getpid(),
        "generation": 1,
        "reloaded": False,
    }
    assert [verb for verb, _ in master.asked] == ["reload", "reload"]


def test_a_master_that_drains_does_not_scale(cli: Cli, begin: Begin) -> None:
    master = begin(draining=True, ready=False)

    result = cli("scale", "+1")

    assert result.exit_code == ExitCode.FAILED
    assert "drains; it takes no more workers" in result.stderr
    assert master.asked == []


@pytest.mark.parametrize("wait", ["--wait", "--no-wait"])
def test_a_master_that_drains_does_not_reload(cli: Cli, begin: Begin, wait: str) -> None:
    begin(draining=True, ready=False)

    result = cli("reload", wait)

    assert result.exit_code == ExitCode.FAILED
    assert "drains; it does not reload any more" in result.stderr


def test_a_master_that_becomes_the_new_code_is_waited_for(cli: Cli, begin: Begin) -> None:
    master = begin()
    results: list[Result] = []
    client = threading.Thread(target=lambda: results.append(cli("reload")))
    client.start()
    wait_until(lambda: master.looks > 4, "the command to look for the new code")

    master.end()  # for a moment, nobody listens; the process is there, though
    with FakeMaster(master.path, **NEW) as new:
        client.join(10)
        assert not client.is_alive()
        assert new.asked == []

    assert ok(results[0]).endswith("runs the new code, generation 2\n")


def test_a_master_that_ends_during_a_reload_is_said_to_have_ended(cli: Cli, begin: Begin) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        master = begin(pid=process.pid)
        results: list[Result] = []
        client = threading.Thread(target=lambda: results.append(cli("reload")))
        client.start()
        wait_until(lambda: master.looks > 4, "the command to look for the new code")
        master.end()
        process.communicate(b"\n")
        client.join(10)

    assert not client.is_alive()
    assert results[0].exit_code == ExitCode.FAILED
    assert f"master {process.pid} has ended during the reload" in results[0].stderr


# -- workers kill ----------------------------------------------------------------------------


def test_a_worker_at_rest_is_killed_at_once(cli: Cli, begin: Begin) -> None:
    master = begin()

    assert ok(cli("workers", "kill", "4102")) == f"master {os.getpid()} kills worker 4102\n"

    assert master.asked == [("kill", {"pid": 4102})]


def test_a_worker_with_a_job_is_killed_when_that_is_meant(cli: Cli, begin: Begin) -> None:
    busy = worker(4101, phase="run", job="Report", job_seconds=192.0)
    master = begin(workers=[busy])

    unsure = cli("workers", "kill", "4101")
    assert unsure.exit_code == ExitCode.USAGE
    assert "Worker 4101 performs Report for 3m12s" in unsure.stderr
    assert "give --yes" in unsure.stderr
    assert master.asked == []

    document = told(cli("workers", "kill", "4101", "--yes", "--json"))
    assert document == {"killed": 4101, "pid": os.getpid(), "job": "Report"}
    master.report["workers"] = [busy]
    sure = ok(cli("workers", "kill", "4101", "--yes", "--control", str(master.path)))
    assert sure.endswith("its job Report is recovered as after a crash\n")


@pytest.mark.parametrize(
    ("pid", "why"),
    [
        ("4242", "no master of this machine has a worker 4242"),
        ("1", "1 is a master"),
        ("4100", "4100 is a clerk"),
    ],
)
def test_only_workers_are_killed(cli: Cli, begin: Begin, pid: str, why: str) -> None:
    masters = [begin(), begin(pid=1)]

    result = cli("workers", "kill", pid, "--yes")

    assert result.exit_code == ExitCode.FAILED
    assert why in result.stderr
    assert [master.asked for master in masters] == [[], []]


@pytest.mark.parametrize("pid", ["0", "-5", "all"])
def test_what_is_no_pid_is_refused(cli: Cli, pid: str) -> None:
    assert cli("workers", "kill", pid).exit_code == ExitCode.USAGE


def test_a_worker_that_has_just_gone_is_an_error(cli: Cli, begin: Begin) -> None:
    master = begin()
    master.before["kill"] = lambda: master.report.update(workers=[])

    result = cli("workers", "kill", "4101")

    assert result.exit_code == ExitCode.FAILED
    assert "there is no worker 4101 here" in result.stderr


# -- status ----------------------------------------------------------------------------------


def test_status_shows_pools_decisions_workers_and_trouble(cli: Cli, begin: Begin) -> None:
    ups = [scaling(65.0, 1, 2, "older"), scaling(3.0, 2, 4, "120 waiting, all busy")]
    high = pool("high", least=1, most=8, wanted=4, busy=3, idle=1, waiting=120, scalings=ups)
    begin(
        generation=3,
        paused=True,
        ready=False,
        trouble=["workers of pool low do not boot: 5 in a row"],
        reload={"state": "refused", "reason": "Traceback\nImportError: no"},
        pools=[high, pool("low", broken=True, waiting=None)],
        workers=[
            worker(4101, phase="run", job="Report", job_seconds=1.25, cpu=0.5, age=7200.0),
            worker(4102, pool=1, cpu=None, memory=None, generation=2),
        ],
    )

    screen = ok(cli("status", "--local"))
    lines = screen.splitlines()

    assert lines[0] == (
        f"master {os.getpid()}, paused, not ready, up 1m 40s, forkresque 1.2.3, generation 3"
    )
    for line in (
        "  trouble: workers of pool low do not boot: 5 in a row",
        "  trouble: the new code was refused: ImportError: no",
        "  Redis redis://localhost:6379/0, namespace resque",
        "  clerk 4100 reaches Redis, scheduler: promote",
        "high                4  1:8          4     3     1        0  120",
        "low (broken)        2  2            2     0     2        0  -",
        "  scaled 3.0s ago  high 2 to 4: 120 waiting, all busy",
    ):
        assert line in lines
    assert screen.index("120 waiting, all busy") < screen.index("older")
    assert [" ".join(line.split()) for line in lines[-2:]] == [
        "4101 high run 1.2 0 0 0.0 0.50 12M 2h00m 1 Report",
        "4102 low idle 0.0 0 0 0.0 - - 1m00s 2",
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"trouble": ["there is no clerk"]}, "there is no clerk"),
        ({"pools": [pool(idle=1)]}, "pool math has 1 of at least 2 workers"),
        ({"draining": True}, "it drains"),
        ({}, "it is not ready"),
    ],
)
def test_a_check_fails_with_what_keeps_a_master_from_being_ready(
    cli: Cli, begin: Begin, changes: dict[str, Any], problem: str
) -> None:
    begin(ready=False, **changes)

    result = cli("status", "--local", "--check")

    assert result.exit_code == ExitCode.FAILED
    assert f"error: master {os.getpid()}: {problem}\n" in result.stderr


def test_a_master_that_is_ready_passes_its_check(cli: Cli, begin: Begin) -> None:
    begin(paused=True)

    assert cli("status", "--local", "--check").exit_code == ExitCode.OK
    assert cli("status", "--check", "--live").exit_code == ExitCode.USAGE


def test_a_master_that_answers_is_alive_whatever_redis_and_workers_do(
    cli: Cli, begin: Begin
) -> None:
    begin(ready=False, trouble=["the clerk does not reach Redis"], workers=[])

    result = cli("status", "--live", "--redis", "redis://127.0.0.1:1/0")

    assert result.exit_code == ExitCode.OK
    assert result.stderr == ""


@contextmanager
def a_crowd(path: Path) -> Iterator[int]:
    """Fill the queue of those who wait for a master's ear; yield how many there are."""
    with ExitStack() as stack:
        for number in range(1000):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            try:
                client.connect(str(path))
            except BlockingIOError:
                yield number
                return
    raise AssertionError("there is room for everybody")


def test_a_master_that_hangs_is_not_alive_and_holds_nobody(
    cli: Cli, begin: Begin, runtime: Path
) -> None:
    master = begin()
    master.freeze()
    with a_crowd(master.path) as number:
        result = cli("status", "--live")
        assert number > 0
    master.hear()

    assert result.exit_code == ExitCode.FAILED
    assert f"the master at {master.path} does not answer" in result.stderr
    with socket.socket(socket.AF_UNIX) as crashed:  # it leaves a socket that nobody holds
        crashed.bind(str(runtime / "forkresque" / "1.sock"))
    wait_until(lambda: cli("status", "--live").exit_code == ExitCode.OK, "it to hear again")
    assert len(told(cli("status", "--local", "--json"))["masters"]) == 1


def test_no_master_is_not_alive(cli: Cli, runtime: Path) -> None:
    nobody, elsewhere = cli("status", "--live"), str(runtime / "gone.sock")

    assert nobody.exit_code == ExitCode.FAILED
    assert "no master runs here" in nobody.stderr
    assert "no master answers at" in cli("scale", "1", "--control", elsewhere).stderr

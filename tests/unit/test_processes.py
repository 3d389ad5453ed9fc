"""Which process is which."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from forkresque.processes import describe, is_alive, is_described_alive, is_ours_to_judge, start_of
from tests.support.waiting import wait_until


@contextmanager
def python(script: str) -> Iterator[subprocess.Popen[str]]:
    """Run a script that ends when its standard input does; it has begun when it prints a line."""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


WAIT = "print(flush=True); input()"


def begun(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    assert process.stdout.readline() == "\n"
    return process.pid


def test_this_process_has_a_start_that_stays() -> None:
    start = start_of(os.getpid())

    assert start is not None
    assert start > 0
    assert start_of(os.getpid()) == start


def test_a_start_is_the_kernels_in_clock_ticks_since_boot() -> None:
    start = start_of(os.getpid())

    assert start is not None
    seconds = psutil.boot_time() + start / os.sysconf("SC_CLK_TCK")
    assert seconds == pytest.approx(psutil.Process().create_time(), abs=1.5)


def test_a_younger_process_has_a_later_start() -> None:
    with python(WAIT) as process:
        ours, theirs = start_of(os.getpid()), start_of(begun(process))

    assert ours is not None
    assert theirs is not None
    assert ours < theirs


def test_a_process_that_has_finished_has_no_start() -> None:
    with python("") as process:
        process.wait()

        assert start_of(process.pid) is None


def test_a_zombie_counts_as_gone() -> None:
    with python("") as process:
        zombie = psutil.Process(process.pid)
        wait_until(lambda: zombie.status() == psutil.STATUS_ZOMBIE, "the child to end")

        assert start_of(process.pid) is None
        assert not is_alive(process.pid, 0)


def test_no_process_has_an_impossible_pid() -> None:
    assert start_of(2**22 + 1) is None
    assert start_of(0) is None


@pytest.mark.parametrize(
    "name", [b"a) Z 1 (b", b"(((", b") R 1", b"a\nb", b"\xc3\xa9", b"\xff\xc3"]
)
def test_a_name_that_a_process_gives_itself_does_not_matter(name: bytes) -> None:
    script = f"open('/proc/self/comm', 'wb').write({name!r}); {WAIT}"
    with python(script) as process:
        pid = begun(process)

        start = start_of(pid)

        assert start is not None
        assert is_alive(pid, start)


def test_a_pid_used_again_is_another_process() -> None:
    start = start_of(os.getpid())

    assert start is not None
    assert is_alive(os.getpid(), start)
    assert not is_alive(os.getpid(), start - 1)


def test_a_described_process_is_alive_until_it_ends() -> None:
    with python(WAIT) as process:
        described = describe(begun(process))
        assert is_described_alive(described)
        assert is_ours_to_judge(described)

        process.kill()
        process.wait()

        assert not is_described_alive(described)
        assert is_ours_to_judge(described)


def test_a_process_described_after_its_end_was_never_alive() -> None:
    with python("") as process:
        process.wait()

        assert not is_described_alive(describe(process.pid))


def test_processes_of_other_boots_and_namespaces_are_not_ours_to_judge() -> None:
    boot, namespace, pid, start = describe(os.getpid()).split(" ")

    assert is_ours_to_judge(f"{boot} {namespace} 1 1")
    assert not is_ours_to_judge(f"x{boot} {namespace} {pid} {start}")
    assert not is_ours_to_judge(f"{boot} {namespace}0 {pid} {start}")
    assert not is_ours_to_judge(f"{namespace} {boot} {pid} {start}")


@pytest.mark.parametrize("described", ["", "x", "a b"])
def test_what_somebody_else_wrote_is_not_ours_to_judge(described: str) -> None:
    assert not is_ours_to_judge(described)

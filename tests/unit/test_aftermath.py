"""What a job has changed in its process is restored, or told."""

import gc
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import pytest

from forkresque.aftermath import Aftermath

LONG_NS = 10**9


def boom(*_args: object) -> NoReturn:
    raise ValueError("from a handler that a job has left")


@pytest.fixture
def aftermath() -> Iterator[Aftermath]:
    """Return an aftermath of this process, in which a job has begun."""
    with closing(Aftermath()) as made:
        made.begin(None)
        yield made


def after_a_while(aftermath: Aftermath) -> str:
    """Clear up as after a job that took long."""
    aftermath._began_ns -= LONG_NS
    return aftermath.clear()


def same(fact: Callable[[], object], change: Callable[[], object], clear: Callable[[], str]) -> str:
    """Fail unless clearing undoes a change; return the faults."""
    before = fact()
    change()
    assert fact() != before
    fault = clear()
    assert fact() == before
    return fault


def test_a_job_that_changes_nothing_leaves_a_fit_process(aftermath: Aftermath) -> None:
    assert aftermath.clear() == ""
    assert after_a_while(aftermath) == ""


def test_a_handler_is_put_back(aftermath: Aftermath) -> None:
    fault = same(
        lambda: signal.getsignal(signal.SIGUSR1),
        lambda: signal.signal(signal.SIGUSR1, boom),
        aftermath.clear,
    )
    assert fault == ""


def test_a_handler_that_c_code_may_have_had_before_is_a_fault(aftermath: Aftermath) -> None:
    signum = signal.SIGRTMIN + 2
    fault = same(
        lambda: signal.getsignal(signum), lambda: signal.signal(signum, boom), aftermath.clear
    )
    assert str(int(signum)) in fault


def test_the_mask_is_put_back_and_what_was_held_up_is_heard(aftermath: Aftermath) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda signum, _frame: heard.append(signum))
    try:
        with closing(Aftermath()) as aftermath:
            aftermath.begin(None)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
            signal.raise_signal(signal.SIGUSR2)
            assert heard == []

            assert aftermath.clear() == ""
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert heard == [signal.SIGUSR2]


def test_timers_are_stopped(aftermath: Aftermath) -> None:
    for which in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(which, 1000)

    assert after_a_while(aftermath) == ""

    for which in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        assert signal.getitimer(which) == (0, 0)


def test_a_timer_that_ran_before_is_left_alone() -> None:
    signal.setitimer(signal.ITIMER_REAL, 1000)
    try:
        with closing(Aftermath()) as aftermath:
            aftermath.begin(None)
            aftermath.clear()
            assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_a_signal_that_a_job_has_held_up_does_not_end_us(aftermath: Aftermath) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    signal.raise_signal(signal.SIGALRM)

    assert aftermath.clear() == ""
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_a_handler_may_raise_while_we_clear_up() -> None:
    before = signal.signal(signal.SIGUSR2, boom)
    try:
        with closing(Aftermath()) as aftermath:
            aftermath.begin(None)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
            signal.raise_signal(signal.SIGUSR2)

            assert aftermath.clear() == ""
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_the_umask_is_put_back(aftermath: Aftermath) -> None:
    def umask() -> int:
        found = os.umask(0)
        os.umask(found)
        return found

    assert same(umask, lambda: os.umask(0o123), aftermath.clear) == ""


def test_the_directory_is_put_back(aftermath: Aftermath, tmp_path: Path) -> None:
    assert same(Path.cwd, lambda: os.chdir(tmp_path), aftermath.clear) == ""


def test_a_directory_that_is_gone_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    with closing(Aftermath()) as aftermath:
        aftermath.begin(None)
        os.chdir("/")
        (tmp_path / "gone").rmdir()

        assert "directory" in aftermath.clear()


def test_the_interpreter_is_put_back(aftermath: Aftermath) -> None:
    assert same(sys.getrecursionlimit, lambda: sys.setrecursionlimit(5000), aftermath.clear) == ""
    assert same(sys.getprofile, lambda: sys.setprofile(lambda *_: None), aftermath.clear) == ""
    assert same(gc.isenabled, gc.disable, aftermath.clear) == ""


def test_a_name_of_the_standard_library_is_put_back_and_a_fault(aftermath: Aftermath) -> None:
    sleep, loads = time.sleep, json.loads
    vars(time).update(sleep=boom)
    vars(json).update(loads=boom)

    fault = after_a_while(aftermath)

    assert "sleep" in fault
    assert "loads" in fault
    assert (time.sleep, json.loads) == (sleep, loads)


def test_a_name_that_was_handed_in_is_put_back_and_a_fault() -> None:
    class Client:
        def send(self) -> None: ...

    original, name = Client.send, "send"
    with closing(Aftermath([(Client, name)])) as aftermath:
        aftermath.begin(None)
        setattr(Client, name, boom)

        assert after_a_while(aftermath) == "it has patched send"
    assert Client.send is original


def test_a_clock_that_was_patched_does_not_mislead(aftermath: Aftermath) -> None:
    original = time.monotonic_ns
    time.monotonic_ns = lambda: 0

    assert "monotonic_ns" in after_a_while(aftermath)
    assert time.monotonic_ns is original


@pytest.mark.parametrize(("daemon", "faults"), [(True, 0), (False, 1)])
def test_a_thread_that_is_no_daemon_is_a_fault_once(
    aftermath: Aftermath, *, daemon: bool, faults: int
) -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="left-over", daemon=daemon)
    thread.start()
    try:
        found = [after_a_while(aftermath), after_a_while(aftermath)]
    finally:
        over.set()
        thread.join()

    assert found == ["it has left the thread left-over"] * faults + [""] * (2 - faults)


def test_a_closed_descriptor_is_a_fault_also_when_its_number_is_used_again() -> None:
    ours, theirs = socket.socketpair()
    with theirs, closing(Aftermath(footing=[ours.fileno()])) as aftermath:
        aftermath.begin(None)
        assert aftermath.clear() == ""
        number = ours.detach()
        os.dup2(theirs.fileno(), number)  # closes it, and takes its number

        assert aftermath.clear() == "it has closed our descriptors"
        os.close(number)
        assert aftermath.clear() == "it has closed our descriptors"


def test_a_connection_that_is_closed_by_a_job_is_a_fault_and_one_that_changes_between_is_not() -> (
    None
):
    first, second = socket.socketpair()
    with first, second, closing(Aftermath()) as aftermath:
        aftermath.begin(first)
        assert aftermath.clear() == ""
        assert aftermath.holds_connection
        first.close()
        aftermath.begin(second)
        assert aftermath.clear() == ""
        second.close()
        assert aftermath.clear() == "it has closed our descriptors"
        assert not aftermath.holds_connection


def test_in_another_thread_nothing_is_touched() -> None:
    found: list[str] = []
    before = os.umask(0o22)

    def live() -> None:
        with closing(Aftermath()) as aftermath:
            aftermath.begin(None)
            os.umask(0o77)
            found.append(aftermath.clear())

    thread = threading.Thread(target=live)
    thread.start()
    thread.join()
    assert found == [""]
    assert os.umask(before) == 0o77

"""Signals as bytes in a pipe. Each script runs in a Python of its own: the runner hears nothing."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PREAMBLE = """
import contextlib, os, select, signal, threading, time
from forkresque.supervisor.wakeups import Wakeups

wakeups = Wakeups((signal.SIGTERM, signal.SIGINT, signal.SIGUSR1))
wakeups.install()
me = os.getpid()

def readable(timeout=0):
    return bool(select.select([wakeups.fileno()], [], [], timeout)[0])

def names():
    return sorted(signal.Signals(number).name for number in wakeups.take())
"""


def output_of(script: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PREAMBLE + script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_each_signal_that_came_is_told_once_and_forgotten() -> None:
    script = """
print(readable(), names())
os.kill(me, signal.SIGTERM)
os.kill(me, signal.SIGUSR1)
print(readable(), names())
print(readable(), names())
"""
    assert output_of(script) == [
        "False []",
        "True ['SIGTERM', 'SIGUSR1']",
        "False []",
    ]


def test_500_terms_are_one() -> None:
    script = """
for _ in range(500):
    os.kill(me, signal.SIGTERM)
print(readable(), names())
print(readable(), names())
"""
    assert output_of(script) == ["True ['SIGTERM']", "False []"]


def test_a_full_pipe_loses_no_signal() -> None:
    script = """
for _ in range(100_000):
    with contextlib.suppress(BlockingIOError):
        os.write(wakeups._writer, b'!')
os.kill(me, signal.SIGTERM)
os.kill(me, signal.SIGINT)
print(readable(), names())
print(readable(), names())
"""
    assert output_of(script) == ["True ['SIGINT', 'SIGTERM']", "False []"]


def test_a_signal_ends_a_wait() -> None:
    script = """
threading.Timer(0.05, os.kill, (me, signal.SIGUSR1)).start()
began = time.monotonic()
print(readable(10), names())
print(time.monotonic() - began < 5)
"""
    assert output_of(script) == ["True ['SIGUSR1']", "True"]


def test_no_signal_of_a_storm_is_lost_between_two_looks() -> None:
    script = """
def storm():
    for _ in range(300):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            os.kill(me, number)

thread = threading.Thread(target=storm)
thread.start()
heard = set()
while thread.is_alive() or readable():
    if readable(1):
        told = wakeups.take()
        heard |= told
thread.join()
# Whatever came last is either told already or will be told without another signal.
heard |= wakeups.take()
print(sorted(signal.Signals(number).name for number in heard))
"""
    assert output_of(script) == ["['SIGINT', 'SIGTERM', 'SIGUSR1']"]


def test_news_are_known_without_asking_the_kernel() -> None:
    script = """
print(wakeups.has_news)
os.kill(me, signal.SIGTERM)
print(wakeups.has_news, names(), wakeups.has_news)
"""
    assert output_of(script) == ["False", "True ['SIGTERM'] False"]


def test_a_child_lets_go_of_its_parents_wakeups() -> None:
    script = """
reader = wakeups.fileno()
wakeups.close_in_child()
print(signal.set_wakeup_fd(-1))
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
try:
    os.fstat(reader)
except OSError as error:
    print(error.strerror)
"""
    assert output_of(script) == ["-1", "True", "Bad file descriptor"]


def test_a_program_that_a_job_starts_does_not_get_the_pipe() -> None:
    assert output_of("print(os.get_inheritable(wakeups.fileno()))") == ["False"]


def test_who_is_to_hear_as_well_is_called_for_each_signal() -> None:
    script = """
heard = []
wakeups.install(lambda: heard.append(1))
os.kill(me, signal.SIGTERM)
os.kill(me, signal.SIGUSR1)
print(names(), len(heard))
"""
    assert output_of(script) == ["['SIGTERM', 'SIGUSR1'] 2"]

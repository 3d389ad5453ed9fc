"""The jobs that tests perform. They tell a second Redis, the ledger, what they did.

The ledger is at LEDGER_URL. It is not the server under test, so it knows the truth even
when that one is gone.
"""

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import time
from typing import NoReturn

from redis import Redis

from forkresque import Forkresque

GATE_TIMEOUT = 30.0
LONGEST_BREATHING = 180.0

app = Forkresque()
_ledgers: dict[int, Redis] = {}


def ledger() -> Redis:
    """Return this process's own client; one inherited from before the fork is left alone."""
    pid = os.getpid()
    if pid not in _ledgers:
        _ledgers[pid] = Redis.from_url(os.environ["LEDGER_URL"], socket_timeout=5.0)
    return _ledgers[pid]


@app.job("note", queue="math")
def note(mark: str) -> None:
    """Tell that it ran."""
    ledger().rpush("runs", mark)


@app.job("slow", queue="math")
def slow(mark: str, seconds: float) -> None:
    """Tell that it began, take its time, and tell that it ran."""
    ledger().rpush("begun", mark)
    time.sleep(seconds)
    ledger().rpush("runs", mark)


@app.job("gate", queue="math")
def gate(name: str) -> None:
    """Tell `started:<name>` its pid, wait for `release:<name>`, and tell that it ran."""
    ledger().rpush(f"started:{name}", os.getpid())
    deadline = time.monotonic() + GATE_TIMEOUT
    while ledger().blpop([f"release:{name}"], timeout=0.5) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody released {name} in {GATE_TIMEOUT:.0f} s")
    ledger().rpush("runs", name)


@app.job("once_gate", queue="math", on_crash="fail")
def once_gate(name: str) -> None:
    """Be a gate that must not be begun twice."""
    gate(name)


@app.job("breathe", queue="math")
def breathe(name: str) -> None:
    """Tell `breaths:<name>` every 20 ms which run this is, on which host, and when.

    When is in nanoseconds of the monotonic clock. It ends on `release:<name>`, which stays and
    so ends every run, or on `release:<name>:<host>`, and tells that it ran.
    """
    run, host = secrets.token_hex(4), socket.gethostname()
    deadline = time.monotonic() + LONGEST_BREATHING
    while True:
        with ledger().pipeline(transaction=False) as pipe:
            pipe.rpush(f"breaths:{name}", f"{run} {host} {time.monotonic_ns()}")
            pipe.exists(f"release:{name}", f"release:{name}:{host}")
            if pipe.execute()[1]:
                break
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody released {name} in {LONGEST_BREATHING:.0f} s")
        time.sleep(0.02)
    ledger().rpush("runs", name)


@app.job("boom", queue="math")
def boom(message: str) -> None:
    """Fail."""
    raise RuntimeError(message)


@app.job("die", queue="math")
def die(mark: str) -> None:
    """Tell that it ran, and be killed."""
    ledger().rpush("runs", mark)
    os.kill(os.getpid(), signal.SIGKILL)


@app.job("killed_by", queue="math")
def killed_by(signum: int, mark: str) -> None:
    """Tell that it ran, and end by a signal."""
    ledger().rpush("runs", mark)
    os.kill(os.getpid(), signum)


@app.job("exit", queue="math")
def exit_(code: int) -> None:
    """Leave as a program would."""
    raise SystemExit(code)


@app.job("hard_exit", queue="math")
def hard_exit(code: int) -> None:
    """Leave without a word to anyone."""
    os._exit(code)


@app.job("abort", queue="math")
def abort() -> None:
    """Leave as a C library does that finds its own state broken."""
    os.abort()


@app.job("segfault", queue="math")
def segfault() -> None:
    """Read at address 0."""
    ctypes.string_at(0)


@app.job("stubborn", queue="math")
def stubborn(name: str) -> None:
    """Tell `started:<name>`, and go on for ever whatever is raised."""
    ledger().rpush(f"started:{name}", os.getpid())
    _swallow_everything()


@app.job("limited", queue="math", timeout=1)
def limited(name: str) -> None:
    """Tell `started:<name>`, and take longer than allowed."""
    ledger().rpush(f"started:{name}", os.getpid())
    time.sleep(GATE_TIMEOUT)


@app.job("limited_stubborn", queue="math", timeout=1)
def limited_stubborn(name: str) -> None:
    """Tell `started:<name>`, and take no notice of its limit."""
    ledger().rpush(f"started:{name}", os.getpid())
    _swallow_everything()


@app.job("limited_deaf", queue="math", timeout=1)
def limited_deaf(name: str) -> None:
    """Tell `started:<name>`, ignore every signal there is, and take longer than allowed."""
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError):
            signal.signal(signum, signal.SIG_IGN)
    ledger().rpush(f"started:{name}", os.getpid())
    _swallow_everything()


@app.job("masked", queue="math")
def masked(name: str) -> None:
    """Tell `started:<name>`, let no signal in, and go on for ever."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    ledger().rpush(f"started:{name}", os.getpid())
    _swallow_everything()


@app.job("locked_up", queue="math")
def locked_up(name: str) -> None:
    """Tell `started:<name>`, and wait in C for ever, with the GIL, whatever signal comes."""
    libc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
    ledger().rpush(f"started:{name}", os.getpid())
    while True:
        libc.pthread_mutex_lock(mutex)


@app.job("nurse", queue="math")
def nurse(name: str) -> None:
    """Start a process that would outlive us, tell its pid, and wait like a gate."""
    with subprocess.Popen(["sleep", "1000"]) as sleeper:
        ledger().rpush("sleepers", sleeper.pid)
        gate(name)
        sleeper.kill()


@app.job("close_descriptors", queue="math")
def close_descriptors(mark: str) -> None:
    """Tell that it ran, and close all that is open, as a careless daemoniser does."""
    ledger().rpush("runs", mark)
    os.closerange(3, 4096)


def _swallow_everything() -> NoReturn:
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(0.05)


@app.job("stamp", queue="math")
def stamp(mark: str, sent_ns: int) -> None:
    """Tell how many nanoseconds after `sent_ns`, of the host's monotonic clock, it ran."""
    ledger().rpush("latencies", time.monotonic_ns() - sent_ns)
    ledger().rpush("runs", mark)


@app.job("node_sum", queue="math")
def node_sum(a: int, b: int) -> int:
    """Tell a sum. Node's worker has a job of this name, too."""
    total = a + b
    ledger().rpush("sums", total)
    return total

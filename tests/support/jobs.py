"""The jobs that tests perform. They tell a second Redis, the ledger, what they did.

The ledger is at LEDGER_URL. It is not the server under test, so it knows the truth even
when that one is gone.
"""

import contextlib
import ctypes
import os
import resource
import secrets
import signal
import socket
import subprocess
import time
from typing import NoReturn

from redis import Redis

from forkresque import Forkresque, JobLock

GATE_TIMEOUT = 30.0
LONGEST_BREATHING = 180.0
HOARD_LIMIT_BYTES = 256 * 1024 * 1024
BOMB_LIMIT = 40  # processes
NOBODY = 65534

MEGABYTE = b"x" * (1 << 20)

app = Forkresque()
_kept: list[bytes] = []
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


@app.job("timed", queue="math")
def timed(mark: str, seconds: float) -> None:
    """Tell when it begins and ends, as `<mark> <pid> <1 or -1>`, and that it ran."""
    ledger().rpush("spans", f"{mark} {os.getpid()} 1")
    time.sleep(seconds)
    with ledger().pipeline() as pipe:
        pipe.rpush("spans", f"{mark} {os.getpid()} -1")
        pipe.rpush("runs", mark)
        pipe.execute()


@app.job("gate", queue="math")
def gate(name: str) -> None:
    """Tell `started:<name>` its pid, wait for `release:<name>`, and tell that it ran."""
    ledger().rpush(f"started:{name}", os.getpid())
    deadline = time.monotonic() + GATE_TIMEOUT
    while ledger().blpop([f"release:{name}"], timeout=0.5) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody released {name} in {GATE_TIMEOUT:.0f} s")
    ledger().rpush("runs", name)


@app.job("patient_gate", queue="math", timeout=GATE_TIMEOUT)
def patient_gate(name: str) -> None:
    """Be a gate with a limit of its own."""
    gate(name)


@app.job("once_gate", queue="math", on_crash="fail")
def once_gate(name: str) -> None:
    """Be a gate that must not be begun twice."""
    gate(name)


@app.job("locked_gate", queue="math", plugins=[JobLock(lock_timeout=600)])
def locked_gate(name: str) -> None:
    """Be a gate with a lock."""
    gate(name)


@app.job("breathe", queue="math")
def breathe(name: str) -> None:
    """Tell `breaths:<name>` every 20 ms which run this is, on which host, and when.

    When is in nanoseconds of the monotonic clock. It ends on `release:<name>`, which stays and
    so ends every run, or on `release:<name>:<host>`, and tells that it ran.
    """
    _breathe(name, contextlib.nullcontext())


@app.job("breathe_on", queue="math")
def breathe_on(name: str) -> None:
    """Do the same, whatever is raised."""
    _breathe(name, contextlib.suppress(BaseException))


def _breathe(name: str, calm: contextlib.AbstractContextManager[None]) -> None:
    run, host = secrets.token_hex(4), socket.gethostname()
    deadline = time.monotonic() + LONGEST_BREATHING
    released = False
    while not released and time.monotonic() < deadline:
        with calm, ledger().pipeline(transaction=False) as pipe:
            pipe.rpush(f"breaths:{name}", f"{run} {host} {time.monotonic_ns()}")
            pipe.exists(f"release:{name}", f"release:{name}:{host}")
            released = bool(pipe.execute()[1])
            time.sleep(0.02)
    if not released:
        raise TimeoutError(f"nobody released {name} in {LONGEST_BREATHING:.0f} s")
    ledger().rpush("runs", name)


@app.job("boom", queue="math")
def boom(message: str) -> None:
    """Fail."""
    raise RuntimeError(message)


@app.job("die", queue="math")
def die(mark: str) -> None:
    """Tell that it ran, and when it dies, in nanoseconds of the monotonic clock; be killed."""
    ledger().rpush("runs", mark)
    ledger().rpush("deaths", time.monotonic_ns())
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


@app.job("spin", queue="math")
def spin(name: str) -> None:
    """Be a gate that keeps the interpreter busy while it waits."""
    ledger().rpush(f"started:{name}", os.getpid())
    deadline = time.monotonic() + GATE_TIMEOUT
    while ledger().lpop(f"release:{name}") is None:
        look_at = time.monotonic() + 0.1
        while time.monotonic() < look_at:
            pass
        if look_at > deadline:
            raise TimeoutError(f"nobody released {name} in {GATE_TIMEOUT:.0f} s")
    ledger().rpush("runs", name)


@app.job("hold_gil", queue="math")
def hold_gil(name: str, seconds: float) -> None:
    """Tell `started:<name>`, wait in C with the GIL, whatever signal comes; tell that it ran."""
    libc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    ledger().rpush(f"started:{name}", os.getpid())
    second, rest = divmod(time.time() + seconds, 1)
    libc.pthread_mutex_timedlock(mutex, (ctypes.c_long * 2)(int(second), int(rest * 1e9)))
    ledger().rpush("runs", name)


@app.job("fated", queue="math")
def fated(mark: str) -> None:
    """Tell that it ran, and be killed as often as `fate:<mark>` says."""
    ledger().rpush("runs", mark)
    if ledger().decr(f"fate:{mark}") >= 0:
        os.kill(os.getpid(), signal.SIGKILL)


@app.job("parricide", queue="math")
def parricide(mark: str) -> None:
    """Tell that it ran, kill the master, and be killed."""
    ledger().rpush("runs", mark)
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


@app.job("hoard", queue="math")
def hoard(mark: str) -> None:
    """Tell that it ran, and touch more memory than a limit allows; C code would crash here."""
    ledger().rpush("runs", mark)
    resource.setrlimit(resource.RLIMIT_AS, (HOARD_LIMIT_BYTES, HOARD_LIMIT_BYTES))
    hoarded = []
    try:
        while True:
            hoarded.append(bytearray(HOARD_LIMIT_BYTES // 64))
    except MemoryError:
        os.abort()


@app.job("keep", queue="math")
def keep(megabytes: int) -> None:
    """Tell its pid, and keep so much memory for good."""
    _kept.append(MEGABYTE * megabytes)
    ledger().rpush("kept", os.getpid())


@app.job("borrow", queue="math")
def borrow(megabytes: int) -> None:
    """Tell its pid, and use so much memory for a moment."""
    ledger().rpush("borrowed", os.getpid(), len(MEGABYTE * megabytes))


@app.job("swell", queue="math", on_crash="fail")
def swell(name: str, at_once: int, slowly: int, pause: float) -> None:
    """Take megabytes: some at once, tell `started:<name>`, others one by one; be a gate then."""
    held = [MEGABYTE * at_once]
    ledger().rpush(f"started:{name}", os.getpid())
    for _ in range(slowly):
        time.sleep(pause)
        held.append(b"x" * len(MEGABYTE))
    gate(name)


@app.job("alarmed", queue="math")
def alarmed(mark: str) -> None:
    """Handle signals and a timer of its own, tell what it heard, and clear nothing away."""
    _be_alarmed(mark)
    ledger().rpush("runs", mark)


@app.job("alarmed_limited", queue="math", timeout=1)
def alarmed_limited(mark: str) -> None:
    """Do the same, and take longer than allowed, while the timer goes on."""
    _be_alarmed(mark)
    ledger().rpush(f"started:{mark}", os.getpid())
    deadline = time.monotonic() + GATE_TIMEOUT
    while time.monotonic() < deadline:
        time.sleep(0.05)


def _be_alarmed(mark: str) -> None:
    heard: set[int] = set()
    own = (signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2)
    for signum in own:
        signal.signal(signum, lambda signum, _frame: heard.add(signum))
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR2)
    deadline = time.monotonic() + GATE_TIMEOUT
    while heard < set(own) and time.monotonic() < deadline:
        time.sleep(0.01)
    ledger().rpush(f"heard:{mark}", *sorted(heard))


@app.job("bomb", queue="math")
def bomb(mark: str) -> None:
    """Tell that it ran, fork until a limit forbids it, tell how often, and be killed.

    Root knows no such limit, so we become nobody first.
    """
    ledger().rpush("runs", mark)
    if os.getuid() == 0:
        os.setuid(NOBODY)
    resource.setrlimit(resource.RLIMIT_NPROC, (BOMB_LIMIT, BOMB_LIMIT))
    forks = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            if os.fork() == 0:
                signal.pause()
            forks += 1
    ledger().rpush("forks", forks)
    os.kill(os.getpid(), signal.SIGKILL)


@app.job("nurse", queue="math")
def nurse(name: str) -> None:
    """Start a process that would outlive us, tell its pid, and wait like a gate."""
    with subprocess.Popen(["sleep", "1000"]) as sleeper:
        ledger().rpush("sleepers", sleeper.pid)
        gate(name)
        sleeper.kill()


@app.job("daemonise", queue="math")
def daemonise(name: str) -> None:
    """Start a process in a session of its own that no parent waits for, tell its pid, be a gate."""
    script = "setsid sleep 1000 >/dev/null 2>&1 & echo $!"
    told = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, check=True)
    ledger().rpush("daemons", int(told.stdout))
    gate(name)


@app.job("litter", queue="math")
def litter(mark: str) -> None:
    """Leave two processes behind: one that ends soon, and one in a session of its own."""
    script = "sleep 0.05 >/dev/null 2>&1 & setsid sleep 1000 >/dev/null 2>&1 &"
    subprocess.run(["sh", "-c", script], check=True)
    ledger().rpush("runs", mark)


@app.job("close_descriptors", queue="math")
def close_descriptors(mark: str) -> None:
    """Tell that it ran, and close all that is open, as a careless daemoniser does."""
    ledger().rpush("runs", mark)
    os.closerange(3, 4096)


@app.job("leak_descriptors", queue="math")
def leak_descriptors(mark: str) -> None:
    """Tell that it ran, and leave two of three descriptors open that it may have."""
    ledger().rpush("runs", mark)
    for _ in range(resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 2 // 3):
        os.open(os.devnull, os.O_RDONLY)


@app.job("print_much", queue="math")
def print_much(mark: str, megabytes: int) -> None:
    """Tell `started:<mark>`, print more than any pipe holds, and tell that it ran."""
    ledger().rpush(f"started:{mark}", os.getpid())
    for _ in range(megabytes):
        print("x" * 999_999)
    ledger().rpush("runs", mark)


@app.job("crunch", queue="math")
def crunch(name: str) -> None:
    """Tell `started:<name>`, and compute in C for minutes, with the GIL."""
    ledger().rpush(f"started:{name}", os.getpid())
    sum(range(10**11))


@app.job("brink", queue="math", timeout=0.02)
def brink(mark: str, seconds: float) -> None:
    """Take about as long as it may; tell that it ran."""
    time.sleep(seconds)
    ledger().rpush("runs", mark)


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

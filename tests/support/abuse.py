"""Jobs that do to their process whatever a job can do, and one that looks at what is left.

`CASES` says of each how it has to end: `done`, `failed`, `crash` (the worker dies of it, three
times, and then it is failed), `cut` (the master has to end it) or `gone` (it has removed
itself from Redis, so nobody can count it).
"""

import asyncio
import atexit
import concurrent.futures
import contextlib
import ctypes
import decimal
import faulthandler
import gc
import io
import json
import locale
import logging
import multiprocessing
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns  # jobs patch the module
from typing import Any, NoReturn

import redis

from forkresque import Forkresque
from forkresque.protocol.connection import Link
from tests.support.jobs import ledger

app = Forkresque()
QUEUE = "abuse"
LONG_NS = 1_000_000  # what is left by a job of this length is looked for at its end


@dataclass(frozen=True)
class Case:
    """What a job is about, and how it has to end."""

    group: str
    ends: str
    exception: str = ""


CASES: dict[str, Case] = {}
KEPT: list[object] = []


def case(
    group: str, ends: str = "done", exception: str = "", timeout: float | None = None
) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Register a function as a job of the catalogue, under its own name."""

    def register(function: Callable[[], Any]) -> Callable[[], Any]:
        name = function.__name__
        CASES[name] = Case(group, ends, exception)

        def abuse() -> Any:
            until = monotonic_ns() + LONG_NS
            ledger().rpush("ran", name)
            while monotonic_ns() < until:
                pass
            return function()

        app.job(name, queue=QUEUE, timeout=timeout)(abuse)
        return function

    return register


# -- what is left ------------------------------------------------------------------------------


@app.job("look", queue=QUEUE)
def look(mark: str) -> None:
    """Tell the ledger in which state this process is."""
    ledger().rpush("looks", json.dumps({"mark": mark, "pid": os.getpid(), "state": state()}))


def state() -> dict[str, Any]:
    """Return what must be the same for every job."""
    status = Path("/proc/self/status").read_text().splitlines()
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    umask = os.umask(0)
    os.umask(umask)
    print("look", end="", flush=True)
    return {
        "signals": [line for line in status if line.startswith(("SigB", "SigI", "SigC"))],
        "handlers": [str(signal.getsignal(n)).split(" at ")[0] for n in range(1, 32)],
        "wakeup": wakeup >= 0,
        "timers": [signal.getitimer(which) for which in range(3)],
        "umask": umask,
        "directory": str(Path.cwd()),
        "interpreter": [
            sys.getrecursionlimit(),
            str(sys.gettrace()),
            str(sys.getprofile()),
            gc.isenabled(),
        ],
        "threads": [
            thread.name
            for thread in threading.enumerate()
            if not thread.daemon and not thread.name.startswith("asyncio_")
        ],
        "childless": _childless(),
        "limits": [list(resource.getrlimit(which)) for which in range(10)],
        "standing": [os.geteuid(), os.getegid(), os.nice(0), os.getpgrp() == os.getpid()],
        "files": [os.fstat(number).st_ino for number in range(3)],
        "streams": [sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__],
        "crowded": len(os.listdir("/proc/self/fd")) > 100,  # noqa: PTH208 - only their number
        "names": [
            each.__qualname__
            for each in (
                time.time,
                time.monotonic,
                time.sleep,
                json.loads,
                socket.socket,
                redis.connection.UnixDomainSocketConnection.send_packed_command,
            )
        ],
    }


def _childless() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


# -- raises ------------------------------------------------------------------------------------


class Nasty(Exception):
    """An exception whose methods are made by the test."""


def nasty(**methods: Any) -> Exception:
    """Return an exception of a class of its own, with these methods."""
    made: Exception = type("Nasty", (Exception,), methods)("text")
    return made


def fails(*_args: object) -> NoReturn:
    """Raise, whatever for it is called."""
    raise ValueError("no text for you")


def leaves(*_args: object) -> NoReturn:
    """Raise what is no Exception."""
    raise SystemExit("from within")


def grows(*_args: object) -> str:
    """Call itself without an end."""
    return grows() + "x"


class _Meta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise ValueError("no name for you")


class Nameless(Exception, metaclass=_Meta):
    """An exception whose class does not tell its name."""


RAISED: dict[str, Callable[[], BaseException]] = {
    "str_fails": lambda: nasty(__str__=fails),
    "repr_fails": lambda: nasty(__repr__=fails),
    "str_and_repr_fail": lambda: nasty(__str__=fails, __repr__=fails),
    "str_leaves": lambda: nasty(__str__=leaves, __repr__=leaves),
    "str_is_no_string": lambda: nasty(__str__=lambda _self: 7),
    "str_is_empty": lambda: nasty(__str__=lambda _self: "", __repr__=lambda _self: ""),
    "str_without_end": lambda: nasty(__str__=grows),
    "class_fails": lambda: nasty(__class__=property(fails)),
    "class_lies": lambda: nasty(__class__=property(lambda _self: int)),
    "getattribute_fails": lambda: nasty(__getattribute__=fails),
    "eq_and_hash_fail": lambda: nasty(__eq__=fails, __hash__=fails),
    "nameless": Nameless,
    "unpicklable": lambda: nasty(__reduce__=fails, socket=socket.socket),
    "message_of_50_mb": lambda: RuntimeError("x" * 50_000_000),
    "message_of_surrogates": lambda: RuntimeError("\ud800 \udfff \udc80"),
    "message_of_controls": lambda: RuntimeError("\0\x1b]8;;x\x07\r\n\u202e\ufeff"),
    "message_of_an_object": lambda: RuntimeError(nasty(__str__=fails, __repr__=fails)),
    "notes_that_are_none": lambda: nasty(__notes__=7),
    "memory_error": MemoryError,
    "recursion_error": RecursionError,
    "system_exit_0": lambda: SystemExit(0),
    "system_exit_text": lambda: SystemExit("text"),
    "keyboard_interrupt": KeyboardInterrupt,
    "generator_exit": GeneratorExit,
    "cancelled": asyncio.CancelledError,
    "stop_iteration": StopIteration,
    "stop_async_iteration": StopAsyncIteration,
    "base_exception": BaseException,
}


def _raiser(name: str, make: Callable[[], BaseException]) -> None:
    def raise_it() -> NoReturn:
        raise make()

    raise_it.__name__ = name
    case("raises", "failed")(raise_it)


for _name, _make in RAISED.items():
    _raiser(_name, _make)


@case("raises", "failed", "KeyError")
def cause_in_a_circle() -> NoReturn:
    first, second = KeyError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    first.__context__, second.__context__ = second, first
    raise first


@case("raises", "failed", "ExceptionGroup")
def group_100_deep() -> NoReturn:
    error: Exception = ValueError("innermost")
    for depth in range(100):
        error = ExceptionGroup(f"at {depth}", [error, KeyError(depth)])
    raise error


@case("raises", "failed", "RecursionError")
def really_recursive() -> None:
    grows()


@case("raises", "failed", "MemoryError")
def really_out_of_memory() -> None:
    KEPT.append(bytearray(2**62))


@case("raises", "failed", "UserWarning")
def warning_as_error() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.warn("now it is one", UserWarning, stacklevel=1)


@case("raises", "failed", "ValueError")
def kept_with_its_frames() -> None:
    try:
        fails()
    except ValueError as error:
        KEPT.append(error)
        raise


class _Dying:
    def __del__(self) -> None:
        raise ValueError("in __del__")


@case("raises")
def raise_in_del() -> None:
    _Dying()


@case("raises")
def raise_in_atexit() -> None:
    atexit.register(fails)


@case("raises")
def raise_in_a_thread() -> None:
    thread = threading.Thread(target=fails)
    thread.start()
    thread.join()


@case("raises", "failed", "RuntimeError")
async def coroutine_that_stops() -> None:
    raise StopIteration


@case("raises", "failed", "CancelledError")
async def coroutine_that_is_cancelled() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


# -- process -----------------------------------------------------------------------------------


@case("process", "crash")
def os_exit_0() -> None:
    os._exit(0)


@case("process", "crash")
def os_abort() -> None:
    os.abort()


@case("process", "crash")
def segfault() -> None:
    ctypes.string_at(0)


@case("process", "crash")
def sigkill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@case("process", "crash")
def sigkill_group() -> None:
    os.killpg(os.getpgrp(), signal.SIGKILL)


@case("process", "crash")
def become_another_program() -> None:
    os.execv("/bin/true", ["true"])


@case("process", "crash")
def become_a_daemon() -> None:
    if os.fork() != 0:
        os._exit(0)
    os.setsid()
    os._exit(0)


@case("process", "cut", "WorkerStuck")
def sigstop_self() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@case("process")
def sigterm_self() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@case("process")
def fork_and_both_return() -> None:
    os.fork()


@case("process", "failed", "ValueError")
def fork_and_both_raise() -> None:
    os.fork()
    fails()


@case("process")
def fork_and_exec() -> None:
    KEPT.append(subprocess.Popen(["sleep", "1000"]))


@case("process")
def zombie() -> None:
    if os.fork() == 0:
        os._exit(0)


@case("process")
def pool_left_running() -> None:
    pool = multiprocessing.get_context("fork").Pool(2)
    KEPT.append(pool)
    pool.map(abs, range(4))


@case("process", "failed", "PermissionError")
def set_session() -> None:
    os.setsid()


@case("process")
def other_directory() -> None:
    os.chdir("/")


@case("process")
def directory_that_is_gone() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)


@case("process")
def other_umask() -> None:
    os.umask(0o777)


@case("process")
def other_user() -> None:
    with contextlib.suppress(PermissionError):  # only root may
        os.setegid(65534)
        os.seteuid(65534)


@case("process")
def close_all_descriptors() -> None:
    os.closerange(3, 4096)


@case("process")
def close_all_and_open_others() -> None:
    os.closerange(3, 4096)
    KEPT.extend(os.open(os.devnull, os.O_RDWR) for _ in range(64))


@case("process")
def close_all_and_connect_anew() -> None:
    os.closerange(3, 4096)
    pairs = [socket.socketpair() for _ in range(16)]
    KEPT.extend(pairs)


@case("process")
def ten_thousand_files() -> None:
    with contextlib.suppress(OSError):
        KEPT.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(10_000))


@case("process")
def limit_of_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


@case("process")
def limit_of_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**40))


@case("process")
def limit_of_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


@case("process")
def be_nice() -> None:
    os.nice(5)


@app.job("kill_parent", queue=QUEUE)
def kill_parent() -> None:
    """End the master, from one of its own workers."""
    ledger().rpush("ran", "kill_parent")
    os.kill(os.getppid(), signal.SIGKILL)


# -- signals -----------------------------------------------------------------------------------


def _signal_case(prefix: str, signum: int, act: Callable[[int], object]) -> None:
    def touch() -> None:
        act(signum)

    touch.__name__ = f"{prefix}_{signum}"
    case("signals")(touch)


SOFT, DUMP = signal.SIGRTMIN + 1, signal.SIGRTMIN + 2
for _signum in (signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1, signal.SIGALRM, SOFT, DUMP):
    _signal_case("replace_the_handler_of", _signum, lambda n: signal.signal(n, fails))
    _signal_case("ignore", _signum, lambda n: signal.signal(n, signal.SIG_IGN))
    _signal_case("block", _signum, lambda n: signal.pthread_sigmask(signal.SIG_BLOCK, {n}))


@case("signals")
def block_everything() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


@case("signals")
def leave_an_alarm() -> None:
    signal.alarm(1)


@case("signals")
def leave_an_alarm_that_raises() -> None:
    signal.signal(signal.SIGALRM, fails)
    signal.setitimer(signal.ITIMER_REAL, 0.5)


@case("signals")
def alarm_held_up() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    os.kill(os.getpid(), signal.SIGALRM)


@case("signals", "failed", "ValueError")
def handler_that_raises() -> None:
    signal.signal(signal.SIGALRM, fails)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    threading.Event().wait(10)


@case("signals")
def leave_timers_of_cpu_time() -> None:
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.05)
    signal.setitimer(signal.ITIMER_PROF, 0.05)


@case("signals", "failed", "JobTimeout", timeout=0.3)
def wait_for_a_signal() -> None:
    signal.pause()


@case("signals")
def interrupt_main() -> None:
    signal.raise_signal(signal.SIGINT)


@case("signals")
def take_the_wakeup_descriptor() -> None:
    signal.set_wakeup_fd(-1)


@case("signals")
async def handlers_of_the_event_loop() -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, print)
    loop.add_signal_handler(signal.SIGUSR1, print)


# -- threads -----------------------------------------------------------------------------------


def _forever() -> None:
    threading.Event().wait()


@case("threads")
def thread_left() -> None:
    threading.Thread(target=_forever).start()


@case("threads")
def daemon_threads_left() -> None:
    for _ in range(50):
        threading.Thread(target=_forever, daemon=True).start()


@case("threads")
def executor_left() -> None:
    executor = concurrent.futures.ThreadPoolExecutor(4)
    KEPT.append(executor)
    executor.submit(_forever)


@case("threads")
async def thread_of_the_event_loop() -> None:
    await asyncio.to_thread(time.sleep, 0.01)


@case("threads")
def thread_that_interrupts_main() -> None:
    thread = threading.Thread(target=signal.raise_signal, args=(signal.SIGINT,))
    thread.start()
    thread.join()


@case("threads", "failed", "KeyError")
def exception_from_another_thread() -> None:
    main = threading.get_ident()

    def throw() -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(main), ctypes.py_object(KeyError))

    threading.Thread(target=throw).start()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        pass


@case("threads", "failed", "JobTimeout", timeout=0.3)
def deadlock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


@case("threads", "failed", "JobTimeout", timeout=0.3)
def deadlock_on_an_import() -> None:
    with tempfile.TemporaryDirectory() as directory:
        module = Path(directory) / "never_imported.py"
        module.write_text("import threading\nthreading.Event().wait()\n")
        sys.path.insert(0, directory)
        threading.Thread(target=__import__, args=("never_imported",)).start()
        __import__("never_imported")


@case("threads", "cut", "WorkerStuck")
def hold_the_interpreter() -> None:
    re.match(r"(a+)+$", "a" * 60 + "b")


# -- state -------------------------------------------------------------------------------------


@case("state")
def no_path() -> None:
    sys.path.clear()


@case("state")
def no_environment() -> None:
    os.environ.clear()


@case("state")
def other_locale() -> None:
    locale.setlocale(locale.LC_ALL, "C")


@case("state")
def other_decimals() -> None:
    decimal.getcontext().prec = 1


@case("state")
def known_chance() -> None:
    random.seed(1)


@case("state")
def low_recursion_limit() -> None:
    sys.setrecursionlimit(60)


@case("state")
def high_recursion_limit() -> None:
    sys.setrecursionlimit(10**6)


@case("state")
def tracer() -> None:
    sys.settrace(lambda *_args: None)


@case("state", "failed", "ValueError")
def tracer_that_raises() -> None:
    sys.settrace(fails)


@case("state")
def profiler() -> None:
    sys.setprofile(lambda *_args: None)


@case("state")
def no_collection() -> None:
    gc.disable()


@case("state")
def patched_time() -> None:
    time.time = time.monotonic = lambda: 0.0
    time.sleep = lambda _seconds: None


@case("state", "crash")
def patched_clock_that_fails() -> None:
    time.monotonic_ns = fails


@case("state")
def patched_json() -> None:
    vars(json).update(loads=fails, dumps=fails)


@case("state")
def patched_socket() -> None:
    socket.socket = fails  # type: ignore[assignment, misc]


@case("state")
def patched_redis() -> None:
    redis.connection.AbstractConnection.send_packed_command = fails  # type: ignore[method-assign]


@case("state")
def patched_redis_that_is_silent() -> None:
    redis.connection.UnixDomainSocketConnection.send_packed_command = (  # type: ignore[method-assign]
        lambda *_args, **_named: None
    )


@case("state")
def logging_shut_down() -> None:
    logging.shutdown()
    logging.disable()


@case("state")
def no_hooks() -> None:
    sys.excepthook = threading.excepthook = sys.unraisablehook = fails


@case("state")
def no_fault_handler() -> None:
    faulthandler.disable()


@case("state")
def thawed_memory() -> None:
    gc.unfreeze()
    gc.collect()


# -- output ------------------------------------------------------------------------------------


@app.job("flood", queue=QUEUE)
def flood(megabytes: int) -> None:
    """Write so much to standard output."""
    block = b"x" * 1023 + b"\n"
    for _ in range(megabytes * 1024):
        os.write(1, block)


@case("output")
def escapes() -> None:
    print("\x1b[2J\x1b]0;title\x07\x9b31m\u202e")


@case("output")
def invalid_utf8() -> None:
    sys.stdout.buffer.write(b"\xff\xfe\x80\n")
    sys.stdout.flush()


@case("output")
def unprintable() -> None:
    print("\ud800", flush=True)


@case("output")
def other_stdout() -> None:
    sys.stdout = sys.stderr = io.StringIO()


@case("output")
def no_stdout() -> None:
    sys.stdout = sys.stderr = None


@case("output")
def closed_stdout() -> None:
    sys.stdout.close()


@case("output")
def closed_descriptors_of_output() -> None:
    os.close(1)
    os.close(2)


@case("output")
def output_into_another_file() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


# -- Redis -------------------------------------------------------------------------------------


def _server() -> redis.Redis:
    return redis.Redis.from_url(os.environ["ABUSED_URL"])


def _links() -> list[Link]:
    return [found for found in gc.get_objects() if isinstance(found, Link)]


@case("redis", "gone")
def flush() -> None:
    _server().flushdb()


@case("redis", "gone")
def delete_the_slot() -> None:
    server = _server()
    for key in server.scan_iter("resque:fr:slot:*"):
        server.delete(key)


@case("redis")
def unregister_itself() -> None:
    _server().delete("resque:workers")


@case("redis")
def flush_the_scripts() -> None:
    _server().script_flush()


@case("redis")
def kill_all_connections() -> None:
    _server().client_kill_filter(skipme=True)


@case("redis")
def command_over_our_connection() -> None:
    for link in _links():
        with contextlib.suppress(Exception):
            link.command("PING")


@case("redis")
def subscribe_over_our_connection() -> None:
    for link in _links():
        if link.socket is not None:
            link.socket.sendall(b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nx\r\n")


@case("redis")
def close_our_connection() -> None:
    for link in _links():
        link.close()


@case("redis")
def close_the_descriptor_of_our_connection() -> None:
    for link in _links():
        if (number := link.fileno()) is not None:
            os.close(number)

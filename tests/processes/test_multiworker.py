"""MultiWorker: the supervisor in the hands of a program, and what it tells that program.

Each test drives a program of its own, which does what it reads and answers with what came of it.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest
from redis import Redis

from forkresque import ConfigError, ControlError, Forkresque, MultiWorker
from forkresque.errors import ExitCode
from tests.support import processes
from tests.support.processes import ROOT, kill, outlasting, title
from tests.support.servers import Server, dying_with_runner, free_port
from tests.support.site import KEYS, Site, is_gone
from tests.support.waiting import wait_until

PROGRAM = """
import json, os, signal, sys, threading
from forkresque import ConfigError, MultiWorker
from tests.support.jobs import app, ledger

def tell(name, *args):
    ledger().rpush("events", json.dumps([name, os.getpid(), *args], default=str))

@app.job("ask_pool", queue="math")
def ask_pool(question):
    ledger().rpush("answers", json.dumps(answer(question)))

def answer(question):
    try:
        return {"is": eval(question)}
    except Exception as error:
        return {"is": None, "kind": type(error).__name__, "error": str(error)}

options = json.loads(sys.argv[1])
events = options.pop("events")
pool = MultiWorker(app, **{"queues": ["math"], **options})
for event in events:
    pool.on(event, lambda *args, event=event: tell(event, *args))
for line in sys.stdin:
    print(json.dumps(answer(line), default=str), flush=True)
"""
ANSWER_TIMEOUT = 20.0
JOB_EVENTS = ("job", "success", "failure", "re_enqueue")
MASTER_EVENTS = ("start", "end", "multi_worker_action")


class Program:
    """A Python program with a pool in it. It runs in a session of its own, like a `Start`."""

    def __init__(self, source: str, argument: object, *, env: dict[str, str]) -> None:
        self.temporary = Path(tempfile.mkdtemp(prefix="mw-"))
        clean = {k: v for k, v in os.environ.items() if not k.startswith("FORKRESQUE_")}
        with (self.temporary / "log").open("wb") as log:
            self.process = subprocess.Popen(
                dying_with_runner(
                    [sys.executable, "-c", source, json.dumps(argument)], signal.SIGKILL
                ),
                cwd=ROOT,
                env={
                    **clean,
                    "TMPDIR": str(self.temporary),
                    "XDG_RUNTIME_DIR": str(self.temporary),
                    **env,
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        processes._sessions.add(self.process.pid)

    def ask(self, question: str) -> Any:
        """Have the program evaluate an expression; return what it is."""
        answer = self.told(question)
        assert "error" not in answer, (answer, self.log())
        return answer["is"]

    def told(self, question: str) -> dict[str, Any]:
        """Return what the program answers, errors too."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], ANSWER_TIMEOUT)
        line = self.process.stdout.readline() if ready else ""
        assert line or self.process.poll() is not None, f"no answer\n{self.log()}"
        assert line, f"it has ended with {self.process.wait(5)}\n{self.log()}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def refused(self, question: str, kind: str) -> str:
        """Return the message of the error that this must raise."""
        answer = self.told(question)
        assert answer.get("kind") == kind, (answer, self.log())
        return str(answer["error"])

    def leave(self) -> int:
        """Let the program come to its end; return its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(10.0)

    def log(self) -> str:
        return (self.temporary / "log").read_text(errors="replace")

    def left(self) -> list[psutil.Process]:
        """Return the processes of this program that live, without itself."""
        found = processes._of_sessions({self.process.pid})
        return [process for process in found if process.pid != self.process.pid]

    def close(self) -> None:
        """End it, and all that is left of it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        kill(outlasting(self.left(), 5.0))
        print(f"-- log of {self.process.pid}\n{self.log()}")
        for path in sorted(self.temporary.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        self.temporary.rmdir()


class Opener(Protocol):
    """Starts a program with a pool of two workers, or as many as these options say."""

    def __call__(
        self,
        source: str = ...,
        *,
        events: tuple[str, ...] = ...,
        url: str = ...,
        env: dict[str, str] | None = ...,
        **options: object,
    ) -> Program: ...


@pytest.fixture
def program(one_server: Server, ledger_server: Server) -> Iterator[Opener]:
    opened: list[Program] = []

    def open_(
        source: str = PROGRAM,
        *,
        events: tuple[str, ...] = (),
        url: str = "",
        env: dict[str, str] | None = None,
        **options: object,
    ) -> Program:
        places = {"FORKRESQUE_REDIS_URL": url or one_server.url, "LEDGER_URL": ledger_server.url}
        argument = {"concurrency": 2, **options, "events": events}
        opened.append(Program(source, argument, env={**places, **(env or {})}))
        return opened[-1]

    yield open_
    for each in opened:
        each.close()


def events(site: Site, *names: str) -> list[list[Any]]:
    """Return what was told of these events: name, pid, arguments."""
    told = [json.loads(raw) for raw in site.ledger.lrange("events", 0, -1)]
    return [event for event in told if not names or event[0] in names]


def await_events(site: Site, *names: str, number: int = 1) -> list[list[Any]]:
    wait_until(lambda: len(events(site, *names)) >= number, f"{number} of {names}")
    return events(site, *names)


def nothing_left(program: Program, site: Site) -> None:
    """Fail unless the pool is gone: its processes, its socket, its keys."""
    wait_until(lambda: not program.left(), f"the end of {[title(p) for p in program.left()]}", 2.0)
    assert sorted(path.name for path in program.temporary.iterdir()) == ["log"]
    assert site.redis.smembers(KEYS.workers()) == set()
    families = (KEYS.slot(""), KEYS.worker(""), KEYS.kids(""), KEYS.lease(""))
    assert [key for key in site.redis.scan_iter() if key.startswith(families)] == []


def workers(program: Program) -> dict[int, int]:
    """Return the pids of the workers by their seats' order in the report."""
    return {worker["pid"]: worker["done"] for worker in program.ask("pool.status()")["workers"]}


# -- its life ----------------------------------------------------------------------------------


def test_a_pool_starts_ready_does_jobs_and_leaves_nothing(program: Opener, site: Site) -> None:
    shop = program()
    assert shop.ask("pool.pid") is None

    shop.ask("pool.start() is pool")
    state = shop.ask("pool.status()")
    assert state["pid"] == shop.ask("pool.pid") != shop.process.pid
    assert (state["ready"], state["wanted"], len(state["workers"])) == (True, 2, 2)
    assert title(psutil.Process(state["pid"])).endswith(": master math 2 workers")
    for mark in ("a", "b", "c"):
        site.enqueue("note", mark)
    site.await_processed(3)

    assert shop.ask("pool.stop()") == ExitCode.OK
    assert (shop.ask("pool.pid"), shop.ask("pool.exit_code")) == (None, ExitCode.OK)
    assert is_gone(state["pid"])
    nothing_left(shop, site)
    assert shop.ask("pool.stop()") == ExitCode.OK
    assert shop.leave() == 0


def test_a_pool_can_be_started_again(program: Opener, site: Site) -> None:
    shop = program()
    for number in (1, 2):
        shop.ask("pool.start() is pool")
        site.enqueue("note", str(number))
        site.await_processed(number)
        assert shop.ask("pool.stop()") == ExitCode.OK
    nothing_left(shop, site)


def test_stop_lets_the_job_in_hand_finish(program: Opener, site: Site) -> None:
    shop = program()
    shop.ask("pool.start() is pool")
    site.gates("a")

    assert shop.ask("pool.stop(wait=False)") is None
    assert shop.ask("pool.wait(timeout=0.3)") is None
    site.release("a")

    assert shop.ask("pool.wait(timeout=10)") == ExitCode.OK
    assert site.runs() == ["a"]
    nothing_left(shop, site)


def test_stop_cuts_a_job_that_takes_too_long(program: Opener, site: Site) -> None:
    shop = program()
    shop.ask("pool.start() is pool")
    raw = site.enqueue("gate", "a")
    site.started("a")

    assert shop.ask("pool.stop(timeout=0.2)") == ExitCode.CUT
    assert site.waiting() == [raw]
    nothing_left(shop, site)


def test_the_end_of_the_program_is_the_end_of_the_pool(program: Opener, site: Site) -> None:
    shop = program()
    shop.ask("pool.start() is pool")
    site.gates("a")
    site.release("a")

    assert shop.leave() == 0
    assert site.runs() == ["a"]
    nothing_left(shop, site)


def test_a_program_that_is_killed_leaves_no_pool_behind(program: Opener, site: Site) -> None:
    shop = program()
    shop.ask("pool.start() is pool")
    site.gates("a")

    shop.process.kill()
    shop.process.wait(5)
    site.release("a")

    site.await_processed(1)
    nothing_left(shop, site)


def test_a_master_that_is_killed_is_noticed_and_its_workers_end(
    program: Opener, site: Site
) -> None:
    shop = program()
    shop.ask("pool.start() is pool")
    os.kill(shop.ask("pool.pid"), signal.SIGKILL)

    wait_until(lambda: shop.ask("pool.pid") is None, "the end to be noticed", 5.0)
    assert shop.ask("pool.exit_code") == -signal.SIGKILL
    wait_until(lambda: not shop.left(), "the workers' end", 5.0)
    shop.ask("pool.start() is pool")
    site.enqueue("note", "n")
    site.await_processed(1)
    assert shop.ask("pool.stop()") == ExitCode.OK


def test_a_master_that_stands_still_is_ended_all_the_same(program: Opener, site: Site) -> None:
    shop = program()
    shop.ask("pool.start() is pool")
    shop.ask("setattr(sys.modules['forkresque.supervisor.multiworker'], 'LAST_GRACE', 0.5)")
    shop.ask("setattr(sys.modules['forkresque.supervisor.control'], '_PATIENCE', 0.5)")
    os.kill(shop.ask("pool.pid"), signal.SIGSTOP)

    assert shop.ask("pool.stop(timeout=0)") == -signal.SIGKILL
    wait_until(lambda: not shop.left(), "the workers' end", 5.0)


# -- orders ------------------------------------------------------------------------------------


def test_a_paused_pool_starts_no_job(program: Opener, site: Site) -> None:
    shop = program()
    shop.ask("pool.start() is pool")

    shop.ask("pool.pause()")
    assert shop.ask("pool.status()")["paused"] is True
    site.enqueue("note", "a")
    shop.ask("pool.resume()")
    assert shop.ask("pool.status()")["paused"] is False
    site.await_processed(1)
    assert shop.ask("pool.stop()") == ExitCode.OK


def test_a_pool_scales_to_a_number_and_by_a_difference(program: Opener, site: Site) -> None:
    shop = program()
    shop.ask("pool.start() is pool")
    for order, number in (("3", 3), ("by=-2", 1), ("by=1", 2)):
        shop.ask(f"pool.scale({order})")
        assert shop.ask("pool.status()")["wanted"] == number
        wait_until(lambda number=number: len(workers(shop)) == number, f"{number} workers")  # type: ignore[misc]

    for wrong in ("", "3, by=1", "by=0"):
        message = shop.refused(f"pool.scale({wrong})", "ConfigError")
        assert message.startswith("scale needs a number or a difference, got to=")
    assert shop.ask("pool.stop()") == ExitCode.OK
    nothing_left(shop, site)


def test_a_job_may_give_orders_to_its_own_pool(program: Opener, site: Site) -> None:
    shop = program()
    shop.ask("pool.start() is pool")
    site.enqueue("ask_pool", "[pool.scale(by=1), pool.status()['wanted'], pool.pid, pool.stop()]")

    (_, raw) = site.ledger.blpop("answers", timeout=10)
    assert json.loads(raw) == {"is": [None, 3, shop.ask("pool.pid"), None]}
    assert shop.ask("pool.wait(timeout=10)") == ExitCode.OK
    nothing_left(shop, site)


def test_a_pool_whose_code_is_in_memory_is_not_reloaded(program: Opener, site: Site) -> None:
    shop = program()
    shop.ask("pool.start() is pool")
    before = workers(shop).keys()

    message = shop.refused("pool.reload()", "ControlError")
    assert message.startswith("it was not reloaded: the application is in the memory")
    os.kill(shop.ask("pool.pid"), signal.SIGHUP)
    site.enqueue("note", "a")
    site.await_processed(1)
    assert workers(shop).keys() == before
    assert shop.ask("pool.stop()") == ExitCode.OK


def test_without_a_master_orders_are_refused(program: Opener) -> None:
    shop = program()
    for order in ("pause()", "resume()", "scale(1)", "status()", "reload()"):
        message = shop.refused(f"pool.{order}", "ControlError")
        assert message == f"cannot {order.partition('(')[0]}: there is no master"
    assert shop.ask("pool.wait()") is None


# -- what does not start -----------------------------------------------------------------------


def test_a_pool_does_not_start_beside_another_thread(program: Opener, site: Site) -> None:
    shop = program()
    shop.ask("setattr(sys, 'gate', threading.Event())")
    shop.ask("threading.Thread(target=sys.gate.wait, name='metrics').start()")
    for start in ("start", "run"):
        message = shop.refused(f"pool.{start}()", "ConfigError")
        assert message == "cannot fork while other threads are alive: metrics"
    shop.ask("sys.gate.set()")
    wait_until(lambda: shop.ask("threading.active_count()") == 1, "the thread to end")

    shop.ask("pool.start() is pool")
    message = shop.refused("pool.start()", "ConfigError")
    assert message == f"this MultiWorker runs already, in process {shop.ask('pool.pid')}"
    assert shop.ask("pool.stop()") == ExitCode.OK
    nothing_left(shop, site)


def test_nobody_can_listen_once_the_workers_are_forked(program: Opener) -> None:
    shop = program()
    shop.ask("pool.start() is pool")
    assert "the workers are forked already" in shop.refused("pool.on('job', tell)", "ConfigError")
    shop.ask("pool.stop()")
    assert shop.ask("pool.on('job', tell) is tell")


def test_a_pool_does_not_start_without_its_redis(program: Opener, site: Site) -> None:
    shop = program(url=f"redis://127.0.0.1:{free_port()}", require_redis=True)
    for start in ("start", "run"):
        shop.refused(f"pool.{start}()", "RedisUnavailable")
    assert shop.ask("pool.pid") is None
    nothing_left(shop, site)


def test_a_start_that_takes_too_long_fails_and_leaves_nothing(program: Opener, site: Site) -> None:
    shop = program()
    message = shop.refused("pool.start(timeout=0)", "ControlError")
    assert message.startswith("the master was not ready within 0 s: ")
    assert shop.ask("pool.pid") is None
    nothing_left(shop, site)


def test_a_master_that_cannot_start_is_told_of(program: Opener, site: Site, tmp_path: Path) -> None:
    control = tmp_path / "control"
    first, second = program(control=str(control)), program(control=str(control))
    first.ask("pool.start() is pool")

    message = second.refused("pool.start()", "ControlError")
    assert message == f"the master ended with {ExitCode.LOCKED} before it was ready"
    assert f"another master holds {control}" in second.log()
    assert first.ask("pool.status()")["pid"] == first.ask("pool.pid")
    assert first.ask("pool.stop()") == ExitCode.OK
    assert list(tmp_path.iterdir()) == []
    nothing_left(first, site)


# -- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"concurency": 2}, "a MultiWorker has no option 'concurency'", "did you mean concurrency"),
        ({"preload": False}, "a MultiWorker has no option 'preload'", ""),
        ({"colour": 1}, "a MultiWorker has no option 'colour'", "there are audit, boot_timeout"),
        ({"concurrency": 0}, "concurrency must be at least 1, got 0", ""),
        ({"queues": []}, "queues must name at least one queue, got none", ""),
    ],
)
def test_options_that_cannot_be_are_refused_at_once(
    options: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        MultiWorker(Forkresque(), **options)
    assert str(caught.value) == message
    assert caught.value.hint.startswith(hint)


def test_an_argument_beats_the_environment_and_that_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORKRESQUE_SHUTDOWN_TIMEOUT", "7")
    monkeypatch.setenv("FORKRESQUE_INTERVAL", "3")
    monkeypatch.setenv("FORKRESQUE_CONTROL", "/of/a/service")
    monkeypatch.setenv("FORKRESQUE_PRELOAD", "no")

    options = MultiWorker(Forkresque(), queues=["high", "low"], interval=2).options

    assert options.queues == ("high", "low")
    assert (options.shutdown_timeout, options.interval, options.lease) == (7.0, 2, 30.0)
    assert (options.control, options.preload) == ("", True)
    assert MultiWorker(Forkresque(), queues="high,low").options.queues == ("high", "low")


def test_sizes_and_pools_are_given_as_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORKRESQUE_CONCURRENCY", "5")

    def specs(**options: Any) -> list[str]:
        return [str(spec) for spec in MultiWorker(Forkresque(), **options).options.pool_specs(2)]

    assert specs() == ["*=5"]
    assert specs(queues="q", min=2, max=8) == ["q=2:8"]
    assert specs(queues="q", concurrency=3) == ["q=3"]
    assert specs(queues="q", concurrency="3:4") == ["q=3:4"]
    assert specs(pools=["high=2:8", "low,*=1"]) == ["high=2:8", "low,*=1"]


def test_an_order_is_a_word_or_weights() -> None:
    def shown(order: Any) -> str:
        return str(MultiWorker(Forkresque(), queues="high,low", order=order).options.order)

    assert shown(None) == "strict"
    assert shown("round_robin") == "round_robin"
    assert shown({"high": 6, "low": 1}) == shown("high=6,low=1") == "high=6,low=1"
    with pytest.raises(ConfigError, match="order must be 'strict', 'round_robin' or weights"):
        shown("random")


def test_an_unstarted_pool_has_no_status() -> None:
    with pytest.raises(ControlError, match="cannot status: there is no master"):
        MultiWorker(Forkresque()).status()


# -- events ------------------------------------------------------------------------------------


def test_job_events_are_told_in_the_worker_with_its_number(program: Opener, site: Site) -> None:
    shop = program(events=(*JOB_EVENTS, "poll", "ping", "pause"))
    shop.ask("pool.start() is pool")
    numbered = {pid: number for name, pid, number, *_ in await_events(site, "pause", number=2)}
    assert set(numbered) == set(workers(shop))
    assert len(set(numbered.values())) == 2
    assert min(numbered.values()) > 0

    site.enqueue("node_sum", 1, 2)
    site.enqueue("boom", "no luck")
    await_events(site, "success", "failure", number=2)

    for name, pid, number, *_ in events(site, *JOB_EVENTS, "poll"):
        assert numbered[pid] == number, name
    summed = {"class": "node_sum", "queue": "math", "args": [1, 2]}
    ((*success, took),) = (event[3:] for event in events(site, "success"))
    assert success == ["math", summed, 3]
    assert took > 0
    ((*failure, _),) = (event[3:] for event in events(site, "failure"))
    assert failure == ["math", {**summed, "class": "boom", "args": ["no luck"]}, "no luck"]
    assert ["math", summed] in [event[3:] for event in events(site, "job")]
    assert shop.ask("pool.stop()") == ExitCode.OK


def test_the_master_tells_of_its_workers_and_of_what_it_does(program: Opener, site: Site) -> None:
    shop = program(events=MASTER_EVENTS)
    shop.ask("pool.start() is pool")
    master = shop.ask("pool.pid")
    shop.ask("pool.scale(3)")
    await_events(site, "start", number=4)
    shop.ask("pool.scale(by=-1)")
    await_events(site, "end", number=1)
    assert shop.ask("pool.stop()") == ExitCode.OK

    told = events(site)
    assert {pid for _, pid, *_ in told} == {master}
    started = [event[2] for event in told if event[0] == "start"]
    ended = [event[2] for event in told if event[0] == "end"]
    assert (started[0], ended[-1]) == (0, 0)  # the pool as a whole
    assert sorted(started) == sorted(ended)
    assert len(set(started)) == 4
    verbs = [event[2] for event in told if event[0] == "multi_worker_action"]
    assert verbs == ["+", "+", "+", "-", "--"]
    assert all(event[3] for event in told if event[0] == "multi_worker_action")
    nothing_left(shop, site)


def test_a_replacement_is_told_with_its_reason(program: Opener, site: Site) -> None:
    shop = program(events=("multi_worker_action",), concurrency=1, max_jobs=1)
    shop.ask("pool.start() is pool")
    site.enqueue("note", "a")
    site.await_processed(1)
    told = await_events(site, "multi_worker_action", number=2)

    assert [event[2] for event in told] == ["+", "+"]
    assert told[0][3] == "math: 1 wanted"
    assert told[1][3]
    assert shop.ask("pool.stop()") == ExitCode.OK


def test_pools_have_their_own_workers_and_orders(program: Opener, site: Site) -> None:
    shop = program(pools=["math=1", "other=1:2"], concurrency=None, queues=None)
    shop.ask("pool.start() is pool")
    shop.ask("pool.scale(3, pool='math')")

    sizes = {each["name"]: each["most"] for each in shop.ask("pool.status()")["pools"]}
    assert sizes == {"math": 3, "other": 2}
    message = shop.refused("pool.scale(3, pool='none')", "ControlError")
    assert message == "there is no pool 'none'; there is math, other"
    site.enqueue("note", "a", queue="other")
    site.await_processed(1)
    assert shop.ask("pool.stop()") == ExitCode.OK
    nothing_left(shop, site)


def test_a_pause_of_the_pool_is_told_in_the_master(program: Opener, site: Site) -> None:
    shop = program(events=("pause", "multiWorkerAction"))
    shop.ask("pool.start() is pool")
    master = shop.ask("pool.pid")
    shop.ask("pool.pause()")
    shop.ask("pool.resume()")

    assert [event for event in events(site, "pause") if event[2] == 0] == [["pause", master, 0]]
    actions = [event[2:] for event in events(site, "multiWorkerAction")]
    assert actions[-2:] == [["x", "paused"], ["x", "resumed"]]
    assert shop.ask("pool.stop()") == ExitCode.OK


def test_a_worker_that_dies_is_an_error_in_the_master(program: Opener, site: Site) -> None:
    shop = program(events=("error", "end"))
    shop.ask("pool.start() is pool")
    master = shop.ask("pool.pid")
    site.enqueue("killed_by", int(signal.SIGKILL), "a")

    ((_, pid, error, number, *about),) = await_events(site, "error")
    assert (pid, about) == (master, [None, None])
    assert "signal=9" in error
    assert await_events(site, "end") == [["end", master, number]]
    site.ledger.delete("events")
    site.redis.delete(KEYS.queue("math"))
    shop.ask("pool.stop()")


def test_a_job_that_is_cut_is_told_to_go_back(program: Opener, site: Site) -> None:
    shop = program(events=JOB_EVENTS)
    shop.ask("pool.start() is pool")
    site.gates("a")
    assert shop.ask("pool.stop(timeout=0.2)") == ExitCode.CUT

    (job, (_, pid, number, *told)) = events(site)
    payload = {"class": "gate", "queue": "math", "args": ["a"]}
    assert job == ["job", pid, number, "math", payload]
    assert told == ["math", payload, {"delay": 0, "remaining_attempts": None, "err": "cut"}]


BROKEN = PROGRAM.replace("def tell(name, *args):\n", "def tell(name, *args):\n    1 / 0\n")


def test_listeners_that_fail_change_nothing(program: Opener, site: Site) -> None:
    shop = program(BROKEN, events=(*JOB_EVENTS, *MASTER_EVENTS, "poll", "ping", "pause"))
    shop.ask("pool.start() is pool")
    site.enqueue("note", "a")
    site.await_processed(1)
    assert len(workers(shop)) == 2
    assert shop.ask("pool.stop()") == ExitCode.OK

    told = shop.log()
    for event in ("start", "job", "success", "multi_worker_action", "end"):
        assert f"event={event} a listener failed" in told
    assert "ZeroDivisionError" in told
    nothing_left(shop, site)


# -- run ---------------------------------------------------------------------------------------

RUNNING = """
import signal, sys
from forkresque import MultiWorker
from tests.support.jobs import app, ledger

def on_term(signum, frame):
    print("heard again", flush=True)

signal.signal(signal.SIGTERM, on_term)
pool = MultiWorker(app, queues="math", concurrency=2)

@pool.on("start")
def start(number):
    if number:
        print(number, flush=True)

{listener}

codes = [pool.run() for _ in range({times})]
assert pool.pid is None and pool.exit_code == codes[-1], pool.exit_code
signal.raise_signal(signal.SIGTERM)
print(codes, flush=True)
"""


def ready(program: Program) -> None:
    """Wait until both workers of a running pool have started."""
    assert program.process.stdout is not None
    assert sorted(program.process.stdout.readline() for _ in range(2)) != ["", ""]


def rest_of(program: Program) -> str:
    """Return what a program still says before it ends."""
    assert program.process.stdout is not None
    said = program.process.stdout.read()
    assert program.process.wait(10) == 0, program.log()
    return said


def test_a_script_supervises_until_a_signal_and_gets_its_process_back(
    program: Opener, site: Site
) -> None:
    script = program(RUNNING.format(listener="", times=1))
    ready(script)
    assert title(psutil.Process(script.process.pid)).endswith(": master math 2 workers")
    site.gates("a")
    script.process.send_signal(signal.SIGUSR1)
    wait_until(
        lambda: title(psutil.Process(script.process.pid)).endswith(" paused"), "the pause", 5.0
    )
    script.process.send_signal(signal.SIGTERM)
    site.release("a")

    assert rest_of(script) == "heard again\n[0]\n"
    assert site.runs() == ["a"]
    nothing_left(script, site)


@pytest.mark.parametrize("event", ["success", "start"])
def test_a_listener_can_stop_a_running_pool(program: Opener, site: Site, event: str) -> None:
    """In a worker and in the master."""
    listener = f"""pool.on({event!r}, lambda *args: pool.stop())"""
    site.enqueue("note", "a")
    script = program(RUNNING.format(listener=listener, times=2))
    if event == "success":
        ready(script)
        site.await_processed(1)
        ready(script)
        site.enqueue("note", "b")
    said = rest_of(script).splitlines()

    assert said[-2:] == ["heard again", "[0, 0]"]
    nothing_left(script, site)


def test_a_worker_of_a_running_pool_can_ask_its_master(program: Opener, site: Site) -> None:
    listener = """
@pool.on("success")
def look(*args):
    pool.scale(3)
    ledger().rpush("answers", pool.status()["wanted"])
    pool.stop()
"""
    site.enqueue("note", "a")
    script = program(RUNNING.format(listener=listener, times=1))
    rest_of(script)

    assert site.ledger.lrange("answers", 0, -1) == [b"3"]
    nothing_left(script, site)


def test_a_running_pool_cannot_ask_itself(program: Opener, site: Site) -> None:
    listener = """
@pool.on("start")
def look(number):
    try:
        pool.status()
    except Exception as error:
        ledger().rpush("errors", str(error))
    pool.stop()
"""
    script = program(RUNNING.format(listener=listener, times=1))
    rest_of(script)

    refused = site.ledger.lrange("errors", 0, -1)
    assert set(refused) == {b"cannot status from here: the master would wait for itself"}
    nothing_left(script, site)


EMBEDDED = """
from forkresque import ConfigError, Forkresque, MultiWorker

app = Forkresque("embedded://")

@app.job("add", queue="q")
def add(a, b):
    return a + b

pool = MultiWorker(app, queues=["q"], concurrency=1)
with pool:
    add.enqueue(1, 2)
    pool.on
    import threading
    clock, deadline = threading.Event(), 200
    while not app.queue.store.counts()["processed"] and deadline:
        clock.wait(0.05)
        deadline -= 1
    print(app.queue.store.counts()["processed"], app.url.startswith("unix:"))
print(pool.exit_code, app.url)
add.enqueue(1, 2)
try:
    pool.start()
except ConfigError as error:
    print(error)
"""


def test_a_pool_brings_its_embedded_server(program: Opener, site: Site) -> None:
    script = program(EMBEDDED)

    one, two, three = rest_of(script).splitlines()

    assert one == "1 True"
    assert two == "0 embedded://"
    assert three == "embedded:// without a directory is a new server, and jobs are in another"
    wait_until(lambda: not script.left(), "the server's end", 10.0)


def test_the_workers_of_a_pool_are_no_likelier_victims_than_others(
    program: Opener, site: Site
) -> None:
    shop = program()
    shop.ask("pool.start() is pool")
    own = int(Path(f"/proc/{shop.process.pid}/oom_score_adj").read_text())
    master = int(Path(f"/proc/{shop.ask('pool.pid')}/oom_score_adj").read_text())
    of_workers = {int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in workers(shop)}

    assert master == own
    assert of_workers == {min(1000, own + 500)}
    assert shop.ask("pool.stop()") == ExitCode.OK


def test_redis_has_no_connection_of_the_program_in_its_workers(
    program: Opener, site: Site, one_redis: Redis
) -> None:
    shop = program()
    shop.ask("app.queue.enqueue('math', 'note', ['a'])")
    shop.ask("pool.start() is pool")
    site.await_processed(1)
    shop.ask("app.queue.enqueue('math', 'note', ['b'])")
    site.await_processed(2)
    assert shop.ask("pool.stop()") == ExitCode.OK
    nothing_left(shop, site)

"""A worker alone: whatever it is given and whatever happens to Redis, it goes on."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from redis import Redis

from forkresque import Forkresque
from forkresque.errors import JobAborted
from forkresque.post import Post
from forkresque.protocol.failure import Failure, parse_failure
from forkresque.protocol.keys import Keys
from forkresque.protocol.payload import digest
from forkresque.worker import Worker
from tests.support.processes import ROOT
from tests.support.servers import HOST, Server, binaries, dying_with_runner
from tests.support.waiting import wait_until

KEYS = Keys("resque")
GOOD = b'{"class":"note","queue":"q","args":["behind"]}'


def job(name: str, *args: object, queue: str = "q") -> bytes:
    return json.dumps({"class": name, "queue": queue, "args": args}).encode()


class Site:
    """An application whose jobs tell this process what they did, and its worker."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.app = Forkresque(url)
        self.runs: list[Any] = []
        self.started = threading.Event()
        self.release = threading.Event()

        @self.app.job("note", queue="q")
        def note(mark: str = "") -> None:
            self.runs.append(mark)

        @self.app.job("gate", queue="q")
        def gate() -> None:
            self.started.set()
            assert self.release.wait(15.0)
            self.runs.append("gate")

    def worker(self, *queues: str, url: str = "", interval: float = 1.0) -> Worker:
        names = queues or ("q",)
        post = Post.alone(names, host="h")
        return Worker(url or self.url, self.app.jobs, queues=names, post=post, interval=interval)

    @contextmanager
    def running(self, worker: Worker | None = None) -> Iterator[Worker]:
        """Run a worker in a thread of its own, and have it leave in the end."""
        worker = worker or self.worker()
        problems: list[BaseException] = []

        def run() -> None:
            try:
                worker.run()
            except BaseException as error:  # noqa: BLE001 - told to the test below
                problems.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield worker
        finally:
            self.release.set()
            worker.stop()
            thread.join(10.0)
            assert not thread.is_alive(), "the worker does not leave"
        assert problems == []


@pytest.fixture
def site(server: Server) -> Site:
    return Site(server.url)


def wid_of(worker: Worker) -> str:
    return str(worker._post.worker)


def push(redis: Redis, *raws: bytes, queue: str = "q") -> None:
    redis.sadd(KEYS.queues(), queue)
    redis.rpush(KEYS.queue(queue), *raws)


def failures(redis: Redis) -> list[Failure]:
    entries: Any = redis.lrange(KEYS.failed(), 0, -1)
    return [parse_failure(entry) for entry in entries]


def runs_until(site: Site, *marks: str, timeout: float = 10.0) -> None:
    wait_until(lambda: site.runs[len(marks) - 1 :], f"{len(marks)} jobs to run", timeout)
    assert site.runs == list(marks)


def settled(redis: Redis, number: int) -> None:
    def done() -> bool:
        counts: list[Any] = redis.mget(KEYS.stat("processed"), KEYS.stat("failed"))
        return sum(int(count or 0) for count in counts) == number

    wait_until(done, f"{number} jobs to be settled")


def idle(worker: Worker) -> None:
    """Wait until the worker has claimed in vain and listens."""
    wait_until(lambda: worker._link.tracking and worker._enrolment.stands, "the worker to listen")
    wait_until(lambda: worker._seat.phase.name == "CALL", "the worker to be idle")


# -- what is no job ----------------------------------------------------------------------------

BAD = {
    "not JSON": b"junk",
    "empty": b"",
    "one byte": b"{",
    "a BOM": b"\xef\xbb\xbf" + GOOD,
    "trailing bytes": GOOD + b"x",
    "UTF-16": GOOD.decode().encode("utf-16"),
    "a number": b"1",
    "a string": b'"text"',
    "a list": b"[1,2]",
    "null": b"null",
    "no class": b'{"queue":"q","args":[]}',
    "class null": b'{"class":null,"args":[]}',
    "class a number": b'{"class":7,"args":[]}',
    "class a list": b'{"class":["note"],"args":[]}',
    "class empty": b'{"class":"","args":[]}',
    "class of 1 MB": b'{"class":"' + b"x" * 1_000_000 + b'","args":[]}',
    "class with NUL": b'{"class":"note\\u0000","args":[]}',
    "class with a line end": b'{"class":"note\\n\\u001b[31m","args":[]}',
    "class of a path": b'{"class":"../note","args":[]}',
    "class __import__": b'{"class":"__import__","args":["os"]}',
    "class os.system": b'{"class":"os.system","args":["false"]}',
    "class of Ruby": b'{"class":"Mail::Sender","args":[]}',
    "args an object": b'{"class":"note","args":{"mark":1}}',
    "args a string": b'{"class":"note","args":"text"}',
    "args too many": b'{"class":"note","args":[1,2]}',
    "1,100 deep": b'{"class":"note","args":[' + b"[" * 1_100 + b"]" * 1_100 + b"]}",
    "100,000 deep": b'{"class":"note","args":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
    "objects 100,000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "invalid UTF-8": b'{"class":"note","args":["\xff"]}',
    "an overlong form": b'{"class":"note","args":["\xc0\xaf"]}',
    "5,000 digits": b'{"class":"note","args":[' + b"9" * 5_000 + b"]}",
    "NaN": b'{"class":"note","args":[NaN]}',
    "Infinity": b'{"class":"note","args":[-Infinity]}',
    "1e400": b'{"class":"note","args":[1e400]}',
    "9 MB": b'{"class":"note","args":["' + b"x" * 9_000_000 + b'"]}',
    "unknown class": b'{"class":"nobody","queue":"q","args":[]}',
}


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD)
def test_what_is_no_job_fails_with_its_bytes_kept_and_the_next_job_runs(
    site: Site, redis: Redis, raw: bytes
) -> None:
    push(redis, raw, GOOD)

    with site.running() as worker:
        runs_until(site, "behind")
        settled(redis, 2)

    (failure,) = failures(redis)
    assert failure.payload == raw
    assert failure.exception in ("InvalidPayload", "UnknownJob", "InvalidArgs")
    assert failure.error
    assert (failure.queue, failure.worker) == ("q", wid_of(worker))
    (line,) = failure.backtrace
    assert line.startswith(f"forkresque.errors.{failure.exception}: {failure.error[:1_000]}")


@pytest.mark.parametrize(
    "raw",
    [
        b'{"class":"note","args":[]}',
        b'{"class":"note"}',
        b'{"class":"note","args":null}',
        b' { "args" : [ ] , "queue" : "another" , "class" : "note", "extra": {"a":1} } ',
        b'{"class":"x","class":"note","args":[]}',
    ],
)
def test_what_other_clients_may_write_runs(site: Site, redis: Redis, raw: bytes) -> None:
    push(redis, raw)

    with site.running():
        settled(redis, 1)

    assert site.runs == [""]


# -- how jobs end ------------------------------------------------------------------------------


class Mute(Exception):
    def __str__(self) -> NoReturn:
        raise SystemExit("no text")

    __repr__ = __str__


class NoText(Exception):
    def __str__(self) -> str:
        return None  # type: ignore[return-value]

    def __repr__(self) -> str:
        return "the repr"


class Untrue(Exception):
    @property  # type: ignore[misc]
    def __class__(self) -> NoReturn:  # type: ignore[override]
        raise KeyboardInterrupt


class Odd(BaseException):
    pass


class Nameless(type):
    @property
    def __name__(cls) -> NoReturn:  # type: ignore[override]
        raise ValueError("no name")


class Unnamed(Exception, metaclass=Nameless):
    pass


def _recursive() -> Exception:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def _grouped() -> Exception:
    group: Exception = ValueError("innermost")
    for level in range(100):
        group = ExceptionGroup(f"level {level}", [group])
    return group


RAISED: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("plain"),
    "Mute": Mute,
    "NoText": NoText,
    "Untrue": Untrue,
    "Odd": Odd,
    "SystemExit": lambda: SystemExit(0),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "StopIteration": StopIteration,
    "MemoryError": MemoryError,
    "RecursionError": lambda: RecursionError("deep"),
    "ExceptionGroup": _grouped,
    "a recursive cause": _recursive,
    "a long message": lambda: ValueError("x" * 5_000_000),
    "a lone surrogate": lambda: ValueError("\ud800"),
    "bytes": lambda: ValueError(b"\xff"),
}


@pytest.mark.parametrize("make", RAISED.values(), ids=RAISED)
def test_whatever_a_job_raises_fails_the_job_and_not_the_worker(
    site: Site, redis: Redis, make: Callable[[], BaseException]
) -> None:
    @site.app.job("raise", queue="q")
    def raise_() -> None:
        raise make()

    push(redis, job("raise"), GOOD)
    with site.running():
        runs_until(site, "behind")
        settled(redis, 2)

    (failure,) = failures(redis)
    assert failure.exception == type(make()).__name__
    assert failure.error
    assert failure.backtrace
    assert failure.payload == job("raise")
    entry: Any = redis.lindex(KEYS.failed(), 0)
    assert len(entry) < 2_000_000
    json.loads(entry)


def test_an_exception_whose_class_has_no_name_fails_the_job_and_not_the_worker(
    site: Site, redis: Redis
) -> None:
    @site.app.job("raise", queue="q")
    def raise_() -> None:
        raise Unnamed("text")

    push(redis, job("raise"), GOOD)
    with site.running():
        wait_until(lambda: site.runs, "the job behind", timeout=2.0)


def test_the_traceback_begins_in_the_jobs_own_code(site: Site, redis: Redis) -> None:
    @site.app.job("boom", queue="q")
    def boom(text: str) -> None:
        raise ValueError(text)

    push(redis, job("boom", "no luck"))
    with site.running():
        settled(redis, 1)

    (failure,) = failures(redis)
    assert (failure.exception, failure.error) == ("ValueError", "no luck")
    assert failure.backtrace[0] == "Traceback (most recent call last):"
    assert "test_worker.py" in failure.backtrace[1]
    assert failure.backtrace[-1] == "ValueError: no luck"


def test_async_jobs_run_to_their_end_and_fail_as_others_do(site: Site, redis: Redis) -> None:
    @site.app.job("later", queue="q")
    async def later(mark: str) -> None:
        await asyncio.sleep(0)
        site.runs.append(mark)

    @site.app.job("never", queue="q")
    async def never() -> None:
        await asyncio.sleep(0)
        raise SystemExit(3)

    push(redis, job("later", "a"), job("never"), job("later", "b"), GOOD)
    with site.running():
        runs_until(site, "a", "b", "behind")
        settled(redis, 4)

    assert [failure.exception for failure in failures(redis)] == ["SystemExit"]


def test_two_workers_in_one_process_run_async_jobs_side_by_side(site: Site, redis: Redis) -> None:
    meeting = threading.Barrier(2, timeout=2.0)

    @site.app.job("meet", queue="q")
    async def meet() -> None:
        meeting.wait()
        site.runs.append("met")

    push(redis, job("meet"))
    push(redis, job("meet"), queue="r")
    with site.running(site.worker("q")), site.running(site.worker("r")):
        settled(redis, 2)

    assert site.runs == ["met", "met"]


def test_a_job_that_is_aborted_goes_back_unblamed(site: Site, redis: Redis) -> None:
    @site.app.job("cut", queue="q")
    def cut() -> None:
        site.runs.append("cut")
        if len(site.runs) == 1:
            raise JobAborted

    push(redis, job("cut"), GOOD)
    with site.running():
        runs_until(site, "cut", "behind", "cut")  # "behind" was claimed by the same call
        settled(redis, 2)

    assert redis.get(KEYS.stat("processed")) == b"2"
    assert failures(redis) == []


def test_a_job_that_is_aborted_keeps_its_count_of_deaths(site: Site, redis: Redis) -> None:
    @site.app.job("cut", queue="q")
    def cut() -> None:
        site.started.set()
        worker.stop()
        raise JobAborted

    redis.hset(KEYS.suspects(), digest(job("cut")), 2)
    push(redis, job("cut"))
    worker = site.worker()
    with site.running(worker):
        assert site.started.wait(5.0)

    assert redis.lrange(KEYS.queue("q"), 0, -1) == [job("cut")]
    assert redis.hget(KEYS.suspects(), digest(job("cut"))) == b"2"


def test_a_success_clears_the_count_of_deaths(site: Site, redis: Redis) -> None:
    redis.hset(KEYS.suspects(), digest(GOOD), 2)
    push(redis, GOOD)

    with site.running():
        settled(redis, 1)

    assert not redis.exists(KEYS.suspects())


# -- between jobs ------------------------------------------------------------------------------


def test_a_pattern_picks_up_a_queue_that_is_created_later(site: Site, redis: Redis) -> None:
    with site.running(site.worker("mail_*", "!mail_slow")) as worker:
        idle(worker)
        push(redis, job("note", "no"), queue="mail_slow")
        push(redis, job("note", "other"), queue="other")
        push(redis, job("note", "yes"), queue="mail_new")
        runs_until(site, "yes", timeout=2.0)
        push(redis, job("note", "again"), queue="mail_a")
        runs_until(site, "yes", "again", timeout=2.0)

    assert redis.llen(KEYS.queue("mail_slow")) == redis.llen(KEYS.queue("other")) == 1


def test_a_pattern_picks_up_a_new_queue_while_others_keep_it_busy(site: Site, redis: Redis) -> None:
    push(redis, job("gate"))
    with site.running(site.worker("*")):
        assert site.started.wait(5.0)
        push(redis, job("note", "new"), queue="a")
        push(redis, *(job("note", f"old {number}") for number in range(50)))
        site.release.set()
        wait_until(lambda: "new" in site.runs, "the job of the new queue")
        assert site.runs.index("new") < 5  # it is heard of with the answer to a settle


def test_jobs_run_by_the_order_of_queues(site: Site, redis: Redis) -> None:
    push(redis, job("note", "3"), queue="low")
    push(redis, job("note", "1"), job("note", "2"), queue="high")

    with site.running(site.worker("high", "low")):
        runs_until(site, "1", "2", "3")


def test_an_idle_worker_is_woken_and_asks_redis_nothing_meanwhile(site: Site, redis: Redis) -> None:
    def claims() -> int:
        stats: Any = redis.info("commandstats")
        return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])

    with site.running(site.worker(interval=0.01)) as worker:
        idle(worker)
        before = claims()
        threading.Event().wait(0.3)
        assert claims() - before <= 1  # the first claim may just be on its way
        push(redis, GOOD)
        runs_until(site, "behind")


def test_a_paused_namespace_wakes_up_when_it_is_resumed(site: Site, redis: Redis) -> None:
    redis.set(KEYS.pause_all(), "true")
    push(redis, GOOD)
    with site.running() as worker:
        idle(worker)
        push(redis, job("note", "second"))
        assert not redis.exists(KEYS.slot(wid_of(worker)))
        assert site.runs == []

        redis.delete(KEYS.pause_all())
        runs_until(site, "behind", "second")


def test_a_paused_queue_is_left_alone_until_it_is_resumed(site: Site, redis: Redis) -> None:
    redis.sadd(KEYS.paused_queues(), "q")
    push(redis, GOOD)
    push(redis, job("note", "other"), queue="r")
    with site.running(site.worker("q", "r")):
        runs_until(site, "other")
        assert redis.llen(KEYS.queue("q")) == 1

        redis.srem(KEYS.paused_queues(), "q")
        runs_until(site, "other", "behind")


def test_a_worker_that_a_stranger_unregistered_registers_again(site: Site, redis: Redis) -> None:
    with site.running() as worker:
        idle(worker)
        redis.srem(KEYS.workers(), wid_of(worker))
        redis.delete(KEYS.started(wid_of(worker)))
        push(redis, GOOD)
        runs_until(site, "behind")

        assert redis.smembers(KEYS.workers()) == {wid_of(worker).encode()}
        assert redis.exists(KEYS.started(wid_of(worker)))


def test_a_worker_unregistered_during_its_job_settles_it_and_goes_on(
    site: Site, redis: Redis
) -> None:
    push(redis, job("gate"), GOOD)
    with site.running() as worker:
        assert site.started.wait(5.0)
        redis.srem(KEYS.workers(), wid_of(worker))
        site.release.set()
        runs_until(site, "gate", "behind")
        settled(redis, 2)
        assert redis.smembers(KEYS.workers()) == {wid_of(worker).encode()}


def test_an_unknown_job_in_its_own_slot_is_put_back_and_run(site: Site, redis: Redis) -> None:
    with site.running() as worker:
        idle(worker)
        redis.set(KEYS.slot(wid_of(worker)), b"older.1\n1\nq" + GOOD)
        push(redis, job("note", "new"))
        runs_until(site, "behind", "new")

    assert not redis.exists(KEYS.slot(wid_of(worker)))


def test_a_job_left_by_an_earlier_process_of_the_same_id_is_run(site: Site, redis: Redis) -> None:
    worker = site.worker()
    redis.set(KEYS.slot(wid_of(worker)), b"older.1\n1\nq" + GOOD)
    redis.set(KEYS.owner(wid_of(worker)), "h:1:older 1 1")
    redis.sadd(KEYS.kids("h:1:older"), wid_of(worker))

    with site.running(worker):
        runs_until(site, "behind")

    assert not redis.exists(KEYS.kids("h:1:older"))


def test_a_job_that_others_recovered_meanwhile_is_theirs(site: Site, redis: Redis) -> None:
    push(redis, job("gate"))
    with site.running() as worker:
        assert site.started.wait(5.0)
        redis.delete(KEYS.slot(wid_of(worker)))
        push(redis, GOOD)
        site.release.set()
        runs_until(site, "gate", "behind")

    assert redis.get(KEYS.stat("processed")) == b"1"


# -- what Redis holds of a worker --------------------------------------------------------------


def test_the_record_of_a_worker_is_there_while_a_job_runs(site: Site, redis: Redis) -> None:
    push(redis, job("gate"))
    with site.running() as worker:
        wid = wid_of(worker)
        assert site.started.wait(5.0)
        record = json.loads(redis.get(KEYS.worker(wid)) or b"")
        assert record["queue"] == "q"
        assert record["worker"] == worker._post.worker.name
        assert record["payload"] == {"class": "gate", "queue": "q", "args": []}
        assert abs(redis.time()[0] - _moment(record["run_at"])) < 60

        site.release.set()
        wait_until(lambda: not redis.exists(KEYS.worker(wid)), "the record to go")
        assert not redis.exists(KEYS.slot(wid))


def _moment(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def test_jobs_are_counted_in_all_and_by_worker(site: Site, redis: Redis) -> None:
    push(redis, GOOD, GOOD, b"junk")
    with site.running() as worker:
        settled(redis, 3)
        name = worker._post.worker.name
        assert redis.get(KEYS.stat("processed")) == b"2"
        assert redis.get(KEYS.stat("failed")) == b"1"
        assert redis.get(KEYS.stat("processed", name)) == b"2"
        assert redis.get(KEYS.stat("failed", name)) == b"1"


def test_a_worker_that_left_leaves_only_what_outlives_it(site: Site, redis: Redis) -> None:
    site.app.queue.enqueue("q", "note", ["enqueued"])
    push(redis, b"junk")
    with site.running() as worker:
        settled(redis, 2)
        idle(worker)

    site.app.queue.store.client.close()
    keys: Any = redis.keys()
    assert {key for key in keys if not key.startswith(KEYS.producer(""))} == {
        KEYS.last(wid_of(worker)),
        KEYS.stat("processed"),
        KEYS.stat("failed"),
        KEYS.failed(),
        KEYS.queues(),
        KEYS.proto(),
    }
    assert 0 < redis.ttl(KEYS.last(wid_of(worker))) <= 3_600


def test_a_worker_told_to_leave_finishes_its_job_and_takes_no_other(
    site: Site, redis: Redis
) -> None:
    push(redis, job("gate"), GOOD)
    with site.running() as worker:
        assert site.started.wait(5.0)
        worker.stop()
        site.release.set()

    assert site.runs == ["gate"]
    assert redis.lrange(KEYS.queue("q"), 0, -1) == [GOOD]
    assert redis.get(KEYS.stat("processed")) == b"1"


# -- Redis in trouble --------------------------------------------------------------------------


@pytest.fixture(params=sorted(binaries()))
def lasting(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Return a server of the test's own that remembers everything."""
    with Server(binaries()[request.param], appendonly="always") as server:
        yield server


def test_work_goes_on_after_redis_restarts_while_the_worker_is_idle(lasting: Server) -> None:
    site = Site(lasting.url)
    with site.running() as worker:
        idle(worker)
        lasting.kill()
        lasting.restart()
        with closing(lasting.client()) as redis:
            push(redis, GOOD)
            runs_until(site, "behind")
            settled(redis, 1)


def test_a_job_is_settled_once_when_redis_restarts_while_it_runs(lasting: Server) -> None:
    site = Site(lasting.url)
    with closing(lasting.client()) as redis:
        push(redis, job("gate"), GOOD)
    with site.running() as worker:
        assert site.started.wait(5.0)
        lasting.kill()
        site.release.set()
        wait_until(lambda: site.runs == ["gate"], "the job to end")
        lasting.restart()
        with closing(lasting.client()) as redis:
            runs_until(site, "gate", "behind")
            settled(redis, 2)
            assert redis.get(KEYS.stat("processed")) == b"2"
            assert not redis.exists(KEYS.slot(wid_of(worker)), KEYS.failed(), KEYS.queue("q"))


def test_work_goes_on_after_redis_forgot_everything(site: Site, redis: Redis) -> None:
    with site.running() as worker:
        idle(worker)
        redis.flushall()
        push(redis, GOOD)
        runs_until(site, "behind")
        assert redis.smembers(KEYS.workers()) == {wid_of(worker).encode()}


def user(redis: Redis, server: Server, *, without: str) -> str:
    """Add a user who may not do one thing, and return the URL of the server for it."""
    redis.acl_setuser(
        "limited",
        enabled=True,
        passwords=["+secret"],
        keys=["*"],
        channels=["*"],
        commands=["+@all", f"-{without}"],
    )
    return f"redis://limited:secret@{HOST}:{server.port}"


def test_a_worker_that_may_not_track_polls_and_runs_jobs(
    site: Site, server: Server, redis: Redis
) -> None:
    url = user(redis, server, without="client|tracking")
    worker = site.worker("q", "new_*", url=url, interval=0.02)
    with site.running(worker):
        wait_until(lambda: worker._enrolment.stands, "the worker to register")
        push(redis, GOOD)
        runs_until(site, "behind")
        assert not worker._link.tracking
        push(redis, job("note", "second"))
        runs_until(site, "behind", "second")
    redis.acl_deluser("limited")


def test_a_worker_that_may_not_choose_what_to_track_runs_jobs(
    site: Site, server: Server, redis: Redis
) -> None:
    url = user(redis, server, without="client|caching")
    push(redis, GOOD)
    try:
        with site.running(site.worker(url=url, interval=0.02)):
            wait_until(lambda: site.runs == ["behind"], "the job", timeout=2.0)
            settled(redis, 1)
    finally:
        redis.acl_deluser("limited")


# -- processes ---------------------------------------------------------------------------------

SCRIPT = """
import json, os, signal, sys, time
from forkresque import Forkresque
from forkresque.worker import Worker

app = Forkresque(sys.argv[1])

@app.job("twice", queue="q")
def twice():
    copy = os.fork()
    if copy:
        os.waitpid(copy, 0)

@app.job("last", queue="q")
def last():
    worker.stop()

worker = Worker(sys.argv[1], app.jobs, queues=["q"])
worker.run()
print(json.dumps({"done": worker._seat.done, "pid": os.getpid()}))
"""


def run_script(url: str, tmp_path: Path) -> dict[str, int]:
    """Run SCRIPT to its end, and return what it printed."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    result = subprocess.run(
        dying_with_runner([sys.executable, path, url], signal.SIGKILL),
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=15.0,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()
    (line,) = result.stdout.decode().splitlines()
    printed: dict[str, int] = json.loads(line)
    return printed


def test_a_job_that_forks_and_returns_twice_is_settled_once(
    server: Server, redis: Redis, tmp_path: Path
) -> None:
    push(redis, job("twice"), job("twice"), job("last"))

    run_script(server.url, tmp_path)

    assert redis.get(KEYS.stat("processed")) == b"3"
    assert not redis.exists(KEYS.queue("q"), KEYS.failed())
    assert redis.scard(KEYS.workers()) == 0


def test_a_copy_that_a_job_forked_writes_nothing_on_the_scoreboard(
    server: Server, redis: Redis, tmp_path: Path
) -> None:
    push(redis, job("twice"), job("last"))

    assert run_script(server.url, tmp_path)["done"] == 2

"""What a worker tells those who listen, and that no listener changes what it does."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from redis import Redis

from forkresque import Forkresque, Worker
from forkresque.errors import InvalidPayload, JobAborted, JobLost, RedisUnavailable, UnknownJob
from forkresque.events import WORKER_EVENTS
from forkresque.post import Post
from forkresque.protocol.keys import Keys
from forkresque.protocol.payload import encode_job
from forkresque.protocol.script import load
from tests.support.processes import ROOT
from tests.support.proxy import Proxy
from tests.support.servers import HOST, Server
from tests.support.waiting import wait_until

KEYS = Keys("resque")

Event = tuple[Any, ...]


class Site:
    """A worker that tells all it does, and a few jobs."""

    def __init__(self, url: str) -> None:
        app = Forkresque(url)

        @app.job("add", queue="q")
        def add(a: int, b: int) -> int:
            return a + b

        @app.job("boom", queue="q")
        def boom(message: str) -> None:
            raise ValueError(message)

        @app.job("spoil", queue="q")
        def spoil(values: list[int]) -> None:
            values.clear()

        @app.job("abort", queue="q")
        def abort() -> None:
            if self.aborts < 1:
                self.aborts += 1
                raise JobAborted("cut")

        @app.job("gate", queue="q")
        def gate() -> None:
            self.started.set()
            assert self.release.wait(15.0)

        self.aborts = 0
        self.started, self.release = threading.Event(), threading.Event()
        self.app = app
        self.told: list[Event] = []

    def worker(self, *events: str, url: str = "", queues: tuple[str, ...] = ("q",)) -> Worker:
        post = Post.alone(queues, host="h")
        worker = Worker(url or self.app.url, self.app.jobs, queues=queues, post=post)
        for name in events:
            worker.on(name, self.listener(name))
        return worker

    def listener(self, name: str) -> Callable[..., None]:
        return lambda *args: self.told.append((name, *args))

    def of(self, *names: str) -> list[Event]:
        return [event for event in self.told if event[0] in names]

    def await_told(self, *names: str, number: int = 1) -> list[Event]:
        wait_until(lambda: len(self.of(*names)) >= number, f"{number} of {names}")
        return self.of(*names)


@contextmanager
def running(worker: Worker) -> Iterator[None]:
    """Run a worker in a thread, and have it leave in the end."""
    problems: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:  # noqa: BLE001 - told to the test below
            problems.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join(10.0)
        assert not thread.is_alive(), "the worker does not leave"
    assert problems == []


@pytest.fixture
def site(one_server: Server) -> Site:
    return Site(one_server.url)


def push(redis: Redis, *raws: bytes) -> None:
    redis.sadd(KEYS.queues(), "q")
    redis.rpush(KEYS.queue("q"), *raws)


def job(name: str, *args: object) -> bytes:
    return encode_job("q", name, args)


def test_a_worker_tells_its_life_in_order(site: Site, one_redis: Redis) -> None:
    push(one_redis, job("add", 1, 2))
    began = datetime.now(UTC)
    with running(site.worker(*WORKER_EVENTS)):
        site.await_told("success")
        site.await_told("pause", number=2)

    names = [event[0] for event in site.told]
    assert names[:7] == ["ping", "start", "pause", "poll", "job", "poll", "success"]
    assert names[-1] == "end"
    assert set(names) == {"ping", "start", "pause", "poll", "job", "success", "end"}
    (_, started), (_, ended) = site.of("start", "end")
    assert abs((started - began).total_seconds()) < 10
    assert started < ended
    assert started.tzinfo is UTC
    assert site.of("pause")[0] == ("pause",)
    assert set(site.of("poll")) == {("poll", ("q",))}
    (_, second) = site.of("ping")[0]
    assert abs(second - began.timestamp()) < 10


def test_a_success_brings_the_job_its_result_and_its_time(site: Site, one_redis: Redis) -> None:
    push(one_redis, job("add", 1, 2))
    processed: list[object] = []
    worker = site.worker("job", "success")
    worker.on("success", lambda *_args: processed.append(one_redis.get(KEYS.stat("processed"))))
    with running(worker):
        site.await_told("success")

    payload = {"class": "add", "queue": "q", "args": [1, 2]}
    (begun, (*success, took)) = site.told
    assert begun == ("job", "q", payload)
    assert success == ["success", "q", payload, 3]
    assert 0 < took < 10_000
    assert processed == [b"1"]  # it is told once it is so


def test_a_failure_brings_what_was_raised(site: Site, one_redis: Redis) -> None:
    push(one_redis, job("boom", "no luck"))
    with running(site.worker("job", "success", "failure")):
        site.await_told("failure")

    ((name, _, _), (failure, queue, payload, error, took)) = site.told
    assert (name, failure, queue) == ("job", "failure", "q")
    assert payload == {"class": "boom", "queue": "q", "args": ["no luck"]}
    assert (type(error), str(error)) == (ValueError, "no luck")
    assert took > 0


@pytest.mark.parametrize(
    ("raw", "kind", "told"),
    [
        (b"{", InvalidPayload, {"class": "(unreadable payload)", "args": []}),
        (b'{"class":"nope","args":[]}', UnknownJob, {"class": "nope", "args": []}),
    ],
)
def test_what_cannot_begin_fails_without_a_job_event(
    site: Site, one_redis: Redis, raw: bytes, kind: type[Exception], told: dict[str, Any]
) -> None:
    push(one_redis, raw)
    with running(site.worker("job", "failure")):
        site.await_told("failure")

    ((*failure, error, took),) = site.told
    assert failure == ["failure", "q", told]
    assert isinstance(error, kind)
    assert took == 0


def test_a_listener_gets_the_arguments_that_were_sent(site: Site, one_redis: Redis) -> None:
    worker = site.worker()
    worker.on("job", lambda _queue, payload: payload["args"].append("of the listener"))
    worker.on("success", site.listener("success"))
    push(one_redis, job("spoil", [1, 2]))
    with running(worker):
        site.await_told("success")

    ((_, _, payload, _, _),) = site.told
    assert payload["args"] == [[1, 2]]
    assert one_redis.get(KEYS.stat("processed")) == b"1"  # with one argument, not two


def test_a_job_that_goes_back_to_its_queue_is_told_of(site: Site, one_redis: Redis) -> None:
    push(one_redis, job("abort"))
    with running(site.worker("re_enqueue", "success", "failure")):
        site.await_told("success")

    ((*told, details), success) = site.told
    assert told == ["re_enqueue", "q", {"class": "abort", "queue": "q", "args": []}]
    assert isinstance(details.pop("err"), JobAborted)
    assert details == {"delay": 0, "remaining_attempts": None}
    assert success[0] == "success"


def test_trouble_with_redis_is_told_with_the_job_that_it_is_about(
    site: Site, one_server: Server, one_redis: Redis
) -> None:
    push(one_redis, job("add", 1, 2))
    with Proxy((HOST, one_server.port)) as proxy, running(site.worker("error", url=proxy.url)):
        drops = [proxy.drop_request(load(name).digest.encode()) for name in ("claim", "done")]
        site.await_told("error", number=2)
        wait_until(lambda: one_redis.get(KEYS.stat("processed")) == b"1", "the job to end")
        assert [drop.fired for drop in drops] == [1, 1]

    about_nothing, about_the_job = ((queue, payload) for _, _, queue, payload in site.told[:2])
    assert {type(error) for _, error, _, _ in site.told} == {RedisUnavailable}
    assert about_nothing == (None, None)
    assert about_the_job == ("q", {"class": "add", "queue": "q", "args": [1, 2]})


def test_a_job_that_others_have_recovered_is_told_as_lost(site: Site, one_redis: Redis) -> None:
    push(one_redis, job("gate"))
    worker = site.worker("success", "error")
    with running(worker):
        assert site.started.wait(10.0)
        one_redis.delete(KEYS.slot(str(worker._post.worker)))
        site.release.set()
        site.await_told("error")

    ((_, error, queue, payload),) = site.told
    assert isinstance(error, JobLost)
    assert (queue, payload["class"]) == ("q", "gate")
    assert one_redis.get(KEYS.stat("processed")) is None


def test_who_takes_the_place_of_a_dead_worker_tells_that_it_cleans(
    site: Site, one_redis: Redis
) -> None:
    before = site.worker()
    push(one_redis, job("gate"))
    dead = threading.Thread(target=before.run, daemon=True)
    dead.start()
    assert site.started.wait(10.0)
    push(one_redis, job("add", 1, 2))
    with running(site.worker("cleaning_worker", "success")):  # of the same id, and another nonce
        site.await_told("cleaning_worker")
        site.release.set()
        site.await_told("success", number=2)
        before.stop()
        dead.join(10.0)

    (cleaning,) = site.of("cleaning_worker")
    wid = before._post.worker
    assert cleaning == ("cleaning_worker", str(wid), wid.pid)


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(1)])
def test_a_listener_that_raises_changes_nothing(
    site: Site, one_redis: Redis, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    def fail(*_args: object) -> None:
        raise error

    worker = site.worker()
    for name in WORKER_EVENTS:
        worker.on(name, fail)
        worker.on(name, site.listener(name))
    push(one_redis, job("add", 1, 2), job("boom", "x"), job("add", 3, 4))
    with running(worker):
        site.await_told("success", number=2)

    assert len(site.of("failure")) == 1
    counts: list[Any] = one_redis.mget(KEYS.stat("processed"), KEYS.stat("failed"))
    assert counts == [b"2", b"1"]
    told = {record.getMessage().split(" ")[0] for record in caplog.records}
    assert {"event=job", "event=success", "event=failure", "event=end"} <= told


FORKING = """
import os, sys
from forkresque import Forkresque, Worker

app = Forkresque(sys.argv[1])
app.job("note", queue="q")(lambda mark: mark)
worker = Worker(sys.argv[1], app.jobs, queues=["q"])
worker.on("job", lambda *_args: os.fork())
told = []

@worker.on("success")
def success(queue, job, result, took):
    told.append(result)
    if len(told) == 2:
        worker.stop()

worker.run()
print(told)
"""


def test_a_copy_that_a_listener_forks_does_not_become_a_second_worker(
    one_server: Server, one_redis: Redis
) -> None:
    push(one_redis, job("note", "a"), job("note", "b"))

    done = subprocess.run(
        [sys.executable, "-c", FORKING, one_server.url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "['a', 'b']\n"), done.stderr
    assert one_redis.get(KEYS.stat("processed")) == b"2"


def test_nothing_is_decoded_again_when_nobody_listens(
    site: Site, one_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    for module in ("patience", "performer", "settling"):
        monkeypatch.setattr(f"forkresque.{module}.decoded", decoded.append)
    push(one_redis, job("add", 1, 2), job("boom", "x"))
    with running(site.worker("pause")):
        wait_until(lambda: one_redis.get(KEYS.stat("failed")) == b"1", "both to end")

    assert decoded == []


def test_what_is_told_can_be_told_on_as_json(site: Site, one_redis: Redis) -> None:
    push(one_redis, job("add", 1, 2))
    with running(site.worker("job", "success")):
        site.await_told("success")

    assert json.loads(json.dumps(site.told)) == [[*event] for event in site.told]


def test_a_worker_knows_no_event_of_a_pool(site: Site) -> None:
    with pytest.raises(Exception, match="there is no event 'multi_worker_action'"):
        site.worker("multi_worker_action")

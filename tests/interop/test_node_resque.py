"""Real node-resque and `forkresque start` on the same Redis at the same time."""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis

from forkresque import Forkresque
from forkresque.app import Job
from forkresque.protocol.canonical import encode
from tests.conftest import Starter
from tests.support.node import NodeProcess, node_modules, run_node
from tests.support.patience import Bench, patient
from tests.support.processes import Start, assert_nothing_left
from tests.support.servers import Server
from tests.support.waiting import wait_until

NODE_LOCK = "resque:resque_scheduler_leader_lock"
UTC_SECOND = r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d UTC"
BEATING = ("--lease", "6")  # beats once a second
ISO_SECOND = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"

HOLDING_APP = """
from tests.support.jobs import app, gate

@app.job("hold", queue="math")
def hold(*args: object) -> None:
    gate("hold")
"""


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """Install node-resque on nobody's time; the tests' timeouts are for the tests."""
    node_modules()


@pytest.fixture
def app(one_server: Server) -> Iterator[Forkresque]:
    """Return a producer of our own."""
    app = Forkresque(one_server.url)
    with closing(app.queue.store.client):
        yield app


@pytest.fixture
def note(app: Forkresque) -> Job[[int], None]:
    return note_of(app)


def note_of(app: Forkresque) -> Job[[int], None]:
    @app.job("note", queue="math")
    def note(mark: int) -> None:
        raise AssertionError("this process only enqueues")

    return note


Begin = Callable[..., Start]


def beginning(start: Starter, redis: Redis, folder: Path) -> Begin:
    """Return what starts our workers on queue `math` and waits until all are registered."""
    (folder / "holding_app.py").write_text(HOLDING_APP)

    def begin(concurrency: int, *args: str) -> Start:
        started = start(
            *("-A", "holding_app:app", "-q", "math", "-c", str(concurrency), *args),
            env={"PYTHONPATH": str(folder)},
        )
        before = redis.scard("resque:workers")
        wait_until(lambda: redis.scard("resque:workers") == before + concurrency, "workers")
        return started

    return begin


@pytest.fixture
def begin(start: Starter, one_redis: Redis, tmp_path: Path) -> Begin:
    """Return what starts our workers on the test's Redis."""
    return beginning(start, one_redis, tmp_path)


@pytest.fixture
def at_work(ledger_server: Server) -> dict[str, str]:
    """Return the environment of a node worker."""
    return {"LEDGER_URL": ledger_server.tcp_url}


def inspected(server: Server) -> dict[str, Any]:
    """Return what node-resque sees."""
    seen: dict[str, Any] = json.loads(run_node("inspect.js", server.tcp_url).stdout)
    return seen


def marks(ledger: Redis, key: str = "runs") -> Counter[int]:
    """Return how often each job has run."""
    return Counter(map(int, ledger.lrange(key, 0, -1)))


def once(numbers: range) -> Counter[int]:
    return Counter(numbers)


def text(value: Any) -> str:
    """Return a reply of Redis as text."""
    assert isinstance(value, bytes), value
    return value.decode()


def members(redis: Redis, key: str) -> list[str]:
    return sorted(map(text, redis.smembers(key)))


def raw_list(redis: Redis, key: str) -> list[bytes]:
    values: Any = redis.lrange(key, 0, -1)
    return list(values)


def keys_like(redis: Redis, pattern: str) -> list[bytes]:
    return list(redis.scan_iter(pattern, count=1000))


def await_runs(ledger: Redis, number: int, timeout: float, key: str = "runs") -> None:
    wait_until(lambda: ledger.llen(key) >= number, f"{number} {key}", timeout)


def hold(redis: Redis, ledger: Redis, *payloads: bytes) -> None:
    """Have jobs `hold` performed and kept in hand."""
    before = ledger.llen("started:hold")
    redis.rpush("resque:queue:math", *payloads)
    redis.sadd("resque:queues", "math")
    wait_until(lambda: ledger.llen("started:hold") == before + len(payloads), "the jobs to start")


def let_go(ledger: Redis, number: int) -> None:
    """Let jobs `hold` finish."""
    before = ledger.llen("runs")
    ledger.rpush("release:hold", *["go"] * number)
    await_runs(ledger, before + number, 5.0)


def assert_all_has_come_through(redis: Redis) -> None:
    """Fail if a delayed job is left; wait for what is queued or in hand, a second copy too."""
    wait_until(lambda: not redis.exists("resque:delayed_queue_schedule"), "the schedule's end")
    assert keys_like(redis, "resque:delayed:*") == []
    assert keys_like(redis, "resque:timestamps:*") == []
    wait_until(lambda: not redis.exists("resque:queue:math"), "the queue's end")
    wait_until(lambda: not keys_like(redis, "resque:fr:slot:*"), "the last job's end")


# -- many jobs, each once ------------------------------------------------------------------


@pytest.mark.timeout(60, func_only=True)
def test_five_thousand_jobs_of_node_run_once_each(
    begin: Begin, one_server: Server, one_redis: Redis, ledger: Redis
) -> None:
    master = begin(8)

    run_node("produce.js", one_server.tcp_url, "math", "note", 5000)
    wait_until(lambda: one_redis.get("resque:stat:processed") == b"5000", "all to run", 40.0)

    assert marks(ledger) == once(range(5000))
    assert one_redis.get("resque:stat:failed") is None
    assert one_redis.llen("resque:queue:math") == 0
    assert keys_like(one_redis, "resque:fr:slot:*") == []
    master.stop()
    assert_nothing_left(master, one_redis)


@pytest.mark.timeout(30, func_only=True)
def test_five_hundred_jobs_of_ours_run_once_each_in_node(
    app: Forkresque,
    note: Job[[int], None],
    one_server: Server,
    one_redis: Redis,
    ledger: Redis,
    at_work: dict[str, str],
) -> None:
    for number in range(250):
        note.enqueue(number)
        app.queue.enqueue("math", "note", [250 + number])

    run_node("work.js", one_server.tcp_url, "math", 500, env=at_work)

    assert marks(ledger, "node:runs") == once(range(500))
    assert one_redis.get("resque:stat:processed") == b"500"
    assert one_redis.get("resque:stat:failed") is None
    assert app.queue.length("math") == 0


# -- delayed jobs --------------------------------------------------------------------------


@pytest.mark.timeout(30, func_only=True)
def test_delayed_jobs_of_node_are_promoted_and_run_by_us(
    begin: Begin, one_server: Server, one_redis: Redis, ledger: Redis
) -> None:
    run_node("produce.js", one_server.tcp_url, "math", "note", 20, "--in-ms", 1500)
    assert one_redis.llen("resque:queue:math") == 0
    begin(2)

    await_runs(ledger, 20, 8.0)

    assert_all_has_come_through(one_redis)
    assert marks(ledger) == once(range(20))


@pytest.mark.timeout(30, func_only=True)
def test_delayed_jobs_of_ours_are_promoted_and_run_by_node(
    app: Forkresque,
    note: Job[[int], None],
    one_server: Server,
    one_redis: Redis,
    ledger: Redis,
    at_work: dict[str, str],
) -> None:
    for number in range(20):
        note.enqueue_in(0.2 + number / 20, number)
    note.enqueue_at(one_redis.time()[0] + 1, 20)
    assert app.queue.delayed_count() == 21

    with (
        NodeProcess("schedule.js", one_server.tcp_url) as scheduler,
        NodeProcess("work.js", one_server.tcp_url, "math", 21, env=at_work) as worker,
    ):
        assert worker.wait(15.0) == 0
        assert scheduler.output().count("promoted") == 21

    assert marks(ledger, "node:runs") == once(range(21))
    assert_all_has_come_through(one_redis)


def delay_on_both_sides(server: Server, note: Job[[int], None]) -> None:
    """Delay 200 jobs, all for the next two seconds."""
    run_node("produce.js", server.tcp_url, "math", "note", 100, "--in-ms", 1000)
    for number in range(100, 200):
        note.enqueue_in(number / 100 - 0.5, number)


@pytest.mark.timeout(40, func_only=True)
def test_while_we_lead_a_node_scheduler_promotes_nothing(
    begin: Begin,
    note: Job[[int], None],
    one_server: Server,
    one_redis: Redis,
    ledger: Redis,
) -> None:
    master = begin(4)
    wait_until(lambda: one_redis.exists(NODE_LOCK), "our lead")
    with NodeProcess("schedule.js", one_server.tcp_url) as scheduler:
        wait_until(lambda: "started" in scheduler.output(), "node's scheduler")
        delay_on_both_sides(one_server, note)
        leader = inspected(one_server)["leader"]
        await_runs(ledger, 200, 8.0)

        assert_all_has_come_through(one_redis)
        assert marks(ledger) == once(range(200))
        assert inspected(one_server)["leader"] == leader
        assert leader.encode() == one_redis.get("resque:fr:leader")
        assert re.match(rf"{_host(one_redis)}:{master.children('clerk')[0].pid}\b", leader)
        assert not {"leader", "promoted"} & set(scheduler.output().split())

        master.stop()  # which gives the lead to node at once
        wait_until(lambda: "leader" in scheduler.output().split(), "node to lead", 3.0)


@patient
def test_while_a_node_scheduler_leads_we_promote_nothing(bench: Bench) -> None:
    redis, ledger = bench.site.redis, bench.site.ledger
    begin = beginning(bench.start, redis, bench.directory)
    app = Forkresque(bench.server.url)
    bench.enter(closing(app.queue.store.client))
    with NodeProcess("schedule.js", bench.server.tcp_url) as scheduler:
        wait_until(lambda: "leader" in scheduler.output().split(), "node's lead")
        begin(4)
        wait_until(lambda: redis.exists("resque:fr:leader"), "our scheduler")
        delay_on_both_sides(bench.server, note_of(app))
        leader = inspected(bench.server)["leader"]
        await_runs(ledger, 200, 8.0)

        assert_all_has_come_through(redis)
        assert marks(ledger) == once(range(200))
        assert inspected(bench.server)["leader"] == leader
        assert leader == scheduler.output().split()[1]
        assert leader.endswith(f":{scheduler.pid}")
        assert scheduler.output().count("promoted") == 200

        assert scheduler.stop() == 0
        ours = redis.get("resque:fr:leader")
        wait_until(lambda: redis.get(NODE_LOCK) == ours, "us to lead", 8.0)


# -- node's view of our work ---------------------------------------------------------------

ARGS: list[list[Any]] = [
    [],
    ["é/ 😀\u2028", [], {}, 0.1 + 0.2, 2**53, 1e21, {"b": 1, "a": {"x": [[[]], None]}}],
    [{"rows": [{"id": number, "tags": [], "of": {"é": "/" * 20}} for number in range(3000)]}],
]


@pytest.mark.timeout(30, func_only=True)
def test_node_sees_our_workers_and_what_they_work_on(
    begin: Begin,
    app: Forkresque,
    one_server: Server,
    one_redis: Redis,
    ledger: Redis,
) -> None:
    begin(3)
    app.queue.enqueue("math", "note", ["a warm-up"])
    await_runs(ledger, 1, 5.0)
    wait_until(lambda: one_redis.get("resque:stat:processed") == b"1", "it to be counted")
    hold(one_redis, ledger, *(encode({"class": "hold", "queue": "math", "args": a}) for a in ARGS))
    app.queue.enqueue("math", "note", ["waits"])

    seen = inspected(one_server)

    ids = members(one_redis, "resque:workers")
    names = {wid.removesuffix(":math") for wid in ids}
    assert seen["workers"] == dict.fromkeys(names, "math")
    assert {int(name.split(":")[1]) for name in names} == {
        int(pid) for pid in ledger.lrange("started:hold", 0, -1)
    }
    assert seen["queues"] == ["math"]
    assert seen["lengths"] == {"math": 1}
    assert seen["failed"] == []
    counted = {f"processed:{name}" for name in names}
    assert seen["stats"].pop("processed") == "1"
    assert seen["stats"].popitem()[0] in counted
    assert seen["stats"] == {}
    assert seen["workingOn"].keys() == names
    for name, record in seen["workingOn"].items():
        assert record.keys() == {"run_at", "queue", "worker", "payload"}
        assert (record["worker"], record["queue"]) == (name, "math")
        assert re.fullmatch(ISO_SECOND, record["run_at"])
    payloads = [record["payload"] for record in seen["workingOn"].values()]
    expected = [{"class": "hold", "queue": "math", "args": args} for args in ARGS]
    assert sorted(payloads, key=_size) == sorted(expected, key=_size)
    let_go(ledger, 3)


def _size(payload: dict[str, Any]) -> int:
    return len(json.dumps(payload))


@pytest.mark.timeout(30, func_only=True)
def test_node_reads_retries_and_removes_our_failed_jobs(
    begin: Begin, app: Forkresque, one_server: Server, one_redis: Redis
) -> None:
    begin(1).stop()
    messages = ["first", 'é/ "😀" \u2028\n\\', "third"]
    for message in messages:
        app.queue.enqueue("math", "boom", [message])
    raws = raw_list(one_redis, "resque:queue:math")
    master = begin(1)
    wait_until(lambda: one_redis.llen("resque:failed") == 3, "three failures")
    worker = members(one_redis, "resque:workers")[0]
    master.stop()
    entries = raw_list(one_redis, "resque:failed")

    seen = inspected(one_server)["failed"]
    assert seen == [json.loads(entry) for entry in entries]
    assert [entry["error"] for entry in seen] == messages
    for entry, raw in zip(seen, raws, strict=True):
        assert entry["exception"] == "RuntimeError"
        assert all(isinstance(line, str) for line in entry["backtrace"])
        assert "raise RuntimeError(message)" in "\n".join(entry["backtrace"])
        assert (entry["worker"], entry["queue"]) == (worker, "math")
        assert entry["payload"] == json.loads(raw)

    assert run_node("failed.js", one_server.tcp_url, "retry", 1).stdout == "true\n"
    assert raw_list(one_redis, "resque:queue:math") == [raws[1]]
    assert raw_list(one_redis, "resque:failed") == [entries[0], entries[2]]

    assert run_node("failed.js", one_server.tcp_url, "remove", 0).stdout == "1\n"
    assert raw_list(one_redis, "resque:failed") == [entries[2]]


@pytest.mark.timeout(30, func_only=True)
def test_we_read_and_retry_the_failed_jobs_of_node(
    begin: Begin,
    app: Forkresque,
    one_server: Server,
    one_redis: Redis,
    ledger: Redis,
    at_work: dict[str, str],
) -> None:
    app.queue.enqueue("math", "boom", ["é/"])
    app.queue.enqueue("math", "slow", ["text", 0])
    raws = raw_list(one_redis, "resque:queue:math")
    run_node("work.js", one_server.tcp_url, "math", 2, env=at_work)

    error, thrown = app.queue.failed()

    assert (error.name, error.args, error.queue) == ("boom", ["é/"], "math")
    assert (error.exception, error.error) == ("Error", "é/")
    assert all(line.startswith("    at ") for line in error.backtrace)
    assert error.backtrace != []
    assert (error.payload, thrown.payload) == (raws[0], raws[1])
    assert b'"backtrace":null' in thrown.raw_entry  # and no exception and no error
    assert (thrown.name, thrown.exception, thrown.error) == ("slow", "", "")
    assert (thrown.backtrace, thrown.worker) == ([], error.worker)

    assert app.queue.retry_failed(thrown)
    assert app.queue.retry_failed(error)
    assert not app.queue.retry_failed(error)
    assert app.queue.failed_count() == 0
    assert raw_list(one_redis, "resque:queue:math") == [raws[1], raws[0]]
    begin(1)
    wait_until(app.queue.failed_count, "ours to fail")
    assert ledger.lrange("runs", 0, -1) == [b"text"]
    assert [(again.exception, again.payload) for again in app.queue.failed()] == [
        ("RuntimeError", raws[0])
    ]


# -- a worker that node takes for dead -----------------------------------------------------


@pytest.mark.timeout(30, func_only=True)
def test_a_busy_worker_that_node_cleans_by_mistake_finishes_and_works_on(
    begin: Begin,
    app: Forkresque,
    one_server: Server,
    one_redis: Redis,
    ledger: Redis,
) -> None:
    """Its job is on the failed list and is finished as well.

    Nobody can stop a job by writing to Redis, and the operator who retries the record lets
    it run again. The worker neither loses the job nor counts it wrongly: one failure by
    node's order, and one success, which is what happened.
    """
    master = begin(2, *BEATING)
    raw = b'{"class":"hold","queue":"math","args":[[],"\xc3\xa9/"]}'
    hold(one_redis, ledger, raw)
    worker = f"{_host(one_redis)}:{text(ledger.lindex('started:hold', 0))}"
    before = {child.pid for child in master.children()}

    entry = json.loads(run_node("clean.js", one_server.tcp_url, worker).stdout)

    assert entry["payload"] == json.loads(raw)
    assert entry["backtrace"][1] == "queue#forceCleanWorker"
    let_go(ledger, 1)
    wait_until(lambda: one_redis.get("resque:stat:processed") == b"1", "the job to be settled")
    wait_until(lambda: one_redis.sismember("resque:workers", f"{worker}:math"), "it to be back")
    assert one_redis.exists(f"resque:worker:ping:{worker}")
    assert one_redis.get("resque:stat:failed") == b"1"
    assert app.queue.failed() == app.queue.failed(0, 0)
    assert app.queue.failed()[0].payload == raw
    assert app.queue.failed()[0].exception == "Worker Timeout (killed manually)"

    hold(one_redis, ledger, raw, raw)  # both workers take one
    assert inspected(one_server)["workingOn"][worker]["payload"] == json.loads(raw)
    let_go(ledger, 2)
    wait_until(lambda: one_redis.get("resque:stat:processed") == b"3", "both to be settled")
    assert {child.pid for child in master.children()} == before
    assert keys_like(one_redis, "resque:fr:slot:*") == []
    assert one_redis.llen("resque:failed") == 1
    master.stop()
    assert_nothing_left(master, one_redis)


@pytest.mark.timeout(30, func_only=True)
def test_an_idle_worker_that_node_cleans_by_mistake_takes_the_next_job(
    begin: Begin, app: Forkresque, one_server: Server, one_redis: Redis
) -> None:
    begin(1)
    worker = members(one_redis, "resque:workers")[0]

    answer = run_node("clean.js", one_server.tcp_url, worker.removesuffix(":math")).stdout
    assert answer == "null\n"
    app.queue.enqueue("math", "note", ["next"])

    wait_until(lambda: one_redis.get("resque:stat:processed") == b"1", "the next job")
    assert members(one_redis, "resque:workers") == [worker]


@pytest.mark.timeout(30, func_only=True)
def test_idle_workers_that_node_cleans_by_mistake_have_all_their_records_back(
    begin: Begin, one_server: Server, one_redis: Redis
) -> None:
    """The next beat brings them back; on call or not, they do not hear of it themselves."""
    begin(2, *BEATING)
    workers = members(one_redis, "resque:workers")

    for worker in workers:
        run_node("clean.js", one_server.tcp_url, worker.removesuffix(":math"))

    wait_until(lambda: members(one_redis, "resque:workers") == workers, "them to be back")
    for worker in workers:
        assert one_redis.exists(f"resque:worker:ping:{worker.removesuffix(':math')}"), worker
        assert one_redis.exists(f"resque:worker:{worker}:started"), worker


def _host(redis: Redis) -> str:
    return members(redis, "resque:workers")[0].split(":")[0]


# -- the bytes that we write ---------------------------------------------------------------


@pytest.mark.timeout(30, func_only=True)
def test_enqueue_writes_the_bytes_that_node_would(app: Forkresque, one_redis: Redis) -> None:
    app.queue.enqueue("math", "add", [1, 2])
    app.queue.enqueue("math", "add", [])
    app.queue.enqueue("m", "add", [1.0, 0.1, 1e21, 1e20, 1e-7, 1e-6, -0.0, None])
    app.queue.enqueue("m", "add", ['é\u2028/<>&"\\\n\u0001\u007f😀', "\ud800"])
    app.queue.enqueue("m", "add", [{"b": 1, "2": 1, "a": {}, "1": []}])

    assert members(one_redis, "resque:queues") == ["m", "math"]
    assert raw_list(one_redis, "resque:queue:math") == [
        b'{"class":"add","queue":"math","args":[1,2]}',
        b'{"class":"add","queue":"math","args":[]}',
    ]
    assert raw_list(one_redis, "resque:queue:m") == [
        b'{"class":"add","queue":"m","args":'
        b"[1,0.1,1e+21,100000000000000000000,1e-7,0.000001,0,null]}",
        '{"class":"add","queue":"m","args":'
        '["é\u2028/<>&\\"\\\\\\n\\u0001\u007f😀","\\ud800"]}'.encode(),
        b'{"class":"add","queue":"m","args":[{"1":[],"2":1,"b":1,"a":{}}]}',
    ]
    shared = [key for key in keys_like(one_redis, "*") if not key.startswith(b"resque:fr:")]
    assert sorted(shared) == [b"resque:queue:m", b"resque:queue:math", b"resque:queues"]


@pytest.mark.timeout(30, func_only=True)
def test_a_delayed_job_is_kept_under_the_keys_that_node_would_use(
    app: Forkresque, one_redis: Redis
) -> None:
    raw = b'{"class":"add","queue":"math","args":[1,2]}'
    app.queue.enqueue_at(4_000_000_010, "math", "add", [1, 2])
    app.queue.enqueue_at(4_000_000_010.499, "math", "add", [1, 2])  # never early

    assert one_redis.zrange("resque:delayed_queue_schedule", 0, -1, withscores=True) == [
        (b"4000000010", 4_000_000_010),
        (b"4000000011", 4_000_000_011),
    ]
    assert raw_list(one_redis, "resque:delayed:4000000010") == [raw]
    assert raw_list(one_redis, "resque:delayed:4000000011") == [raw]
    assert members(one_redis, f"resque:timestamps:{raw.decode()}") == [
        "delayed:4000000010",
        "delayed:4000000011",
    ]
    assert one_redis.exists("resque:queues", "resque:queue:math") == 0


@pytest.mark.timeout(30, func_only=True)
def test_a_worker_writes_the_records_that_node_and_ruby_read(
    begin: Begin, one_redis: Redis, ledger: Redis
) -> None:
    raw = '{"class":"hold","queue":"math","args":[[],0.1,"é/"]}'
    begun = int(time.time()) - 1
    begin(1)
    worker = members(one_redis, "resque:workers")[0]
    name = worker.removesuffix(":math")
    hold(one_redis, ledger, raw.encode())

    record = text(one_redis.get(f"resque:worker:{worker}"))
    ping = text(one_redis.get(f"resque:worker:ping:{name}"))
    started = text(one_redis.get(f"resque:worker:{worker}:started"))

    found = re.fullmatch(
        rf'{{"run_at":"{ISO_SECOND}","worker":"{re.escape(name)}","queue":"math",'
        rf'"payload":{re.escape(raw)}}}',
        record,
    )
    assert found, record
    signed = re.fullmatch(rf'{{"time":(\d+),"name":"{re.escape(name)}","queues":"math"}}', ping)
    assert signed, ping
    assert begun <= int(signed[1]) <= int(time.time()) + 1
    assert 0 < one_redis.ttl(f"resque:worker:ping:{name}") <= 60
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000", started)
    assert psutil.pid_exists(int(name.split(":")[1]))
    let_go(ledger, 1)
    wait_until(lambda: not one_redis.exists(f"resque:worker:{worker}"), "the record's end")
    assert one_redis.get(f"resque:stat:processed:{name}") == b"1"


@pytest.mark.timeout(30, func_only=True)
def test_a_failure_record_has_rubys_fields_in_nodes_bytes(
    begin: Begin, app: Forkresque, one_redis: Redis
) -> None:
    begin(1)
    worker = members(one_redis, "resque:workers")[0]
    app.queue.enqueue("math", "boom", ["é/\n"])
    wait_until(lambda: one_redis.llen("resque:failed"), "the failure")

    entry = text(one_redis.lindex("resque:failed", 0))

    found = re.fullmatch(
        rf'{{"failed_at":"{UTC_SECOND}",'
        r'"payload":{"class":"boom","queue":"math","args":\["é/\\n"\]},'
        r'"exception":"RuntimeError","error":"é/\\n","backtrace":(\[.+\]),'
        rf'"worker":"{re.escape(worker)}","queue":"math"}}',
        entry,
    )
    assert found, entry
    backtrace = json.loads(found[1])
    assert backtrace[0] == "Traceback (most recent call last):"
    assert "tests/support/jobs.py" in backtrace[1]
    assert encode(json.loads(entry)) == entry.encode()
    assert one_redis.get("resque:stat:failed") == b"1"
    assert one_redis.get("resque:stat:processed") is None
    assert one_redis.get(f"resque:stat:failed:{worker.removesuffix(':math')}") == b"1"

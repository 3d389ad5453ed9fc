"""No bytes in Redis or on the control socket stop anything, and none of them are lost.

One master, all of whose processes have to survive all of it. What is no job ends in the
failed list with its exact bytes, and the job behind it runs.
"""

import contextlib
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import psutil
import pytest
from click.testing import CliRunner

from forkresque.cli.program import program
from forkresque.errors import ExitCode
from forkresque.protocol.failure import parse_failure
from forkresque.protocol.keys import to_text
from forkresque.protocol.payload import PAYLOAD_LIMIT_BYTES
from forkresque.supervisor.control import ask
from tests.support.processes import Start
from tests.support.report import Report
from tests.support.rubbish import BAD, QUEUE_NAMES, WORKER_IDS, generated, good
from tests.support.servers import Server
from tests.support.site import KEYS, Site, idle_workers
from tests.support.sizes import sized
from tests.support.waiting import wait_until

PATIENCE = 25.0
SEED = 20261124


@dataclass
class Bench:
    """A master, and who has to be alive still after each test."""

    master: Start
    site: Site
    url: str
    alive: list[psutil.Process] = field(default_factory=list)

    def push(self, payloads: Sequence[bytes], queue: bytes = b"math") -> None:
        """Push payloads, some at a time."""
        key = b"resque:queue:" + queue
        self.site.redis.sadd(KEYS.queues(), queue)
        for at in range(0, len(payloads), 500):
            self.site.redis.rpush(key, *payloads[at : at + 500])

    def recorded(self) -> int:
        """Return the number of failure records."""
        return int(self.site.redis.llen(KEYS.failed()))

    def kept(self) -> Counter[bytes]:
        """Return the payloads of all failure records."""
        entries = self.site.redis.lrange(KEYS.failed(), 0, -1)
        return Counter(parse_failure(entry).payload for entry in entries)

    def next_job_runs(self, mark: str, queue: str = "math") -> None:
        """Fail unless a good job is done soon."""
        self.site.enqueue("note", mark, queue=queue)
        wait_until(lambda: mark in self.site.runs(), f"the job {mark}", PATIENCE)

    def run(self, *words: str) -> str:
        """Run a command of the command line; return what it has printed."""
        env = {
            "FORKRESQUE_REDIS_URL": self.url,
            "XDG_RUNTIME_DIR": str(self.master.runtime_directory),
        }
        result = CliRunner(env=env).invoke(program, list(words), prog_name="forkresque")
        assert result.exit_code == ExitCode.OK, f"{words}: {result.output[-2000:]}"
        assert "\x1b" not in result.stdout
        assert "Traceback" not in result.output
        return result.stdout


@pytest.fixture(scope="module")
def shared(ledger_server: Server) -> Iterator[Bench]:
    """Start the one master."""
    with (
        Server() as server,
        closing(server.client()) as redis,
        closing(ledger_server.client()) as book,
    ):
        env = {"LEDGER_URL": ledger_server.url}
        master = Start("-A", "tests.support.jobs", "-q", "*", "-c", "2", url=server.url, env=env)
        try:
            workers = idle_workers(master, 2)
            clerk = wait_until(lambda: master.children("clerk"), "a clerk")
            alive = [psutil.Process(master.pid), *workers, *clerk]
            wait_until(lambda: redis.get(KEYS.leader()), "a leader")
            yield Bench(master, Site(redis, book), server.url, alive)
        finally:
            master.stop()
            print(master.log()[-20_000:])
            master.remove()
    assert master.process.returncode == ExitCode.OK


@pytest.fixture
def bench(shared: Bench) -> Iterator[Bench]:
    """Return the bench with nothing in its queues; afterwards, everybody must be alive."""
    redis = shared.site.redis
    shared.site.ledger.flushall()
    redis.delete(KEYS.failed(), KEYS.stat("processed"), KEYS.stat("failed"))
    yield shared
    dead = [process.pid for process in shared.alive if not process.is_running()]
    assert not dead, f"{dead} of {shared.alive} ended"
    assert len(shared.master.children()) == len(shared.alive) - 1
    wait_until(lambda: shared.site.slots() == 0, "no job in hand")


# -- payloads ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("both_sizes")
def test_bad_payloads_fail_with_their_bytes_and_the_jobs_behind_them_run(
    bench: Bench, report: Report
) -> None:
    marks = [f"behind {label}" for label in BAD]
    for mark, raw in zip(marks, BAD.values(), strict=True):
        bench.push([raw])
        bench.site.enqueue("note", mark)

    wait_until(lambda: len(bench.site.runs()) == len(BAD), "all good jobs", PATIENCE)
    wait_until(lambda: bench.recorded() == len(BAD), "all bad jobs", PATIENCE)
    assert sorted(bench.site.runs()) == sorted(marks)
    assert bench.kept() == Counter(BAD.values())
    assert (bench.site.count("processed"), bench.site.count("failed")) == (len(BAD), len(BAD))
    report.count("bad inputs tried", len(BAD))


@pytest.mark.usefixtures("both_sizes")
def test_odd_jobs_run(bench: Bench) -> None:
    odd = [raw for number in range(2) for raw in good(f"odd {number}").values()]

    bench.push(odd)

    bench.site.await_processed(len(odd))
    assert Counter(bench.site.runs()) == {"odd 0": len(odd) // 2, "odd 1": len(odd) // 2}
    assert bench.recorded() == 0


@pytest.mark.parametrize("number", sized(2000, 20_000))
def test_generated_payloads_fail_with_their_bytes(
    bench: Bench, report: Report, number: int
) -> None:
    report.seed("generated payloads", SEED)
    payloads = [*generated(SEED, number)]

    bench.push(payloads)
    bench.next_job_runs("behind all of them")

    def ended() -> int:
        return bench.site.count("processed") + bench.site.count("failed")

    wait_until(lambda: ended() == number + 1, "the end of all", 10 * PATIENCE)
    kept = bench.kept()
    assert not kept - Counter(payloads), "a record keeps what nobody has pushed"
    survived = Counter(payloads) - kept
    assert survived.total() == len(bench.site.runs()) - 1  # a change that has hit the mark only
    assert bench.recorded() == bench.site.count("failed") >= number * 0.9
    report.count("bad inputs tried", number)


@pytest.mark.parametrize("megabytes", sized(12, 64))
def test_a_payload_beyond_the_limit_fails_with_its_bytes(
    bench: Bench, report: Report, megabytes: int
) -> None:
    raw = b'{"class":"note","args":["%b"]}' % (b"x" * megabytes * 2**20)
    assert len(raw) > PAYLOAD_LIMIT_BYTES

    bench.push([raw])
    bench.next_job_runs("behind it")

    wait_until(lambda: bench.recorded() == 1, "its record", PATIENCE)
    failure = parse_failure(bench.site.redis.lindex(KEYS.failed(), 0))
    assert failure.payload == raw
    assert failure.exception == "InvalidPayload"
    bench.run("failed", "list")
    report.count("bad inputs tried")


# -- delayed jobs ------------------------------------------------------------------------------


@pytest.mark.usefixtures("both_sizes")
def test_bad_payloads_in_a_bucket_fail_with_their_bytes(bench: Bench, report: Report) -> None:
    second = int(bench.site.redis.time()[0])
    bench.site.redis.rpush(KEYS.delayed(second), *BAD.values())
    bench.site.redis.zadd(KEYS.schedule(), {str(second): second})

    wait_until(lambda: bench.recorded() == len(BAD), "all bad jobs", PATIENCE)
    assert bench.kept() == Counter(BAD.values())
    assert bench.site.redis.zcard(KEYS.schedule()) == 0
    bench.next_job_runs("behind them")
    report.count("bad inputs tried", len(BAD))


@pytest.mark.usefixtures("both_sizes")
def test_a_schedule_of_rubbish_stops_no_promotion(bench: Bench, report: Report) -> None:
    redis = bench.site.redis
    second = int(redis.time()[0])
    members = [
        b"x",
        b"",
        b"1.5",
        b"-1",
        b"1e3",
        b"9" * 400,
        b"\xff",
        b"0x10",
        "\u0663".encode(),
        b" 1",
    ]
    future = [b"99999999999999999", b"9" * 18]
    redis.zadd(KEYS.schedule(), dict.fromkeys(members, second - 5))
    redis.zadd(KEYS.schedule(), dict.fromkeys(future, 1e300))
    redis.set(KEYS.delayed(second - 2), "a string")
    redis.sadd(KEYS.delayed(second - 1), "a set")
    redis.zadd(KEYS.schedule(), {str(second - 2): second - 2, str(second - 1): second - 1})
    redis.rpush(KEYS.delayed(second), *good("delayed").values())
    redis.zadd(KEYS.schedule(), {str(second): second})

    named = [raw for raw in good("delayed").values() if b'"queue":"' in raw]
    wait_until(lambda: len(bench.site.runs()) == len(named), "the jobs that are due", PATIENCE)
    wait_until(lambda: bench.recorded() == len(good("")) - len(named), "those without a queue")

    commands = redis.info("stats")["total_commands_processed"]
    began = time.monotonic()
    wait_until(lambda: time.monotonic() > began + 1.5, "a while in which nothing happens")
    rate = (redis.info("stats")["total_commands_processed"] - commands) / (time.monotonic() - began)
    redis.delete(KEYS.schedule(), KEYS.delayed(second - 2), KEYS.delayed(second - 1))
    assert rate < 100, "the scheduler runs hot over what nobody can promote"
    report.count("bad inputs tried", len(members) + len(future) + 2)


# -- what others read --------------------------------------------------------------------------


def look(bench: Bench) -> None:
    """Run every command that reads, over whatever is in Redis."""
    for words in (("status",), ("workers",), ("queues",), ("failed", "list")):
        bench.run(*words)
        bench.run("--json", *words)


@pytest.mark.usefixtures("both_sizes")
def test_the_command_line_shows_records_of_rubbish(bench: Bench, report: Report) -> None:
    redis = bench.site.redis
    entries = [*BAD.values(), *(b'{"payload":%b}' % raw for raw in BAD.values() if len(raw) < 500)]
    for entry in entries:
        redis.rpush(KEYS.failed(), entry)

    look(bench)
    redis.delete(KEYS.failed())
    small = [entry for entry in entries if len(entry) < 500]
    redis.rpush(KEYS.failed(), *small)
    for entry in small:
        bench.run("failed", "show", parse_failure(entry).id)

    bench.next_job_runs("beside rubbish")
    report.count("bad inputs tried", len(entries))


@pytest.mark.usefixtures("both_sizes")
def test_the_command_line_shows_workers_of_rubbish(bench: Bench, report: Report) -> None:
    redis = bench.site.redis
    records = [raw for raw in BAD.values() if len(raw) < 2**21]
    ids = [*WORKER_IDS, *(b"foreign:%d:math" % number for number in range(len(records)))]
    keys = [KEYS.worker(to_text(worker)) for worker in ids]
    redis.sadd(KEYS.workers(), *ids)
    for key, record in zip(keys[len(WORKER_IDS) :], records, strict=True):
        redis.set(key, record)
    redis.rpush(keys[0], "a list")
    pings = [b"resque:worker:ping:foreign:%d" % number for number in range(len(records))]
    redis.mset(dict(zip(pings, records, strict=True)))

    look(bench)
    bench.next_job_runs("beside rubbish")

    redis.srem(KEYS.workers(), *ids)
    redis.delete(*keys, *pings)
    report.count("bad inputs tried", len(ids) + len(pings))


@pytest.mark.usefixtures("both_sizes")
def test_jobs_in_queues_of_any_name_run(bench: Bench, report: Report) -> None:
    for name in QUEUE_NAMES:
        mark = f"in {name[:20]!r}"
        raw = f'{{"class":"note","args":[{json.dumps(mark)}]}}'.encode()
        bench.push([raw, b"bad"], queue=name)

    wait_until(lambda: len(bench.site.runs()) == len(QUEUE_NAMES), "the job of each", PATIENCE)
    wait_until(lambda: bench.recorded() == len(QUEUE_NAMES), "the failure of each", PATIENCE)
    look(bench)
    for entry in bench.site.redis.lrange(KEYS.failed(), 0, -1):
        bench.run("failed", "show", parse_failure(entry).id)
    bench.site.redis.srem(KEYS.queues(), *QUEUE_NAMES)
    report.count("bad inputs tried", len(QUEUE_NAMES))


@pytest.mark.usefixtures("both_sizes")
def test_queues_of_other_types_are_passed_over(bench: Bench, report: Report) -> None:
    redis = bench.site.redis
    makers: dict[bytes, Callable[[bytes], object]] = {
        b"string": lambda key: redis.set(key, "x"),
        b"hash": lambda key: redis.hset(key, "x", "y"),
        b"set": lambda key: redis.sadd(key, "x"),
        b"zset": lambda key: redis.zadd(key, {"x": 1}),
    }
    for name, make in makers.items():
        make(b"resque:queue:" + name)
    redis.sadd(KEYS.queues(), *makers)

    bench.next_job_runs("beside them")
    look(bench)

    redis.srem(KEYS.queues(), *makers)
    redis.delete(*(b"resque:queue:" + name for name in makers))
    report.count("bad inputs tried", len(makers))


@pytest.mark.parametrize("number", sized(10_000, 100_000))
def test_very_many_queue_names_slow_down_but_stop_nothing(
    bench: Bench, report: Report, number: int
) -> None:
    names = [b"queue %d" % each for each in range(number)]
    for at in range(0, number, 1000):
        bench.site.redis.sadd(KEYS.queues(), *names[at : at + 1000])
    try:
        bench.next_job_runs("among many", queue=f"queue {number - 1}")
        bench.run("queues")
    finally:
        bench.site.redis.delete(KEYS.queues())
    bench.next_job_runs("alone again")
    report.count("bad inputs tried", number)


# -- the control socket ------------------------------------------------------------------------


@pytest.mark.usefixtures("both_sizes")
def test_the_control_socket_takes_anything(bench: Bench, report: Report) -> None:
    path = bench.master.runtime_directory / "forkresque" / f"{bench.master.pid}.sock"
    said = [
        *(raw[:100_000] for raw in BAD.values()),
        b'{"verb":"status","timeout":[[]]}',
        b'{"verb":{"a":1}}',
        b'{"verb":"drain","timeout":1e999}',
        b'{"verb":"drain","timeout":"now"}',
        b'{"verb":"__class__"}',
        *generated(SEED, 200),
    ]
    for line in said:
        with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
            client.settimeout(5.0)
            client.connect(str(path))
            client.sendall(line + b"\n")
            answer = b"".join(iter(lambda: client.recv(65536), b""))
            assert answer.endswith(b"\n") or len(line) > 4000, line[:100]

    assert ask(path, "status")["wanted"] == 2
    assert not ask(path, "status")["draining"]
    bench.next_job_runs("after all that was said")
    report.count("bad inputs tried", len(said))

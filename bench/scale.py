"""How long do the operators' calls take at 10,000 and at 1,000,000, and how long does Redis block?

    python -m bench.scale            # 10,000 and 100,000
    python -m bench.scale --full     # 10,000 and 1,000,000; about five minutes, 2 GB

Of each call: the time it took its caller, the longest command or script by Redis' own SLOWLOG, and
how much longer it took with so many more. What returns or removes everything may take as many times
as long, nothing may take longer; what returns a page should take the same. Workers are 100 and
1,000.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis

from bench.harness.question import Plan, Question
from bench.harness.report import Report
from bench.harness.servers import server
from forkresque import Queue
from forkresque.cli.selection import Filters, newest_first
from forkresque.protocol.failure import failure_entry, parse_failure
from forkresque.protocol.keys import Keys

SMALL, MEDIUM, LARGE = 10_000, 100_000, 1_000_000
FEWER_WORKERS = 1000  # times fewer workers than jobs at the large size
MANY = 1000  # failed jobs that are put back
KEYS = Keys("resque")
FAR = 4_000_000_000
_CHUNK = 1000

Arrange = Callable[["redis.Redis", int], None]


@dataclass(frozen=True, slots=True)
class Call:
    """Something an operator asks of `size` things, and whether the answer grows with them."""

    name: str
    arrange: Arrange
    ask: Callable[[Queue, int], object]
    grows: bool
    keeps: bool = True  # what was arranged is there for the next one


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call took, in milliseconds."""

    taken_ms: float
    longest_ms: float


def job(number: int) -> bytes:
    """Return a payload; every second one is called `odd`."""
    return b'{"class":"%b","queue":"q","args":[%d]}' % (b"odd" if number % 2 else b"even", number)


def in_chunks(client: "redis.Redis", size: int, put: Callable[[Any, range], None]) -> None:
    """Put so many things into an empty Redis."""
    client.flushall()
    for start in range(0, size, _CHUNK):
        pipeline = client.pipeline(transaction=False)
        put(pipeline, range(start, min(start + _CHUNK, size)))
        pipeline.execute()


def queued(client: "redis.Redis", size: int) -> None:
    """Have so many jobs wait in one queue."""
    in_chunks(client, size, lambda pipe, part: pipe.rpush(KEYS.queue("q"), *map(job, part)))
    client.sadd(KEYS.queues(), "q")


def delayed(client: "redis.Redis", size: int) -> None:
    """Have so many jobs delayed, each to a second of its own."""

    def put(pipe: Any, part: range) -> None:
        for number in part:
            pipe.rpush(KEYS.delayed(FAR + number), job(number))
            pipe.sadd(KEYS.timestamps(job(number)), f"delayed:{FAR + number}")
        pipe.zadd(KEYS.schedule(), {str(FAR + number): FAR + number for number in part})

    in_chunks(client, size, put)


def failed(client: "redis.Redis", size: int) -> None:
    """Have so many failed jobs in the list of all."""

    def entry(number: int) -> bytes:
        return failure_entry(
            raw=job(number),
            exception="ValueError",
            error="no",
            backtrace=["job.py:1"],
            worker="host:1:q",
            queue="q",
            failed_at=1_795_000_000 + number,
        )

    in_chunks(client, size, lambda pipe, part: pipe.rpush(KEYS.failed(), *map(entry, part)))


def employed(client: "redis.Redis", size: int) -> None:
    """Have a worker for each thousand, every second one with a job."""

    def put(pipe: Any, part: range) -> None:
        for number in part:
            worker = f"host{number % 100}:{number}:q"
            pipe.sadd(KEYS.workers(), worker)
            if number % 2:
                record = b'{"run_at":"2026-11-24T02:45:08Z","queue":"q","payload":%b}'
                pipe.set(KEYS.worker(worker), record % job(number))

    in_chunks(client, max(size // FEWER_WORKERS, 100), put)


def crowded(client: "redis.Redis", size: int) -> None:
    """Have ten locks among so many keys of others."""
    in_chunks(client, size, lambda pipe, part: pipe.mset({f"other:{n}": n for n in part}))
    for number in range(10):
        client.set(KEYS.queue_lock("even", "q", b"[%d]" % number), "9")


def retry_some(queue: Queue, places: range) -> int:
    """Put failed jobs from some places of the list back on their queue, the oldest first."""
    entries = [queue.failures.entries(place, place)[0] for place in places]
    return sum(queue.retry_failed(parse_failure(entry)) for entry in entries)


def clear_some(queue: Queue, places: range) -> int:
    """Remove failed jobs from some places of the list, the oldest first."""
    entries = [queue.failures.entries(place, place)[0] for place in places]
    return sum(queue.remove_failed(parse_failure(entry)) for entry in entries)


def filtered(queue: Queue) -> int:
    """Look through all failed jobs for those that a filter lets through."""
    return sum(map(Filters(match="[77").accept, newest_first(queue)))


CALLS = (
    Call("length of a queue", queued, lambda q, _: q.length("q"), grows=False),
    Call(
        "20 jobs of its middle", queued, lambda q, n: q.peek("q", n // 2, n // 2 + 19), grows=False
    ),
    Call("delete one by value", queued, lambda q, n: q.delete("q", "even", [n // 4 * 2]), True),
    Call("... count=1", queued, lambda q, n: q.delete("q", "even", [n // 8 * 2], 1), True),
    Call("delete_by_function, half", queued, lambda q, _: q.delete_by_function("q", "odd"), True),
    Call("... the other half", queued, lambda q, _: q.delete_by_function("q", "even"), True, False),
    Call("delete_queue", queued, lambda q, _: q.delete_queue("q"), False, False),
    Call("delayed_count", delayed, lambda q, _: q.delayed_count(), True),
    Call("timestamps", delayed, lambda q, _: q.timestamps(), True),
    Call("all_delayed", delayed, lambda q, _: q.all_delayed(), True),
    Call("scheduled_at", delayed, lambda q, _: q.scheduled_at("q", "even", [500]), grows=False),
    Call("delayed_at", delayed, lambda q, _: q.delayed_at(FAR + 500), grows=False),
    Call("delete_delayed", delayed, lambda q, _: q.delete_delayed("q", "even", [500]), True, False),
    Call("failed_count", failed, lambda q, _: q.failed_count(), grows=False),
    Call("20 failed of the middle", failed, lambda q, n: q.failed(n // 2, n // 2 + 19), False),
    Call("look through all failed", failed, lambda q, _: filtered(q), True),
    Call(
        "retry one in the middle",
        failed,
        lambda q, n: retry_some(q, range(n // 2, n // 2 + 1)),
        True,
    ),
    Call(
        "remove one in the middle",
        failed,
        lambda q, n: clear_some(q, range(n // 2, n // 2 + 1)),
        True,
    ),
    Call(
        "retry one of the newest", failed, lambda q, n: retry_some(q, range(n - 50, n - 49)), False
    ),
    Call("retry the 1000 oldest", failed, lambda q, _: retry_some(q, range(MANY)), False),
    Call("remove the 1000 oldest", failed, lambda q, _: clear_some(q, range(MANY)), False),
    Call(
        "retry 1000 of all over",
        failed,
        lambda q, n: retry_some(q, range(0, n - MANY * 3, n // MANY)[:MANY]),
        True,
        False,
    ),
    Call("workers", employed, lambda q, _: q.workers(), True),
    Call("all_working_on", employed, lambda q, _: q.all_working_on(), True),
    Call("force_clean_worker", employed, lambda q, _: q.force_clean_worker("host1:1"), True),
    Call("clean_old_workers, all", employed, lambda q, _: q.clean_old_workers(0), True, False),
    Call("locks", crowded, lambda q, _: q.locks(), True),
    Call("stats", crowded, lambda q, _: q.stats(), True, False),
)


def cost(client: "redis.Redis", queue: Queue, call: Call, size: int) -> Cost:
    """Return what one call takes; it is connected and its scripts are loaded."""
    queue.length("none")
    client.slowlog_reset()
    began = time.perf_counter()
    call.ask(queue, size)
    taken = time.perf_counter() - began
    entries: Any = client.slowlog_get(128)
    longest = max((entry["duration"] for entry in entries), default=0)
    return Cost(taken * 1000, longest / 1000)


def at_size(size: int) -> dict[str, Cost]:
    """Return what each call costs with so many."""
    found = {}
    with server() as redis_server, redis_server.client() as client:
        client.config_set("slowlog-log-slower-than", 50)
        client.config_set("slowlog-max-len", 100_000)
        queue = Queue(redis_server.url)
        arranged: Arrange | None = None
        for call in CALLS:
            if arranged is not call.arrange:
                call.arrange(client, size)
            found[call.name] = cost(client, queue, call, size)
            arranged = call.arrange if call.keeps else None
        queue.end()
    return found


def measure(plan: Plan, report: Report) -> None:
    """Ask everything at two sizes."""
    sizes = (SMALL, LARGE if plan.full else MEDIUM)
    small, large = map(at_size, sizes)
    times, rows = sizes[1] / sizes[0], []
    for call in CALLS:
        one, other = small[call.name], large[call.name]
        growth = other.taken_ms / one.taken_ms
        grows = "as there are more" if call.grows else "no"
        rows.append(
            [
                call.name,
                f"{one.taken_ms:,.1f}",
                f"{other.taken_ms:,.1f}",
                f"{growth:,.1f}",
                grows,
                f"{other.longest_ms:,.1f}",
            ]
        )
        report.figure(
            call.name, sizes=sizes, ms=[one.taken_ms, other.taken_ms], longest_ms=other.longest_ms
        )
    head = [f"{sizes[0]:,}, ms", f"{sizes[1]:,}, ms", "times", "may grow", "longest in Redis, ms"]
    report.table(f"{times:,.0f} times as many", ["", *head], rows)
    report.note("one run of each: times of less than a millisecond say little")


QUESTION = Question("scale", "What operators' calls cost with very much in Redis", measure)

if __name__ == "__main__":
    QUESTION.main()

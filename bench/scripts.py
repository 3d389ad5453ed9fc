"""What does a settle that brings the next job cost inside Redis, and what did other designs cost?

    python -m bench.scripts

Redis' own count of microseconds a call (`INFO commandstats`), of calls sent in batches of a
hundred: no network, no switch between processes. Every design does the same work: one worker, one
queue, small jobs. Those that are not ours are ours with a part replaced, or written down here.
"""

from collections.abc import Mapping
from importlib import resources
from itertools import pairwise
from typing import Any

import redis

from bench.harness.question import Plan, Question
from bench.harness.report import Report
from bench.harness.rounds import Spread, interleaved, paired
from bench.harness.servers import fill, server
from bench.peers.classic_script import SOURCE
from forkresque.protocol.claims import WorkerId
from forkresque.protocol.keys import Keys
from forkresque.protocol.payload import record_head
from forkresque.protocol.script import Script

JOBS, BATCH = 10_000, 100
TOKEN = b"0123456789abcdef.0123456789abcdef.%d"
QUEUE = "bench"
KEYS = Keys("resque")
WORKER = WorkerId("host", 123, (QUEUE,))
MASTER = "host:1:0123456789abcdef"

NOTHING = """
-- KEYS slot record last processed processed_by workers lease pause paused suspects audit list*
-- ARGV worker token next keep head name_and_label*
return {"", 1, "{}"}
"""
SLOT_IS_STRING = """local held = redis.call("GET", slot)
if not held or string.sub(held, 1, #token + 1) ~= token .. "\\n" then return end"""
SLOT_IS_HASH = """local held = redis.call("HGET", slot, "token")
if held ~= token then return end"""
STRING_SET = '  redis.call("SET", slot, next .. "\\n" .. #name .. "\\n" .. name .. raw)'
HASH_SET = '  redis.call("HSET", slot, "token", next, "queue", name, "raw", raw)'
ONE_QUESTION = (
    'if redis.call("EXISTS", lease, lease, lease, lease, pause, paused, suspects) ~= 4 '
    "then return end"
)
FOUR_QUESTIONS = """if redis.call("EXISTS", lease) == 0 then return end
if redis.call("GET", pause) then return end
if #redis.call("SMEMBERS", paused) > 0 then return end
if redis.call("EXISTS", suspects) == 1 then return end"""
COUNTED = """if type(redis.pcall("INCR", processed)) == "table" then bad = processed end
if type(redis.pcall("INCR", processed_by)) == "table" then bad = processed_by end"""


def text_of(name: str) -> str:
    """Return a script of ours as it is written."""
    return resources.files("forkresque.protocol").joinpath(f"lua/{name}.lua").read_text("utf-8")


def done_with(*parts: tuple[str, str]) -> str:
    """Return our short settle with parts of its text replaced, which must be there."""
    text = text_of("done")
    for old, new in parts:
        if text.count(old) != 1:
            raise SystemExit(f"done.lua has changed: it holds {old!r} not once")
        text = text.replace(old, new)
    return text


def designs() -> dict[str, Script]:
    """Return every design by name, ours first."""
    texts = {
        "done (ours)": text_of("done"),
        "settle (ours, in full)": text_of("settle"),
        "the slot is a hash": done_with((SLOT_IS_STRING, SLOT_IS_HASH), (STRING_SET, HASH_SET)),
        "four questions for one": done_with((ONE_QUESTION, FOUR_QUESTIONS)),
        "counters left to others": done_with((COUNTED, "")),
        "the record unchecked": done_with(("shown(raw)", "raw")),
        "classic pop and record": SOURCE,
        "a script that does nothing": NOTHING,
    }
    return {name: Script(name, text) for name, text in texts.items()}


def values(token: bytes, following: bytes) -> Mapping[str, Any]:
    """Return what any of them may take."""
    wid = str(WORKER)
    single = ("workers", "schedule", "audit", "suspects", "queues")
    return {
        **{name: getattr(KEYS, name)() for name in single},
        "slot": KEYS.slot(wid),
        "record": KEYS.worker(wid),
        "last": KEYS.last(wid),
        "processed": KEYS.stat("processed"),
        "failures": KEYS.stat("failed"),
        "processed_by": KEYS.stat("processed", WORKER.name),
        "failures_by": KEYS.stat("failed", WORKER.name),
        "lease": KEYS.lease(MASTER),
        "pause": KEYS.pause_all(),
        "paused": KEYS.paused_queues(),
        **KEYS.failing(""),
        "target": KEYS.slot(wid),
        "timestamps": KEYS.slot(wid),
        "second": 0,
        "forget": 0,
        "worker": wid,
        "outcome": "DONE",
        "entry": "",
        "digest": "",
        "order": "",
        "done": 1,
        "label": f'"{QUEUE}"',
        "keep": 0,
        "token": token,
        "next": following,
        "head": record_head(WORKER.name, 1),
        "list": [KEYS.queue(QUEUE)],
        "name_and_label": [QUEUE, f'"{QUEUE}"'],
    }


def calls(script: Script) -> list[bytes]:
    """Return all the calls of a run, packed."""
    tokens = [TOKEN % number for number in range(JOBS + 1)]
    packed = []
    for token, following in pairwise(tokens):
        given = values(token, following)
        packed.append(script.pack(**{name: given[name] for name in script.names}).by_digest)
    return packed


def microseconds(client: "redis.Redis", script: Script, packed: list[bytes]) -> float:
    """Return what one call takes in Redis. Every call must bring a job."""
    client.flushall()
    client.sadd(KEYS.workers(), str(WORKER))
    client.set(KEYS.lease(MASTER), 1)
    fill(client, "noop", JOBS + 1)
    slot = KEYS.slot(str(WORKER))
    if "hash" in script.name:
        client.hset(slot, "token", TOKEN % 0)
    else:
        client.set(slot, TOKEN % 0 + b"\n5\nbench{}")
    client.script_load(script.source)
    client.config_resetstat()
    connection: Any = client.connection_pool.get_connection()
    for start in range(0, JOBS, BATCH):
        batch = packed[start : start + BATCH]
        connection.send_packed_command(batch)
        if not all(connection.read_response() for _ in batch):
            raise SystemExit(f"{script.name} brought no job")
    client.connection_pool.release(connection)
    stats: Any = client.info("commandstats")
    return float(stats["cmdstat_evalsha"]["usec_per_call"])


def measure(plan: Plan, report: Report) -> None:
    """Ask everybody in turns."""
    scripts = designs()
    packed = {name: calls(script) for name, script in scripts.items()}
    with server() as found, found.client() as client:
        results = dict(
            interleaved(
                list(scripts),
                plan.rounds,
                lambda name: microseconds(client, scripts[name], packed[name]),
            )
        )
    ours = results["done (ours)"]
    rows = []
    for name, runs in results.items():
        spread, ratio = Spread.of(runs), paired(runs, ours)
        size = len(packed[name][1])
        rows.append([name, spread.told(",.1f"), f"{ratio.median:.2f}", str(size)])
        report.figure(name, us=spread.as_json(), ratio=ratio.as_json(), request_bytes=size)
    report.table("one queue", ["design", "us in Redis", "to ours", "bytes of a request"], rows)


QUESTION = Question("scripts", "What a settle costs inside Redis", measure, rounds=7)

if __name__ == "__main__":
    QUESTION.main()

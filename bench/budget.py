"""Where does the worker's time for one no-op job go, line by line?

    python -m bench.budget

In this process, on its CPU clock, without Redis: the connection answers from memory with the next
job. So these are warm figures of Python alone; a worker that sleeps between question and answer
finds its caches cold and takes about twice as long for them. What the question itself takes, over
a real connection to a real server, stands below.
"""

import io
import logging
import os
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

os.environ.setdefault("BENCH_REDIS", "redis://127.0.0.1:1/0")  # which nobody asks here

from bench.harness.question import Plan, Question
from bench.harness.report import Report
from bench.harness.rounds import Spread, interleaved
from bench.harness.servers import server
from bench.peers.alone_jobs import QUEUE, app
from forkresque.aftermath import Aftermath
from forkresque.performer import DONE
from forkresque.protocol.claims import Claimed, Outcome
from forkresque.protocol.connection import Link, Target
from forkresque.protocol.payload import encode_job, parse
from forkresque.protocol.script import Call, pack
from forkresque.worker import Worker

TIMES = 20_000
TOKEN = b"0123456789abcdef.0123456789abcdef.12"
RAW = encode_job(QUEUE, "nothing", [])
JOB = Claimed(TOKEN, QUEUE, RAW, suspect=False)

Piece = Callable[[], object]


class Memory(Link):
    """A connection that knows the answer."""

    def call(self, call: Call, *, armed: bool = False) -> Any:
        """Return the answer to a settle that brings a job."""
        return [b"", 1, RAW]


def pieces() -> dict[str, Piece]:
    """Return what a job consists of, each part below the whole that it is in."""
    worker: Any = Worker(os.environ["BENCH_REDIS"], app.jobs, queues=[QUEUE])
    link: Any = Memory(worker.connection.target, tracking=True)
    link.tracking = True
    worker._link = worker._claims._link = worker._rota._link = link
    worker._clock._asked_at = time.monotonic() + 1e6
    worker._rota.refresh()
    aftermath = Aftermath(link.parts(), footing=worker._station.footing)
    definition, claims, chance = app.jobs["nothing"], worker._claims, worker._chance()

    def put_in_order() -> None:
        aftermath.begin(None)
        aftermath.clear()

    return {
        "one job, from answer to question": partial(worker._carry_out, JOB, aftermath),
        "- perform": partial(worker.performer.perform, JOB),
        "-- read the payload": partial(parse, RAW),
        "-- begin: scoreboard, title": partial(worker.performer._begin, JOB, definition),
        "-- call the function": partial(worker.performer._run, definition, definition.run, []),
        "- put in order what it left (7 system calls)": put_in_order,
        "- settle": partial(worker._settle, JOB, DONE),
        "-- ask whether to claim, a token": worker._chance,
        "-- the settle itself": partial(
            claims.settle, JOB, Outcome.DONE, now=1.0, next_token=chance[0]
        ),
        "--- fill the packed call": partial(claims._done.fill, TOKEN, TOKEN, b"x" * 60),
        "beside it: one line of logging": partial(_logger().info, "job=%s", "noop"),
        "beside it: time.monotonic_ns": time.monotonic_ns,
        "beside it: os.getpid": os.getpid,
        "beside it: one word of the scoreboard": partial(setattr, worker._seat, "beat_ns", 1),
    }


def _logger() -> logging.Logger:
    found = logging.getLogger("bench.budget")
    found.setLevel(logging.INFO)
    found.propagate = False
    found.addHandler(logging.StreamHandler(io.StringIO()))
    return found


def cpu_us(piece: Piece, times: int = TIMES) -> float:
    """Return the CPU time of one call in microseconds."""
    began = time.process_time()
    for _ in range(times):
        piece()
    return (time.process_time() - began) / times * 1e6


def measure(plan: Plan, report: Report) -> None:
    """Ask for each piece in turns."""
    parts = pieces()
    told(report, "Python alone, warm", parts, plan.rounds)
    source = "return {'', 1, '" + RAW.decode() + "'}"
    with server() as found, found.client() as client:
        words = ("EVALSHA", client.script_load(source), 0, "x" * 560)
        call = Call(pack(*words), pack("EVAL", source, *words[2:]), b"")
        asked: dict[str, Piece] = {}
        links = [(url, Target(url).link(tracking=True)) for url in (found.tcp_url, found.url)]
        with closing(links[0][1]), closing(links[1][1]):
            for url, link in links:
                asked[f"ask and hear, {url.partition(':')[0]}"] = partial(link.call, call)
            told(report, "a question of 640 bytes to Redis, client's side", asked, plan.rounds)


def told(report: Report, caption: str, parts: dict[str, Piece], rounds: int) -> None:
    """Measure some pieces and tell them."""
    found = interleaved(list(parts), rounds, lambda name: cpu_us(parts[name]))
    rows = []
    for name, runs in found:
        spread = Spread.of(runs)
        rows.append([name, f"{spread.low:.2f}", f"{spread.median:.2f}"])
        report.figure(name, us=spread.as_json())
    report.table(caption, ["", "least us", "median us"], rows)


QUESTION = Question("budget", "The budget of a no-op job", measure, rounds=5)

if __name__ == "__main__":
    QUESTION.main()

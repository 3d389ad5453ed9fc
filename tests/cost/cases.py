"""What is counted in instructions: each a thing that is done often, ready to be done once more.

Each makes its own state and is the same each time. The references are what the rest is held
against, so that another build of Python changes little.
"""

import json
from collections.abc import Callable, Sequence
from itertools import count, cycle
from typing import Any

from forkresque.order import Order
from forkresque.policy.autoscale import Autoscaler, Sample
from forkresque.policy.backoff import Backoff
from forkresque.policy.child import Child, Kind
from forkresque.policy.judgement import Judge
from forkresque.policy.orders import Turns
from forkresque.policy.queues import expand
from forkresque.policy.silence import Silence
from forkresque.protocol.canonical import encode
from forkresque.protocol.claims import Tokens
from forkresque.protocol.failure import failure_entry
from forkresque.protocol.keys import Keys
from forkresque.protocol.payload import digest, encode_job, parse, record_head
from forkresque.protocol.script import VARYING, Prepared, load
from tests.support.crews import facts_of, idle, ready_crew

Doing = Callable[[], object]

ARGS = [12345, "a@example.org", {"subject": "hello", "urgent": True, "score": 0.5}, [1, 2, 3]]
JOB = {"class": "mail.send", "queue": "mail", "args": ARGS}
RAW = json.dumps(JOB, separators=(",", ":")).encode()
NOOP = b'{"class":"noop","queue":"cost","args":[]}'
QUEUES = tuple(f"queue{number}" for number in range(8))
SAMPLE_EVERY = 0.25


def cases() -> dict[str, Doing]:
    """Return everything, by the names of the budget."""
    return references() | of_the_wire() | of_policies()


def references() -> dict[str, Doing]:
    return {
        "loop": loop,
        "dumps": lambda: json.dumps(JOB),
        "loads": lambda: json.loads(RAW),
    }


def loop() -> int:
    """Do a little of what Python does all the time."""
    total = 0
    for number in range(100):
        total += number % 7
    return total


def ten(run: Doing) -> Doing:
    """Do what is short ten times, so that what is around it weighs little."""
    return lambda: [run() for _ in range(10)]


def of_the_wire() -> dict[str, Doing]:
    seconds, tokens = count(1_795_000_000), Tokens("host:1:aaaa")
    name, prepared = "host.example.org:12345", prepared_done()
    token, head = tokens.fresh(), record_head(name, 1_795_000_000)
    return {
        "encode": lambda: encode(ARGS),
        "encode with a float that JavaScript writes otherwise": lambda: encode([1e21, "a"]),
        "encode_job": lambda: encode_job("mail", "mail.send", ARGS),
        "encode_job of a no-op": lambda: encode_job("cost", "noop", ()),
        "parse": lambda: parse(RAW),
        "parse a no-op": lambda: parse(NOOP),
        "digest": lambda: digest(RAW),
        "record_head": lambda: record_head(name, next(seconds)),
        "ten fresh tokens": ten(tokens.fresh),
        "fill": lambda: prepared.fill(token, token, head),
        "by_digest": lambda: prepared.fill(token, token, head).by_digest,
        "failure_entry": lambda: failure_entry(
            raw=RAW,
            exception="ValueError",
            error="it broke",
            backtrace=["a.py:1:in f", "b.py:2:in g"],
            worker=name,
            queue="mail",
            failed_at=1_795_000_000.0,
        ),
    }


def prepared_done() -> Prepared:
    """Return the call that settles a job and claims the next one, as a worker prepares it."""
    script, keys = load("done"), Keys("resque")
    values: dict[str, Any] = {name: keys.queue(name) for name in script.names}
    values |= {"list": [keys.queue("a")], "name_and_label": ["a", '"a"']}
    values |= dict.fromkeys(("token", "next", "head"), VARYING)
    return script.prepare(**values)


def of_policies() -> dict[str, Doing]:
    strict, fair, weighed = (turns(order) for order in ("strict", "round_robin", {"queue1": 6}))
    crew, backoff, silence = (
        ready_crew(8),
        Backoff(first=0.1, most=2.0),
        Silence(60.0, patience=5.0),
    )
    facts = facts_of(crew)
    signs = {f"host:{number}": b"1" for number in range(50)}
    judge, child = Judge(), Child(1, Kind.WORKER, 0.0)
    return {
        "crew.plan of eight": lambda: crew.plan(1.0, facts),
        "crew.next_step_at of eight": lambda: crew.next_step_at(1.0, facts),
        "judge a worker": lambda: [*judge.judge(child, idle(), 1.0)],
        "autoscaler, a second of work": scaled(waiting=100, busy=8, resting=0),
        "autoscaler, a second at rest": scaled(waiting=0, busy=0, resting=8),
        "expand": lambda: expand(("urgent", "queue*", "!queue7"), QUEUES),
        "expand a star": lambda: expand(("*",), QUEUES),
        "ten times places, strict": ten(strict.places),
        "places, round robin": fair.places,
        "places, by weight": weighed.places,
        "ten times backoff": ten(lambda: backoff.next(jitter=0.5)),
        "silence of fifty": lambda: silence.judge(1.0, signs),
    }


def turns(order: str | dict[str, int]) -> Turns:
    chances = cycle((0.1, 0.7, 0.4))
    made = Turns(Order.of(order), lambda: next(chances))
    made.poll(QUEUES)
    made.served("queue3")
    return made


def scaled(*, waiting: int, busy: int, resting: int) -> Doing:
    """Return what lives through a second of an elastic pool that stays as large as it can be."""
    scaler, samples = Autoscaler(8, 8), count(1)

    def second() -> Sequence[object]:
        return [
            scaler.step(
                Sample(
                    now=number * SAMPLE_EVERY,
                    waiting=waiting,
                    busy=busy,
                    idle=resting,
                    booting=0,
                    busy_seconds=busy * number * SAMPLE_EVERY,
                    served=busy * number * SAMPLE_EVERY,
                    completed=busy * number,
                    cores=2.0,
                    cpu_used=busy * number * 0.1,
                    run=busy * number * 0.1,
                    wait=0.0,
                )
            )
            for number in (next(samples) for _ in range(4))
        ]

    return second

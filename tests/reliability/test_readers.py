"""Every reader of what comes out of Redis, or from another process, against invented data.

A reader raises nothing but what its docstring says, and what was written reads back the same.
The unit tests have some of the same for a few hundred examples; here are all readers, and in
the full size thousands of examples for each.
"""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from forkresque import processes
from forkresque.cli.queues import _described as queue_row
from forkresque.cli.workers import _described as worker_row
from forkresque.errors import BadKey, InvalidArgs, InvalidPayload, RedisRefused
from forkresque.policy.queues import expand
from forkresque.protocol.canonical import decode, encode, reencode
from forkresque.protocol.delayed import BATCH, Delayed
from forkresque.protocol.failure import failure_entry, parse_failure
from forkresque.protocol.foreign import cleaning_entry, is_cleaning_of, run_second
from forkresque.protocol.keys import Keys, second_of, to_bytes, to_text
from forkresque.protocol.ownership import Owner, name_of
from forkresque.protocol.payload import encode_job, parse
from forkresque.protocol.registry import Registry
from forkresque.protocol.script import Call, load
from forkresque.protocol.staff import queues_of, shown_record
from forkresque.protocol.store import Request, Store, check_server
from forkresque.supervisor.messages import Ready, receive, send
from tests.support.report import Report
from tests.support.rubbish import BAD
from tests.support.sizes import sized

EXAMPLES = sized(40, 600)
KEYS = Keys("resque")

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["class", "args", "queue", "payload", "run_at", "worker", "forkresque", "raw", "error", "time"]
)
NEARLY = st.dictionaries(FIELDS, JSON | st.dictionaries(FIELDS, JSON), max_size=8).map(
    lambda value: json.dumps(value).encode()
)
LEGACY = st.sampled_from([raw for raw in BAD.values() if len(raw) < 5000])
BYTES = st.binary() | NEARLY | LEGACY | JSON.map(lambda value: json.dumps(value).encode())
NUMBERS = st.integers().map(str) | st.sampled_from(
    ["1_0", "+1", " 1", "\u0663", "²", "9" * 5000, ""]
)
WORDS = st.text() | NUMBERS


def explore(examples: int, data: st.SearchStrategy[Any], check: Callable[[Any], object]) -> None:
    """Try a check on so many examples, the same ones each time."""

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # to shrink one that fails may take longer than a test may
    )
    @given(data)
    def run(example: Any) -> None:
        check(example)

    run()


class Canned:
    """A Redis that answers each command with what it was made with."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = answers
        self.tracking = False

    def command(self, *words: Any, armed: bool = False) -> Any:
        return self.answers.get(str(words[0]))

    def call(self, call: Call) -> Any:
        scripts = {load(name).digest.encode(): name for name in self.answers if name.islower()}
        name = next(name for digest, name in scripts.items() if digest in call.digest_head)
        return self.answers[name]

    def commands(self, *commands: tuple[Any, ...]) -> list[Any]:
        return [self.command(*words) for words in commands]


def counts(value: bytes) -> dict[str, int]:
    """Return what the store makes of a counter."""
    client: Any = Canned({"GET": value})
    return Store(client, KEYS).counts()


# -- readers that say which error they raise ---------------------------------------------------

Reader = Callable[[Any], object]
READERS: dict[str, tuple[st.SearchStrategy[Any], Reader, tuple[type[Exception], ...]]] = {
    "payload.parse": (BYTES, parse, (InvalidPayload,)),
    "canonical.decode": (BYTES, decode, (InvalidPayload,)),
    "parse_failure": (BYTES, parse_failure, ()),
    "cleaning_entry": (
        BYTES,
        lambda record: cleaning_entry(record, "h:1", host="h", failed_at=0.0),
        (),
    ),
    "is_cleaning_of": (
        st.tuples(BYTES, BYTES),
        lambda pair: is_cleaning_of(parse_failure(pair[0]), ("h:1",), "q", pair[1]),
        (),
    ),
    "run_second": (
        BYTES | WORDS.map(lambda text: json.dumps({"run_at": text}).encode()),
        run_second,
        (),
    ),
    "shown_record": (BYTES, lambda record: shown_record("h:1", record), ()),
    "queues_of": (WORDS, queues_of, ()),
    "second_of": (st.binary() | NUMBERS.map(str.encode), second_of, ()),
    "Owner.parse": (
        WORDS | st.tuples(WORDS, WORDS, WORDS).map(" ".join),
        Owner.parse,
        (ValueError,),
    ),
    "Request.parse": (
        WORDS | st.tuples(WORDS, WORDS).map(":".join),
        Request.parse,
        (ValueError,),
    ),
    "name_of": (st.text(), name_of, ()),
    "expand": (
        st.tuples(st.lists(st.text(max_size=5), max_size=3), st.lists(st.text(), max_size=5)),
        lambda pair: expand(*pair),
        (),
    ),
    "check_server": (
        st.binary() | NUMBERS.map(str.encode),
        lambda known: check_server(Canned({"GET": known, "INFO": b""}), "resque"),  # type: ignore[arg-type]
        (RedisRefused,),
    ),
    "counters": (st.binary() | NUMBERS.map(str.encode), counts, ()),
    "a row of workers": (BYTES, lambda record: worker_row("h:1:q", record), ()),
    "a row of a queue": (BYTES, queue_row, ()),
}


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("name", READERS)
def test_a_reader_raises_only_what_it_says(name: str, examples: int, report: Report) -> None:
    data, read, allowed = READERS[name]

    def check(example: Any) -> None:
        with contextlib.suppress(*allowed):
            read(example)

    explore(examples, data, check)
    report.count("bad inputs tried", examples)


# -- of processes ------------------------------------------------------------------------------

HERE = processes.describe(os.getpid())
PLACE = " ".join(HERE.split(" ")[:2])


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_lease_of_any_text_is_judged(examples: int, report: Report) -> None:
    """Whoever can write a lease must not end the clerk that looks at it."""

    def check(described: str) -> None:
        alive = processes.is_ours_to_judge(described) and processes.is_described_alive(described)
        assert not alive or described == HERE

    local = st.lists(WORDS, max_size=4).map(lambda words: " ".join([PLACE, *words]))
    explore(examples, st.text() | local | st.just(HERE), check)
    report.count("bad inputs tried", examples)


# -- of slots ----------------------------------------------------------------------------------

TOKENS = st.text(st.characters(codec="ascii", exclude_characters="\n"), min_size=1)
NAMES = st.binary(max_size=40).map(to_text)


def held(slot: bytes | None, owner: bytes = b"m 1 1") -> Any:
    """Return what the registry reads from a worker's slot."""
    canned = Canned({"GET": slot, "HKEYS": [], "SISMEMBER": 1, "LRANGE": []})
    return Registry(canned, KEYS).held("h:1:q")


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_slot_reads_back_as_it_was_written(examples: int, report: Report) -> None:
    def check(example: tuple[str, str, bytes]) -> None:
        token, queue, raw = example
        name = to_bytes(queue)
        found = held(b"%b\n%d\n%b%b" % (token.encode(), len(name), name, raw))
        assert (found.token, found.queue, found.raw) == example

    explore(examples, st.tuples(TOKENS, NAMES, BYTES), check)
    report.count("bad inputs tried", examples)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_slot_of_rubbish_is_a_bad_key(examples: int, report: Report) -> None:
    """The clerk goes on after a BadKey; anything else would end it, again and again."""

    def check(slot: bytes) -> None:
        with contextlib.suppress(BadKey):
            found = held(slot)
            assert found.raw == slot[len(slot) - len(found.raw) :]

    sizes = NUMBERS.map(str.encode) | st.binary(max_size=3)
    framed = st.tuples(st.binary(max_size=9), sizes, st.binary()).map(b"\n".join)
    explore(examples, st.binary() | framed, check)
    report.count("bad inputs tried", examples)


# -- of the schedule ---------------------------------------------------------------------------


def delayed(**answers: Any) -> Delayed:
    """Return the delayed jobs of a Redis that answers so."""
    canned: Any = Canned({"TIME": (b"1000", b"0"), **answers})
    return Delayed(canned, KEYS)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_bucket_of_rubbish_is_due_to_fail(examples: int, report: Report) -> None:
    def check(found: list[bytes]) -> None:
        (bucket,), _ = delayed(read_due=[found]).batch([1])
        for raw, due in zip(found, bucket.jobs, strict=True):
            assert due.payload == raw
            if due.entry:
                assert parse_failure(due.entry).payload == raw
            else:
                assert due.queue == parse(raw).queue

    explore(examples, st.lists(BYTES, max_size=4), check)
    report.count("bad inputs tried", examples)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_schedule_of_rubbish_names_only_seconds(examples: int, report: Report) -> None:
    def check(members: list[bytes]) -> None:
        (seconds,) = delayed(ZRANGEBYSCORE=members).due()
        assert seconds == [
            int(m) for m in members if m.lstrip(b"-").isdigit() and second_of(m) is not None
        ]

    rubbish = st.binary(max_size=20) | NUMBERS.map(str.encode)
    explore(examples, st.lists(rubbish, max_size=BATCH - 1), check)
    report.count("bad inputs tried", examples)


# -- between processes -------------------------------------------------------------------------


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_packet_of_rubbish_is_no_message_and_keeps_none_from_coming(
    examples: int, report: Report
) -> None:
    """A job can write into any descriptor of its worker, also into that to the master."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kinds = st.sampled_from(["Ready", "Wake", "Died", "Settled", "Interrupted", "Nobody"])
    shaped = st.fixed_dictionaries(
        {}, optional={"kind": kinds | JSON, "epoch": JSON, "dump": JSON, "worker": JSON}
    ).map(lambda value: json.dumps(value).encode())
    with ours, theirs:
        theirs.setblocking(False)

        def check(packet: bytes) -> None:
            ours.send(packet or b"x")
            send(ours, Ready())
            assert receive(theirs)[-1:] == [Ready()]

        explore(examples, BYTES.filter(lambda raw: len(raw) < 50_000) | shaped, check)
    report.count("bad inputs tried", examples)


# -- what was written reads back ---------------------------------------------------------------


def owner_comes_back(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert str(Owner.parse(text)) == text


def request_comes_back(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert str(Request.parse(text)) == text


def second_comes_back(second: int) -> None:
    assert second_of(b"%d" % second) == (second if abs(second) < 10**18 else None)


def name_comes_back(raw: bytes) -> None:
    assert to_bytes(to_text(raw)) == raw


def value_comes_back(value: object) -> None:
    assert reencode(decode(encode(value))) == encode(value)


def job_comes_back(example: tuple[str, str, list[object]]) -> None:
    queue, name, args = example
    with contextlib.suppress(InvalidArgs):
        found = parse(encode_job(queue, name, args))
        assert (found.name, found.args) == (name, decode(encode(args)))


def failure_comes_back(raw: bytes) -> None:
    entry = failure_entry(
        raw=raw, exception="E", error="e", backtrace=[], worker="w", queue="q", failed_at=0.0
    )
    assert parse_failure(entry).payload == raw


ROUNDS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], None]]] = {
    "Owner": (WORDS | st.tuples(WORDS, NUMBERS, NUMBERS).map(" ".join), owner_comes_back),
    "Request": (WORDS | st.tuples(WORDS, NUMBERS).map(":".join), request_comes_back),
    "second": (st.integers(-(10**19), 10**19), second_comes_back),
    "name": (st.binary(), name_comes_back),
    "value": (JSON.filter(lambda value: "Infinity" not in json.dumps(value)), value_comes_back),
    "job": (st.tuples(st.text(), st.text(), st.lists(JSON, max_size=4)), job_comes_back),
    "failure": (BYTES, failure_comes_back),
}


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("name", ROUNDS)
def test_what_was_written_reads_back_the_same(name: str, examples: int, report: Report) -> None:
    explore(examples, *ROUNDS[name])
    report.count("bad inputs tried", examples)

"""Running one job: whatever it does, the worker learns how it ended and goes on."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from forkresque.errors import InvalidArgs, InvalidPayload, JobAborted, JobTimeout, UnknownJob
from forkresque.events import WORKER_EVENTS, Emitter
from forkresque.jobs import Definition, define
from forkresque.performer import HARD_GRACE, Ended, Performer, entry_for
from forkresque.protocol.claims import Claimed, Outcome
from forkresque.protocol.failure import BACKTRACE_LIMIT, ERROR_LIMIT, Failure, parse_failure
from forkresque.protocol.payload import decoded, encode_job
from forkresque.scoreboard import Phase, Role, Scoreboard, Seat


@pytest.fixture
def seat() -> Iterator[Seat]:
    board = Scoreboard(1)
    board.seats[0].take(Role.WORKER, 1)
    yield board.seats[0]
    os.close(board.fd)


def job_named(name: str, *args: object) -> Claimed:
    return Claimed(b"token", "mail", encode_job("mail", name, args), suspect=False)


def performer_of(
    seat: Seat, *functions: Callable[..., Any], timeout: float | None = None
) -> Performer:
    jobs: dict[str, Definition] = {
        function.__name__: define(function, name=function.__name__, timeout=timeout)
        for function in functions
    }
    return Performer(jobs, seat)


def performed(seat: Seat, function: Callable[..., Any], *args: object) -> Ended:
    return performer_of(seat, function).perform(job_named(function.__name__, *args))


def record_of(ended: Ended, job: Claimed | None = None) -> Failure:
    assert ended.error is not None
    job = job or job_named("x")
    return parse_failure(entry_for(job, ended.error, worker="host:1:mail", failed_at=0.0))


# -- what goes well ----------------------------------------------------------------------------


def test_a_job_gets_its_arguments_and_is_done(seat: Seat) -> None:
    got: list[object] = []

    def add(*args: object) -> str:
        got.append(args)
        return "ignored"

    assert performed(seat, add, 1, "é", [None], {"a": 1.5}) == Ended(Outcome.DONE)
    assert got == [(1, "é", [None], {"a": 1.5})]


def test_an_async_job_runs_to_its_end(seat: Seat) -> None:
    loops: list[object] = []

    async def run() -> None:
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())

    assert performed(seat, run) == Ended(Outcome.DONE)
    assert performed(seat, run) == Ended(Outcome.DONE)
    assert loops[0] is loops[1]


def test_the_seat_shows_the_job_while_it_runs(seat: Seat) -> None:
    seen: list[tuple[Phase, str, int, bool]] = []
    titles: list[str] = []

    def look() -> None:
        seen.append((seat.phase, seat.title, seat.epoch, seat.job_started_ns > 0))

    performer = Performer({"look": define(look, name="look")}, seat, titles.append)
    performer.perform(job_named("look"))
    performer.rest()
    performer.perform(job_named("look"))

    assert seen == [(Phase.RUN, "look", 1, True), (Phase.RUN, "look", 2, True)]
    assert [title[:22] for title in titles] == [
        "performing look since ",
        "idle",
        "performing look since ",
    ]
    assert (seat.job_started_ns, seat.done, seat.failed) == (0, 2, 0)
    assert seat.busy_ns > 0


def test_the_seat_shows_the_limits_while_a_job_runs(seat: Seat) -> None:
    seen: list[int] = []

    def look() -> None:
        seen.extend((seat.soft_ns - seat.job_started_ns, seat.hard_ns - seat.soft_ns))

    performer_of(seat, look, timeout=1.5).perform(job_named("look"))
    assert seen == [1_500_000_000, int(HARD_GRACE * 1e9)]
    assert (seat.soft_ns, seat.hard_ns) == (0, 0)

    performer_of(seat, look).perform(job_named("look"))
    assert (seat.soft_ns, seat.hard_ns) == (0, 0)


# -- what is told of it ------------------------------------------------------------------------


def test_a_job_is_told_of_before_it_begins_and_its_result_is_kept(seat: Seat) -> None:
    told: list[tuple[object, ...]] = []
    seen: list[int] = []

    def add(*args: int) -> int:
        seen.append(len(told))
        return sum(args)

    events = Emitter(WORKER_EVENTS)
    events.on("job", lambda *args: told.append((*args, seat.phase)))
    events.on("success", lambda *_args: None)
    performer = Performer({"add": define(add, name="add")}, seat, events=events)
    assert performer.perform(job_named("add", 1, 2)) == Ended(Outcome.DONE)

    payload = {"class": "add", "queue": "mail", "args": [1, 2]}
    assert told == [("mail", payload, Phase.BOOT)]
    assert seen == [1]
    assert performer.result == 3
    assert performer.took_ns == seat.busy_ns > 0


def test_a_result_that_nobody_wants_is_let_go_of_at_once(seat: Seat) -> None:
    gone: list[tuple[Phase, bool]] = []

    class Result:
        def __del__(self) -> None:
            gone.append((seat.phase, seat.job_started_ns > 0))

    performed(seat, Result)

    assert gone == [(Phase.RUN, True)]


def test_a_job_that_cannot_begin_is_not_told_of_and_took_no_time(seat: Seat) -> None:
    told: list[object] = []
    events = Emitter(WORKER_EVENTS)
    events.on("job", lambda *args: told.append(args))
    performer = Performer({"never": define(never, name="never")}, seat, events=events)

    for job in (job_named("nope"), job_named("never", 1)):
        assert performer.perform(job).outcome is Outcome.FAIL

    assert told == []
    assert performer.took_ns == 0


def test_a_listener_cannot_be_interrupted_in_place_of_the_job(seat: Seat) -> None:
    """The soft stop of the job before comes late: it must not end what is told of this one."""
    events = Emitter(WORKER_EVENTS)

    def listen(*_args: object) -> None:
        for epoch in range(3):
            performer.interrupt(epoch, JobTimeout("over"))
        reached.append(True)

    reached: list[bool] = []
    events.on("job", listen)
    performer = Performer({"note": define(lambda: None, name="note")}, seat, events=events)

    assert [performer.perform(job_named("note")).outcome for _ in range(2)] == [Outcome.DONE] * 2
    assert reached == [True, True]


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[1]", b"null", b"\xff", pytest.param(b"1" * 9_000_000, id="9 MB")]
)
def test_bytes_that_are_no_job_are_stood_in_for(raw: bytes) -> None:
    assert decoded(raw) == {"class": "(unreadable payload)", "args": []}


def test_all_fields_of_a_payload_are_told() -> None:
    assert decoded(b'{"class":"a","args":null,"x":{"y":1}}') == {
        "class": "a",
        "args": None,
        "x": {"y": 1},
    }


# -- what cannot begin -------------------------------------------------------------------------


def never() -> None:
    raise AssertionError("it was called")


@pytest.mark.parametrize(
    ("job", "kind", "message"),
    [
        (job_named("nope"), UnknownJob, "no job is registered under the name 'nope'"),
        (job_named("never", 1), InvalidArgs, "never takes 0 arguments, got 1"),
        (Claimed(b"t", "q", b"{", suspect=False), InvalidPayload, ""),
        (Claimed(b"t", "q", b"", suspect=False), InvalidPayload, ""),
        (Claimed(b"t", "q", b"[]", suspect=False), InvalidPayload, "the payload is a list"),
        (Claimed(b"t", "q", b"\xff", suspect=False), InvalidPayload, ""),
        (Claimed(b"t", "q", b"[" * 10**6, suspect=False), InvalidPayload, ""),
        (Claimed(b"t", "q", b'{"class":"x","args":1}', suspect=False), InvalidPayload, "args is"),
    ],
    ids=["unknown", "arguments", "cut", "empty", "list", "binary", "deep", "args"],
)
def test_what_is_no_job_of_ours_fails_before_it_begins(
    seat: Seat, job: Claimed, kind: type[Exception], message: str
) -> None:
    ended = performer_of(seat, never).perform(job)

    assert ended.outcome is Outcome.FAIL
    assert type(ended.error) is kind
    record = record_of(ended, job)
    assert message in record.error
    assert record.payload == job.raw
    assert (record.exception, record.queue) == (kind.__name__, job.queue)
    assert not [line for line in record.backtrace if __file__ in line or "performer" in line]
    assert (seat.epoch, seat.job_started_ns) == (0, 0)


@pytest.mark.parametrize("args", [(), (1, 2, 3), (1, 2, 3, 4)])
def test_too_few_and_too_many_arguments_fail(seat: Seat, args: tuple[int, ...]) -> None:
    def add(a: int, b: int = 2) -> None:
        raise AssertionError("it was called")

    ended = performed(seat, add, *args)

    assert ended.outcome is Outcome.FAIL
    assert str(ended.error) == f"add takes 1 to 2 arguments, got {len(args)}"


def test_what_could_not_begin_counts_as_failed(seat: Seat) -> None:
    performer = performer_of(seat, never)

    performer.perform(job_named("nope"))
    performer.perform(job_named("never", 1))

    assert (seat.done, seat.failed) == (0, 2)


# -- what jobs raise ---------------------------------------------------------------------------


class Ending(BaseException):
    """Nothing that `except Exception` catches."""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        SystemExit(0),
        SystemExit("bye"),
        KeyboardInterrupt(),
        GeneratorExit(),
        StopIteration(1),
        asyncio.CancelledError("no"),
        Ending("no"),
        JobTimeout("over its time limit"),
        MemoryError(),
        BaseExceptionGroup("both", [KeyboardInterrupt(), ValueError("no")]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("is_async", [False, True])
def test_a_job_that_raises_anything_has_failed(
    seat: Seat,
    error: BaseException,
    is_async: bool,  # noqa: FBT001
) -> None:
    def job() -> None:
        raise error

    async def coroutine() -> None:
        raise error

    ended = performed(seat, coroutine if is_async else job)

    # Python makes a RuntimeError of a StopIteration that leaves a coroutine.
    changed = is_async and isinstance(error, StopIteration)
    expected = RuntimeError if changed else type(error)
    assert ended.outcome is Outcome.FAIL
    assert type(ended.error) is expected
    assert record_of(ended).exception == expected.__name__
    assert seat.failed == 1


def test_the_next_job_runs_whatever_the_last_one_raised(seat: Seat) -> None:
    async def bad() -> None:
        raise SystemExit(3)

    async def good() -> None:
        await asyncio.sleep(0)

    performer = performer_of(seat, bad, good)

    outcomes = [performer.perform(job_named(name)).outcome for name in ("bad", "good", "bad")]

    assert outcomes == [Outcome.FAIL, Outcome.DONE, Outcome.FAIL]


def test_a_record_says_where_the_job_broke_without_the_workers_own_frames(seat: Seat) -> None:
    def inner() -> None:
        raise ValueError("no")

    def outer() -> None:
        inner()

    record = record_of(performed(seat, outer))

    files = [line for line in record.backtrace if line.startswith("  File")]
    assert [line.rpartition(" in ")[2] for line in files] == ["outer", "inner"]
    assert record.backtrace[0] == "Traceback (most recent call last):"
    assert record.backtrace[-1] == "ValueError: no"
    assert (record.error, record.worker) == ("no", "host:1:mail")


def test_a_job_that_calls_itself_without_end_fails_with_a_short_record(seat: Seat) -> None:
    def deeper(depth: int = 0) -> None:
        deeper(depth + 1)

    record = record_of(performed(seat, deeper))

    assert record.exception == "RecursionError"
    assert len(record.backtrace) <= BACKTRACE_LIMIT


class NoText(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class NoTextAtAll(NoText):
    def __repr__(self) -> str:
        raise KeyboardInterrupt


class NotText(Exception):
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]  # that is the point


class Endless(Exception):
    def __str__(self) -> str:
        return str(self)

    __repr__ = __str__


class Quits(Exception):
    def __str__(self) -> str:
        raise SystemExit(1)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (NoText, "NoText(1)"),
        (NoTextAtAll, "a NoTextAtAll without a message"),
        (NotText, "NotText(1)"),
        (Endless, "a Endless without a message"),
        (Quits, "Quits(1)"),
    ],
)
def test_an_error_that_cannot_show_itself_is_recorded_all_the_same(
    seat: Seat, kind: type[Exception], text: str
) -> None:
    def job() -> None:
        raise kind(1)

    record = record_of(performed(seat, job))

    assert (record.exception, record.error) == (kind.__name__, text)
    assert record.backtrace


def test_an_error_without_a_message_is_recorded_as_it_is_written(seat: Seat) -> None:
    def job() -> None:
        raise ValueError

    assert record_of(performed(seat, job)).error == "ValueError()"


def test_a_message_that_is_no_proper_text_is_recorded(seat: Seat) -> None:
    def job() -> None:
        raise ValueError("a\udcff\0é")

    record = record_of(performed(seat, job))

    assert record.error[0] == "a"
    assert record.error[-2:] == "\0é"


def test_a_message_of_50_mb_is_cut(seat: Seat) -> None:
    def job() -> None:
        raise ValueError("x" * 50_000_000)

    ended = performed(seat, job)

    assert ended.error is not None
    entry = entry_for(job_named("job"), ended.error, worker="w", failed_at=0.0)
    record = parse_failure(entry)
    assert record.error.startswith("x" * ERROR_LIMIT + "… (")
    assert len(entry) < 2 * ERROR_LIMIT


def test_a_message_of_a_million_lines_is_cut(seat: Seat) -> None:
    def job() -> None:
        raise ValueError("x\n" * 1_000_000)

    record = record_of(performed(seat, job))

    assert len(record.backtrace) <= BACKTRACE_LIMIT
    assert record.backtrace[0] == "Traceback (most recent call last):"


@pytest.mark.parametrize("depth", [100, 5000])
def test_groups_in_groups_are_recorded(seat: Seat, depth: int) -> None:
    def job() -> None:
        error: Exception = ValueError("innermost")
        for level in range(depth):
            error = ExceptionGroup(f"level {level}", [error])
        raise error

    record = record_of(performed(seat, job))

    assert record.exception == "ExceptionGroup"
    assert record.error == f"level {depth - 1} (1 sub-exception)"
    assert 0 < len(record.backtrace) <= BACKTRACE_LIMIT


def test_causes_that_go_round_in_a_circle_are_recorded(seat: Seat) -> None:
    def job() -> None:
        one, two = ValueError("one"), ValueError("two")
        one.__cause__, two.__cause__ = two, one
        one.__context__, two.__context__ = two, one
        raise one

    record = record_of(performed(seat, job))

    assert record.error == "one"
    assert record.backtrace[-1] == "ValueError: one"


def test_a_chain_of_very_many_causes_is_recorded(seat: Seat) -> None:
    def job() -> None:
        error = ValueError("first")
        for number in range(20_000):
            following = ValueError(number)
            following.__cause__ = error
            error = following
        raise error

    record = record_of(performed(seat, job))

    assert record.error == "19999"
    assert 0 < len(record.backtrace) <= BACKTRACE_LIMIT


# -- interrupts --------------------------------------------------------------------------------


def test_an_interrupt_ends_the_job_that_it_means(seat: Seat) -> None:
    def job() -> None:
        performer.interrupt(seat.epoch, JobTimeout("over"))

    performer = performer_of(seat, job)
    ended = performer.perform(job_named("job"))

    assert ended.outcome is Outcome.FAIL
    assert isinstance(ended.error, JobTimeout)


def test_an_interrupt_that_means_another_job_does_nothing(seat: Seat) -> None:
    def job() -> None:
        for epoch in (0, seat.epoch - 1, seat.epoch + 1):
            performer.interrupt(epoch, JobTimeout("over"))

    performer = performer_of(seat, job)

    assert performer.perform(job_named("job")).outcome is Outcome.DONE


def test_an_interrupt_between_jobs_does_nothing(seat: Seat) -> None:
    def job() -> None: ...

    performer = performer_of(seat, job)
    performer.interrupt(0, JobTimeout("over"))
    performer.interrupt(1, JobTimeout("over"))
    performer.perform(job_named("job"))

    performer.interrupt(seat.epoch, JobTimeout("over"))

    assert performer.perform(job_named("job")).outcome is Outcome.DONE


def test_a_job_is_interrupted_once(seat: Seat) -> None:
    caught: list[BaseException] = []

    def job() -> None:
        try:
            performer.interrupt(seat.epoch, JobTimeout("over"))
        except JobTimeout as error:
            caught.append(error)
        performer.interrupt(seat.epoch, JobTimeout("over"))

    performer = performer_of(seat, job)

    assert performer.perform(job_named("job")).outcome is Outcome.DONE
    assert len(caught) == 1


def test_no_except_of_a_job_swallows_an_interrupt(seat: Seat) -> None:
    def job() -> None:
        try:
            performer.interrupt(seat.epoch, JobAborted("cut"))
        except Exception:  # noqa: BLE001 - as jobs are written
            return

    performer = performer_of(seat, job)

    assert performer.perform(job_named("job")).outcome is Outcome.RELEASE


@pytest.mark.parametrize("is_async", [False, True])
def test_a_job_that_is_aborted_goes_back_and_has_neither_failed_nor_succeeded(
    seat: Seat,
    is_async: bool,  # noqa: FBT001
) -> None:
    def job() -> None:
        performer.interrupt(seat.epoch, JobAborted("cut"))

    async def coroutine() -> None:
        job()

    performer = performer_of(seat, job, coroutine)
    ended = performer.perform(job_named("coroutine" if is_async else "job"))

    assert ended.outcome is Outcome.RELEASE
    assert isinstance(ended.error, JobAborted)
    assert (seat.done, seat.failed, seat.job_started_ns) == (0, 0, 0)


@contextmanager
def alarm(handler: Callable[[], None], after: float) -> Iterator[None]:
    def handle(_signum: int, _frame: FrameType | None) -> None:
        handler()

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, after)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_signal_interrupts_a_job_that_waits(seat: Seat) -> None:
    def job() -> None:
        time.sleep(20)

    performer = performer_of(seat, job)
    with alarm(lambda: performer.interrupt(seat.epoch, JobTimeout("over")), 0.02):
        ended = performer.perform(job_named("job"))

    assert isinstance(ended.error, JobTimeout)
    assert record_of(ended).backtrace[-1] == "forkresque.errors.JobTimeout: over"


def test_an_async_job_that_was_interrupted_does_not_go_on_during_the_next_one(seat: Seat) -> None:
    happened: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(0.05)
            happened.append("went on")
        finally:
            happened.append("cleaned up")

    async def following() -> None:
        happened.append("next")
        await asyncio.sleep(0.1)

    performer = performer_of(seat, slow, following)
    with alarm(lambda: performer.interrupt(seat.epoch, JobTimeout("over")), 0.02):
        ended = performer.perform(job_named("slow"))
    performer.perform(job_named("following"))

    assert isinstance(ended.error, JobTimeout)
    assert happened == ["cleaned up", "next"]

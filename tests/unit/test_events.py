"""Who listens is called, in order, and can break nothing."""

import logging
from typing import Any

import pytest

from forkresque.errors import ConfigError, JobAborted, JobTimeout
from forkresque.events import POOL_EVENTS, WORKER_EVENTS, Emitter


class Told:
    """A listener that remembers what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def __call__(self, *args: object) -> None:
        self.calls.append(args)


@pytest.fixture
def emitter() -> Emitter:
    return Emitter(POOL_EVENTS)


@pytest.fixture
def told() -> Told:
    return Told()


def test_listeners_are_called_in_their_order_with_what_is_told(emitter: Emitter) -> None:
    calls: list[object] = []
    emitter.on("job", lambda *args: calls.append((1, args)))
    emitter.on("job", lambda *args: calls.append((2, args)))

    emitter.emit("job", "q", {"class": "x"})
    emitter.emit("pause")

    assert calls == [(1, ("q", {"class": "x"})), (2, ("q", {"class": "x"}))]


def test_on_is_a_decorator_too_and_returns_the_function(emitter: Emitter) -> None:
    calls: list[str] = []

    @emitter.on("success")
    def listen(queue: str) -> None:
        calls.append(queue)

    assert emitter.on("failure", listen) is listen
    emitter.emit("success", "a")
    emitter.emit("failure", "b")
    listen("c")
    assert calls == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("spelt", "name"),
    [
        ("reEnqueue", "re_enqueue"),
        ("multiWorkerAction", "multi_worker_action"),
        ("cleaningWorker", "cleaning_worker"),
        *((name, name) for name in POOL_EVENTS),
    ],
)
def test_both_spellings_mean_the_same(emitter: Emitter, told: Told, spelt: str, name: str) -> None:
    emitter.on(spelt, told)

    emitter.emit(name, 1)

    assert told.calls == [(1,)]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sucess", "did you mean success?"),
        ("reenqueue", "did you mean re_enqueue?"),
        ("Errors", "did you mean error?"),
        ("", "there are start, end, poll"),
        ("leader", "there are start, end, poll"),
    ],
)
def test_an_unknown_name_is_refused_with_what_was_meant(
    emitter: Emitter, told: Told, name: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        emitter.on(name, told)

    assert str(caught.value) == f"there is no event {name!r}"
    assert caught.value.hint.startswith(hint)
    assert emitter.heard == {}


def test_a_worker_has_no_event_of_a_pool(told: Told) -> None:
    with pytest.raises(ConfigError, match="there is no event 'multiWorkerAction'"):
        Emitter(WORKER_EVENTS).on("multiWorkerAction", told)


def test_what_cannot_be_called_is_refused(emitter: Emitter) -> None:
    async def listen() -> None: ...

    for callback in (listen, 7, "print"):
        wrong: Any = callback
        with pytest.raises(ConfigError, match="a plain function has to listen to 'job', got"):
            emitter.on("job", wrong)
    assert emitter.heard == {}


def test_nobody_can_listen_once_it_is_too_late(emitter: Emitter, told: Told) -> None:
    emitter.closed = "the workers are there"

    with pytest.raises(ConfigError, match="nobody new can listen to 'job': the workers are there"):
        emitter.on("job", told)


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3), GeneratorExit()])
def test_what_a_listener_raises_is_logged_and_changes_nothing(
    emitter: Emitter, told: Told, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    def fail(*_args: object) -> None:
        raise error

    emitter.on("job", fail)
    emitter.on("job", told)

    with caplog.at_level(logging.ERROR, "forkresque.events"):
        emitter.emit("job", "q")

    assert told.calls == [("q",)]
    (record,) = caplog.records
    assert "event=job a listener failed" in record.getMessage()
    assert "fail" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.parametrize("error", [JobTimeout("over"), JobAborted("cut"), KeyboardInterrupt()])
def test_what_a_signal_has_raised_in_a_listener_goes_where_it_was_meant_to(
    emitter: Emitter, error: BaseException
) -> None:
    def fail(*_args: object) -> None:
        raise error

    emitter.on("job", fail)

    with pytest.raises(type(error)) as caught:
        emitter.emit("job", "q")
    assert caught.value is error


def test_a_listener_may_add_another(emitter: Emitter, told: Told) -> None:
    emitter.on("job", lambda *_args: emitter.on("job", told))

    emitter.emit("job", 1)
    assert told.calls == []
    emitter.emit("job", 2)
    assert told.calls == [(2,)]


def test_only_what_is_listened_to_is_heard(emitter: Emitter, told: Told) -> None:
    assert not emitter.heard
    emitter.on("reEnqueue", told)
    assert list(emitter.heard) == ["re_enqueue"]


# -- the events of one worker of a pool --------------------------------------------------------


def test_a_pool_hears_its_workers_with_their_number_in_front(emitter: Emitter, told: Told) -> None:
    emitter.on("success", told)
    emitter.on("pause", told)
    worker = emitter.numbered(3)

    worker.emit("success", "q", {}, 7, 1.5)
    worker.emit("pause")

    assert told.calls == [(3, "q", {}, 7, 1.5), (3,)]


def test_an_error_comes_before_the_number_as_in_node_resque(emitter: Emitter, told: Told) -> None:
    emitter.on("error", told)
    error = ValueError("bad")

    emitter.numbered(3).emit("error", error, "q", {})

    assert told.calls == [(error, 3, "q", {})]


def test_start_and_end_are_the_masters_to_tell(emitter: Emitter, told: Told) -> None:
    for name in ("start", "end", "multi_worker_action"):
        emitter.on(name, told)

    assert emitter.numbered(3).heard == {}


def test_a_worker_hears_only_what_its_pool_listens_to(emitter: Emitter, told: Told) -> None:
    emitter.on("job", told)

    assert list(emitter.numbered(1).heard) == ["job"]


def test_a_listener_of_a_worker_that_fails_is_named(
    emitter: Emitter, caplog: pytest.LogCaptureFixture
) -> None:
    def listen_badly(*_args: Any) -> None:
        raise ValueError("bad")

    emitter.on("job", listen_badly)

    with caplog.at_level(logging.ERROR, "forkresque.events"):
        emitter.numbered(1).emit("job", "q", {})

    (record,) = caplog.records
    assert "listen_badly" in record.getMessage()

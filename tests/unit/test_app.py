"""Registering jobs, calling them, and binding their arguments. Nothing here asks Redis."""

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any, assert_type

import pytest

from forkresque import (
    ConfigError,
    Forkresque,
    InvalidArgs,
    Job,
    MultiWorker,
    OnCrash,
    UnknownJob,
)
from forkresque.producer import epoch, seconds


@pytest.fixture
def app() -> Forkresque:
    return Forkresque("redis://localhost:1/0")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORKRESQUE_REDIS_URL", "REDIS_URL", "FORKRESQUE_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)


def send(to: str, subject: str = "hi", copies: int = 1) -> str:
    """Send."""
    return f"{to} {subject} {copies}"


# -- registering -------------------------------------------------------------------------------


def test_a_bare_decorator_names_the_job_by_where_it_stands(app: Forkresque) -> None:
    job = app.job(send)

    assert job.name == f"{__name__}.send"
    assert app.definition(job.name).queue == "default"
    assert app.definition(job.name).timeout is None
    assert app.definition(job.name).on_crash is OnCrash.REQUEUE


def test_an_empty_decorator_does_the_same(app: Forkresque) -> None:
    assert app.job()(send).name == f"{__name__}.send"


def test_a_decorator_with_a_name_takes_options(app: Forkresque) -> None:
    job = app.job("mail.send", queue="mail", timeout=30, on_crash="fail")(send)

    assert (job.name, repr(job)) == ("mail.send", "<Job mail.send on queue mail>")
    definition = app.definition("mail.send")
    assert definition is app.jobs["mail.send"]
    assert (definition.queue, definition.timeout) == ("mail", 30.0)
    assert definition.on_crash is OnCrash.FAIL


def test_a_decorator_with_options_only_keeps_the_usual_name(app: Forkresque) -> None:
    job = app.job(queue="mail")(send)

    assert (job.name, job.definition.queue) == (f"{__name__}.send", "mail")


def test_a_job_looks_like_its_function_and_is_called_like_it(app: Forkresque) -> None:
    job = app.job("mail.send", timeout=1)(send)

    assert_type(job("a", subject="b"), str)
    assert job("a", subject="b", copies=3) == "a b 3"
    assert (job.__name__, job.__doc__) == ("send", "Send.")  # type: ignore[attr-defined]  # as of update_wrapper


def test_a_name_that_nobody_registered_is_unknown(app: Forkresque) -> None:
    with pytest.raises(UnknownJob, match=r"no job is registered under the name 'nope'"):
        app.definition("nope")


def test_a_name_can_be_taken_once(app: Forkresque) -> None:
    app.job("send")(send)

    with pytest.raises(
        ConfigError, match=r"two jobs are named 'send': .*send and .*other"
    ) as raised:

        @app.job("send")
        def other() -> None: ...

    assert raised.value.hint == "give one of them another name"
    assert app.definition("send").function is send


def test_the_same_function_may_be_registered_again(app: Forkresque) -> None:
    app.job("send", queue="a")(send)

    app.job("send", queue="b")(send)

    assert app.definition("send").queue == "b"


def test_functions_of_one_name_in_two_modules_are_two_jobs(app: Forkresque) -> None:
    def of_module(module: str) -> Callable[[], None]:
        def run() -> None: ...

        run.__module__, run.__qualname__ = module, "run"
        return run

    app.job("run")(of_module("mail"))

    with pytest.raises(ConfigError, match="two jobs are named 'run'"):
        app.job("run")(of_module("reports"))


def test_a_module_that_is_loaded_again_registers_its_jobs_again(app: Forkresque) -> None:
    def load() -> Callable[[], int]:
        def run() -> int:
            return 1

        return run

    app.job("run")(load())
    again = load()
    app.job("run")(again)

    assert app.definition("run").function is again


@pytest.mark.parametrize("name", [" ", "\t"])
def test_a_blank_name_is_refused(app: Forkresque, name: str) -> None:
    with pytest.raises(ConfigError, match="a job needs a name, got an empty one"):
        app.job(name)(send)


@pytest.mark.parametrize("queue", ["", "a,b", ",", "a\n", "a\rb", "a\0"])
def test_a_name_that_no_queue_can_have_is_refused(app: Forkresque, queue: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a queue's name") as raised:
        app.job("send", queue=queue)(send)

    assert repr(queue) in str(raised.value)
    assert app.jobs == {}


@pytest.mark.parametrize("queue", ["mail", "a b", "a:b", "*", "é", "!x"])
def test_any_other_name_will_do_for_a_queue(app: Forkresque, queue: str) -> None:
    assert app.job("send", queue=queue)(send).definition.queue == queue


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [(30, 30.0), (0.5, 0.5), (timedelta(minutes=2), 120.0), (timedelta(microseconds=1), 1e-6)],
)
def test_a_timeout_is_seconds_or_a_timedelta(
    app: Forkresque, timeout: float | timedelta, seconds: float
) -> None:
    assert app.job("send", timeout=timeout)(send).definition.timeout == seconds


@pytest.mark.parametrize("timeout", [0, -1, -0.001, timedelta(0), timedelta(seconds=-5)])
def test_a_timeout_of_nothing_is_refused(app: Forkresque, timeout: float | timedelta) -> None:
    with pytest.raises(ConfigError, match="the timeout of send must be more than 0 seconds, got"):
        app.job("send", timeout=timeout)(send)


@pytest.mark.parametrize("timeout", [math.nan, math.inf])
def test_a_timeout_without_an_end_is_refused(app: Forkresque, timeout: float) -> None:
    with pytest.raises(InvalidArgs, match="a duration must be finite"):
        app.job("send", timeout=timeout)(send)


@pytest.mark.parametrize("policy", ["requeue", "fail", OnCrash.FAIL], ids=repr)
def test_a_crash_policy_is_one_of_two_words(app: Forkresque, policy: str) -> None:
    assert app.job("send", on_crash=policy)(send).definition.on_crash == policy


def test_another_crash_policy_is_refused(app: Forkresque) -> None:
    with pytest.raises(ConfigError, match="on_crash of send must be 'requeue' or 'fail', got 'x'"):
        app.job("send", on_crash="x")(send)


def keyword_only(a: int, *, b: int = 1) -> None: ...
def any_keyword(a: int, **rest: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (keyword_only, "job x takes 'b' by keyword only; Resque has no keywords"),
        (any_keyword, "job x takes 'rest' by keyword only; Resque has no keywords"),
    ],
)
def test_a_job_with_keywords_of_its_own_is_refused(
    app: Forkresque, function: Callable[..., None], message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        app.job("x")(function)

    assert (str(raised.value), raised.value.hint) == (message, "make it an ordinary parameter")
    assert app.jobs == {}


# -- binding -----------------------------------------------------------------------------------


def positional_only(a: int, /, b: int = 2) -> None: ...
def many(a: int, *rest: int) -> None: ...
def nothing() -> None: ...


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "bound"),
    [
        (send, ("a",), {}, ("a",)),
        (send, ("a", "b", 3), {}, ("a", "b", 3)),
        (send, ("a",), {"subject": "b", "copies": 3}, ("a", "b", 3)),
        (send, (), {"copies": 3, "subject": "b", "to": "a"}, ("a", "b", 3)),
        # A default between two given arguments has to be sent as well.
        (send, ("a",), {"copies": 3}, ("a", "hi", 3)),
        (send, (), {"copies": 3, "to": "a"}, ("a", "hi", 3)),
        (positional_only, (1,), {"b": 5}, (1, 5)),
        (many, (1, 2, 3), {}, (1, 2, 3)),
        (many, (), {"a": 1}, (1,)),
        (nothing, (), {}, ()),
    ],
)
def test_keywords_are_sent_by_position(
    app: Forkresque,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    bound: tuple[Any, ...],
) -> None:
    assert app.job("x")(function).definition.bind(args, kwargs) == bound


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "message"),
    [
        (send, (), {}, "x takes 1 to 3 arguments, got 0"),
        (send, (1, 2, 3, 4), {}, "x takes 1 to 3 arguments, got 4"),
        (nothing, (1,), {}, "x takes 0 arguments, got 1"),
        (positional_only, (), {}, "x takes 1 to 2 arguments, got 0"),
        (many, (), {}, "x takes at least 1 argument, got 0"),
        (send, (), {"subject": "b"}, "x: missing a required argument: 'to'"),
        (send, ("a",), {"to": "b"}, "x: multiple values for argument 'to'"),
        (send, ("a",), {"nope": 1}, "x: got an unexpected keyword argument 'nope'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_they_are_sent(
    app: Forkresque,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    message: str,
) -> None:
    job = app.job("x")(function)

    for refused in (job.enqueue, lambda *a, **k: job.enqueue_in(1, *a, **k)):
        with pytest.raises(InvalidArgs) as raised:
            refused(*args, **kwargs)
        assert str(raised.value) == message


# -- using -------------------------------------------------------------------------------------


def test_a_job_for_another_queue_leaves_the_applications_alone(app: Forkresque) -> None:
    job = app.job("send", queue="mail", timeout=5, on_crash="fail")(send)

    other = job.using(queue="low")

    assert isinstance(other, Job)
    assert other.definition.queue == "low"
    assert (other.name, other.definition.timeout) == ("send", 5.0)
    assert other.definition.on_crash is OnCrash.FAIL
    assert other("a") == "a hi 1"
    assert job.definition.queue == app.definition("send").queue == "mail"


def test_a_job_for_the_head_of_its_queue_keeps_the_queue(app: Forkresque) -> None:
    job = app.job("send", queue="mail")(send)

    assert job.using(front=True).definition == job.definition


@pytest.mark.parametrize("queue", ["", "a,b"])
def test_a_job_for_a_queue_that_cannot_be_is_refused(app: Forkresque, queue: str) -> None:
    job = app.job("send", queue="mail")(send)

    with pytest.raises(ConfigError, match="cannot be a queue's name"):
        job.using(queue=queue)


# -- where Redis is ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "ours", "theirs", "url"),
    [
        ("redis://given", "redis://ours", "redis://theirs", "redis://given"),
        (None, "redis://ours", "redis://theirs", "redis://ours"),
        (None, None, "redis://theirs", "redis://theirs"),
        (None, "", "redis://theirs", "redis://theirs"),
        (None, None, None, "redis://localhost:6379/0"),
        (None, "", "", "redis://localhost:6379/0"),
    ],
)
def test_an_argument_beats_our_variable_and_that_beats_the_common_one(
    monkeypatch: pytest.MonkeyPatch,
    given: str | None,
    ours: str | None,
    theirs: str | None,
    url: str,
) -> None:
    for name, value in (("FORKRESQUE_REDIS_URL", ours), ("REDIS_URL", theirs)):
        if value is not None:
            monkeypatch.setenv(name, value)

    assert Forkresque(given).url == url


def test_a_namespace_comes_from_an_argument_or_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Forkresque().namespace == "resque"
    monkeypatch.setenv("FORKRESQUE_NAMESPACE", "ours")
    assert Forkresque().namespace == "ours"
    assert Forkresque(namespace="given").namespace == "given"
    assert Forkresque(namespace="").namespace == ""


def test_another_redis_is_used_from_then_on(app: Forkresque) -> None:
    before = app.queue
    assert app.queue is before

    app.connect_to(url="redis://other:1/3")

    assert (app.url, app.namespace) == ("redis://other:1/3", "resque")
    assert app.queue is not before


def test_what_is_not_named_stays_as_it_is(app: Forkresque) -> None:
    app.connect_to(namespace="x")
    assert (app.url, app.namespace) == ("redis://localhost:1/0", "x")

    app.connect_to(namespace="")
    app.connect_to()

    assert (app.url, app.namespace) == ("redis://localhost:1/0", "")


def test_a_password_is_not_shown() -> None:
    app = Forkresque("redis://user:s3cret@host:6379/1")

    assert "s3cret" not in app.masked_url
    assert "host:6379/1" in app.masked_url


def test_a_url_that_cannot_be_used_is_refused_before_anything_is_sent() -> None:
    app = Forkresque("http://localhost")
    job = app.job("send")(send)

    with pytest.raises(ConfigError, match="the Redis address http://localhost cannot be used"):
        job.enqueue("a")


# -- where Redis is, by keywords -----------------------------------------------------------------


def test_an_application_takes_the_keywords_of_a_connection() -> None:
    app = Forkresque(host="cache", port=1, password="s3cret", namespace=["a", "b"])

    assert app.connection.place == app.masked_url == "redis://cache:1"
    assert (app.namespace, app.connection.keys.namespace) == ("a:b", "a:b")
    assert app.queue.connection is app.connection


def test_keywords_can_stand_beside_an_applications_url() -> None:
    app = Forkresque("redis://cache", timeout=1.5, ssl_ca_certs="/ca")

    assert app.connection.target.timeout == 1.5
    assert app.connection.target.address.settings["ssl_ca_certs"] == "/ca"


def test_a_url_of_the_command_line_is_stronger_than_keywords() -> None:
    app = Forkresque(host="cache", password="s3cret", timeout=1.5)

    app.connect_to(url="redis://other")

    assert app.connection.place == app.url == "redis://other"
    assert "password" not in app.connection.target.address.settings
    assert app.connection.target.timeout == 1.5


def test_an_embedded_servers_application_takes_keywords_too() -> None:
    assert Forkresque("embedded://", timeout=1.5).url == "embedded://"


def test_keywords_are_stronger_than_a_url_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", "embedded://")

    assert Forkresque(host="cache").url == "redis://cache:6379"


def test_a_namespace_of_the_command_line_leaves_the_keywords() -> None:
    app = Forkresque(host="cache")

    app.connect_to(namespace="other")

    assert (app.connection.place, app.connection.key("x")) == ("redis://cache:6379", "other:x")


@pytest.mark.parametrize("keywords", [{"pasword": "s3cret"}, {"host": "h", "path": "/p"}])
def test_keywords_that_cannot_be_used_are_refused_at_once(keywords: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Forkresque(**keywords)


@pytest.mark.parametrize(
    "moment", [1_795_487_751_000, 1e300, -1, float("nan"), "tomorrow", None, [1]]
)
def test_what_is_no_moment_is_refused_with_a_hint_about_seconds(moment: Any) -> None:
    with pytest.raises(InvalidArgs, match="a moment must be epoch seconds") as refusal:
        epoch(moment)
    assert "not milliseconds" in str(refusal.value.hint)


@pytest.mark.parametrize("duration", [float("inf"), "soon", None])
def test_what_is_no_duration_is_refused(duration: Any) -> None:
    with pytest.raises(InvalidArgs, match="a duration must be finite seconds"):
        seconds(duration)


@pytest.mark.parametrize("given", [{"host": "localhost"}, 6379])
def test_an_application_of_what_is_no_url_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"takes a URL, got (dict|int)"):
        Forkresque(given)
    with pytest.raises(ConfigError, match=r"takes a Forkresque, got (dict|int)"):
        MultiWorker(given)

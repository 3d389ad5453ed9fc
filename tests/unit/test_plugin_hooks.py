"""Plugins without a server: which there are, what they are given, in what order they run."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from forkresque.app import Forkresque
from forkresque.errors import ConfigError, JobAborted, JobLost, JobTimeout, RedisRefused
from forkresque.jobs import Definition, OnCrash, define, definitions
from forkresque.performer import Concluded, Ended, Performer, entry_for
from forkresque.plugins import (
    DelayQueueLock,
    JobLock,
    Noop,
    Performance,
    Plugin,
    QueueLock,
    Retry,
)
from forkresque.plugins.hooks import resolve
from forkresque.protocol.canonical import decode
from forkresque.protocol.claims import Claimed, Outcome
from forkresque.protocol.failure import parse_failure
from forkresque.protocol.keys import Keys
from forkresque.protocol.payload import encode_job, with_queue
from forkresque.protocol.retries import node_keys, node_record, ruby_keys
from forkresque.scoreboard import Role, Scoreboard

KEYS = Keys("resque")
BROKEN = RuntimeError("broken")


# -- performing, with a worker made of memory --------------------------------------------------


@dataclass
class Hand:
    """What a worker lends, without Redis."""

    free: bool = True
    taken: list[tuple[bytes, int]] = field(default_factory=list)
    counted: dict[bytes, int] = field(default_factory=dict)
    records: list[tuple[bytes, bytes, int]] = field(default_factory=list)
    said: list[tuple[Any, ...]] = field(default_factory=list)

    def take_lock(self, lock: bytes, seconds: int) -> bool:
        self.taken.append((lock, seconds))
        return self.free

    def count_attempt(
        self, counter: bytes, attempt: int, *, record: tuple[bytes, bytes], keep: int
    ) -> int:
        self.counted[counter] = attempt
        self.records.append((*record, keep))
        return attempt

    def command(self, *words: Any) -> Any:
        self.said.append(words)
        counted = self.counted.get(words[1])
        return None if counted is None else str(counted).encode()

    def call(self, call: Any) -> Any:
        raise AssertionError("no script is expected")


class Stage:
    """Performs jobs one after the other, as a worker does."""

    def __init__(self) -> None:
        self.hand = Hand()
        self.runs: list[Any] = []
        self.contexts: list[Performance] = []
        seat = Scoreboard(1, shared=False).seats[0]
        seat.take(Role.WORKER, 1)
        self.seat = seat

    def lend(self, job: Claimed, name: str) -> Performance:
        context = Performance(
            worker="host:7:q",
            hand=self.hand,
            queue=job.queue,
            name=name,
            payload=job.raw,
            keys=KEYS,
            redis=self.hand,
            now=lambda: 1_000.5,
            queues=lambda: pytest.fail("nothing is to be enqueued"),
        )
        self.contexts.append(context)
        return context

    def perform(
        self, *plugins: Plugin, args: tuple[Any, ...] = (), run: Callable[..., Any] | None = None
    ) -> Ended:
        function = run or (lambda *given: self.runs.append(given))
        job = Claimed(b"t", "q", encode_job("q", "job", args), suspect=False)
        performer = Performer(
            {"job": define(function, name="job", plugins=plugins)}, self.seat, lend=self.lend
        )
        ended = performer.perform(job)
        return performer.conclude(ended) if performer.begun is not None else ended


@pytest.fixture
def stage() -> Stage:
    return Stage()


def fail(*_args: object) -> None:
    raise BROKEN


class Told(Plugin):
    """Notes its hooks, and says or raises in them what it is told to."""

    def __init__(self, label: str, log: list[str], **says: Any) -> None:
        super().__init__(**says)
        self.title, self.log, self.says = label, log, says

    def _heard(self, hook: str) -> Any:
        self.log.append(f"{self.title} {hook}")
        answer = self.says.get(hook)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def before_perform(self, context: Performance) -> Any:
        return self._heard("before")

    def around_perform(self, context: Performance, proceed: Callable[[], object]) -> object:
        self._heard("in")
        try:
            return proceed()
        finally:
            self._heard("out")

    def on_failure(self, context: Performance, error: BaseException) -> None:
        self._heard("failure")

    def after_perform(self, context: Performance) -> Any:
        return self._heard("after")


def test_hooks_run_in_the_order_of_the_plugins_and_around_the_job(stage: Stage) -> None:
    log: list[str] = []

    ended = stage.perform(Told("a", log), Told("b", log), run=lambda: log.append("job"))

    assert ended.outcome is Outcome.DONE
    assert log == [
        *("a before", "b before", "a in", "b in", "job", "b out", "a out"),
        *("a after", "b after"),
    ]


def test_a_failure_is_told_before_the_end(stage: Stage) -> None:
    log: list[str] = []

    ended = stage.perform(Told("a", log), Told("b", log), run=fail)

    assert (ended.outcome, ended.error) == (Outcome.FAIL, BROKEN)
    assert log[-4:] == ["a failure", "b failure", "a after", "b after"]


def test_the_first_false_stops_the_others_and_the_job_is_gone(stage: Stage) -> None:
    log: list[str] = []

    ended = stage.perform(Told("a", log), Told("b", log, before=False), Told("c", log))

    assert ended.outcome is Outcome.DROP
    assert log == ["a before", "b before"]
    assert stage.runs == []
    assert (stage.seat.done, stage.seat.failed) == (0, 0)


@pytest.mark.parametrize("answer", [None, True, 0, "", []])
def test_only_false_itself_is_a_veto(stage: Stage, answer: object) -> None:
    log: list[str] = []

    stage.perform(Told("a", log, before=answer, after=answer), Told("b", log))

    assert stage.runs == [()]
    assert log[-2:] == ["a after", "b after"]


def test_false_after_the_job_only_stops_the_plugins_behind(stage: Stage) -> None:
    log: list[str] = []

    ended = stage.perform(Told("a", log, after=False), Told("b", log))

    assert ended.outcome is Outcome.DONE
    assert log[-1] == "a after"


def test_a_plugin_that_did_not_let_the_job_pass_does_not_hear_of_its_end(stage: Stage) -> None:
    """In node-resque all hear of it, and a lock that was never taken is released."""
    log: list[str] = []

    ended = stage.perform(Told("a", log), Told("b", log, before=BROKEN), Told("c", log))

    assert (ended.outcome, ended.error) == (Outcome.FAIL, BROKEN)
    assert [line for line in log if "after" in line] == ["a after"]
    assert stage.runs == []


def test_an_error_before_the_job_is_retried_like_one_in_it(stage: Stage) -> None:
    ended = stage.perform(Told("a", [], before=BROKEN), Retry(3))

    assert ended.outcome is Outcome.RETRY


def test_an_error_after_a_good_job_is_the_jobs(stage: Stage) -> None:
    ended = stage.perform(Told("a", [], after=BROKEN))

    assert (ended.outcome, ended.error) == (Outcome.FAIL, BROKEN)
    assert stage.seat.failed == 1


def test_an_error_after_a_bad_job_does_not_hide_the_first(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []
    ended = stage.perform(Told("a", log, after=ValueError("mine")), Told("b", log), run=fail)

    assert ended.error is BROKEN
    assert log[-1] == "b after"
    assert "mine" in caplog.text


def test_an_error_after_a_retry_was_ordered_does_not_end_the_job_twice(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    ended = stage.perform(Retry(3), Told("a", [], after=ValueError("mine")), run=fail)

    assert (ended.outcome, ended.error) == (Outcome.RETRY, BROKEN)
    assert "mine" in caplog.text


def test_what_on_failure_raises_is_logged(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    ended = stage.perform(Told("a", [], failure=ValueError("mine")), run=fail)

    assert ended.error is BROKEN
    assert "mine" in caplog.text


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.parametrize("hook", ["before", "in", "out", "after"])
def test_whatever_a_hook_raises_ends_no_worker(
    stage: Stage, hook: str, error: BaseException
) -> None:
    ended = stage.perform(Told("a", [], **{hook: error}))

    assert (ended.outcome, ended.error) == (Outcome.FAIL, error)


def test_the_job_is_what_around_perform_makes_of_it(stage: Stage) -> None:
    class Instead(Plugin):
        def around_perform(self, context: Performance, proceed: Callable[[], object]) -> object:
            return "instead"

    assert stage.perform(Instead()).outcome is Outcome.DONE
    assert stage.runs == []
    assert stage.contexts[0].worker.result == "instead"


def test_a_cut_job_is_no_failure_and_its_plugins_are_not_asked(stage: Stage) -> None:
    log: list[str] = []

    def cut() -> None:
        raise JobAborted("cut")

    ended = stage.perform(Told("a", log), Retry(5), run=cut)

    assert ended.outcome is Outcome.RELEASE
    assert "a after" not in log
    assert "a failure" not in log


def test_a_job_that_others_have_by_now_is_not_performed(stage: Stage) -> None:
    ended = stage.perform(Told("a", [], before=JobLost("gone")))

    assert ended.outcome is Outcome.RELEASE
    assert stage.runs == []


def test_the_worker_is_shown_as_in_node_and_its_error_can_be_cleared(stage: Stage) -> None:
    class Clearing(Plugin):
        def after_perform(self, context: Performance) -> None:
            assert context.worker.error is context.error is BROKEN
            assert (context.worker.name, context.worker.id) == ("host:7", "host:7:q")
            assert (context.queue, context.name, context.args) == ("q", "job", [1, {"a": 2}])
            assert context.job == {"class": "job", "queue": "q", "args": [1, {"a": 2}]}
            context.worker.error = None

    ended = stage.perform(Clearing(), args=(1, {"a": 2}), run=fail)

    assert (ended.outcome, ended.error) == (Outcome.DONE, None)
    assert (stage.seat.done, stage.seat.failed) == (1, 0)


def test_a_job_that_changes_its_arguments_does_not_change_what_plugins_see(stage: Stage) -> None:
    """Or a retry would be counted somewhere else each time, for ever."""

    def scribble(given: dict[str, Any]) -> None:
        given["seen"] = True
        raise BROKEN

    stage.perform(Retry(3), args=({"a": 1},), run=scribble)

    assert list(stage.hand.counted) == [b'resque:resque-retry:job:{"a":1}']


def test_the_frames_of_the_hooks_are_not_in_a_failure_record(stage: Stage) -> None:
    ended = stage.perform(Told("a", []), run=fail)

    assert ended.error is not None
    job = Claimed(b"t", "q", encode_job("q", "job", ()), suspect=False)
    record = parse_failure(entry_for(job, ended.error, worker="w", failed_at=0.0))
    assert "plugins/hooks.py" not in record.backtrace[1]
    assert "performer.py" not in record.backtrace[1]


def test_a_job_without_plugins_has_no_hooks(stage: Stage) -> None:
    assert define(fail, name="job").hooks is None
    assert type(stage.perform()) is Ended
    assert stage.contexts == []


# -- locks and Noop ----------------------------------------------------------------------------


def test_the_key_of_a_job_lock_is_nodes(stage: Stage) -> None:
    stage.perform(JobLock(), args=(1, {"a": "x y"}))
    stage.perform(JobLock(lock_timeout=timedelta(minutes=1)))
    stage.perform(JobLock(key="mine"))
    stage.perform(JobLock(key=lambda context: f"{context.name}@{context.args[0]}"), args=(5.0,))

    assert stage.hand.taken == [
        (b'resque:workerslock:job:q:[1,{"a":"x y"}]', 3600),
        (b"resque:workerslock:job:q:[]", 60),
        (b"mine", 3600),
        (b"job@5", 3600),
    ]


def test_a_job_whose_lock_is_taken_comes_back_later_or_not_at_all(stage: Stage) -> None:
    stage.hand.free = False

    assert stage.perform(JobLock()) == Concluded(Outcome.REQUEUE, delay=1.001)
    assert stage.perform(JobLock(enqueue_timeout=7)) == Concluded(Outcome.REQUEUE, delay=7.0)
    assert stage.perform(JobLock(re_enqueue=False)).outcome is Outcome.DROP
    assert stage.runs == []
    assert stage.seat.failed == 0


def test_a_renamed_job_lock_keeps_its_options(stage: Stage) -> None:
    """In node-resque `reEnqueue` is looked for under `JobLock`, whatever the plugin is called."""

    class Mine(JobLock):
        pass

    stage.hand.free = False
    (plugin,) = resolve([Mine], {"Mine": {"reEnqueue": False}})

    assert stage.perform(plugin).outcome is Outcome.DROP


def test_a_refused_lock_is_the_jobs_error(stage: Stage) -> None:
    def refuse(_lock: bytes, _seconds: int) -> bool:
        raise RedisRefused("no")

    stage.hand.take_lock = refuse  # type: ignore[method-assign, assignment]

    assert isinstance(stage.perform(JobLock()).error, RedisRefused)
    assert stage.runs == []


def test_a_queue_lock_ends_when_the_job_begins(stage: Stage) -> None:
    stage.perform(QueueLock(), args=(1,))

    assert stage.hand.said == [("DEL", b"resque:lock:job:q:[1]")]


def test_noop_hands_over_the_error_and_the_job_is_done(stage: Stage) -> None:
    heard: list[BaseException] = []

    assert stage.perform(Noop(logger=heard.append), run=fail).outcome is Outcome.DONE
    assert stage.perform(Noop(logger=heard.append)).outcome is Outcome.DONE
    assert heard == [BROKEN]


def test_noop_logs_if_nobody_else_does(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.perform(Noop(), run=fail)

    assert "broken" in caplog.text


# -- retries -----------------------------------------------------------------------------------


def attempts_of(stage: Stage, plugin: Plugin, most: int = 10) -> list[Ended]:
    """Perform a job that always fails until it does not come back."""
    ends: list[Ended] = []
    while not ends or (ends[-1].outcome is Outcome.RETRY and len(ends) < most):
        ends.append(stage.perform(plugin, args=(1, 2), run=fail))
    return ends


def test_a_job_is_tried_so_many_times_in_all(stage: Stage) -> None:
    ends = attempts_of(stage, Retry(3, delay=7))

    assert ends == [
        Concluded(Outcome.RETRY, BROKEN, delay=7.0, remaining=2),
        Concluded(Outcome.RETRY, BROKEN, delay=7.0, remaining=1),
        Concluded(
            Outcome.FAIL,
            BROKEN,
            forget=(b"resque:resque-retry:job:1-2", b"resque:failure-resque-retry:job:1-2"),
        ),
    ]
    assert stage.seat.failed == 3


def test_one_attempt_is_no_retry_and_counts_nothing(stage: Stage) -> None:
    assert [end.outcome for end in attempts_of(stage, Retry(1))] == [Outcome.FAIL]
    assert stage.hand.counted == {}


def test_without_a_limit_it_goes_on(stage: Stage) -> None:
    ends = attempts_of(stage, Retry(None), most=40)

    assert len(ends) == 40
    assert {end.remaining for end in ends if isinstance(end, Concluded)} == {None}


def test_success_forgets_the_attempts(stage: Stage) -> None:
    stage.perform(Retry(3), args=(1,), run=fail)

    ended = stage.perform(Retry(3), args=(1,))

    assert isinstance(ended, Concluded)
    assert ended.forget == (b"resque:resque-retry:job:1", b"resque:failure-resque-retry:job:1")


def test_a_list_of_delays_ends_with_its_last(stage: Stage) -> None:
    """As observed of node-resque: limit 4 and [200, 400] gave 200, 400, 400."""
    (plugin,) = resolve(["Retry"], {"Retry": {"retryLimit": 4, "backoffStrategy": [200, 400]}})

    ends = attempts_of(stage, plugin)

    assert [end.delay for end in ends if isinstance(end, Concluded)] == [0.2, 0.4, 0.4, 0.0]


def test_exponential_delays_double_up_to_the_most() -> None:
    retry = Retry(9, delay=3, backoff="exponential", max_delay=20, jitter=0.5)

    assert [retry.delay_after(n) for n in range(1, 6)] == [3, 6, 12, 20, 20]
    assert retry.delay_after(2, chance=1.0) == 9
    assert retry.delay_after(10_000) == 20


def test_the_counter_outlives_the_longest_delay_by_days(stage: Stage) -> None:
    """A retry may stand in a long queue, and must not find its attempts forgotten."""
    stage.perform(Retry(3, backoff=[1, 5000, 2]), run=fail)

    assert stage.hand.records[0][2] == 5000 + 3 * 86_400


def test_only_some_errors_are_worth_another_attempt(stage: Stage) -> None:
    assert stage.perform(Retry(3, retry_on=OSError), run=fail).outcome is Outcome.FAIL
    assert stage.perform(Retry(3, retry_on=[OSError, RuntimeError]), run=fail).outcome is (
        Outcome.RETRY
    )
    assert stage.perform(Retry(3, give_up_on=RuntimeError), run=fail).outcome is Outcome.FAIL
    forgotten = stage.perform(Retry(3, give_up_on=RuntimeError), run=fail)
    assert isinstance(forgotten, Concluded)
    assert len(forgotten.forget) == 2


@pytest.mark.parametrize("found", [b"no number", b"-1", b"99999999999999999999", b""])
def test_a_counter_that_is_none_counts_as_no_failure(stage: Stage, found: bytes) -> None:
    stage.hand.command = lambda *_words: found  # type: ignore[method-assign]

    assert stage.perform(Retry(3), run=fail).outcome is Outcome.RETRY
    assert list(stage.hand.counted.values()) == [0]


def test_a_job_over_its_limit_has_failed_like_any_other(stage: Stage) -> None:
    def late() -> None:
        raise JobTimeout("over its time limit")

    assert stage.perform(Retry(2), run=late).outcome is Outcome.RETRY
    assert stage.perform(Retry(3, retry_on=Exception), run=late).outcome is Outcome.FAIL


def test_an_error_that_cannot_be_shown_is_retried_all_the_same(stage: Stage) -> None:
    class Rude(Exception):
        def __str__(self) -> str:
            raise ValueError("no")

    def rude() -> None:
        raise Rude

    assert stage.perform(Retry(2), run=rude).outcome is Outcome.RETRY
    assert b"(it cannot be shown)" in stage.hand.records[0][1]


def test_the_record_of_an_attempt_has_nodes_fields(stage: Stage) -> None:
    stage.perform(Retry(2), args=(1, 2), run=fail)

    key, record, _ = stage.hand.records[0]
    shown = decode(record)
    assert key == b"resque:failure-resque-retry:job:1-2"
    assert list(shown) == [
        *("failed_at", "payload", "exception", "error", "backtrace", "worker", "queue"),
    ]
    assert re.fullmatch(r"1970/01/01 00:16:40", shown["failed_at"])
    assert shown["payload"] == [1, 2]
    assert shown["exception"] == shown["error"] == "RuntimeError: broken"
    assert shown["backtrace"][0] == "RuntimeError: broken"
    assert "fail" in shown["backtrace"][-2]
    assert (shown["worker"], shown["queue"]) == ("job", "q")


def test_rubys_record_is_a_failure_record(stage: Stage) -> None:
    stage.perform(Retry(2, keys="ruby"), args=("a",), run=fail)

    key, raw, _ = stage.hand.records[0]
    record = parse_failure(raw)
    assert key == b"resque:failure-resque-retry:job:86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"
    assert (record.exception, record.error, record.worker) == ("RuntimeError", "broken", "host:7:q")
    assert record.args == ["a"]


def test_the_records_bytes_are_as_recorded_of_node() -> None:
    record = node_record(
        name="r3", queue="m", args=[1, 2], error="Error: BUSTED", backtrace=["at"], at=1_795_487_914
    )

    assert record == (
        b'{"failed_at":"2026/11/24 02:38:34","payload":[1,2],"exception":"Error: BUSTED",'
        b'"error":"Error: BUSTED","backtrace":["at"],"worker":"r3","queue":"m"}'
    )


@pytest.mark.parametrize(
    ("args", "counter", "failure"),
    [
        ([1, 2], "r3:1-2", "r3:1-2"),
        ([], "r3", "r3:"),
        (["a b c d"], "r3:ab c d", "r3:ab c d"),
        (
            [1, {"a": "x y z"}, None, "s p a c e"],
            'r3:1-{"a":"xy z"}-null-s p a c e',
            'r3:1-{"a":"xy z"}-null-s p a c e',
        ),
        ([True, 1.5, [1, "a"]], 'r3:true-1.5-[1,"a"]', 'r3:true-1.5-[1,"a"]'),
        ([" "], "r3", "r3:"),
        (["\ufeff"], "r3", "r3:"),
        (["\x1f x"], "r3:\x1fx", "r3:\x1fx"),  # Python calls the first white space, too
        (["\ud800"], "r3:\ufffd", "r3:\ufffd"),
        ([["\ud800"]], 'r3:["\\ud800"]', 'r3:["\\ud800"]'),
        ([1.0, 1e21], "r3:1-1e+21", "r3:1-1e+21"),
    ],
)
def test_the_keys_of_a_retry_are_nodes(args: list[Any], counter: str, failure: str) -> None:
    keys = node_keys(KEYS, "r3", args)

    assert keys.counter == f"resque:resque-retry:{counter}".encode()
    assert keys.failure == f"resque:failure-resque-retry:{failure}".encode()


@pytest.mark.parametrize(
    ("args", "suffix"),
    [
        ([], b""),
        ([""], b""),
        (["a"], b":86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"),
        # printf '1-2' | sha1sum, and so on
        ([1, 2], b":b8a2645298053fb62ea03e27feea6c483d3fd27e"),
        ([[1, [2]]], b":b8a2645298053fb62ea03e27feea6c483d3fd27e"),
    ],
)
def test_the_keys_of_a_retry_can_be_rubys(args: list[Any], suffix: bytes) -> None:
    keys = ruby_keys(KEYS, "Mail Job", args)

    assert keys.counter == b"resque:resque-retry:MailJob" + suffix
    assert keys.failure == b"resque:failure-resque-retry:MailJob" + suffix


def test_a_job_that_names_no_queue_gets_one_and_keeps_the_rest() -> None:
    ruby = b'{"class":"Job","args":[1],"id":"x"}'

    assert with_queue(ruby, "mail") == b'{"class":"Job","queue":"mail","args":[1],"id":"x"}'
    assert with_queue(b'{"class":"Job","queue":null}', "q") == (
        b'{"class":"Job","queue":"q","args":[]}'
    )
    assert with_queue(b'{"class":"Job","args":null,"n":12345678901234567890}', "q") == (
        b'{"class":"Job","queue":"q","args":[],"n":12345678901234567890}'
    )
    known = b'{ "queue" : "q", "class":"Job"}'
    assert with_queue(known, "other") is known


# -- what a job is given -----------------------------------------------------------------------


def test_a_plugin_is_given_as_an_object_a_class_or_a_name() -> None:
    noop = Noop()
    found = resolve([noop, JobLock, "QueueLock"], {JobLock: {"lock_timeout": 5}})

    assert found[0] is noop
    assert [type(plugin) for plugin in found[1:]] == [JobLock, QueueLock]
    assert found[1].options["lock_timeout"] == 5


def test_a_plugin_of_ones_own_gets_its_options_as_they_are() -> None:
    class Mine(Plugin):
        name = "mine"

    (plugin,) = resolve([Mine], {"mine": {"someThing": 1}})

    assert plugin.options == {"someThing": 1}


def test_a_plugin_is_made_once_for_a_job(stage: Stage) -> None:
    """Node-resque makes two for each hook of each job, one of them to learn its name."""
    made: list[object] = []

    class Mine(Plugin):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            made.append(self)

    definition = define(fail, name="job", plugins=[Mine], plugin_options={"Mine": {"a": 1}})
    for _ in range(3):
        stage.perform(*definition.plugins)

    assert made == [definition.plugins[0]]


def test_a_plugin_that_cannot_be_hashed_is_a_plugin(stage: Stage) -> None:
    @dataclass
    class Mine(Plugin):
        mark: int = 0

        def before_perform(self, context: Performance) -> None:
            self.mark += 1

    plugin = Mine()

    assert stage.perform(plugin).outcome is Outcome.DONE
    assert plugin.mark == 1


def test_nodes_names_bring_nodes_units_and_defaults() -> None:
    lock, retry, bare = resolve(
        ["JobLock", "Retry", Retry],
        {"JobLock": {"enqueueTimeout": 2500}, "Retry": {"retryDelay": 1500, "retryLimit": 0}},
    )

    assert lock.options["enqueue_timeout"] == 2.5
    assert (retry.options["delay"], retry.options["attempts"]) == (1.5, 1)
    assert bare.options["attempts"] == 1


def test_our_names_bring_seconds() -> None:
    options = {"retry_limit": 3, "retry_delay": 2, "backoff_strategy": [1, timedelta(minutes=1)]}
    (retry,) = resolve(["Retry"], {"Retry": options})

    assert isinstance(retry, Retry)
    assert [retry.delay_after(n) for n in (1, 2, 3)] == [1, 60, 60]
    assert retry.options["attempts"] == 3


def test_the_options_of_a_plugin_are_not_changed() -> None:
    """Node-resque writes its defaults into the caller's object, which others may share."""
    options = {"Retry": {"retryLimit": 0}}
    resolve(["Retry"], options)

    assert options == {"Retry": {"retryLimit": 0}}


class Async(Plugin):
    async def before_perform(self, context: Performance) -> bool:  # type: ignore[override]
        return False


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: resolve(["Retri"]), "'Retri' is no plugin"),
        (
            lambda: resolve([int]),  # type: ignore[list-item]
            "is no plugin",
        ),
        (lambda: resolve([Async()]), "before_perform of plugin Async is a coroutine function"),
        (lambda: resolve("Retry"), "plugins must be a list"),
        (lambda: resolve(["Noop"], {"Retry": {}}), r"plugin_options for \['Retry'\]"),
        (lambda: resolve(["Retry"], {"Retry": {"limit": 3}}), "options of plugin Retry do not fit"),
        (
            lambda: resolve(["Retry"], {"Retry": {"retryLimit": 3, "retry_limit": 4}}),
            "the option 'retry_limit' twice",
        ),
        (lambda: Retry(0), "attempts must be 1 to 10000, or None, got 0"),
        (lambda: Retry(-1), "got -1"),
        (lambda: Retry(True), "got True"),
        (lambda: Retry(3, delay=-1), "at least 0 seconds"),
        (lambda: Retry(3, delay="5"), "must be seconds or a timedelta, got '5'"),  # type: ignore[arg-type]
        (lambda: Retry(3, backoff="linear"), "got 'linear'"),
        (lambda: Retry(3, backoff=[]), "at least one delay"),
        (lambda: Retry(3, backoff=[1, float("nan")]), r"backoff\[1\] must be seconds"),
        (lambda: Retry(3, jitter=2), "between 0 and 1"),
        (lambda: Retry(3, keys="perl"), "'node' or 'ruby', got 'perl'"),
        (lambda: Retry(3, retry_on=["OSError"]), "exception classes, got 'OSError'"),  # type: ignore[list-item]
        (lambda: JobLock(lock_timeout=0), "lock_timeout must be at least 1 seconds, got 0"),
        (lambda: JobLock(enqueue_timeout=0), "enqueue_timeout must be at least"),
        (lambda: QueueLock(key=""), "must be a key of Redis or a function"),
    ],
)
def test_what_cannot_be_is_named(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make()


# -- jobs as node-resque describes them --------------------------------------------------------


def add(a: int, b: int) -> int:
    return a + b


def test_jobs_are_functions_or_mappings_or_made_by_the_application() -> None:
    app = Forkresque("redis://localhost:1")
    mine = app.job("mine")(add)
    found = definitions(
        {
            "plain": add,
            "locked": {
                "perform": add,
                "plugins": ["JobLock"],
                "pluginOptions": {"JobLock": {"reEnqueue": False}},
                "on_crash": "fail",
            },
            "mine": mine,
            "alias": mine.definition,
        }
    )

    assert [(name, job.name) for name, job in found.items()] == [
        *(("plain", "plain"), ("locked", "locked"), ("mine", "mine"), ("alias", "alias")),
    ]
    assert found["locked"].on_crash is OnCrash.FAIL
    assert found["locked"].plugins[0].options["re_enqueue"] is False
    assert found["mine"] is mine.definition


def test_definitions_stay_the_mapping_that_they_are_in() -> None:
    jobs: dict[str, Definition] = {"add": define(add, name="add")}

    assert definitions(jobs) is jobs


@pytest.mark.parametrize(
    ("job", "complaint"),
    [
        ({"plugins": []}, "job 'x' has nothing to perform"),
        ("add", "job 'x' has nothing to perform, got 'add'"),
        ({"perform": add, "plugin": []}, "job 'x' cannot be described so"),
        ({"perform": add, "queue": ""}, "cannot be a queue's name"),
    ],
)
def test_a_job_that_cannot_be_is_named(job: object, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        definitions({"x": job})


def test_an_application_takes_such_jobs_and_no_name_twice() -> None:
    app = Forkresque("redis://localhost:1")
    app.add_jobs({"add": {"perform": add, "plugins": [Retry(2)]}})

    assert isinstance(app.definition("add").plugins[0], Retry)
    with pytest.raises(ConfigError, match="two jobs are named 'add'"):
        app.add_jobs({"other": add, "add": fail})
    assert list(app.jobs) == ["add"]


def test_a_job_for_another_queue_keeps_its_plugins() -> None:
    app = Forkresque("redis://localhost:1")
    job = app.job("add", plugins=[DelayQueueLock()])(add)

    assert job.using(queue="low").definition.plugins == job.definition.plugins
    assert job.using(queue="low").definition.hooks is not None

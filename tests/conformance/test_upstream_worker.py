"""The upstream suite core/worker, mirrored. Units are seconds.

* can connect
  -> test_can_connect: a worker connects when it starts; `start` and `end` are told
* can run a successful job (performInline)
  -> test_can_run_a_successful_job_perform_inline
* can run a successful async job (performInline)
  -> test_can_run_a_successful_async_job_perform_inline
* can run a failing job (performInline)
  -> test_can_run_a_failing_job_perform_inline
* can call a Plugin's afterPerform given the job throws an error (performInline)
  -> test_can_call_a_plugins_after_perform_given_the_job_throws_an_error_perform_inline
* can boot and stop
  -> test_can_boot_and_stop
* will determine the proper queue names
  -> test_will_determine_the_proper_queue_names: told by `poll`; a worker of all queues keeps "*" in
  its name in Redis, whatever queues there are
* will notice new job queues when started with queues=*
  -> test_will_notice_new_job_queues_when_started_with_queues
* will mark a job as failed
  -> test_will_mark_a_job_as_failed
* can work a job and return successful things
  -> test_can_work_a_job_and_return_successful_things: `worker.result` is for who listens
* can accept jobs that are simple functions
  -> test_can_accept_jobs_that_are_simple_functions
* will not work jobs that are not defined
  -> test_will_not_work_jobs_that_are_not_defined: an UnknownJob that names the job
* will place failed jobs in the failed queue
  -> test_will_place_failed_jobs_in_the_failed_queue: the exception is the class in Python
* will ping with status even when working a slow job
  -> test_will_ping_with_status_even_when_working_a_slow_job: it pings more often than it
  would; the time of a ping is set back, and must come forward
* emits error instead of unhandled rejection when ping fails
  -> test_emits_error_instead_of_unhandled_rejection_when_ping_fails: the lease is renewed together
  with the ping, and is of another type here; the worker goes on afterwards
"""

import json
from typing import Any, NoReturn

import pytest

from forkresque import Plugin
from forkresque.errors import UnknownJob
from forkresque.plugins import Performance
from tests.conformance.stage import Gate, Stage, add, described, running
from tests.support.waiting import wait_until


def bad_add(_a: int, _b: int) -> NoReturn:
    raise ValueError("Blue Smoke")


async def async_job() -> str:
    return "yay"


JOBS: dict[str, Any] = {
    "add": {"perform": add},
    "badAdd": {"perform": bad_add},
    "async": {"perform": async_job},
    "quickDefine": lambda: "ok",
}


def test_can_connect(stage: Stage) -> None:
    told: list[str] = []
    worker = stage.worker(JOBS)
    worker.on("start", lambda _moment: told.append("start"))
    worker.on("end", lambda _moment: told.append("end"))

    with running(worker):
        wait_until(lambda: told, "the start")

    assert told == ["start", "end"]


def test_can_run_a_successful_job_perform_inline(stage: Stage) -> None:
    assert stage.worker(JOBS).perform_inline("add", [1, 2]) == 3
    assert stage.keys("*") == []


def test_can_run_a_successful_async_job_perform_inline(stage: Stage) -> None:
    assert stage.worker(JOBS).perform_inline("async") == "yay"


def test_can_run_a_failing_job_perform_inline(stage: Stage) -> None:
    with pytest.raises(ValueError, match="Blue Smoke"):
        stage.worker(JOBS).perform_inline("badAdd", [1, 2])


def test_can_call_a_plugins_after_perform_given_the_job_throws_an_error_perform_inline(
    stage: Stage,
) -> None:
    seen: list[str] = []

    class Clearing(Plugin):
        def after_perform(self, context: Performance) -> None:
            seen.append(str(context.error))
            context.error = None

    worker = stage.worker({"badAdd": described(bad_add, Clearing)})

    worker.perform_inline("badAdd", [1, 2])

    assert seen == ["Blue Smoke"]


def test_can_boot_and_stop(stage: Stage) -> None:
    worker = stage.worker(JOBS)

    worker.start()
    stage.await_event("pause")
    assert worker.end() is True

    assert stage.heard("error") == []
    assert stage.redis.smembers("resque:workers") == set()


def test_will_determine_the_proper_queue_names(stage: Stage) -> None:
    polled: list[list[str]] = []
    worker = stage.worker(JOBS, "*")
    worker.on("poll", lambda queues: polled.append(list(queues)))

    with running(worker):
        wait_until(lambda: polled, "the first poll")
        assert polled[0] == []
        stage.queue().enqueue("newQueue", "add", [1, 2])
        stage.await_event("success")

    assert ["newQueue"] in polled


def test_will_notice_new_job_queues_when_started_with_queues(stage: Stage) -> None:
    with stage.working(JOBS, "*"):
        stage.await_event("pause")
        stage.queue().enqueue("__newQueue", "add", [1, 2])
        ((queue, job, result, duration_ms),) = stage.await_event("success")

    assert queue == "__newQueue"
    assert job["class"] == "add"
    assert result == 3
    assert duration_ms >= 0


def test_will_mark_a_job_as_failed(stage: Stage) -> None:
    with stage.working(JOBS):
        stage.queue().enqueue("q", "badAdd", [1, 2])
        ((queue, job, error, _duration_ms),) = stage.await_event("failure")

    assert queue == "q"
    assert job == {"class": "badAdd", "queue": "q", "args": [1, 2]}
    assert str(error) == "Blue Smoke"


def test_can_work_a_job_and_return_successful_things(stage: Stage) -> None:
    seen: list[object] = []
    worker = stage.worker(JOBS)
    worker.on("success", lambda *_args: seen.append(worker.result))
    with running(worker):
        stage.queue().enqueue("q", "add", [1, 2])
        ((queue, job, result, duration_ms),) = stage.await_event("success")
        wait_until(lambda: seen, "the other listener")

    assert queue == "q"
    assert job["class"] == "add"
    assert result == 3
    assert seen == [3]
    assert duration_ms >= 0


def test_can_accept_jobs_that_are_simple_functions(stage: Stage) -> None:
    with stage.working(JOBS):
        stage.queue().enqueue("q", "quickDefine")
        ((_queue, _job, result, _duration_ms),) = stage.await_event("success")

    assert result == "ok"


def test_will_not_work_jobs_that_are_not_defined(stage: Stage) -> None:
    with stage.working(JOBS):
        stage.queue().enqueue("q", "somethingFake")
        ((queue, _job, error, _duration_ms),) = stage.await_event("failure")

    assert queue == "q"
    assert isinstance(error, UnknownJob)
    assert "somethingFake" in str(error)


def test_will_place_failed_jobs_in_the_failed_queue(stage: Stage) -> None:
    with stage.working(JOBS):
        stage.queue().enqueue("q", "badAdd", [1, 2])
        stage.await_event("failure")

    entry = json.loads(stage.redis.lindex("resque:failed", 0))
    assert entry["queue"] == "q"
    assert entry["exception"] == "ValueError"
    assert entry["error"] == "Blue Smoke"


def test_will_ping_with_status_even_when_working_a_slow_job(stage: Stage) -> None:
    gate = Gate()
    with running(stage.worker({"slow": gate}, renewal=0.2)):
        stage.queue().enqueue("q", "slow")
        gate.await_begin()
        (key,) = stage.keys("resque:worker:ping:*")
        first = json.loads(stage.redis.get(key))
        assert first["name"] == key.removeprefix("resque:worker:ping:")
        stage.redis.set(key, json.dumps({**first, "time": 7}))
        wait_until(lambda: json.loads(stage.redis.get(key))["time"] > 7, "the next ping")
        gate.let_go.set()
        stage.await_event("success")


def test_emits_error_instead_of_unhandled_rejection_when_ping_fails(stage: Stage) -> None:
    with running(stage.worker(JOBS, renewal=0.2)):
        stage.await_event("pause")
        (lease,) = stage.keys("resque:fr:master:*")
        stage.redis.delete(lease)
        stage.redis.lpush(lease, "no lease")
        stage.await_event("error")
        stage.redis.delete(lease)
        stage.queue().enqueue("q", "add", [1, 2])
        stage.await_event("success")

"""What node-resque does wrong, and what happens here instead, where no other test shows it.

All bugs that are known, with the tests that show them, are in compatibility.toml.

* a list of queues that is a text is read letter by letter
  -> test_a_text_is_one_queue
* L7: a worker of all queues loses its name and its numbers whenever it is idle
  -> test_a_worker_of_all_queues_keeps_its_name_and_its_numbers
* L15: a delayed job that names no queue goes to one without a name
  -> test_a_delayed_job_without_a_queue_is_in_the_failed_list
* L16: what is thrown and is null counts as a success
  -> test_an_error_that_looks_like_nothing_is_a_failure
* L9, L17: one bad item ends a scheduler
  -> test_a_scheduler_goes_on_after_rubbish
* L19: nobody listens to `error`, and the process crashes
  -> test_trouble_that_nobody_listens_to_ends_no_worker
* D10: a worker performs jobs after its end
  -> test_a_worker_that_has_ended_performs_nothing
* cleaning a worker that is unknown or idle counts as a failure
  -> test_cleaning_nobody_counts_nothing
* D5: what was cleaned is cleaned again
  -> test_what_was_cleaned_is_not_cleaned_again
* D11: two who clean at once fail a job twice
  -> test_two_who_clean_at_once_fail_a_job_once
* a worker of Ruby is called "undefined"
  -> test_workers_of_ruby_have_their_names
* retryLimit 0, retryDelay 0
  -> test_no_retry_and_no_delay_are_what_is_said
"""

import json
import threading
from typing import Any

import pytest

from forkresque import Queue, Worker
from forkresque.plugins import Retry
from tests.conformance.stage import Stage, add, described, payloads, running
from tests.support.waiting import wait_until

JOBS = {"add": add}


def test_a_text_is_one_queue(stage: Stage) -> None:
    results: list[int] = []
    only: Any = "math"
    worker = Worker(stage.url, JOBS, queues=only)
    worker.on("success", lambda _queue, _job, result, _took: results.append(result))
    queue = stage.queue()
    queue.enqueue("m", "add", [1, 1])
    queue.enqueue("math", "add", [1, 2])

    with running(worker):
        wait_until(lambda: results, "the job")

    assert results == [3]
    assert queue.length("m") == 1


def test_a_worker_of_all_queues_keeps_its_name_and_its_numbers(stage: Stage) -> None:
    queue = stage.queue()
    with stage.working(JOBS, "*"):
        for number, name in enumerate(("alpha", "beta"), start=1):
            queue.enqueue(name, "add", [1, 2])
            stage.await_event("success", number)
            stage.await_event("pause", number + 1)
            (member,) = stage.redis.smembers("resque:workers")
            host_pid, _, shown = member.decode().rpartition(":")
            assert shown == "*"
            assert int(stage.redis.get(f"resque:stat:processed:{host_pid}")) == number
            assert stage.redis.exists(f"resque:worker:ping:{host_pid}")


def test_a_delayed_job_without_a_queue_is_in_the_failed_list(stage: Stage) -> None:
    raw = b'{"class":"add","args":[1,2]}'
    stage.redis.rpush("resque:delayed:10", raw)
    stage.redis.zadd("resque:delayed_queue_schedule", {"10": 10})

    stage.scheduler().poll()

    queue = stage.queue()
    (failure,) = queue.failed()
    assert failure.payload == raw
    assert "names no queue" in failure.error
    assert stage.keys("resque:queue*") == []
    assert queue.retry_failed(failure, queue="q")
    assert payloads(stage) == [raw]


class Nothing(Exception):
    """An error that is false, and has nothing to say."""

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return ""


@pytest.mark.parametrize("error", [Nothing(), SystemExit(0), KeyError()], ids=repr)
def test_an_error_that_looks_like_nothing_is_a_failure(stage: Stage, error: BaseException) -> None:
    def failing() -> None:
        raise error

    with stage.working({"failing": failing}):
        stage.queue().enqueue("q", "failing")
        stage.await_event("failure")

    (failure,) = stage.queue().failed()
    assert failure.exception == type(error).__name__
    assert failure.error
    assert isinstance(failure.backtrace, list)
    assert not stage.redis.exists("resque:stat:processed")


def test_a_scheduler_goes_on_after_rubbish(stage: Stage) -> None:
    told: list[Any] = []
    stage.redis.rpush("resque:delayed:9", b"{bad json", b"null", b"[]")
    stage.redis.zadd("resque:delayed_queue_schedule", {"9": 9, "rubbish": 1})
    stage.redis.set("resque:worker:ping:dead:1", "no ping")
    stage.redis.lpush("resque:worker:ping:dead:2", "no text")
    queue = stage.queue()
    queue.enqueue_at(10, "q", "add", [1, 2])
    scheduler = stage.scheduler(stuck_worker_timeout=0.1)
    scheduler.on("error", told.append)

    wait_until(lambda: (scheduler.poll(), queue.length("q"))[1], "the job behind it")

    assert queue.failed_count() == 3
    assert len(told) >= 3
    queue.enqueue_at(11, "q", "add", [3, 4])
    wait_until(lambda: (scheduler.poll(), queue.length("q"))[1] == 2, "the next job")
    assert scheduler.leader
    assert scheduler.end()


def test_trouble_that_nobody_listens_to_ends_no_worker(stage: Stage) -> None:
    done = threading.Event()

    def failing() -> None:
        raise ValueError("BUSTED")

    worker = Worker(stage.url, {"failing": failing, "last": done.set}, queues=["q"])
    queue = stage.queue()
    stage.redis.rpush("resque:queue:q", b"{bad json")
    queue.enqueue("q", "failing")
    queue.enqueue("q", "last")

    with running(worker):
        assert done.wait(10.0)

    assert queue.failed_count() == 2


def test_a_worker_that_has_ended_performs_nothing(stage: Stage) -> None:
    queue = stage.queue()
    with stage.working(JOBS, "*"):
        queue.enqueue("q", "add", [1, 2])
        stage.await_event("success")

    queue.enqueue("q", "add", [3, 4])
    queue.enqueue("other", "add", [3, 4])

    assert stage.redis.smembers("resque:workers") == set()
    assert not [name for name in threading.enumerate() if name.name == "lease"]
    assert (queue.length("q"), queue.length("other")) == (1, 1)
    assert len(stage.heard("success")) == 1


def test_cleaning_nobody_counts_nothing(stage: Stage) -> None:
    queue = stage.queue()
    stage.redis.sadd("resque:workers", "idle:1:q")

    assert queue.force_clean_worker("nobody:1") is None
    assert queue.force_clean_worker("idle:1") is None

    assert queue.stats().get("failed", 0) == 0
    assert queue.failed_count() == 0
    assert queue.workers() == {}


def busy(stage: Stage, worker: str, /, **fields: str) -> None:
    """Have a dead worker of another language, which has a job in hand."""
    record = {
        "queue": "q",
        "run_at": "2020-11-24T02:45:08Z",
        "payload": {"class": "add", "args": [1, 2]},
        **fields,
    }
    stage.redis.sadd("resque:workers", worker)
    stage.redis.set(f"resque:worker:{worker}", json.dumps(record))


def test_what_was_cleaned_is_not_cleaned_again(stage: Stage) -> None:
    queue = stage.queue()
    busy(stage, "dead:1:q", worker="dead:1")
    assert queue.force_clean_worker("dead:1") is not None

    stage.redis.sadd("resque:workers", "dead:1:q")
    assert queue.force_clean_worker("dead:1") is None
    assert queue.clean_old_workers(1) == {}

    assert queue.failed_count() == 1


def test_two_who_clean_at_once_fail_a_job_once(stage: Stage) -> None:
    barrier = threading.Barrier(4)
    queues = [stage.queue() for _ in range(4)]
    entries: list[dict[str, Any] | None] = []

    def clean(queue: Queue) -> None:
        barrier.wait(10.0)
        entries.append(queue.force_clean_worker("dead:1"))

    busy(stage, "dead:1:q", worker="dead:1")
    threads = [threading.Thread(target=clean, args=(queue,)) for queue in queues]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)

    assert len(entries) == 4
    assert sum(entry is not None for entry in entries) == 1
    assert queues[0].failed_count() == 1
    assert queues[0].stats()["failed"] == 1


def test_workers_of_ruby_have_their_names(stage: Stage) -> None:
    queue = stage.queue()
    busy(stage, "ruby:1:q")

    record: Any = queue.all_working_on()["ruby:1"]

    assert record["payload"]["class"] == "add"
    assert list(queue.all_working_on()) == ["ruby:1"]
    assert list(queue.clean_old_workers(1)) == ["ruby:1"]
    assert queue.stats()["failed"] == 1


def test_no_retry_and_no_delay_are_what_is_said(stage: Stage) -> None:
    def failing(_mark: int) -> None:
        raise ValueError("BUSTED")

    options: dict[str, Any] = {"retryLimit": 2, "retryDelay": 0}
    jobs = {
        "once": described(failing, "Retry", Retry={"retryLimit": 0}),
        "twice": described(failing, "Retry", Retry=options),
        "ours": described(failing, Retry(1)),
    }
    queue = stage.queue()
    with stage.working(jobs):
        for name in jobs:
            queue.enqueue("q", name, [1])
        stage.await_event("failure", 3)

    assert [job["class"] for _queue, job, _details in stage.heard("re_enqueue")] == ["twice"]
    assert stage.heard("re_enqueue")[0][2]["delay"] == 0
    assert options == {"retryLimit": 2, "retryDelay": 0}
    assert queue.timestamps() == []

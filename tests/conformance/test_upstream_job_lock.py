"""The upstream suite plugins/jobLock, mirrored.

* will not lock jobs since arg objects are different
  -> test_will_not_lock_jobs_since_arg_objects_are_different
* allows the key to be specified as a function
  -> test_allows_the_key_to_be_specified_as_a_function: it is called once for a job, not twice,
  because the lock belongs to the claim, and what ends the claim frees it
* will not run 2 jobs with the same args at the same time
  -> test_will_not_run_2_jobs_with_the_same_args_at_the_same_time
* can be configured not to re-enqueue a duplicate task
  -> test_can_be_configured_not_to_re_enqueue_a_duplicate_task
* will run 2 jobs with the different args at the same time
  -> test_will_run_2_jobs_with_the_different_args_at_the_same_time: a barrier in the jobs, not a
  bound on the time that they take
"""

import threading
from typing import Any

from forkresque.plugins import JobLock, Performance
from tests.conformance.stage import Gate, Stage, described


def test_will_not_lock_jobs_since_arg_objects_are_different(stage: Stage) -> None:
    both = threading.Barrier(2, timeout=10.0)
    jobs = {"slowAdd": described(lambda _given: both.wait(), "JobLock")}
    queue = stage.queue(jobs)

    with stage.working(jobs, number=2):
        queue.enqueue("q", "slowAdd", [{"name": "Walter White"}])
        queue.enqueue("q", "slowAdd", [{"name": "Jesse Pinkman"}])
        stage.await_event("success", 2)

    assert stage.heard("failure") == []


def test_allows_the_key_to_be_specified_as_a_function(stage: Stage) -> None:
    called: list[list[Any]] = []
    held: list[list[str]] = []

    def key(context: Performance) -> str:
        called.append(context.args)
        return "resque:lock:the-key"

    jobs = {
        "jobLockAdd": described(
            lambda _a, _b: held.append(stage.keys("*the-key")), "JobLock", JobLock={"key": key}
        )
    }
    queue = stage.queue(jobs)

    with stage.working(jobs):
        queue.enqueue("q", "jobLockAdd", [1, 2])
        stage.await_event("success")

    assert called == [[1, 2]]
    assert held == [["resque:lock:the-key"]]
    assert stage.keys("*the-key") == []


def perform_two(stage: Stage, **options: Any) -> None:
    """Give a job to one worker, and an equal one to another while the first is at it."""
    gate = Gate()
    jobs = {"slowAdd": described(gate, "JobLock", JobLock=options)}
    queue = stage.queue(jobs)
    with stage.working(jobs, number=2):
        queue.enqueue("q", "slowAdd", [1, 2])
        gate.await_begin()
        stage.await_event("pause", 2)  # each worker has looked for its first job
        queue.enqueue("q", "slowAdd", [1, 2])
        stage.await_event("pause", 3)  # and one has done with its first
        gate.let_go.set()
        stage.await_event("success")


def test_will_not_run_2_jobs_with_the_same_args_at_the_same_time(stage: Stage) -> None:
    perform_two(stage)

    assert len(stage.heard("success")) == 1
    assert sum(stage.redis.llen(key) for key in stage.keys("resque:delayed:*")) == 1


def test_can_be_configured_not_to_re_enqueue_a_duplicate_task(stage: Stage) -> None:
    perform_two(stage, reEnqueue=False)

    assert len(stage.heard("success")) == 1
    assert stage.queue().timestamps() == []


def test_will_run_2_jobs_with_the_different_args_at_the_same_time(stage: Stage) -> None:
    both = threading.Barrier(2, timeout=10.0)
    jobs = {"slowAdd": described(lambda _a, _b: both.wait(), JobLock(lock_timeout=60))}
    queue = stage.queue(jobs)

    with stage.working(jobs, number=2):
        queue.enqueue("q", "slowAdd", [1, 2])
        queue.enqueue("q", "slowAdd", [3, 4])
        stage.await_event("success", 2)

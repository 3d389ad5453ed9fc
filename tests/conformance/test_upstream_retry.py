"""The upstream suite plugins/retry, mirrored.

An attempt that failed and comes back is the event `re_enqueue` here, where node-resque tells of a
success. A limit is the number of attempts in both.

* will work fine with non-crashing jobs
  -> test_will_work_fine_with_non_crashing_jobs
* will retry the job n times before finally failing
  -> test_will_retry_the_job_n_times_before_finally_failing: two `re_enqueue` and one `failure`
* can have a retry count set
  -> test_can_have_a_retry_count_set: four `re_enqueue` and one `failure`
* can have custom retry times set
  -> test_can_have_custom_retry_times_set: the delays that are told, in seconds
* when a job fails it should be re-enqueued (and not go to the failure queue)
  -> test_when_a_job_fails_it_should_be_re_enqueued_and_not_go_to_the_failure_queue
* will handle the stats properly for failing jobs
  -> test_will_handle_the_stats_properly_for_failing_jobs: a counter that nothing has raised is not
  there, where node-resque has "0"; numbers are ints
* will set the retry counter & retry data
  -> test_will_set_the_retry_counter_retry_data: the error is named after its class in Python
"""

import json
from typing import Any, NoReturn

import pytest

from forkresque import Queue
from tests.conformance.stage import Jobs, Stage, add, described
from tests.support.waiting import wait_until

DELAYS_MS = [100, 200, 300, 400]


def broken(*_args: object) -> NoReturn:
    raise ValueError("BUSTED")


def retried(**options: Any) -> Jobs:
    return {"brokenJob": described(broken, "Retry", Retry=options)}


def fail_once(stage: Stage) -> Queue:
    """Have a job of three attempts fail once."""
    jobs = retried(retryLimit=3, retryDelay=60_000)
    queue = stage.queue(jobs)
    with stage.working(jobs):
        queue.enqueue("q", "brokenJob", [1, 2])
        stage.await_event("re_enqueue")
        yield_stats(stage)
    return queue


def yield_stats(stage: Stage) -> None:
    """Note the counters while the worker is there; its own go with it."""
    keys = [key for key in stage.keys("resque:stat:*") if stage.redis.get(key)]
    stage.told.append(("stats", ({key: int(stage.redis.get(key)) for key in keys},)))


def test_will_work_fine_with_non_crashing_jobs(stage: Stage) -> None:
    jobs = {"happyJob": described(add, "Retry", Retry={"retryLimit": 3})}
    queue = stage.queue(jobs)

    with stage.working(jobs):
        queue.enqueue("q", "happyJob", [1, 2])
        stage.await_event("success")

    assert queue.failed_count() == 0


def fail_for_good(stage: Stage, **options: Any) -> None:
    """Have a job fail until it does not come back, whatever its delays."""
    jobs = retried(**options)
    queue = stage.queue(jobs)
    with stage.working(jobs):
        queue.enqueue("q", "brokenJob", [1, 2])
        wait_until(lambda: (stage.bring_back(), stage.heard("failure"))[1], "the last failure")
    assert queue.failed_count() == 1


@pytest.mark.timeout(10)
def test_will_retry_the_job_n_times_before_finally_failing(stage: Stage) -> None:
    fail_for_good(stage, retryLimit=3, retryDelay=100)

    assert len(stage.heard("re_enqueue")) == 2
    assert len(stage.heard("failure")) == 1
    assert stage.heard("success") == []


def test_can_have_a_retry_count_set(stage: Stage) -> None:
    fail_for_good(stage, retryLimit=5, retryDelay=100)

    assert len(stage.heard("re_enqueue")) == 4
    assert len(stage.heard("failure")) == 1


def test_can_have_custom_retry_times_set(stage: Stage) -> None:
    fail_for_good(stage, retryLimit=5, backoffStrategy=DELAYS_MS)

    delays = [details["delay"] for _queue, _job, details in stage.heard("re_enqueue")]
    assert delays == [delay / 1000 for delay in DELAYS_MS]
    assert len(stage.heard("failure")) == 1


def test_when_a_job_fails_it_should_be_re_enqueued_and_not_go_to_the_failure_queue(
    stage: Stage,
) -> None:
    queue = fail_once(stage)

    assert len(queue.scheduled_at("q", "brokenJob", [1, 2])) == 1
    assert queue.failed_count() == 0


def test_will_handle_the_stats_properly_for_failing_jobs(stage: Stage) -> None:
    fail_once(stage)

    ((stats,),) = stage.heard("stats")
    (own,) = (key for key in stats if key.startswith("resque:stat:failed:"))
    assert stats == {"resque:stat:failed": 1, own: 1}


def test_will_set_the_retry_counter_retry_data(stage: Stage) -> None:
    fail_once(stage)

    assert stage.redis.get("resque:resque-retry:brokenJob:1-2") == b"0"
    record = json.loads(stage.redis.get("resque:failure-resque-retry:brokenJob:1-2"))
    assert record["payload"] == [1, 2]
    assert record["exception"] == record["error"] == "ValueError: BUSTED"
    assert record["worker"] == "brokenJob"
    assert record["queue"] == "q"
    assert record["failed_at"]
    assert "ValueError: BUSTED" in record["backtrace"]

"""The upstream suite core/queue, mirrored. Lengths of time and moments are seconds here.

* can connect
  -> test_can_connect
* can add a normal job
  -> test_can_add_a_normal_job
* can add delayed job (enqueueAt)
  -> test_can_add_delayed_job_enqueue_at
* can add delayed job whose timestamp is a string (enqueueAt)
  -> test_can_add_delayed_job_whose_timestamp_is_a_string_enqueue_at
* will not enqueue a delayed job at the same time with matching params with error
  -> test_will_not_enqueue_a_delayed_job_at_the_same_time_with_matching_params_with_error: Ruby's
  spelling of the job counts as well as node's
* will not enqueue a delayed job at the same time with matching params with error suppressed
  -> test_will_not_enqueue_a_delayed_job_at_the_same_time_with_matching_params_suppressed: False,
  not undefined
* can add delayed job (enqueueIn)
  -> test_can_add_delayed_job_enqueue_in: the second is rounded up, so that no job is early
* can add a delayed job whose time is a string (enqueueIn)
  -> test_can_add_a_delayed_job_whose_time_is_a_string_enqueue_in
* can get the number of jobs currently enqueued
  -> test_can_get_the_number_of_jobs_currently_enqueued
* can get the jobs in the queue
  -> test_can_get_the_jobs_in_the_queue
* can find previously scheduled jobs
  -> test_can_find_previously_scheduled_jobs
* will not match previously scheduled jobs with differnt args
  -> test_will_not_match_previously_scheduled_jobs_with_differnt_args
* can delete an enqueued job
  -> test_can_delete_an_enqueued_job
* can delete all enqueued jobs of a particular function/class
  -> test_can_delete_all_enqueued_jobs_of_a_particular_function_class
* can delete a delayed job
  -> test_can_delete_a_delayed_job
* can delete a delayed job, and delayed queue should be empty
  -> test_can_delete_a_delayed_job_and_delayed_queue_should_be_empty: its second leaves the schedule
  at once
* can handle single arguments without explicit array
  -> test_can_handle_single_arguments_without_explicit_array
* allows omitting arguments when enqueuing
  -> test_allows_omitting_arguments_when_enqueuing
* allows omitting arguments when deleting
  -> test_allows_omitting_arguments_when_deleting
* allows omitting arguments when adding delayed job
  -> test_allows_omitting_arguments_when_adding_delayed_job
* allows omitting arguments when deleting a delayed job
  -> test_allows_omitting_arguments_when_deleting_a_delayed_job
* can determine who the leader is
  -> test_can_determine_who_the_leader_is
* can load stats
  -> test_can_load_stats: ints, not strings
* can get locks
  -> test_can_get_locks
* can remove locks
  -> test_can_remove_locks
* can list how many failed jobs there are
  -> test_can_list_how_many_failed_jobs_there_are
* can get the body content for a collection of failed jobs
  -> test_can_get_the_body_content_for_a_collection_of_failed_jobs: records have attributes
* can remove a failed job by payload
  -> test_can_remove_a_failed_job_by_payload: True and False, not 1 and 0
* can re-enqueue a specific job, removing it from the failed queue
  -> test_can_re_enqueue_a_specific_job_removing_it_from_the_failed_queue
* will return an error when trying to retry a job not in the failed queue
  -> test_will_return_an_error_when_trying_to_retry_a_job_not_in_the_failed_queue
* can list the timestamps that exist
  -> test_can_list_the_timestamps_that_exist
* can list the jobs delayed at a timestamp
  -> test_can_list_the_jobs_delayed_at_a_timestamp: the second is called `timestamp`
* can also return a hash with all delayed tasks
  -> test_can_also_return_a_hash_with_all_delayed_tasks: its keys are ints
* can list running workers
  -> test_can_list_running_workers
* we can see what workers are working on (idle)
  -> test_we_can_see_what_workers_are_working_on_idle
* we can see what workers are working on (active)
  -> test_we_can_see_what_workers_are_working_on_active
* can remove stuck workers and re-enqueue their jobs
  -> test_can_remove_stuck_workers_and_re_enqueue_their_jobs
* will not remove stuck jobs within the time limit
  -> test_will_not_remove_stuck_jobs_within_the_time_limit
* can forceClean a worker, returning the error payload
  -> test_can_force_clean_a_worker_returning_the_error_payload
* can forceClean a worker, returning the error payload and removing all keys it had set in redis
  -> test_can_force_clean_a_worker_returning_the_error_payload_and_removing_all_keys: of a worker
  that is busy, too
* retryStuckJobs
  -> test_retry_stuck_jobs
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from forkresque import AlreadyScheduled, Queue
from forkresque.errors import NotFailed
from tests.conformance.stage import Gate, Stage, payloads
from tests.support.waiting import wait_until

ARGS = [1, 2, 3]
DELAYED = "resque:delayed_queue_schedule"
STUCK = "Worker Timeout (killed manually)"


def test_can_connect(stage: Stage) -> None:
    queue = Queue(stage.url)
    queue.connect()
    queue.end()


def test_can_add_a_normal_job(stage: Stage) -> None:
    assert stage.queue().enqueue("q", "someJob", ARGS) is True

    job = json.loads(stage.redis.lpop("resque:queue:q"))
    assert job["class"] == "someJob"
    assert job["args"] == ARGS


def is_delayed_to_ten(stage: Stage) -> bool:
    job = json.loads(stage.redis.lindex("resque:delayed:10", 0))
    score = stage.redis.zscore(DELAYED, "10")
    return (score, job["class"], job["args"]) == (10, "someJob", ARGS)


def test_can_add_delayed_job_enqueue_at(stage: Stage) -> None:
    assert stage.queue().enqueue_at(10, "q", "someJob", ARGS) is True

    assert is_delayed_to_ten(stage)


def test_can_add_delayed_job_whose_timestamp_is_a_string_enqueue_at(stage: Stage) -> None:
    moment: Any = "10"

    assert stage.queue().enqueue_at(moment, "q", "someJob", ARGS) is True

    assert is_delayed_to_ten(stage)


def test_will_not_enqueue_a_delayed_job_at_the_same_time_with_matching_params_with_error(
    stage: Stage,
) -> None:
    queue = stage.queue()
    queue.enqueue_at(10, "q", "someJob", ARGS)

    with pytest.raises(
        AlreadyScheduled, match="Job already enqueued at this time with same arguments"
    ):
        queue.enqueue_at(10, "q", "someJob", ARGS)
    assert len(queue.delayed_at(10).tasks) == 1


def test_will_not_enqueue_a_delayed_job_at_the_same_time_with_matching_params_suppressed(
    stage: Stage,
) -> None:
    queue = stage.queue()
    queue.enqueue_at(10, "q", "someJob", ARGS)

    added = queue.enqueue_at(10, "q", "someJob", ARGS, suppress_duplicate_task_error=True)

    assert added is False
    assert len(queue.delayed_at(10).tasks) == 1


def assert_due_in_five_seconds(stage: Stage, began: float) -> None:
    ((member, score),) = stage.redis.zrange(DELAYED, 0, -1, withscores=True)
    assert began + 5 <= score <= stage.now() + 6
    job = json.loads(stage.redis.lindex(f"resque:delayed:{int(member)}", 0))
    assert job["class"] == "someJob"
    assert job["args"] == ARGS


def test_can_add_delayed_job_enqueue_in(stage: Stage) -> None:
    began = stage.now()

    assert stage.queue().enqueue_in(5, "q", "someJob", ARGS) is True

    assert_due_in_five_seconds(stage, began)


def test_can_add_a_delayed_job_whose_time_is_a_string_enqueue_in(stage: Stage) -> None:
    began, delay = stage.now(), "5"
    given: Any = delay

    assert stage.queue().enqueue_in(given, "q", "someJob", ARGS) is True

    assert_due_in_five_seconds(stage, began)


def test_can_get_the_number_of_jobs_currently_enqueued(stage: Stage) -> None:
    queue = stage.queue()
    for _ in range(2):
        queue.enqueue("q", "someJob", ARGS)

    assert queue.length("q") == 2


def test_can_get_the_jobs_in_the_queue(stage: Stage) -> None:
    queue = stage.queue()
    queue.enqueue("q", "someJob", [1, 2, 3])
    queue.enqueue("q", "someJob", [4, 5, 6])

    jobs = queue.queued("q", 0, -1)

    assert [job["args"] for job in jobs] == [[1, 2, 3], [4, 5, 6]]


def test_can_find_previously_scheduled_jobs(stage: Stage) -> None:
    queue = stage.queue()
    queue.enqueue_at(10, "q", "someJob", ARGS)

    assert queue.scheduled_at("q", "someJob", ARGS) == [10]


def test_will_not_match_previously_scheduled_jobs_with_differnt_args(stage: Stage) -> None:
    queue = stage.queue()
    queue.enqueue_at(10, "q", "someJob", ARGS)

    assert queue.scheduled_at("q", "someJob", [3, 2, 1]) == []


def test_can_delete_an_enqueued_job(stage: Stage) -> None:
    queue = stage.queue()
    queue.enqueue("q", "someJob", ARGS)
    assert queue.length("q") == 1

    assert queue.delete("q", "someJob", ARGS) == 1

    assert queue.length("q") == 0


def test_can_delete_all_enqueued_jobs_of_a_particular_function_class(stage: Stage) -> None:
    queue = stage.queue()
    queue.enqueue("q", "someJob1", [1, 2, 3])
    queue.enqueue("q", "someJob1", [1, 2, 3])
    queue.enqueue("q", "someJob2", [1, 2, 3])

    assert queue.delete_by_function("q", "someJob1") == 2

    assert [job["class"] for job in queue.queued("q", 0, -1)] == ["someJob2"]


def test_can_delete_a_delayed_job(stage: Stage) -> None:
    queue = stage.queue()
    queue.enqueue_at(10, "q", "someJob", ARGS)

    assert queue.delete_delayed("q", "someJob", ARGS) == [10]


def test_can_delete_a_delayed_job_and_delayed_queue_should_be_empty(stage: Stage) -> None:
    queue = stage.queue()
    queue.enqueue_at(10, "q", "someJob", ARGS)

    assert queue.delete_delayed("q", "someJob", ARGS) == [10]

    assert queue.all_delayed() == {}
    assert stage.keys("resque:*delayed*") == stage.keys("resque:timestamps*") == []


def test_can_handle_single_arguments_without_explicit_array(stage: Stage) -> None:
    single: Any = 1

    stage.queue().enqueue("q", "someJob", single)

    assert json.loads(payloads(stage)[0])["args"] == [1]


def test_allows_omitting_arguments_when_enqueuing(stage: Stage) -> None:
    queue = stage.queue()
    queue.enqueue("q", "noParams")
    queue.enqueue("q", "noParams")

    assert [job["args"] for job in queue.queued("q", 0, -1)] == [[], []]


def test_allows_omitting_arguments_when_deleting(stage: Stage) -> None:
    queue = stage.queue()
    queue.enqueue("q", "noParams", [])
    queue.enqueue("q", "noParams", [])

    assert queue.delete("q", "noParams") == 2
    assert queue.delete("q", "noParams") == 0
    assert queue.length("q") == 0


def test_allows_omitting_arguments_when_adding_delayed_job(stage: Stage) -> None:
    queue = stage.queue()
    queue.enqueue_at(10, "q", "noParams")
    queue.enqueue_at(20, "q", "noParams", [])
    queue.enqueue_in(11, "q", "noParams")
    queue.enqueue_in(21, "q", "noParams", [])

    delayed = queue.all_delayed()

    assert len(delayed) == 4
    assert [[job["args"] for job in jobs] for jobs in delayed.values()] == [[[]]] * 4


def test_allows_omitting_arguments_when_deleting_a_delayed_job(stage: Stage) -> None:
    queue = stage.queue()
    for second in (10, 20):
        queue.enqueue_at(second, "q", "noParams")

    assert queue.delete_delayed("q", "noParams") == [10, 20]

    assert queue.all_delayed() == {}
    assert queue.delete_delayed("q", "noParams", []) == []


def test_can_determine_who_the_leader_is(stage: Stage) -> None:
    queue = stage.queue()
    assert queue.leader() is None

    stage.redis.set(queue.leader_key(), "the leader")

    assert queue.leader() == "the leader"


def test_can_load_stats(stage: Stage) -> None:
    stage.redis.set("resque:stat:failed", 1)
    stage.redis.set("resque:stat:processed", 2)

    assert stage.queue().stats() == {"failed": 1, "processed": 2}


def locked(stage: Stage) -> Queue:
    stage.redis.set("resque:lock:lists:queueName:jobName:[{}]", "123")
    stage.redis.set("resque:workerslock:lists:queueName:jobName:[{}]", "456")
    return stage.queue()


def test_can_get_locks(stage: Stage) -> None:
    assert locked(stage).locks() == {
        "lock:lists:queueName:jobName:[{}]": "123",
        "workerslock:lists:queueName:jobName:[{}]": "456",
    }


def test_can_remove_locks(stage: Stage) -> None:
    queue = locked(stage)

    assert queue.delete_lock("workerslock:lists:queueName:jobName:[{}]") == 1
    assert queue.delete_lock("workerslock:lists:queueName:jobName:[{}]") == 0
    assert len(queue.locks()) == 1


def failed(stage: Stage) -> Queue:
    """Have three jobs failed, as node-resque writes them; return a queue."""
    for number in (1, 2, 3):
        entry = {
            "worker": f"busted-worker-{number}",
            "queue": "busted_queue",
            "payload": {"class": "busted_job", "queue": "busted_queue", "args": [number, 2, 3]},
            "exception": "ERROR_NAME",
            "error": "I broke",
            "failed_at": "Tue Nov 24 2026 02:36:10 GMT+0000 (Coordinated Universal Time)",
        }
        stage.redis.rpush("resque:failed", json.dumps(entry, separators=(",", ":")))
    return stage.queue()


def test_can_list_how_many_failed_jobs_there_are(stage: Stage) -> None:
    assert failed(stage).failed_count() == 3


def test_can_get_the_body_content_for_a_collection_of_failed_jobs(stage: Stage) -> None:
    found = failed(stage).failed(1, 2)

    assert [failure.worker for failure in found] == ["busted-worker-2", "busted-worker-3"]
    assert [failure.args for failure in found] == [[2, 2, 3], [3, 2, 3]]
    assert {failure.queue for failure in found} == {"busted_queue"}
    assert {failure.name for failure in found} == {"busted_job"}
    assert {failure.exception for failure in found} == {"ERROR_NAME"}
    assert {failure.error for failure in found} == {"I broke"}


def test_can_remove_a_failed_job_by_payload(stage: Stage) -> None:
    queue = failed(stage)
    (second,) = queue.failed(1, 1)

    assert queue.remove_failed(second) is True
    assert queue.remove_failed(second) is False
    assert queue.failed_count() == 2


def test_can_re_enqueue_a_specific_job_removing_it_from_the_failed_queue(stage: Stage) -> None:
    queue = failed(stage)
    (third,) = queue.failed(2, 2)

    assert queue.retry_and_remove_failed(third) is True

    assert [failure.worker[-1] for failure in queue.failed()] == ["1", "2"]
    assert [job["args"] for job in queue.queued("busted_queue")] == [[3, 2, 3]]


def test_will_return_an_error_when_trying_to_retry_a_job_not_in_the_failed_queue(
    stage: Stage,
) -> None:
    queue = failed(stage)
    (third,) = queue.failed(2, 2)
    queue.remove_failed(third)

    with pytest.raises(NotFailed, match="This job is not in failed queue"):
        queue.retry_and_remove_failed(third)
    assert queue.failed_count() == 2
    assert queue.length("busted_queue") == 0


def delayed(stage: Stage) -> Queue:
    queue = stage.queue()
    queue.enqueue_at(10, "q", "job1", [1, 2, 3])
    queue.enqueue_at(10, "q", "job2", [1, 2, 3])
    queue.enqueue_at(20, "q", "job3", [1, 2, 3])
    return queue


def test_can_list_the_timestamps_that_exist(stage: Stage) -> None:
    assert delayed(stage).timestamps() == [10, 20]


def test_can_list_the_jobs_delayed_at_a_timestamp(stage: Stage) -> None:
    queue = delayed(stage)

    tasks, second = queue.delayed_at(10)
    assert [job["class"] for job in tasks] == ["job1", "job2"]
    assert second == 10
    tasks, second = queue.delayed_at(20)
    assert [job["class"] for job in tasks] == ["job3"]
    assert second == 20


def test_can_also_return_a_hash_with_all_delayed_tasks(stage: Stage) -> None:
    found = delayed(stage).all_delayed()

    assert {second: [job["class"] for job in jobs] for second, jobs in found.items()} == {
        10: ["job1", "job2"],
        20: ["job3"],
    }


@contextmanager
def two_workers(stage: Stage, gate: Gate) -> Iterator[tuple[Queue, str, str]]:
    """Run two workers, of which the second begins a job; yield a queue and their names."""
    jobs = {"slowJob": gate}
    queue = stage.queue()
    queue.enqueue("q2", "slowJob", [{"a": 1}])
    with stage.working(jobs, "q", host="idle"), stage.working(jobs, "q1", "q2", host="busy"):
        try:
            gate.await_begin()
            wait_until(lambda: len(queue.workers()) == 2, "both to be there")
            idle, busy = sorted(queue.workers(), reverse=True)
            yield queue, idle, busy
        finally:
            gate.let_go.set()


def test_can_list_running_workers(stage: Stage) -> None:
    with two_workers(stage, Gate()) as (queue, idle, busy):
        assert queue.workers() == {idle: "q", busy: "q1,q2"}
        assert idle.startswith("idle")

    assert queue.workers() == {}


def test_we_can_see_what_workers_are_working_on_idle(stage: Stage) -> None:
    with two_workers(stage, Gate()) as (queue, idle, _busy):
        assert queue.all_working_on()[idle] == "started"
        assert queue.working_on(idle, "q") is None


def test_we_can_see_what_workers_are_working_on_active(stage: Stage) -> None:
    with two_workers(stage, Gate()) as (queue, _idle, busy):
        record: Any = queue.all_working_on()[busy]
        assert record["queue"] == "q2"
        assert record["payload"]["class"] == "slowJob"
        assert record["payload"]["args"] == [{"a": 1}]
        assert queue.working_on(busy, "q1,q2") == record


WORKER = "workerA:1:q"


def stuck(stage: Stage, run_at: str = "Tue Nov 24 2020 02:36:10 GMT+0000") -> Queue:
    """Have a worker of node's that died over a job; return a queue."""
    stage.redis.sadd("resque:workers", WORKER)
    stage.redis.set(f"resque:worker:{WORKER}:started", 1_606_185_370)
    stage.redis.set("resque:worker:ping:workerA:1", '{"time":1606185370,"name":"workerA:1"}')
    stage.redis.set("resque:stat:processed:workerA:1", 7)
    record = {
        "run_at": run_at,
        "queue": "q",
        "worker": "workerA:1",
        "payload": {"class": "slowJob", "queue": "q", "args": [{"a": 1}]},
    }
    stage.redis.set(f"resque:worker:{WORKER}", json.dumps(record))
    return stage.queue()


def test_can_remove_stuck_workers_and_re_enqueue_their_jobs(stage: Stage) -> None:
    queue = stuck(stage)

    cleaned = queue.clean_old_workers(1)

    assert list(cleaned) == ["workerA:1"]
    assert cleaned["workerA:1"]["payload"]["class"] == "slowJob"
    assert queue.all_working_on() == {}
    (failure,) = queue.failed()
    assert (failure.queue, failure.name, failure.args) == ("q", "slowJob", [{"a": 1}])
    assert failure.error == STUCK
    assert queue.retry_and_remove_failed(failure) is True
    assert [job["args"] for job in queue.queued("q")] == [[{"a": 1}]]


def test_will_not_remove_stuck_jobs_within_the_time_limit(stage: Stage) -> None:
    queue = stuck(stage)

    assert queue.clean_old_workers(1e9) == {}

    assert list(queue.all_working_on()) == ["workerA:1"]
    assert queue.failed_count() == 0


def test_can_force_clean_a_worker_returning_the_error_payload(stage: Stage) -> None:
    queue = stuck(stage)

    entry = queue.force_clean_worker("workerA:1")

    assert entry is not None
    assert entry["worker"].startswith("workerA:1")
    assert entry["queue"] == "q"
    assert entry["payload"]["class"] == "slowJob"
    assert entry["payload"]["args"] == [{"a": 1}]
    assert entry["exception"] == entry["error"] == STUCK
    assert entry["backtrace"][0].startswith("killed by ")
    assert entry["backtrace"][1] == "queue#forceCleanWorker"
    assert len(entry["backtrace"]) == 3
    assert entry["failed_at"]


def test_can_force_clean_a_worker_returning_the_error_payload_and_removing_all_keys(
    stage: Stage,
) -> None:
    queue = stuck(stage)
    assert queue.force_clean_worker("workerA:1") is not None
    assert stage.keys("*workerA*") == []

    stuck(stage)
    stage.redis.delete(f"resque:worker:{WORKER}")
    assert queue.force_clean_worker("workerA:1") is None
    assert stage.keys("*workerA*") == []


def test_retry_stuck_jobs(stage: Stage) -> None:
    queue = stuck(stage)
    queue.force_clean_worker("workerA:1")
    assert queue.failed_count() == 1

    assert queue.retry_stuck_jobs() == 1

    assert queue.failed_count() == 0
    assert queue.length("q") == 1

"""The upstream suite plugins/queueLock, mirrored.

* will not enque a job with the same args if it is already in the queue
  -> test_will_not_enque_a_job_with_the_same_args_if_it_is_already_in_the_queue
* will enque a job with the different args
  -> test_will_enque_a_job_with_the_different_args
* will enqueue a job with timeout set by QueueLock plugin options and check its ttl
  -> test_will_enqueue_a_job_with_timeout_set_by_queue_lock_plugin_options_and_check_its_ttl
* will enqueue a repeated stuck job after another one to overwrite the ttl and the expiration
  time of the lock
  -> test_will_enqueue_a_repeated_stuck_job_after_another_one_to_overwrite_the_ttl: the lock ends a
  moment later, not after its time; and one without an end is over when its value says so
* will remove a lock on a job when the job has been worked
  -> test_will_remove_a_lock_on_a_job_when_the_job_has_been_worked
* will remove a lock on a job if a plugin does not run the job
  -> test_will_remove_a_lock_on_a_job_if_a_plugin_does_not_run_the_job
"""

from typing import Any

from forkresque import Plugin
from forkresque.plugins import Performance
from tests.conformance.stage import Stage, add, described
from tests.support.waiting import wait_until

JOBS: dict[str, Any] = {
    "uniqueJob": described(add, "QueueLock"),
    "briefJob": described(add, "QueueLock", QueueLock={"lockTimeout": 30}),
}
LOCK = "resque:lock:briefJob:q:[1,2]"


class Refusing(Plugin):
    def before_perform(self, context: Performance) -> bool:
        return False


def test_will_not_enque_a_job_with_the_same_args_if_it_is_already_in_the_queue(
    stage: Stage,
) -> None:
    queue = stage.queue(JOBS)

    assert [queue.enqueue("q", "uniqueJob", [1, 2]) for _ in range(2)] == [True, False]
    assert queue.length("q") == 1


def test_will_enque_a_job_with_the_different_args(stage: Stage) -> None:
    queue = stage.queue(JOBS)

    assert queue.enqueue("q", "uniqueJob", [1, 2]) is True
    assert queue.enqueue("q", "uniqueJob", [3, 4]) is True
    assert queue.length("q") == 2


def test_will_enqueue_a_job_with_timeout_set_by_queue_lock_plugin_options_and_check_its_ttl(
    stage: Stage,
) -> None:
    assert stage.queue(JOBS).enqueue("q", "briefJob", [1, 2]) is True

    assert 28 <= stage.redis.ttl(LOCK) <= 30


def test_will_enqueue_a_repeated_stuck_job_after_another_one_to_overwrite_the_ttl(
    stage: Stage,
) -> None:
    queue = stage.queue(JOBS)
    assert queue.enqueue("q", "briefJob", [1, 2]) is True
    assert queue.enqueue("q", "briefJob", [1, 2]) is False
    for over in (True, False):
        began = int(stage.now())
        if over:
            stage.redis.set(LOCK, began - 2)  # by its value, of a client that died in between
        else:
            stage.redis.pexpire(LOCK, 1)
            wait_until(lambda: not stage.redis.exists(LOCK), "the lock to end")

        assert queue.enqueue("q", "briefJob", [1, 2]) is True

        assert 28 <= stage.redis.ttl(LOCK) <= 30
        assert int(stage.redis.get(LOCK).split(b".")[0]) > began + 30


def test_will_remove_a_lock_on_a_job_when_the_job_has_been_worked(stage: Stage) -> None:
    queue = stage.queue(JOBS)
    queue.enqueue("q", "uniqueJob", [1, 2])
    assert len(stage.keys("resque:lock:*")) == 1

    with stage.working(JOBS):
        stage.await_event("success")

    assert stage.keys("resque:lock:*") == []


def test_will_remove_a_lock_on_a_job_if_a_plugin_does_not_run_the_job(stage: Stage) -> None:
    jobs = {"uniqueJob": described(add, "QueueLock", Refusing)}
    queue = stage.queue(jobs)
    queue.enqueue("q", "uniqueJob", [1, 2])

    with stage.working(jobs):
        wait_until(lambda: not queue.length("q"), "the job to be taken")
        wait_until(lambda: not stage.keys("resque:lock:*"), "the lock to be gone")

    assert stage.heard("success") == stage.heard("failure") == []

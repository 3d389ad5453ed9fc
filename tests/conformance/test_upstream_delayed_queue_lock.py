"""The upstream suite plugins/delayedQueueLock, mirrored.

* will not enque a job with the same args if it is already in the delayed queue
  -> test_will_not_enque_a_job_with_the_same_args_if_it_is_already_in_the_delayed_queue
* will enque a job with the different args
  -> test_will_enque_a_job_with_the_different_args
"""

from forkresque import Queue
from tests.conformance.stage import Stage, add, described


def locked(stage: Stage) -> Queue:
    return stage.queue({"uniqueJob": described(add, "DelayQueueLock")})


def test_will_not_enque_a_job_with_the_same_args_if_it_is_already_in_the_delayed_queue(
    stage: Stage,
) -> None:
    queue = locked(stage)
    queue.enqueue_in(10, "q", "uniqueJob", [1, 2])

    queue.enqueue("q", "uniqueJob", [1, 2])

    assert stage.redis.zcount("resque:delayed_queue_schedule", "-inf", "+inf") == 1
    assert queue.length("q") == 0


def test_will_enque_a_job_with_the_different_args(stage: Stage) -> None:
    queue = locked(stage)
    queue.enqueue_in(10, "q", "uniqueJob", [1, 2])

    queue.enqueue("q", "uniqueJob", [3, 4])

    assert stage.redis.zcount("resque:delayed_queue_schedule", "-inf", "+inf") == 1
    assert queue.length("q") == 1

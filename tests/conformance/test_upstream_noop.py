"""The upstream suite plugins/noop, mirrored.

* will work fine with non-crashing jobs
  -> test_will_work_fine_with_non_crashing_jobs
* will prevent any failed jobs from ending in the failed queue
  -> test_will_prevent_any_failed_jobs_from_ending_in_the_failed_queue
"""

from typing import NoReturn

from tests.conformance.stage import Stage, add, described


def broken() -> NoReturn:
    raise ValueError("BUSTED")


def test_will_work_fine_with_non_crashing_jobs(stage: Stage) -> None:
    logged: list[BaseException] = []
    jobs = {"happyJob": described(add, "Noop", Noop={"logger": logged.append})}
    queue = stage.queue(jobs)

    with stage.working(jobs):
        queue.enqueue("q", "happyJob", [1, 2])
        stage.await_event("success")

    assert logged == []
    assert queue.failed_count() == 0


def test_will_prevent_any_failed_jobs_from_ending_in_the_failed_queue(stage: Stage) -> None:
    logged: list[BaseException] = []
    jobs = {"brokenJob": described(broken, "Noop", Noop={"logger": logged.append})}
    queue = stage.queue(jobs)

    with stage.working(jobs):
        queue.enqueue("q", "brokenJob")
        stage.await_event("success")

    assert [str(error) for error in logged] == ["BUSTED"]
    assert queue.failed_count() == 0

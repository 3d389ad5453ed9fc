"""The upstream suite integration/ioredis, mirrored, over the connection of an existing client.

* a queue can be created
  -> test_a_queue_can_be_created
* a scheduler can be created
  -> test_a_scheduler_can_be_created
* a worker can be created
  -> test_a_worker_can_be_created
* a job can be enqueued
  -> test_a_job_can_be_enqueued
* the scheduler can promote the job
  -> test_the_scheduler_can_promote_the_job
* the worker can work the job
  -> test_the_worker_can_work_the_job
"""

from collections.abc import Iterator
from contextlib import closing

import pytest

from forkresque import Connection
from tests.conformance.round_trip import RoundTrip
from tests.conformance.stage import Stage


@pytest.fixture
def trip(stage: Stage) -> Iterator[RoundTrip]:
    with closing(RoundTrip(Connection(redis=stage.redis))) as trip:
        yield trip


def test_a_queue_can_be_created(trip: RoundTrip) -> None:
    trip.queue.connect()

    assert trip.queue.queues() == []


def test_a_scheduler_can_be_created(trip: RoundTrip) -> None:
    trip.scheduler.poll()

    assert trip.scheduler.leader


def test_a_worker_can_be_created(trip: RoundTrip) -> None:
    trip.work(0)

    assert trip.queue.workers() == {}


def test_a_job_can_be_enqueued(trip: RoundTrip) -> None:
    trip.enqueue()

    assert len(trip.queue.scheduled_at("q", "add", [1, 2])) == 1


def test_the_scheduler_can_promote_the_job(trip: RoundTrip) -> None:
    trip.enqueue()
    trip.promote()

    assert trip.queue.scheduled_at("q", "add", [1, 2]) == []
    assert trip.queue.length("q") == 1


def test_the_worker_can_work_the_job(trip: RoundTrip) -> None:
    trip.enqueue()
    trip.promote()

    assert trip.work(1) == [3]

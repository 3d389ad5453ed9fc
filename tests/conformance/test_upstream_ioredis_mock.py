"""The upstream suite integration/ioredis-mock, mirrored as far as it can be.

ioredis-mock is a Redis in the memory of a test. There is none here; who has no Redis uses an
embedded server, a real one that starts with its first user. So every test is the same with that.

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

from forkresque import embedded
from tests.conformance.round_trip import RoundTrip


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of an embedded server."""
    with closing(embedded.start(tmp_path_factory.mktemp("embedded"))) as server:
        yield server.url


@pytest.fixture
def trip(url: str, request: pytest.FixtureRequest) -> Iterator[RoundTrip]:
    with closing(RoundTrip({"url": url, "namespace": request.node.name})) as trip:
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

"""A queue, a scheduler and a worker on one connection, and a job that goes through all three."""

import threading

from forkresque import Queue, Scheduler, Worker
from forkresque.connection import Connectable, Connection
from tests.conformance.stage import add, running
from tests.support.waiting import wait_until


class RoundTrip:
    """The three of them, and `add(1, 2)`."""

    def __init__(self, connection: Connectable) -> None:
        self.connection = Connection.of(connection)
        self.queue = Queue(self.connection)
        self.scheduler = Scheduler(self.connection, name="host:1")

    def enqueue(self) -> None:
        """Enqueue the job for a moment from now."""
        self.queue.enqueue_in(0.001, "q", "add", [1, 2])

    def promote(self) -> None:
        """Have the scheduler poll until it has moved the job."""
        wait_until(lambda: (self.scheduler.poll(), self.queue.length("q"))[1], "the job")

    def work(self, number: int) -> list[int]:
        """Have a worker perform so many jobs; return what they gave back."""
        results: list[int] = []
        polled = threading.Event()
        worker = Worker(self.connection, {"add": add}, queues=["q"])
        worker.on("success", lambda _queue, _job, result, _took: results.append(result))
        worker.on("poll", lambda _queues: polled.set())
        with running(worker):
            assert polled.wait(10.0)
            wait_until(lambda: len(results) >= number, f"{number} results")
        return results

    def close(self) -> None:
        """Close what was opened."""
        self.scheduler.end()
        self.queue.end()

"""How many jobs a second can one producer put on a queue, one after another and in bulk?

    python -m bench.enqueue

One process, one thread, no workers. "small" is a job with a number and a short string; "nested" has
an object among its arguments and goes to three queues by turns. The times hold encoding, the way to
Redis and back, and what Redis does.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

from bench import support
from forkresque.bulk import Job
from forkresque.queue import Queue


def small(number: int) -> list[Job]:
    """Return jobs as most applications have them."""
    return [("mail", "send", [each, "a@example.org"]) for each in range(number)]


def nested(number: int) -> list[Job]:
    """Return jobs whose arguments take longer to encode."""
    return [
        (f"mail{each % 3}", "send", [each, {"to": "a@example.org", "weight": 1.5}])
        for each in range(number)
    ]


def one_by_one(queue: Queue, jobs: list[Job]) -> None:
    """Enqueue each job by itself."""
    for name, job, args in jobs:
        queue.enqueue(name, job, args)


def rate(put: Callable[[], object], number: int) -> float:
    """Return how many of so many jobs a second are put."""
    began = time.perf_counter()
    put()
    return number / (time.perf_counter() - began)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    kinds = {"small": small(options.jobs), "nested": nested(options.jobs)}
    found: dict[str, tuple[list[float], list[float]]] = {kind: ([], []) for kind in kinds}
    support.preamble("enqueueing from one thread")
    with support.server() as server, server.client() as client:
        queue = Queue(server.url)
        for _ in range(options.repeat):
            for kind, jobs in kinds.items():
                few = jobs[: len(jobs) // 20]
                found[kind][0].append(rate(partial(one_by_one, queue, few), len(few)))
                found[kind][1].append(rate(partial(queue.bulk, jobs), len(jobs)))
                client.flushall()
        queue.end()
    support.table(
        ("jobs", "one by one, jobs/s", "in bulk, jobs/s"),
        [[kind, *(support.spread(rates) for rates in both)] for kind, both in found.items()],
    )


if __name__ == "__main__":
    main()

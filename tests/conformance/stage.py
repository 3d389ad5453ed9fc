"""What the mirrored tests play on: a Redis, and the queues, workers and schedulers of one test."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from redis import Redis

from forkresque import Queue, Scheduler, Worker
from forkresque.post import Post
from forkresque.protocol.keys import Keys
from tests.support.servers import Server
from tests.support.waiting import wait_until

KEYS = Keys("resque")
EVENTS = ("job", "success", "failure", "re_enqueue", "pause", "error")
Jobs = Mapping[str, Any]


def add(a: int, b: int) -> int:
    """Be the job that most upstream tests run."""
    return a + b


class Stage:
    """An empty Redis. `told` is what the workers have told: event, arguments."""

    def __init__(self, server: Server, redis: Redis) -> None:
        self.server = server
        self.url = server.url
        self.redis: Any = redis
        self.told: list[tuple[str, tuple[Any, ...]]] = []
        self._stack = ExitStack()

    def close(self) -> None:
        """Close what the test has opened."""
        self._stack.close()

    def queue(self, jobs: Jobs | None = None) -> Queue:
        """Return a connected queue."""
        queue = Queue(self.url, jobs)
        self._stack.callback(queue.end)
        queue.connect()
        return queue

    def worker(
        self, jobs: Jobs, *queues: str, host: str = "h", renewal: float = 5.0, **options: Any
    ) -> Worker:
        """Return a worker that stands alone; its events are noted, and it pings so often."""
        patterns = queues or ("q",)
        post = Post.alone(patterns, host=host)
        post = post._replace(lease=post.lease._replace(term=6 * renewal))
        worker = Worker(self.url, jobs, queues=patterns, post=post, **options)
        for event in EVENTS:
            worker.on(event, lambda *args, event=event: self.told.append((event, args)))
        return worker

    def scheduler(self, **options: Any) -> Scheduler:
        """Return a scheduler that polls when it is told to."""
        scheduler = Scheduler(self.url, **{"name": "host:1", **options})
        self._stack.callback(scheduler.end)
        return scheduler

    def heard(self, event: str) -> list[tuple[Any, ...]]:
        """Return the arguments of all events of one name."""
        return [args for name, args in list(self.told) if name == event]

    def await_event(self, event: str, number: int = 1) -> list[tuple[Any, ...]]:
        """Wait for so many events of one name, and return their arguments."""
        wait_until(lambda: len(self.heard(event)) >= number, f"{number} of {event}")
        return self.heard(event)

    @contextmanager
    def working(self, jobs: Jobs, *queues: str, number: int = 1, host: str = "h") -> Iterator[None]:
        """Run workers until the end of the block."""
        hosts = [f"{host}{index}" for index in range(number)]
        with running(*(self.worker(jobs, *queues, host=each) for each in hosts)):
            yield

    def bring_back(self) -> int:
        """Put what is delayed into its queues, whenever it is due; return how much it was."""
        number = 0
        for bucket in list(self.redis.scan_iter(b"resque:delayed:*")):
            second = int(bucket.rpartition(b":")[2])
            while raw := self.redis.lpop(bucket):
                number += 1
                self.redis.srem(KEYS.timestamps(raw), f"delayed:{second}")
                self.redis.rpush(KEYS.queue("q"), raw)
            self.redis.zrem(KEYS.schedule(), second)
        return number

    def keys(self, pattern: str) -> list[str]:
        """Return the keys of Redis that match."""
        return sorted(key.decode() for key in self.redis.keys(pattern))

    def now(self) -> float:
        """Return Redis' time."""
        seconds, micros = self.redis.time()
        return float(seconds + micros / 1e6)


@contextmanager
def running(*workers: Worker) -> Iterator[None]:
    """Run workers in threads until the end of the block."""
    threads = [threading.Thread(target=worker.run, daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.join(10.0)
            assert not thread.is_alive(), "the worker does not leave"


class Gate:
    """A job that says when it has begun, and waits until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.let_go = threading.Event()

    def __call__(self, *args: object) -> str:
        self.begun.release()
        assert self.let_go.wait(10.0), "nobody lets this job go"
        return "through"

    def await_begin(self, times: int = 1) -> None:
        """Wait until the job has begun so many times more."""
        for _ in range(times):
            assert self.begun.acquire(timeout=10.0), "the job does not begin"


def described(perform: Callable[..., Any], *plugins: Any, **options: Any) -> dict[str, Any]:
    """Return a job as node-resque describes one; `options` are those of its plugins by name."""
    return {"perform": perform, "plugins": list(plugins), "pluginOptions": options}


def payloads(stage: Stage, queue: str = "q") -> Sequence[bytes]:
    """Return what waits in a queue."""
    found: list[bytes] = stage.redis.lrange(KEYS.queue(queue), 0, -1)
    return found

"""The conservation monitor: adds up all places where a job can be, again and again.

Jobs come in by `Intake`, which raises a counter in the transaction that pushes them. So at every
instant the sum over all places is that counter, whoever is killed meanwhile.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, Self

from tests.support.report import Report
from tests.support.servers import Server
from tests.support.site import KEYS

ACKNOWLEDGED = "test:acknowledged"
EVERY = 0.002  # seconds between two samples

# One look, in one instant. Slots are found by way of the masters, as a recovery finds them: a job
# in the slot of a worker that no master knows counts as lost. O(workers + due seconds + queues).
CENSUS = """
local found = redis.call("LLEN", KEYS[1]) + (redis.call("GET", KEYS[2]) or 0)
for _, master in ipairs(redis.call("SMEMBERS", KEYS[3])) do
  for _, worker in ipairs(redis.call("SMEMBERS", ARGV[1] .. master)) do
    found = found + redis.call("EXISTS", ARGV[2] .. worker)
  end
end
for _, second in ipairs(redis.call("ZRANGE", KEYS[4], 0, -1)) do
  found = found + redis.call("LLEN", ARGV[3] .. second)
end
for i = 6, #KEYS do found = found + redis.call("LLEN", KEYS[i]) end
return {found, tonumber(redis.call("GET", KEYS[5]) or 0)}
"""


class Intake:
    """Puts jobs into a queue, and keeps which were acknowledged: the bytes and their mark."""

    def __init__(self, redis: Any, queue: str = "math") -> None:
        self.acknowledged: dict[bytes, str] = {}
        self._redis = redis
        self._queue = queue

    def put(self, jobs: Mapping[bytes, str]) -> None:
        """Push jobs at the tail; each tells its mark to the ledger when it runs, "" for none."""
        if not jobs:
            return
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.sadd(KEYS.queues(), self._queue)
            pipe.rpush(KEYS.queue(self._queue), *jobs)
            pipe.incrby(ACKNOWLEDGED, len(jobs))
            pipe.execute()
        assert self.acknowledged.keys().isdisjoint(jobs), "equal jobs cannot be told apart"
        self.acknowledged |= jobs


class Monitor:
    """Samples the sum from a thread of its own, for as long as it is entered.

    Jobs that end without a trace, by DROP, are not for it.
    """

    def __init__(self, server: Server, queues: Sequence[str] = ("math",)) -> None:
        self.samples = 0
        self.violations: list[tuple[int, int]] = []  # found, acknowledged
        self.error: BaseException | None = None
        self._server = server
        self._keys = _census_keys(queues)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="monitor")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join(10)
        assert not self._thread.is_alive(), "the monitor hangs"
        if error is None and self.error is not None:
            raise self.error

    def testify(self, report: Report, *, least: int = 100) -> None:
        """Add to the report; fail if a sum was wrong, or if there were too few to mean anything."""
        report.count("conservation samples", self.samples)
        report.count("conservation violations", len(self.violations))
        assert self.violations == []
        assert self.samples >= least

    def _watch(self) -> None:
        try:
            with closing(self._server.client()) as client:
                self._sample(client.register_script(CENSUS))
        except Exception as error:  # noqa: BLE001 - it is raised in the test's own thread
            self.error = error

    def _sample(self, census: Any) -> None:
        families = [KEYS.kids(""), KEYS.slot(""), KEYS.delayed(0).removesuffix(b"0")]
        while not self._over.wait(EVERY):
            found, acknowledged = census(keys=self._keys, args=families)
            self.samples += 1
            if found != acknowledged:
                self.violations.append((found, acknowledged))


def _census_keys(queues: Iterable[str]) -> list[bytes | str]:
    return [
        KEYS.failed(),
        KEYS.stat("processed"),
        KEYS.masters(),
        KEYS.schedule(),
        ACKNOWLEDGED,
        *map(KEYS.queue, queues),
    ]

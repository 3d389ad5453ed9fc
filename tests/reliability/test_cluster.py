"""A namespace on a real Redis Cluster of three nodes: jobs run, also while their slot moves.

Producers and a whole start find the owner of the slot from nodes that do not own it. Nothing is
lost and nothing runs twice while the slot goes from node to node, or while its owner is killed.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import pairwise
from typing import Any

import pytest
from redis import Redis, RedisCluster

from forkresque import ConfigError, Connection, Queue, RedisRefused, RedisUnavailable
from forkresque.errors import ExitCode
from forkresque.plugins import QueueLock
from tests.conftest import SERVERS, Starter
from tests.support.clusters import RealCluster
from tests.support.processes import Start
from tests.support.report import Report
from tests.support.servers import HOST, binaries
from tests.support.waiting import wait_until

NAMESPACE = "{resque}"
HOME = "{resque}:queues"
APP = ("-A", "tests.support.jobs", "-q", "math", "--namespace", NAMESPACE, "-c", "2")


class Home:
    """A Cluster, and a queue whose address names only nodes that do not own the slot."""

    def __init__(self, cluster: RealCluster, stack: ExitStack) -> None:
        self.cluster = cluster
        self.owner = cluster.owner(HOME)
        self.strangers = cluster.others(self.owner)
        self.url = cluster.url(*self.strangers)
        self.queue = self.queue_at(self.url, stack)

    def queue_at(self, url: str, stack: ExitStack, **options: Any) -> Queue:
        queue = Queue(Connection(url, namespace=NAMESPACE, timeout=2.0), **options)
        stack.callback(queue.end)
        return queue

    def await_counts(self, *, processed: int, failed: int = 0) -> None:
        """Wait until exactly so many jobs have succeeded and failed."""

        def counts() -> dict[str, int]:
            return self.queue.store.counts()

        wait_until(lambda: counts()["processed"] >= processed, f"{processed} jobs", 30.0)
        wait_until(lambda: counts()["failed"] >= failed, f"{failed} failures", 30.0)
        assert counts() == {"processed": processed, "failed": failed}


@pytest.fixture(scope="module", params=SERVERS)
def cluster(request: pytest.FixtureRequest) -> Iterator[RealCluster]:
    with RealCluster(binaries()[request.param]) as cluster:
        yield cluster


@pytest.fixture
def home(both_sizes: None, cluster: RealCluster) -> Iterator[Home]:
    for node in cluster.nodes:
        node.ask("FLUSHALL")
    with ExitStack() as stack:
        yield Home(cluster, stack)


def runs(ledger: Redis) -> list[str]:
    told: Any = ledger.lrange("runs", 0, -1)
    return [mark.decode() for mark in told]


def drain(master: Start) -> None:
    master.send_signal(signal.SIGTERM)
    assert master.wait() == ExitCode.OK
    assert "Traceback" not in master.log()


def keys_elsewhere(home: Home) -> list[str]:
    return [key for node in home.strangers for key in node.ask("KEYS", "*")]


def test_jobs_run_from_nodes_that_do_not_own_the_slot(
    home: Home, start: Starter, ledger: Redis
) -> None:
    home.queue.connect()
    home.queue.enqueue("math", "note", ["now"])
    home.queue.enqueue_in(0.5, "math", "note", ["later"])
    home.queue.enqueue("math", "boom", ["oops"])

    master = start(*APP, url=home.url)
    home.await_counts(processed=2, failed=1)
    assert home.queue.retry_failed(home.queue.failed()[0])
    home.await_counts(processed=2, failed=2)
    assert home.queue.enqueue("math", "note", ["awake"])  # to workers that sleep by now
    home.await_counts(processed=3, failed=2)

    assert sorted(runs(ledger)) == ["awake", "later", "now"]
    assert keys_elsewhere(home) == []
    drain(master)


def test_a_client_of_the_cluster_says_where_it_is(home: Home) -> None:
    place = home.strangers[0].server
    with closing(RedisCluster(host=HOST, port=place.port)) as client:
        connection = Connection(redis=client, namespace=NAMESPACE)
        queue = Queue(connection)
        queue.enqueue("math", "note", [1])

        assert client.llen("{resque}:queue:math") == 1
        assert connection.get_keys(connection.key("queue*")).count("{resque}:queue:math") == 1
        queue.end()
        connection.end()
        assert client.ping()


def test_a_namespace_without_a_hash_tag_is_refused_before_anything_is_stored(
    home: Home, start: Starter
) -> None:
    with pytest.raises(ConfigError, match="'resque' has no hash tag: use one such as"):
        Connection(home.url)
    with pytest.raises(RedisRefused, match="'resque' has no hash tag"):
        Connection(f"redis://{home.owner.place}").connect()
    queue = Queue(f"redis://{home.owner.place}")
    with closing(queue.store.client), pytest.raises(RedisRefused) as refused:
        queue.enqueue("math", "note", [])
    assert "hash tag" in refused.value.hint

    master = start("-A", "tests.support.jobs", "-c", "1", url=f"redis://{home.owner.place}")

    assert master.wait() == ExitCode.CONFIG
    assert "no hash tag" in master.log()
    assert [key for node in home.cluster.nodes for key in node.ask("KEYS", "*")] == []


def test_a_plain_url_of_another_node_is_told_what_to_use(home: Home) -> None:
    plain = Connection(f"redis://{home.strangers[0].place}", namespace=NAMESPACE)

    with pytest.raises(RedisRefused, match="another has the key") as refused:
        plain.connect()

    assert "cluster://host:port" in refused.value.hint


def perform(mark: int) -> None:
    """Do nothing."""


@pytest.mark.parametrize("key", ["elsewhere", "nowhere", "somewhere", "anywhere"])
def test_a_lock_of_ones_own_outside_the_slot_is_refused(home: Home, key: str) -> None:
    def refuses(plugin: QueueLock, stack: ExitStack) -> None:
        jobs = {"note": {"perform": perform, "plugins": [plugin]}}
        with pytest.raises(RedisRefused) as refused:
            home.queue_at(home.url, stack, jobs=jobs).enqueue("math", "note", [1])
        assert "hash tag" in refused.value.hint

    with ExitStack() as stack:
        refuses(QueueLock(key=key), stack)
        assert home.queue.length("math") == 0
        tagged = {"note": {"perform": perform, "plugins": [QueueLock(key=f"{NAMESPACE}:{key}")]}}
        queue = home.queue_at(home.url, stack, jobs=tagged)
        assert [queue.enqueue("math", "note", [1]) for _ in range(2)] == [True, False]


class Feed(threading.Thread):
    """Enqueues jobs one after the other until it is `over`, each until it is there."""

    def __init__(self, queue: Queue) -> None:
        super().__init__()
        self.over = threading.Event()
        self.marks: list[str] = []
        self._queue = queue

    def run(self) -> None:
        while not self.over.wait(0.01):
            mark = f"fed {len(self.marks)}"
            while not _enqueued(self._queue, mark):
                pass
            self.marks.append(mark)


def test_no_job_is_lost_or_doubled_while_the_slot_moves(
    home: Home, start: Starter, ledger: Redis, report: Report
) -> None:
    master = start(*APP, url=home.url)
    feed, marks = Feed(home.queue), []
    feed.start()
    try:
        for source, target in pairwise([home.owner, *home.strangers, home.owner]):
            for number in range(30):  # so that both workers are busy while keys go
                marks.append(f"{source.id} {number}")
                home.queue.enqueue("math", "slow", [marks[-1], 0.01])
            steps = list(home.cluster.steps_of_moving(HOME, source, target))
            assert len(steps) > 2, "no key has moved"
            ran = len(runs(ledger))
            wait_until(lambda ran=ran: len(runs(ledger)) > ran, "workers to go on", 20.0)  # type: ignore[misc]
    finally:
        feed.over.set()
        feed.join()
    marks += feed.marks
    home.await_counts(processed=len(marks))

    assert sorted(runs(ledger)) == sorted(marks)
    assert len(feed.marks) > 3
    assert keys_elsewhere(home) == []
    drain(master)
    report.count("moves of the slot", 3)
    report.count("jobs", len(marks))
    report.count("lost", 0)
    report.count("doubled", 0)


def test_an_owner_that_was_killed_is_found_when_it_is_back(
    home: Home, start: Starter, ledger: Redis, report: Report
) -> None:
    master = start(*APP, url=home.url)
    home.queue.enqueue("math", "gate", ["held"])
    wait_until(lambda: ledger.llen("started:held"), "the job to start")

    home.owner.server.kill()
    ledger.rpush("release:held", "go")
    wait_until(lambda: "held" in runs(ledger), "the job to end")
    home.owner.server.restart()
    home.cluster.await_agreement()
    wait_until(lambda: _enqueued(home.queue, "after"), "the owner to be found", 20.0)
    home.await_counts(processed=2)

    assert runs(ledger) == ["held", "after"]
    drain(master)
    report.count("kills of the owner")
    report.count("lost", 0)


def _enqueued(queue: Queue, mark: str) -> bool:
    """Return whether a job is there; if not, nothing of it is."""
    try:
        return queue.enqueue("math", "note", [mark])
    except RedisUnavailable as error:
        if error.sent:
            raise
        return False

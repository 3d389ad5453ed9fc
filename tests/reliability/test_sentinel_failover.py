"""A replica takes over and no acknowledged job is lost; nor is one that the disk has, by a kill.

Producers and a whole start find the primary by sentinel:// while primaries are killed, frozen and
cut off. The control shows that the fault is real: producers that wait for no replica do lose what
the replicas had not got yet, and nothing else.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import pytest
from redis.sentinel import Sentinel

from forkresque.connection import Connection
from forkresque.errors import EnqueueUnknown, ExitCode, RedisRefused, RedisUnavailable
from forkresque.protocol.connection import Target
from forkresque.protocol.payload import parse
from forkresque.protocol.store import Ack
from forkresque.queue import Queue
from tests.conftest import SERVERS
from tests.support.connections import Over
from tests.support.patience import Bench, patient
from tests.support.processes import Start, assert_nothing_left
from tests.support.report import Report
from tests.support.sentinels import NAME, Cluster, ask
from tests.support.servers import HOST, Server, binaries
from tests.support.site import APP, KEYS, Site, idle_workers, ticks
from tests.support.sizes import sized
from tests.support.waiting import wait_until

LAG = 0.15  # seconds for which the replicas hear nothing before their primary dies
NOTED = 0.1  # seconds until a producer has taken note of an answer that it got
RESOLVED_WITHIN = 5.0  # seconds after a promotion, as promised
PRODUCERS, PAUSE = 4, 0.004  # seconds between two jobs of one


# -- load ----------------------------------------------------------------------------------------


@dataclass
class Producer:
    """Enqueues one job after the other, each until it is known to be there or known not to be."""

    queue: Queue
    name: str
    acknowledged: dict[str, float] = field(default_factory=dict)  # mark to monotonic time
    error: BaseException | None = None

    def run(self, over: threading.Event) -> None:
        number = 0
        try:
            while not over.is_set():
                self._enqueue(f"{self.name} {number}")
                number += 1
                over.wait(PAUSE)
        except BaseException as error:  # noqa: BLE001 - it is raised in the test's own thread
            self.error = error

    def _enqueue(self, mark: str) -> None:
        request_id: str | None = None
        for _ in range(5):
            try:
                self.queue.enqueue("math", "note", [mark], request_id=request_id)
            except EnqueueUnknown as unknown:
                request_id = unknown.request_id
            except (RedisUnavailable, RedisRefused):
                threading.Event().wait(0.05)  # nothing was stored, it says
            else:
                self.acknowledged[mark] = time.monotonic()
                return


class Load:
    """Producers in threads, for as long as it is entered."""

    def __init__(self, url: str, ack: Ack, *, name: str = "p", producers: int = PRODUCERS) -> None:
        self._clients = [Target(url, timeout=2.0).client() for _ in range(producers)]
        self.producers = [
            Producer(Queue(Over(client, KEYS), ack=ack), f"{name}{number}")
            for number, client in enumerate(self._clients)
        ]
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=producer.run, args=(self._over,)) for producer in self.producers
        ]

    @property
    def acknowledged(self) -> dict[str, float]:
        """What was acknowledged until now, and when."""
        return {
            mark: at
            for producer in self.producers
            for mark, at in list(producer.acknowledged.items())
        }

    def all_acknowledged_since(self, moment: float) -> bool:
        """Return whether each producer has had a job acknowledged that recently."""
        return all(
            max(list(producer.acknowledged.values()), default=0.0) > moment
            for producer in self.producers
        )

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)
        for client in self._clients:
            client.close()
        assert not any(thread.is_alive() for thread in self._threads)
        for producer in self.producers:
            if error is None and producer.error is not None:
                raise producer.error


# -- faults --------------------------------------------------------------------------------------


@contextmanager
def killed(cluster: Cluster) -> Iterator[None]:
    """Kill a primary whose replicas have been deaf for a moment; it comes back as a replica.

    A frozen replica would not do: it reads what its socket holds when it wakes up.
    """
    old = cluster.primary
    for _ in ticks(LAG, 2 * LAG):  # the second tick comes when the lag is over
        old.proxy.mute(word=b"PSYNC")
    old.server.kill()
    old.proxy.cut()  # what was on its way is gone with it
    old.proxy.heal()
    yield
    old.come_back(cluster.primary)


@contextmanager
def frozen(cluster: Cluster) -> Iterator[None]:
    """Freeze a primary; it wakes up and still believes that it is one."""
    old = cluster.primary
    old.server.pause()
    yield
    old.server.resume()
    assert old.is_primary, "it has not been told yet"


@contextmanager
def cut_off(cluster: Cluster) -> Iterator[None]:
    """Cut a primary off from everybody but some producers on its own side."""
    old = cluster.primary
    old.proxy.blackhole()
    with Load(old.server.tcp_url, Ack.REPLICA, name="inside", producers=2) as inside:
        yield
        inside_for = time.monotonic() + 1.0
        wait_until(lambda: time.monotonic() > inside_for, "some attempts", 5.0)
    assert inside.acknowledged == {}, "the old primary has accepted jobs as if it were the new"
    assert old.is_primary
    old.proxy.heal()


Fault = Callable[[Cluster], Any]


@dataclass
class Story:
    """What came of a number of fail-overs."""

    acknowledged: dict[str, float]
    ran: set[str]
    lags: list[tuple[float, float]]  # from the last word of a primary to its replicas to its end
    resolved: list[float]  # seconds from a promotion until producers and workers went on

    @property
    def lost(self) -> dict[str, float]:
        return {mark: at for mark, at in self.acknowledged.items() if mark not in self.ran}

    def tell(self, report: Report, lost: str) -> None:
        report.count("fail-overs", len(self.resolved))
        report.count("jobs", len(self.acknowledged))
        report.count(lost, len(self.lost))
        report.time("promotion to work resumed", self.resolved)


def play(bench: Bench, ack: Ack, faults: list[Fault]) -> Story:
    """Have one fail-over after the other under load, and let all that there is be done."""
    cluster = bench.enter(Cluster(binaries()[SERVERS[-1]]))
    bench.note(cluster.log)
    master, ledger = started(bench, cluster), bench.site.ledger
    lags, resolved = [], []
    with Load(cluster.url, ack) as load:
        for fault in faults:
            since = time.monotonic()
            wait_until(lambda since=since: load.all_acknowledged_since(since + 0.3), "load", 20.0)  # type: ignore[misc]
            began = time.monotonic()
            with fault(cluster):
                lags.append((began, time.monotonic()))
                cluster.await_promotion()
                resolved.append(resumed(load, ledger))
            cluster.await_in_step()
    with closing(cluster.primary.server.client()) as redis:
        site = Site(redis, ledger)
        wait_until(lambda: not site.waiting() and not site.slots(), "all jobs to be settled", 30.0)
        ran = set(site.runs())
        master.send_signal(signal.SIGTERM)
        assert master.wait() == ExitCode.OK
        assert_nothing_left(master, redis)
        assert site.failures() == []
    return Story(load.acknowledged, ran, lags, resolved)


def resumed(load: Load, ledger: Any) -> float:
    """Return how long it takes from now until jobs are acknowledged, and jobs run."""
    promoted_at = time.monotonic()
    wait_until(lambda: load.all_acknowledged_since(promoted_at), "producers to go on", 30.0)
    runs = ledger.llen("runs")
    wait_until(lambda: ledger.llen("runs") > runs, "workers to go on", 30.0)
    return time.monotonic() - promoted_at


def started(bench: Bench, cluster: Cluster) -> Start:
    """Return a master that finds the primary by the sentinels."""
    master = bench.start(*APP, "-c", "4", url=cluster.url)
    idle_workers(master, 4)
    return master


FAULTS = [*[killed] * 6, *[frozen, cut_off] * 2]


@pytest.mark.parametrize("faults", sized([killed], FAULTS))
@patient
def test_what_a_replica_has_acknowledged_survives_the_primary(
    bench: Bench, faults: list[Fault]
) -> None:
    story = play(bench, Ack.REPLICA, faults)

    story.tell(bench.report, "lost")
    assert story.lost == {}
    assert len(story.acknowledged) > 10 * len(faults)
    assert max(story.resolved) <= RESOLVED_WITHIN or len(faults) == 1, story.resolved


@pytest.mark.full
@patient
def test_what_no_replica_has_acknowledged_is_lost_at_most_by_the_lag(bench: Bench) -> None:
    story = play(bench, Ack.PRIMARY, [killed] * 10)

    story.tell(bench.report, "lost by fail-overs without ack=replica")
    assert story.lost, "a lag that costs nothing proves nothing"
    others = [
        at
        for at in story.lost.values()
        if not any(began <= at <= died + NOTED for began, died in story.lags)
    ]
    assert others == [], f"lost at other moments than the lags: {story.lags}"


@pytest.mark.usefixtures("both_sizes")
def test_a_sentinel_that_is_behind_keeps_nobody_from_the_primary() -> None:
    binary = binaries()[SERVERS[-1]]
    with ExitStack() as stack:
        primary, replica, dead = (stack.enter_context(Server(binary)) for _ in range(3))
        ask(replica, "REPLICAOF", HOST, primary.port)
        dead.kill()
        places = []
        for known in (dead, replica, primary):
            sentinel = stack.enter_context(Server(binary, sentinel=True))
            ask(sentinel, "SENTINEL", "MONITOR", NAME, HOST, known.port, 1)
            places.append(f"{HOST}:{sentinel.port}")
        link = stack.enter_context(closing(Target(f"sentinel://{','.join(places)}/{NAME}").link()))

        with pytest.raises(RedisUnavailable, match=f"connecting to {HOST}:{dead.port}"):
            link.command("PING")
        with pytest.raises(RedisUnavailable, match=f"{HOST}:{replica.port} says that it is a"):
            link.command("PING")
        for _ in range(2):
            assert link.command("SET", "found", "the primary") == b"OK"
            link.close()
        assert ask(primary, "GET", "found") == "the primary"


@pytest.mark.usefixtures("both_sizes")
def test_keywords_and_a_client_find_the_primary_as_a_url_does() -> None:
    binary = binaries()[SERVERS[-1]]
    with ExitStack() as stack:
        primary, sentinel = (
            stack.enter_context(Server(binary, sentinel=guards)) for guards in (False, True)
        )
        ask(sentinel, "SENTINEL", "MONITOR", NAME, HOST, primary.port, 1)
        places = [(HOST, sentinel.port)]
        watch: Any = Sentinel(places)  # type: ignore[no-untyped-call]
        theirs = stack.enter_context(closing(watch.master_for(NAME, db=1)))
        by_client = Connection(redis=theirs)
        by_keywords = Connection(sentinels=places, sentinel_name=NAME, database=1)
        assert by_client.place == by_keywords.place
        for connection in (by_client, by_keywords):
            queue = Queue(connection)
            stack.callback(queue.end)
            queue.connect()
            assert queue.enqueue("math", "note", [1])
        with closing(primary.client(db=1)) as redis:
            assert redis.llen("resque:queue:math") == 2


# -- the disk ------------------------------------------------------------------------------------


def await_acknowledged(load: Load, jobs: int) -> None:
    """Wait until so many jobs are acknowledged, and not a moment longer."""
    wait_until(lambda: len(load.acknowledged) >= jobs, "acknowledgements", 20.0, 0.001)


@pytest.mark.parametrize("kills", sized(3, 20, timeout=120))
def test_what_the_disk_has_acknowledged_survives_a_kill(report: Report, kills: int) -> None:
    acknowledged: set[str] = set()
    with Server(binaries()["valkey"], appendonly="everysec") as server:
        for number in range(kills):
            with Load(server.url, Ack.DISK, name=f"{number}.") as load:
                await_acknowledged(load, 1 + number % (2 * PRODUCERS))
                server.kill()
                acknowledged |= load.acknowledged.keys()
                server.restart()
            acknowledged |= load.acknowledged.keys()
        with closing(server.client()) as redis:
            kept = [parse(raw).args[0] for raw in Site(redis, redis).waiting()]

    report.count("kills of Redis", kills)
    report.count("jobs", len(acknowledged))
    report.count("lost", len(acknowledged - set(kept)))
    report.count("doubled", len(kept) - len(set(kept)))
    assert acknowledged <= set(kept)
    assert len(kept) == len(set(kept))
    assert len(acknowledged) >= kills

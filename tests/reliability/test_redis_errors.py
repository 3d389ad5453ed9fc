"""Redis answers with an error. Nothing is lost or doubled, and nobody asks in a hot loop.

Every call meets every error there is: a state that the server is really put into or, where that
is not to be had, an answer that a proxy gives in its stead.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from forkresque.errors import ExitCode, RedisRefused, RedisUnavailable
from forkresque.protocol.claims import Claims
from forkresque.protocol.connection import Target
from forkresque.protocol.delayed import Delayed
from forkresque.protocol.failure import parse_failure
from forkresque.protocol.registry import Registry
from forkresque.protocol.script import load
from forkresque.protocol.store import Store
from forkresque.queue import Queue
from tests.conftest import SERVERS, Starter
from tests.support.calls import CALLS, ENTRY, NEXT, SCRIPTS, Call, Effect
from tests.support.connections import Over
from tests.support.processes import assert_nothing_left
from tests.support.proxy import Proxy, Rule
from tests.support.report import Report
from tests.support.servers import HOST, Server, binaries
from tests.support.site import APP, Site, idle_workers, stays
from tests.support.sizes import sized
from tests.support.waiting import wait_until
from tests.support.world import (
    KEYS,
    LEASE,
    MASTER,
    NOW,
    OWNER,
    PAST,
    RAW,
    WORKER,
    Dump,
    ToldClient,
    ToldLink,
    World,
    dump,
    places,
    spoil,
)

TROUBLE = (RedisUnavailable, RedisRefused)  # what a worker and a clerk wait out
SECRET = "not-to-be-shown"
MOST_ATTEMPTS = 20.0  # a second, of one process
PROCESSES = 3  # two workers and their clerk

_, READS, FREES, GROWS = Effect
Fired = Callable[[], int]


class Patient:
    """A server that can be made to answer with any error; everybody else comes by the proxy."""

    def __init__(self, server: Server, stack: ExitStack, suffers_for: float) -> None:
        self.server = server
        self.suffers_for = suffers_for  # seconds of each error, where time passes
        with closing(server.client()) as first:
            self._prepare(first)
        self.admin: Any = stack.enter_context(
            closing(server.client(username="admin", password=SECRET))
        )
        self.proxy = stack.enter_context(Proxy(server.socket))
        self.target = Target(self.proxy.url, timeout=2.0)
        self.link = stack.enter_context(closing(ToldLink(self.target)))
        self.client = stack.enter_context(closing(ToldClient(self.target)))
        self._rule: Rule | None = None
        self._plain: dict[str, tuple[Any, Dump]] = {}

    def _prepare(self, redis: Any) -> None:
        """Add a user whom no fault hits, and let a snapshot fail, which does no harm yet."""
        redis.execute_command("ACL", "SETUSER", "admin", "on", f">{SECRET}", "~*", "&*", "+@all")
        redis.config_set("stop-writes-on-bgsave-error", "no")
        redis.config_set("save", "999999 999999")
        (self.server.directory / "dump.rdb").mkdir()
        redis.bgsave()
        wait_until(
            lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err",
            "the snapshot to fail",
        )

    def world(self) -> World:
        """Return an empty world with one registered worker."""
        self.admin.flushall()
        claims = Claims(self.link, KEYS, WORKER, master=MASTER)
        claims.poll(WORKER.queues)
        registry, store = Registry(self.link, KEYS), Store(self.client, KEYS)
        delayed = Delayed(self.link, KEYS)
        assert registry.register(WORKER, OWNER, LEASE, now=NOW) is None
        return World(self.admin, self.link, self.client, claims, registry, store, delayed)

    def plain(self, call: Call) -> tuple[Any, Dump]:
        """Return the answer of a call that nothing disturbs, and the keys after it."""
        if call.name not in self._plain:
            world = self.world()
            answer = call.ask(world, call.needs(world))
            self._plain[call.name] = (answer, dump(self.admin))
        return self._plain[call.name]

    def run(self, *commands: str) -> None:
        for command in commands:
            self.admin.execute_command(*command.split())

    def answer(self, words: bytes, reply: bytes, *, times: int) -> Rule:
        """Have the proxy say `reply` to such requests, and to no others any more."""
        if self._rule is not None:
            self._rule.left = 0
        self._rule = self.proxy.answer(words, reply, times)
        return self._rule

    def hang_up(self) -> None:
        """Close our own connections: some errors meet only those who come anew."""
        self.link.close()
        self.client.close()


# -- errors ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """An error, by the word that its replies begin with, and the calls that it stops."""

    word: str
    stops: frozenset[Effect] = frozenset(Effect)
    force: tuple[str, ...] = ()
    lift: tuple[str, ...] = ()
    instead: str = ""  # the word of another error that some calls meet before this one
    meets_newcomers: bool = False  # only connections that are made while it lasts

    @contextmanager
    def forced(self, patient: Patient, _words: bytes = b"") -> Iterator[Fired]:
        """Have the error. What is yielded tells, once it is over, how often somebody met it."""
        patient.admin.config_resetstat()
        patient.run(*self.force)
        try:
            yield lambda: self._met(patient)
        finally:
            patient.run(*self.lift)

    def stopped(self, call: Call) -> bool:
        return call.effect in self.stops

    def meets(self, call: Call) -> bool:
        return self.stopped(call) or (self.word == "NOSCRIPT" and call in SCRIPTS)

    def _met(self, patient: Patient) -> int:
        if self.word == "maxclients":
            return int(patient.admin.info("stats")["rejected_connections"])
        found = patient.admin.info("errorstats")
        words = (self.word, self.instead)
        return sum(found.get(f"errorstat_{word}", {"count": 0})["count"] for word in words)

    def __str__(self) -> str:
        return self.word


class Busy(Fault):
    """Another client's script that does not end."""

    @contextmanager
    def forced(self, patient: Patient, _words: bytes = b"") -> Iterator[Fired]:
        patient.admin.config_resetstat()
        patient.admin.config_set("lua-time-limit", 1)
        thread = threading.Thread(target=self._hog, args=(patient.server,))
        thread.start()
        wait_until(lambda: self._is_busy(patient), "a busy server", every=0.001)
        try:
            yield lambda: self._met(patient)
        finally:
            patient.admin.script_kill()
            thread.join(5)

    def _hog(self, server: Server) -> None:
        with (
            closing(server.client(username="admin", password=SECRET)) as client,
            suppress(RedisError),
        ):
            client.eval("while true do end", 0)

    def _is_busy(self, patient: Patient) -> bool:
        try:
            patient.admin.ping()
        except RedisError as error:
            return "BUSY" in str(error) or "busy" in str(error)
        return False


@dataclass(frozen=True)
class Answered(Fault):
    """An answer that no server gives at will."""

    reply: bytes = b""

    @contextmanager
    def forced(self, patient: Patient, words: bytes = b"") -> Iterator[Fired]:
        rule = patient.answer(words, self.reply, times=1_000_000)
        try:
            yield lambda: rule.fired
        finally:
            rule.left = 0


WRITES = frozenset({FREES, GROWS})
REPLICA = f"REPLICAOF {HOST} 1"
STALE = "CONFIG SET replica-serve-stale-data"
LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"
GIBBERISH = b"?what\r\n"

FAULTS = (
    Fault("OOM", frozenset({GROWS}), ("CONFIG SET maxmemory 1",), ("CONFIG SET maxmemory 0",)),
    Fault("READONLY", WRITES, (REPLICA,), ("REPLICAOF NO ONE",)),
    Fault(
        "MASTERDOWN",
        frozenset({READS, FREES, GROWS}),
        force=(f"{STALE} no", REPLICA),
        lift=("REPLICAOF NO ONE", f"{STALE} yes"),
        instead="READONLY",
    ),
    Fault(
        "NOREPLICAS",
        WRITES,
        ("CONFIG SET min-replicas-to-write 1",),
        ("CONFIG SET min-replicas-to-write 0",),
    ),
    Fault(
        "MISCONF",
        WRITES,
        ("CONFIG SET stop-writes-on-bgsave-error yes",),
        ("CONFIG SET stop-writes-on-bgsave-error no",),
    ),
    Fault("NOSCRIPT", frozenset(), ("SCRIPT FLUSH",)),
    Busy("BUSY"),
    Fault(
        "NOAUTH",
        force=("ACL SETUSER default resetpass >other",),
        lift=("ACL SETUSER default nopass",),
        meets_newcomers=True,
    ),
    Fault(
        "NOPERM",
        force=("ACL SETUSER default -@all +@connection",),
        lift=("ACL SETUSER default +@all",),
    ),
    Fault(
        "maxclients",
        force=("CONFIG SET maxclients 1",),
        lift=("CONFIG SET maxclients 1000",),
        meets_newcomers=True,
    ),
    Answered("LOADING", reply=LOADING),
    Answered("protocol", reply=GIBBERISH),
)


@pytest.fixture(scope="module", params=sized((SERVERS[0], 0.35), (SERVERS[-1], 4.0)))
def patient(request: pytest.FixtureRequest) -> Iterator[Patient]:
    """Return a server that may be broken: one kind every day, the other before a release."""
    with ExitStack() as stack:
        kind, suffers_for = request.param
        patient = Patient(stack.enter_context(Server(binaries()[kind])), stack, suffers_for)
        yield patient
        patient.admin.config_set("save", "")  # or it would not end without a snapshot


# -- each error at each call -------------------------------------------------------------------


def attempt(call: Call, world: World, needed: Any) -> tuple[Any, Exception | None]:
    try:
        return call.ask(world, needed), None
    except TROUBLE as error:
        return None, error


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_call_that_meets_an_error_changes_nothing_and_can_be_sent_again(
    patient: Patient, report: Report, fault: Fault
) -> None:
    for call in CALLS:
        answer_wanted, keys_wanted = patient.plain(call)
        world = patient.world()
        needed = call.needs(world)
        before = dump(patient.admin)
        if fault.meets_newcomers:
            patient.hang_up()
        with fault.forced(patient, call.words) as fired:
            answer, error = attempt(call, world, needed)

        assert (fired() > 0) == fault.meets(call) or fault.word == "OOM", call.name
        report.count("error replies forced", fired())
        if fault.stopped(call):
            assert error is not None, f"{call.name} took no notice and said {answer}"
            assert dump(patient.admin) == before, call.name
            answer = call.ask(world, needed)
        else:
            assert error is None, call.name
        assert answer == answer_wanted, call.name
        assert dump(patient.admin) == keys_wanted, call.name
    report.count("lost", 0)
    report.count("doubled", 0)


def words(packed: bytes) -> list[bytes]:
    """Return the words of one packed command."""
    found, at = list[bytes](), packed.index(b"\r\n") + 2
    while at < len(packed):
        start = packed.index(b"\r\n", at) + 2
        at = start + int(packed[at + 1 : start - 2])
        found.append(packed[start:at])
        at += 2
    return found


def keys_of(call: Call, patient: Patient) -> list[bytes]:
    """Return the keys that a script was just called with."""
    for caller in (patient.link, patient.client):
        sent = words(caller.sent.by_digest)
        if sent[1] == call.words:
            return sorted(set(sent[3 : 3 + int(sent[2])]))
    raise AssertionError(f"{call.name} is a call of another script")


@pytest.mark.parametrize("call", SCRIPTS, ids=lambda call: call.name)
def test_a_key_of_the_wrong_type_loses_and_doubles_nothing(
    patient: Patient, report: Report, call: Call
) -> None:
    world = patient.world()
    wanted = call.ask(world, call.needs(world))
    keys = keys_of(call, patient)
    after = [len(places(patient.admin, raw)) for raw in (RAW, NEXT)]
    keys_wanted = dump(patient.admin)
    for key in keys:
        world = patient.world()
        needed = call.needs(world)
        jobs = [len(places(patient.admin, raw)) for raw in (RAW, NEXT)]
        aside, kept = b"aside:" + key, patient.admin.exists(key)
        if kept:
            patient.admin.rename(key, aside)
        spoil(patient.admin, key)
        before = dump(patient.admin)

        _, error = attempt(call, world, needed)

        if error is None:
            found = [len(places(patient.admin, raw)) for raw in (RAW, NEXT)]
            for number, earlier, later in zip(found, jobs, after, strict=True):
                assert number in (earlier, later), f"{call.name} beside {key!r}"
            continue
        report.count("error replies forced")
        assert dump(patient.admin) == before, f"{call.name} beside {key!r}: {error}"
        patient.admin.delete(key)
        if kept:
            patient.admin.rename(aside, key)
        assert call.ask(world, needed) == wanted, f"{call.name} after {key!r}"
        assert dump(patient.admin) == keys_wanted, f"{call.name} after {key!r}"


def test_a_server_that_was_busy_still_tells_of_new_jobs(patient: Patient) -> None:
    """Or a worker that met it would poll for the rest of its life."""
    busy = Busy("BUSY")
    with closing(patient.target.link(tracking=True)) as link:
        link.command("PING")
        assert link.tracking
        for when in ("connected", "new"):
            with busy.forced(patient) as fired, pytest.raises(TROUBLE):
                link.command("LLEN", KEYS.queue("q"), armed=True)
            assert fired() > 0
            link.close()
            link.command("LLEN", KEYS.queue("q"), armed=True)
            assert link.tracking, f"a {when} link met a busy server"
            link.close()


# -- producers ---------------------------------------------------------------------------------

RETRIED = {
    "READONLY": b"-READONLY You can't write against a read only replica.\r\n",
    "MASTERDOWN": b"-MASTERDOWN Link with MASTER is down\r\n",
    "LOADING": LOADING,
    "BUSY": b"-BUSY Redis is busy running a script.\r\n",
    "max clients": b"-ERR max number of clients reached\r\n",
    "protocol": GIBBERISH,
}
REFUSED = {
    "OOM": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    "MISCONF": b"-MISCONF Redis is configured to save RDB snapshots\r\n",
    "NOREPLICAS": b"-NOREPLICAS Not enough good replicas to write.\r\n",
    "NOAUTH": b"-NOAUTH Authentication required.\r\n",
    "NOPERM": b"-NOPERM User default has no permissions to run the 'evalsha' command\r\n",
    "WRONGTYPE": b"-WRONGTYPE Operation against a key\r\n",
}


@dataclass(frozen=True)
class Order:
    """What a producer may ask for, the script that does it, and where the job is then."""

    script: str
    ask: Callable[[Queue], bool]
    place: bytes


ORDERS = [
    Order("enqueue", lambda queue: queue.enqueue("high", "x", [1]), KEYS.queue("high")),
    Order("enqueue_at", lambda q: q.enqueue_at(PAST, "high", "x", [1]), KEYS.delayed(PAST)),
    Order("requeue_failed", lambda q: q.retry_failed(parse_failure(ENTRY)), KEYS.queue("high")),
]


def ordered(patient: Patient, order: Order) -> tuple[Queue, bytes]:
    """Return a queue where `order` can be carried out, and the words of its request."""
    script = load(order.script)
    patient.admin.flushall()
    patient.admin.script_load(script.source)
    if order.script == "requeue_failed":
        patient.admin.rpush(KEYS.failed(), ENTRY)
    return Queue(Over(patient.client, KEYS)), script.digest.encode()


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.script)
@pytest.mark.parametrize("error", RETRIED)
def test_a_producer_waits_for_what_passes(
    patient: Patient, report: Report, order: Order, error: str
) -> None:
    queue, request = ordered(patient, order)
    rule = patient.answer(request, RETRIED[error], times=2)

    assert order.ask(queue) is True

    assert rule.fired == 2
    report.count("error replies forced", rule.fired)
    assert patient.admin.llen(order.place) == 1
    assert order.script != "requeue_failed" or not patient.admin.exists(KEYS.failed())


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.script)
@pytest.mark.parametrize("error", REFUSED)
def test_a_producer_is_told_at_once_what_does_not_pass(
    patient: Patient, report: Report, order: Order, error: str
) -> None:
    queue, request = ordered(patient, order)
    before = dump(patient.admin)
    rule = patient.answer(request, REFUSED[error], times=100)

    with pytest.raises(RedisRefused, match=REFUSED[error].decode().split()[-1]):
        order.ask(queue)

    assert rule.fired == 1, "it was asked again"
    rule.left = 0
    report.count("error replies forced", rule.fired)
    assert dump(patient.admin) == before
    assert order.ask(queue) is True
    assert patient.admin.llen(order.place) == 1


# -- a master and its workers ------------------------------------------------------------------

JOBS = 6  # for each error: one ends while it lasts, the others come when it is over
WAITED_OUT = [  # a replica and a full memory are in tests/processes
    fault for fault in FAULTS if fault.word not in ("OOM", "READONLY", "NOSCRIPT")
]


def test_workers_wait_an_error_out_without_a_hot_loop(
    patient: Patient, ledger: Redis, start: Starter, report: Report
) -> None:
    patient.admin.flushall()
    seconds = patient.suffers_for
    site = Site(patient.admin, ledger)
    master = start(*APP, "-c", "2", url=patient.proxy.url)
    idle_workers(master, 2)
    before = [child.pid for child in master.children()]
    for fault in WAITED_OUT:
        site.gates(f"during {fault}")
        met, resumed = wait_out(patient, site, fault, seconds)
        rate = met / seconds / PROCESSES
        print(f"{fault}: {rate:.1f} attempts a second, resumed {resumed:.2f} s after it")
        report.count("error replies forced", met)
        report.time("Redis back to work resumed", resumed)

        assert 0 < rate < MOST_ATTEMPTS, f"{fault}: {rate:.1f} attempts a second"
        assert seconds < 1.0 or resumed <= 2.0, f"{fault}: {resumed:.1f} s"
    runs, done = site.runs(), site.count("processed")
    report.count("jobs", len(set(runs)))
    report.count("lost", JOBS * len(WAITED_OUT) - len(set(runs)))
    report.count("doubled", done - JOBS * len(WAITED_OUT))
    assert len(runs) == len(set(runs)) == done == JOBS * len(WAITED_OUT)
    assert site.failures() == []
    assert [child.pid for child in master.children()] == before
    master.stop()
    assert master.process.returncode == ExitCode.OK
    assert_nothing_left(master, patient.admin)


def wait_out(patient: Patient, site: Site, fault: Fault, seconds: float) -> tuple[int, float]:
    """Have a job end during the error; return how often it was met, and the time to all done."""
    done = site.count("processed")
    with fault.forced(patient) as fired:
        if fault.meets_newcomers:
            patient.run("CLIENT KILL TYPE normal")
        site.release(f"during {fault}")
        stays(lambda: True, f"{fault} goes on", seconds)
    lifted, met = time.monotonic(), fired()
    for number in range(JOBS - 1):
        site.enqueue("note", f"after {fault} {number}")
    site.await_processed(done + JOBS)
    return met, time.monotonic() - lifted


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        ("", "authenticated"),
        (f"limited:{SECRET}-and-wrong@", "invalid username-password pair"),
        (f"limited:{SECRET}@", "has no permissions to run"),
    ],
    ids=["NOAUTH", "WRONGPASS", "NOPERM"],
)
def test_a_start_without_rights_ends_and_names_them(
    patient: Patient, start: Starter, report: Report, user: str, reason: str
) -> None:
    patient.run(f"ACL SETUSER limited on >{SECRET} ~* -@all +@connection")
    patient.run("ACL SETUSER default resetpass >other")
    try:
        master = start(*APP, "-c", "1", url=patient.proxy.url.replace("//", f"//{user}"))
        assert master.wait(10) == ExitCode.CONFIG
    finally:
        patient.run("ACL SETUSER default nopass")

    assert reason in master.log()
    assert SECRET not in master.log()
    assert "Traceback" not in master.log()
    report.count("error replies forced")


def test_no_script_is_left_out() -> None:
    folder = Path(__file__).parents[2] / "forkresque/protocol/lua"
    assert {load(path.stem).digest.encode() for path in folder.glob("*.lua")} == {
        call.words for call in SCRIPTS
    }

"""An answer or a question that gets lost on the way neither doubles a job nor loses one."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from redis import Redis

from forkresque import Forkresque
from forkresque.errors import EnqueueUnknown, RedisUnavailable
from forkresque.post import Post
from forkresque.protocol.claims import Claimed, Claims, Nothing, Outcome, WorkerId
from forkresque.protocol.connection import Link, Target
from forkresque.protocol.delayed import Delayed, Lead
from forkresque.protocol.failure import failure_entry, parse_failure
from forkresque.protocol.keys import Keys
from forkresque.protocol.ownership import Lease, Owner
from forkresque.protocol.registry import Registry, Verdict
from forkresque.protocol.script import load
from forkresque.queue import Queue
from forkresque.worker import Worker
from tests.support.connections import Over
from tests.support.proxy import Proxy, Rule
from tests.support.servers import HOST, Server, free_port
from tests.support.waiting import wait_until

KEYS = Keys("resque")
WORKER = WorkerId("host", 7, ("q",))
WID = str(WORKER)
OWNER = Owner("host:1:aaaa", 7, 100)
LEASE = Lease(OWNER.master, "alive")
NOW = 1_795_000_000.0
PAST = 1_000
T1, T2 = b"m.1", b"m.2"
RAW = b'{ "args" : [1.0, []], "class":"x","queue":"q"}'
NEXT = b'{"class":"x","queue":"q","args":[2]}'
SCRIPTS = (
    "enqueue",
    "enqueue_at",
    "claim",
    "done",
    "settle",
    "promote",
    "requeue_failed",
    "register",
)
ENTRY = failure_entry(
    raw=RAW,
    exception="Oops",
    error="",
    backtrace=[],
    worker=WID,
    queue="q",
    failed_at=NOW,
)

T = TypeVar("T")
Lose = Callable[[str], Rule]


def mark(script: str) -> bytes:
    """Return the bytes by which a call of `script` is known on the wire."""
    return load(script).digest.encode()


def know_scripts(redis: Redis) -> None:
    """Have the server know every script, or the first reply to be lost would be NOSCRIPT."""
    for name in SCRIPTS:
        redis.script_load(load(name).source)


@pytest.fixture
def proxy(server: Server, redis: Redis) -> Iterator[Proxy]:
    know_scripts(redis)
    with Proxy((HOST, server.port)) as proxy:
        yield proxy


@pytest.fixture(params=["reply", "request"])
def lose(request: pytest.FixtureRequest, proxy: Proxy) -> Lose:
    """Return what loses one reply, or one request, of a script."""
    drop = proxy.drop_reply if request.param == "reply" else proxy.drop_request

    def lose(script: str) -> Rule:
        return drop(mark(script))

    return lose


@pytest.fixture
def queue(proxy: Proxy) -> Iterator[Queue]:
    with closing(Target(proxy.url).client()) as client:
        yield Queue(Over(client, KEYS))


@pytest.fixture
def link(proxy: Proxy) -> Iterator[Link]:
    with closing(Target(proxy.url).link()) as link:
        yield link


@pytest.fixture
def claims(link: Link) -> Claims:
    assert Registry(link, KEYS).register(WORKER, OWNER, LEASE, now=NOW) is None
    claims = Claims(link, KEYS, WORKER, master=LEASE.master)
    claims.poll(("q",))
    return claims


def insist(question: Callable[[], T]) -> T:
    """Ask; the answer must get lost once, and come the second time."""
    with pytest.raises(RedisUnavailable):
        question()
    return question()


def listed(redis: Redis, key: bytes) -> Any:
    return redis.lrange(key, 0, -1)


# -- producers ---------------------------------------------------------------------------------


def test_an_enqueue_is_stored_once(queue: Queue, redis: Redis, lose: Lose, proxy: Proxy) -> None:
    lose("enqueue")

    assert queue.enqueue("q", "x", [1]) is True
    assert queue.enqueue("q", "x", [2]) is True

    assert proxy.fired == 1
    assert listed(redis, KEYS.queue("q")) == [
        b'{"class":"x","queue":"q","args":[1]}',
        b'{"class":"x","queue":"q","args":[2]}',
    ]


@pytest.mark.parametrize("unique", [False, True])
def test_a_delayed_job_is_stored_once(
    queue: Queue, redis: Redis, lose: Lose, proxy: Proxy, *, unique: bool
) -> None:
    lose("enqueue_at")

    assert queue.enqueue_at(PAST, "q", "x", [1], unique=unique) is True

    assert proxy.fired == 1
    assert redis.llen(KEYS.delayed(PAST)) == redis.zcard(KEYS.schedule()) == 1


def test_a_failed_job_is_requeued_once(
    queue: Queue, redis: Redis, lose: Lose, proxy: Proxy
) -> None:
    redis.rpush(KEYS.failed(), ENTRY, ENTRY)
    lose("requeue_failed")

    assert queue.retry_failed(parse_failure(ENTRY)) is True

    assert proxy.fired == 1
    assert listed(redis, KEYS.failed()) == [ENTRY]
    assert listed(redis, KEYS.queue("q")) == [RAW]


# -- workers -----------------------------------------------------------------------------------


def test_a_worker_is_registered_once(link: Link, redis: Redis, lose: Lose, proxy: Proxy) -> None:
    lose("register")
    registry = Registry(link, KEYS)

    assert insist(lambda: registry.register(WORKER, OWNER, LEASE, now=NOW)) is None

    assert proxy.fired == 1
    assert redis.smembers(KEYS.workers()) == redis.smembers(KEYS.kids(LEASE.master))
    assert redis.smembers(KEYS.workers()) == {WID.encode()}


def test_a_claim_takes_one_job(claims: Claims, redis: Redis, lose: Lose, proxy: Proxy) -> None:
    redis.rpush(KEYS.queue("q"), RAW, NEXT)
    lose("claim")

    job = insist(lambda: claims.claim(T1, now=NOW))

    assert proxy.fired == 1
    assert job == Claimed(T1, "q", RAW, suspect=False)
    assert redis.get(KEYS.slot(WID)) == b"m.1\n1\nq" + RAW
    assert listed(redis, KEYS.queue("q")) == [NEXT]


@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_settle_is_carried_out_once(
    claims: Claims, redis: Redis, lose: Lose, proxy: Proxy, outcome: Outcome, *, chained: bool
) -> None:
    redis.rpush(KEYS.queue("q"), RAW, NEXT)
    job = claims.claim(T1, now=NOW)
    assert isinstance(job, Claimed)
    lose("done" if chained and outcome is Outcome.DONE else "settle")

    settled = insist(
        lambda: claims.settle(
            job,
            outcome,
            now=NOW,
            next_token=T2 if chained else b"",
            entry=ENTRY,
            due=PAST,
        )
    )

    assert proxy.fired == 1
    assert not settled.lost
    wanted = Claimed(T2, "q", NEXT, suspect=False) if chained else Nothing.UNASKED
    assert settled.next == wanted
    assert redis.get(KEYS.slot(WID)) == (b"m.2\n1\nq" + NEXT if chained else None)
    waiting = [] if chained else [NEXT]
    ends = {
        Outcome.REQUEUE: [*waiting, RAW],
        Outcome.RELEASE: [RAW, *waiting],
    }
    assert listed(redis, KEYS.queue("q")) == ends.get(outcome, waiting)
    assert listed(redis, KEYS.failed()) == ([ENTRY] if outcome is Outcome.FAIL else [])
    assert listed(redis, KEYS.delayed(PAST)) == ([RAW] if outcome is Outcome.RETRY else [])
    failures = outcome in (Outcome.FAIL, Outcome.RETRY)
    assert redis.get(KEYS.stat("failed")) == (b"1" if failures else None)
    assert redis.get(KEYS.stat("processed")) == (b"1" if outcome is Outcome.DONE else None)


def test_a_due_job_is_promoted_once(link: Link, redis: Redis, lose: Lose, proxy: Proxy) -> None:
    redis.rpush(KEYS.delayed(PAST), RAW, NEXT)
    redis.zadd(KEYS.schedule(), {str(PAST): PAST})
    delayed = Delayed(link, KEYS)
    assert delayed.lead("us", term=15.0).state is Lead.PROMOTE
    batch, _ = delayed.batch([PAST])
    lose("promote")

    insist(lambda: delayed.promote(batch, token="us"))

    assert proxy.fired == 1
    assert listed(redis, KEYS.queue("q")) == [RAW, NEXT]
    assert not redis.exists(KEYS.delayed(PAST), KEYS.schedule())


# -- a whole worker ----------------------------------------------------------------------------


@contextmanager
def running(worker: Worker) -> Iterator[None]:
    """Run a worker in a thread, and stop it in the end."""
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join(10.0)
        assert not thread.is_alive()


@dataclass
class Site:
    """An application, and a worker for it behind a proxy."""

    runs: list[int]
    release: threading.Event
    worker: Worker


@pytest.fixture
def site(server: Server, proxy: Proxy) -> Site:
    app, runs, release = Forkresque(server.url), list[int](), threading.Event()

    @app.job("x", queue="q")
    def x(number: int) -> None:
        runs.append(number)

    @app.job("wait", queue="q")
    def wait() -> None:
        assert release.wait(10.0)

    return Site(
        runs, release, Worker(proxy.url, app.jobs, queues=["q"], post=Post.alone(["q"], host="h"))
    )


def test_a_worker_whose_answers_get_lost_runs_every_job_once(
    site: Site, redis: Redis, proxy: Proxy
) -> None:
    jobs = [b'{"class":"x","queue":"q","args":[%d]}' % number for number in range(12)]
    redis.rpush(KEYS.queue("q"), *jobs)
    lost = [
        proxy.drop_reply(mark("claim")),
        proxy.drop_request(mark("done")),
        *(proxy.drop_reply(mark(name)) for name in ("done", "settle")),
        proxy.drop_reply(mark("register")),
        proxy.drop_request(mark("claim")),
    ]

    with running(site.worker):
        wait_until(lambda: redis.get(KEYS.stat("processed")) == b"12", "all jobs to be done")
        redis.rpush(KEYS.queue("q"), b'{"class":"x","queue":"q","args":[12]}')
        wait_until(lambda: redis.get(KEYS.stat("processed")) == b"13", "the last one as well")

    assert [rule.fired for rule in lost] == [1] * 6
    assert proxy.fired == 6
    assert site.runs == list(range(13))
    assert not redis.exists(KEYS.failed(), KEYS.queue("q"))
    assert not redis.keys("resque:fr:slot:*")


def test_a_worker_that_leaves_without_the_answer_to_its_claim_leaves_no_job_behind(
    site: Site, redis: Redis, proxy: Proxy
) -> None:
    redis.rpush(KEYS.queue("q"), b'{"class":"x","queue":"q","args":[1]}')
    rule = proxy.drop_reply(mark("claim"), times=1_000)

    with running(site.worker):
        wait_until(lambda: rule.fired, "a claim whose answer is lost")
        assert not redis.exists(KEYS.queue("q"))

    assert site.runs == []
    assert redis.llen(KEYS.queue("q")) == 1


def test_a_worker_whose_claim_was_recovered_takes_the_next_job_by_another_token(
    site: Site, redis: Redis, proxy: Proxy
) -> None:
    # Or a second clerk, which saw the first job, would take its look for one at the next job.
    redis.rpush(KEYS.queue("q"), b'{"class":"x","queue":"q","args":[1]}')
    rule = proxy.drop_reply(mark("claim"), times=1_000)
    wid = str(site.worker._post.worker)
    with closing(Target(proxy.url).link()) as link, running(site.worker):
        wait_until(lambda: redis.exists(KEYS.slot(wid)), "a claim whose answer is lost")
        registry = Registry(link, KEYS)
        seen = registry.held(wid)
        registry.recover(seen, Verdict("", 1, fail=True, poison=b"", entry=ENTRY))
        rule.left = 0
        redis.rpush(KEYS.queue("q"), b'{"class":"wait","queue":"q","args":[]}')
        wait_until(lambda: redis.exists(KEYS.slot(wid)), "the next claim")
        now = registry.held(wid)
        site.release.set()

    assert seen.raw != now.raw
    assert seen.token != now.token


def test_a_worker_that_was_told_to_leave_still_waits_between_two_attempts(
    site: Site, redis: Redis, proxy: Proxy
) -> None:
    redis.rpush(KEYS.queue("q"), b'{"class":"x","queue":"q","args":[1]}')
    rule = proxy.drop_reply(mark("done"), times=100_000)
    attempts: list[int] = []
    with running(site.worker):
        wait_until(lambda: rule.fired, "a settle whose answer is lost")
        site.worker.stop()
        before, watch = rule.fired, threading.Event()
        watch.wait(0.5)
        attempts.append(rule.fired - before)
        rule.left = 0

    assert attempts[0] < 12


# -- when nobody knows -------------------------------------------------------------------------


@dataclass
class Case:
    """How an enqueue onto its own queue ended, and the way to ask again."""

    queue: Queue
    error: BaseException | None


@pytest.fixture(scope="module")
def cases() -> Iterator[tuple[Redis, dict[str, Case]]]:
    """Return four enqueues that ran out of patience, which takes five seconds, side by side."""
    with ExitStack() as stack:
        server = stack.enter_context(Server())
        redis = stack.enter_context(closing(server.client()))
        know_scripts(redis)
        proxies = [stack.enter_context(Proxy((HOST, server.port))) for _ in range(3)]
        proxies[0].drop_reply(mark("enqueue"), times=1_000)
        proxies[1].drop_request(mark("enqueue"), times=1_000)
        urls = {
            "answers lost": proxies[0].url,
            "questions lost": proxies[1].url,
            "silence": proxies[2].url,
            "refused": f"redis://{HOST}:{free_port()}",
        }
        clients = {name: Target(url, timeout=0.5).client() for name, url in urls.items()}
        cases = {name: Case(Queue(Over(client, KEYS)), None) for name, client in clients.items()}
        for client in clients.values():
            stack.enter_context(closing(client))
        assert cases["silence"].queue.queues() == []  # connects, or it would know: never sent
        proxies[2].blackhole()

        def enqueue(name: str) -> None:
            try:
                cases[name].queue.enqueue(name, "x", [1])
            except RedisUnavailable as error:
                cases[name].error = error

        with ThreadPoolExecutor(len(urls)) as pool:
            list(pool.map(enqueue, urls))
        for proxy in proxies[:2]:
            assert proxy.fired > 2
            for rule in proxy._rules:
                rule.left = 0
        proxies[2].heal()
        yield redis, cases


@pytest.mark.parametrize(
    ("name", "stored"), [("answers lost", 1), ("questions lost", 0), ("silence", None)]
)
def test_an_enqueue_that_nobody_answered_can_be_sent_again_by_its_request_id(
    cases: tuple[Redis, dict[str, Case]], name: str, stored: int | None
) -> None:
    redis, case = cases[0], cases[1][name]
    assert isinstance(case.error, EnqueueUnknown)
    assert "request_id" in case.error.hint
    if stored is not None:
        assert redis.llen(KEYS.queue(name)) == stored

    for _ in range(2):
        assert case.queue.enqueue(name, "x", [1], request_id=case.error.request_id)

    assert redis.llen(KEYS.queue(name)) == 1
    assert case.queue.enqueue(name, "x", [1])  # a new request, by another number
    assert redis.llen(KEYS.queue(name)) == 2


def test_a_lost_question_can_be_asked_again_after_others_were_answered(
    queue: Queue, redis: Redis, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forkresque.producer.ENQUEUE_TIMEOUT", 0.1)
    rule = proxy.drop_request(mark("enqueue"), times=1_000)
    with pytest.raises(EnqueueUnknown) as caught:
        queue.enqueue("q", "x", [1])
    assert rule.fired
    rule.left = 0
    queue.enqueue("q", "x", [2])  # by another producer, or its number would hide the first

    assert queue.enqueue("q", "x", [1], request_id=caught.value.request_id)
    assert redis.llen(KEYS.queue("q")) == 2


def test_an_enqueue_that_could_not_even_be_sent_is_certainly_not_stored(
    cases: tuple[Redis, dict[str, Case]],
) -> None:
    error = cases[1]["refused"].error

    assert isinstance(error, RedisUnavailable)
    assert not isinstance(error, EnqueueUnknown)
    assert not error.sent

"""The size of elastic pools: it follows the load, within bounds that an operator may move.

Nothing here depends on how fast this machine is. Gate jobs end when the test says so, and what
burns CPU has one core to burn, so that the most that is sensible is known.
"""

import itertools
import random
import re
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

from forkresque.errors import ControlError
from forkresque.supervisor.control import ask
from tests.support.processes import ROOT, Start, assert_nothing_left
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.site import KEYS, Site, state, stays, ticks
from tests.support.sizes import sized
from tests.support.waiting import wait_until

BURNING = """
import time
from tests.support.jobs import app, note

@app.job("burn", queue="math")
def burn(mark, seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass
    note(mark)
"""
PINNED = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.execv(sys.argv[1], sys.argv[1:])
"""
ON_ONE_CORE = (sys.executable, "-I", "-S", "-c", PINNED)
SCALED = re.compile(r"scaled pool=(\S+) from=(\d+) to=(\d+): (.+?)$", re.MULTILINE)
GROWTH = 40.0  # seconds that a pool may take to get as large as it should be: it is seldom 5


class Change(NamedTuple):
    """One decision, as the log or the status tells it."""

    before: int
    after: int
    reason: str


class Begin(Protocol):
    """Starts a master on the test's server, not ready yet; `inside` is a command that runs it."""

    def __call__(self, *args: str, inside: Sequence[str] = (), url: str = "") -> Start: ...


@pytest.fixture
def begin(one_server: Server, ledger_server: Server, tmp_path: Path) -> Iterator[Begin]:
    (tmp_path / "burning.py").write_text(BURNING)
    started: list[Start] = []

    def begin(*args: str, inside: Sequence[str] = (), url: str = "") -> Start:
        env = {"LEDGER_URL": ledger_server.url, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
        words = ("-A", "burning", "--log-format", "plain", *args)
        master = Start(*words, url=url or one_server.url, env=env, inside=inside)
        started.append(master)
        return master

    yield begin
    for each in started:
        each.stop()
        print(f"-- log of {each.pid}, which ended with {each.process.returncode}\n{each.log()}")
        each.remove()


def await_ready(*masters: Start) -> None:
    for master in masters:
        wait_until(lambda master=master: is_ready(master), "a master that is ready", 20.0)  # type: ignore[misc]


def is_ready(master: Start) -> bool:
    """Tell whether a master answers, and has the workers and the Redis that it needs."""
    assert master.process.poll() is None, master.log()
    try:
        return bool(state(master)["ready"])
    except ControlError:
        return False


def pool(master: Start, name: str = "math") -> dict[str, Any]:
    """Return what a master says of one pool."""
    (found,) = [each for each in state(master)["pools"] if each["name"] == name]
    return dict(found)


def order(master: Start, verb: str, **arguments: object) -> dict[str, Any]:
    """Have a master carry out a verb; return its state."""
    path = master.runtime_directory / "forkresque" / f"{master.pid}.sock"
    return ask(path, verb, **arguments)


def await_size(
    master: Start, number: int, name: str = "math", timeout: float = GROWTH
) -> dict[str, Any]:
    """Wait until a pool wants and has so many workers, all of them ready."""
    seen: dict[str, Any] = {}

    def has_it() -> bool:
        seen.update(pool(master, name))
        return seen["wanted"] == seen["busy"] + seen["idle"] == number and not seen["booting"]

    try:
        wait_until(has_it, f"{number} workers of {name}", timeout, 0.05)
    except AssertionError as error:
        raise AssertionError(f"{error}: {seen}") from None
    return seen


def logged(master: Start, name: str = "math") -> list[Change]:
    """Return the changes of a pool that the log tells of."""
    found = SCALED.findall(master.log())
    return [
        Change(int(before), int(after), why) for each, before, after, why in found if each == name
    ]


def told(master: Start, name: str = "math") -> list[Change]:
    """Return the changes of a pool that the status tells of."""
    scalings = pool(master, name)["scalings"]
    return [Change(each["before"], each["after"], each["reason"]) for each in scalings]


def assert_accounts(master: Start, *names: str) -> None:
    """Fail unless log, status and counters tell of the same changes, without a gap."""

    def agree() -> bool:
        counters, changes = state(master)["counters"], []
        for name in names or ("math",):
            if told(master, name) != logged(master, name):
                return False
            changes += logged(master, name)
        ups = sum(each.after > each.before for each in changes)
        counted = (counters["scaled_up"], counters["scaled_down"])
        return counted == (ups, len(changes) - ups)

    wait_until(agree, "the accounts to agree: something may change while we look")


def busy(master: Start, name: str = "math") -> set[int]:
    """Return the pids of the workers of a pool that have a job."""
    report = state(master)
    index = [each["name"] for each in report["pools"]].index(name)
    workers = [each for each in report["workers"] if each["pool"] == index]
    return {each["pid"] for each in workers if each["phase"] == "run"}


def workers(master: Start, name: str) -> set[int]:
    """Return the pids of the workers of a pool."""
    report = state(master)
    index = [each["name"] for each in report["pools"]].index(name)
    return {each["pid"] for each in report["workers"] if each["pool"] == index}


def resize(master: Start, signum: signal.Signals, most: int) -> None:
    """Move the maximum of the first pool by a signal, and see where it has come to."""
    master.send_signal(signum)
    wait_until(lambda: state(master)["pools"][0]["most"] == most, f"a maximum of {most}")


def gates(site: Site, queue: str, number: int) -> list[str]:
    """Put gate jobs into a queue; return their names."""
    names = [f"{queue} {secrets.token_hex(4)}" for _ in range(number)]
    for name in names:
        site.enqueue("gate", name, queue=queue)
    return names


def await_rest_of_growth(master: Start) -> int:
    """Wait until all that a pool wants are there; return how many."""

    def settled() -> int:
        seen = pool(master)
        there = seen["busy"] + seen["idle"]
        return there if seen["waiting"] == 0 and there == seen["wanted"] else 0

    return wait_until(settled, "the growth to end", GROWTH)


def sizes_until(master: Start, generation: int) -> set[int]:
    """Wait until a reload is over; return how many workers were wanted meanwhile."""
    sizes: set[int] = set()

    def rolled() -> bool:
        try:
            report = state(master)
        except ControlError:  # between two images
            return False
        sizes.add(report["wanted"])
        generations = {each["generation"] for each in report["workers"]}
        return bool(generations == {generation} and report["clerk"]["reached"])

    wait_until(rolled, f"generation {generation}", 20.0)
    return sizes


def drain(site: Site, *masters: Start) -> None:
    """End all masters, and see that they have killed nobody and leave nothing."""
    for master in masters:
        assert state(master)["counters"]["killed"] == 0
        master.send_signal(signal.SIGTERM)
    for master in masters:
        assert master.wait(15) == 0
    for master in masters:
        assert_nothing_left(master, site.redis)


# -- growing -----------------------------------------------------------------------------------


def test_a_burst_of_waiting_jobs_reaches_the_maximum_and_every_change_is_told(
    begin: Begin, site: Site
) -> None:
    master = begin("-q", "math", "-c", "1:8")
    await_ready(master)
    marks = [f"job {number}" for number in range(400)]
    for mark in marks:
        site.enqueue("slow", mark, 0.2)

    began = time.monotonic()
    await_size(master, 8)
    print(f"time to the maximum: {time.monotonic() - began:.1f} s")

    changes = told(master)
    assert [changes[0].before, changes[-1].after] == [1, 8]
    assert all(before.after == after.before for before, after in itertools.pairwise(changes))
    assert all(each.before < each.after <= 2 * max(each.before, 2) for each in changes)
    assert re.fullmatch(r"\d+ waiting, .* busy; \d+ would clear it in 5 s", changes[0].reason)
    assert_accounts(master)
    site.redis.delete(KEYS.queue("math"))
    wait_until(lambda: pool(master)["busy"] == 0, "the jobs in hand to end")
    assert_accounts(master)
    assert len(site.runs()) == len(set(site.runs()))
    drain(site, master)


def test_a_burst_of_jobs_that_burn_cpu_gets_no_more_workers_than_the_cores_bear(
    begin: Begin, site: Site
) -> None:
    """It has one core, and less of it the more our neighbours take; then waiting counts as use."""
    master = begin("-q", "math", "-c", "1:16", inside=ON_ONE_CORE)
    auto = begin("-q", "auto", "-c", "auto", inside=ON_ONE_CORE)
    await_ready(master, auto)
    for number in range(300):
        site.enqueue("burn", f"job {number}", 0.3)
    sizes: list[int] = []
    used: list[float] = []

    wait_until(lambda: pool(master)["wanted"] > 1, "a second worker", GROWTH)
    for _ in ticks(0.1, 3.5):
        report = state(master)
        sizes.append(report["wanted"])
        used += [each["cpu"] for each in report["workers"] if each["cpu"]]

    print(f"peak with one core: {max(sizes)}")
    assert pool(master)["waiting"] > 16
    assert max(sizes) <= 3
    assert used  # and the status tells how much of the core each worker has
    assert any("1 core good for" in each.reason for each in told(master))
    assert_accounts(master)
    own = pool(auto, "auto")
    assert (own["least"], own["most"], own["wanted"]) == (1, 1, 1)
    site.redis.delete(KEYS.queue("math"))
    drain(site, master, auto)


def test_each_pool_grows_by_its_own_queue_and_shrinks_at_once_when_it_must(
    begin: Begin, site: Site
) -> None:
    master = begin("--pool", "high=1:4", "--pool", "low=1:2")
    await_ready(master)
    site.enqueue("slow", "first", 0.3, queue="low")  # so that it knows how little CPU jobs take
    high = gates(site, "high", 4)
    await_size(master, 4, "high")
    wait_until(lambda: len(busy(master, "high")) == 4, "four jobs in hand")
    assert pool(master, "low")["wanted"] == 1
    low = gates(site, "low", 3)
    await_size(master, 2, "low")
    assert re.match(r"\d waiting, all 1 busy", told(master, "low")[0].reason)
    assert pool(master, "high")["wanted"] == 4
    assert_accounts(master, "high", "low")

    # Below the present size: who is idle goes, who is busy does so after its job.
    site.release(*high[:2])
    wait_until(lambda: pool(master, "high")["idle"] == 2, "two that are idle")
    at_work = busy(master, "high")
    assert len(workers(master, "high") - at_work) == 2
    for most in (3, 2, 1):
        resize(master, signal.SIGTTOU, most)
    wait_until(lambda: workers(master, "high") == at_work, "the end of those that were idle")
    assert pool(master, "high")["wanted"] == 1

    order(master, "scale", pool="low", to=1)
    assert (pool(master, "low")["wanted"], pool(master, "high")["most"]) == (1, 1)
    site.release(*high[2:], *low[:2])
    await_size(master, 1, "high")
    await_size(master, 1, "low")
    site.release(low[2])
    site.await_processed(8)
    assert sorted(site.runs()) == sorted(["first", *high, *low])
    drain(site, master)


def test_a_pool_grows_to_a_raised_maximum_and_a_reload_keeps_its_size(
    begin: Begin, site: Site
) -> None:
    master = begin("-q", "math", "-c", "1:4")
    await_ready(master)
    assert order(master, "scale", to=1)["pools"][0]["most"] == 1
    resize(master, signal.SIGTTIN, 2)
    assert order(master, "scale", by=1)["pools"][0]["most"] == 3
    names = gates(site, "math", 4)
    await_size(master, 3)
    site.release(*names)
    site.await_processed(4)

    master.send_signal(signal.SIGHUP)
    assert sizes_until(master, generation=2) == {3}
    assert await_size(master, 3)["most"] == 4  # as it is configured

    names += gates(site, "math", 5)
    await_size(master, 4)
    changes = logged(master)
    assert [changes[0].before, changes[-1].after] == [1, 4]
    assert [change.before for change in changes[1:]] == [change.after for change in changes[:-1]]
    assert state(master)["counters"]["scaled_up"] == len(changes)
    site.release(*names[4:])
    site.await_processed(9)
    drain(site, master)


# -- not growing -------------------------------------------------------------------------------


def test_what_is_small_fixed_or_paused_does_not_grow(begin: Begin, site: Site) -> None:
    drip = begin("-q", "drip", "-c", "1:4")
    fixed = begin("-q", "fixed", "-c", "2:2")
    paused = begin("-q", "paused", "-c", "1:8")
    await_ready(drip, fixed, paused)
    before = workers(fixed, "fixed")
    for number in range(100):
        site.enqueue("slow", f"paused {number}", 0.5, queue="paused")
        site.enqueue("slow", f"fixed {number}", 0.5, queue="fixed")
    wait_until(lambda: pool(paused, "paused")["wanted"] > 1, "its growth to begin", GROWTH)
    order(paused, "pause")
    reached = pool(paused, "paused")["wanted"]

    drops: list[str] = []
    for number in ticks(1.0, 3.0):
        drops.append(f"drop {number}")
        site.enqueue("slow", drops[-1], 0.05, queue="drip")
        wait_until(lambda: drops[-1] in site.runs(), "the end of the drop")

    stays(lambda: pool(drip, "drip")["wanted"] == 1, "the size after the last drop", 1.0)
    assert workers(fixed, "fixed") == before
    for master, name in ((drip, "drip"), (fixed, "fixed")):
        assert (told(master, name), logged(master, name)) == ([], [])
    seen = pool(paused, "paused")
    assert (seen["wanted"], seen["busy"]) == (reached, 0)
    assert seen["waiting"] > 50  # of half a second each: far too many for what there is
    order(paused, "resume")
    wait_until(lambda: pool(paused, "paused")["wanted"] > reached, "it to go on", GROWTH)
    site.redis.delete(KEYS.queue("fixed"), KEYS.queue("paused"))
    drain(site, drip, fixed, paused)


def test_while_redis_is_silent_the_size_stays_and_goes_on_afterwards(
    begin: Begin, site: Site, one_server: Server
) -> None:
    with Proxy(one_server.socket) as proxy:
        master = begin("--pool", "math=1:6", "--pool", "other=1", url=proxy.url)
        await_ready(master)
        other = gates(site, "other", 2)  # one waits, so the clerk asks Redis again and again
        names = gates(site, "math", 3)
        wait_until(lambda: len(busy(master)) == 3, "three jobs in hand", GROWTH)

        proxy.blackhole()
        names += gates(site, "math", 8)
        wait_until(lambda: pool(master)["waiting"] is None, "the silence to be noticed", 20.0)
        before = pool(master)["wanted"]
        assert 3 <= before < 6
        stays(lambda: pool(master)["wanted"] == before, "the size", 1.5)
        assert "the clerk does not reach Redis" in state(master)["trouble"]
        assert len(site.waiting()) == 8

        proxy.heal()
        await_size(master, 6)
        site.release(*names, *other)
        site.await_processed(13, GROWTH)
        assert Counter(site.runs()) == Counter(names + other)
        assert_accounts(master)
        drain(site, master)


# -- dismissals --------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", sized(3.5, 60.0))
def test_no_job_is_lost_or_doubled_by_changes_of_size(
    begin: Begin, site: Site, seconds: float
) -> None:
    """An elastic pool, and a fixed one, whose size is moved at once: more are dismissed there."""
    chance = random.Random(4)
    master = begin("--pool", "high=1:6", "--pool", "low=4")
    await_ready(master)
    sent = [f"job {number}" for number in range(40)]
    for mark in sent:
        site.enqueue("slow", mark, 0.1, queue="high")

    for _ in ticks(0.05, seconds):
        queue = chance.choice(("high", "low"))
        for _ in range(chance.choice((0, 1, 2, 10))):
            sent.append(f"job {len(sent)}")
            site.enqueue("slow", sent[-1], chance.choice((0.0, 0.01, 0.1)), queue=queue)
        match chance.randrange(4):
            case 0:
                order(master, "scale", pool="high", to=chance.randint(2, 6))
            case 1:
                order(master, "scale", pool="low", to=chance.randint(1, 4))
            case 2:
                master.send_signal(chance.choice((signal.SIGTTIN, signal.SIGTTOU)))
            case _:
                pass

    order(master, "scale", pool="high", to=6)
    order(master, "scale", pool="low", to=4)
    site.await_processed(len(sent), 60.0)
    begun = [mark.decode() for mark in site.ledger.lrange("begun", 0, -1)]
    assert Counter(begun) == Counter(site.runs()) == Counter(sent)
    assert (site.count("failed"), site.slots()) == (0, 0)
    counters = state(master)["counters"]
    print(f"{len(sent)} jobs, {counters}")
    assert counters["died"] >= 5
    assert counters["scaled_up"] >= 1
    drain(site, master)


# -- long ones ---------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_pool_comes_back_to_its_minimum_by_workers_that_are_idle(
    begin: Begin, site: Site
) -> None:
    master = begin("-q", "math", "-c", "1:8")
    await_ready(master)
    names = [f"long {number}" for number in range(8)]
    for name in names:
        site.enqueue("breathe", name)
    await_size(master, 8)
    wait_until(lambda: len(busy(master)) == 8, "eight jobs in hand")
    site.release(*names[2:])
    wait_until(lambda: len(busy(master)) == 2, "two jobs in hand")
    at_work = busy(master)

    wait_until(lambda: pool(master)["wanted"] == 3, "what two jobs need", 170.0, 0.1)
    assert busy(master) == at_work
    site.release(*names[:2])
    await_size(master, 1, timeout=240.0)

    assert sorted(site.runs()) == sorted(names)
    downs = [each for each in told(master) if each.after < each.before]
    assert [each.before - each.after for each in downs] == [1] * 7
    assert all("were enough for 30 s" in each.reason for each in downs)
    assert_accounts(master)
    drain(site, master)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_mixed_load_does_not_make_it_flap(begin: Begin, site: Site) -> None:
    """A growth soon after a shrink doubles the patience with the next: 30 s, 60 s, 120 s."""
    chance = random.Random(4)
    master = begin("-q", "math", "-c", "1:8")
    await_ready(master)
    sent: list[str] = []
    for _ in ticks(0.25, 150.0):
        number, seconds = chance.choice(((1, 0.05), (1, 0.5), (6, 0.2)))
        for _ in range(number):
            sent.append(f"job {len(sent)}")
            site.enqueue("slow", sent[-1], seconds)

    site.await_processed(len(sent), GROWTH)
    assert Counter(site.runs()) == Counter(sent)
    ups = [each.after > each.before for each in logged(master)]
    print(logged(master))
    assert ups
    assert ups[0]
    assert sum(up and not before for before, up in itertools.pairwise(ups)) <= 2
    drain(site, master)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_two_masters_share_what_waits_in_one_queue(begin: Begin, site: Site) -> None:
    masters = [begin("-q", "math", "-c", "1:16") for _ in range(2)]
    await_ready(*masters)
    # They count each other when they renew their leases, every 5 s; nothing else shows it.
    stays(lambda: [pool(master)["wanted"] for master in masters] == [1, 1], "rest", 12.0)
    names = gates(site, "math", 10)

    wait_until(lambda: sum(len(busy(master)) for master in masters) == 10, "ten in hand", GROWTH)
    sizes = [await_rest_of_growth(master) for master in masters]

    print(f"sizes of two masters for ten jobs: {sizes}")
    assert min(sizes) >= 2
    assert sum(sizes) <= 16  # each alone would want 13
    site.release(*names)
    site.await_processed(10)
    drain(site, *masters)

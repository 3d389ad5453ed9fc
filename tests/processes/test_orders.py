"""Orders that come while there is much to do, in twos, or in no shape at all."""

import json
import os
import signal
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

from forkresque.errors import ExitCode
from forkresque.protocol.payload import encode_job
from forkresque.supervisor.control import ask
from tests.conftest import Starter
from tests.support.patience import Bench, patient
from tests.support.processes import Start, assert_nothing_left
from tests.support.site import APP, KEYS, Site, idle_workers, is_gone, state, stays
from tests.support.waiting import wait_until

NONSENSE = {
    "400 digits": "9" * 400,
    "4000 digits": "9" * 4000,
    "beyond a float": "1e999",
    "endless": "Infinity",
    "no number": "NaN",
    "before now": "-1",
    "a truth": "true",
    "a text": '"60"',
}


def backlog(site: Site, number: int) -> list[str]:
    """Enqueue jobs of 20 ms each in one go, and wait until the first has run."""
    marks = [f"job {index}" for index in range(number)]
    with site.redis.pipeline() as pipe:
        pipe.sadd(KEYS.queues(), "math")
        pipe.rpush(KEYS.queue("math"), *[encode_job("math", "slow", (m, 0.02)) for m in marks])
        pipe.execute()
    wait_until(site.runs, "the first job to run")
    return marks


def control_of(master: Start) -> Path:
    return master.runtime_directory / "forkresque" / f"{master.pid}.sock"


def say(master: Start, line: bytes) -> dict[str, Any]:
    """Send one line to a master, whatever it is; return the answer."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5.0)
        client.connect(str(control_of(master)))
        client.sendall(line + b"\n")
        answer: dict[str, Any] = json.loads(b"".join(iter(lambda: client.recv(65536), b"")))
        return answer


def workers(master: Start) -> set[int]:
    return {worker.pid for worker in master.children("worker")}


# -- under a backlog ---------------------------------------------------------------------------


def test_ttou_dismisses_a_worker_that_is_never_idle(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "2")
    idle_workers(master, 2)
    backlog(site, 3000)

    master.send_signal(signal.SIGTTOU)

    wait_until(lambda: len(workers(master)) == 1, "one worker to leave", 3.0)
    assert len(site.waiting()) > 0
    (left,) = workers(master)
    stays(lambda: workers(master) == {left}, "the other one goes on", 0.5)
    master.send_signal(signal.SIGTERM)
    assert master.wait(5) == ExitCode.OK
    assert site.count("processed") + len(site.waiting()) == 3000
    assert site.count("failed") == 0
    assert_nothing_left(master, site.redis)


@patient
def test_term_to_a_worker_that_is_never_idle_replaces_it(bench: Bench) -> None:
    site = bench.site
    master = bench.start(*APP, "-c", "2")
    before = {worker.pid for worker in idle_workers(master, 2)}
    marks = backlog(site, 600)
    told, other = sorted(before)

    os.kill(told, signal.SIGTERM)

    wait_until(lambda: is_gone(told), "it to leave", 2.0)
    wait_until(lambda: len(workers(master) - {told, other}) == 1, "another worker", 2.0)
    assert len(site.waiting()) > 0
    site.await_processed(len(marks), timeout=15.0)
    assert Counter(site.runs()) == Counter(marks)
    assert Counter(m.decode() for m in site.ledger.lrange("begun", 0, -1)) == Counter(marks)
    assert (site.count("failed"), site.slots()) == (0, 0)
    assert other in workers(master)
    master.send_signal(signal.SIGTERM)
    assert master.wait(5) == ExitCode.OK
    assert_nothing_left(master, site.redis)


# -- drains ------------------------------------------------------------------------------------


@patient
def test_the_first_term_after_an_ordered_drain_lets_the_job_finish(bench: Bench) -> None:
    site = bench.site
    master = bench.start(*APP, "-c", "1", "--shutdown-timeout", "10")
    site.gates("a")

    assert ask(control_of(master), "drain", timeout=60)["draining"] is True
    stays(lambda: master.process.poll() is None, "the job is left alone", 2.5)
    master.send_signal(signal.SIGTERM)
    stays(lambda: site.slots() == 1 and master.process.poll() is None, "it still is", 1.0)
    site.release("a")

    assert master.wait(5) == ExitCode.OK
    assert site.runs() == ["a"]
    assert (site.count("processed"), site.count("failed")) == (1, 0)
    assert_nothing_left(master, site.redis)


@patient
def test_the_first_term_after_an_ordered_drain_sets_the_usual_limit(bench: Bench) -> None:
    site = bench.site
    master = bench.start(*APP, "-c", "1", "--shutdown-timeout", "1")
    cut = site.enqueue("gate", "a")
    site.started("a")

    ask(control_of(master), "drain", timeout=60)
    stays(lambda: master.process.poll() is None, "the job is left alone", 2.5)
    asked_at = time.monotonic()
    master.send_signal(signal.SIGTERM)

    assert master.wait(5) == ExitCode.CUT
    assert time.monotonic() - asked_at >= 1.0
    assert site.waiting() == [cut]
    assert_nothing_left(master, site.redis)


def test_a_drain_that_makes_no_sense_is_refused(start: Starter, site: Site) -> None:
    master = start(*APP, "-c", "1")
    site.gates("a")

    for what, timeout in NONSENSE.items():
        answer = say(master, f'{{"verb":"drain","timeout":{timeout}}}'.encode())
        assert list(answer) == ["error"], what
        assert master.process.poll() is None, what

    assert state(master)["draining"] is False
    site.enqueue("note", "n")
    site.release("a")
    site.await_processed(2)
    assert "Traceback" not in master.log()
    master.send_signal(signal.SIGTERM)
    assert master.wait(5) == ExitCode.OK
    assert_nothing_left(master, site.redis)

"""The upstream suite core/multiWorker, mirrored. Workers are processes here.

* should never have less than one worker
  -> test_should_never_have_less_than_one_worker
* should stop adding workers when the max is hit & CPU utilization is low
  -> test_should_stop_adding_workers_when_the_max_is_hit_cpu_utilization_is_low
* should not add workers when CPU utilization is high
  -> test_should_not_add_workers_when_cpu_utilization_is_high: spinning jobs get no more workers
  than the one core bears, which is three at most and not always the fewest there may be
* should pass on all worker emits to the instance of multiWorker
  -> test_should_pass_on_all_worker_emits_to_the_instance_of_multi_worker
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.conformance.pool import MOST
from tests.conformance.stage import Stage
from tests.support.processes import ROOT
from tests.support.servers import Server, dying_with_runner


def sizes(server: Server, directory: Path, case: str, seconds: float) -> list[int]:
    """Return how many workers a pool wanted, look by look."""
    program = [sys.executable, "-m", "tests.conformance.pool", case, str(seconds)]
    env = {"FORKRESQUE_REDIS_URL": server.url, "XDG_RUNTIME_DIR": str(directory)}
    done = subprocess.run(
        dying_with_runner(program, signal.SIGKILL),
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=25,
    )
    assert done.returncode == 0, done.stderr
    found: list[int] = json.loads(done.stdout)
    return found


def test_should_never_have_less_than_one_worker(one_server: Server, tmp_path: Path) -> None:
    assert set(sizes(one_server, tmp_path, "idle", 0.3)) == {1}


def test_should_stop_adding_workers_when_the_max_is_hit_cpu_utilization_is_low(
    one_server: Server, tmp_path: Path
) -> None:
    seen = sizes(one_server, tmp_path, "sleeping", 0.5)

    assert seen[-1] == max(seen) == MOST


def test_should_not_add_workers_when_cpu_utilization_is_high(
    one_server: Server, tmp_path: Path
) -> None:
    assert max(sizes(one_server, tmp_path, "spinning", 2.0)) <= 3


def test_should_pass_on_all_worker_emits_to_the_instance_of_multi_worker(
    one_stage: Stage, one_server: Server, tmp_path: Path
) -> None:
    sizes(one_server, tmp_path, "failing", 0.0)

    number, queue, job, failure, duration_ms = json.loads(one_stage.redis.lindex("told", 0))
    assert 1 <= number <= MOST
    assert queue == "q"
    assert job == {"class": "failing", "queue": "q", "args": ["mark"]}
    assert failure == "BUSTED"
    assert duration_ms >= 0

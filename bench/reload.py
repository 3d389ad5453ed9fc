"""What does a reload cost a busy pool?

    python -m bench.reload

Eight workers on a queue that never gets empty; each job notes when it began and takes 5 ms. SIGHUP:
the new code is checked in a process of its own, takes the master's place, and the workers are
replaced one after another. Told are jobs a second before, during and after, "during" being from the
signal to the last worker's replacement, and the longest time in which no job began. Beside it, turn
by turn, the same seconds without a signal: the gaps that the machine makes by itself.
"""

import argparse
import os
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from bench import support
from forkresque.errors import ControlError
from forkresque.supervisor.control import ask, runtime_directory
from tests.support.servers import Server

_BEFORE = 2.0  # seconds of steady work before and after
_JOBS = 60_000
_HOLD = 0.005


def measured(server: Server, workers: int, *, reloads: bool) -> dict[str, float]:
    """Return what one run tells: rates in jobs a second, times in ms."""
    url = server.url
    with server.client() as client, tempfile.TemporaryDirectory() as folder:
        client.flushall()
        path = Path(folder) / "starts"
        with support.running(support.start_command(workers), url) as master:
            support.wait_for_pool(client, workers)
            support.fill(client, "work", _JOBS, str(path), _HOLD)
            time.sleep(_BEFORE)
            began = time.monotonic_ns()
            ended = _reloaded(master) if reloads else _waited()
            time.sleep(_BEFORE)
            stopped = time.monotonic_ns()
            if not client.llen(support.QUEUE_KEY):
                raise SystemExit("the queue got empty: more jobs are needed")
        starts = sorted(map(int, path.read_text().splitlines()))
    return _told(starts, began, ended, stopped)


def _reloaded(master: "subprocess.Popen[bytes]") -> int:
    """Reload, and return when the last worker was replaced."""
    path = runtime_directory(os.environ) / f"{master.pid}.sock"
    master.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(ControlError):  # between two images it is deaf
            state = ask(path, "status")
            if {worker["generation"] for worker in state["workers"]} == {2}:
                return time.monotonic_ns()
        time.sleep(0.02)
    raise SystemExit("the reload did not come to an end")


def _waited() -> int:
    time.sleep(1.0)
    return time.monotonic_ns()


def _told(starts: list[int], began: int, ended: int, stopped: int) -> dict[str, float]:
    def rate(since: int, until: int) -> float:
        return sum(since <= start < until for start in starts) / ((until - since) / 1e9)

    around = [start for start in starts if began - 100_000_000 <= start <= ended + 100_000_000]
    gaps = [later - earlier for earlier, later in pairwise(around)]
    before = began - int(_BEFORE * 0.75 * 1e9)
    return {
        "before": rate(before, began),
        "during": rate(began, ended),
        "after": rate(ended, stopped),
        "seconds": (ended - began) / 1e9,
        "gap_ms": max(gaps) / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {"none": [], "reload": []}
    support.preamble("reload of a busy pool")
    with support.server() as server:
        for _ in range(options.repeat):
            for name, runs in found.items():
                runs.append(measured(server, options.workers, reloads=name == "reload"))
    fields = ("before", "during", "after", "seconds", "gap_ms")
    support.table(
        ("signal", "jobs/s before", "during", "after", "seconds", "longest gap, ms"),
        [
            [name, *(support.spread([run[field] for run in runs], ".2f") for field in fields)]
            for name, runs in found.items()
        ],
    )


if __name__ == "__main__":
    main()

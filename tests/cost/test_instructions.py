"""How many instructions of the processor each thing takes, as callgrind counts them.

They are held against those of something else in the same run: a loop, or the json of the standard
library. So they depend neither on how busy the machine is, nor much on how Python was built.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from forkresque.protocol.payload import encode_job
from tests.cost.budget import COUNTED_ON, INSTRUCTIONS, SLACK, SLACK_ELSEWHERE
from tests.cost.cases import cases, references
from tests.cost.instructed import A_JOB, MARK, jobs_wanted
from tests.support.processes import ROOT
from tests.support.servers import Server, dying_with_runner
from tests.support.site import KEYS
from tests.support.sizes import sized
from tests.support.tools import program

Ratios = dict[str, tuple[str, float]]  # to what, and how much

START_TIMEOUT = 120.0
CALLGRIND = ("--tool=callgrind", "--instr-atstart=no", f"--dump-before={MARK}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("times", sized(20, 200))
def test_each_thing_takes_so_many_instructions(
    one_server: Server, one_redis: Any, tmp_path: Path, times: int
) -> None:
    jobs = [encode_job("cost", "noop", [])] * jobs_wanted(times)
    one_redis.sadd(KEYS.queues(), "cost")
    one_redis.rpush(KEYS.queue("cost"), *jobs)

    counts = instructions(one_server.url, times, tmp_path)

    assert one_redis.get(KEYS.stat("processed")) == b"%d" % len(jobs)
    measured = {
        name: (reference, counts[name] / counts[reference])
        for name in counts.keys() - references().keys()
        for reference in [INSTRUCTIONS.get(name, ("loop", 0.0))[0]]
    }
    slack = SLACK if sys.version_info[:2] == COUNTED_ON else SLACK_ELSEWHERE
    print(table(measured))
    assert not differences(measured, slack), (
        f"more than {slack:.0%} away from tests/cost/budget.py: {differences(measured, slack)}\n"
        f"If that is meant, write there, with the reason:\n{table(measured)}"
    )


def differences(measured: Ratios, slack: float) -> dict[str, str]:
    """Return by how much each ratio is off that is off by more than `slack`, or not there."""
    off = dict.fromkeys(measured.keys() ^ INSTRUCTIONS.keys(), "is new or gone")
    for name in measured.keys() & INSTRUCTIONS.keys():
        change = measured[name][1] / INSTRUCTIONS[name][1] - 1
        if abs(change) > slack:
            off[name] = f"{change:+.0%}"
    return off


def instructions(url: str, times: int, directory: Path) -> dict[str, float]:
    """Return how many instructions each case takes, once."""
    log = directory / "valgrind.log"
    files = [f"--log-file={log}", f"--callgrind-out-file={directory}/counted"]
    valgrind = [program("valgrind", "valgrind"), *CALLGRIND, *files]
    with subprocess.Popen(
        dying_with_runner(
            [*valgrind, sys.executable, "-m", "tests.cost.instructed", url, str(times)],
            signal.SIGKILL,
        ),
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", log.read_text()
            start_counting(process.pid)
            process.communicate("go\n", START_TIMEOUT)
        finally:
            process.kill()
    assert process.returncode == 0, log.read_text()
    return counted([*cases(), A_JOB], times, directory)


def start_counting(pid: int) -> None:
    """Have callgrind count from now on: to start Python is most of the work."""
    control = program("callgrind_control", "valgrind")
    told = subprocess.run(
        [control, "--instr=on", str(pid)], capture_output=True, text=True, timeout=60, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "OK" in told.stdout, told.stdout + told.stderr


def counted(names: list[str], times: int, directory: Path) -> dict[str, float]:
    """Return what lies between the three marks of each case: as often, and twice as often."""
    parts = [total(directory / f"counted.{number}") for number in range(1, 3 * len(names) + 1)]
    return {
        name: (parts[3 * place + 2] - parts[3 * place + 1]) / times
        for place, name in enumerate(names)
    }


def total(file: Path) -> int:
    found = re.search(r"^totals: ([0-9]+)$", file.read_text(), re.MULTILINE)
    assert found, file.read_text()[-1000:]
    return int(found[1])


def table(measured: Ratios) -> str:
    """Return the lines of the budget as they would have to be."""
    names = [name for name in (*cases(), A_JOB) if name in measured]
    return "\n".join(
        f'    "{name}": ("{of}", {ratio:.3g}),'
        for name, (of, ratio) in ((name, measured[name]) for name in names)
    )

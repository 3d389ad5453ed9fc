"""What the figures depend on: the machine, the versions, and who else used it meanwhile."""

import os
import platform
import resource
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from tests.support.servers import binaries

CORES = os.cpu_count() or 1
_TICKS = os.sysconf("SC_CLK_TCK")
_IDLE, _IOWAIT, _STEAL = 3, 4, 7  # fields of the first line of /proc/stat


def facts() -> dict[str, object]:
    """Return the machine as a report tells it."""
    return {
        "cores": CORES,
        "processor": _processor(),
        "kernel": f"{platform.system()} {platform.release()}",
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
    }


def versions() -> dict[str, str]:
    """Return the versions of what is ours and of the server."""
    names = ("forkresque", "redis", "hiredis")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "server": server_version(),
    }


@cache
def server_version() -> str:
    """Return the name and the version of the server that the runs use."""
    found = binaries()
    binary = found.get("redis") or found["valkey"]
    said = subprocess.check_output([binary, "--version"], text=True).split()
    return f"{binary.name} {said[2].removeprefix('v=')}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


@dataclass(frozen=True, slots=True)
class Clocks:
    """A reading of the machine's clocks, in seconds: the wall, all cores' work, what was stolen."""

    at: float
    busy: float
    stolen: float
    ours: float  # this process, and its children that have ended


def clocks() -> Clocks:
    """Read the clocks."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split(None, 9)[1:9]]
    busy = sum(fields) - fields[_IDLE] - fields[_IOWAIT] - fields[_STEAL]
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Clocks(
        time.monotonic(),
        busy / _TICKS,
        fields[_STEAL] / _TICKS,
        time.process_time() + ended.ru_utime + ended.ru_stime,
    )


@dataclass(frozen=True, slots=True)
class Noise:
    """Shares of all cores' time that went elsewhere: to other processes, to other machines."""

    others: float
    stolen: float
    load: float  # the load average of the last minute, our own processes included

    def __str__(self) -> str:
        return f"others {self.others:.0%}, stolen {self.stolen:.0%}, load {self.load:.1f}"


def noise(first: Clocks, last: Clocks, *, known: float, load: float = 0.0) -> Noise:
    """Return the noise between two readings, in which contestants and server used `known` s."""
    time_of_all = max(1e-9, (last.at - first.at) * CORES)
    others = last.busy - first.busy - known - (last.ours - first.ours)
    return Noise(
        others=max(0.0, others / time_of_all),
        stolen=max(0.0, (last.stolen - first.stolen) / time_of_all),
        load=load,
    )


def worst(noises: Sequence[Noise]) -> Noise:
    """Return the worst of each kind."""
    return Noise(
        max((each.others for each in noises), default=0.0),
        max((each.stolen for each in noises), default=0.0),
        max((each.load for each in noises), default=0.0),
    )

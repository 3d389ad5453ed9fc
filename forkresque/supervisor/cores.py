"""How many cores this process may use, which is not how many the machine has."""

import contextlib
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return the cores that affinity and cgroup quota leave us, rounded down, at least one."""
    cores = float(len(os.sched_getaffinity(0)))
    return max(1, int(min([cores, *_quotas(_CGROUPS)])))


def _quotas(root: Path) -> list[float]:
    """Return the CPU quotas, in cores, of our own control group: version 2, and version 1."""
    found = []
    with contextlib.suppress(OSError, ValueError):
        quota, period = (root / "cpu.max").read_text().split()
        found.append(int(quota) / int(period))
    with contextlib.suppress(OSError, ValueError):
        quota = (root / "cpu" / "cpu.cfs_quota_us").read_text()
        period = (root / "cpu" / "cpu.cfs_period_us").read_text()
        found += [int(quota) / int(period)] if int(quota) > 0 else []
    return found

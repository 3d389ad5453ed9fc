"""What this process may use: cores, which are not all that the machine has, and descriptors."""

import contextlib
import os
import resource
from pathlib import Path

from forkresque.errors import ConfigError

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


def allow_descriptors(needed: int) -> None:
    """Raise the limit of open files to `needed`, if it is lower. Raises ConfigError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed or soft == resource.RLIM_INFINITY:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigError(
            f"so many workers need {needed} open files, and the limit is {hard}",
            hint="start fewer workers, or raise the limit: ulimit -Hn",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))

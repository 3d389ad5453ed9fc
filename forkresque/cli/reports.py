"""What a master's report says, in words and cells, for `status` and `top`. It asks nobody."""

from collections.abc import Iterable
from typing import Any

from forkresque.cli.output import Cell, brief, size

Report = dict[str, Any]  # as supervisor/report.py makes it

POOL_TITLES = ("POOL", "WORKERS", "BOUNDS", "WANTED", "BUSY", "IDLE", "BOOTING", "WAITING")
UNKNOWN = "-"

_RELOADING = {"checking": "checks new code", "rolling": "rolls to new code"}


def states(report: Report) -> list[str]:
    """Return what is special about a master just now, in words; nothing for one that just works."""
    found = [word for word in ("paused", "draining") if report[word]]
    if not report["ready"]:
        found.append("not ready")
    reloading = _RELOADING.get(report["reload"]["state"])
    return [*found, reloading] if reloading else found


def alarms(report: Report) -> list[str]:
    """Return what somebody should look after, one line each."""
    found = [str(trouble) for trouble in report["trouble"]]
    if report["reload"]["state"] == "refused":
        found.append(f"the new code was refused: {_gist(report['reload']['reason'])}")
    return found


def _gist(reason: str) -> str:
    """Return the last line of a reason that is no hint: what a traceback ends with."""
    lines = [line.strip() for line in reason.splitlines()]
    telling = [line for line in lines if line and not line.startswith("hint: ")]
    return telling[-1].removeprefix("error: ") if telling else "no reason given"


def size_of(pool: Report) -> str:
    """Return the bounds of a pool: `4`, or `2:8` if it scales."""
    least, most = pool["least"], pool["most"]
    return str(most) if least == most else f"{least}:{most}"


def pool_cells(pool: Report) -> list[Cell]:
    """Return the cells of a pool's row, under POOL_TITLES."""
    waiting = UNKNOWN if pool["waiting"] is None else pool["waiting"]
    counts = [pool[name] for name in ("busy", "idle", "booting")]
    name = f"{pool['name']} (broken)" if pool["broken"] else pool["name"]
    return [name, sum(counts), size_of(pool), pool["wanted"], *counts, waiting]


def scalings(pools: Iterable[Report], most: int) -> list[str]:
    """Return the latest scaling decisions with their reasons, the newest first."""
    found = [(each["ago"], pool["name"], each) for pool in pools for each in pool["scalings"]]
    found.sort(key=lambda one: one[:2])
    return [
        f"{brief(ago):>6} ago  {name} {each['before']} to {each['after']}: {each['reason']}"
        for ago, name, each in found[:most]
    ]


def pool_of(pools: Iterable[Report], worker: Report) -> Report | None:
    """Return a worker's pool, or None if a reload has abolished it."""
    return next((pool for pool in pools if pool["index"] == worker["pool"]), None)


def pool_name(pools: Iterable[Report], worker: Report) -> str:
    """Return the name of a worker's pool."""
    pool = pool_of(pools, worker)
    return UNKNOWN if pool is None else str(pool["name"])


def cores(used: float | None) -> str:
    """Return how many cores a worker has used lately."""
    return UNKNOWN if used is None else f"{used:.2f}"


def memory(number: int | None) -> str:
    """Return a worker's own memory."""
    return UNKNOWN if number is None else size(number)

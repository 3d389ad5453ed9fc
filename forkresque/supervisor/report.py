"""What a master says of itself over its control socket, as JSON can carry it."""

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

from forkresque.policy.child import Doing, Facts, Kind
from forkresque.policy.crew import Crew
from forkresque.scoreboard import Phase, Role, Scoreboard, Seat
from forkresque.supervisor.children import Children
from forkresque.supervisor.gauges import Gauges
from forkresque.supervisor.scaling import Scaled, Scaling

_COUNTED = (
    "born",
    "died",
    "killed",
    "recycled",
    "scaled_up",
    "scaled_down",
    "fork_failures",
)
_RESTING = (Doing.IDLE, Doing.CALL)


def of_master(
    board: Scoreboard, crew: Crew, gauges: Gauges, scaling: Scaling, children: Children
) -> dict[str, Any]:
    """Return all that is known without asking anybody."""
    from forkresque import __version__

    now_ns = time.monotonic_ns()
    gauges.look(now_ns / 1e9)
    return {
        "pid": os.getpid(),
        "version": __version__,
        "generation": crew.generation,
        "uptime": (now_ns - board.orders.started_ns) / 1e9,
        "queues": [name for pool in crew.pools if pool.most for name in pool.queues],
        "wanted": crew.target,
        "paused": crew.paused,
        "draining": crew.stopping,
        "ready": is_ready(crew, board),
        "trouble": troubles(crew, board),
        "clerk": of_clerk(board, len(crew.pools)),
        "pools": of_pools(board, crew, children.facts(), list(scaling.history), now_ns / 1e9),
        "workers": of_workers(board, gauges, now_ns),
        "counters": of_counters(crew),
    }


def of_clerk(board: Scoreboard, pools: int) -> dict[str, Any]:
    """Return what the clerk does and knows; `pools` is how many it counts for."""
    books = board.books
    clerk = next(board.taken(Role.CLERK), None)
    return {
        "pid": clerk.pid if clerk else 0,
        "leads": ("follow", "lead", "promote")[books.leads],
        "waiting": sum(depth.waiting for depth in board.depths[:pools]),
        "reached": bool(books.reached_ns),
        "promoted": books.promoted,
        "recovered": books.recovered,
    }


def of_workers(board: Scoreboard, gauges: Gauges, now_ns: int) -> list[dict[str, Any]]:
    """Return what each worker does now."""
    growth = gauges.growth()
    return [
        {
            **_of_seat(seat, now_ns),
            "seat": number,
            "cpu": gauges.cores(number),
            "memory": growth.get(number),
        }
        for number, seat in enumerate(board.seats)
        if seat.pid and seat.role == Role.WORKER
    ]


def of_pools(
    board: Scoreboard,
    crew: Crew,
    facts: Mapping[int, Facts],
    history: Iterable[Scaled],
    now: float,
) -> list[dict[str, Any]]:
    """Return how large each pool is and should be, and why. Abolished ones count until empty."""
    told = []
    for index, pool in enumerate(crew.pools):
        doings = [facts[child.seat].doing for child in crew.staying(index)]
        if not pool.most and not doings:
            continue
        idle, booting = sum(doing in _RESTING for doing in doings), doings.count(Doing.BOOT)
        depth = board.depths[index]
        told.append(
            {
                "index": index,
                "name": pool.name,
                "queues": list(pool.queues),
                "least": pool.least,
                "most": pool.most,
                "wanted": pool.target,
                "busy": len(doings) - idle - booting,
                "idle": idle,
                "booting": booting,
                "waiting": depth.waiting if depth.seen_ns and board.books.reached_ns else None,
                "broken": pool.births.broken,
                "scalings": [_of_scaling(one, now) for one in history if one.pool is pool],
            }
        )
    return told


def of_counters(crew: Crew) -> dict[str, int]:
    """Return what has been counted since the start, of all generations."""
    return {name: crew.counts[name] for name in _COUNTED}


def troubles(crew: Crew, board: Scoreboard) -> list[str]:
    """Return what keeps this master from doing its work, in words."""
    found = [
        f"workers of pool {pool.name} do not boot: {pool.births.failures} in a row"
        for pool in crew.pools
        if pool.births.broken
    ]
    if not board.books.reached_ns:
        found.append("the clerk does not reach Redis")
    if board.books.refusals:
        found.append("Redis refuses what the clerk asks; its log has the reason")
    if not any(child.ready for child in crew.of(Kind.CLERK)):
        found.append("there is no clerk")
    return found


def has_enough(crew: Crew) -> bool:
    """Return whether every pool has as many workers as it needs at least."""
    return all(crew.ready(index) >= pool.least for index, pool in enumerate(crew.pools))


def is_ready(crew: Crew, board: Scoreboard) -> bool:
    """Return whether every pool has as many workers as it needs, and Redis can be reached."""
    return has_enough(crew) and not crew.stopping and not troubles(crew, board)


def _of_seat(seat: Seat, now_ns: int) -> dict[str, Any]:
    since = seat.job_started_ns
    return {
        "pid": seat.pid,
        "pool": seat.pool,
        "phase": "held" if seat.held and seat.phase is Phase.IDLE else seat.phase.name.lower(),
        "job": seat.title if since else "",
        "job_seconds": (now_ns - since) / 1e9 if since else 0.0,
        "done": seat.done,
        "failed": seat.failed,
        "busy_seconds": (seat.busy_ns + (now_ns - since if since else 0)) / 1e9,
        "age": (now_ns - seat.taken_ns) / 1e9,
        "generation": seat.generation,
    }


def _of_scaling(scaled: Scaled, now: float) -> dict[str, Any]:
    return {
        "ago": now - scaled.at,
        "before": scaled.before,
        "after": scaled.after,
        "reason": scaled.reason,
    }


def title(crew: Crew) -> str:
    """Return the title of the master's process."""
    state = "draining" if crew.stopping else "paused" if crew.paused else ""
    queues = " ".join(pool.name for pool in crew.pools if pool.most)
    return f"master {queues} {len(crew.of(Kind.WORKER))} workers {state}".rstrip()

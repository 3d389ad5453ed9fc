"""Ourselves, and the bare loops that tell what the machine allows. They share our environment."""

import sys
from collections.abc import Callable
from dataclasses import replace

from bench.harness import machine
from bench.harness.contestant import Command, Contestant, Group

_KINDS = [sys.executable, "-m", "bench.peers.kinds"]
_PRODUCE = [sys.executable, "-m", "bench.peers.forkresque_jobs"]


def _pool(app: str) -> Callable[[int], list[Command]]:
    pool = [sys.executable, "-m", "forkresque", "start", "-A", app, "-q", "bench"]
    return lambda workers: [[*pool, "-c", str(workers), "--log-level", "error"]]


def _limit(mode: str) -> Contestant:
    told = {
        "bare": "prefork, one pop-and-record script call a job, no safety",
        "full": "the same, with a timeout armed and a log line a job",
    }
    return Contestant(
        name="limit" if mode == "bare" else f"limit-{mode}",
        group=Group.LIMIT,
        setting=told[mode],
        start=lambda workers: [
            [sys.executable, "-m", "bench.peers.limit_loop", str(workers), mode]
        ],
        produce=_PRODUCE,
        kinds=_KINDS,
        pace=14_000 if mode == "bare" else 10_000,
        bulk=True,
        versions=machine.versions,
    )


OURS = (
    Contestant(
        name="forkresque",
        group=Group.OURS,
        setting="defaults, log level error",
        start=_pool("bench.peers.forkresque_jobs"),
        produce=_PRODUCE,
        kinds=_KINDS,
        pace=9_000,
        bulk=True,
        versions=machine.versions,
    ),
)
ALONE = replace(
    OURS[0], start=_pool("bench.peers.alone_jobs")
)  # for questions that only we are asked
CLASSIC = Contestant(
    name="classic",
    group=Group.LIMIT,
    setting="forkresque's worker and master around a plain pop-and-record, no slot, no token",
    start=_pool("bench.peers.classic_jobs"),
    produce=_PRODUCE,
    kinds=_KINDS,
    pace=9_000,
    bulk=True,
    versions=machine.versions,
)
LIMITS = (_limit("bare"), _limit("full"), CLASSIC)

"""Whether the death of a worker is its job's fault, and what that means for the job."""

from enum import StrEnum
from typing import NamedTuple

CRASH_LIMIT = 3  # deaths with one payload in 72 h, then the failed list
HOST_LIMIT = 10  # the same for deaths of whole hosts, which a job rarely causes


class Blame(StrEnum):
    """What a worker died of, as far as its job is concerned."""

    NOBODY = "nobody"  # it was drained, or killed before its job began
    JOB = "job"  # it died while the job ran
    HOST = "host"  # its master is gone as well, which is rarely a job's doing
    LIMIT = "limit"  # it was killed because the job was stuck or over its time limit


class Sentence(NamedTuple):
    """What becomes of the job: `counted` deaths condemn it at `limit`; `fail` does at once."""

    counted: bool
    limit: int
    fail: bool


def sentence(blame: Blame, *, once: bool) -> Sentence:
    """Return what becomes of a job; `once` is for one that has begun and must not run again."""
    match blame:
        case Blame.NOBODY:
            return Sentence(counted=False, limit=CRASH_LIMIT, fail=once)
        case Blame.JOB:
            return Sentence(counted=True, limit=CRASH_LIMIT, fail=once)
        case Blame.HOST:
            return Sentence(counted=True, limit=HOST_LIMIT, fail=once)
        case Blame.LIMIT:
            return Sentence(counted=False, limit=CRASH_LIMIT, fail=True)


_LOOK_AGAIN = 0.5  # seconds between looks at other masters, with orphans about


def is_host_lost(*, misses: int, reached_for: float, lease: float) -> bool:
    """Return whether another host may be judged dead by its lease alone.

    It takes two looks, and a clerk that has itself reached Redis without a gap for one lease:
    after a failover or a long silence every lease is gone, also those of the living.
    """
    return misses >= 2 and reached_for >= lease


def look_pause(*, missing: bool, orphans: bool, renewal: float) -> float:
    """Return the seconds until the next look at other masters, whose leases last six `renewal`s.

    After a lease was `missing` more than one renewal: a living host whose lease somebody has
    deleted has it back by then. Before that as much less, so that two looks take two renewals.
    With `orphans` of a dead master about, of whom each may end at any moment, at once.
    """
    if missing:
        return 1.1 * renewal
    return _LOOK_AGAIN if orphans else 0.9 * renewal

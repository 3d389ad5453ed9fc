"""Locks that do not belong to one claim: that of a job that waits, and all at their renewal.

The lock of a job that waits is held by no worker: whoever begins such a job frees it. That of a
job in hand belongs to its claim, see claims.py; here it is renewed while the job goes on.
"""

import math
from collections.abc import Sequence

from forkresque.errors import BadKey
from forkresque.protocol.connection import Caller
from forkresque.protocol.keys import Keys
from forkresque.protocol.script import load


def take_lock(caller: Caller, lock: bytes, value: bytes, seconds: int) -> bool:
    """Take the lock of a job that waits; False when it is taken. See lua/queue_lock.lua."""
    return _asked(caller, lock, value, seconds, take="1")


def keep_lock(caller: Caller, lock: bytes, value: bytes, seconds: int) -> bool:
    """Have the lock last `seconds` from now on, 0 to free it; False when it is not ours."""
    return _asked(caller, lock, value, seconds, take="")


def renew_locks(caller: Caller, keys: Keys, workers: Sequence[str], term: float) -> int:
    """Have the locks of these workers' jobs last `term` seconds more; return how many do.

    A lock that has run out or is in other hands is left alone. See lua/keep_locks.lua.
    """
    return sum(_renewed(caller, keys.locks(worker), math.ceil(term)) for worker in workers)


def _renewed(caller: Caller, locks: bytes, seconds: int) -> int:
    try:
        held = caller.command("HKEYS", locks)
    except BadKey:
        return 0  # what no worker has written holds no locks
    if not held:
        return 0
    call = load("keep_locks").pack(locks=locks, lock=list(held), seconds=seconds)
    return int(caller.call(call))


def _asked(caller: Caller, lock: bytes, value: bytes, seconds: int, *, take: str) -> bool:
    call = load("queue_lock").pack(lock=lock, value=value, seconds=seconds, take=take)
    return bool(caller.call(call))

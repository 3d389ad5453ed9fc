"""The lock of a job that waits, which no worker holds: whoever begins such a job frees it.

The lock of a job in hand belongs to its claim; see claims.py.
"""

from forkresque.protocol.connection import Caller
from forkresque.protocol.script import load


def take_lock(caller: Caller, lock: bytes, value: bytes, seconds: int) -> bool:
    """Take the lock of a job that waits; False when it is taken. See lua/queue_lock.lua."""
    return _asked(caller, lock, value, seconds, take="1")


def keep_lock(caller: Caller, lock: bytes, value: bytes, seconds: int) -> bool:
    """Have the lock last `seconds` from now on, 0 to free it; False when it is not ours."""
    return _asked(caller, lock, value, seconds, take="")


def _asked(caller: Caller, lock: bytes, value: bytes, seconds: int, *, take: str) -> bool:
    call = load("queue_lock").pack(lock=lock, value=value, seconds=seconds, take=take)
    return bool(caller.call(call))

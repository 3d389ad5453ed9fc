"""Locks that do not belong to one claim: that of a job that waits, and all at their renewal.

The lock of a job that waits is held by no worker: whoever begins or deletes such a job frees it.
That of a job in hand belongs to its claim, see claims.py; here it is renewed while the job goes on.
Clients see and delete locks of both kinds here.
"""

import math
from collections.abc import Iterator, Sequence

from forkresque.errors import BadKey
from forkresque.protocol.connection import Caller, Client
from forkresque.protocol.keys import Keys, to_text
from forkresque.protocol.script import load


def take_lock(caller: Caller, keys: Keys, lock: bytes, value: bytes, seconds: int) -> bool:
    """Take the lock of a job that waits; False when it is taken. See lua/queue_lock.lua."""
    return _asked(caller, keys, lock, value, seconds, take="1")


def keep_lock(caller: Caller, keys: Keys, lock: bytes, value: bytes, seconds: int) -> bool:
    """Have the lock last `seconds` from now on, 0 to free it; False when it is not ours."""
    return _asked(caller, keys, lock, value, seconds, take="")


def free_lock(
    caller: Caller, lock: bytes, queue: bytes, spellings: Sequence[bytes], *, brief: int
) -> bool:
    """Free a deleted job's lock if no equal job waits; not one that ends within `brief` seconds.

    See lua/free_lock.lua.
    """
    call = load("free_lock").pack(lock=lock, queue=queue, brief=brief, spelling=spellings)
    return bool(caller.call(call))


def all_locks(client: Client, keys: Keys, *, page: int) -> dict[str, str | None]:
    """Return every lock by its name without the namespace, with what it says, sorted.

    None for one that has ended meanwhile or is of another type. Costs a look at all keys of Redis,
    `page` of them a step.
    """
    found = sorted(
        {key for family in keys.lock_families() for key in scan(client, keys, family, page)}
    )
    values: list[object] = []
    for at in range(0, len(found), page):
        values += client.attempts(*(("GET", key) for key in found[at : at + page]))
    return {
        keys.name_of(key): to_text(value) if isinstance(value, bytes) else None
        for key, value in zip(found, values, strict=True)
    }


def delete_lock(client: Client, lock: bytes) -> int:
    """Delete a lock, whoever holds it; return how many there were, 0 or 1."""
    return int(client.command("DEL", lock))


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


def scan(client: Client, keys: Keys, pattern: bytes, page: int) -> Iterator[bytes]:
    """Yield the keys that match, some perhaps twice. Looks at all keys, `page` of them a step.

    SCAN names no key, so a node of a Cluster that was the owner of ours would answer it still:
    asked for a key beside it, that node says where the owner is.
    """
    cursor: bytes | int = 0
    while True:
        look = ("SCAN", cursor, "MATCH", pattern, "COUNT", page)
        _, (cursor, found) = client.commands(("EXISTS", keys.queues()), look)
        yield from found
        if not int(cursor):
            return


def _asked(
    caller: Caller, keys: Keys, lock: bytes, value: bytes, seconds: int, *, take: str
) -> bool:
    call = load("queue_lock").pack(
        lock=lock, home=keys.queues(), value=value, seconds=seconds, take=take
    )
    return bool(caller.call(call))

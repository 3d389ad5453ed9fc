"""Post: who a worker is to Redis and to its master."""

import os
import secrets
from collections.abc import Sequence
from typing import NamedTuple

from forkresque import processes
from forkresque.policy import queues as patterns
from forkresque.protocol.claims import WorkerId
from forkresque.protocol.ownership import Lease, Owner


class Post(NamedTuple):
    """Who a worker is: its id, the process that carries it, and its master's lease."""

    worker: WorkerId
    owner: Owner
    lease: Lease
    nonce: str

    @classmethod
    def alone(cls, queues: Sequence[str], *, host: str = "") -> "Post":
        """Return the post of a worker that is its own master, in this process."""
        pid, nonce = os.getpid(), secrets.token_hex(8)
        label = processes.host_label(host)
        master = f"{label}:{pid}:{nonce}"
        return cls(
            WorkerId(label, pid, patterns.shown(queues)),
            Owner(master, pid, processes.start_of(pid) or 0),
            Lease(master, processes.describe(pid)),
            nonce,
        )

"""Who a master is in Redis, and who its workers are."""

import os
import secrets
from collections.abc import Sequence
from typing import NamedTuple

from forkresque import processes
from forkresque.options import SupervisorOptions
from forkresque.policy.queues import shown
from forkresque.post import Post
from forkresque.protocol.claims import WorkerId
from forkresque.protocol.ownership import Lease, Owner


class Identity(NamedTuple):
    """A master. Its nonce begins all tokens of its workers."""

    host: str
    nonce: str
    lease: Lease
    pools: tuple[tuple[str, ...], ...]

    @classmethod
    def of_this_process(
        cls, options: SupervisorOptions, pools: Sequence[Sequence[str]], *, nonce: str = ""
    ) -> "Identity":
        """Return an identity for this process, a new one unless there was a `nonce` before.

        `pools` are the queues of each pool of workers.
        """
        host, pid = processes.host_label(options.host_label), os.getpid()
        nonce = nonce or secrets.token_hex(8)
        lease = Lease(f"{host}:{pid}:{nonce}", processes.describe(pid), options.lease)
        return cls(host, nonce, lease, tuple(map(tuple, pools)))

    def worker(self, pid: int, pool: int) -> WorkerId:
        """Return the id of the worker with this pid, of a pool by its number."""
        return WorkerId(self.host, pid, shown(self.pools[pool]))

    def post(self, pid: int, start: int, pool: int) -> Post:
        """Return all that a worker is; `start` is in clock ticks since boot."""
        owner = Owner(self.lease.master, pid, start)
        return Post(self.worker(pid, pool), owner, self.lease, self.nonce)

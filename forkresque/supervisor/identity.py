"""Who a master is in Redis, and who its workers are."""

import os
import secrets
from dataclasses import dataclass

from forkresque import processes
from forkresque.options import SupervisorOptions
from forkresque.policy.queues import shown
from forkresque.protocol.claims import WorkerId
from forkresque.protocol.registry import Lease, Owner
from forkresque.worker import Post, host_label


@dataclass(frozen=True, slots=True)
class Identity:
    """A master. Its nonce begins all tokens of its workers."""

    host: str
    queues: tuple[str, ...]
    nonce: str
    lease: Lease

    @classmethod
    def of_this_process(cls, options: SupervisorOptions) -> "Identity":
        """Return a new identity for this process."""
        host, nonce, pid = host_label(options.host_label), secrets.token_hex(8), os.getpid()
        lease = Lease(f"{host}:{pid}:{nonce}", processes.describe(pid), options.lease)
        return cls(host, shown(options.queues), nonce, lease)

    def worker(self, pid: int) -> WorkerId:
        """Return the id of the worker with this pid."""
        return WorkerId(self.host, pid, self.queues)

    def post(self, pid: int, start: int) -> Post:
        """Return all that a worker is; `start` is in clock ticks since boot."""
        owner = Owner(self.lease.master, pid, start)
        return Post(self.worker(pid), owner, self.lease, self.nonce)

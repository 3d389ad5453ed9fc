"""Whose a worker id and a job are: what leases, owners and slots say, and how it is written."""

from typing import NamedTuple

from forkresque import processes
from forkresque.errors import BadKey
from forkresque.protocol.keys import to_text

LEASE = 30.0  # seconds a master's right to its workers' jobs lasts without being renewed


class Lease(NamedTuple):
    """A master's id, the value that says which process it is, and its term in seconds."""

    master: str
    value: str
    term: float = LEASE

    @property
    def renewal(self) -> float:
        """Return the seconds between two renewals."""
        return min(5.0, self.term / 6)


class Owner(NamedTuple):
    """Which process carries a worker id: its master, its pid and the start of the process."""

    master: str
    pid: int
    start: int

    def __str__(self) -> str:
        return f"{self.master} {self.pid} {self.start}"

    @classmethod
    def parse(cls, text: str) -> "Owner":
        """Return the owner that `str` gave. Raises ValueError for any other text."""
        master, pid, start = text.rsplit(" ", 2)
        owner = cls(master, int(pid), int(start))
        if str(owner) != text:
            raise ValueError(f"{text!r} names no owner")
        return owner


class Held(NamedTuple):
    """What a worker's slot and owner key held when somebody looked; `token` is "" for no job.

    `locks` are the keys of its job locks. `foreign` says that a foreign tool has put this very
    job into the failed list when it removed the worker.
    """

    worker: str
    owner: str
    token: str
    queue: str
    raw: bytes
    locks: tuple[bytes, ...] = ()
    foreign: bool = False


def slot_parts(slot: bytes) -> tuple[str, str, bytes]:
    """Return token, queue and job of a slot."""
    try:
        token, size, rest = slot.split(b"\n", 2)
        split = int(size)
        if b"%d" % split != size or split > len(rest):
            raise ValueError(size)  # noqa: TRY301 - one error for all that is no slot
        return token.decode("ascii"), to_text(rest[:split]), rest[split:]
    except ValueError as error:
        raise BadKey("a worker's slot holds what no worker has written") from error


def name_of(worker: str) -> str:
    """Return the `host:pid` of a worker id; of one of two parts, `name:queues`, the first.

    Source: node-resque, whose workers may have any name.
    """
    parts = worker.split(":", 2)
    return ":".join(parts[:2]) if parts[2:] else parts[0]


def master_of(owner: str) -> str:
    """Return the master in the text of an owner."""
    return owner.rsplit(" ", 2)[0]


def carrier_lives(owner: str) -> bool:
    """Return whether the process that an owner names is alive on this host."""
    try:
        known = Owner.parse(owner)
    except ValueError:
        return False
    return processes.is_alive(known.pid, known.start)

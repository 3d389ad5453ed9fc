"""A child as decisions see it: what is known of it, what may be wrong, what can be done."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What a child is for."""

    CLERK = "clerk"
    WORKER = "worker"
    WATCHER = "watcher"  # looks at files, in development


class Fault(StrEnum):
    """Why a child is killed or was, in words for the log and the failure record."""

    NONE = ""
    BOOT = "it did not boot in time"
    SILENT = "it gave no sign of life"
    STUCK = "its job gave no sign of life"
    OVERDUE = "its job went on after its time limit"
    TOO_LARGE = "its own memory grew beyond twice --max-memory"
    CROWDED = "memory was nearly used up here, and it had taken the most"
    OOM = "the kernel ran out of memory and chose it"
    CUT = "the time to finish was over"
    CUT_OFF = "this host is cut off from Redis, and others may start its job"
    BOOKS = "it did not finish its books in time"
    DEAF = "it did not leave when it was asked to"
    ORDERED = "an operator had it killed"


class Doing(StrEnum):
    """What a child does, as far as it matters here."""

    BOOT = "boot"
    IDLE = "idle"  # waits for its turn
    CALL = "call"  # on call, or claiming
    RUN = "run"
    SETTLE = "settle"
    LEAVE = "leave"


class Facts(NamedTuple):
    """What the scoreboard says of a child: ages in seconds, limits in seconds from now.

    `jobs` is how many it has carried out; `grown` is by how many bytes its own memory had grown
    after the last of them, and `grows` by how many it has now. `last` says that it has a job in
    hand after which it leaves by itself, `gone` that it has done so, but for its exit.
    """

    doing: Doing
    silent: float
    epoch: int = 0
    soft_in: float = math.inf
    hard_in: float = math.inf
    jobs: int = 0
    grown: int = 0
    grows: int = 0
    last: bool = False
    gone: bool = False


@dataclass(slots=True)
class Child:
    """One child, from fork to reaping.

    One that `replaces` another is held: it does not claim before there is a place for it, and at
    first the other has that. `max_jobs` and `max_age` are its own, so that those born together do
    not all go together.
    """

    seat: int
    kind: Kind
    born_at: float
    pool: int = 0
    generation: int = 1
    replaces: int | None = None
    held: bool = False
    max_jobs: float = math.inf
    max_age: float = math.inf
    ready: bool = False
    at_work: bool = False  # it came to wait for work after it was ready
    dismissed: bool = False
    interrupted: int = 0  # epoch of the last job that was interrupted
    reported: int = -1  # epoch of the last job whose silence was reported
    cut: bool = False  # its job was not left to finish
    fault: Fault = Fault.NONE
    rouse_at: float = math.inf
    kill_at: float = math.inf
    killed: bool = False

    @property
    def stays(self) -> bool:
        """Return whether it was not asked to leave."""
        return not self.dismissed


@dataclass(frozen=True, slots=True)
class Spawn:
    """Fork a child into `seat`; one that replaces another does not claim before its Release."""

    seat: int
    kind: Kind
    pool: int = 0
    replaces: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Dismiss:
    """Ask a child to finish its job in hand and leave."""

    seat: int


@dataclass(frozen=True, slots=True)
class Release:
    """Let a child work that was held until now."""

    seat: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Raise an exception in job number `epoch`: it is over its limit, or has to be cut."""

    seat: int
    epoch: int
    overdue: bool


@dataclass(frozen=True, slots=True)
class Dump:
    """Have a child write down its stacks. It will be killed for `fault`, if there is one."""

    seat: int
    fault: Fault


@dataclass(frozen=True, slots=True)
class Rouse:
    """Ask a frozen child once more to leave, also if it was stopped."""

    seat: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End a child and all that its job started."""

    seat: int
    fault: Fault


@dataclass(frozen=True, slots=True)
class Baton:
    """Give the idle workers of a pool one more turn."""

    pool: int = 0


Action = Spawn | Dismiss | Release | Interrupt | Dump | Rouse | Kill | Baton

"""What master and children say to each other, over one socket pair for each child.

One packet, one message, as JSON. A message that cannot be sent now is not waited for: whoever
sends it says it again when it still holds.
"""

import contextlib
import json
import socket
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

from forkresque.policy.child import Fault

_LARGEST = 192 * 1024  # bytes; a stack dump of 32 KiB as JSON, at its worst


@dataclass(frozen=True, slots=True)
class Ready:
    """From a child: it has booted."""


@dataclass(frozen=True, slots=True)
class Due:
    """From a worker: it will soon have carried out as many jobs as it may."""


@dataclass(frozen=True, slots=True)
class Wake:
    """From the master: the orders on the scoreboard have changed."""


@dataclass(frozen=True, slots=True)
class Leave:
    """From the master to the clerk: put the books in order and leave."""


class Interrupted(NamedTuple):
    """From the master: job number `epoch` is over its limit, or has to be cut."""

    epoch: int
    overdue: bool


class Died(NamedTuple):
    """From the master to the clerk: a worker is gone, and its job is to be brought back.

    `signum` is 0 for a worker that exited, with `status`. `working` says that a job had begun,
    and `claim` which one: the number at the end of its token.
    """

    worker: str
    owner: str
    pid: int
    signum: int
    status: int
    working: bool
    claim: int
    cut: bool
    fault: str
    job: str
    dump: tuple[str, ...] = ()

    @property
    def blamed(self) -> Fault:
        """Return why the master killed it, if it did."""
        return Fault(self.fault)


class Settled(NamedTuple):
    """From the clerk: this death is settled in Redis."""

    worker: str
    owner: str


class BatonWanted(NamedTuple):
    """From the clerk: jobs stand although somebody of this pool is idle."""

    pool: int


@dataclass(frozen=True, slots=True)
class Redialled:
    """From the clerk: connections to Redis should be made anew, also those of who sleeps."""


class Changed(NamedTuple):
    """From the watcher: a file of the application is another one now."""

    path: str


Message = (
    Ready | Due | Wake | Leave | Interrupted | Died | Settled | BatonWanted | Redialled | Changed
)
_KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in get_args(Message)}


def send(pair: socket.socket, message: Message) -> bool:
    """Send `message`; return False if the other end is gone or does not listen now."""
    fields = {name: getattr(message, name) for name in message.__match_args__}
    packet = json.dumps({"kind": type(message).__name__, **fields}).encode()
    try:
        pair.send(packet)
    except OSError:
        return False
    return True


def receive(pair: socket.socket) -> list[Message]:
    """Return what has come, without waiting. An end that is closed says nothing.

    A packet that is no message is passed over: a job may have written it.
    """
    messages: list[Message] = []
    with contextlib.suppress(OSError):
        while pair.recv(1, socket.MSG_PEEK):  # mostly there is none, and room for it costs a map
            packet = pair.recv(_LARGEST)
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                messages.append(_message(json.loads(packet)))
    return messages


def _message(fields: Any) -> Message:
    if not isinstance(fields, dict):
        raise TypeError(fields)
    if "dump" in fields:
        fields["dump"] = tuple(fields["dump"])
    return _KINDS[fields.pop("kind")](**fields)

"""What the master tells its service manager, as datagrams to the socket in NOTIFY_SOCKET.

What is said is decided in policy/notices.py. This is the post: without a socket it does
nothing, it never waits and never raises. Every message has a socket of its own, so there is no
descriptor to look after at a fork or an `execve`.
"""

import contextlib
import logging
import math
import os
import socket
from collections.abc import Mapping, MutableMapping, Sequence

from forkresque.policy.notices import Facts, Notices, extension

log = logging.getLogger("forkresque.notify")

RETRY = 1.0  # seconds until the next try when a message did not get through
_LONGEST_PATH = 107  # bytes; the address of a Unix socket holds 108, one of them a zero
_OURS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """The master's voice. `next_at` is when `tell` must be called again at the latest."""

    def __init__(self, address: str, notices: Notices) -> None:
        self._address = address
        self._notices = notices
        self._deaf_until = -math.inf
        self.next_at = math.inf

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str], pid: int, *, reloaded: bool = False
    ) -> "Notifier":
        """Return the voice of the process `pid`, which may well have nobody to talk to.

        `reloaded` says that an earlier image of this process was ready and has announced the
        reload that brought this one.
        """
        notices = Notices(pid, watchdog=_watchdog(environ, pid), reloaded=reloaded)
        return cls(_address(environ.get("NOTIFY_SOCKET", "")), notices)

    @property
    def is_heard(self) -> bool:
        """Return whether there is a service manager that listens, as far as we were told."""
        return bool(self._address)

    @property
    def has_announced(self) -> bool:
        """Return whether we were ready once, as far as the manager was told."""
        return self._notices.ready

    def tell(self, now: float, facts: Facts) -> None:
        """Say what is due; called once in every pass of the master's loop."""
        if not self._address:
            return
        if now < self._deaf_until:
            self.next_at = self._deaf_until
            return
        lines = self._notices.due(now, facts)
        if lines and not self._send(lines):
            self.next_at = self._deaf_until = now + RETRY
            return
        self._notices.said(now, facts)
        self.next_at = self._notices.next_at(now, facts)

    def ask_for_time(self, seconds: float) -> None:
        """Have the manager wait, and its watchdog, while the loop cannot run: before an import.

        A WATCHDOG=1 in the same message would shorten the watchdog's wait again.
        """
        if self._address:
            self._send([extension(seconds)])

    def _send(self, lines: Sequence[str]) -> bool:
        """Return whether the message is with the manager now."""
        with contextlib.suppress(OSError):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as post:
                post.setblocking(False)
                post.sendto("\n".join(lines).encode(), self._address)
            return True
        log.debug("the service manager does not listen at %r", self._address)
        return False


def forget_manager(environ: MutableMapping[str, str]) -> None:
    """Remove what would let a job speak for the master; for a new child."""
    for name in _OURS:
        environ.pop(name, None)


def _address(configured: str) -> str:
    """Return the address of the manager's socket, or nothing if there is none that we can use."""
    if not configured:
        return ""
    if configured[0] not in "/@" or not 1 < len(os.fsencode(configured)) <= _LONGEST_PATH:
        log.warning("NOTIFY_SOCKET=%r is no socket that can be told anything", configured)
        return ""
    return "\0" + configured[1:] if configured[0] == "@" else configured


def _watchdog(environ: Mapping[str, str], pid: int) -> float:
    """Return the manager's patience in seconds, or infinity if it does not watch this process."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return math.inf
    text = environ.get("WATCHDOG_USEC", "")
    patience = int(text) / 1e6 if text.isdecimal() and text.isascii() else 0.0
    return patience or math.inf

"""A TCP proxy that loses exactly what a test wants lost, and says so.

It stands between a client and a real server. It knows no Redis: a rule names bytes of a
request, such as a command or a script's SHA-1.
"""

import contextlib
import random
import select
import socket
import struct
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.servers import HOST

CHUNK_BYTES = 65_536
JOIN_TIMEOUT = 5.0
SAID_BYTES = 1000  # of what a client says first, which tells who it is
HELD_LOOK = 0.02  # seconds between two looks at whether a hole has healed


@dataclass
class Rule:
    """One fault: what a request must contain, how often it is still due, how often it fired."""

    after: bytes
    left: int
    is_executed: bool
    fired: int = 0
    reply: bytes = b""  # what the proxy itself says instead of forwarding the request
    upto: int | None = None  # how many bytes of the reply pass before a reset
    size: int = 0  # of the reply that was cut


@dataclass(frozen=True)
class Pace:
    """How slow a line is: seconds for each piece, that many more by chance, bytes a second."""

    latency: float = 0.0
    jitter: float = 0.0
    bandwidth: float = float("inf")

    def seconds(self, size: int, chance: random.Random) -> float:
        return self.latency + self.jitter * chance.random() + size / self.bandwidth


class Proxy:
    """Forwards a loopback port to `target`, a `(host, port)` or the path of a Unix socket."""

    WHOLE: Callable[[], int] = staticmethod(lambda: sys.maxsize)

    def __init__(self, target: tuple[str, int] | Path) -> None:
        self.target = target
        self.connections = 0  # as many as were ever accepted
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self.resets = 0  # connections that were reset within a reply or after it
        self.slowed = 0.0  # seconds for which pieces were held back
        self.pace = Pace()
        # How many bytes of replies a new connection lets pass before it is reset.
        self.reply_bytes = Proxy.WHOLE
        self._chance = random.Random(0)
        self._requests, self._replies = threading.Event(), threading.Event()  # set while they pass
        self._requests.set()
        self._replies.set()
        self._muted_word = b""
        self._closing = threading.Event()
        self._threads: set[threading.Thread] = set()
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._acceptor.start()

    @property
    def url(self) -> str:
        """The URL for clients, without a database."""
        return f"redis://{HOST}:{self.port}"

    @property
    def fired(self) -> int:
        """How many replies and requests were dropped."""
        with self._lock:
            return sum(rule.fired for rule in self._rules)

    def drop_reply(self, after: bytes, times: int = 1) -> Rule:
        """Swallow the reply to a request that contains `after`, and close: it WAS executed.

        The reply is whatever the server says next, so this is for clients that wait for
        each reply, not for subscribers.
        """
        return self._add(Rule(after, times, is_executed=True))

    def drop_request(self, after: bytes, times: int = 1) -> Rule:
        """Close when a request contains `after`, before it is forwarded: it was NOT executed."""
        return self._add(Rule(after, times, is_executed=False))

    def answer(self, after: bytes, reply: bytes, times: int = 1) -> Rule:
        """Say `reply` to a request that contains `after`, and keep it: it was NOT executed."""
        return self._add(Rule(after, times, is_executed=False, reply=reply))

    def cut_reply(self, after: bytes, upto: int, times: int = 1) -> Rule:
        """Reset when so many bytes of the reply to such a request have passed; see `drop_reply`."""
        rule = self.drop_reply(after, times)
        rule.upto = upto
        return rule

    def blackhole(self) -> None:
        """Accept connections and bytes, and forward nothing either way."""
        self._requests.clear()
        self.mute()

    def mute(self, *, word: bytes = b"") -> None:
        """Forward requests, but no reply: a black hole in one direction.

        With `word` only for those who have ever said it, as replicas say PSYNC.
        """
        self._muted_word = word
        self._replies.clear()

    def heal(self) -> None:
        """Forward again. What was held arrives late, as on a real network."""
        self._requests.set()
        self._replies.set()

    def cut(self) -> None:
        """Close every connection now; new ones are welcome."""
        with self._lock:
            for end in self._sockets:
                _shut(end)

    def close(self) -> None:
        """Close every connection and wait for every thread. Closing again does nothing."""
        self._closing.set()
        self.heal()
        _shut(self._listener)  # wakes the acceptor, which closing would not
        self._acceptor.join(JOIN_TIMEOUT)
        self._listener.close()
        self.cut()
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(JOIN_TIMEOUT)
        stuck = [thread.name for thread in (self._acceptor, *threads) if thread.is_alive()]
        assert not stuck, f"proxy threads that do not end: {stuck}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _add(self, rule: Rule) -> Rule:
        with self._lock:
            self._rules.append(rule)
        return rule

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            with self._lock:
                self.connections += 1
                self._sockets.add(client)
                thread.start()
                self._threads = {one for one in self._threads if one.is_alive()} | {thread}

    def _serve(self, client: socket.socket) -> None:
        with client, self._new_socket() as server:
            with contextlib.suppress(OSError):  # one end is gone: leaving closes the other
                self._requests.wait()
                server.connect(self.target if isinstance(self.target, tuple) else str(self.target))
                self._pump(client, server)
            with self._lock:
                self._sockets -= {client, server}

    def _new_socket(self) -> socket.socket:
        family = socket.AF_INET if isinstance(self.target, tuple) else socket.AF_UNIX
        server = socket.socket(family)
        with self._lock:
            self._sockets.add(server)
        return server

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        request = b""  # what the client sent since the last reply: a mark may come in two chunks
        armed: Rule | None = None
        left = self.reply_bytes()
        said = b""  # the first of all that the client said
        while ready := self._ready(client, server, said):
            if server in ready:
                reply = server.recv(CHUNK_BYTES)
                if not reply or (armed and self._fire(armed, reply, client)):
                    return
                self._forward(reply[:left], client)
                left -= len(reply)
                if left <= 0:
                    self._reset(client)
                    return
                request = b""
            if client in ready:
                chunk = client.recv(CHUNK_BYTES)
                request += chunk
                said = (said + chunk)[:SAID_BYTES]
                armed = armed or self._match(request)
                if chunk and armed and armed.reply and self._fire(armed):
                    client.sendall(armed.reply)
                    request, armed = b"", None
                    continue
                if not chunk or (armed and not armed.is_executed and self._fire(armed)):
                    return
                self._forward(chunk, server)

    def _ready(
        self, client: socket.socket, server: socket.socket, said: bytes
    ) -> list[socket.socket]:
        """Wait for an end that has said what may pass; none once the proxy closes."""
        while not self._closing.is_set():
            open_ends = self._open_ends(client, server, said)
            patience = None if len(open_ends) == 2 else HELD_LOOK
            ready, _, _ = select.select(open_ends, [], [], patience)
            if may_pass := [end for end in ready if end in self._open_ends(client, server, said)]:
                return may_pass
        return []

    def _open_ends(
        self, client: socket.socket, server: socket.socket, said: bytes
    ) -> list[socket.socket]:
        replies = self._replies.is_set() or self._muted_word not in said
        ends = ((client, self._requests.is_set()), (server, replies))
        return [end for end, passing in ends if passing]

    def _forward(self, data: bytes, end: socket.socket) -> None:
        if pause := self.pace.seconds(len(data), self._chance):
            self._closing.wait(pause)
            with self._lock:
                self.slowed += pause
        end.sendall(data)

    def _reset(self, client: socket.socket) -> None:
        """Have the client's next read fail, once it has read what was sent."""
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with self._lock:
            self.resets += 1

    def _match(self, request: bytes) -> Rule | None:
        with self._lock:
            for rule in self._rules:
                if rule.left and rule.after in request:
                    rule.left -= 1
                    return rule
        return None

    def _fire(self, rule: Rule, reply: bytes = b"", client: socket.socket | None = None) -> bool:
        with self._lock:
            rule.fired += 1
            rule.size = len(reply)
        if rule.upto is not None and client is not None:
            client.sendall(reply[: rule.upto])
            self._reset(client)
        return True


def _shut(end: socket.socket) -> None:
    """End both directions, which wakes whoever waits on it, even where it is closed already."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)

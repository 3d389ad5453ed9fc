"""A TCP proxy that loses exactly what a test wants lost, and says so.

It stands between a client and a real server. It knows no Redis: a rule names bytes of a
request, such as a command or a script's SHA-1.
"""

import contextlib
import select
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.servers import HOST

CHUNK_BYTES = 65_536
JOIN_TIMEOUT = 5.0


@dataclass
class Rule:
    """One fault: what a request must contain, how often it is still due, how often it fired."""

    after: bytes
    left: int
    is_executed: bool
    fired: int = 0
    reply: bytes = b""  # what the proxy itself says instead of forwarding the request


class Proxy:
    """Forwards a loopback port to `target`, a `(host, port)` or the path of a Unix socket."""

    def __init__(self, target: tuple[str, int] | Path) -> None:
        self.target = target
        self.connections = 0  # as many as were ever accepted
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._clear = threading.Event()  # not set while a black hole
        self._clear.set()
        self._closing = False
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

    def blackhole(self) -> None:
        """Accept connections and bytes, and forward nothing either way."""
        self._clear.clear()

    def heal(self) -> None:
        """Forward again. What was held arrives late, as on a real network."""
        self._clear.set()

    def cut(self) -> None:
        """Close every connection now; new ones are welcome."""
        with self._lock:
            for end in self._sockets:
                _shut(end)

    def close(self) -> None:
        """Close every connection and wait for every thread. Closing again does nothing."""
        self._closing = True
        self._clear.set()
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
                self._clear.wait()
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
        while True:
            ready, _, _ = select.select([client, server], [], [])
            self._clear.wait()
            if self._closing:
                return
            if server in ready:
                reply = server.recv(CHUNK_BYTES)
                if not reply or (armed and self._fire(armed)):
                    return
                client.sendall(reply)
                request = b""
            if client in ready:
                chunk = client.recv(CHUNK_BYTES)
                request += chunk
                armed = armed or self._match(request)
                if chunk and armed and armed.reply and self._fire(armed):
                    client.sendall(armed.reply)
                    request, armed = b"", None
                    continue
                if not chunk or (armed and not armed.is_executed and self._fire(armed)):
                    return
                server.sendall(chunk)

    def _match(self, request: bytes) -> Rule | None:
        with self._lock:
            for rule in self._rules:
                if rule.left and rule.after in request:
                    rule.left -= 1
                    return rule
        return None

    def _fire(self, rule: Rule) -> bool:
        with self._lock:
            rule.fired += 1
        return True


def _shut(end: socket.socket) -> None:
    """End both directions, which wakes whoever waits on it, even where it is closed already."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)

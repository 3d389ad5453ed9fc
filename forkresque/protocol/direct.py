"""A question and its answer over a connection of redis-py, past the layers that each would take.

Between a worker's two jobs there is one question. redis-py takes a dozen Python calls for it, and
a socket with a timeout of Python's two polls; together a quarter of what the question costs.
"""

import socket
import struct
from functools import lru_cache
from typing import Any

from hiredis import PushNotification
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.connection import AbstractConnection
from redis.exceptions import ResponseError

_PLAIN = frozenset((list, bytes, int, type(None)))  # an answer that is neither error nor push


class Direct(AbstractConnection):
    """What the connection class of a pool is given besides: see `direct`."""

    _sock: Any
    _parser: Any

    def connect(self) -> None:
        """Connect and shake hands, and have the kernel keep the timeout; in TLS Python does."""
        super().connect()  # type: ignore[no-untyped-call]
        timeout = self.socket_timeout
        if timeout is None or hasattr(self._sock, "pending"):
            return
        seconds = int(timeout)
        limit = struct.pack("@ll", seconds, int((timeout - seconds) * 1e6))
        self._sock.settimeout(None)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._sock.setsockopt(socket.SOL_SOCKET, option, limit)

    def exchange(self, packed: bytes) -> Any:
        """Send a packed question over the open connection, and return its answer.

        Raises what redis-py does, and OSErrors as they come: BlockingIOError after the timeout.
        After anything but a ResponseError the connection is closed.
        """
        try:
            sock, parser = self._sock, self._parser
            sock.sendall(packed)
            buffer, reader = parser._buffer, parser._reader  # noqa: SLF001 - there is no public way
            reader.feed(buffer, 0, sock.recv_into(buffer))
            answer = reader.gets()
            return answer if type(answer) in _PLAIN else self._unusual(answer)
        except ResponseError:
            raise
        except BaseException:
            self.disconnect()  # type: ignore[no-untyped-call]
            raise

    def _unusual(self, answer: object) -> Any:
        """Return the answer that follows a push, or of which a part has come; raise an error."""
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, PushNotification):
            self._parser.handle_push_response(answer)
        elif answer is not NOT_ENOUGH_DATA:
            return answer
        return self.read_response()


@lru_cache
def direct(kind: type[AbstractConnection]) -> type[Direct]:
    """Return a class of connections as `kind`, which are asked directly."""
    return type(f"Direct{kind.__name__}", (Direct, kind), {})

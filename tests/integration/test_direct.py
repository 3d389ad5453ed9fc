"""What is asked directly is heard: whole, in parts, behind a push, late, and not at all."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from forkresque.errors import RedisUnavailable
from forkresque.protocol.connection import Client, Link, Target
from forkresque.protocol.script import Call, pack
from tests.support.servers import Server

PING = pack("PING")
HELLO = b"%1\r\n$5\r\nproto\r\n:3\r\n"
PUSH = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"


class Scripted:
    """A server for one client that answers each question after the greeting with given parts.

    A part is sent when the one before it has gone, so each is read for itself or with others.
    None ends the connection.
    """

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self.listener.getsockname()[1]}/0"
        self.asked = b""
        self._client: socket.socket | None = None
        self._greeter = threading.Thread(target=self._greet, daemon=True)
        self._greeter.start()

    def _greet(self) -> None:
        self._client, _ = self.listener.accept()
        self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client.recv(65536)
        self._client.sendall(HELLO)

    @property
    def client(self) -> socket.socket:
        self._greeter.join(5.0)
        assert self._client is not None
        return self._client

    def answering(self, *parts: bytes | None) -> threading.Thread:
        """Answer the next question in a thread of its own."""

        def answer() -> None:
            self.asked = self.client.recv(65536)
            for part in parts:
                if part is None:
                    self.client.shutdown(socket.SHUT_RDWR)
                else:
                    self.client.sendall(part)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        self.listener.close()
        if self._client is not None:
            self._client.close()


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with closing(Scripted()) as made:
        yield made


@pytest.fixture
def connection(scripted: Scripted) -> Iterator[Any]:
    """Return a connection that is open to the scripted server, and waits for half a second."""
    made = Target(scripted.url, timeout=0.5).connection()
    made.connect()
    yield made
    made.disconnect()


def heard(connection: Any, scripted: Scripted, *parts: bytes | None) -> Any:
    """Return the answer to a question that is answered so."""
    thread = scripted.answering(*parts)
    try:
        return connection.exchange(PING)
    finally:
        thread.join(5.0)
        assert scripted.asked == PING


@pytest.mark.parametrize(
    ("wire", "answer"),
    [
        (b"$4\r\nPONG\r\n", b"PONG"),
        (b"+OK\r\n", b"OK"),
        (b":7\r\n", 7),
        (b"_\r\n", None),
        (b"#t\r\n", True),
        (b",1.5\r\n", 1.5),
        (b"%1\r\n$1\r\na\r\n:1\r\n", {b"a": 1}),
        (b"*2\r\n:1\r\n*1\r\n$1\r\nx\r\n", [1, [b"x"]]),
    ],
)
def test_an_answer_of_any_type_is_heard_whole_and_in_parts(
    connection: Any, scripted: Scripted, wire: bytes, answer: object
) -> None:
    assert heard(connection, scripted, wire) == answer
    assert heard(connection, scripted, *(wire[at : at + 1] for at in range(len(wire)))) == answer


def test_a_push_is_told_and_is_no_answer(connection: Any, scripted: Scripted) -> None:
    told: list[Any] = []
    connection._parser.set_invalidation_push_handler(told.append)

    assert heard(connection, scripted, PUSH + b":1\r\n") == 1
    assert heard(connection, scripted, PUSH[:9], PUSH[9:] + PUSH, b":2\r\n") == 2
    scripted.client.sendall(PUSH)
    assert heard(connection, scripted, b":3\r\n") == 3
    assert told == [[b"invalidate", [b"k"]]] * 4


def test_an_error_is_raised_and_the_connection_goes_on(connection: Any, scripted: Scripted) -> None:
    with pytest.raises(NoScriptError):
        heard(connection, scripted, b"-NOSCRIPT No matching script.\r\n")
    with pytest.raises(ResponseError, match="odd"):
        heard(connection, scripted, b"-ERR odd\r\n")
    assert heard(connection, scripted, b":1\r\n") == 1


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ((None,), RedisConnectionError),
        ((b"$4\r\nPO", None), RedisConnectionError),
        ((), BlockingIOError),
        ((b"$4\r\nPO",), RedisConnectionError),
        ((b"-LOADING Redis is loading\r\n",), RedisConnectionError),
        ((b"!nonsense\r\n",), Exception),
    ],
)
def test_after_any_other_trouble_nothing_is_read_any_more(
    connection: Any, scripted: Scripted, parts: tuple[bytes | None, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        heard(connection, scripted, *parts)

    assert not connection.is_connected


def test_an_interrupt_between_question_and_answer_closes_the_connection(
    connection: Any, scripted: Scripted
) -> None:
    class Interrupt(BaseException): ...

    class Interrupted:
        def __init__(self, sock: socket.socket) -> None:
            self.fileno, self.close, self.shutdown = sock.fileno, sock.close, sock.shutdown
            self.sendall = sock.sendall

        def recv_into(self, _buffer: bytearray) -> int:
            raise Interrupt

    connection._sock = Interrupted(connection._sock)
    with pytest.raises(Interrupt):
        heard(connection, scripted, b":1\r\n")
    assert not connection.is_connected


def test_a_server_that_takes_nothing_more_is_waited_for_no_longer_than_agreed(
    connection: Any, scripted: Scripted
) -> None:
    assert scripted.client.fileno() > 0  # reads nothing from now on

    with pytest.raises(BlockingIOError):
        connection.exchange(pack("SET", "k", b"x" * 50_000_000))
    assert not connection.is_connected


@pytest.mark.parametrize("parts", [(), (b"*1\r\n$4\r\nPO",)])
@pytest.mark.parametrize("kind", [Link, Client])
def test_what_took_too_long_is_told_as_that(
    scripted: Scripted, kind: type[Link | Client], parts: tuple[bytes, ...]
) -> None:
    with closing(kind(Target(scripted.url, timeout=0.5))) as who:
        thread = scripted.answering(*parts)
        with pytest.raises(RedisUnavailable, match="it took longer than its timeout"):
            who.call(Call(PING, PING, b""))
        thread.join(5.0)


def test_python_waits_for_no_socket_but_one_in_tls(one_server: Server) -> None:
    for url in (one_server.url, one_server.tcp_url):
        with closing(Target(url).link()) as link:
            link.command("PING")
            assert link.socket is not None
            assert link.socket.gettimeout() is None

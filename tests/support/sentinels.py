"""A primary, its replicas, and the sentinels that promote one of them.

All know each server by the address of a proxy, so that any of them can be cut off.
"""

from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.proxy import Proxy
from tests.support.servers import HOST, Server
from tests.support.waiting import wait_until

NAME = "jobs"
REPLICAS, SENTINELS = 2, 3
DOWN_AFTER_MS = 2000  # they take up to one second to reconnect, which must not look like death
FAILOVER_TIMEOUT_MS = 3000  # a second fail-over begins no sooner than twice this after the first
PROMOTION_TIMEOUT = 20.0
IN_STEP_TIMEOUT = 30.0  # sentinels wait eight seconds before they demote a primary that is back
# A primary that has lost its replicas stops writing after two to three seconds.
SAFE = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "2")
AT_ONCE = ("--repl-diskless-sync-delay", "0")


class Node:
    """One server and the proxy by which everybody knows it."""

    def __init__(self, binary: Path, stack: ExitStack) -> None:
        # The proxy is there first: its port is what the server says of itself.
        self.proxy = stack.enter_context(Proxy((HOST, 0)))
        announced = ("--replica-announce-ip", HOST, "--replica-announce-port", self.proxy.port)
        self._args = (*SAFE, *AT_ONCE, *map(str, announced))
        self.server = stack.enter_context(Server(binary, args=self._args))
        self.proxy.target = (HOST, self.server.port)

    def ask(self, *words: str | int) -> Any:
        """Send one command, past the proxy."""
        return ask(self.server, *words)

    @property
    def is_primary(self) -> bool:
        return bool(self.ask("ROLE")[0] == "master")

    def come_back(self, primary: "Node") -> None:
        """Start again, as a replica from the first moment on: it has forgotten everything."""
        self.server.args = (*self._args, "--replicaof", HOST, str(primary.proxy.port))
        self.server.restart()

    def follow(self, primary: "Node") -> None:
        self.ask("REPLICAOF", HOST, primary.proxy.port)


class Cluster:
    """The servers and their sentinels, all in step when it is entered."""

    def __init__(self, binary: Path) -> None:
        self._stack = ExitStack()
        try:
            self.nodes = [Node(binary, self._stack) for _ in range(REPLICAS + 1)]
            self.primary = self.nodes[0]
            self.sentinels: list[Server] = []
            for node in self.replicas:
                node.follow(self.primary)
            self.await_in_step()
            for _ in range(SENTINELS):
                self.sentinels.append(self._stack.enter_context(Server(binary, sentinel=True)))
                self._watch(self.sentinels[-1])
            self.await_in_step()
        except BaseException:
            self._stack.close()
            raise

    @property
    def url(self) -> str:
        """The URL that names all sentinels."""
        places = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        return f"sentinel://{places}/{NAME}"

    @property
    def replicas(self) -> list[Node]:
        return [node for node in self.nodes if node is not self.primary]

    def await_promotion(self) -> Node:
        """Wait until a replica says that it is the primary; return the one that it was."""
        old, replicas = self.primary, self.replicas
        self.primary = wait_until(
            lambda: next((node for node in replicas if node.is_primary), None),
            "a promotion",
            PROMOTION_TIMEOUT,
            0.005,
        )
        return old

    def await_in_step(self) -> None:
        """Wait until all sentinels name one primary, of which all others are replicas in step."""
        try:
            self.primary = wait_until(
                lambda: next((node for node in self.nodes if self._leads(node)), None),
                "the replicas to be in step",
                IN_STEP_TIMEOUT,
            )
        except AssertionError as error:
            roles = [(node.proxy.port, *node.ask("ROLE")) for node in self.nodes]
            raise AssertionError(f"{error}\n{roles}\n{self.log()}") from None

    def log(self) -> str:
        """Return what the sentinels have said."""
        return "\n".join(sentinel.log() for sentinel in self.sentinels)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _leads(self, node: Node) -> bool:
        role, _, *replicas = node.ask("ROLE")
        online = ask(node.server, "INFO", "replication").count("state=online")
        return (
            role == "master"
            and len(replicas[0]) == online == REPLICAS
            and all(_is_content(sentinel, node) for sentinel in self.sentinels)
        )

    def _watch(self, sentinel: Server) -> None:
        quorum = SENTINELS // 2 + 1
        ask(sentinel, "SENTINEL", "MONITOR", NAME, HOST, self.primary.proxy.port, quorum)
        ask(sentinel, "SENTINEL", "SET", NAME, "down-after-milliseconds", DOWN_AFTER_MS)
        ask(sentinel, "SENTINEL", "SET", NAME, "failover-timeout", FAILOVER_TIMEOUT_MS)


def ask(server: Server, *words: str | int) -> Any:
    """Send one command to a server or sentinel, and return its answer as text."""
    with closing(server.client(socket_timeout=5.0, decode_responses=True)) as client:
        # redis-py changes the answers of commands that it knows.
        client.response_callbacks.clear()
        return client.execute_command(*words)  # type: ignore[no-untyped-call]


def _is_content(sentinel: Server, primary: Node) -> bool:
    """Return whether it knows everybody, and no fail-over is under way."""
    told = ask(sentinel, "SENTINEL", "MASTER", NAME)
    known = told if isinstance(told, dict) else dict(zip(told[::2], told[1::2], strict=True))
    numbers = (known["port"], known["num-slaves"], known["num-other-sentinels"])
    wanted = (primary.proxy.port, REPLICAS, SENTINELS - 1)
    return known["flags"] == "master" and numbers == tuple(map(str, wanted))

"""A real Redis Cluster: nodes on loopback ports that share the slots, each a server of its own.

Nothing is on disk but what each node notes of the others, in its temporary directory.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from redis.crc import key_slot

from tests.support.sentinels import ask
from tests.support.servers import HOST, Server, free_port
from tests.support.waiting import wait_until

SLOTS = 16384
NODES = 3
NODE_TIMEOUT_MS = 2000  # without an answer for so long a node is thought to be dead
READY_TIMEOUT = 20.0
AT_ONCE = 100  # keys of one MIGRATE


class Node:
    """One primary of a Cluster, or a replica of one."""

    def __init__(self, binary: Path, stack: ExitStack, *, args: tuple[str, ...] = ()) -> None:
        self.bus = free_port()
        own = ("--cluster-enabled", "yes", "--cluster-port", str(self.bus))
        timing = ("--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--repl-diskless-sync-delay", "0")
        self.server = stack.enter_context(
            Server(binary, appendonly="always", args=(*own, *timing, *args))
        )
        self.id: str = self.ask("CLUSTER", "MYID")

    @property
    def place(self) -> str:
        return f"{HOST}:{self.server.port}"

    def ask(self, *words: str | int) -> Any:
        """Send one command, and return its answer as text."""
        return ask(self.server, *words)

    def told(self) -> dict[str, str]:
        """Return what it says of the Cluster."""
        lines: str = self.ask("CLUSTER", "INFO")
        return dict(line.split(":", 1) for line in lines.splitlines() if ":" in line)


class RealCluster:
    """Nodes that have met and share all slots, when it is entered."""

    def __init__(self, binary: Path, *, args: tuple[str, ...] = ()) -> None:
        self._stack = ExitStack()
        self._args, self._binary = args, binary
        try:
            self.nodes = [Node(binary, self._stack, args=args) for _ in range(NODES)]
            bounds = [SLOTS * number // NODES for number in range(NODES + 1)]
            for node, first, after in zip(self.nodes, bounds, bounds[1:], strict=False):
                node.ask("CLUSTER", "ADDSLOTSRANGE", first, after - 1)
                self._introduce(node)
            self.await_agreement()
        except BaseException:
            self._stack.close()
            raise

    def url(self, *nodes: Node) -> str:
        """Return the URL that names these nodes, or all."""
        return f"cluster://{','.join(node.place for node in nodes or self.nodes)}"

    def owner(self, key: str | bytes) -> Node:
        """Return the node that answers for a key."""
        slot = key_slot(key if isinstance(key, bytes) else key.encode())
        return next(node for node in self.nodes if node.id == self._owner_of(slot))

    def others(self, node: Node) -> list[Node]:
        return [one for one in self.nodes if one is not node]

    def add_replica(self, primary: Node) -> Node:
        """Return a new node that follows a primary and is in step with it."""
        node = Node(self._binary, self._stack, args=self._args)
        self._introduce(node)
        self.nodes.append(node)
        wait_until(lambda: primary.id in node.ask("CLUSTER", "NODES"), "a meeting", READY_TIMEOUT)
        node.ask("CLUSTER", "REPLICATE", primary.id)
        wait_until(
            lambda: "state=online" in primary.ask("INFO", "replication"),
            "the replica to be in step",
            READY_TIMEOUT,
        )
        self.await_agreement()
        return node

    def steps_of_moving(self, key: str | bytes, source: Node, target: Node) -> Iterator[str]:
        """Move the slot of a key, live; yields what was done after each step."""
        slot = key_slot(key if isinstance(key, bytes) else key.encode())
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        yield "announced"
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, AT_ONCE):
            place: tuple[str | int, ...] = (HOST, target.server.port)
            source.ask("MIGRATE", *place, "", 0, 5000, "REPLACE", "KEYS", *keys)
            yield f"moved {len(keys)} keys"
        for node in (target, source, *self.nodes):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)
        yield "handed over"

    def await_agreement(self) -> None:
        """Wait until every node knows all of them and finds all slots served."""
        try:
            wait_until(
                lambda: all(map(self._is_content, self.nodes)), "all to agree", READY_TIMEOUT
            )
        except AssertionError as error:
            views = [node.ask("CLUSTER", "NODES") for node in self.nodes]
            raise AssertionError("\n".join([str(error), *views])) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _introduce(self, node: Node) -> None:
        first = self.nodes[0]
        if node is not first:
            node.ask("CLUSTER", "MEET", HOST, first.server.port, first.bus)

    def _owner_of(self, slot: int) -> str:
        for first, last, primary, *_ in self.nodes[0].ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                owner: str = primary[2]
                return owner
        raise AssertionError(f"nobody owns slot {slot}")

    def _is_content(self, node: Node) -> bool:
        told = node.told()
        facts = (told["cluster_state"], told["cluster_known_nodes"], told["cluster_slots_ok"])
        return facts == ("ok", str(len(self.nodes)), str(SLOTS)) and self._agrees(node)

    def _agrees(self, node: Node) -> bool:
        def view(one: Node) -> list[tuple[int, int, str]]:
            return sorted((first, last, p[2]) for first, last, p, *_ in one.ask("CLUSTER", "SLOTS"))

        return view(node) == view(self.nodes[0])

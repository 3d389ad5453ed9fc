"""What the tests with a node-resque that takes orders ask for."""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from forkresque import Queue
from tests.conftest import SERVERS
from tests.support.node import node_modules
from tests.support.node_client import Node, NodeObject
from tests.support.servers import Server


@pytest.fixture(scope="module")
def node(servers: Callable[[str, str], Server], ledger_server: Server) -> Iterator[Node]:
    """Return a process of node-resque on the server that `one_server` empties for each test."""
    node_modules()
    with Node(servers("main", SERVERS[0]), ledger_server) as node:
        yield node


@pytest.fixture(scope="module")
def node_worker(node: Node) -> NodeObject:
    """Return a worker of node for queue `node`, which runs on whatever a test has emptied."""
    worker = node.make("Worker", {"queues": ["node"], "timeout": 5}, events=["error"])
    worker.ask("start")
    return worker


@pytest.fixture
def queue(one_server: Server) -> Iterator[Queue]:
    """Return a queue of our own on the same server."""
    queue = Queue(one_server.url)
    with closing(queue.store.client):
        yield queue

"""Connections over what a test has made itself: a client that it watches, a target that fails."""

from forkresque.connection import SCAN_COUNT, Connection
from forkresque.protocol.connection import Client, Target
from forkresque.protocol.keys import Keys


class Over(Connection):
    """A connection over a given client or target."""

    def __init__(self, given: Client | Target, keys: Keys | None = None) -> None:
        self.keys = keys or Keys()
        self.scan_count = SCAN_COUNT
        self.target = given if isinstance(given, Target) else given._target
        self._client = given if isinstance(given, Client) else given.client()

    def client(self) -> Client:
        return self._client

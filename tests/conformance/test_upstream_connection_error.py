"""The upstream suite core/connectionError, mirrored.

* can provide an error if connection failed
  -> test_can_provide_an_error_if_connection_failed: it is raised, not told as an event, and within
  the time that the connection allows
"""

import pytest

from forkresque import Connection, Queue, RedisUnavailable
from tests.support.servers import HOST, free_port


def test_can_provide_an_error_if_connection_failed() -> None:
    connection = Connection(host=HOST, port=free_port(), timeout=1.0)

    with pytest.raises(RedisUnavailable):
        connection.connect()
    with pytest.raises(RedisUnavailable):
        Queue(connection).connect()

"""The upstream suite core/connection, mirrored.

* should stat with no redis keys in the namespace
  -> test_should_stat_with_no_redis_keys_in_the_namespace: connecting leaves none either, where
  node-resque leaves its test key for ever
* it has loaded Lua commands
  -> test_it_has_loaded_lua_commands: a script is loaded when Redis does not know it, also later
* getKeys returns appropriate keys based on matcher given
  -> test_get_keys_returns_appropriate_keys_based_on_matcher_given
* keys built with the default namespace are correct
  -> test_keys_built_with_the_default_namespace_are_correct
* ioredis transparent key prefix writes keys with the prefix even if they are not returned
  -> test_transparent_key_prefix_writes_keys_with_the_prefix: cannot apply, for redis-py has no
  transparent prefix, on which node-resque's SCANs go wrong; a namespace of several parts is the
  prefix here, and what is scanned has it as well
* keys built with a custom namespace are correct
  -> test_keys_built_with_a_custom_namespace_are_correct
* keys built with a array namespace are correct
  -> test_keys_built_with_a_array_namespace_are_correct
* will properly build namespace strings dynamically
  -> test_will_properly_build_namespace_strings_dynamically: cannot apply, for a connection's
  namespace does not change; an application's may, until and after its first question
* will select redis db from options
  -> test_will_select_redis_db_from_options
* removes empty namespace from generated key
  -> test_removes_empty_namespace_from_generated_key
* removes the redis event listeners when end
  -> test_removes_the_redis_event_listeners_when_end: redis-py has no listeners; what ends is the
  connections to the server
"""

from collections.abc import Iterator
from typing import Any

import pytest

from forkresque import Connection, Forkresque, Queue
from tests.conformance.stage import Stage
from tests.support.waiting import wait_until


@pytest.fixture
def connection(stage: Stage) -> Iterator[Connection]:
    connection = Connection(stage.url)
    connection.connect()
    yield connection
    connection.end()


def test_should_stat_with_no_redis_keys_in_the_namespace(
    stage: Stage, connection: Connection
) -> None:
    assert connection.get_keys("*") == []
    assert stage.keys("*") == []


def test_it_has_loaded_lua_commands(stage: Stage) -> None:
    queue = stage.queue()
    stage.redis.script_flush()

    assert queue.enqueue("q", "someJob") is True
    stage.redis.script_flush()
    assert queue.enqueue("q", "someJob") is True

    assert queue.length("q") == 2


def test_get_keys_returns_appropriate_keys_based_on_matcher_given(
    stage: Stage, connection: Connection
) -> None:
    for number in range(5):
        stage.redis.set(f"test-key-{number}", "a")
        stage.redis.set(f"fake-test-key-{number}", "a")

    found = connection.get_keys("test-key-*")

    assert sorted(found) == [f"test-key-{number}" for number in range(5)]
    assert sorted(connection.get_keys("test-key-*", count=1)) == sorted(found)


def test_keys_built_with_the_default_namespace_are_correct() -> None:
    assert Connection().key("thing") == "resque:thing"


def test_transparent_key_prefix_writes_keys_with_the_prefix(stage: Stage) -> None:
    queue = Queue(Connection(stage.url, namespace=["prefix", "resque"]))
    queue.enqueue_at(10, "q", "someJob")

    assert queue.timestamps() == [10]
    assert all(key.startswith("prefix:resque:") for key in stage.keys("*"))
    queue.end()


def test_keys_built_with_a_custom_namespace_are_correct() -> None:
    assert Connection(namespace="customNamespace").key("thing") == "customNamespace:thing"


def test_keys_built_with_a_array_namespace_are_correct() -> None:
    connection = Connection(namespace=["custom", "namespace"])

    assert connection.key("thing") == "custom:namespace:thing"
    assert connection.key("a", "b") == "custom:namespace:a:b"


def test_will_properly_build_namespace_strings_dynamically(stage: Stage) -> None:
    app = Forkresque(stage.url, namespace="one")
    app.queue.enqueue("q", "someJob")
    app.queue.end()
    app.connect_to(namespace="two")
    app.queue.enqueue("q", "someJob")
    app.queue.end()

    assert stage.keys("*:queue:q") == ["one:queue:q", "two:queue:q"]


def test_will_select_redis_db_from_options(stage: Stage) -> None:
    server = stage.server
    connection = Connection(host="127.0.0.1", port=server.port, database=9)
    queue = Queue(connection)
    queue.connect()
    queue.enqueue("q", "someJob")
    queue.end()

    assert stage.keys("resque:queue:q") == []
    with server.client(db=9) as client:
        assert client.llen("resque:queue:q") == 1


@pytest.mark.parametrize("namespace", ["", " ", [], ["", " "]])
def test_removes_empty_namespace_from_generated_key(namespace: Any) -> None:
    assert Connection(namespace=namespace).key("thing") == "thing"


def test_removes_the_redis_event_listeners_when_end(stage: Stage) -> None:
    def connected() -> int:
        return len(stage.redis.client_list())

    before = connected()
    queue = stage.queue()
    queue.enqueue("q", "someJob")
    assert connected() > before

    queue.end()
    queue.end()

    wait_until(lambda: connected() == before, "the connections to be closed")

"""A Connection reaches what it is given, and leaves what others have alone."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from redis import Redis

from forkresque import Connection, Queue, RedisRefused, RedisUnavailable
from forkresque.protocol.connection import RedisClock
from tests.support.servers import HOST, Server, free_port
from tests.support.waiting import wait_until


@pytest.fixture
def connection(server: Server) -> Iterator[Connection]:
    connection = Connection(server.url, namespace="app*[1]", scan_count=2)
    yield connection
    connection.end()


def test_keys_are_found_by_a_pattern_and_each_once(connection: Connection, redis: Redis) -> None:
    mine = {f"app*[1]:lock:{number}" for number in range(30)}
    for key in (*mine, "app*[1]:other", "appendix1:lock:1", "lock:1"):
        redis.set(key, "x")

    found = connection.get_keys(connection.key("lock", "*"))

    assert sorted(found) == sorted(mine)
    assert len(connection.get_keys("*", count=1000)) == 33


def test_keys_are_found_again_after_the_end(connection: Connection, redis: Redis) -> None:
    redis.set(connection.key("one"), "x")
    assert connection.get_keys("*") == [connection.key("one")]

    connection.end()
    connection.end()

    assert connection.get_keys("*") == [connection.key("one")]


def test_connecting_stores_nothing_and_leaves_nothing(connection: Connection, redis: Any) -> None:
    before = len(redis.client_list())

    connection.connect()

    assert redis.dbsize() == 0
    assert len(redis.client_list()) == before


def test_connecting_to_nobody_is_an_error() -> None:
    connection = Connection(host=HOST, port=free_port())

    with pytest.raises(RedisUnavailable, match=r"cannot reach Redis at redis://127\.0\.0\.1:"):
        connection.connect()


def test_connecting_to_a_replica_is_refused(server: Server) -> None:
    with (
        Server(server.binary, args=("--replicaof", HOST, str(server.port))) as replica,
        pytest.raises(RedisRefused, match="replica"),
    ):
        Connection(replica.url).connect()


def test_a_database_can_be_chosen(server: Server) -> None:
    queue = Queue({"host": HOST, "port": server.port, "database": 3})
    with closing(queue.store.client):
        queue.enqueue("math", "note", [1])

    with closing(server.client(db=3)) as third:
        assert third.llen("resque:queue:math") == 1


def test_a_client_is_used_for_its_settings_alone(server: Server) -> None:
    with closing(Redis(host=HOST, port=server.port, db=2, decode_responses=True)) as client:
        client.ping()
        own = client.client_id()
        queue = Queue(Connection(redis=client))

        queue.enqueue("math", "note", [1])
        assert queue.lengths() == {"math": 1}
        queue.end()

        assert client.client_id() == own, "its connection was closed"
        assert client.llen("resque:queue:math") == 1


def test_a_watch_of_the_client_is_not_broken_by_us_nor_we_by_it(server: Server) -> None:
    theirs: Any = Redis(host=HOST, port=server.port)
    with closing(theirs) as client, client.pipeline() as pipe:
        pipe.watch("resque:queues")
        pipe.multi()
        pipe.set("mine", "1")
        queue = Queue(Connection(redis=client))
        with closing(queue.store.client):
            assert queue.enqueue("math", "note", [1]), "stored although a transaction is open"

        with pytest.raises(Exception, match="Watched variable changed"):
            pipe.execute()
        assert client.llen("resque:queue:math") == 1


def test_a_connection_survives_a_fork_by_opening_its_own(server: Server, redis: Any) -> None:
    queue = Queue(Connection(server.url))
    with closing(queue.store.client) as client:
        parents = client.command("CLIENT", "ID")
        client._spares._pid = os.getpid() - 1  # as it is in a child

        assert client.command("CLIENT", "ID") != parents
    assert redis.ping()


FORKING = """
import os, sys
from forkresque import Queue

queue = Queue(sys.argv[1])
queue.enqueue("math", "note", ["before"])
child = os.fork()
who = "parent" if child else "child"
for number in range(200):
    queue.enqueue("math", "note", [who, number])
    assert queue.length("math") >= number
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_parent_and_child_enqueue_at_the_same_time(one_server: Server, one_redis: Any) -> None:
    argv = [sys.executable, "-c", FORKING, one_server.url]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=9)
    assert run.returncode == 0, run.stderr

    stored = [json.loads(raw)["args"] for raw in one_redis.lrange("resque:queue:math", 0, -1)]
    for who in ("parent", "child"):
        assert [args[1] for args in stored if args[0] == who] == list(range(200))


# -- what Redis tells unasked ------------------------------------------------------------------


def test_what_was_pushed_with_an_answer_rings_though_the_socket_is_silent(
    one_server: Server, one_redis: Redis
) -> None:
    with closing(Connection(one_server.url).link(tracking=True)) as link:
        link.command("GET", "watched", armed=True)
        assert not link.ringing

        one_redis.set("watched", "changed")
        link.command("PING")  # the push comes before the answer, in the same stream

        assert link.socket is not None
        readable, _, _ = select.select([link.socket], [], [], 0)
        assert not readable
        assert link.ringing
        assert link.pushed() == {b"watched"}
        assert not link.ringing


def test_all_that_was_pushed_at_once_is_told_at_once(one_server: Server, one_redis: Redis) -> None:
    with closing(Connection(one_server.url).link(tracking=True)) as link:
        for key in ("first", "second"):
            link.command("GET", key, armed=True)

        with one_redis.pipeline() as pipe:
            pipe.mset({"first": "changed", "second": "changed"})
            pipe.execute()

        assert link.socket is not None
        select.select([link.socket], [], [], 5.0)
        assert link.pushed() == {b"first", b"second"}
        assert link.pushed() == set()


def test_the_end_of_a_connection_is_no_silence(one_server: Server, one_redis: Redis) -> None:
    with closing(Connection(one_server.url).link(tracking=True)) as link:
        one_redis.client_kill_filter(_id=link.command("CLIENT", "ID"))

        assert link.socket is not None
        select.select([link.socket], [], [], 5.0)
        with pytest.raises(RedisUnavailable):
            link.pushed()
        assert link.socket is None


def test_a_glance_at_what_was_pushed_leaves_it_to_be_read(
    one_server: Server, one_redis: Redis
) -> None:
    with closing(Connection(one_server.url).link(tracking=True)) as link:
        link.command("GET", "watched", armed=True)
        assert not link.sees([b"\r\nwatched\r\n"])

        one_redis.set("watched", "changed")
        assert link.socket is not None
        select.select([link.socket], [], [], 5.0)

        assert link.sees([b"\r\nother\r\n", b"\r\nwatched\r\n"])
        assert not link.sees([b"\r\nother\r\n"])
        assert link.command("PING") == b"PONG"
        assert link.pushed() == {b"watched"}
        assert not link.sees([b"\r\nwatched\r\n"])


def test_redis_is_asked_to_tell_of_changes_with_the_first_question_about_that(
    one_server: Server, one_redis: Redis
) -> None:
    def times() -> int:
        told: Any = one_redis.info("commandstats")
        return int(told.get("cmdstat_client|tracking", {"calls": 0})["calls"])

    with closing(Connection(one_server.url).link(tracking=True)) as link:
        before = times()
        link.command("PING")
        assert link.tracking
        assert times() == before

        link.command("GET", "watched", armed=True)
        link.command("GET", "watched", armed=True)

        assert times() == before + 1
        one_redis.set("watched", "changed")
        wait_until(lambda: link.ringing, "the push")
        assert link.pushed() == {b"watched"}


def test_a_clock_that_somebody_else_has_set_asks_nothing(one_server: Server) -> None:
    with closing(Connection(one_server.url).link()) as link:
        known = RedisClock(link)
        known.look()
        asked = link.asked

        clock = RedisClock(link, offset=known.offset)

        assert abs(clock.now() - known.guess()) < 1
        assert link.asked == asked

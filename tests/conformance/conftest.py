"""The stage of the mirrored tests."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from redis import Redis

from tests.conformance.stage import Stage
from tests.support.servers import Server


@pytest.fixture
def stage(server: Server, redis: Redis) -> Iterator[Stage]:
    """Return an empty Redis of every kind, for queues, workers and schedulers."""
    with closing(Stage(server, redis)) as stage:
        yield stage


@pytest.fixture
def one_stage(one_server: Server, one_redis: Redis) -> Iterator[Stage]:
    """Return an empty Redis of the first kind, for tests that take longer."""
    with closing(Stage(one_server, one_redis)) as stage:
        yield stage

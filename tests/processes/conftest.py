"""What the process tests share. They are expensive, so they run on the first server only."""

import pytest
from redis import Redis

from tests.support.site import Site


@pytest.fixture
def site(one_redis: Redis, ledger: Redis) -> Site:
    """Return the Redis under test and the ledger, both empty."""
    return Site(one_redis, ledger)

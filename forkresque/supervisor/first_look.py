"""A look at Redis before anything is forked: one that loses jobs is refused."""

import logging
from contextlib import closing

from forkresque.app import Forkresque
from forkresque.errors import ConfigError, RedisRefused, RedisUnavailable
from forkresque.protocol.store import check_server

log = logging.getLogger("forkresque.master")


def look_at_redis(app: Forkresque, *, required: bool) -> None:
    """Raise ConfigError for a Redis that loses jobs. Leaves no connection to the fork.

    One that cannot be reached is waited for, by the clerk and the workers, unless `required`: then
    RedisUnavailable is raised.
    """
    with closing(app.queue.store.client) as client:
        try:
            check_server(client, app.namespace)
        except RedisRefused as error:
            raise ConfigError(str(error), hint=error.hint) from error
        except RedisUnavailable as error:
            if required:
                raise
            log.warning("Redis is waited for: %s", error)

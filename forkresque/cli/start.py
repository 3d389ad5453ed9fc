"""`forkresque start`: the supervisor."""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import click

from forkresque.app import Forkresque
from forkresque.cli import logs
from forkresque.cli.connecting import application, nameless, served
from forkresque.cli.parameters import Command, declared
from forkresque.cli.session import Session, pass_session
from forkresque.errors import ConfigError, RedisRefused
from forkresque.options import SupervisorOptions
from forkresque.protocol.store import check_server
from forkresque.supervisor import supervise


@click.command(cls=Command, params=declared(SupervisorOptions))
@pass_session
def start(session: Session, /, **given: Any) -> None:
    """Run the jobs of an application in worker processes.

    It needs -A. TERM and INT let the jobs in hand finish, USR1 pauses, CONT resumes.
    """
    interface = session.interface()
    if not interface.app:
        raise click.UsageError("start needs an application: -A MODULE[:ATTR] or FORKRESQUE_APP")
    logs.set_up(level=interface.log_level, form=interface.log_format)
    options = session.resolve(SupervisorOptions, given)
    with _prepared(session, preload=options.preload) as load:
        code = supervise(load, options)
    sys.exit(code)


@contextmanager
def _prepared(session: Session, *, preload: bool) -> Iterator[Callable[[], Forkresque]]:
    """Yield what gives the application to the supervisor, once its Redis has been looked at.

    Without preload only the children import it. An address that only its code knows is then
    left to them.
    """
    app = application(session) if preload else nameless(session)
    known = preload or session.chosen("redis") is not None
    with served(app):
        if known:
            _check(app)
        yield lambda: app if preload else _imported(session, app.url if known else None)


def _imported(session: Session, url: str | None) -> Forkresque:
    app = application(session)
    app.connect_to(url=url)  # of an embedded server it is known only since it runs
    return app


def _check(app: Forkresque) -> None:
    """Refuse a Redis that is not there or that loses jobs. Leaves no connection to the fork."""
    with closing(app.queue.store.client) as client:
        try:
            check_server(client, app.namespace)
        except RedisRefused as error:
            raise ConfigError(str(error), hint=error.hint) from error

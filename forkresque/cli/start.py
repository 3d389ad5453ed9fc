"""`forkresque start`: the supervisor."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from forkresque.app import Forkresque
from forkresque.cli import logs
from forkresque.cli.connecting import application, nameless, served
from forkresque.cli.importing import settle_in, uncollected
from forkresque.cli.parameters import Command, declared
from forkresque.cli.session import Session, pass_session
from forkresque.errors import ForkresqueError
from forkresque.options import SupervisorOptions
from forkresque.supervisor import supervise
from forkresque.supervisor.first_look import look_at_redis
from forkresque.supervisor.handover import hearing, is_left

_TEMPORARY = "the embedded server would be a new, empty one: give it a directory, embedded://DIR"


@click.command(cls=Command, params=declared(SupervisorOptions))
@pass_session
def start(session: Session, /, **given: Any) -> None:
    """Run the jobs of an application in worker processes.

    It needs an application. TERM and INT let the jobs in hand finish, USR1 pauses, CONT
    resumes, HUP loads new code.
    """
    interface = session.interface()
    if not interface.app:
        raise click.UsageError(
            "start needs an application: -A MODULE[:ATTR], FORKRESQUE_APP or app in the file"
        )
    logs.set_up(level=interface.log_level, form=interface.log_format)
    options = session.resolve(SupervisorOptions, given)
    with _prepared(session, options) as (load, pinned):
        code = supervise(load, options, pinned=pinned)
    sys.exit(code)


@contextmanager
def _prepared(
    session: Session, options: SupervisorOptions
) -> Iterator[tuple[Callable[[], Forkresque], str]]:
    """Yield what gives the application to the supervisor, once its Redis has been looked at.

    Without preload only the children import it. An address that only its code knows is then
    left to them. The second value says why a reload cannot keep the Redis, if it cannot.
    """
    with uncollected():
        import_module("forkresque.supervisor.beginning")
        settle_in()
        app, failure = _application(session, options)
    imported = options.preload and failure is None
    known = imported or session.chosen("redis") is not None
    pinned = _TEMPORARY if app.url == "embedded://" else ""
    with served(app):
        if known and not is_left():  # the next image is blind until it serves, and was tried before
            look_at_redis(app, required=options.require_redis)

        def load() -> Forkresque:
            if failure:
                raise failure
            return app if imported else _imported(session, app.url if known else None)

        yield load, pinned


def _application(
    session: Session, options: SupervisorOptions
) -> tuple[Forkresque, ForkresqueError | None]:
    """Return the application, or only its address where this process is not to import it.

    The address alone also when it cannot be imported although it was tried just before, in a
    reload; then the error is returned for those who go on with the old code.
    """
    if not options.preload:
        return nameless(session), None
    try:
        with hearing():
            return application(session), None
    except ForkresqueError as error:
        if not is_left():
            raise
        return nameless(session), error


def _imported(session: Session, url: str | None) -> Forkresque:
    app = application(session)
    app.connect_to(url=url)  # of an embedded server it is known only since it runs
    return app

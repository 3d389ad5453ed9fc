"""From the global options to an application whose Redis answers."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

from forkresque import embedded
from forkresque.app import Forkresque
from forkresque.cli.loading import load
from forkresque.cli.session import Session
from forkresque.errors import ConfigError


def application(session: Session) -> Forkresque:
    """Return the application that is named, or else one without jobs.

    Where Redis is, a flag or our own variable says before the application's code.
    """
    name = session.interface().app
    return _addressed(load(name), session) if name else nameless(session)


def nameless(session: Session) -> Forkresque:
    """Return an application without jobs, for the address alone."""
    return _addressed(Forkresque(), session)


def _addressed(app: Forkresque, session: Session) -> Forkresque:
    app.connect_to(
        url=session.chosen("redis"),
        namespace=session.chosen("namespace"),
        ack=session.chosen("ack"),
        failure_backend=session.chosen("failure_backend"),
    )
    return app


@contextmanager
def connected(session: Session) -> Iterator[Forkresque]:
    """Yield an application whose Redis answers; close its connections at the end.

    Raises RedisUnavailable at once, where an enqueue would go on trying for seconds.
    """
    with joined(session) as app, closing(app.queue.store.client) as client:
        client.command("PING")
        yield app


@contextmanager
def joined(session: Session) -> Iterator[Forkresque]:
    """Yield an application, with its embedded server if it has one that others know, too."""
    app = application(session)
    if embedded.is_embedded(app.url) and embedded.directory_of(app.url) is None:
        raise ConfigError(
            f"{app.url} without a directory is a new, empty server",
            hint="name the directory of one that is used: embedded://path/to/directory",
        )
    with served(app):
        yield app


@contextmanager
def served(app: Forkresque) -> Iterator[None]:
    """Start or join the embedded server, if the application's address is one."""
    if not embedded.is_embedded(app.url):
        yield
        return
    with embedded.start(embedded.directory_of(app.url)) as server:
        app.connect_to(url=server.url)
        yield

"""`forkresque scheduler`: a scheduler alone, where no master of ours runs."""

import os
import signal
from types import FrameType
from typing import Any

import click

from forkresque.app import Forkresque
from forkresque.cli import logs
from forkresque.cli.connecting import joined
from forkresque.cli.parameters import Command, declared
from forkresque.cli.session import Session, pass_session
from forkresque.options import SupervisorOptions
from forkresque.processes import host_label
from forkresque.scheduler import Scheduler
from forkresque.supervisor.first_look import look_at_redis
from forkresque.supervisor.titles import set_title

_TIMEOUT = 2.0  # seconds for an answer of Redis; the end waits for it
_ITS_OPTIONS = ("host_label", "stuck_worker_timeout", "require_redis")


@click.command(cls=Command, params=declared(SupervisorOptions, only=_ITS_OPTIONS))
@click.option(
    "--retry-stuck-jobs", is_flag=True, help="Put jobs back that failed because a worker died."
)
@pass_session
def scheduler(session: Session, /, *, retry_stuck_jobs: bool, **given: Any) -> None:
    """Promote delayed jobs, and run none.

    For queues whose workers have no master of ours; each master has a scheduler within. Of all
    there are, in any language, one leads. TERM, INT and QUIT end it.
    """
    interface = session.interface()
    logs.set_up(level=interface.log_level, form=interface.log_format)
    options = session.resolve(SupervisorOptions, given)
    with joined(session) as app:
        set_title("scheduler")
        one = _scheduler(app, options, retry_stuck_jobs=retry_stuck_jobs)
        _end_at_signals(one)
        look_at_redis(app, required=options.require_redis)
        one.run()


def _scheduler(app: Forkresque, options: SupervisorOptions, *, retry_stuck_jobs: bool) -> Scheduler:
    return Scheduler(
        app.connection.within(_TIMEOUT),
        name=f"{host_label(options.host_label)}:{os.getpid()}",
        stuck_worker_timeout=options.stuck_worker_timeout,
        retry_stuck_jobs=retry_stuck_jobs,
    )


def _end_at_signals(one: Scheduler) -> None:
    """Have the first signal end it in good order, and the second one at once."""

    def end(signum: int, _frame: FrameType | None) -> None:
        signal.signal(signum, signal.SIG_DFL)
        one.end()

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(signum, end)

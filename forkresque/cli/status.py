"""`forkresque status`: Redis and the masters of this machine, on one screen."""

from contextlib import closing
from typing import Any

import click

from forkresque.app import Forkresque
from forkresque.cli import output, queues, workers
from forkresque.cli.connecting import connected
from forkresque.cli.masters import statuses
from forkresque.cli.parameters import Command
from forkresque.cli.session import Session, pass_session
from forkresque.errors import ExitCode, ForkresqueError, RedisRefused, RedisUnavailable
from forkresque.protocol.connection import Target
from forkresque.protocol.delayed import Delayed

_NOT_READY = ("boot",)


@click.command(cls=Command)
@click.option("--local", is_flag=True, help="Only the masters of this machine; asks no Redis.")
@click.option(
    "--check",
    is_flag=True,
    help="For probes: exit 1 if Redis is away or a master here has no ready worker.",
)
@pass_session
def status(session: Session, *, local: bool, check: bool) -> None:
    """Show what waits, who works, and the masters of this machine."""
    masters = statuses(session)
    redis, failure = (None, None) if local else _look(session)
    if session.json:
        output.document(redis=redis, masters=masters)
    else:
        _show(redis, masters)
    problems = [str(failure)] if failure else []
    if check:
        problems += _unready(masters, wanted=local)
        for problem in problems:
            output.complain(problem)
        click.get_current_context().exit(ExitCode.FAILED if problems else ExitCode.OK)
    if failure:
        raise failure


def _look(session: Session) -> tuple[dict[str, Any] | None, ForkresqueError | None]:
    """Return what Redis tells, or why it does not."""
    try:
        with connected(session) as app:
            return _facts(app), None
    except (RedisUnavailable, RedisRefused) as error:
        return None, error


def _facts(app: Forkresque) -> dict[str, Any]:
    queue, everybody = app.queue, workers.overview(app.queue)
    counts = queue.store.counts()
    with closing(Target(app.url).link()) as link:
        leader = Delayed(link, queue.store.keys).leader()
    return {
        "url": app.masked_url,
        "namespace": app.namespace,
        "queues": queues.overview(queue),
        "delayed": queue.delayed_count(),
        "failed": queue.failed_count(),
        "processed": counts["processed"],
        "failures": counts["failed"],
        "workers": len(everybody),
        "working": sum(each["state"] == "working" for each in everybody),
        "leader": leader,
        "paused": queue.store.all_paused(),
    }


def _unready(masters: list[dict[str, Any]], *, wanted: bool) -> list[str]:
    """Return what is wrong with the masters here."""
    if wanted and not masters:
        return ["no master runs here"]
    problems = []
    for master in masters:
        if "error" in master:
            problems.append(f"the master at {master['socket']} does not answer: {master['error']}")
        elif all(worker["phase"] in _NOT_READY for worker in master["workers"]):
            problems.append(f"master {master['pid']} has no ready worker")
    return problems


def _show(redis: dict[str, Any] | None, masters: list[dict[str, Any]]) -> None:
    if redis:
        _show_redis(redis)
        output.line()
    for master in masters:
        if "error" in master:
            output.line(f"the master at {master['socket']} does not answer: {master['error']}")
        else:
            _show_master(master)
    if not masters:
        output.line("no master runs here")


def _show_redis(redis: dict[str, Any]) -> None:
    output.line(f"Redis {redis['url']}, namespace {redis['namespace']}")
    waiting = sum(each["waiting"] for each in redis["queues"])
    output.line(f"  waiting {waiting}, delayed {redis['delayed']}, failed {redis['failed']}")
    output.line(f"  ever: processed {redis['processed']}, failures {redis['failures']}")
    output.line(f"  {output.counted(redis['workers'], 'worker')}, {redis['working']} working")
    output.line(f"  scheduler: {redis['leader'] or 'none leads'}")
    if redis["paused"]:
        output.line("  paused: all workers; forkresque resume --all ends it")
    if redis["queues"]:
        output.line()
        queues.print_overview(redis["queues"])


def _show_master(master: dict[str, Any]) -> None:
    states = [word for word in ("paused", "draining") if master[word]]
    output.line(
        f"master {master['pid']}, {', '.join([*states, 'up ' + output.span(master['uptime'])])}, "
        f"forkresque {master['version']}"
    )
    output.line(f"  queues {','.join(master['queues'])}")
    if master["redis"]:  # not known to one that does not preload
        output.line(f"  Redis {master['redis']}, namespace {master['namespace']}")
    output.line(f"  {len(master['workers'])} of {output.counted(master['wanted'], 'worker')}")
    clerk = master["clerk"]
    reach = "reaches Redis" if clerk["reached"] else "does not reach Redis"
    output.line(f"  clerk {clerk['pid']} {reach}, scheduler: {clerk['leads']}")
    output.table(
        ("PID", "PHASE", "JOB", "JOB S", "DONE", "FAILED", "BUSY S"),
        [
            (
                w["pid"],
                w["phase"],
                w["job"],
                w["job_seconds"],
                w["done"],
                w["failed"],
                w["busy_seconds"],
            )
            for w in master["workers"]
        ],
    )

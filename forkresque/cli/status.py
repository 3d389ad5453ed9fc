"""`forkresque status`: Redis and the masters of this machine, on one screen."""

from contextlib import closing
from typing import Any

import click

from forkresque.app import Forkresque
from forkresque.cli import output, queues, reports, workers
from forkresque.cli.connecting import connected
from forkresque.cli.masters import statuses
from forkresque.cli.parameters import Command
from forkresque.cli.session import Session, pass_session
from forkresque.errors import ExitCode, ForkresqueError, RedisRefused, RedisUnavailable
from forkresque.protocol.delayed import Delayed

_SCALINGS = 5  # the latest of all pools
_TITLES = (
    *("PID", "POOL", "PHASE", "JOB S", "DONE", "FAILED", "BUSY S"),
    *("CPU", "MEMORY", "AGE", "GEN", "JOB"),
)


@click.command(cls=Command)
@click.option("--local", is_flag=True, help="Only the masters of this machine; asks no Redis.")
@click.option(
    "--check",
    is_flag=True,
    help="For probes: exit 1 if Redis is away or a master here is not ready, and say why.",
)
@click.option(
    "--live",
    is_flag=True,
    help="For probes: exit 1 if no master answers here, whatever Redis and workers do.",
)
@pass_session
def status(session: Session, *, local: bool, check: bool, live: bool) -> None:
    """Show what waits, who works, and the masters of this machine."""
    if check and live:
        raise click.UsageError("--check asks for more than --live: give one of them")
    masters = statuses(session)
    redis, failure = (None, None) if local or live else _look(session)
    if session.json:
        output.document(redis=redis, masters=masters)
    else:
        _show(redis, masters)
    if live:
        _exit_with(silent(masters))
    elif check:
        _exit_with([*filter(None, [str(failure or "")]), *unready(masters, wanted=local)])
    elif failure:
        raise failure


def _exit_with(problems: list[str]) -> None:
    for problem in problems:
        output.complain(problem)
    click.get_current_context().exit(ExitCode.FAILED if problems else ExitCode.OK)


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
    with closing(app.connection.link()) as link:
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


def silent(masters: list[dict[str, Any]]) -> list[str]:
    """Return which masters do not answer, or that there is none."""
    if not masters:
        return ["no master runs here"]
    return [_silence(master) for master in masters if "error" in master]


def unready(masters: list[dict[str, Any]], *, wanted: bool) -> list[str]:
    """Return what is wrong with the masters here; if one is `wanted`, also that there is none."""
    problems = silent(masters) if masters or wanted else []
    for master in masters:
        if "error" not in master and not master["ready"]:
            problems += [f"master {master['pid']}: {why}" for why in _reasons(master)]
    return problems


def _reasons(master: dict[str, Any]) -> list[str]:
    """Return why a master is not ready."""
    if master["draining"]:
        return ["it drains"]
    short = [
        f"pool {pool['name']} has {ready} of at least {output.counted(pool['least'], 'worker')}"
        for pool in master["pools"]
        if (ready := pool["busy"] + pool["idle"]) < pool["least"]
    ]
    return [*master["trouble"], *short] or ["it is not ready"]


def _silence(master: dict[str, Any]) -> str:
    return f"the master at {master['socket']} does not answer: {master['error']}"


def _show(redis: dict[str, Any] | None, masters: list[dict[str, Any]]) -> None:
    if redis:
        _show_redis(redis)
        output.line()
    for master in masters:
        if "error" in master:
            output.line(_silence(master))
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
    words = [*reports.states(master), "up " + output.span(master["uptime"])]
    output.line(
        f"master {master['pid']}, {', '.join(words)}, "
        f"forkresque {master['version']}, generation {master['generation']}"
    )
    for alarm in reports.alarms(master):
        output.line(f"  trouble: {alarm}")
    if master["redis"]:  # not known to one that does not preload
        output.line(f"  Redis {master['redis']}, namespace {master['namespace']}")
    clerk = master["clerk"]
    reach = "reaches Redis" if clerk["reached"] else "does not reach Redis"
    output.line(f"  clerk {clerk['pid']} {reach}, scheduler: {clerk['leads']}")
    counts = [f"{name.replace('_', ' ')} {count}" for name, count in master["counters"].items()]
    output.line(f"  since the start: {', '.join(counts)}")
    output.line()
    output.table(reports.POOL_TITLES, [reports.pool_cells(pool) for pool in master["pools"]])
    for line in reports.scalings(master["pools"], _SCALINGS):
        output.line(f"  scaled {line.lstrip()}")
    _show_workers(master)


def _show_workers(master: dict[str, Any]) -> None:
    """Print what each worker does; jobs come last, for their names may be long."""
    output.line()
    output.table(
        _TITLES,
        [
            (
                each["pid"],
                reports.pool_name(master["pools"], each),
                each["phase"],
                each["job_seconds"],
                each["done"],
                each["failed"],
                each["busy_seconds"],
                reports.cores(each["cpu"]),
                reports.memory(each["memory"]),
                output.brief(each["age"]),
                each["generation"],
                each["job"],
            )
            for each in master["workers"]
        ],
    )

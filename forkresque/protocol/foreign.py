"""What foreign tools do to workers, ours and their own, and the records that tell of it.

node-resque's forceCleanWorker and Ruby's pruning put the job of a worker that they hold for dead
into the failed list and remove the worker. They know nothing of our slots, so the same job must
not be brought back from there once more.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from forkresque.errors import InvalidPayload
from forkresque.protocol.canonical import MAX_LEVELS, decode
from forkresque.protocol.failure import JAVASCRIPT, Failure, failure_entry, parse_failure

NODE_TIMEOUT = "Worker Timeout (killed manually)"
NODE_MARK = "queue#forceCleanWorker"  # the second line of the backtrace
RUBY_DEATHS = ("Resque::DirtyExit", "Resque::PruneDeadWorkerDirtyExit")
_RUN_AT = ("%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S.%f%z", "%Y-%m-%d %H:%M:%S %z", JAVASCRIPT)
_CLEANINGS = {NODE_TIMEOUT, *RUBY_DEATHS}


def is_cleaning_of(failure: Failure, names: Collection[str], queue: str, raw: bytes) -> bool:
    """Return whether `failure` tells that a foreign tool failed this job of the worker `names`.

    node names a worker without its queues, Ruby with them. A record that Ruby has retried since
    does not count. In doubt the answer is no: then the job runs again, and none is lost.
    """
    if failure.exception not in _CLEANINGS or failure.worker not in names:
        return False
    if failure.queue != queue or failure.retried_at:
        return False
    try:
        job = decode(raw)
    except InvalidPayload:
        return False
    args = job.get("args") if isinstance(job, dict) else None
    return (
        isinstance(args, list)
        and job.get("class") == failure.name
        and _as_javascript(args) == _as_javascript(failure.args)
    )


def _as_javascript(value: Any) -> Any:
    """Return `value` with numbers as JavaScript keeps them, for it may have written them again."""
    if isinstance(value, list):
        return [_as_javascript(item) for item in value]
    if isinstance(value, dict):
        return {name: _as_javascript(item) for name, item in value.items()}
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return value
    return value


def cleaning_entry(record: bytes, worker: str, *, host: str, failed_at: float) -> bytes:
    """Return the failure record of the job in a node-resque worker's `record`, in node's words.

    By the second line of the backtrace node's retryStuckJobs knows it.
    """
    told = parse_failure(record)  # the two kinds of record name payload and queue alike
    return failure_entry(
        raw=told.payload or record,
        exception=NODE_TIMEOUT,
        error=NODE_TIMEOUT,
        backtrace=[f"killed by {host}", NODE_MARK, "node-resque"],
        worker=worker,
        queue=told.queue,
        failed_at=failed_at,
    )


def run_second(record: bytes) -> float | None:
    """Return when the job of a working record began, in epoch seconds; None if it does not say.

    Ruby and we write ISO 8601, older Rubies `2026-11-24 02:34:34 +0000`, node JavaScript's text.
    """
    try:
        told = decode(record, levels=MAX_LEVELS + 1)
    except InvalidPayload:
        return None
    run_at = told.get("run_at") if isinstance(told, dict) else None
    if not isinstance(run_at, str):
        return None
    text = run_at.partition(" (")[0].replace(" UTC", " +0000")
    for form in _RUN_AT:
        try:
            return datetime.strptime(text, form).timestamp()  # noqa: DTZ007 - all have a %z
        except ValueError:
            continue
    return None


def ping_second(ping: bytes) -> float | None:
    """Return when a worker of node-resque says that it pinged, in epoch seconds, None if never."""
    try:
        told = decode(ping)
    except InvalidPayload:
        return None
    second = told.get("time") if isinstance(told, dict) else None
    return second if isinstance(second, int | float) and not isinstance(second, bool) else None

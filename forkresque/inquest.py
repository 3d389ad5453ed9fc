"""What becomes of the job of a worker that is gone: the verdict that recovery carries out."""

from collections.abc import Mapping
from dataclasses import dataclass

from forkresque.errors import DIRTY_EXIT, InvalidPayload
from forkresque.jobs import Definition, OnCrash
from forkresque.policy.verdicts import Blame, sentence
from forkresque.protocol.failure import failure_entry
from forkresque.protocol.ownership import Held
from forkresque.protocol.payload import parse
from forkresque.protocol.registry import Verdict, suspect_field


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of a death: whom it is laid to, whether the job had begun, and the story."""

    blame: Blame
    begun: bool
    account: str
    exception: str = DIRTY_EXIT
    backtrace: tuple[str, ...] = ()


def verdict(held: Held, finding: Finding, jobs: Mapping[str, Definition], *, now: float) -> Verdict:
    """Return what is to become of the job that `held` shows. `now` is in epoch seconds."""
    once = finding.begun and _runs_once(held.raw, jobs)
    ruling = sentence(finding.blame, once=once)
    entry = failure_entry(
        raw=held.raw,
        exception=finding.exception,
        error=finding.account,
        backtrace=finding.backtrace,
        worker=held.worker,
        queue=held.queue,
        failed_at=now,
    )
    counted = ruling.counted and finding.begun
    field = suspect_field(held.raw, host=finding.blame is Blame.HOST) if counted else ""
    return Verdict(field, ruling.limit, ruling.fail, poison=entry, entry=entry)


def _runs_once(raw: bytes, jobs: Mapping[str, Definition]) -> bool:
    try:
        definition = jobs.get(parse(raw).name)
    except InvalidPayload:
        return False
    return definition is not None and definition.on_crash is OnCrash.FAIL

"""Run one job, and say how it ended. Whatever a job does, the worker goes on.

The soft end of a job is an exception raised by a signal handler inside the job. It is raised
only while that very job runs: a signal that arrives late finds another number and does nothing.
"""

import contextlib
import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from forkresque.errors import (
    InvalidArgs,
    InvalidPayload,
    JobAborted,
    UnknownJob,
)
from forkresque.events import WORKER_EVENTS, Emitter
from forkresque.jobs import Definition, OnCrash
from forkresque.protocol.canonical import decode
from forkresque.protocol.claims import Claimed, Outcome
from forkresque.protocol.failure import failure_entry
from forkresque.protocol.payload import PAYLOAD_LIMIT_BYTES, Payload, parse, stand_in
from forkresque.scoreboard import Phase, Seat

HARD_GRACE = 10.0  # seconds from the soft end of a job that is over its limit to its kill
_FRAMES = 100


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended, and what was raised."""

    outcome: Outcome
    error: BaseException | None = None

    @property
    def is_final(self) -> bool:
        """Return whether the job came to an end of its own."""
        return self.outcome in (Outcome.DONE, Outcome.FAIL)


class Performer:
    """Runs jobs for one worker, one at a time.

    `took_ns` is how long the last one ran, in nanoseconds; 0 for one that could not begin.
    `result` is what it returned, if somebody listens to its success.
    """

    def __init__(
        self,
        jobs: Mapping[str, Definition],
        seat: Seat,
        titled: Callable[[str], None] = lambda _doing: None,
        events: Emitter | None = None,
    ) -> None:
        self._jobs = jobs
        self._seat = seat
        self._titled = titled
        self._events = events or Emitter(WORKER_EVENTS)
        self._heard = self._events.heard
        self.took_ns = 0
        self.result: object = None
        self._pid = os.getpid()
        self._interruptible = 0  # number of the job that may be interrupted now, 0 for none

    def perform(self, job: Claimed) -> Ended:
        """Run `job` to its end."""
        try:
            payload = parse(job.raw)
            definition = self._definition(payload.name)
            definition.check(payload.args)
        except (InvalidPayload, UnknownJob, InvalidArgs) as error:
            self.took_ns = 0
            self._seat.failed += 1
            self._seat.title = "(refused)"
            return Ended(Outcome.FAIL, error.with_traceback(None))  # of no use to the job's author
        if "job" in self._heard:  # before it can be interrupted
            self._events.emit("job", job.queue, decoded(job.raw))
        self._begin(job, definition)
        ended = self._run(definition, payload)
        if os.getpid() != self._pid:
            os._exit(0)  # a copy that the job forked: the original ends and settles it
        self._end(ended)
        return ended

    def interrupt(self, epoch: int, error: BaseException) -> None:
        """Raise `error` inside job number `epoch`, if that runs now. For a signal handler."""
        if epoch and epoch == self._interruptible:
            self._interruptible = 0
            raise error

    def _definition(self, name: str) -> Definition:
        try:
            return self._jobs[name]
        except KeyError:
            raise UnknownJob(f"no job is registered under the name {name!r}") from None

    def _run(self, definition: Definition, payload: Payload) -> Ended:
        try:
            try:
                self._interruptible = self._seat.epoch
                if "success" in self._heard:
                    self.result = definition.run(payload.args)
                else:
                    definition.run(payload.args)
            finally:
                self._interruptible = 0
        except JobAborted as error:
            once = definition.on_crash is OnCrash.FAIL  # it has begun, and must not begin again
            return Ended(Outcome.FAIL if once else Outcome.RELEASE, error)
        except BaseException as error:  # noqa: BLE001 - a job's SystemExit is the job's failure
            return Ended(Outcome.FAIL, error)
        return Ended(Outcome.DONE)

    def _begin(self, job: Claimed, definition: Definition) -> None:
        seat, now = self._seat, time.monotonic_ns()
        seat.claim = job.number
        seat.title = definition.name
        seat.epoch += 1
        if definition.timeout is not None:
            seat.soft_ns = now + int(definition.timeout * 1e9)
            seat.hard_ns = seat.soft_ns + int(HARD_GRACE * 1e9)
        seat.job_started_ns = now
        seat.enter(Phase.RUN, now)
        self._titled(f"performing {definition.name} since {time.strftime('%H:%M:%S')}")

    def _end(self, ended: Ended) -> None:
        seat, now = self._seat, time.monotonic_ns()
        self.took_ns = now - seat.job_started_ns
        seat.busy_ns += self.took_ns
        seat.job_started_ns = 0
        if seat.soft_ns:
            seat.soft_ns = seat.hard_ns = 0
        if ended.outcome is Outcome.DONE:
            seat.done += 1
        elif ended.outcome is Outcome.FAIL:
            seat.failed += 1


def decoded(raw: bytes) -> dict[str, Any]:
    """Return a payload for others to read, or what stands for bytes that are no job."""
    try:
        job = decode(raw) if len(raw) <= PAYLOAD_LIMIT_BYTES else None
    except InvalidPayload:
        job = None
    return job if isinstance(job, dict) else stand_in(raw)


def entry_for(job: Claimed, error: BaseException, *, worker: str, failed_at: float) -> bytes:
    """Return the failure record of a job that raised `error`, whatever that error does."""
    return failure_entry(
        raw=job.raw,
        exception=_class_name(error),
        error=_message(error),
        backtrace=_backtrace(error),
        worker=worker,
        queue=job.queue,
        failed_at=failed_at,
    )


def _class_name(error: BaseException) -> str:
    try:
        return str(type(error).__name__)
    except BaseException:  # noqa: BLE001 - a metaclass may do anything
        return "Exception"


def _message(error: BaseException) -> str:
    for describe in (str, repr):
        with contextlib.suppress(BaseException):
            text = describe(error)
            if text:
                return text
    return f"a {_class_name(error)} without a message"


def _backtrace(error: BaseException) -> list[str]:
    """Return the lines of the traceback, innermost last, without the worker's own frames."""
    try:
        told = traceback.TracebackException(
            type(error), error, _inside(error), limit=-_FRAMES, compact=True
        )
        return [line for part in told.format() for line in part.rstrip("\n").split("\n")]
    except BaseException:  # noqa: BLE001 - an exception's own methods run here
        return [f"(the traceback of {_class_name(error)} cannot be shown)"]


def _inside(error: BaseException) -> TracebackType | None:
    """Return the part of the traceback that begins in the job's own code."""
    frames = error.__traceback__
    ours = (__file__, Definition.run.__code__.co_filename)
    while frames is not None and frames.tb_frame.f_code.co_filename in ours:
        frames = frames.tb_next
    return frames

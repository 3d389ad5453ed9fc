"""Run one job, and say how it ended. Whatever a job does, the worker goes on.

The soft end of a job is an exception raised by a signal handler inside the job. It is raised
only while that very job runs: a signal that arrives late finds another number and does nothing.
"""

import contextlib
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Final, TypeVar

from forkresque.errors import (
    InvalidArgs,
    InvalidPayload,
    JobAborted,
    JobLost,
    UnknownJob,
)
from forkresque.events import WORKER_EVENTS, Emitter
from forkresque.jobs import Definition, OnCrash
from forkresque.plugins import hooks
from forkresque.plugins.base import Performance
from forkresque.protocol.claims import Claimed, Outcome
from forkresque.protocol.failure import failure_entry
from forkresque.protocol.payload import Payload, decoded, parse
from forkresque.scoreboard import Seat

HARD_GRACE = 10.0  # seconds from the soft end of a job that is over its limit to its kill
_FRAMES = 100

T = TypeVar("T")
Lend = Callable[[Claimed, str], Performance]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended, and what was raised."""

    outcome: Outcome
    error: BaseException | None = None

    @property
    def is_final(self) -> bool:
        """Return whether the job came to an end of its own."""
        return self.outcome in (Outcome.DONE, Outcome.FAIL)


@dataclass(frozen=True, slots=True)
class Concluded(Ended):
    """How a job with plugins ended.

    RETRY and REQUEUE bring it back after `delay` seconds, with so many attempts `remaining`, None
    where nobody counts. Any other outcome deletes the keys to `forget`.
    """

    delay: float = 0.0
    remaining: int | None = None
    forget: tuple[bytes, ...] = ()


DONE: Final = Ended(Outcome.DONE)  # what nearly all jobs come to


class Performer:
    """Runs jobs for one worker, one at a time.

    `took_ns` is how long the last one ran, in nanoseconds; 0 for one that could not begin.
    `result` is what it returned, if somebody listens to its success, or if `keeps_result` is set.
    `begun` is a job with plugins that has been performed and is to be concluded. `lend` makes the
    context of its hooks.
    """

    def __init__(
        self,
        jobs: Mapping[str, Definition],
        seat: Seat,
        titled: Callable[[str], None] = lambda _doing: None,
        events: Emitter | None = None,
        lend: Lend | None = None,
    ) -> None:
        self._jobs = jobs
        self._lend = lend
        self.begun: hooks.Begun | None = None
        self._seat = seat
        self._titled = titled
        self._events = events or Emitter(WORKER_EVENTS)
        self._heard = self._events.heard
        self.took_ns = 0
        self.result: object = None
        self.keeps_result = False
        self._pid = os.getpid()
        self._named = ""  # in the seat
        self._titled_at = (0, "")  # the second of the monotonic clock, and the job's name
        self._interruptible = 0  # number of the job that may be interrupted now, 0 for none

    def perform(self, job: Claimed) -> Ended:
        """Run `job` to its end; of one with plugins `conclude` is the end."""
        try:
            payload = parse(job.raw)
            definition = self._definition(payload.name)
            definition.check(payload.args)
        except (InvalidPayload, UnknownJob, InvalidArgs) as error:
            self.took_ns = 0
            self._seat.failed += 1
            self._name("(refused)")
            return Ended(Outcome.FAIL, error.with_traceback(None))  # of no use to the job's author
        if "job" in self._heard:  # before it can be interrupted
            self._events.emit("job", job.queue, decoded(job.raw))
        self._begin(job, definition)
        if definition.hooks is not None:
            return self._run_within(definition.hooks, definition, payload, job)
        ended = self._run(definition, definition.run, payload.args)
        if os.getpid() != self._pid:
            os._exit(0)  # a copy that the job forked: the original ends and settles it
        self._end(ended)
        return ended

    def conclude(self, ended: Ended) -> Ended:
        """Tell the plugins of the job in hand how it went, and return what comes of it."""
        begun, self.begun = self.begun, None
        if begun is None:
            raise AssertionError("there is nothing to conclude")
        concluded = self._concluded(begun, ended)
        if os.getpid() != self._pid:
            os._exit(0)
        self._end(concluded)
        return concluded

    def uninterrupted(self, question: Callable[[], T]) -> T:
        """Return the answer to a question that a plugin puts to Redis from within the job.

        An interrupt between a question and its answer would leave the answer to the next one. One
        that is meant for the job now is lost, and what follows it is the kill.
        """
        epoch, self._interruptible = self._interruptible, 0
        try:
            return question()
        finally:
            self._interruptible = epoch

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

    def _run_within(
        self, wanted: hooks.Hooks, definition: Definition, payload: Payload, job: Claimed
    ) -> Ended:
        """Run a job inside its hooks, up to those that are told how it went."""
        if self._lend is None:
            raise AssertionError("nobody lends this performer what plugins need")
        context = self._lend(job, definition.name)
        self.begun = begun = wanted.begin(context)

        def run(args: Sequence[object]) -> object:
            context.worker.result = begun.perform(partial(definition.run, args))
            return context.worker.result

        ended = _asked(begun)
        if ended is None:
            ended = self._run(definition, run, payload.args)
        if os.getpid() != self._pid:
            os._exit(0)
        return ended

    def _concluded(self, begun: hooks.Begun, ended: Ended) -> Ended:
        if ended.outcome not in (Outcome.DONE, Outcome.FAIL) or isinstance(ended.error, JobAborted):
            return ended
        context = begun.context
        context.error = ended.error
        begun.after()
        if self.keeps_result or "success" in self._heard:
            self.result = context.worker.result
        if (later := context.later) is not None:
            return Concluded(Outcome.RETRY, later.error, later.delay, later.remaining)
        outcome = Outcome.DONE if context.error is None else Outcome.FAIL
        return Concluded(outcome, context.error, forget=tuple(context.forgotten))

    def _run(
        self,
        definition: Definition,
        run: Callable[[Sequence[object]], object],
        args: Sequence[object],
    ) -> Ended:
        try:
            try:
                self._interruptible = self._seat.epoch
                if self.keeps_result or "success" in self._heard:
                    self.result = run(args)
                else:
                    run(args)
                _be_traced()
            finally:
                self._interruptible = 0
        except JobAborted as error:
            once = definition.on_crash is OnCrash.FAIL  # it has begun, and must not begin again
            return Ended(Outcome.FAIL if once else Outcome.RELEASE, error)
        except BaseException as error:  # noqa: BLE001 - a job's SystemExit is the job's failure
            return Ended(Outcome.FAIL, error)
        return DONE

    def _begin(self, job: Claimed, definition: Definition) -> None:
        now = time.monotonic_ns()
        soft_ns = hard_ns = 0
        if definition.timeout is not None:
            soft_ns = now + int(definition.timeout * 1e9)
            hard_ns = soft_ns + int(HARD_GRACE * 1e9)
        self._name(definition.name)
        self._seat.begin(job.number, now, soft_ns, hard_ns)
        titled_at = (now // 1_000_000_000, definition.name)
        if titled_at != self._titled_at:  # a thousand short jobs a second share one title
            self._titled_at = titled_at
            self._titled(f"performing {definition.name} since {time.strftime('%H:%M:%S')}")

    def rest(self) -> None:
        """Tell that there is no job in hand, and that none is likely to follow at once."""
        self._titled_at = (0, "")
        self._titled("idle")

    def _name(self, name: str) -> None:
        if name != self._named:
            self._seat.title = self._named = name

    def _end(self, ended: Ended) -> None:
        done = ended.outcome is Outcome.DONE
        failed = ended.outcome is Outcome.FAIL or ended.outcome is Outcome.RETRY
        self.took_ns = self._seat.end(time.monotonic_ns(), done=done, failed=failed)


def _be_traced() -> None:
    """Give a tracer that the job has left its say: if it raises, it is the job that fails."""


def _asked(begun: hooks.Begun) -> Ended | None:
    """Return how a job ended that its plugins do not let pass; None for one to perform."""
    try:
        if begun.before():
            return None
    except JobLost as error:
        return Ended(Outcome.RELEASE, error)  # settling it will change nothing
    except BaseException as error:  # noqa: BLE001 - a hook's SystemExit is the job's failure
        return Ended(Outcome.FAIL, error)
    later = begun.context.later
    return Ended(Outcome.DROP) if later is None else Concluded(Outcome.REQUEUE, None, later.delay)


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
    ours = (__file__, Definition.run.__code__.co_filename, hooks.__file__)
    while frames is not None and frames.tb_frame.f_code.co_filename in ours:
        frames = frames.tb_next
    return frames

"""How a job in hand is settled: what is written of its end, and what is told of it.

The next job comes with the answer, so this and the job itself are all there is between two jobs:
nothing is computed here that nobody wants.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from forkresque.errors import JobLost
from forkresque.events import Emitter
from forkresque.patience import Patience
from forkresque.performer import Concluded, Ended, Performer, entry_for
from forkresque.protocol.claims import Claimed, Claims, Outcome, Settled
from forkresque.protocol.connection import RedisClock
from forkresque.protocol.payload import decoded, digest, with_queue

Chance = tuple[bytes, Sequence[int]]  # the token of a claim, b"" for none, and the queues' places


class Settler:
    """Settles the jobs of the worker of that id."""

    def __init__(
        self,
        worker: str,
        claims: Claims,
        clock: RedisClock,
        performer: Performer,
        patience: Patience,
        events: Emitter,
    ) -> None:
        self._worker = worker
        self._claims = claims
        self._clock = clock
        self._performer = performer
        self._patience = patience
        self._events = events
        self._heard = events.heard

    def settle(self, job: Claimed, ended: Ended, chance: Callable[[], Chance]) -> Settled:
        """Write how `job` ended, and claim the next one if there is a `chance` to.

        Asks until Redis answers.
        """
        entry = b""
        if ended.error is not None and ended.outcome is Outcome.FAIL:
            entry = entry_for(job, ended.error, worker=self._worker, failed_at=self._clock.guess())
        terms = self._terms(job, ended) if isinstance(ended, Concluded) else {}
        token, places = chance()
        settled = self._patience.insist(
            lambda: self._claims.settle(
                job,
                ended.outcome,
                now=self._clock.now(),
                next_token=token,
                places=places,
                entry=entry,
                digest=digest(job.raw) if job.suspect and ended.is_final else "",
                **terms,
            ),
            job,
        )
        if self._heard:
            self._tell(job, ended, lost=settled.lost)
        return settled

    def put_back(self, job: Claimed) -> None:
        """Give `job` back unstarted, to the head of its queue."""
        self._patience.insist(
            lambda: self._claims.settle(job, Outcome.RELEASE, now=self._clock.now()), job
        )

    def _terms(self, job: Claimed, ended: Concluded) -> dict[str, Any]:
        """Return when a job with plugins is to come back, or what is forgotten with it."""
        if ended.outcome not in (Outcome.RETRY, Outcome.REQUEUE):
            return {"forget": ended.forget}
        if ended.delay <= 0:
            return {}
        second = math.ceil(self._patience.insist(self._clock.now, job) + ended.delay)
        return {"due": second, "until": second, "moved": with_queue(job.raw, job.queue)}

    def _tell(self, job: Claimed, ended: Ended, *, lost: bool) -> None:
        """Tell who listens how a job ended, now that Redis knows."""
        told: tuple[object, ...]
        match ended.outcome:
            case _ if lost:
                error = JobLost("the job was recovered by others meanwhile")
                self._patience.complain(error, job)
                return
            case Outcome.DONE:
                name, told = "success", (self._performer.result, self._performer.took_ns / 1e6)
            case Outcome.FAIL:
                name, told = "failure", (ended.error, self._performer.took_ns / 1e6)
            case Outcome.DROP:
                return
            case _:
                delay, remaining = 0.0, None
                if isinstance(ended, Concluded):
                    delay, remaining = ended.delay, ended.remaining
                details = {"delay": delay, "remaining_attempts": remaining, "err": ended.error}
                name, told = "re_enqueue", (details,)
        if name in self._heard:
            self._events.emit(name, job.queue, decoded(job.raw), *told)

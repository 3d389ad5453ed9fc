"""forkresque's jobs and worker without its safety: `-A bench.peers.classic_jobs`.

Only what a worker says to Redis about its jobs is replaced, by what Resque's workers have always
done, in one script: count the job that is done, pop the next, write down who has it. There is no
slot to recover it from and no token, so an answer that got lost or a killed worker loses the job,
and neither lease nor pause is looked at. All else is the same: the loop, the time limits, the
scoreboard, the master.
"""

from collections.abc import Sequence
from typing import Any

import forkresque.worker
from bench.peers.classic_script import CLASSIC
from bench.peers.forkresque_jobs import app
from bench.peers.kinds import QUEUE
from forkresque.protocol.canonical import encode
from forkresque.protocol.claims import Claimed, Claims, Nothing, Outcome, Settled
from forkresque.protocol.payload import record_head
from forkresque.protocol.script import VARYING, Prepared

__all__ = ["app"]


class ClassicClaims(Claims):
    """Claims by pop and record. Only an empty queue is asked about as usual, to be told of jobs."""

    _prepared: Prepared | None = None
    _held: Claimed | None = None  # what a usual claim brought, and a usual settle must end

    def claim(
        self, token: bytes, *, now: float, armed: bool = False, places: Sequence[int] = ()
    ) -> Claimed | Nothing:
        if not armed:
            popped = self._pop(token, now, done=b"0")
            if isinstance(popped, Claimed):
                return popped
        answer = super().claim(token, now=now, armed=armed, places=places)
        self._held = answer if isinstance(answer, Claimed) else None
        return answer

    def settle(
        self,
        job: Claimed,
        outcome: Outcome,
        *,
        now: float,
        next_token: bytes = b"",
        **terms: Any,
    ) -> Settled:
        if job is self._held:
            self._held = None
            return super().settle(job, outcome, now=now, **terms)
        if not next_token:
            return Settled(lost=False, next=Nothing.UNASKED)
        return Settled(lost=False, next=self._pop(next_token, now, done=b"1"))

    def _pop(self, token: bytes, now: float, *, done: bytes) -> Claimed | Nothing:
        if self._prepared is None:
            keys, worker = self._keys, self._worker
            self._prepared = CLASSIC.prepare(
                record=keys.worker(str(worker)),
                processed=keys.stat("processed"),
                processed_by=keys.stat("processed", worker.name),
                list=[keys.queue(QUEUE)],
                done=VARYING,
                head=VARYING,
                label=encode(QUEUE),
            )
        raw = self._link.call(self._prepared.fill(done, record_head(self._worker.name, int(now))))
        return Nothing.EMPTY if raw is None else Claimed(token, QUEUE, raw, suspect=False)


setattr(forkresque.worker, "Claims", ClassicClaims)  # noqa: B010 - it is a class, and final to mypy

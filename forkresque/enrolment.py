"""Enrolment: that Redis knows a worker, and that nothing unknown stands in its slot."""

import logging
from collections.abc import Mapping

from forkresque.errors import RedisRefused, RedisUnavailable
from forkresque.events import Emitter
from forkresque.idle import Station
from forkresque.inquest import Finding, verdict
from forkresque.jobs import Definition
from forkresque.patience import Patience
from forkresque.policy.verdicts import Blame
from forkresque.post import Post
from forkresque.protocol.connection import RedisClock
from forkresque.protocol.registry import Registry, Verdict

log = logging.getLogger("forkresque.worker")

INNOCENT = Verdict(suspect="", limit=1, fail=False, poison=b"", entry=b"")


class Enrolment:
    """The records of the worker at `post`. `stands` says whether it is registered, as we know."""

    def __init__(
        self,
        post: Post,
        registry: Registry,
        clock: RedisClock,
        jobs: Mapping[str, Definition],
        station: Station,
        events: Emitter,
    ) -> None:
        self._post = post
        self._registry = registry
        self._clock = clock
        self._jobs = jobs
        self._station = station
        self._events = events
        self.stands = False
        self.doubtful = False  # a job may stand in our slot that nobody would look for
        self.gone = False  # it has unregistered, with nothing in its slot
        self._looked_at = station.redials

    def register(self) -> None:
        """Register; what a process that is gone had in hand under this id is recovered first."""
        post = self._post
        while held := self._registry.register(
            post.worker, post.owner, post.lease, now=self._clock.now()
        ):
            account = f"worker {post.worker} has the id of a process that is gone: {held.owner}"
            log.warning("%s", account)
            finding = Finding(Blame.HOST, bool(held.token), account)
            ruling = verdict(held, finding, self._jobs, now=self._clock.now())
            self._registry.recover(held, ruling)
            self._events.emit("cleaning_worker", str(post.worker), post.worker.pid)
        self.stands = True
        self._events.emit("ping", int(self._clock.guess()))

    def recover_own_slot(self) -> None:
        """Put back a job that Redis says is ours and of which we know nothing."""
        held = self._registry.held(str(self._post.worker))
        if held.token:
            log.warning("worker=%s finds an unknown job in its slot", self._post.worker)
            self._registry.recover(held, INNOCENT)
            self.stands = False

    def clear_doubts(self, patience: Patience) -> None:
        """Put back what Redis gave us and we never heard of, or gave us again when it fell back.

        A Redis that lost the last it was told, and may have forgotten that a job has ended, is
        a Redis that was away.
        """
        if self.doubtful or self._looked_at != self._station.redials:
            self._looked_at = self._station.redials
            patience.ask_until(lambda: self._station.leaving, self.recover_own_slot)
            self.doubtful = False

    def leave(self) -> Exception | None:
        """Unregister. Returns what hindered it: then the clerk or another master will do it."""
        if not self.stands:
            return None
        try:
            self.gone = self._registry.unregister(str(self._post.worker), self._post.owner)
            if not self.gone:
                self.recover_own_slot()  # the answer to a claim was lost, and the job is there
        except (RedisUnavailable, RedisRefused) as error:
            log.warning("worker=%s could not unregister: %s", self._post.worker, error)
            return error
        return None

"""The scaling rules of seven other servers, as rules alone.

Each is told what ours is told and takes what it uses of it. Nothing else of those servers is in
here: not their prefetching, their restart limits, their polling. Constants are their defaults.
"""

import math

from forkresque.policy.autoscale import Decision, Sample


class Rule:
    """A rule that changes the number of children by so many, within the bounds."""

    name = ""
    period = 1.0  # seconds
    retires_busy = False

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most

    def step(self, sample: Sample) -> Decision | None:
        size = sample.busy + sample.idle + sample.booting
        target = max(self.least, min(self.most, size + self.change(sample, size)))
        return Decision(target, self.name, self.retires_busy) if target != size else None

    def change(self, sample: Sample, size: int) -> int:
        raise NotImplementedError


class UwsgiSpare(Rule):
    """All busy three times in a row: one more. Two or more idle three times: one less."""

    name = "uWSGI spare"

    def __init__(self, least: int, most: int) -> None:
        super().__init__(least, most)
        self._overloads = self._idle_rounds = 0

    def change(self, sample: Sample, size: int) -> int:
        if not size - sample.busy:
            self._overloads, self._idle_rounds = self._overloads + 1, 0
            if self._overloads < 3:
                return 0
            self._overloads = 0
            return 1
        self._overloads = max(0, self._overloads - 1)
        if self._overloads or size - sample.busy == 1:
            return 0
        self._idle_rounds += 1
        return -1 if self._idle_rounds % 3 == 0 else 0


class UwsgiBusyness(Rule):
    """Over half busy in three seconds: one more. Under a quarter for long: one less."""

    name = "uWSGI busyness"
    CYCLE, ROUNDS, PENALTY, BACKLOG = 3.0, 10, 2, 33

    def __init__(self, least: int, most: int) -> None:
        super().__init__(least, most)
        self._busy_before, self._cycle_at = 0.0, 0.0
        self._rounds, self._calm, self._emergencies = self.ROUNDS, 0, 0
        self._removed_at, self._next_removal_at = -math.inf, self.CYCLE * self.ROUNDS
        self._waiting_since = math.inf

    def change(self, sample: Sample, size: int) -> int:
        waiting = sample.waiting or 0
        self._waiting_since = min(self._waiting_since, sample.now) if waiting else math.inf
        if sample.now - self._cycle_at >= self.CYCLE - 0.01:
            spent = sample.busy_seconds - self._busy_before
            self._busy_before, self._cycle_at = sample.busy_seconds, sample.now
            use = spent / self.CYCLE / max(1, size)
            if use > 0.5:
                return self._grow(sample.now)
            if not self._emergency(sample.now, waiting):
                return self._shrink(sample.now) if use < 0.25 else self._between(sample.now)
        return 1 if self._emergency(sample.now, waiting) else 0

    def _emergency(self, now: float, waiting: int) -> bool:
        found = waiting > self.BACKLOG or now - self._waiting_since > 60.0
        if found:
            self._emergencies, self._rounds = self._emergencies + 1, self.ROUNDS
            self._postpone(now)
        return found

    def _grow(self, now: float) -> int:
        self._calm = 0
        lately = now - self._removed_at <= self._rounds * self.CYCLE
        self._rounds = self._rounds + self.PENALTY if lately else max(self.ROUNDS, self._rounds - 1)
        self._postpone(now)
        return 1

    def _shrink(self, now: float) -> int:
        self._calm = 0
        if now < self._next_removal_at:
            return 0
        self._removed_at, self._emergencies = now, max(0, self._emergencies - 1)
        self._postpone(now)
        return -1

    def _between(self, now: float) -> int:
        self._emergencies, self._calm = max(0, self._emergencies - 1), self._calm + 1
        if self._calm >= 3:
            self._postpone(now)
        else:
            self._next_removal_at += self.CYCLE
        return 0

    def _postpone(self, now: float) -> None:
        self._next_removal_at = now + self.CYCLE * (3 if self._emergencies else self._rounds)


class SpareServers(Rule):
    """Keep the idle ones between two numbers; what is missing is added by ever larger steps."""

    fewest, greatest = 0, 0

    def __init__(self, least: int, most: int) -> None:
        super().__init__(least, most)
        self._step = 1

    def change(self, sample: Sample, size: int) -> int:
        idle, step = size - sample.busy, self._step
        self._step = min(32, 2 * step) if idle < self.fewest and size < self.most else 1
        if idle < self.fewest:
            return min(step, self.at_once(idle))
        return -1 if idle > self.greatest else 0

    def at_once(self, idle: int) -> int:
        """Return how many may be added at the most."""
        return self.most


class PhpFpm(SpareServers):
    name = "php-fpm dynamic, 1 to 3 idle"
    fewest, greatest = 1, 3

    def at_once(self, idle: int) -> int:
        return self.fewest - idle


class Apache(SpareServers):
    name = "Apache prefork, 5 to 10 idle"
    fewest, greatest = 5, 10


class Celery(Rule):
    """As many as are running or waiting; fewer when the last growth is half a minute ago.

    What waits beyond the prefetched is invisible in the real one; four times the bound is here.
    """

    name = "Celery autoscale"
    period = 0.1

    def __init__(self, least: int, most: int) -> None:
        super().__init__(least, most)
        self._grew_at = -math.inf

    def change(self, sample: Sample, size: int) -> int:
        reserved = sample.busy + min(sample.waiting or 0, 4 * self.most)
        if min(reserved, self.most) > size:
            self._grew_at = sample.now
            return reserved - size
        return min(0, reserved - size) if sample.now - self._grew_at > 30.0 else 0


class Horizon(Rule):
    """With any backlog to the most, without to the least, one each three seconds."""

    name = "Laravel Horizon"
    period = 3.0
    retires_busy = True

    def change(self, sample: Sample, size: int) -> int:
        return 1 if sample.waiting else -1


class NodeResque(Rule):
    """One less when the event loop is late, else one more or less at half of them busy.

    Processes have no common loop: it is late when a busy one waits 10 ms for a core in 500.
    """

    name = "node-resque MultiWorker"
    period = 0.5
    retires_busy = True

    def __init__(self, least: int, most: int) -> None:
        super().__init__(least, most)
        self._waited = 0.0

    def change(self, sample: Sample, size: int) -> int:
        waited = (sample.wait or 0.0) - self._waited
        self._waited += waited
        if waited > 0.010 * max(1, sample.busy):
            return -1
        return (2 * sample.busy > size) - (2 * sample.busy < size)


RIVALS: tuple[type[Rule], ...] = (
    UwsgiSpare,
    UwsgiBusyness,
    PhpFpm,
    Apache,
    Celery,
    Horizon,
    NodeResque,
)

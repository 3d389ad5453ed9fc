"""How many workers a pool should have: more while jobs wait, fewer when workers are idle.

Samples go in, four a second; once a second a decision may come out, with its reason. Three things
are weighed. *Demand* is Little's law: the workers that are busy, and those that would clear the
standing queue within the target latency, at 80 % use. The *CPU ceiling* is what the cores bear:
a worker that waits for a core wants it as much as one that has it. The *memory ceiling* is what
fits below 90 % of the limit. Growth is geometric; a shrink is slow, takes what is idle, and gets
slower when it turns out to have been a mistake.

What is not known changes nothing: while Redis is silent, a pool stays as it is.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

PERIOD = 1.0  # seconds from one decision to the next
STANDING = 0.75  # seconds that jobs must have waited to count: shorter spikes clear by themselves
SHORT = 10  # jobs a second and worker, from which a job is short
CALM = 0.1  # of the target latency: what the workers clear in so little time is no reason
GAP = 5.0  # seconds between two samples after which the windows start over: we were suspended
USE = 0.8  # of the workers' time, when all is well
HOT = 0.9  # of the workers' time, beyond which a pool grows although nothing waits
LARGEST_STEP = 16  # workers at once

OVER = 1.25  # workers for each that would fill the cores, because none wants one all the time
SATURATED = 0.85  # of the cores in use, from which they count as used up
STARVED_WAIT = 0.15  # of the busy time, spent in waiting for a core,
STARVED_PRESSURE = 0.4  # while somebody waits for one in so much of the time: not just a jostle
CPU_PATIENCE = 10.0  # seconds beyond the CPU ceiling before busy workers leave after their job

MEMORY_USE = 0.9  # of the limit, up to which a pool grows
MEMORY_FULL = 0.95  # of the limit, from which idle workers go at once
SMALLEST_WORKER = 10 * 2**20  # bytes: a young worker owns little, but will own more

DOWN_WINDOW, LONGEST_WINDOW = 30.0, 600.0  # seconds of agreement before a shrink
DOWN_EVERY = 5.0  # seconds from one shrink to the next, of a tenth each
FLAP = 60.0  # seconds after a shrink in which a growth says that it was a mistake
_KEPT = round(LONGEST_WINDOW / PERIOD)  # values of a window


class Memory(NamedTuple):
    """Bytes: the limit, above 0; the use of it; what one worker owns alone, on average."""

    limit: int
    used: int
    worker: int


class Sample(NamedTuple):
    """What is known of one pool at one moment; counters are seconds since whenever.

    A counter that goes backwards, as sums over workers do when one dies, teaches nothing for
    that second. Workers that were asked to leave are in the counters, but not among `busy`,
    `idle` and `booting`.
    """

    now: float  # monotonic
    waiting: int | None  # jobs that could be claimed; None: Redis does not answer
    busy: int
    idle: int
    booting: int
    leaving: int = 0  # in their last job
    held: bool = False  # paused, draining, or children do not boot: change nothing
    share: float = 1.0  # own workers in all workers of these queues, other hosts included

    busy_seconds: float = 0.0  # in jobs, the running ones included
    served: float = 0.0  # the same of jobs that are over
    completed: int = 0  # jobs that are over
    age: float = 0.0  # mean seconds since the running jobs began

    cores: float = 1.0  # what affinity and quotas let us have
    pools: int = 1  # that share these cores
    cpu_used: float = 0.0  # by all who share these cores
    others: float = 0.0  # the same by the workers of the other pools
    run: float | None = None  # CPU the ready workers got; None: the kernel does not tell
    wait: float | None = None  # time they were ready to run, and did not get a core
    pressure: float | None = None  # time in which somebody waited for a core (PSI, "some")
    memory: Memory | None = None  # None: there is no limit


class Decision(NamedTuple):
    """A new target. With `retire_busy`, busy workers may be asked to leave after their job."""

    target: int
    reason: str
    retire_busy: bool = False


class Autoscaler:
    """The size of one pool, between `least` and `most` workers.

    It starts with `target` workers, if there are some already, or else with the least. A standing
    queue should be cleared in `target_latency` seconds. Raises ValueError for bounds or a latency
    that cannot be.
    """

    def __init__(
        self, least: int, most: int, target_latency: float = 5.0, *, target: int = 0
    ) -> None:
        if target_latency <= 0:
            raise ValueError(f"the target latency must be more than 0 s, got {target_latency:g}")
        self._latency = target_latency
        self._load = _Load()
        self._base: Sample | None = None  # the sample at the last decision
        self._seen_at = -math.inf
        self._pending: deque[tuple[float, int]] = deque()
        self._standing = 0  # jobs that have been waiting all the time of late
        self._wishes, self._ceilings = _Highest(), _Highest()
        self._down_window = DOWN_WINDOW
        self._shrunk_at = self._flapped_at = -math.inf
        self.target = target
        self.resize(least, most)

    def resize(self, least: int, most: int) -> None:
        """Move the bounds. A target outside goes to the nearer one, at once.

        Raises ValueError if they are not 1 <= `least` <= `most`.
        """
        if not 1 <= least <= most:
            raise ValueError(f"a pool needs 1 <= min <= max workers, got {least} and {most}")
        self.least, self.most = least, most
        self.target = max(least, min(self.target, most))

    def step(self, sample: Sample) -> Decision | None:
        """Take a sample; return the new target, if there is one."""
        gap, self._seen_at = sample.now - self._seen_at, sample.now
        if self._base is None or sample.held or sample.waiting is None or not 0 <= gap <= GAP:
            self._start_over(sample)
            return None
        self._note_pending(sample)
        if sample.now - self._base.now < PERIOD - 0.05:  # clocks are never exact
            return None
        backlog, self._standing = self._standing, self._find_standing(sample.now)
        self._load.learn(self._base, sample, backlog=backlog > 0 and self._standing > 0)
        self._base = sample
        return self._decide(sample)

    # -- what is seen ------------------------------------------------------------------------

    def _start_over(self, sample: Sample) -> None:
        """Forget what lasted how long; what was learnt of the jobs stays true."""
        self._base = sample
        self._pending.clear()
        self._standing = 0
        self._wishes, self._ceilings = _Highest(sample.now), _Highest(sample.now)

    def _coming(self, sample: Sample) -> int:
        """Return how many workers boot, or are wanted and not forked yet."""
        return max(sample.booting, self.target - sample.busy - sample.idle)

    def _note_pending(self, sample: Sample) -> None:
        """Take note of the jobs for which there is no worker, and none on its way."""
        share = _ceil((sample.waiting or 0) * sample.share)
        pending = max(0, share - sample.idle - self._coming(sample))
        self._pending.append((sample.now, pending))
        while len(self._pending) > 1 and sample.now - self._pending[1][0] >= STANDING:
            self._pending.popleft()

    def _find_standing(self, now: float) -> int:
        """Return how many jobs have been waiting all the time of late."""
        if now - self._pending[0][0] < STANDING:
            return 0
        return min(pending for _, pending in self._pending)

    # -- what is wanted ----------------------------------------------------------------------

    def _decide(self, sample: Sample) -> Decision | None:
        wanted, reason = self._demand(sample)
        wanted = min(wanted, self.most)
        by_cpu, by_memory = self._cpu_ceiling(), self._memory_ceiling(sample)
        if by_cpu < wanted:
            wanted, reason = by_cpu, f"{reason}, {_cores(self._load.cores)} good for {by_cpu}"
        if by_memory < wanted:
            wanted, reason = by_memory, f"{reason}, memory has room for {by_memory}"
        wanted = max(self.least, wanted)
        self._wishes.add(sample.now, wanted)
        # Where cores are left, too many workers do no harm: idle ones go in their time.
        self._ceilings.add(sample.now, by_cpu if self._load.saturated else math.inf)
        if wanted > self.target:
            return self._grow(sample, wanted, reason)
        return self._shrink(sample, by_memory)

    def _demand(self, sample: Sample) -> tuple[int, str]:
        busy, standing = self._load.busy, self._standing
        wanted, reason = _ceil(busy / USE), f"{busy:.1f} of {self.target} busy on average"
        if busy <= HOT * self.target:
            wanted = min(wanted, self.target)
        work = standing * self._job_length(sample) if standing else 0.0
        if work > CALM * self._latency * self.target:
            extra = min(standing, work / self._latency)
            backlog = _ceil((sample.busy + sample.idle + extra) / USE)
            if backlog >= wanted:
                wanted, reason = backlog, self._backlog_reason(sample, standing, backlog)
        return wanted, reason

    def _job_length(self, sample: Sample) -> float:
        """Return how long a job takes, in seconds: jobs that are long show by their age."""
        known = self._load.service
        return math.inf if known is None else max(known, sample.age)

    def _backlog_reason(self, sample: Sample, standing: int, backlog: int) -> str:
        all_busy = sample.busy >= self.target
        busy = f"all {sample.busy} busy" if all_busy else f"{sample.busy} of {self.target} busy"
        if self._load.service is None:
            return f"{standing} waiting, {busy}; no job is over yet"
        return f"{standing} waiting, {busy}; {backlog} would clear it in {self._latency:g} s"

    def _cpu_ceiling(self) -> int:
        """Return how many workers the cores bear."""
        load = self._load
        if load.cpu is None:
            return self.target if load.saturated else self.most
        return _ceil(OVER * load.cores / max(load.cpu, 0.01))

    def _memory_ceiling(self, sample: Sample) -> int:
        """Return how many workers fit. Those that boot count as if they had nothing yet."""
        if sample.memory is None:
            return self.most
        memory = sample.memory
        room = MEMORY_USE * memory.limit - memory.used
        ready = sample.busy + sample.idle
        return max(0, ready + math.floor(room / max(memory.worker, SMALLEST_WORKER)))

    # -- what is done ------------------------------------------------------------------------

    def _grow(self, sample: Sample, wanted: int, reason: str) -> Decision | None:
        """Double at most, and never let more boot at once than half of all, or four."""
        coming = self._coming(sample)
        room = max(4 - coming, self.target - 2 * coming)
        step = min(wanted - self.target, max(2, self.target), LARGEST_STEP, room)
        if step <= 0:
            return None
        self._note_growth(sample.now)
        return self._go_to(self.target + step, reason)

    def _note_growth(self, now: float) -> None:
        """Have patience with the next shrink if the last one was a mistake."""
        if now - self._shrunk_at < FLAP and now - self._flapped_at > DOWN_EVERY:
            self._down_window = min(LONGEST_WINDOW, 2 * self._down_window)
            self._flapped_at = now

    def _shrink(self, sample: Sample, by_memory: int) -> Decision | None:
        now, surplus = sample.now, self.target - self.least
        if self._down_window > DOWN_WINDOW and now - self._flapped_at > LONGEST_WINDOW:
            self._down_window, self._flapped_at = max(DOWN_WINDOW, self._down_window / 2), now
        if surplus <= 0 or now - self._shrunk_at < DOWN_EVERY:
            return None
        decision = (
            self._relieve_memory(sample, by_memory)
            or self._relieve_cores(sample)
            or self._let_idle_go(sample)
        )
        self._shrunk_at = now if decision else self._shrunk_at
        return decision

    def _relieve_memory(self, sample: Sample, by_memory: int) -> Decision | None:
        memory, target = sample.memory, max(by_memory, self.least, self.target - sample.idle)
        if memory is None or memory.used < MEMORY_FULL * memory.limit or target >= self.target:
            return None
        return self._go_to(target, f"memory at {memory.used / memory.limit:.0%}")

    def _relieve_cores(self, sample: Sample) -> Decision | None:
        ceiling = self._ceilings.over(sample.now, CPU_PATIENCE)
        if ceiling >= self.target:
            return None
        target = max(int(ceiling), self.least, self.target - max(1, self.target // 10))
        reason = f"{_cores(self._load.cores)} used up, good for {ceiling:g}"
        return self._go_to(target, reason, retire_busy=True)

    def _let_idle_go(self, sample: Sample) -> Decision | None:
        enough = self._wishes.over(sample.now, self._down_window)
        step = min(self.target - enough, math.ceil(self.target / 10), sample.idle)
        if step <= 0:
            return None
        idle = f"{sample.idle} of {self.target} idle"
        reason = f"{idle}, {enough:g} were enough for {self._down_window:g} s"
        return self._go_to(self.target - int(step), reason)

    def _go_to(self, target: int, reason: str, *, retire_busy: bool = False) -> Decision:
        self.target = target
        return Decision(target, reason, retire_busy)


@dataclass(slots=True)
class _Load:
    """What the last seconds have taught of the jobs and of the machine."""

    service: float | None = None  # seconds a job takes
    busy: float = 0.0  # workers busy at the same time
    cpu: float | None = None  # cores that a busy worker wants, between 0 and 1
    saturated: bool = False
    cores: float = 1.0  # what we can have

    def learn(self, before: Sample, after: Sample, *, backlog: bool) -> None:
        """Learn from the time between two samples; `backlog`: more waited all the time."""
        seconds, jobs = after.now - before.now, after.completed - before.completed
        busy = _rise(before.busy_seconds, after.busy_seconds)
        served = _rise(before.served, after.served)
        ready = min(before.busy + before.idle, after.busy + after.idle)
        if backlog and jobs > SHORT * ready * seconds:
            # Nobody was idle, only claiming, which is most of the work for a short job.
            busy = served = max(busy or 0.0, ready * seconds)
        if jobs > 0 and served is not None:
            self.service = _blend(self.service, served / jobs, min(1.0, 0.2 + 0.05 * jobs))
        mean = after.busy if busy is None else max(0.0, busy / seconds - after.leaving)
        if self.busy > after.busy + after.idle:  # an operator has taken many away at once
            self.busy = mean
        self.busy += 0.3 * (mean - self.busy)
        self._learn_cpu(before, after, busy or 0.0)

    def _learn_cpu(self, before: Sample, after: Sample, busy: float) -> None:
        seconds, cores = after.now - before.now, after.cores
        used = (_rise(before.cpu_used, after.cpu_used) or 0.0) / seconds
        run, wait = _rise(before.run, after.run), _rise(before.wait, after.wait)
        self.saturated = used >= SATURATED * cores
        if run is not None and wait is not None and busy > 0.05 * seconds:
            # Of the time in which it did not wait for a core: a share of the whole would shrink
            # with every worker that is added, and so would the reason to stop.
            self.cpu = _blend(self.cpu, run / max(run, busy - wait, 0.001), 0.5)
            pressed = min(1.0, (_rise(before.pressure, after.pressure) or 0.0) / seconds)
            starved = pressed >= STARVED_PRESSURE and wait >= STARVED_WAIT * busy
            if starved and used < SATURATED * pressed * cores:
                # While we wanted more, we did not have them all: neighbours do.
                self.saturated, cores = True, min(cores, max(1.0, used / pressed))
        others = (_rise(before.others, after.others) or 0.0) / seconds
        self.cores = max(cores / after.pools, cores - others)


@dataclass(slots=True)
class _Highest:
    """The highest of the values of late."""

    since: float = -math.inf
    values: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def add(self, now: float, value: float) -> None:
        self.values.append((now, value))

    def over(self, now: float, length: float) -> float:
        """Return the highest of `length` seconds; infinity if it is too early to say."""
        while self.values and self.values[0][0] < now - length:
            self.values.popleft()
        if now - self.since < length:
            return math.inf
        return max(value for _, value in self.values)


def _rise(before: float | None, after: float | None) -> float | None:
    """Return by how much a counter rose, or None if it is not to be trusted."""
    if before is None or after is None or after < before:
        return None
    return after - before


def _blend(old: float | None, new: float, weight: float) -> float:
    return new if old is None else old + weight * (new - old)


def _ceil(value: float) -> int:
    """Round up, but not for the last bit of a float."""
    return math.ceil(value - 1e-9)


def _cores(cores: float) -> str:
    return "1 core" if cores == 1 else f"{cores:.3g} cores"

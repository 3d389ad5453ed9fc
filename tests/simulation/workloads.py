"""Jobs and the moments at which they come: what the scaling rules are tried on."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from forkresque.policy.autoscale import Autoscaler
from forkresque.policy.births import Births
from tests.simulation.plant import Job, Machine, Pool, Queue, Scaler, World

Coming = list[tuple[float, Job]]
Change = tuple[float, Callable[[Pool], None]]  # a moment, and what becomes different then

MIB = 2**20


# -- jobs --------------------------------------------------------------------------------------


def io(seconds: float, *, cpu: float = 0.005) -> Job:
    """Return a job that waits nearly all of the time."""
    return ((cpu, seconds - cpu),)


def cpu(seconds: float) -> Job:
    """Return a job that wants a core all the time."""
    return ((seconds, 0.0),)


def mixed(cpu: float, io: float, chance: Random, *, parts: int = 5) -> Job:
    """Return a job of about so much CPU and waiting, by turns. Equal ones would march in step."""
    return tuple(
        (cpu / parts * chance.uniform(0.5, 1.5), io / parts * chance.uniform(0.5, 1.5))
        for _ in range(parts)
    )


# -- arrivals ----------------------------------------------------------------------------------


def burst(at: float, number: int, job: Job) -> Coming:
    return [(at, job)] * number


def poisson(
    rate: float, start: float, stop: float, make: Callable[[], Job], chance: Random
) -> Coming:
    """Return jobs that come independently of each other, `rate` a second."""
    coming, now = [], start + chance.expovariate(rate)
    while now < stop:
        coming.append((now, make()))
        now += chance.expovariate(rate)
    return coming


def square_wave(chance: Random) -> Coming:
    """Return half a minute of work and half a minute of rest, ten times."""
    starts = range(0, 600, 60)
    return [
        one for start in starts for one in poisson(20, start, start + 30, lambda: io(0.5), chance)
    ]


def ramp(chance: Random) -> Coming:
    """Return jobs that come ever faster for five minutes, up to 60/s, then ever slower."""
    coming: Coming = []
    for second in range(1, 600):
        rate = 60 * (1 - abs(second - 300) / 300)
        coming += poisson(rate, second, second + 1, lambda: io(0.3), chance)
    return coming


def bimodal(chance: Random) -> Coming:
    """Return short jobs among which every thirtieth is very long."""

    def make() -> Job:
        return io(0.03) if chance.random() < 0.97 else io(10.0)

    return poisson(30, 0, 300, make, chance)


def long_after_short(chance: Random) -> Coming:
    return poisson(2, 0, 60, lambda: io(0.1), chance) + burst(60.0, 10, io(300.0))


# -- scenarios ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scenario:
    """A workload, the machine it meets, and what happens to that."""

    what: str
    coming: Callable[[Random], Coming]
    seconds: float
    least: int = 2
    most: int = 64
    cores: float = 4.0
    boot: tuple[float, float] = (0.02, 0.05)  # of CPU, of waiting
    changes: tuple[Change, ...] = ()


def change(**facts: float) -> Callable[[Pool], None]:
    """Return what makes these facts of a pool true."""

    def apply(pool: Pool) -> None:
        for name, value in facts.items():
            setattr(pool, name, value)
        pool.claim()

    return apply


def steal(cores: float) -> Callable[[Pool], None]:
    """Return what takes cores away from a pool's machine."""

    def apply(pool: Pool) -> None:
        pool.machine.stolen = cores

    return apply


SCENARIOS = {
    "io burst": Scenario(
        "2,000 I/O jobs of 1 s at once", lambda _: burst(10.0, 2000, io(1.0)), 260
    ),
    "cpu burst": Scenario("400 CPU jobs of 1 s at once", lambda _: burst(10.0, 400, cpu(1.0)), 240),
    "mixed burst": Scenario(
        "600 jobs of 0.5 s CPU and 0.5 s I/O at once",
        lambda chance: [(10.0, mixed(0.5, 0.5, chance)) for _ in range(600)],
        300,
    ),
    "drip": Scenario(
        "an I/O job of 0.2 s every other second",
        lambda chance: poisson(0.5, 0, 600, lambda: io(0.2), chance),
        600,
        least=1,
    ),
    "steady": Scenario(
        "20 I/O jobs of 0.5 s a second",
        lambda chance: poisson(20, 0, 600, lambda: io(0.5), chance),
        600,
    ),
    "square wave": Scenario("the same, half a minute on, half a minute off", square_wave, 600),
    "ramp": Scenario("I/O jobs of 0.3 s, 0 to 60 a second and back in 10 min", ramp, 700),
    "long after short": Scenario(
        "ten jobs of 300 s after a minute of short ones", long_after_short, 420, least=1, most=20
    ),
    "bimodal": Scenario("30 jobs a second, 97 % of 30 ms, 3 % of 10 s", bimodal, 330),
    "slow boot": Scenario(
        "15 I/O jobs of 0.5 s a second; a boot takes 5 s, of which 3 s CPU",
        lambda chance: poisson(15, 10, 200, lambda: io(0.5), chance),
        260,
        boot=(3.0, 2.0),
    ),
    "stolen cores": Scenario(
        "3 CPU jobs of 1 s a second; neighbours take 3 of 4 cores for a minute",
        lambda chance: poisson(3.0, 0, 240, lambda: cpu(1.0), chance),
        420,
        most=32,
        changes=((60.0, steal(3.0)), (120.0, steal(0.0))),
    ),
    "memory": Scenario(
        "1,000 I/O jobs of 1 s at once; 200 MB a worker, 2 GB in all",
        lambda _: burst(10.0, 1000, io(1.0)),
        200,
        changes=((0.0, change(own=200 * MIB, limit=2048 * MIB)),),
    ),
    "silence": Scenario(
        "20 I/O jobs of 0.5 s a second; Redis is silent for a minute",
        lambda chance: poisson(20, 0, 300, lambda: io(0.5), chance),
        300,
        changes=((100.0, change(silent=True)), (160.0, change(silent=False))),
    ),
    "crash loop": Scenario(
        "300 I/O jobs of 1 s at once; for a minute no worker boots",
        lambda _: burst(5.0, 300, io(1.0)),
        240,
        changes=((5.0, change(boots_fail=True)), (65.0, change(boots_fail=False))),
    ),
    "quota": Scenario(
        "150 CPU jobs of 0.5 s at once; 1.5 cores",
        lambda _: burst(10.0, 150, cpu(0.5)),
        200,
        cores=1.5,
    ),
}


def build(scenario: Scenario, scaler: Scaler | None = None, *, seed: int = 0) -> Pool:
    """Return a pool that is about to live through a scenario, ours unless a rival is given."""
    chance, world, queue = Random(seed), World(), Queue()
    pool = Pool(
        world,
        Machine(scenario.cores),
        queue,
        scaler or Autoscaler(scenario.least, scenario.most),
        least=scenario.least,
        period=getattr(scaler, "period", 0.25),
        boot=scenario.boot,
        births=None if scaler else Births(scenario.least),
        chance=chance,
    )
    for moment, apply in scenario.changes:
        world.at(moment, lambda apply=apply: apply(pool))  # type: ignore[misc]
    world.feed(queue, scenario.coming(chance))
    return pool


def simulate(name: str, scaler: Scaler | None = None, *, seed: int = 0) -> Pool:
    """Return a pool that has lived through one of the scenarios."""
    pool = build(SCENARIOS[name], scaler, seed=seed)
    pool.world.run(SCENARIOS[name].seconds)
    return pool


# -- how it went -------------------------------------------------------------------------------


def waits(pool: Pool) -> list[float]:
    """Return how long jobs have waited, also those that still do, sorted."""
    over = [waited for _, waited in pool.queue.waits]
    return sorted(over + [pool.world.now - came_at for came_at, _ in pool.queue.jobs])


def percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def sizes(pool: Pool, start: float = 0.0, stop: float = float("inf")) -> list[int]:
    """Return how many workers there were at each tick between two moments."""
    return [seen.busy + seen.idle + seen.booting for at, seen in pool.history if start <= at < stop]


def reversals(pool: Pool) -> int:
    """Return how often the direction changed."""
    grew = [decision.target > before for _, before, decision in pool.decisions]
    return sum(one is not other for one, other in itertools.pairwise(grew))


def last_start(pool: Pool) -> float:
    """Return the moment at which the last job began."""
    return max((came_at + waited for came_at, waited in pool.queue.waits), default=0.0)

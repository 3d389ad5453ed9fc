"""Every option, declared once: the argument, the flag, the variable, the help and the check.

From `shutdown_timeout: float = option(25.0, short="-t", at_least=0, help="…")` follow the keyword
`shutdown_timeout=5`, the flag `--shutdown-timeout 5`, the variable
`FORKRESQUE_SHUTDOWN_TIMEOUT=5`, the key `shutdown_timeout = 5` of the configuration file, the help
text, the range check and the row in the README. What they are set to: see `configuration`.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from forkresque.order import Order, Refused, names, troubles

_SIZE_LIMIT = 500


def option(
    default: Any,
    *,
    help: str,
    short: str = "",
    at_least: float | None = None,
    at_most: float | None = None,
    parse: Callable[[str], Any] | None = None,
    also: tuple[str, ...] = (),
    metavar: str = "",
    many: bool = False,
    hides: tuple[str, ...] = (),
) -> Any:
    """Declare an option.

    `also` are variables of other tools that serve when ours is not set. One with `many` may be
    repeated; in its variable the items are separated by blanks. `hides` are options that count
    as not given when a weaker source gives them: `-c 4` makes nothing of FORKRESQUE_MAX.
    """
    return field(
        default=default,
        metadata={
            "help": help,
            "short": short,
            "at_least": at_least,
            "at_most": at_most,
            "parse": parse or _PARSERS.get(type(default), str),
            "also": also,
            "metavar": metavar or _METAVARS.get(type(default), "TEXT"),
            "many": many,
            "hides": hides,
        },
    )


def duration(text: str) -> float:
    """Return a length of time such as `10`, `1.5s`, `500ms`, `10m` or `2h` in seconds."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    for unit, factor in units.items():
        head = text.removesuffix(unit)
        if head != text and head.replace(".", "", 1).isdigit():
            return float(head) * factor
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no length of time")
    return value


def _truth(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True}
    words |= {"0": False, "false": False, "no": False, "off": False, "": False}
    return words[text.lower()]


def size(text: str) -> int:
    """Return a size such as `200M`, `1.5G` or plain bytes in bytes; K is 1024."""
    digits, unit = text, text[-1:].upper()
    if unit in _UNITS:
        digits = text[:-1]
    if not digits.replace(".", "", 1).isdecimal():
        raise ValueError(f"{text} is no size")
    return int(float(digits) * _UNITS.get(unit, 1))


def _one_of(*words: str) -> Callable[[str], str]:
    """Return a parser that takes one of these words, in any case."""
    known = {word: word for word in words}
    return lambda text: known[text.lower()]


@dataclass(frozen=True, slots=True)
class Size:
    """How many workers there may be, at least and at most; None is the number of cores."""

    least: int | None
    most: int | None

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Read `N`, `MIN:MAX` or `auto`, which may also stand for a half. Raises ValueError."""
        halves = [None if half == "auto" else int(half) for half in text.split(":")]
        least, most = halves if ":" in text else halves * 2
        for number in (least, most):
            if number is not None and number < 1:
                raise Refused(f"must be at least 1, got {text}")
            if number is not None and number > _SIZE_LIMIT:
                raise Refused(f"must be at most {_SIZE_LIMIT}, got {text}")
        if least is not None and most is not None and least > most:
            raise Refused(f"must not have a MIN above its MAX, got {text}")
        return cls(least, most)

    def __str__(self) -> str:
        least, most = self.least or "auto", self.most or "auto"
        return f"{least}" if least == most else f"{least}:{most}"

    def on(self, cores: int) -> tuple[int, int]:
        """Return the bounds on a machine with so many usable cores."""
        most = self.most or min(max(cores, self.least or 0), _SIZE_LIMIT)
        return self.least or min(cores, most), most


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """Workers that serve the same queues. With `least` == `most` their number is fixed."""

    queues: tuple[str, ...]
    least: int
    most: int

    @classmethod
    def parse(cls, text: str) -> "PoolSpec":
        """Read `QUEUES=N` or `QUEUES=MIN:MAX`. Raises ValueError."""
        queues, _, bounds = text.rpartition("=")
        try:
            found = Size.parse(bounds)
        except Refused as refused:
            raise Refused(f"{refused} in {text!r}") from None
        if found.least is None or found.most is None:
            raise Refused(f"must have numbers, got {text!r}")
        spec = cls(names(queues), found.least, found.most)
        for trouble in troubles(spec.queues):
            raise Refused(f"{trouble} in {text!r}")
        return spec

    @property
    def name(self) -> str:
        """Return the queues, as -q takes them."""
        return ",".join(self.queues)

    def __str__(self) -> str:
        return f"{self.name}={Size(self.least, self.most)}"


_ALL_CORES = Size(None, None)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_PARSERS: dict[type, Callable[[str], Any]] = {float: duration, bool: _truth, int: int}
_METAVARS: dict[type, str] = {float: "SECONDS", int: "N", bool: "yes|no"}


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Where the jobs are."""

    redis: str = option(
        "redis://localhost:6379/0",
        short="-u",
        also=("REDIS_URL",),
        metavar="URL",
        help="Redis: redis://, rediss://, unix://, sentinel://, cluster:// or embedded://[DIR].",
    )
    namespace: str = option("resque", help="Prefix of all keys; Resque's own is resque.")
    ack: str = option(
        "primary",
        parse=_one_of("primary", "replica", "disk"),
        metavar="primary|replica|disk",
        help="What must have a job before its enqueue returns: also a replica, or the disk.",
    )
    failure_backend: str = option(
        "redis",
        also=("FAILURE_BACKEND",),
        parse=_one_of("redis", "redis_multi_queue"),
        metavar="redis|redis_multi_queue",
        help="Failed jobs in one list for all, or as in Ruby in one for each queue.",
    )


@dataclass(frozen=True, slots=True)
class InterfaceOptions:
    """Which application the command line serves, and what it logs."""

    app: str = option(
        "",
        short="-A",
        metavar="MODULE[:ATTR]",
        help="The application: a module, or a Forkresque in it.",
    )
    log_level: str = option(
        "info",
        parse=_one_of("debug", "info", "warning", "error"),
        metavar="debug|info|warning|error",
        help="The least that is logged.",
    )
    log_format: str = option(
        "auto",
        parse=_one_of("auto", "plain", "json"),
        metavar="auto|plain|json",
        help="How logs look; auto is plain on a terminal and JSON elsewhere.",
    )
    config: str = option(
        "",
        metavar="PATH",
        help="Configuration file, instead of the first found from here upward.",
    )


@dataclass(frozen=True, slots=True)
class SupervisorOptions:
    """How a master runs its workers."""

    queues: tuple[str, ...] = option(
        ("*",),
        short="-q",
        parse=names,
        metavar="LIST",
        hides=("pools",),
        help="Queues, by priority, comma-separated; * ? [ ] { } match, !name leaves out.",
    )
    order: Order = option(  # noqa: RUF009 - it makes a field, like the others
        Order(),
        parse=Order.parse,
        metavar="strict|round_robin|QUEUE=WEIGHT,..",
        help="Which queue comes first: that of -q, each in its turn, or more often by weight.",
    )
    concurrency: Size = option(  # noqa: RUF009 - it makes a field, like the others
        _ALL_CORES,
        short="-c",
        parse=Size.parse,
        metavar="N|MIN:MAX|auto",
        hides=("min", "max", "pools"),
        help="Workers: a number, MIN:MAX to scale by load, auto for the usable cores.",
    )
    min: int = option(
        0, at_least=0, at_most=_SIZE_LIMIT, hides=("pools",), help="Fewest workers; wins over -c."
    )
    max: int = option(
        0, at_least=0, at_most=_SIZE_LIMIT, hides=("pools",), help="Most workers; wins over -c."
    )
    pools: tuple[PoolSpec, ...] = option(
        (),
        parse=PoolSpec.parse,
        metavar="QUEUES=N|MIN:MAX",
        many=True,
        hides=("queues", "concurrency", "min", "max"),
        help="Workers for these queues alone; repeat it for more pools, instead of -q and -c.",
    )
    target_latency: float = option(
        5.0, at_least=0.1, help="How long a job should wait at most; what scaling aims at."
    )
    shutdown_timeout: float = option(
        25.0, short="-t", at_least=0, help="What a job may still take after SIGTERM."
    )
    heartbeat_timeout: float = option(
        300.0, at_least=0, help="Time without a beat after which a worker is stuck; 0: never."
    )
    job_timeout: float = option(
        0.0, at_least=0, help="Limit of jobs that have none of their own; 0: none."
    )
    max_jobs: int = option(
        0, at_least=0, help="Jobs after which a worker is replaced; 0: never, 1: one process a job."
    )
    max_memory: int = option(
        0,
        at_least=0,
        parse=size,
        metavar="SIZE",
        help="Growth of a worker's own memory, such as 200M, after which it is replaced; 0: never.",
    )
    max_age: float = option(0.0, at_least=0, help="Age at which a worker is replaced; 0: never.")
    give_up: float = option(
        300.0,
        at_least=0,
        help="Exit 70 after this time without one worker ready; 0: never.",
    )
    boot_timeout: float = option(60.0, at_least=1, help="What a worker may take to get ready.")
    interval: float = option(
        1.0, at_least=0.05, help="Between polls, where Redis cannot tell of new jobs."
    )
    preload: bool = option(
        True, help="Import the application once, in the master, for all workers."
    )
    reload: bool = option(
        False, help="Reload when a file of the application changes; for development."
    )
    require_redis: bool = option(
        False, help="Exit 69 when Redis is out of reach at the start, instead of waiting for it."
    )
    host_label: str = option(
        "", help="Host part of worker ids, for containers that share a host name."
    )
    lease: float = option(
        30.0,
        at_least=6,
        help="Time without word from a host after which others take its jobs; the same on all.",
    )
    on_partition: str = option(
        "continue",
        parse=_one_of("continue", "stop"),
        metavar="continue|stop",
        help="What becomes of jobs in hand when Redis is out of reach and the lease runs out.",
    )
    stuck_worker_timeout: float = option(
        3600.0,
        at_least=0,
        help="Time without a ping after which a node-resque worker is removed; 0: never.",
    )
    audit: int = option(
        0, at_least=0, help="How many ends of jobs to keep in the stream fr:audit; 0: none."
    )
    control: str = option(
        "", metavar="PATH", help="Control socket; one master at a time may hold it."
    )

    pidfile: str = option("", metavar="PATH", help="Where to write the master's pid.")

    def pool_specs(self, cores: int) -> tuple[PoolSpec, ...]:
        """Return the pools on a machine with so many usable cores; one, unless `pools` has more."""
        return self.pools or (PoolSpec(self.queues, *self._asked().on(cores)),)

    def contradictions(self) -> Iterator[str]:
        """Yield what cannot be meant, each with the value."""
        yield from (f"queues {trouble}" for trouble in troubles(self.queues))
        asked = self._asked()
        if asked.least is not None and asked.most is not None and asked.least > asked.most:
            yield f"min must not be above max, got {asked.least} and {asked.most}"
        yield from self._contradictions_of_pools()
        yield from self._unknown_weights()
        if ":" in self.host_label:
            yield f"host_label must not hold a colon, got {self.host_label!r}"

    def _unknown_weights(self) -> Iterator[str]:
        """Yield weights of what no list names; where there are patterns, any queue may come."""
        listed = {name for spec in self.pools for name in spec.queues} or set(self.queues)
        if any(character in name for name in listed for character in "*?[{!"):
            return
        for name, weight in self.order.weights:
            if name not in listed and not any(character in name for character in "*?[{"):
                yield f"order weighs {name}={weight}, but the queues are {','.join(sorted(listed))}"

    def _asked(self) -> Size:
        return Size(self.min or self.concurrency.least, self.max or self.concurrency.most)

    def _contradictions_of_pools(self) -> Iterator[str]:
        known = [spec.name for spec in self.pools]
        yield from (
            f"pools must differ in their queues, got {name} {known.count(name)} times"
            for name in dict.fromkeys(known)
            if known.count(name) > 1
        )
        most = sum(spec.most for spec in self.pools)
        if most > _SIZE_LIMIT:
            yield f"pools must have at most {_SIZE_LIMIT} workers together, got {most}"
        for each in fields(self):
            value = getattr(self, each.name)
            if self.pools and each.name in _OF_ONE_POOL and value != each.default:
                shown = ",".join(value) if isinstance(value, tuple) else value
                yield f"{each.name} says nothing when there are pools, got {shown}"


_OF_ONE_POOL = ("queues", "concurrency", "min", "max")


def flag(name: str) -> str:
    """Return the flag of an option."""
    return "--pool" if name == "pools" else "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """Return the environment variable of an option."""
    if name == "redis":
        return "FORKRESQUE_REDIS_URL"
    return "FORKRESQUE_" + name.upper()

"""Every option, declared once: the argument, the flag, the variable, the help and the check.

From `shutdown_timeout: float = option(25.0, short="-t", at_least=0, help="…")` follow the keyword
`shutdown_timeout=5`, the flag `--shutdown-timeout 5`, the variable
`FORKRESQUE_SHUTDOWN_TIMEOUT=5`, the help text, the range check and the row in the README. A flag
beats the environment, that beats the default. Nothing else reads the environment.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

from forkresque.errors import ConfigError

T = TypeVar("T")

_SIZE_LIMIT = 500


def option(
    default: Any,
    *,
    help: str,
    short: str = "",
    at_least: float | None = None,
    parse: Callable[[str], Any] | None = None,
    also: tuple[str, ...] = (),
    metavar: str = "",
) -> Any:
    """Declare an option. `also` are variables of other tools that serve when ours is not set."""
    return field(
        default=default,
        metadata={
            "help": help,
            "short": short,
            "at_least": at_least,
            "parse": parse or _PARSERS.get(type(default), str),
            "also": also,
            "metavar": metavar or _METAVARS.get(type(default), "TEXT"),
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


def _size(text: str) -> int | str:
    return "auto" if text == "auto" else int(text)


def _one_of(*words: str) -> Callable[[str], str]:
    """Return a parser that takes one of these words, in any case."""
    known = {word: word for word in words}
    return lambda text: known[text.lower()]


def names(text: str) -> tuple[str, ...]:
    """Return the parts of a comma-separated list, without blanks."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


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
        help="Redis: redis://, rediss://, unix://, sentinel:// or embedded://[DIR].",
    )
    namespace: str = option("resque", help="Prefix of all keys; Resque's own is resque.")
    ack: str = option(
        "primary",
        parse=_one_of("primary", "replica", "disk"),
        metavar="primary|replica|disk",
        help="What must have a job before its enqueue returns: also a replica, or the disk.",
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


@dataclass(frozen=True, slots=True)
class SupervisorOptions:
    """How a master runs its workers."""

    queues: tuple[str, ...] = option(
        ("*",),
        short="-q",
        parse=names,
        metavar="LIST",
        help="Queues, by priority, comma-separated; * ? [ ] { } match, !name leaves out.",
    )
    concurrency: int | str = option(
        "auto",
        short="-c",
        parse=_size,
        at_least=1,
        metavar="N|auto",
        help="Number of workers; auto is the number of usable cores.",
    )
    shutdown_timeout: float = option(
        25.0, short="-t", at_least=0, help="What a job may still take after SIGTERM."
    )
    heartbeat_timeout: float = option(
        300.0, at_least=0, help="Time without a beat after which a worker is stuck; 0: never."
    )
    boot_timeout: float = option(60.0, at_least=1, help="What a worker may take to get ready.")
    interval: float = option(
        1.0, at_least=0.05, help="Between polls, where Redis cannot tell of new jobs."
    )
    preload: bool = option(
        True, help="Import the application once, in the master, for all workers."
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

    def contradictions(self) -> Iterator[str]:
        """Yield what cannot be meant, each with the value."""
        if not self.queues:
            yield "queues must name at least one queue, got none"
        for pattern in self.queues:
            if not pattern.lstrip("!"):
                yield f"queues must not hold an empty name, got {pattern!r}"
        if isinstance(self.concurrency, int) and self.concurrency > _SIZE_LIMIT:
            yield f"concurrency must be at most {_SIZE_LIMIT}, got {self.concurrency}"
        if ":" in self.host_label:
            yield f"host_label must not hold a colon, got {self.host_label!r}"


def flag(name: str) -> str:
    """Return the flag of an option."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """Return the environment variable of an option."""
    if name == "redis":
        return "FORKRESQUE_REDIS_URL"
    return "FORKRESQUE_" + name.upper()


def chosen(name: str, *, given: Mapping[str, Any], environ: Mapping[str, str]) -> str | None:
    """Return the text that was given for an option or stands in its variable, else None.

    It is not parsed. Variables of other tools do not count: this tells what was meant for us.
    """
    return given.get(name) or environ.get(variable(name)) or None


def resolve(kind: type[T], *, given: Mapping[str, Any], environ: Mapping[str, str]) -> T:
    """Return the options, from what was given, the environment and the defaults, in this order.

    A given None counts as not given; text is parsed. Raises ConfigError that names every
    mistake in one message.
    """
    values: dict[str, Any] = {}
    mistakes: list[str] = []
    for declared in fields(kind):  # type: ignore[arg-type]  # every kind is a dataclass
        try:
            values[declared.name] = _value(declared, given.get(declared.name), environ)
        except ValueError as error:
            mistakes.append(str(error))
    if not mistakes:
        options = kind(**values)
        mistakes = list(getattr(options, "contradictions", list)())
        if not mistakes:
            return options
    raise ConfigError("; ".join(mistakes), hint="see forkresque COMMAND --help")


def _value(declared: Field[Any], given: Any, environ: Mapping[str, str]) -> Any:
    name, source = declared.name, declared.name
    if given is None:
        for candidate in (variable(name), *declared.metadata["also"]):
            if environ.get(candidate):
                given, source = environ[candidate], candidate
                break
        else:
            return declared.default
    if isinstance(given, str):
        try:
            given = declared.metadata["parse"](given)
        except (ValueError, KeyError):
            wanted = declared.metadata["metavar"]
            raise ValueError(f"{source} must be {wanted}, got {given!r}") from None
    at_least = declared.metadata["at_least"]
    if at_least is not None and isinstance(given, int | float) and given < at_least:
        raise ValueError(f"{source} must be at least {at_least:g}, got {given}")
    return given

"""Which queues a list of patterns means, and in which order.

Names keep their place; `*`, `?`, `[…]` and `{a,b}` match what exists, sorted by name; `!name`
leaves out. With any wildcard in the list, as in Resque, a plain name still counts as itself.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import translate

from forkresque.errors import ConfigError
from forkresque.order import Refused, queue_names


def listed(queues: str | Iterable[str]) -> tuple[str, ...]:
    """Return a list of names and patterns, also of one written with commas. Raises ConfigError."""
    try:
        return queue_names(queues)
    except Refused as refused:
        raise ConfigError(f"queues {refused}", hint="write queues=['high', 'low'] or '*'") from None


def is_pattern(text: str) -> bool:
    """Return whether `text` may mean more than one queue."""
    return any(character in text for character in "*?[{") or text.startswith("!")


def shown(patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the part of the list that a worker id shows; Ruby Resque leaves exclusions out."""
    return tuple(pattern for pattern in patterns if not pattern.startswith("!")) or ("*",)


def expand(patterns: Sequence[str], existing: Iterable[str]) -> tuple[str, ...]:
    """Return the queues that `patterns` mean now, each once, the first before the second."""
    names = sorted(existing)
    excluded = [_Matcher(pattern[1:]) for pattern in patterns if pattern.startswith("!")]
    found: dict[str, None] = {}
    for pattern in shown(patterns):
        if is_pattern(pattern):
            matches = _Matcher(pattern)
            found.update((name, None) for name in names if matches(name))
        else:
            found[pattern] = None
    return tuple(name for name in found if not any(matches(name) for matches in excluded))


def matcher(pattern: str) -> Callable[[str], bool]:
    """Return what tells whether a queue is meant by a name or a pattern."""
    return _Matcher(pattern) if is_pattern(pattern) else pattern.__eq__


class _Matcher:
    def __init__(self, pattern: str) -> None:
        self._alternatives = [re.compile(translate(text)) for text in _braces(pattern)]

    def __call__(self, name: str) -> bool:
        return any(regex.match(name) for regex in self._alternatives)


def _braces(pattern: str) -> list[str]:
    """Return what `{a,b}` in a pattern stands for; fnmatch knows no braces."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    head, tail = pattern[: found.start()], pattern[found.end() :]
    return [text for choice in found[1].split(",") for text in _braces(head + choice + tail)]

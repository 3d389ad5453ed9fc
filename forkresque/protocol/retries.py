"""What node-resque's Retry and Ruby's resque-retry keep of a job that failed, byte for byte.

Neither knows jobs by anything but name and arguments: equal jobs share a counter.
"""

import re
from collections.abc import Sequence
from hashlib import sha1
from typing import Any, NamedTuple

from forkresque.protocol.canonical import reencode
from forkresque.protocol.keys import Keys, to_bytes, to_text
from forkresque.protocol.payload import utc_second

# What JavaScript calls white space, which is not quite what Python does.
_SPACE = re.compile("[\t-\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class RetryKeys(NamedTuple):
    """Where the counter and the last failure of a job are."""

    counter: bytes
    failure: bytes


def node_keys(keys: Keys, name: str, args: Sequence[Any]) -> RetryKeys:
    """Return the keys of node-resque: the arguments in full, the first blank left out."""
    joined = "-".join(map(_shown_by_node, args))
    told = to_bytes(_SURROGATE.sub("\ufffd", joined))
    counter = keys.retry(name, told if _SPACE.sub("", joined) else b"")
    return RetryKeys(_without_space(counter, 1), _without_space(keys.retry_failure(name, told), 1))


def ruby_keys(keys: Keys, name: str, args: Sequence[Any]) -> RetryKeys:
    """Return the keys of resque-retry: a digest of the arguments, no blanks at all.

    Objects among the arguments are written as JSON, which Ruby does in another way: their
    counters are not shared with Ruby's.
    """
    joined = "-".join(map(_shown_by_ruby, args)).encode("utf-8", "surrogatepass")
    told = sha1(joined, usedforsecurity=False).hexdigest().encode() if joined else b""
    failure = keys.retry_failure(name, told, bare=True)
    return RetryKeys(_without_space(keys.retry(name, told), 0), _without_space(failure, 0))


def node_record(
    *, name: str, queue: str, args: Sequence[Any], error: str, backtrace: Sequence[str], at: float
) -> bytes:
    """Return what node-resque keeps of a failed attempt. `at` is in epoch seconds, shown in UTC."""
    return reencode(
        {
            "failed_at": utc_second(at).removesuffix(" UTC"),
            "payload": list(args),
            "exception": error,
            "error": error,
            "backtrace": list(backtrace),
            "worker": name,
            "queue": queue,
        }
    )


def _shown_by_node(value: Any) -> str:
    return value if isinstance(value, str) else reencode(value).decode()


def _shown_by_ruby(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "-".join(map(_shown_by_ruby, value))
    if isinstance(value, float):
        return repr(value)
    return _shown_by_node(value)


def _without_space(key: bytes, most: int) -> bytes:
    return to_bytes(_SPACE.sub("", to_text(key), count=most))

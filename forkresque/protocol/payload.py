"""The JSON texts that pass through Redis while all is well: jobs, pings, working records.

A job is kept as the bytes that came, beside what they say, because Resque finds and removes
jobs by their bytes. How JSON is written is in canonical.py, what went wrong in failure.py.
"""

import time
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha1
from typing import Any, NamedTuple

from forkresque.errors import InvalidArgs, InvalidPayload
from forkresque.protocol.canonical import MAX_LEVELS, decode, encode

PAYLOAD_LIMIT_BYTES = 8 * 1024 * 1024
UNREADABLE = "(unreadable payload)"


class Payload(NamedTuple):
    """A job as it came from Redis. `name` is the wire's class; `raw` the very bytes."""

    name: str
    args: list[Any]
    queue: str | None
    raw: bytes


def encode_job(
    queue: str, name: str, args: Sequence[object], *, allow_bigint: bool = False
) -> bytes:
    """Return the payload of a job, its fields in node-resque's order.

    Raises InvalidArgs for an empty name and for arguments that JSON cannot carry.
    """
    if not isinstance(args, list | tuple):
        raise InvalidArgs(f"args must be a list or a tuple, got {type(args).__name__}")
    if not isinstance(name, str):
        raise InvalidArgs(f"a job's name must be a string, got {name!r}")
    # One level less, because `parse` counts the object around them.
    listed = encode(args, name="args", allow_bigint=allow_bigint, levels=MAX_LEVELS - 1)
    return b"%b%b}" % (_job_head(queue, name), listed)


@lru_cache(maxsize=256)
def _job_head(queue: str, name: str) -> bytes:
    if not name:
        raise InvalidArgs("a job needs a name, got an empty one")
    return encode({"class": name, "queue": queue})[:-1] + b',"args":'


def parse(raw: bytes, *, limit: int = PAYLOAD_LIMIT_BYTES) -> Payload:
    """Return the job in `raw`. Absent or null args mean no arguments; unknown fields are left.

    Raises InvalidPayload, with a reason of one line, for whatever else Redis may hold.
    """
    if len(raw) > limit:
        raise InvalidPayload(f"{len(raw)} bytes, more than the limit of {limit}")
    job = decode(raw)
    if type(job) is not dict:
        raise InvalidPayload(f"the payload is {_json_type(job)}, not an object")
    name, args, queue = job.get("class"), job.get("args"), job.get("queue")
    if type(name) is not str or not name:
        raise InvalidPayload(_why_no_class(job))
    if args is None:
        args = []
    elif type(args) is not list:
        raise InvalidPayload(f"args is {_json_type(args)}, not a list")
    return Payload(name, args, queue if type(queue) is str else None, raw)


def with_queue(raw: bytes, queue: str) -> bytes:
    """Return the bytes of a job that schedulers know a queue for: as they are, or with `queue`.

    Ruby's jobs name none while they wait in one.
    """
    job = decode(raw)
    if type(job.get("queue")) is str:
        return raw
    head = {"class": job.pop("class"), "queue": queue, "args": job.pop("args", None) or []}
    job.pop("queue", None)
    return encode(head | job, allow_bigint=True)


def _why_no_class(job: dict[str, Any]) -> str:
    if "class" not in job:
        return "the payload has no class"
    if job["class"] == "":
        return "class is empty"
    return f"class is {_json_type(job['class'])}, not a string"


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return names.get(type(value), "a number")


def decoded(raw: bytes) -> dict[str, Any]:
    """Return a payload for others to read, or what stands for bytes that are no job.

    Never raises.
    """
    try:
        job = decode(raw) if len(raw) <= PAYLOAD_LIMIT_BYTES else None
    except InvalidPayload:
        job = None
    return job if isinstance(job, dict) else stand_in(raw)


def stand_in(raw: bytes) -> dict[str, Any]:  # noqa: ARG001 - what could be shown may change
    """Return what stands for an unreadable payload where others read: a job that nobody has."""
    return {"class": UNREADABLE, "args": []}


def name_of(raw: bytes) -> str:
    """Return the name of the job in a payload, "" if there is none to read. Never raises."""
    try:
        return parse(raw).name
    except InvalidPayload:
        return ""


def digest(raw: bytes) -> str:
    """Return what identifies equal payloads where the bytes would be too long."""
    return sha1(raw, usedforsecurity=False).hexdigest()


def ping(name: str, queues: str, second: int) -> bytes:
    """Return a worker's sign of life. Bad JSON here would stop every node scheduler."""
    return encode({"time": second, "name": name, "queues": queues})


@lru_cache(maxsize=16)
def record_head(worker_name: str, run_at: int) -> bytes:
    """Return the start of a working record, cached for the claims of one second.

    The claim script adds the encoded queue, `,"payload":`, the raw payload and `}`.
    """
    return encode({"run_at": iso_second(run_at), "worker": worker_name})[:-1] + b',"queue":'


# -- moments, in the forms that both Ruby and JavaScript read ------------------------------


def utc_second(moment: float) -> str:
    """Return epoch seconds as in failure records: `2026/11/24 02:34:46 UTC`."""
    return time.strftime("%Y/%m/%d %H:%M:%S UTC", time.gmtime(moment))


def iso_second(moment: float) -> str:
    """Return epoch seconds as in working records: `2026-11-24T02:45:08Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def ruby_second(moment: float) -> str:
    """Return epoch seconds as a worker's start: `2026-11-24 02:34:34 +0000`."""
    return time.strftime("%Y-%m-%d %H:%M:%S +0000", time.gmtime(moment))

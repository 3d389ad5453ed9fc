"""What every job of every contestant does to be counted: sixteen bytes into a file.

Runs inside a peer's own environment: the standard library and nothing else. A record is two
little-endian 64-bit numbers: the job's number, with what happened in its top byte, and
CLOCK_MONOTONIC in ns, which all processes of a machine share. A process appends to
`$BENCH_DIR/<pid>`, opened at its first record; O_APPEND keeps records whole even if processes
share the file. In node the clock is `process.hrtime.bigint()`, in Ruby
`Process.clock_gettime(Process::CLOCK_MONOTONIC, :nanosecond)`.
"""

import os
import struct
import time

SENT, BEGAN, ENDED = 1, 2, 3
SHIFT = 56
RECORD = struct.Struct("<QQ")

_files: list[int] = []


def record(event: int, number: int) -> None:
    """Write that something happened to a job, now."""
    moment = time.monotonic_ns()
    if not _files:
        path = os.path.join(os.environ["BENCH_DIR"], str(os.getpid()))  # noqa: PTH118
        _files.append(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
    os.write(_files[0], RECORD.pack(event << SHIFT | number, moment))

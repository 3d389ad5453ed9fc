"""What this host gives us, and what our processes use of it: cores, CPU time, memory.

All of it is read from the kernel's own files. Control groups may be of version 2, of version 1, or
a mixture; a limit on a group above ours is ours as well. What a kernel or a container does not
show is None, never an error: nobody should need a permission in order to run jobs.
"""

import ctypes
import os
import re
import sys
from collections.abc import Collection, Sequence
from functools import cache, lru_cache
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

_V2 = ""  # what /proc/self/cgroup calls the hierarchy of version 2
_UNLIMITED = 1 << 60  # version 1 has no word for it, only numbers that no machine has
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


class View(NamedTuple):
    """Where the kernel shows things."""

    proc: Path = Path("/proc")
    groups: Path = Path("/sys/fs/cgroup")


class Memory(NamedTuple):
    """A limit and what is used of it, without the files that the kernel would drop."""

    limit_bytes: int
    used_bytes: int


class Consumption(NamedTuple):
    """What one process has used since it began. Times are in seconds.

    `run` and `wait` are exact, and of the main thread only: on a core, and in want of one. `cpu` is
    of all its threads, in steps of 10 ms. A fork begins with the anonymous memory of its parent,
    which costs nothing until either writes to it: what it owns is what has come on top.
    """

    run: float | None
    wait: float | None
    cpu: float | None
    anonymous_bytes: int | None


_HERE = View()


# -- the host ----------------------------------------------------------------------------------


def usable_cores(view: View = _HERE) -> float:
    """Return the cores that our affinity and the quotas of our control groups leave us."""
    return min([float(len(os.sched_getaffinity(0))), *_quotas(view)])


def cpu_used(view: View = _HERE) -> float | None:
    """Return the seconds of CPU that our control group has used so far."""
    for group in _lineage(view, "cpuacct")[:1]:
        if (nanoseconds := number_in(_read(group / "cpuacct.usage"))) is not None:
            return nanoseconds / 1e9
    for group in _lineage(view, _V2):
        if (microseconds := field_in(_read(group / "cpu.stat"), "usage_usec")) is not None:
            return microseconds / 1e6
    return None


def pressure(view: View = _HERE) -> float | None:
    """Return the seconds so far in which some task of our group, or of the host, lacked a core."""
    files = [group / "cpu.pressure" for group in _lineage(view, _V2)]
    found = (stall_in(_read(file)) for file in [*files, view.proc / "pressure" / "cpu"])
    return next((stall for stall in found if stall is not None), None)


def memory(view: View = _HERE) -> Memory | None:
    """Return the memory of whatever has the least left: our group, one above it, the machine."""
    return _tightest([*_memory_of_groups(view), _memory_of_machine(view)])


def group_memory(view: View = _HERE) -> Memory | None:
    """Return the memory of the control group that has the least left, None without a limit.

    When it is used up the kernel kills in that group, which may be all of a container.
    """
    return _tightest(_memory_of_groups(view))


def oom_kills(view: View = _HERE) -> int:
    """Return how many processes of our group the kernel has killed for want of memory.

    Where it does not count by group, those of the host; 0 where it does not count at all.
    """
    files = [group / "memory.events" for group in _lineage(view, _V2)]
    files += [group / "memory.oom_control" for group in _lineage(view, "memory")[:1]]
    found = (field_in(_read(file), "oom_kill") for file in [*files, view.proc / "vmstat"])
    return next((count for count in found if count is not None), 0)


# -- processes ---------------------------------------------------------------------------------


def consumption(pid: int, view: View = _HERE) -> Consumption | None:
    """Return what a process has used, or None if there is no such process."""
    where = view.proc / str(pid)
    stat = _read(where / "stat")
    if not stat:
        return None
    run, wait = waits_in(_read(where / "schedstat"))
    return Consumption(run, wait, cpu_in(stat), anonymous_in(_read(where / "statm")))


def anonymous_memory() -> int:
    """Return the bytes of this process' own anonymous memory, in a few microseconds; 0: unknown."""
    return anonymous_in(_read("/proc/self/statm")) or 0


def give_free_memory_back() -> None:
    """Have the C library return what was freed; it keeps some tens of megabytes, to be quick.

    Not every C library can.
    """
    if trim := getattr(_libc, "malloc_trim", None):
        trim(0)


def strangers(pid: int, known: Collection[int], view: View = _HERE) -> set[int]:
    """Return the children of the process `pid`, one thread, that are not `known`, zombies too.

    A child may be missed while another one ends; it is there the next time.
    """
    listed = f"{view.proc}/{pid}/task/{pid}/children"
    if os.access(listed, os.R_OK):
        children = {int(child) for child in _read(listed).split() if _is_number(child)}
    else:
        children = _children_by_scan(pid, view)
    return children - set(known)


def children_of(pid: int) -> bytes | None:
    """Return the kernel's list of a process' children, one thread, as it stands, None: it has none.

    Zombies are in it until they are collected.
    """
    try:
        descriptor = os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(descriptor, 1 << 16)
    finally:
        os.close(descriptor)


def become_subreaper() -> None:
    """Have the descendants that lose their parent come to this process, as they come to PID 1.

    It outlasts an exec; a fork does not inherit it.
    """
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


# -- how it is written -------------------------------------------------------------------------


def groups_in(text: str) -> dict[str, str]:
    """Return our path in each hierarchy of control groups, by controller, from /proc/self/cgroup.

    Version 2 has one hierarchy for all its controllers, with the name "".
    """
    lines = [line.split(":", 2) for line in text.splitlines() if line.count(":") > 1]
    return {name: path for _, names, path in lines for name in names.split(",")}


def number_in(text: str) -> int | None:
    """Return the number that is all of a file."""
    return int(text) if _is_number(text.strip()) else None


def field_in(text: str, name: str) -> int | None:
    """Return a number from lines of `name number`."""
    found = _field(name).search(text)
    return int(found[1]) if found else None


def quota_in(text: str) -> float | None:
    """Return the cores of a `quota period` in microseconds, or None if there is no limit."""
    words = text.split()
    if len(words) != 2 or not all(map(_is_number, words)):
        return None
    quota, period = map(int, words)
    return quota / period if quota and period else None


def stall_in(text: str) -> float | None:
    """Return the seconds in which some task has stalled, from a pressure file."""
    found = re.search(r"^some .*\btotal=([0-9]{1,20})\b", text, re.MULTILINE)
    return int(found[1]) / 1e6 if found else None


def waits_in(text: str) -> tuple[float | None, float | None]:
    """Return the seconds on a core and in want of one, from a schedstat file."""
    words = text.split()
    if len(words) != 3 or not all(map(_is_number, words)) or words[2] == "0":
        return None, None  # a kernel that does not count writes noughts
    return int(words[0]) / 1e9, int(words[1]) / 1e9


def cpu_in(stat: str) -> float | None:
    """Return the seconds of CPU of all threads from a stat file, in user and in system mode."""
    used = _fields_of(stat)[11:13]
    return sum(map(int, used)) / _TICKS if all(map(_is_number, used)) and used else None


def anonymous_in(statm: str) -> int | None:
    """Return the resident memory that belongs to no file, from a statm file.

    `status` names it, at twice the cost; `smaps_rollup` costs a walk through all page tables.
    """
    words = statm.split()[1:3]
    if len(words) != 2 or not all(map(_is_number, words)):
        return None
    resident, shared = map(int, words)
    return max(0, resident - shared) * _PAGE


# -- control groups ----------------------------------------------------------------------------


def _lineage(view: View, controller: str) -> tuple[Path, ...]:
    """Return the directories of our group and of those above it, if there is such a hierarchy."""
    return _directories(view, controller, _read(view.proc / "self" / "cgroup"))


@lru_cache(maxsize=32)
def _directories(view: View, controller: str, groups: str) -> tuple[Path, ...]:
    """Find them once for what /proc/self/cgroup says: it takes four times as long as to read it."""
    path, mount = groups_in(groups).get(controller), _mount(view, controller)
    if path is None or not os.access(mount, os.X_OK):
        return ()
    own = _visible(mount, path)
    return (own, *takewhile(lambda above: above != mount.parent, own.parents))


def _mount(view: View, controller: str) -> Path:
    if controller != _V2:
        return view.groups / controller
    hybrid = view.groups / "unified"
    return hybrid if os.access(hybrid, os.X_OK) else view.groups


def _visible(mount: Path, path: str) -> Path:
    """Return the directory of a group; a container sees a part of the tree, down from its own.

    So the beginning of the path is cut until the rest is there. Where nothing of it is, because it
    lies outside our namespace, the mount is the nearest group to ours that we can see.
    """
    names = [name for name in path.split("/") if name]
    if ".." in names:
        return mount
    ends = (mount.joinpath(*names[cut:]) for cut in range(len(names)))
    return next((end for end in ends if os.access(end, os.X_OK)), mount)


def _quotas(view: View) -> list[float]:
    """Return the CPU quotas of our groups, in cores."""
    texts = [_read(group / "cpu.max") for group in _lineage(view, _V2)]
    texts += [
        f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}"
        for group in _lineage(view, "cpu")
    ]
    return [quota for quota in map(quota_in, texts) if quota is not None]


def _memory_of_groups(view: View) -> list[Memory | None]:
    return [
        *(_memory_of_v2(group) for group in _lineage(view, _V2)),
        *(_memory_of_v1(group) for group in _lineage(view, "memory")),
    ]


def _tightest(found: Sequence[Memory | None]) -> Memory | None:
    known = [one for one in found if one is not None]
    return min(known, key=lambda one: one.limit_bytes - one.used_bytes, default=None)


def _memory_of_v2(group: Path) -> Memory | None:
    limit = number_in(_read(group / "memory.max"))
    if limit is None:
        return None
    return _memory(group, limit, file="memory.current", cached="inactive_file")


def _memory_of_v1(group: Path) -> Memory | None:
    limit = number_in(_read(group / "memory.limit_in_bytes"))
    if limit is None or limit >= _UNLIMITED:
        return None
    return _memory(group, limit, file="memory.usage_in_bytes", cached="total_inactive_file")


def _memory(group: Path, limit: int, *, file: str, cached: str) -> Memory | None:
    used = number_in(_read(group / file))
    if used is None:
        return None
    return Memory(limit, max(0, used - (field_in(_read(group / "memory.stat"), cached) or 0)))


def _memory_of_machine(view: View) -> Memory | None:
    text = _read(view.proc / "meminfo")
    total, available = field_in(text, "MemTotal:"), field_in(text, "MemAvailable:")
    if total is None or available is None:
        return None
    return Memory(total * 1024, max(0, total - available) * 1024)


# -- files -------------------------------------------------------------------------------------


def _read(path: Path | str) -> str:
    """Return what a file of the kernel says, or nothing. Half the cost of `read_text`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, 1 << 16).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def _children_by_scan(pid: int, view: View) -> set[int]:
    """Return the children of a process where the kernel keeps no list of them."""
    try:
        names = os.listdir(view.proc)  # noqa: PTH208 - names are all that is needed
    except OSError:
        return set()
    parents = {int(name): _parent_of(name, view) for name in names if name.isdecimal()}
    return {child for child, parent in parents.items() if parent == str(pid)}


def _parent_of(name: str, view: View) -> str:
    return "".join(_fields_of(_read(view.proc / name / "stat"))[1:2])


def _fields_of(stat: str) -> list[str]:
    """Return what follows the name of the process, which may contain anything."""
    return stat.rpartition(")")[2].split()


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) <= 20


@cache
def _field(name: str) -> re.Pattern[str]:
    return re.compile(rf"^{re.escape(name)}\s+([0-9]{{1,20}})\b", re.MULTILINE)

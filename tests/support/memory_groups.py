"""A control group with little memory, of version 1 or 2, or a tree that looks like one.

A group is made below our own, or on the mount, which takes a privilege. Nothing else on the
machine is touched, and it is removed when its last process is gone.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from forkresque.supervisor import resources
from forkresque.supervisor.resources import Memory, View
from tests.support.waiting import wait_until

_ROOT = Path("/sys/fs/cgroup")
_ENTER = 'echo $$ > "$0"/cgroup.procs && exec "$@"'


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """Where to run processes, and what the kernel says of them; `real` unless it is replayed."""

    view: View
    real: bool
    inside: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)

    def kills(self) -> int:
        """Return how many processes were killed for want of memory."""
        return resources.oom_kills(self.view)

    def memory(self) -> Memory | None:
        """Return what a master in it would take for its memory."""
        return resources.memory(self.view)


@contextlib.contextmanager
def memory_group(limit_bytes: int, directory: Path) -> Iterator[MemoryGroup]:
    """Give a group of the kernel's, where one can be made, and else a replay. Says which."""
    reasons = []
    for parent, limits in _parents():
        group = parent / f"forkresque-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError as error:
            reasons.append(f"{group}: {error}")
            continue
        try:
            if _limit(group, limits, limit_bytes):
                yield _kernels(group, directory)
                return
            reasons.append(f"{group}: no limit of memory there")
        finally:
            wait_until(lambda group=group: _removed(group), f"the end of all in {group}")  # type: ignore[misc]
    print("no memory group can be made here, so it is replayed:", *reasons, sep="\n  ")
    yield replayed(limit_bytes, directory)


def replayed(limit_bytes: int, directory: Path) -> MemoryGroup:
    """Return a tree of version 1 that looks like such a group."""
    view = View(directory / "proc", directory / "groups")
    files = {
        view.proc / "self/cgroup": "4:memory:/ours\n",
        (control := view.groups / "memory/ours/memory.oom_control"): "under_oom 0\noom_kill 0\n",
        view.groups / "memory/ours/memory.limit_in_bytes": f"{limit_bytes}\n",
        view.groups / "memory/ours/memory.usage_in_bytes": f"{limit_bytes * 3 // 4}\n",
    }
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return MemoryGroup(view, real=False, env={"OOM_CONTROL": str(control)})


def _parents() -> Iterator[tuple[Path, tuple[str, str]]]:
    """Yield where a group may be made, and the files of its limits: memory, and with swap."""
    paths = resources.groups_in(Path("/proc/self/cgroup").read_text())
    own = paths.get("memory", "/").strip("/")
    v1 = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    yield from ((_ROOT / "memory" / path, v1) for path in (own, "") if "memory" in paths)
    if "" in paths:  # a group of version 2 that has processes can have no groups with limits
        yield _ROOT, ("memory.max", "memory.swap.max")


def _limit(group: Path, limits: tuple[str, str], limit_bytes: int) -> bool:
    memory, swap = (group / name for name in limits)
    if not memory.exists():
        return False
    memory.write_text(str(limit_bytes))
    with contextlib.suppress(OSError):  # where swap is not counted there is none for us
        swap.write_text(str(limit_bytes) if "memsw" in swap.name else "0")
    return True


def _kernels(group: Path, directory: Path) -> MemoryGroup:
    """Return a real group, in the view of a process that is in it."""
    version = "4:memory" if (group / "memory.limit_in_bytes").exists() else "0:"
    mount = _ROOT / "memory" if version == "4:memory" else _ROOT
    (directory / "proc" / "self").mkdir(parents=True)
    (directory / "proc" / "self" / "cgroup").write_text(f"{version}:/{group.relative_to(mount)}\n")
    (directory / "proc" / "meminfo").symlink_to("/proc/meminfo")
    view = View(directory / "proc", _ROOT)
    return MemoryGroup(view, real=True, inside=["/bin/sh", "-c", _ENTER, str(group)])


def _removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()

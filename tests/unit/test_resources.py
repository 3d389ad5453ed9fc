"""What a host gives us and what processes use, from trees that look like the kernel's, and its own.

A tree is written down as the files that matter: `proc/...` and, for /sys/fs/cgroup, `groups/...`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from forkresque.supervisor import resources
from forkresque.supervisor.resources import Consumption, Memory, View

MB = 1 << 20
ALL_CORES = float(len(os.sched_getaffinity(0)))
# The quotas in here are hundredths of a core, so that they count on any machine.
V1_GROUPS = "4:memory:/our/group\n3:cpu,cpuacct:/our/group\n1:name=systemd:/elsewhere\n"


class Tree:
    """A place for files that look like the kernel's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.view = View(root / "proc", root / "groups")
        for place in (self.view.proc, self.view.groups):
            place.mkdir()

    def __setitem__(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Return an empty tree: a kernel that shows nothing."""
    return Tree(tmp_path)


@pytest.fixture
def v2(tree: Tree) -> Tree:
    """Return a host with control groups of version 2, where we are in /our/group."""
    tree["proc/self/cgroup"] = "0::/our/group\n"
    tree["groups/cgroup.controllers"] = "cpu memory\n"
    tree["groups/our/group/cgroup.procs"] = ""
    return tree


@pytest.fixture
def v1(tree: Tree) -> Tree:
    """Return a host with version 1, where we are in /our/group."""
    tree["proc/self/cgroup"] = V1_GROUPS
    for controller in ("cpu", "cpuacct", "memory"):
        tree[f"groups/{controller}/our/group/cgroup.procs"] = ""
    return tree


def meminfo(tree: Tree, total_mb: int, available_mb: int) -> None:
    tree["proc/meminfo"] = (
        f"MemTotal:       {total_mb << 10} kB\nMemFree:        1 kB\n"
        f"MemAvailable:   {available_mb << 10} kB\n"
    )


def memory_of_v2(tree: Tree, group: str, limit: str, current: int, inactive: int = 0) -> None:
    tree[f"groups/{group}/memory.max"] = f"{limit}\n"
    tree[f"groups/{group}/memory.current"] = f"{current}\n"
    tree[f"groups/{group}/memory.stat"] = f"anon 1\ninactive_file {inactive}\nactive_file 2\n"


def memory_of_v1(tree: Tree, group: str, limit: int, usage: int, inactive: int = 0) -> None:
    where = f"groups/memory/{group}"
    tree[f"{where}/memory.limit_in_bytes"] = f"{limit}\n"
    tree[f"{where}/memory.usage_in_bytes"] = f"{usage}\n"
    tree[f"{where}/memory.stat"] = f"inactive_file 7\ntotal_inactive_file {inactive}\n"


# -- cores -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("2000 100000\n", 0.02),
        ("max 100000\n", ALL_CORES),
        ("2000\n", ALL_CORES),
        ("0 0\n", ALL_CORES),
        ("2000 0\n", ALL_CORES),
        ("", ALL_CORES),
        ("junk\n", ALL_CORES),
        ("-2000 100000\n", ALL_CORES),
        ("99999999 1\n", ALL_CORES),
    ],
)
def test_a_quota_of_version_2(v2: Tree, text: str, cores: float) -> None:
    v2["groups/our/group/cpu.max"] = text

    assert resources.usable_cores(v2.view) == cores


@pytest.mark.parametrize(
    ("quota", "period", "cores"),
    [
        ("3000\n", "100000\n", 0.03),
        ("-1\n", "100000\n", ALL_CORES),
        ("3000\n", "", ALL_CORES),
        ("", "100000\n", ALL_CORES),
    ],
)
def test_a_quota_of_version_1(v1: Tree, quota: str, period: str, cores: float) -> None:
    v1["groups/cpu/our/group/cpu.cfs_quota_us"] = quota
    v1["groups/cpu/our/group/cpu.cfs_period_us"] = period

    assert resources.usable_cores(v1.view) == cores


@pytest.mark.parametrize(
    ("above", "here", "cores"),
    [("1000 100000", "5000 100000", 0.01), ("5000 100000", "1000 100000", 0.01)],
)
def test_the_least_quota_counts_wherever_it_stands(
    v2: Tree, above: str, here: str, cores: float
) -> None:
    v2["groups/our/cpu.max"] = above
    v2["groups/our/group/cpu.max"] = here

    assert resources.usable_cores(v2.view) == cores


def test_a_quota_of_version_1_on_the_mount_itself_counts(v1: Tree) -> None:
    v1["groups/cpu/cpu.cfs_quota_us"] = "1000"
    v1["groups/cpu/cpu.cfs_period_us"] = "100000"
    v1["groups/cpu/our/group/cpu.cfs_quota_us"] = "-1"
    v1["groups/cpu/our/group/cpu.cfs_period_us"] = "100000"

    assert resources.usable_cores(v1.view) == 0.01


def test_what_lies_above_the_mount_or_beside_our_group_does_not_count(v2: Tree) -> None:
    v2["cpu.max"] = "1000 100000"
    v2["groups/other/cpu.max"] = "1000 100000"
    v2["groups/our/group/below/cpu.max"] = "1000 100000"

    assert resources.usable_cores(v2.view) == ALL_CORES


def test_both_versions_count_on_a_mixed_host(v1: Tree) -> None:
    v1["proc/self/cgroup"] = V1_GROUPS + "0::/of/two\n"
    v1["groups/unified/of/two/cpu.max"] = "1000 100000"
    v1["groups/cpu/our/cpu.cfs_quota_us"] = "2000\n"
    v1["groups/cpu/our/cpu.cfs_period_us"] = "100000\n"
    assert resources.usable_cores(v1.view) == 0.01

    v1["groups/unified/of/two/cpu.max"] = "max 100000"
    assert resources.usable_cores(v1.view) == 0.02


@pytest.mark.parametrize(
    "path", ["/", "/docker/abc", "/kubepods/burstable/pod1/abc", "/../abc", "/../../our"]
)
def test_in_a_container_the_mount_is_our_group(tree: Tree, path: str) -> None:
    tree["proc/self/cgroup"] = f"0::{path}\n"
    tree["groups/cpu.max"] = "1000 100000"
    tree["groups/our/cpu.max"] = "500 100000"

    assert resources.usable_cores(tree.view) == 0.01


def test_in_a_container_a_group_below_its_own_is_found(tree: Tree) -> None:
    tree["proc/self/cgroup"] = "0::/docker/abc/inner/job\n"
    tree["groups/cpu.max"] = "5000 100000"
    tree["groups/inner/job/cpu.max"] = "1000 100000"

    assert resources.usable_cores(tree.view) == 0.01


def test_affinity_is_respected() -> None:
    script = (
        "import os; from forkresque.supervisor.resources import usable_cores;"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(usable_cores())"
    )
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)

    assert 0 < float(ran.stdout) <= 1.0


# -- CPU time ----------------------------------------------------------------------------------


def test_cpu_time_of_version_2_is_our_own_groups(v2: Tree) -> None:
    v2["groups/cpu.stat"] = "usage_usec 99000000\n"
    v2["groups/our/group/cpu.stat"] = "nr_periods 3\nusage_usec 1500000\nuser_usec 1\n"

    assert resources.cpu_used(v2.view) == 1.5


def test_cpu_time_of_version_1_is_our_own_groups(v1: Tree) -> None:
    v1["groups/cpuacct/cpuacct.usage"] = "99000000000\n"
    v1["groups/cpuacct/our/group/cpuacct.usage"] = "2500000000\n"

    assert resources.cpu_used(v1.view) == 2.5


def test_on_a_mixed_host_version_1_counts_if_it_has_the_controller(v1: Tree) -> None:
    v1["proc/self/cgroup"] = V1_GROUPS + "0::/\n"
    v1["groups/unified/cpu.stat"] = "usage_usec 7000000\n"
    assert resources.cpu_used(v1.view) == 7.0

    v1["groups/cpuacct/our/group/cpuacct.usage"] = "2500000000\n"
    assert resources.cpu_used(v1.view) == 2.5


@pytest.mark.parametrize("text", ["", "usage_usec\n", "usage_usec -5\n", "xusage_usec 5\n", "\0"])
def test_cpu_time_that_cannot_be_read_is_not_known(v2: Tree, text: str) -> None:
    v2["groups/our/group/cpu.stat"] = text

    assert resources.cpu_used(v2.view) is None


# -- pressure ----------------------------------------------------------------------------------

PRESSURE = "some avg10=0.00 avg60=1.00 avg300=0.10 total={}\nfull avg10=0.00 total=9\n"


def test_the_pressure_is_our_groups(v2: Tree) -> None:
    v2["groups/our/group/cpu.pressure"] = PRESSURE.format(2_500_000)
    v2["proc/pressure/cpu"] = PRESSURE.format(7_000_000)

    assert resources.pressure(v2.view) == 2.5


@pytest.mark.parametrize("text", ["", "full avg10=0.00 total=9\n", "some total=\n", "some total=x"])
def test_the_pressure_is_the_hosts_where_our_group_has_none(v1: Tree, text: str) -> None:
    v1["groups/unified/cpu.pressure"] = text
    v1["proc/pressure/cpu"] = PRESSURE.format(7_000_000)

    assert resources.pressure(v1.view) == 7.0


# -- memory ------------------------------------------------------------------------------------


def test_memory_of_version_2_leaves_out_files_that_can_be_dropped(v2: Tree) -> None:
    memory_of_v2(v2, "our/group", str(200 * MB), 150 * MB, 30 * MB)
    meminfo(v2, 4000, 3000)

    assert resources.memory(v2.view) == Memory(200 * MB, 120 * MB)


def test_memory_of_version_1_leaves_out_files_that_can_be_dropped(v1: Tree) -> None:
    memory_of_v1(v1, "our/group", 200 * MB, 150 * MB, 30 * MB)
    meminfo(v1, 4000, 3000)

    assert resources.memory(v1.view) == Memory(200 * MB, 120 * MB)


@pytest.mark.parametrize("limit", ["max", "", "-1", "junk"])
def test_without_a_limit_the_machine_is_the_limit(v2: Tree, limit: str) -> None:
    memory_of_v2(v2, "our/group", limit, 150 * MB)
    meminfo(v2, 4000, 3000)

    assert resources.memory(v2.view) == Memory(4000 * MB, 1000 * MB)


@pytest.mark.parametrize("limit", [9223372036854771712, 9223372036854775807, 1 << 60])
def test_what_version_1_writes_for_no_limit_is_none(v1: Tree, limit: int) -> None:
    memory_of_v1(v1, "our/group", limit, 150 * MB)
    assert resources.memory(v1.view) is None

    meminfo(v1, 4000, 3000)
    assert resources.memory(v1.view) == Memory(4000 * MB, 1000 * MB)


@pytest.mark.parametrize(
    ("above_mb", "machine_mb", "expected"),
    [
        (50, 3000, Memory(1000 * MB, 950 * MB)),
        (500, 3000, Memory(200 * MB, 100 * MB)),
        (500, 60, Memory(4000 * MB, 3940 * MB)),
    ],
)
def test_what_has_least_left_counts(
    v2: Tree, above_mb: int, machine_mb: int, expected: Memory
) -> None:
    memory_of_v2(v2, "our", str(1000 * MB), (1000 - above_mb) * MB)
    memory_of_v2(v2, "our/group", str(200 * MB), 100 * MB)
    meminfo(v2, 4000, machine_mb)

    assert resources.memory(v2.view) == expected


def test_a_limit_above_counts_where_our_own_group_has_no_controller(v2: Tree) -> None:
    memory_of_v2(v2, "our", str(100 * MB), 10 * MB)

    assert resources.memory(v2.view) == Memory(100 * MB, 10 * MB)


def test_version_1_for_memory_on_a_mixed_host(v1: Tree) -> None:
    v1["proc/self/cgroup"] = V1_GROUPS + "0::/\n"
    v1["groups/unified/cgroup.controllers"] = ""
    memory_of_v1(v1, "our", 100 * MB, 10 * MB)
    memory_of_v1(v1, "our/group", 1 << 62, 9 * MB)

    assert resources.memory(v1.view) == Memory(100 * MB, 10 * MB)


def test_a_limit_without_a_reading_is_no_use(v2: Tree) -> None:
    v2["groups/our/group/memory.max"] = "1000000"

    assert resources.memory(v2.view) is None


@pytest.mark.parametrize("text", ["", "MemTotal: 5 kB\n", "MemAvailable: 5 kB\n", "MemTotal: x\n"])
def test_a_machine_that_does_not_say_what_it_has_is_not_known(tree: Tree, text: str) -> None:
    tree["proc/meminfo"] = text

    assert resources.memory(tree.view) is None


# -- kills for want of memory ------------------------------------------------------------------


def test_kills_of_version_2(v2: Tree) -> None:
    v2["groups/our/group/memory.events"] = "low 0\noom 9\noom_kill 3\noom_group_kill 5\n"
    v2["proc/vmstat"] = "oom_kill 77\n"

    assert resources.oom_kills(v2.view) == 3


def test_kills_of_version_1(v1: Tree) -> None:
    v1["groups/memory/our/group/memory.oom_control"] = (
        "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"
    )
    v1["groups/memory/memory.oom_control"] = "oom_kill 50\n"

    assert resources.oom_kills(v1.view) == 4


def test_kills_of_the_host_where_groups_do_not_count(v1: Tree) -> None:
    v1["groups/memory/our/group/memory.oom_control"] = "oom_kill_disable 0\nunder_oom 0\n"
    v1["proc/vmstat"] = "pgfault 12\noom_kill 2\n"

    assert resources.oom_kills(v1.view) == 2


def test_no_kills_where_nobody_counts(tree: Tree) -> None:
    assert resources.oom_kills(tree.view) == 0


# -- nothing, and rubbish ----------------------------------------------------------------------


def everything(view: View) -> list[object]:
    return [
        resources.usable_cores(view),
        resources.cpu_used(view),
        resources.pressure(view),
        resources.memory(view),
        resources.oom_kills(view),
        resources.consumption(1, view),
        resources.strangers(1, set(), view),
    ]


NOTHING: list[object] = [ALL_CORES, None, None, None, 0, None, set()]


def test_a_kernel_that_shows_nothing_is_put_up_with(tree: Tree, tmp_path: Path) -> None:
    assert everything(tree.view) == NOTHING
    assert everything(View(tmp_path / "none", tmp_path / "none")) == NOTHING


FILES = [
    *("self/cgroup", "meminfo", "vmstat", "pressure/cpu", "1/statm", "1/schedstat"),
    "1/task/1/children",
]
GROUP_FILES = [
    *("cpu.max", "cpu.stat", "cpu.pressure", "memory.max", "memory.current", "memory.stat"),
    *("memory.events", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpuacct.usage"),
    *("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control"),
]
RUBBISH = [
    b"\0",
    b"\xff\xfe",
    b"::",
    b"0::",
    b"\n\n",
    b"a b c d",
    b"-1 -1 -1",
    "٣ ٣ ٣".encode(),
    b"9" * 5000,
]


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_rubbish_is_as_good_as_nothing(tree: Tree, rubbish: bytes) -> None:
    for file in FILES:
        tree[f"proc/{file}"] = ""
        (tree.view.proc / file).write_bytes(rubbish)
    for file in GROUP_FILES:
        for where in ("", "memory", "cpu", "cpuacct", "unified"):
            (tree.view.groups / where).mkdir(exist_ok=True)
            (tree.view.groups / where / file).write_bytes(rubbish)

    for groups in ("0::/\n", "4:memory:/\n2:cpu,cpuacct:/a/b\n1:cpuset\n0::/x\n", "rubbish"):
        tree["proc/self/cgroup"] = groups
        assert everything(tree.view) == NOTHING


def test_a_file_that_may_not_be_read_is_as_good_as_none(v2: Tree) -> None:
    for file in GROUP_FILES:
        (v2.view.groups / "our" / "group" / file).mkdir()  # even root cannot read this

    assert everything(v2.view) == NOTHING


# -- processes ---------------------------------------------------------------------------------

STAT = "7 (a) S 1) R {parent} 7 7 0 -1 4194368 303 0 0 0 150 25 900 900 20 0 3 0 2473762 16961536 9"


def process(tree: Tree, pid: int, parent: int = 1) -> None:
    tree[f"proc/{pid}/stat"] = STAT.format(parent=parent)


def test_what_a_process_has_used(tree: Tree) -> None:
    process(tree, 7)
    tree["proc/7/schedstat"] = "1500000000 250000000 4\n"
    tree["proc/7/statm"] = "765 434 400 5 0 123 0\n"

    used = resources.consumption(7, tree.view)

    ticks = os.sysconf("SC_CLK_TCK")
    assert used == Consumption(1.5, 0.25, 175 / ticks, 34 * os.sysconf("SC_PAGE_SIZE"))


@pytest.mark.parametrize("text", ["0 0 0\n", "", "1 2\n", "1 2 3 4\n", "a b c\n"])
def test_times_are_not_known_where_the_kernel_does_not_count_them(tree: Tree, text: str) -> None:
    process(tree, 7)
    tree["proc/7/schedstat"] = text

    used = resources.consumption(7, tree.view)

    assert used == Consumption(None, None, 175 / os.sysconf("SC_CLK_TCK"), None)


def test_a_process_that_has_gone_has_used_nothing(tree: Tree) -> None:
    assert resources.consumption(7, tree.view) is None


def test_a_stat_that_is_cut_short_has_no_time(tree: Tree) -> None:
    tree["proc/7/stat"] = "7 (a) R 1 7"

    assert resources.consumption(7, tree.view) == Consumption(None, None, None, None)


def test_strangers_by_the_kernels_own_list(tree: Tree) -> None:
    tree["proc/5/task/5/children"] = "7 8 9 "

    assert resources.strangers(5, {8, 10}, tree.view) == {7, 9}


def test_an_empty_list_means_no_children(tree: Tree) -> None:
    tree["proc/5/task/5/children"] = ""
    process(tree, 7, parent=5)

    assert resources.strangers(5, set(), tree.view) == set()


def test_strangers_where_the_kernel_keeps_no_list(tree: Tree) -> None:
    for pid, parent in ((7, 5), (8, 5), (9, 7), (10, 1), (11, 55)):
        process(tree, pid, parent)
    tree["proc/12/stat"] = ""
    tree["proc/13/cmdline"] = "ended while we looked"
    tree["proc/sys/kernel/pid_max"] = "5"

    assert resources.strangers(5, {8}, tree.view) == {7}

"""What the questions of the bench decide by themselves: whom a run counts for, and how."""

import pickle
import struct
import subprocess

import pytest

from bench.fork_per_job import ours
from bench.harness.contestant import Contestant, Group
from bench.harness.heats import heats
from bench.harness.records import BEGAN, ENDED, Event, Records
from bench.harness.report import Report
from bench.harness.roster import named
from bench.harness.stage import RunFailed
from bench.idle import CLERK, WORKER, Window, total
from bench.kill_storm import FIRST, JOBS, in_hand, numbers_of
from bench.memory import rollup

ROLLUP = """55d0-7ffd ---p 00000000 00:00 0    [rollup]
Rss:               38456 kB
Pss:               10240 kB
Private_Clean:       500 kB
Private_Dirty:      1548 kB
"""


def contestant(name: str, group: Group = Group.PYTHON) -> Contestant:
    return Contestant(name, group, "", lambda _workers: [], [], [], pace=1)


def test_memory_is_told_in_mebibytes() -> None:
    assert rollup(ROLLUP) == (10.0, 2.0)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"class":"storm","queue":"bench","args":[1700000017]}',
        b"bench.peers.kinds.storm(1700000017)",
        pickle.dumps(("storm", (1_700_000_017,), {}), protocol=2),
        pickle.dumps(("storm", (1_700_000_017,), {}), protocol=5),
    ],
)
def test_a_job_is_found_in_anybodys_payload(payload: bytes) -> None:
    assert numbers_of(payload) == {1_700_000_017}


@pytest.mark.parametrize(
    "content",
    [b"91700000017", b"17000000170", b"%d" % (FIRST + JOBS), b"J" + struct.pack("<i", FIRST - 1)],
)
def test_what_only_looks_like_a_job_is_none(content: bytes) -> None:
    assert numbers_of(content) == set()


def test_a_run_is_in_hand_until_the_same_process_has_ended_it() -> None:
    events = [
        Event(1, BEGAN, 7, 11),  # killed
        Event(2, BEGAN, 8, 12),
        Event(3, ENDED, 8, 12),
        Event(4, BEGAN, 7, 13),
        Event(5, ENDED, 7, 13),
        Event(6, BEGAN, 9, 13),
    ]
    assert in_hand(Records(events)) == [events[0], events[5]]


def test_idle_requests_are_those_of_all_windows_by_who_asked() -> None:
    windows = [Window({CLERK: 30.0, WORKER: 2.0}, 0.0, 0.0), Window({CLERK: 40.0}, 0.0, 0.0)]
    assert total(windows).median == 36.0
    assert total(windows, CLERK).median == 35.0
    assert (total(windows, WORKER).low, total(windows, WORKER).high) == (0.0, 2.0)


def test_a_peer_that_fails_is_left_out_and_told_of() -> None:
    report = Report("q", "t")
    ran: list[str] = []

    def run(each: Contestant) -> int:
        ran.append(each.name)
        if each.name == "b" and ran.count("b") == 2:
            raise RunFailed("lost a job")
        return len(ran)

    found = heats([contestant("a"), contestant("b")], 3, run, report)
    assert [(each.name, len(runs)) for each, runs in found] == [("a", 3)]
    assert ran.count("b") == 2
    assert report.notes == ["left out: b: lost a job"]


@pytest.mark.parametrize(
    "error", [subprocess.TimeoutExpired("peer", 15), FileNotFoundError("no peer"), KeyError(7)]
)
def test_a_peer_that_hangs_or_breaks_fails_no_run(error: Exception) -> None:
    report = Report("q", "t")

    def run(each: Contestant) -> str:
        if each.name == "b":
            raise error
        return each.name

    found = heats([contestant("b"), contestant("a", Group.OURS)], 2, run, report)
    assert [runs for _, runs in found] == [["a", "a"]]
    assert len(report.notes) == 1
    assert report.notes[0].startswith("left out: b: ")


def test_we_may_not_fail() -> None:
    def run(_each: Contestant) -> int:
        raise RunFailed("lost")

    with pytest.raises(RunFailed):
        heats([contestant("a", Group.OURS)], 1, run, Report("q", "t"))


def test_a_fork_a_job_is_our_usual_command_with_one_option_more() -> None:
    assert ours().start(2) == [[*named("forkresque").start(2)[0], "--max-jobs", "1"]]


def test_who_has_no_command_for_many_gets_a_process_for_each_worker() -> None:
    for name in ("node-resque", "node-multi", "sidekiq", "sidekiq-c10"):
        commands = named(name).start(3)
        assert len(commands) == 3
        assert all(command[0].rpartition("/")[2] in ("node", "sidekiq") for command in commands)

"""What one image of a process leaves to the next."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from forkresque.scoreboard import LAYOUT
from forkresque.supervisor import handover

PROGRAM = """
import json, math, os, signal, sys
from forkresque.supervisor import handover

if sys.argv[1] == "first":
    assert not handover.is_left()
    assert handover.found() is None
    reader, writer = os.pipe()
    other = os.open("/dev/null", os.O_RDONLY)
    os.write(writer, b"kept")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    state = {"pid": os.getpid(), "name": "\\u00e9", "reader": reader, "other": other}
    state |= {"limit": math.inf, "large": "x" * 300_000}
    again = [sys.executable, sys.argv[0], "second"]
    handover.execute(state, [reader], again, heard=lambda: [signal.SIGUSR2])
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
was_left = handover.is_left()
state = handover.found()
found = {
    "pid": os.getpid(),
    "was_left": was_left,
    "state": state,
    "bytes": os.read(state["reader"], 10).decode(),
    "others": [number for number in (state["other"],) if os.path.exists(f"/proc/self/fd/{number}")],
    "all_blocked": {signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1} <= blocked,
    "pending": sorted(map(int, signal.sigpending())),
    "again": [handover.is_left(), handover.found()],
}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the second image of a process has found."""
    program = tmp_path_factory.mktemp("handover") / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(program), "first"], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_the_next_image_is_the_same_process_and_finds_the_state(found: dict[str, Any]) -> None:
    state = found["state"]

    assert found["was_left"]
    assert state["pid"] == found["pid"]
    assert (state["name"], state["limit"]) == ("é", math.inf)
    assert state["large"] == "x" * 300_000
    assert state["layout"] == LAYOUT


def test_descriptors_that_were_named_are_open_and_no_others(found: dict[str, Any]) -> None:
    assert found["bytes"] == "kept"
    assert found["others"] == []


def test_all_signals_are_blocked_until_the_next_image_goes_back_to_the_old_mask(
    found: dict[str, Any],
) -> None:
    assert found["all_blocked"]
    assert found["state"]["mask"] == [signal.SIGUSR1]


def test_what_was_heard_and_not_obeyed_is_heard_again(found: dict[str, Any]) -> None:
    assert found["pending"] == [signal.SIGUSR2]


def test_what_is_left_is_found_once(found: dict[str, Any]) -> None:
    assert found["again"] == [False, None]


def test_an_image_that_cannot_be_executed_leaves_all_as_it_was(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    with pytest.raises(FileNotFoundError):
        handover.execute({}, [reader, writer], [str(tmp_path / "missing")], heard=list)

    assert not handover.is_left()
    assert handover.found() is None
    assert not os.get_inheritable(reader)
    assert not os.get_inheritable(writer)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    os.close(reader)
    os.close(writer)


def test_while_it_is_left_it_can_be_inherited() -> None:
    reader, writer = os.pipe()

    with handover.left({"a": 1}, [reader]):
        assert handover.is_left()
        assert os.get_inheritable(reader)
        assert not os.get_inheritable(writer)

    assert not handover.is_left()
    assert not os.get_inheritable(reader)
    os.close(reader)
    os.close(writer)

"""The systemd units, by systemd's own judgement."""

import subprocess
from pathlib import Path

import pytest

from forkresque.errors import ExitCode
from tests.contrib.files import CONTRIB, Unit
from tests.support.tools import program

UNITS = ("forkresque.service", "forkresque@.service")
INSTANCE = {
    "forkresque.service": "forkresque.service",
    "forkresque@.service": "forkresque@mail.service",
}
EXPOSURE = 25  # in tenths, of a hundred; systemd says OK below 50


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("systemd-analyze", "systemd"), "--no-pager", *words],
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )


@pytest.fixture(params=UNITS)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a unit whose program and user are of this machine."""
    name: str = request.param
    text = (CONTRIB / "systemd" / name).read_text()
    path = tmp_path / name
    path.write_text(
        text.replace("/srv/app/.venv/bin/forkresque", "/bin/true").replace(
            "User=app", "User=daemon"
        )
    )
    return path


def verify(unit: Path) -> subprocess.CompletedProcess[str]:
    path = str(unit.with_name(INSTANCE[unit.name]))
    return analyze("verify", "--man=no", "--recursive-errors=no", path)


def test_systemd_finds_nothing_wrong(unit: Path) -> None:
    found = verify(unit)

    assert found.returncode == 0, found.stderr
    assert unit.name not in found.stderr


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("KillMode=mixed", "KillMode=most"),
        ("WatchdogSec=30", "WatchdogSec=soon"),
        ("OOMPolicy=continue", "OOMPolitics=continue"),
        ("=/bin/true", "=/bin/missing"),
        ("SystemCallFilter=@system-service", "SystemCallFilter=@what"),
    ],
)
def test_what_is_wrong_would_be_found(unit: Path, right: str, wrong: str) -> None:
    text = unit.read_text()
    assert right in text
    unit.write_text(text.replace(right, wrong))

    found = verify(unit)

    assert found.returncode != 0 or unit.name in found.stderr


def test_little_of_the_machine_is_exposed(unit: Path) -> None:
    path = str(unit.with_name(INSTANCE[unit.name]))

    found = analyze("security", "--offline=yes", f"--threshold={EXPOSURE}", path)

    assert found.returncode == 0, found.stdout[-400:]
    assert analyze("security", "--offline=yes", "--threshold=1", path).returncode != 0


def test_the_two_units_differ_only_in_what_an_instance_has_of_its_own() -> None:
    one, many = map(Unit.read, UNITS)

    assert {key for key in one | many if one.get(key) != many.get(key)} == {
        "Description",
        "EnvironmentFile",
        "RuntimeDirectory",
        "ExecStart",
    }
    assert all("%i" in many[key] for key in ("EnvironmentFile", "RuntimeDirectory", "ExecStart"))


@pytest.mark.parametrize("name", UNITS)
def test_the_unit_says_what_the_master_expects(name: str) -> None:
    unit = Unit.read(name)

    assert (unit["Type"], unit["NotifyAccess"]) == ("notify", "main")
    assert unit["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert (unit["KillMode"], unit["OOMPolicy"]) == ("mixed", "continue")
    assert unit["Restart"] == "on-failure"
    assert set(map(int, unit["RestartPreventExitStatus"].split())) == {
        ExitCode.USAGE,
        ExitCode.CONFIG,
    }
    assert int(unit["SuccessExitStatus"]) == ExitCode.CUT
    assert unit["ExecStart"].endswith(f"--control %t/{unit['RuntimeDirectory']}/control.sock")
    assert not {"PIDFile", "MemoryDenyWriteExecute", "ProtectProc", "ProcSubset"} & unit.keys()

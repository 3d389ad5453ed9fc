"""How many cores a container leaves us."""

from pathlib import Path

import pytest

from forkresque.supervisor.limits import _quotas, usable_cores


@pytest.mark.parametrize(
    ("file", "text", "quotas"),
    [
        ("cpu.max", "150000 100000\n", [1.5]),
        ("cpu.max", "max 100000\n", []),
        ("cpu.max", "", []),
        ("cpu.max", "junk\n", []),
    ],
)
def test_a_quota_of_version_2_is_read(
    tmp_path: Path, file: str, text: str, quotas: list[float]
) -> None:
    (tmp_path / file).write_text(text)

    assert _quotas(tmp_path) == quotas


@pytest.mark.parametrize(("quota", "quotas"), [("200000", [2.0]), ("-1", [])])
def test_a_quota_of_version_1_is_read(tmp_path: Path, quota: str, quotas: list[float]) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")

    assert _quotas(tmp_path) == quotas


def test_there_is_always_one_core() -> None:
    assert usable_cores() >= 1

"""The suite is worth what it catches: known bugs are seeded, and each must be caught.

A copy of package and tests gets one bug; the tests that should notice are run there and must fail.
First they run in a copy without a bug, where they must pass, or their failing would say nothing.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.mutants import MUTANTS, Mutant, copy, run_tests
from tests.support.processes import ROOT
from tests.support.report import Report
from tests.support.sizes import sized

PASSED, FAILED = 0, 1  # pytest's exit codes


def caught(mutant: Mutant, folder: Path) -> str:
    """Return "", or what a run said in which nothing noticed."""
    root = folder / mutant.name
    root.mkdir()
    copy(root)
    mutant.seed(root)
    run = run_tests(root, mutant.caught_by)
    return (
        "" if run.returncode == FAILED else f"{mutant.name}: {run.stdout[-500:]}{run.stderr[-500:]}"
    )


def test_every_mutant_is_another_bug_in_code_that_is_there(tmp_path: Path) -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 30
    assert all(mutant.old != mutant.new for mutant in MUTANTS)
    for number, mutant in enumerate(MUTANTS):
        root = tmp_path / str(number)
        shutil.copytree(ROOT / "forkresque", root / "forkresque")
        mutant.seed(root)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("every", sized(20, 1, timeout=900))
def test_every_mutant_is_caught(tmp_path: Path, report: Report, every: int) -> None:
    """By default every twentieth, in the long size all of them."""
    mutants = MUTANTS[::every]
    sound = tmp_path / "without a bug"
    sound.mkdir()
    copy(sound)
    run = run_tests(sound, *(mutant.caught_by for mutant in mutants))
    assert run.returncode == PASSED, run.stdout[-2000:]

    with ThreadPoolExecutor(2) as pool:
        missed = [said for said in pool.map(lambda one: caught(one, tmp_path), mutants) if said]

    report.count("mutants caught", len(mutants) - len(missed))
    report.count("mutants survived", len(missed))
    assert not missed, "\n".join(missed)

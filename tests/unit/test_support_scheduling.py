"""Patient tests go to one process, and every other file is a piece of work of its own."""

import pytest

from tests.support.scheduling import ROOT, PatientTogether, has_patient_tests

PATIENT = "tests/reliability/test_partition.py"


@pytest.mark.parametrize(
    ("path", "is_so"),
    [
        (PATIENT, True),
        ("tests/processes/test_signals.py", True),
        ("tests/unit/test_payload.py", False),
        ("tests/nowhere.py", False),
    ],
)
def test_a_file_with_patient_tests_is_known(path: str, *, is_so: bool) -> None:
    assert has_patient_tests(path) is is_so


def test_every_file_that_is_patient_is_known() -> None:
    users = [
        path
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "support.patience import" in path.read_text("utf-8")
    ]
    known = [path for path in users if has_patient_tests(str(path.relative_to(ROOT)))]

    assert len(known) > 20
    others = {path.name for path in users} - {path.name for path in known}
    assert others <= {"test_support_patience.py", "test_support_scheduling.py"}, others


def test_they_make_one_piece_of_work() -> None:
    scheduler = PatientTogether.__new__(PatientTogether)
    names = (
        f"{PATIENT}::test_a[small]",
        "tests/reliability/test_poison.py::test_b",
        "tests/a.py::c",
    )

    assert [scheduler._split_scope(name) for name in names] == ["patient", "patient", "tests/a.py"]

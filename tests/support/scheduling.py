"""Which tests go to the same of the processes that run them: those of a file, and all patient ones.

Whoever runs one patient test runs all of them (see patience.py), so one process does.
"""

import re
from functools import cache
from pathlib import Path

from xdist.scheduler.loadfile import LoadFileScheduling  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
_MAKES_PATIENT = re.compile(r"^@patient$|= looking_back\(", re.MULTILINE)


@cache
def has_patient_tests(path: str) -> bool:
    """Return whether there are patient tests in a file, told by its path in the checkout."""
    file = ROOT / path
    return file.is_file() and bool(_MAKES_PATIENT.search(file.read_text("utf-8")))


class PatientTogether(LoadFileScheduling):  # type: ignore[misc]  # it has no types
    """Gives out files one by one, and those with patient tests as if they were one."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "patient" if has_patient_tests(path) else path

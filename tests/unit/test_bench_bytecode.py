"""The bench compares installations: its own side has bytecode as well."""

import sys
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from bench.harness import bytecode


def test_a_checkout_gets_the_bytecode_that_python_may_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    module = tmp_path / "below" / "module.py"
    module.parent.mkdir()
    module.write_text("VALUE = 1\n")

    bytecode.complete([tmp_path])

    assert Path(cache_from_source(str(module))).exists()

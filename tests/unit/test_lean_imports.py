"""What is not imported, where it would cost time that somebody waits for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from forkresque.cli.program import COMMANDS

ROOT = Path(__file__).parents[2]
TELL = "import json, sys; print('MODULES', json.dumps(sorted(sys.modules)))"
DATACLASSES = 52  # of a start: each is compiled at import, for 0.4 ms; a NamedTuple takes 0.06 ms
LINE = 62  # characters of a summary that fit beside a command's name

# Redis' client alone takes twice as long as all that help needs.
HEAVY = {"asyncio", "difflib", "email", "redis", "ssl", "subprocess", "tempfile"}
HEAVY |= {"logging", "psutil", "socket", "tomllib", "forkresque.app", "forkresque.connection"}
# What a start with no configuration file, no embedded server, no screen and no web does not need.
UNUSED = {"difflib", "http.client", "multiprocessing", "psutil", "textual", "tomllib", "watchfiles"}
UNUSED |= {"forkresque.lookout", "forkresque.scheduler", "forkresque.cli.failed"}


def modules_after(script: str, *words: str) -> set[str]:
    """Return what a new interpreter has imported at the end of a script."""
    code = f"import atexit\natexit.register(lambda: exec({TELL!r}))\n{script}"
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    told = next(line for line in done.stdout.splitlines() if line.startswith("MODULES "))
    return set(json.loads(told.removeprefix("MODULES ")))


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_imports_no_client_and_no_command(word: str) -> None:
    modules = modules_after("from forkresque.cli import main; main()", word)

    assert "forkresque.cli.program" in modules
    assert modules & HEAVY == set()
    assert not {f"forkresque.cli.{home.module}" for home in COMMANDS.values()} & modules


def test_a_start_imports_nothing_that_it_may_not_need() -> None:
    script = "import forkresque.cli.start, forkresque.supervisor.beginning"

    modules = modules_after(script)

    assert {"forkresque.worker", "forkresque.supervisor.clerk", "redis"} <= modules
    assert modules & UNUSED == set()


def test_a_start_makes_few_classes_from_source() -> None:
    script = """
import dataclasses, sys
import forkresque.cli.start, forkresque.supervisor.beginning
ours = [each for name, each in sys.modules.items() if name.startswith("forkresque.")]
own = [(each.__name__, value) for each in ours for value in vars(each).values()
       if isinstance(value, type) and dataclasses.is_dataclass(value)]
print("MADE", len(ours), sum(value.__module__ == home for home, value in own))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )

    _, modules, made = done.stdout.split()
    assert int(modules) > 100
    assert 10 < int(made) <= DATACLASSES


def test_the_package_alone_imports_nothing() -> None:
    modules = modules_after("import forkresque")

    assert [name for name in modules if name.startswith("forkresque.")] == []
    assert modules & HEAVY == set()


def test_a_summary_is_one_line_of_the_list_of_commands() -> None:
    for name, home in COMMANDS.items():
        assert home.summary.endswith("."), name
        assert len(home.summary) <= LINE, name


def test_what_a_start_imports_is_kept_from_the_garbage_collector() -> None:
    script = """
import gc, sys
from forkresque.cli.importing import settle_in, uncollected
with uncollected():
    import forkresque.cli.start, forkresque.supervisor.beginning
    off, before = gc.isenabled(), len(gc.get_objects())
    settle_in()
    print("FOUND", off, gc.isenabled(), len(gc.get_objects()) < before / 20)
print("AFTER", gc.isenabled())
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )

    assert done.stdout.splitlines() == ["FOUND False False True", "AFTER True"]

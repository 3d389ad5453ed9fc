"""How a command ends: what was asked for at exit is done, and nothing is taken apart."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PREAMBLE = """
import atexit, sys, threading
from forkresque.cli import main

class Heavy:
    def __del__(self):
        sys.stdout.write("taken apart\\n")

heavy = Heavy()
heavy.itself = heavy
atexit.register(lambda: sys.stdout.write("asked for\\n"))
"""


def ended(script: str, *words: str) -> tuple[int, str]:
    """Return the exit code and the output of a script."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + script, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.returncode, done.stdout


def test_what_was_asked_for_at_exit_is_done_and_no_more() -> None:
    code, output = ended("main()", "--version")

    assert code == 0
    assert output.splitlines()[0].startswith("forkresque ")
    assert output.splitlines()[1:] == ["asked for"]


def test_the_exit_code_is_the_commands() -> None:
    assert ended("main()", "no-such-command") == (2, "asked for\n")


def test_where_a_thread_is_alive_the_interpreter_waits_for_it() -> None:
    script = """
threading.Timer(0.1, lambda: sys.stdout.write("waited for\\n")).start()
main()
"""
    code, output = ended(script, "--version")

    assert code == 0
    assert output.splitlines()[1:] == ["waited for", "asked for", "taken apart"]

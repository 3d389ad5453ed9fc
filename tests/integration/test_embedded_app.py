"""An application on an embedded server, without any command line."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from forkresque import Forkresque
app = Forkresque("embedded://" + sys.argv[1])
@app.job("add", queue="math")
def add(a, b): return a + b
add.enqueue(1, 2)
print(app.queue.length("math"))
"""


def run(directory: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(directory)], capture_output=True, text=True, timeout=25
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_jobs_outlive_the_process_that_enqueued_them(tmp_path: Path) -> None:
    assert run(tmp_path / "store") == "1"
    assert run(tmp_path / "store") == "2"
    assert not list((tmp_path / "store").glob("*.sock"))

"""The application of `jobs.py`, and a job from whose process group a process escapes."""

import os
import signal

from tests.support.jobs import app, ledger


@app.job("escape", queue="math")
def escape(name: str) -> None:
    """Start a process as daemons do; it tells `started:<name>` its pid, and waits for ever."""
    reader, writer = os.pipe()
    between = os.fork()
    if not between:
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(writer, str(os.getpid()).encode())
        while True:
            signal.pause()
    os.waitpid(between, 0)
    ledger().rpush(f"started:{name}", int(os.read(reader, 20)))
    os.close(reader)
    os.close(writer)

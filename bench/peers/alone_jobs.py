"""Jobs for the questions that only forkresque is asked: `-A bench.peers.alone_jobs`."""

import os
import time
from pathlib import Path

from bench.peers.forkresque_jobs import app
from bench.peers.kinds import QUEUE
from bench.peers.recording import BEGAN, record

__all__ = ["QUEUE", "app"]

WORK_SECONDS = 0.005


@app.job("nothing", queue=QUEUE)
def nothing() -> None:
    pass


@app.job("work", queue=QUEUE)
def work(number: int) -> None:
    """Take 5 ms."""
    record(BEGAN, number)
    time.sleep(WORK_SECONDS)


@app.job("victim", queue=QUEUE)
def victim(number: int) -> None:
    """Wait to be killed, the first time."""
    record(BEGAN, number)
    mark = Path(os.environ["BENCH_MARKS"]) / str(number)
    if not mark.exists():
        mark.touch()
        time.sleep(60)

"""The sample jobs of `forkresque demo`. Each tells what it does in a list that the demo reads."""

import json
import os
import signal
import threading

from forkresque.app import Forkresque

EVENTS = "demo:events"
_CRASHED = "demo:crashed:"
_MEMORY = 60  # seconds for which a crash is remembered

app = Forkresque(ack="primary")  # a new server has no replica


def tell(kind: str, text: str) -> None:
    """Put a line where the demo reads it."""
    app.queue.store.client.command(
        "RPUSH", EVENTS, json.dumps({"kind": kind, "text": text, "pid": os.getpid()})
    )


@app.job("demo.fast", queue="demo")
def fast(number: int) -> None:
    """Do next to nothing."""
    if number % 100 == 0:
        tell("fast", f"job {number} done")


@app.job("demo.slow", queue="demo")
def slow(seconds: float) -> None:
    """Take some time."""
    tell("slow", f"begins, takes {seconds:g} s; Ctrl-C now would let it finish")
    threading.Event().wait(seconds)
    tell("slow", "done")


@app.job("demo.failing", queue="demo")
def failing(order: int) -> None:
    """Raise an exception."""
    tell("failing", f"raises: order {order} goes to the failed list")
    raise ValueError(f"order {order} has no address")


@app.job("demo.delayed", queue="demo")
def delayed(asked_at: str) -> None:
    """Run later."""
    tell("delayed", f"asked for at {asked_at}, run by the scheduler's word now")


@app.job("demo.crash", queue="demo")
def crash(name: str) -> None:
    """Kill the worker that runs it; the second time, be content."""
    first = app.queue.store.client.command("SET", _CRASHED + name, "1", "NX", "EX", _MEMORY)
    if first:
        tell("crash", "kills its own worker with SIGKILL")
        os.kill(os.getpid(), signal.SIGKILL)
    tell("crash", "is back after its worker died, and done: nothing was lost")

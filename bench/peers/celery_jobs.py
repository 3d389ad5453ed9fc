"""Celery's tasks, and its producer."""

import os

from celery import Celery

from bench.peers.kinds import KINDS, QUEUE
from bench.peers.producing import produce

app = Celery("bench", broker=os.environ["BENCH_REDIS"])
app.conf.update(
    task_ignore_result=True,
    task_default_queue=QUEUE,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)
tasks = {name: app.task(name=name)(function) for name, function in KINDS.items()}


def put(kind: str, number: int) -> None:
    tasks[kind].apply_async((number,))


if __name__ == "__main__":
    produce(put)

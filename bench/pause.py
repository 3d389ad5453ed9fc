"""How fast does a pause take effect?

    python -m bench.pause --full

A queue that never gets empty, then SIGUSR1 to the master: until when do jobs begin? It is the last
job's record minus the signal, and 0 if none came after it. How fast pools start and stop is asked
by `bench.lifecycle`, beside the peers.
"""

import signal
import time

from bench.harness.ours import ALONE
from bench.harness.question import Plan, Question
from bench.harness.report import Report, quantiles
from bench.harness.stage import RunFailed, Stage

_STORM = 30_000  # jobs that a pause meets
_WAIT = 0.3  # seconds before and after the signal


def pauses(workers: int, count: int) -> list[float]:
    """Return how many ms after SIGUSR1 the last job began, `count` times."""
    found = []
    with Stage(ALONE, workers=workers) as stage, stage.server.client() as client:
        stage.start()
        stage.warm_up()
        [master] = stage.processes
        for _ in range(count):
            stage.put("noop", _STORM)
            time.sleep(_WAIT)
            signalled_ns = time.monotonic_ns()
            master.send_signal(signal.SIGUSR1)
            time.sleep(_WAIT)
            last = stage.records().moments()[-1]
            if not client.llen("resque:queue:bench"):
                raise RunFailed("the storm was over at the signal")
            found.append(max(0, last - signalled_ns) / 1e6)
            client.delete("resque:queue:bench")
            master.send_signal(signal.SIGCONT)
    return found


def measure(plan: Plan, report: Report) -> None:
    """Pause with each number of workers."""
    rows = []
    for workers in plan.counts(quick=(2, 8), full=(2, 8)):
        found = pauses(workers, 20 if plan.full else 5)
        rows.append([str(workers), str(len(found)), *quantiles(found)])
        report.figure("forkresque", workers=workers, ms=sorted(found))
    head = ["workers", "pauses", "min", "p50", "p99", "max"]
    report.table("From SIGUSR1 until the last job has begun, ms", head, rows)


QUESTION = Question("pause", "How fast does a pause take effect?", measure)

if __name__ == "__main__":
    QUESTION.main()

"""The most that a fork for each job allows: pop and record in one script, fork, run, wait.

Not a product. Resque's own keys, so that forkresque's producer feeds it.

    python -m bench.peers.fork_loop
"""

import os

from bench.peers.limit_loop import perform, popped


def main() -> None:
    for raw in popped(os.environ["BENCH_REDIS"]):
        pid = os.fork()
        if not pid:
            perform(raw)
            os._exit(0)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()

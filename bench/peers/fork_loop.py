"""The most that a fork for each job allows: pop and record in one script, fork, run, wait.

Not a product. Resque's own keys, so that forkresque's producer feeds it.

    python -m bench.peers.fork_loop
"""

import os
import time

from bench.peers.limit_loop import connected, perform

_REST = 0.005  # seconds between two looks at an empty queue


def main() -> None:
    connection, packed = connected(os.environ["BENCH_REDIS"])
    while True:
        connection.send_packed_command(packed, check_health=False)
        raw = connection.read_response()
        if raw is None:
            time.sleep(_REST)
            continue
        pid = os.fork()
        if not pid:
            perform(raw)
            os._exit(0)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()

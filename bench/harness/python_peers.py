"""The Python peers, each in its best usual setting, in an environment of its own.

`bench/setup.sh` names the versions. "workers" are processes everywhere, so that all can use the
same cores; who runs several jobs in one process besides keeps its default number of those.
"""

from collections.abc import Callable
from pathlib import Path

from bench.harness.contestant import PEERS, Command, Contestant, Group, installed


def _peer(
    name: str,
    folder: str,
    start: Callable[[Path, int], list[Command]],
    *,
    setting: str,
    pace: float,
    bulk: bool = False,
    environment: dict[str, str] | None = None,
    packages: tuple[str, ...] = (),
) -> Contestant:
    home = PEERS / folder / "bin"
    python = str(home / "python")
    return Contestant(
        name=name,
        group=Group.PYTHON,
        setting=setting,
        start=lambda workers: start(home, workers),
        produce=[python, "-m", f"bench.peers.{folder.partition('-')[0]}_jobs"],
        kinds=[python, "-m", "bench.peers.kinds"],
        pace=pace,
        bulk=bulk,
        environment=environment or {},
        needs=PEERS / folder / "requirements",
        versions=installed(home / "python", *(packages or (folder, "redis", "hiredis"))),
    )


def _rq(worker: str) -> Callable[[Path, int], list[Command]]:
    def start(home: Path, workers: int) -> list[Command]:
        pool = [str(home / "rq"), "worker-pool", "bench", "-n", str(workers), "-w", worker]
        return [[*pool, "-u", "{url}", "-q", "-l", "ERROR"]]

    return start


def _celery(home: Path, workers: int) -> list[Command]:
    return [
        [
            *(str(home / "celery"), "-A", "bench.peers.celery_jobs", "worker", "-Q", "bench"),
            *("-P", "prefork", "-c", str(workers), "-l", "ERROR"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]
    ]


def _dramatiq(threads: int) -> Callable[[Path, int], list[Command]]:
    def start(home: Path, workers: int) -> list[Command]:
        counts = ["-p", str(workers), "-t", str(threads)]
        return [[str(home / "dramatiq"), "bench.peers.dramatiq_jobs", *counts]]

    return start


def _huey(home: Path, workers: int) -> list[Command]:
    consumer = [str(home / "huey_consumer"), "bench.peers.huey_jobs.huey"]
    return [[*consumer, "-k", "process", "-w", str(workers), "-q", "-n"]]


def _arq(home: Path, workers: int) -> list[Command]:
    return [[str(home / "arq"), "bench.peers.arq_jobs.WorkerSettings"]] * workers


def _saq(home: Path, workers: int) -> list[Command]:
    return [[str(home / "saq"), "bench.peers.saq_jobs.settings"]] * workers


def _taskiq(home: Path, workers: int) -> list[Command]:
    worker = [str(home / "taskiq"), "worker", "bench.peers.taskiq_jobs:broker"]
    return [[*worker, "--workers", str(workers), "--log-level", "ERROR"]]


PYTHON_PEERS: tuple[Contestant, ...] = (
    _peer("rq", "rq", _rq("rq.worker.Worker"), setting="default: a fork a job", pace=70, bulk=True),
    _peer(
        *("rq-retry", "rq", _rq("rq.worker.Worker")),
        setting="a fork a job, each job with Retry(max=3)",
        pace=70,
        environment={"BENCH_RQ": "retry"},
    ),
    _peer(
        *("rq-simple", "rq", _rq("rq.worker.SimpleWorker")),
        setting="SimpleWorker: no fork a job",
        pace=300,
        bulk=True,
    ),
    _peer(
        *("celery", "celery", _celery),
        setting="prefork, results off, no gossip, mingle and heartbeat",
        pace=700,
        packages=("celery", "kombu", "redis", "hiredis"),
    ),
    _peer(
        *("dramatiq", "dramatiq", _dramatiq(8)),
        setting="8 threads a process (default), time limit and retries as by default",
        pace=2_500,
    ),
    _peer(*("dramatiq-t1", "dramatiq", _dramatiq(1)), setting="one thread a process", pace=250),
    _peer("huey", "huey", _huey, setting="process workers, results off", pace=3_000),
    _peer(
        *("huey-plain", "huey-plain", _huey),
        setting="process workers, results off, as pip installs it: without hiredis",
        pace=2_500,
        packages=("huey", "redis"),
    ),
    _peer(
        *("arq", "arq", _arq),
        setting="defaults: poll 0.5 s, 10 jobs at once a process, results not kept",
        pace=200,
    ),
    _peer(
        *("arq-eager", "arq", _arq),
        setting="poll 10 ms, 100 jobs at once a process, results not kept",
        pace=1_000,
        environment={"BENCH_ARQ": "eager"},
    ),
    _peer(
        *("saq", "saq", _saq),
        setting="10 jobs at once a process (default), results not kept",
        pace=1_200,
    ),
    _peer(
        *("taskiq", "taskiq", _taskiq),
        setting="ListQueueBroker, results off, uvloop, no socket timeout",
        pace=2_000,
        packages=("taskiq", "taskiq-redis", "redis", "hiredis", "uvloop"),
    ),
)

"""What foreign tools say to Redis: node-resque 9, Ruby's Resque 3 and resque-scheduler 5.

Recorded from the real ones with MONITOR, with the decisions that they take between two commands.
Each is a function of a connection, which may be a `Peer` or an actor's of the interleaver.
Nothing in here is ours to improve: what they lose or double between two commands is the point.
"""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from forkresque.protocol.canonical import encode
from forkresque.protocol.connection import Link
from forkresque.protocol.script import Scalar
from tests.support.interleaver import Question
from tests.support.site import KEYS

NODE_DATE = "Tue Nov 24 2026 02:36:10 GMT+0000 (Coordinated Universal Time)"
HEARTBEAT = b"resque:workers:heartbeat"
PRUNING = b"resque:pruning_dead_workers_in_progress"
HEARTBEAT_INTERVAL, PRUNE_INTERVAL = 60, 300
LOCK_TIMEOUT = 180
RUBY_BATCH = 100

# How a starting Ruby worker finds out which processes of its host are workers, from their titles.
ALIVE_TO_RUBY = re.compile(r"resque:work|resque:\sStarting|resque-[0-9]")
NOT_ALIVE_TO_RUBY = "resque-web"


class Peer(Link):
    """The connection of a foreign tool that runs for itself."""

    def transaction(self, *commands: tuple[Scalar, ...]) -> Any:
        """Send the commands between MULTI and EXEC."""
        return Question(commands).ask(self)


def compact(value: object) -> bytes:
    """Return JSON as Ruby writes it; the values of our tests have one form in all languages."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


# -- node-resque -----------------------------------------------------------------------------


def node_force_clean(redis: Any, name: str, *, host: str = "nodehost") -> bytes | None:
    """Do as Queue#forceCleanWorker; return the failure record, None for an idle worker."""
    queues = None
    for member in redis.command("SMEMBERS", KEYS.workers()):
        if member.decode().startswith(f"{name}:"):
            queues = member.decode().removeprefix(f"{name}:")
    worker = f"{name}:{queues}"
    found = redis.command("GET", KEYS.worker(worker))
    entry = None if found is None else _node_cleaning(json.loads(found), name, host)
    tail: list[tuple[Scalar, ...]] = [] if entry is None else [("RPUSH", KEYS.failed(), entry)]
    redis.transaction(
        ("INCR", KEYS.stat("failed")),
        ("DEL", KEYS.stat("failed", name)),
        ("DEL", KEYS.stat("processed", name)),
        ("DEL", KEYS.ping(name)),
        ("DEL", KEYS.started(worker)),
        ("DEL", KEYS.worker(name)),  # a wrong key: the record stays
        ("SREM", KEYS.workers(), worker),
        *tail,
    )
    return entry


def _node_cleaning(record: dict[str, Any], name: str, host: str) -> bytes:
    why = "Worker Timeout (killed manually)"
    return encode(
        {
            "worker": name,
            "queue": record["queue"],
            "payload": record["payload"],
            "exception": why,
            "error": why,
            "backtrace": [
                f"killed by {host} at {NODE_DATE}",
                "queue#forceCleanWorker",
                "node-resque",
            ],
            "failed_at": NODE_DATE,
        }
    )


def node_promote(redis: Any, name: str, *, now: int) -> int:
    """Poll once as node's Scheduler does, if it leads; return how many jobs it has moved."""
    if not _node_leads(redis, name):
        return 0
    moved = 0
    while due := redis.command("ZRANGEBYSCORE", KEYS.schedule(), 0, now, "LIMIT", 0, 1):
        second = int(due[0])
        while (raw := redis.command("LPOP", KEYS.delayed(second))) is not None:
            job = json.loads(raw)
            redis.command("SREM", KEYS.timestamps(raw), f"delayed:{second}")
            _node_push(redis, job["queue"], job)
            moved += 1
        redis.command("WATCH", KEYS.delayed(second))
        redis.command("WATCH", KEYS.schedule())
        if redis.command("LLEN", KEYS.delayed(second)) == 0:
            redis.transaction(("DEL", KEYS.delayed(second)), ("ZREM", KEYS.schedule(), second))
        redis.command("UNWATCH")
    return moved


def _node_leads(redis: Any, name: str) -> bool:
    lock = KEYS.node_leader()
    if redis.command("SET", lock, name, "EX", LOCK_TIMEOUT, "NX") is not None:
        return True
    if redis.command("GET", lock) != name.encode():
        return False
    return bool(redis.command("EXPIRE", lock, LOCK_TIMEOUT))


def node_retry_and_remove(redis: Any, entry: bytes) -> bool:
    """Do as Queue#retryAndRemoveFailed; return whether the record was there."""
    if redis.command("LREM", KEYS.failed(), 1, entry) == 0:
        return False
    failure = json.loads(entry)
    _node_push(redis, failure["queue"], failure["payload"])
    return True


def _node_push(redis: Any, queue: str, job: dict[str, Any]) -> None:
    raw = encode({"class": job["class"], "queue": queue, "args": job["args"]})
    redis.transaction(("SADD", KEYS.queues(), queue), ("RPUSH", KEYS.queue(queue), raw))


# -- Ruby: workers ---------------------------------------------------------------------------


@dataclass(frozen=True)
class RubyWorker:
    """A worker of Ruby Resque: its host, its pid, its queues."""

    host: str
    pid: int
    queues: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{','.join(self.queues)}"

    def start(self, redis: Any, *, processes: Collection[tuple[int, str]]) -> list[str]:
        """Start as `resque:work` does; return the ids of the workers that it has pruned.

        `processes` are the pid and the title of each process of its host, as `ps` shows them.
        """
        redis.command("HDEL", HEARTBEAT, str(self))
        pruned = self.prune(redis, processes=processes)
        redis.command("HSET", HEARTBEAT, str(self), _ruby_now(redis))
        redis.command("SADD", KEYS.workers(), str(self))
        redis.command("SET", KEYS.started(str(self)), "2026-11-24 02:34:34 +0000")
        return pruned

    def prune(self, redis: Any, *, processes: Collection[tuple[int, str]]) -> list[str]:
        """Do as Worker#prune_dead_workers; return the ids of those that it has unregistered."""
        won = redis.command("SET", PRUNING, str(self), "EX", HEARTBEAT_INTERVAL, "NX")
        if won is None:
            return []
        workers = sorted(member.decode() for member in redis.command("SMEMBERS", KEYS.workers()))
        beats = redis.command("HGETALL", HEARTBEAT)
        now = int(redis.command("TIME")[0])
        silent = sorted(
            wid.decode()
            for wid, beat in beats.items()
            if now - datetime.fromisoformat(beat.decode()).timestamp() > PRUNE_INTERVAL
        )
        for worker in silent:
            ruby_unregister(redis, worker, late=True)
        known = ruby_worker_pids(processes)
        dead = [
            worker
            for worker in workers
            if worker not in silent and self._judges(worker) and worker.split(":")[1] not in known
        ]
        for worker in dead:
            ruby_unregister(redis, worker)
        return silent + dead

    def _judges(self, worker: str) -> bool:
        host, _, queues = worker.split(":", 2)
        return host == self.host and (
            "*" in self.queues or set(queues.split(",")) == set(self.queues)
        )

    def reserve(self, redis: Any) -> bytes | None:
        """Take a job as Worker#reserve and #working_on do, unless all workers are paused."""
        word = redis.command("GET", KEYS.pause_all())
        if word is not None and word.strip().lower() == b"true":
            return None
        for queue in self.queues:
            raw: bytes | None = redis.command("LPOP", KEYS.queue(queue))
            if raw is not None:
                head = f'{{"queue":"{queue}","run_at":"2026-11-24T02:34:34Z","payload":'
                redis.command("SET", KEYS.worker(str(self)), head.encode() + raw + b"}")
                return raw
        return None

    def done(self, redis: Any) -> None:
        """Finish the job in hand as Worker#done_working does."""
        redis.command("DEL", KEYS.worker(str(self)))
        redis.command("INCRBY", KEYS.stat("processed"), 1)
        redis.command("INCRBY", KEYS.stat("processed", str(self)), 1)

    def stop(self, redis: Any) -> None:
        """Leave in good order."""
        ruby_unregister(redis, str(self))


def ruby_worker_pids(processes: Collection[tuple[int, str]]) -> set[str]:
    """Return the pids that Worker#worker_pids finds in what `ps` shows."""
    return {
        str(pid)
        for pid, title in processes
        if ALIVE_TO_RUBY.search(title) and NOT_ALIVE_TO_RUBY not in title
    }


def ruby_unregister(redis: Any, worker: str, *, late: bool = False) -> bytes | None:
    """Do as Worker#unregister_worker; return the failure record, None for an idle worker."""
    entry = None
    record = redis.command("GET", KEYS.worker(worker))
    if record is not None and (record := redis.command("GET", KEYS.worker(worker))) is not None:
        entry = _ruby_cleaning(json.loads(record), worker, late=late)
        redis.command("RPUSH", KEYS.failed(), entry)
    redis.command("SREM", KEYS.workers(), worker)
    redis.command("DEL", KEYS.worker(worker))
    redis.command("DEL", KEYS.started(worker))
    redis.command("HDEL", HEARTBEAT, worker)
    redis.command("DEL", KEYS.stat("processed", worker))
    redis.command("DEL", KEYS.stat("failed", worker))
    return entry


def _ruby_cleaning(record: dict[str, Any], worker: str, *, late: bool) -> bytes:
    doing = record["payload"]["class"]
    return compact(
        {
            "failed_at": "2026/11/24 02:34:46 UTC",
            "payload": record["payload"],
            "exception": "Resque::PruneDeadWorkerDirtyExit" if late else "Resque::DirtyExit",
            "error": f"Worker {worker} did not gracefully exit while processing {doing}"
            if late
            else "Job still being processed",
            "backtrace": [],
            "worker": worker,
            "queue": record["queue"],
        }
    )


def _ruby_now(redis: Any) -> str:
    return datetime.fromtimestamp(int(redis.command("TIME")[0]), UTC).isoformat()


# -- Ruby: jobs ------------------------------------------------------------------------------


def ruby_enqueue(redis: Any, queue: str, name: str, *args: object) -> bytes:
    """Do as Resque.enqueue_to: two commands in one go, between which others may come."""
    raw = compact({"class": name, "args": list(args)})
    redis.command("SADD", KEYS.queues(), queue)
    redis.command("RPUSH", KEYS.queue(queue), raw)
    return raw


def ruby_delay(redis: Any, second: int, queue: str, name: str, *args: object) -> bytes:
    """Do as Resque.enqueue_at_with_queue: three commands."""
    raw = compact({"class": name, "args": list(args), "queue": queue})
    redis.command("RPUSH", KEYS.delayed(second), raw)
    redis.command("SADD", KEYS.timestamps(raw), f"delayed:{second}")
    redis.command("ZADD", KEYS.schedule(), second, second)
    return raw


def ruby_requeue(redis: Any, index: int) -> None:
    """Do as Resque::Failure.requeue, and the web page's button: the record stays, marked."""
    failure = json.loads(redis.command("LINDEX", KEYS.failed(), index))
    failure["retried_at"] = "2026/11/24 02:39:15 UTC"
    redis.command("LSET", KEYS.failed(), index, compact(failure))
    job = failure["payload"]
    ruby_enqueue(redis, failure["queue"], job["class"], *job["args"])


def ruby_remove_failure(redis: Any, index: int) -> None:
    """Do as Resque::Failure.remove."""
    redis.command("LSET", KEYS.failed(), index, "")
    redis.command("LREM", KEYS.failed(), 1, "")


# -- Ruby: the scheduler ---------------------------------------------------------------------


def ruby_is_master(redis: Any, name: str) -> bool:
    """Take or renew the lock as resque-scheduler does at each poll."""
    lock = KEYS.ruby_master()
    redis.command("SET", lock, name, "EX", LOCK_TIMEOUT, "NX")
    if redis.command("GET", lock) != name.encode():
        return False
    redis.command("EXPIRE", lock, LOCK_TIMEOUT)
    return bool(redis.command("GET", lock) == name.encode())


def ruby_resign(redis: Any, name: str) -> None:
    """Give the lock up, as at shutdown."""
    if redis.command("GET", KEYS.ruby_master()) == name.encode():
        redis.command("DEL", KEYS.ruby_master())


def ruby_promote(redis: Any, name: str, *, now: int, redis_rb: int) -> int:
    """Poll once as resque-scheduler, if it is master; return how many jobs it has moved.

    With redis-rb 5 and later the jobs are pushed before MULTI, not within it.
    """
    moved = 0
    while ruby_is_master(redis, name):
        due = redis.command("ZRANGEBYSCORE", KEYS.schedule(), "-inf", now, "LIMIT", 0, 1)
        if not due:
            break
        moved += _ruby_batch(redis, int(due[0]), redis_rb)
    return moved


def _ruby_batch(redis: Any, second: int, redis_rb: int) -> int:
    bucket = KEYS.delayed(second)
    raws = redis.command("LRANGE", bucket, 0, RUBY_BATCH - 1)
    redis.command("WATCH", bucket)
    inside: list[tuple[Scalar, ...]] = []
    for raw in raws:
        pushes = _ruby_pushes(json.loads(raw))
        inside.append(("SREM", KEYS.timestamps(raw), f"delayed:{second}"))
        if redis_rb < 5:
            inside += pushes
        else:
            for words in pushes:
                redis.command(*words)
    if raws and redis.transaction(*inside, ("LTRIM", bucket, RUBY_BATCH, -1)) is None:
        return 0
    redis.command("WATCH", bucket)
    if redis.command("LLEN", bucket) == 0:
        redis.transaction(("DEL", bucket), ("ZREM", KEYS.schedule(), second))
    else:
        redis.command("UNWATCH")
    return len(raws)


def _ruby_pushes(job: dict[str, Any]) -> Sequence[tuple[Scalar, ...]]:
    raw = compact({"class": job["class"], "args": job["args"]})
    return ("SADD", KEYS.queues(), job["queue"]), ("RPUSH", KEYS.queue(job["queue"]), raw)

"""Queue: put jobs on queues, look at what is there, and remove it.

What node-resque's Queue can do, by the same names. Safe to use from any number of threads.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from forkresque import processes
from forkresque.errors import InvalidArgs, NotFailed
from forkresque.inquest import Finding, verdict
from forkresque.policy.verdicts import Blame
from forkresque.producer import Duration, Moment, Producer, due_second, listed, seconds
from forkresque.protocol.agenda import Agenda, DelayedAt
from forkresque.protocol.backlog import Backlog
from forkresque.protocol.canonical import MAX_LEVELS, decode
from forkresque.protocol.cleaning import Cleaner
from forkresque.protocol.failure import Failure, parse_failure
from forkresque.protocol.failures import Failures
from forkresque.protocol.keys import to_text
from forkresque.protocol.locks import all_locks, delete_lock
from forkresque.protocol.ownership import Held
from forkresque.protocol.payload import name_of
from forkresque.protocol.registry import Verdict
from forkresque.protocol.spellings import Sought
from forkresque.protocol.staff import Staff
from forkresque.protocol.store import check_server
from forkresque.protocol.stuck import retry_stuck
from forkresque.protocol.sweep import Sweep


class Queue(Producer):
    """The queues of one namespace, for producers and for those who look; see `Producer`."""

    def connect(self) -> None:
        """Reach Redis now, and refuse one on which jobs would get lost.

        Nobody has to: the first question connects. Raises RedisUnavailable and RedisRefused.
        """
        check_server(self.store.client, self.store.keys.namespace)

    def end(self) -> None:
        """Close all connections. The next question opens one again."""
        self.store.client.close()

    @cached_property
    def _backlog(self) -> Backlog:
        return Backlog(self.store.client, self.store.keys)

    @cached_property
    def _agenda(self) -> Agenda:
        return Agenda(self.store.client, self.store.keys)

    # -- waiting jobs ------------------------------------------------------------------------

    def queues(self) -> list[str]:
        """Return the names of all queues, sorted."""
        return self.store.queues()

    def length(self, queue: str) -> int:
        """Return how many jobs wait in `queue`; delayed ones do not count."""
        return self.store.lengths([queue])[0]

    def lengths(self) -> dict[str, int]:
        """Return how many jobs wait in each queue."""
        names = self.queues()
        return dict(zip(names, self.store.lengths(names), strict=True))

    def peek(self, queue: str, start: int = 0, stop: int = -1) -> list[bytes]:
        """Return the payloads from `start` to `stop`, both included, without taking them.

        More than a thousand come page by page: none that stays is passed over, but when others are
        pushed meanwhile one may come twice.
        """
        return self.store.peek(queue, start, stop)

    def queued(self, queue: str, start: int = 0, stop: int = -1) -> list[dict[str, Any]]:
        """Return the jobs from `start` to `stop`, both included, decoded.

        In place of what cannot be decoded comes a job called "(unreadable payload)". See `peek` for
        what many cost.
        """
        return self._backlog.shown(queue, start, stop)

    def delete(self, queue: str, name: str, args: object = (), count: int = 0) -> int:
        """Delete jobs equal to this one from `queue`; return how many there were. node's `del`.

        At most `count`, those nearest to the head, or to the tail if it is negative, node's and
        Ruby's own spellings before any other; 0 for all.
        Equal are a job's name and arguments in whichever spelling, Ruby's among them, and its queue
        if it names one. To find all, or more than node's and Ruby's own spellings, costs a look at
        the whole queue.
        """
        gone = self._backlog.delete(Sought(queue, name, listed(args)), count)
        self._tell_of_deleted(queue, gone)
        return gone.total()

    def delete_by_function(self, queue: str, name: str, start: int = 0, stop: int = -1) -> int:
        """Delete the jobs called `name` among those from `start` to `stop`; return how many.

        Unlike node-resque this leaves equal jobs outside of that stretch alone.
        """
        if not name:  # it would fit whatever cannot be read
            raise InvalidArgs("a job needs a name, got an empty one")
        gone = self._backlog.delete_named(queue, name, start, stop)
        self._tell_of_deleted(queue, gone)
        return gone.total()

    def delete_queue(self, queue: str) -> None:
        """Delete a queue and all jobs that wait in it."""
        hooked = any(job.hooks and job.hooks.at_delete for job in self._jobs.values())
        self._tell_of_deleted(queue, self._backlog.delete_queue(queue, tell=hooked))

    def _tell_of_deleted(self, queue: str, payloads: Iterable[bytes]) -> None:
        """Tell the plugins of deleted jobs, of each once."""
        for payload in dict.fromkeys(payloads):
            name = name_of(payload)
            hooks = self._hooks(name)
            if hooks is not None and hooks.at_delete:
                hooks.after_delete(self._context(queue, name, payload))

    # -- delayed jobs ------------------------------------------------------------------------

    def delayed_count(self) -> int:
        """Return how many jobs wait for their second."""
        return self.store.delayed_count()

    def timestamps(self) -> list[int]:
        """Return the seconds at which something is due, as epoch seconds, sorted."""
        return self._agenda.seconds()

    def delayed_at(self, moment: Moment) -> DelayedAt:
        """Return the jobs that are due at `moment`, decoded, and its second."""
        return self._agenda.at(due_second(moment))

    def all_delayed(self) -> dict[int, list[dict[str, Any]]]:
        """Return all delayed jobs, decoded, by their second. They may be many."""
        return {second: tasks for tasks, second in self._agenda.all()}

    def scheduled_at(self, queue: str, name: str, args: object = ()) -> list[int]:
        """Return the epoch seconds at which jobs equal to this one are due, sorted.

        Those in a spelling of their own are looked for only when there is none in node's or Ruby's.
        See `delete` for what is equal. If there are none in node's or Ruby's own spelling, this
        costs a look at all delayed jobs.
        """
        return self._agenda.scheduled(Sought(queue, name, listed(args)))

    def delete_delayed(self, queue: str, name: str, args: object = ()) -> list[int]:
        """Delete the delayed jobs equal to this one; return the epoch seconds, sorted.

        See `delete` for what is equal. It costs a look at all delayed jobs.
        """
        return self._agenda.delete(Sought(queue, name, listed(args)))

    # -- failed jobs -------------------------------------------------------------------------

    @cached_property
    def failures(self) -> Failures:
        """Return the failed lists as they are in Redis."""
        return Failures(self.store)

    def failed_count(self, queue: str | None = None) -> int:
        """Return how many failed jobs there are, of all queues or of one."""
        return self.failures.count(queue)

    def failed(self, start: int = 0, stop: int = -1, *, queue: str | None = None) -> list[Failure]:
        """Return failed jobs, oldest first, from `start` to `stop`, both included.

        With one failed list for each queue they are counted through list by list. Those of one
        `queue` are its list then; in a list for all they have to be searched.
        """
        return [parse_failure(entry) for entry in self.failures.entries(start, stop, queue)]

    def retry_failed(self, failure: Failure, *, queue: str | None = None) -> bool:
        """Put a failed job back on its queue, bytes unchanged; return False if it is gone."""
        target = queue or failure.queue
        if not failure.payload or not target:
            raise InvalidArgs(
                f"failed job {failure.id} has no readable payload or no queue",
                hint="name a queue, or look at it and remove it",
            )
        return self._send(
            lambda request: self.failures.requeue(
                failure.raw_entry, failure.payload, target, request=request
            ),
            None,
        )

    def remove_failed(self, failure: Failure) -> bool:
        """Remove a failed job; return False if it is gone."""
        return self.failures.remove(failure.raw_entry)

    def retry_each(
        self, failures: Iterable[Failure], *, queue: str | None = None
    ) -> Iterator[list[bytes]]:
        """Put many failed jobs back, oldest first; yield the records of those, in portions.

        What is gone, and what has no readable payload, no queue or one of another type, is left
        alone and not told. A step is one look at a part of a failed list, all or nothing.
        """
        return self._sweep.take(
            (each.raw_entry for each in failures),
            lambda failure: (queue or failure.queue or None) if failure.payload else None,
        )

    def remove_each(self, failures: Iterable[Failure]) -> Iterator[list[bytes]]:
        """Remove many failed jobs; yield the records that were removed, in portions."""
        return self._sweep.take((each.raw_entry for each in failures), lambda _: "")

    @cached_property
    def _sweep(self) -> Sweep:
        return Sweep(self.store, self.failures, lambda ask: self._send(ask, None))

    def retry_and_remove_failed(self, failure: Failure) -> bool:
        """Put a failed job back on its queue, and return True. Raises NotFailed if it is gone.

        No plugin is asked: the job was enqueued before.
        """
        if not self.retry_failed(failure):
            raise NotFailed(
                "This job is not in failed queue",
                hint=f"failed job {failure.id} was retried or removed meanwhile",
            )
        return True

    def retry_stuck_jobs(self, limit: int | None = None) -> int:
        """Put back jobs that failed because their worker died, at most `limit`; return how many.

        Those that node-resque's leader or Ruby have recorded so, the oldest first. Not what killed
        workers of ours until it was failed for that, nor what was retried in Ruby, which keeps the
        record. All records are looked at. Raises InvalidArgs for a negative limit.
        """
        if limit is not None and limit < 0:
            raise InvalidArgs(f"limit must be at least 0, got {limit}", hint="None is for all")
        return retry_stuck(
            self.failures, self.store.client, lambda ask: self._send(ask, None), limit=limit
        )

    # -- workers -----------------------------------------------------------------------------

    def workers(self) -> dict[str, str | None]:
        """Return the workers of all languages, `host:pid` to `queue,queue`; None for no queues."""
        return self._staff.workers()

    def working_on(self, name: str, queues: str | None) -> dict[str, Any] | None:
        """Return what a worker of `workers()` performs, decoded, None if it is idle."""
        return self._staff.working_on(name, queues)

    def all_working_on(self) -> dict[str, dict[str, Any] | str]:
        """Return what each worker performs, by `host:pid`: its record, or "started" if idle.

        In place of a record that cannot be read comes one with a job "(unreadable payload)".
        """
        return self._staff.all_working_on()

    def force_clean_worker(self, name: str) -> dict[str, Any] | None:
        """Remove the worker `host:pid`; return the failure record of the job that it had.

        None for an idle worker, and for an unknown one, which changes nothing. The job of a lost
        worker of ours goes back to the head of its queue instead, and None is returned, unless it
        has died too often or its definition, if this queue was given `jobs`, has
        `on_crash="fail"`. Raises InvalidArgs for one of ours that lives.
        """
        entry = self._cleaner.clean(name)
        return None if entry is None else _decoded(entry)

    def clean_old_workers(self, age: Duration) -> dict[str, dict[str, Any]]:
        """Remove the workers that have had one job for longer than `age`, in seconds.

        Those of node-resque go as well, idle or not, when their last ping is so old; an idle worker
        of Ruby never does. Returns the failure records of their jobs, by `host:pid`. See
        `force_clean_worker`; but those of ours that live are passed over.
        """
        entries = self._cleaner.clean_old(seconds(age))
        return {name: _decoded(entry) for name, entry in entries.items()}

    @cached_property
    def _staff(self) -> Staff:
        return Staff(self.store.client, self.store.keys)

    @cached_property
    def _cleaner(self) -> Cleaner:
        host = processes.host_label()
        return Cleaner(self.store.client, self.store.keys, self._judge, host=host)

    def _judge(self, held: Held, now: float) -> Verdict:
        account = f"the master of worker {held.worker} is gone"
        finding = Finding(Blame.HOST, bool(held.token), account)
        return verdict(held, finding, self._jobs, now=now)

    # -- locks and numbers -------------------------------------------------------------------

    def leader(self) -> str | None:
        """Return the scheduler that leads: ours, else node-resque's, else Ruby's; None for none."""
        return self._staff.leader()

    def leader_key(self) -> str:
        """Return the key of the lock of node-resque's scheduler, which ours holds as well."""
        return to_text(self.store.keys.node_leader())

    def stats(self) -> dict[str, int]:
        """Return all counters: `processed`, `failed`, and both by worker, `processed:host:pid`.

        Costs a look at all keys of Redis.
        """
        return self._staff.stats(page=self.connection.scan_count)

    def schedules(self) -> dict[str, dict[str, Any]]:
        """Return the recurring schedules that Ruby's scheduler has stored, decoded, by name."""
        return self._staff.schedules()

    def locks(self) -> dict[str, str | None]:
        """Return the locks of jobs that wait (`lock:…`) or run (`workerslock:…`), and their values.

        They are called by their keys without the namespace. A value begins with the epoch second at
        which the lock ends. Costs a look at all keys of Redis.
        """
        return all_locks(self.store.client, self.store.keys, page=self.connection.scan_count)

    def delete_lock(self, key: str) -> int:
        """Delete a lock by what `locks` calls it, whoever holds it; return how many there were."""
        lock = self.store.keys.named(key)
        if not self.store.keys.is_lock(lock):
            raise InvalidArgs(
                f"{key!r} is not the key of a lock",
                hint="give one that locks() returns, such as lock:send:mail:[]",
            )
        return delete_lock(self.store.client, lock)


def _decoded(entry: bytes) -> dict[str, Any]:
    """Return a failure record that we have written, decoded."""
    record: dict[str, Any] = decode(entry, levels=MAX_LEVELS + 1)
    return record

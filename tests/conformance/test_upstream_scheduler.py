"""The upstream suite core/scheduler, mirrored. Lengths of time are seconds here.

* can connect
  -> test_can_connect
* should only have one leader, and can failover
  -> test_should_only_have_one_leader_and_can_failover: both have the same name here, which in
  node-resque would make two leaders
* can start and stop
  -> test_can_start_and_stop
* emits error instead of unhandled rejection when poll fails
  -> test_emits_error_instead_of_unhandled_rejection_when_poll_fails: Redis is killed, and the
  scheduler goes on when it is back
* queues can see who the leader is
  -> test_queues_can_see_who_the_leader_is: the name is followed by what makes it unique
* will move enqueued jobs when the time comes
  -> test_will_move_enqueued_jobs_when_the_time_comes
* will not move jobs in the future
  -> test_will_not_move_jobs_in_the_future
* will remove stuck workers and fail their jobs
  -> test_will_remove_stuck_workers_and_fail_their_jobs: silence counts from when this scheduler has
  first looked, so that no wrong clock kills anybody; the last argument of the event is its length
"""

import json
import threading

from forkresque import Queue, Scheduler
from tests.conformance.stage import Stage
from tests.support.servers import Server
from tests.support.waiting import wait_until


def test_can_connect(stage: Stage) -> None:
    scheduler = stage.scheduler()
    scheduler.poll()
    scheduler.end()


def test_should_only_have_one_leader_and_can_failover(stage: Stage) -> None:
    one, other = stage.scheduler(name="host:1"), stage.scheduler(name="host:1")
    for scheduler in (one, other, one, other):
        scheduler.poll()
    assert [one.leader, other.leader] == [True, False]

    one.end()
    wait_until(lambda: (other.poll(), other.leader)[1], "the other to lead")

    assert one.leader is False


def test_can_start_and_stop(stage: Stage) -> None:
    told: list[str] = []
    scheduler = stage.scheduler()
    for event in ("start", "poll", "end", "error"):
        scheduler.on(event, lambda *_args, event=event: told.append(event))

    scheduler.start()
    wait_until(lambda: "poll" in told, "a poll")
    scheduler.end()

    assert told[0] == "start"
    assert told[-1] == "end"
    assert "error" not in told


def test_emits_error_instead_of_unhandled_rejection_when_poll_fails() -> None:
    failed, led = threading.Event(), threading.Event()
    with Server() as server:
        scheduler = Scheduler(server.url, name="host:1")
        scheduler.on("error", lambda _error: failed.set())
        scheduler.on("leader", led.set)
        scheduler.start()
        assert led.wait(10.0)
        server.kill()
        assert failed.wait(10.0)
        server.restart()
        queue = Queue(server.url)
        queue.enqueue_at(10, "q", "someJob")
        wait_until(lambda: queue.length("q"), "the job to be moved")
        scheduler.end()
        queue.end()


def test_queues_can_see_who_the_leader_is(stage: Stage) -> None:
    scheduler = stage.scheduler(name="host:7")
    scheduler.poll()

    leader = stage.queue().leader()

    assert leader is not None
    assert leader.startswith("host:7")
    assert stage.redis.get("resque:resque_scheduler_leader_lock") == leader.encode()


def test_will_move_enqueued_jobs_when_the_time_comes(stage: Stage) -> None:
    queue = stage.queue()
    queue.enqueue_at(10, "q", "someJob", [1, 2, 3])

    stage.scheduler().poll()

    (job,) = queue.queued("q")
    assert job["class"] == "someJob"
    assert job["args"] == [1, 2, 3]
    assert queue.timestamps() == []


def test_will_not_move_jobs_in_the_future(stage: Stage) -> None:
    queue = stage.queue()
    queue.enqueue_in(10, "q", "someJob", [1, 2, 3])

    stage.scheduler().poll()

    assert queue.length("q") == 0
    assert len(queue.timestamps()) == 1


def test_will_remove_stuck_workers_and_fail_their_jobs(stage: Stage) -> None:
    told: list[tuple[object, ...]] = []
    worker = "dead:1:q"
    record = {
        "run_at": "Tue Nov 24 2020 02:36:10 GMT+0000",
        "queue": "q",
        "worker": "dead:1",
        "payload": {"class": "slowJob", "queue": "q", "args": [{"a": 1}]},
    }
    ping = {"time": int(stage.now()) - 60, "name": "dead:1", "queues": "q"}
    stage.redis.sadd("resque:workers", worker)
    stage.redis.set(f"resque:worker:{worker}", json.dumps(record))
    stage.redis.set("resque:worker:ping:dead:1", json.dumps(ping))
    scheduler = stage.scheduler(stuck_worker_timeout=0.2)
    scheduler.on("clean_stuck_worker", lambda *args: told.append(args))

    wait_until(lambda: (scheduler.poll(), told)[1], "the worker to be removed", every=0.02)

    ((name, entry, silent_for),) = told
    assert name == "dead:1"
    assert isinstance(entry, dict)
    assert entry["payload"]["class"] == "slowJob"
    assert isinstance(silent_for, float)
    assert silent_for >= 0.2
    queue = stage.queue()
    assert queue.all_working_on() == {}
    (failure,) = queue.failed()
    assert failure.queue == "q"
    assert failure.error == "Worker Timeout (killed manually)"

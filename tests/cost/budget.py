"""What everything may cost: the one place to change when a cost changes, with the reason beside it.

A test that counts something else shows its table as it has to stand here.
"""

# -- system calls ------------------------------------------------------------------------------

# Of a pool's worker for each job, from one answer of Redis to the next.
# One trip to Redis (sendto, recvfrom), whether the master lives (getppid, before the trip and after
# it), and else what the job may have left behind: see aftermath.py.
_SHORT = {
    "alarm": 1,
    "epoll_ctl": 3,
    "getcwd": 1,
    "getpid": 1,
    "getppid": 2,
    "recvfrom": 1,
    "rt_sigprocmask": 1,
    "sendto": 1,
    "umask": 1,
}
SYSTEM_CALLS: dict[str, dict[str, int]] = {
    "noop": _SHORT,
    "lasting": _SHORT
    | {
        "close": 1,
        "fcntl": 2,
        "getegid": 1,
        "geteuid": 1,
        "getpriority": 1,
        "newfstatat": 4,
        "prlimit64": 6,
        "setitimer": 2,
        "waitid": 1,
    },
    "limited": _SHORT,
    # The failure record looks for the source of a line of the traceback.
    "broken": _SHORT | {"newfstatat": 1},
}

# -- what Redis does ---------------------------------------------------------------------------

# Round trips of a worker for each job of a row of equal ones.
TRIPS = {"noop": 1, "limited": 1, "broken": 1, "locked": 2, "retried": 3}

COMMANDS: dict[str, dict[str, int]] = {
    # In a row of equal jobs, one settled and the next one claimed: what the hot path costs.
    "noop": {
        "-> done": 1,
        "EXISTS": 1,
        "GET": 1,
        "INCR": 2,
        "LPOP": 1,
        "SET": 2,
        "SISMEMBER": 1,
    },
    "limited": {
        "-> done": 1,
        "EXISTS": 1,
        "GET": 1,
        "INCR": 2,
        "LPOP": 1,
        "SET": 2,
        "SISMEMBER": 1,
    },
    "broken": {
        "-> settle": 1,
        "EXISTS": 1,
        "GET": 1,
        "INCR": 2,
        "LPOP": 1,
        "RPUSH": 1,
        "SET": 2,
        "SISMEMBER": 1,
        "TYPE": 1,
    },
    # The lock is taken when the job starts, and goes with its end.
    "locked": {
        "-> lock_take": 1,
        "-> settle": 1,
        "DEL": 2,
        "EXISTS": 1,
        "EXPIRE": 1,
        "GET": 4,
        "HGET": 1,
        "HSET": 1,
        "INCR": 2,
        "LPOP": 1,
        "SET": 3,
        "SISMEMBER": 1,
        "TTL": 1,
        "TYPE": 1,
    },
    # A retry counts the attempts in keys of its own, as node-resque does.
    "retried": {
        "-> GET": 1,
        "-> count_attempt": 1,
        "-> settle": 1,
        "DEL": 1,
        "EXISTS": 1,
        "GET": 3,
        "INCR": 2,
        "LPOP": 1,
        "RPUSH": 1,
        "SADD": 1,
        "SET": 4,
        "SISMEMBER": 1,
        "TYPE": 3,
        "ZADD": 1,
    },
    # A worker alone registers and claims the first job.
    "coming": {
        "-> HELLO": 1,
        "-> TIME": 1,
        "-> claim": 1,
        "-> register": 1,
        "EXISTS": 2,
        "GET": 3,
        "LLEN": 1,
        "LPOP": 1,
        "SADD": 3,
        "SET": 7,
        "SISMEMBER": 1,
        "SREM": 2,
        "TYPE": 4,
    },
    "the last job": {
        "-> done": 1,
        "DEL": 1,
        "EXISTS": 1,
        "GET": 1,
        "INCR": 2,
        "LPOP": 1,
        "SET": 1,
        "SISMEMBER": 1,
    },
    # The end of its last job has found nothing, so it claims so that Redis tells when that changes:
    # CLIENT TRACKING when that is first wanted, CLIENT CACHING each time.
    "resting": {
        "-> CLIENT": 2,
        "-> claim": 1,
        "EXISTS": 2,
        "GET": 1,
        "LLEN": 1,
        "LPOP": 1,
        "SISMEMBER": 1,
        "SMEMBERS": 1,
    },
    # The keeper of its lease gives that up over a connection of its own.
    "leaving": {
        "-> DEL": 1,
        "-> HELLO": 1,
        "-> SMEMBERS": 1,
        "-> SREM": 1,
        "-> unregister": 1,
        "DEL": 1,
        "EXISTS": 1,
        "GET": 1,
        "SREM": 2,
    },
    "enqueue": {
        "-> enqueue": 1,
        "RPUSH": 1,
        "SADD": 1,
        "SET": 1,
    },
    "enqueue_at": {
        "-> enqueue_at": 1,
        "GET": 1,
        "RPUSH": 1,
        "SADD": 1,
        "SET": 1,
        "SISMEMBER": 2,
        "TYPE": 3,
        "ZADD": 1,
    },
    "bulk of 100": {
        "-> bulk": 1,
        "GET": 1,
        "RPUSH": 1,
        "SADD": 1,
        "SET": 1,
        "TYPE": 2,
    },
    # A hundred jobs a batch, all of one second; every second batch looks for the newest first.
    "promoting 1000": {
        "-> CLIENT": 2,
        "-> SCAN": 1,
        "-> TIME": 11,
        "-> ZRANGE": 6,
        "-> ZRANGEBYSCORE": 11,
        "-> promote": 10,
        "-> read_due": 10,
        "GET": 30,
        "LLEN": 9,
        "LPOP": 10,
        "LRANGE": 110,
        "RPUSH": 1000,
        "SADD": 10,
        "SREM": 1000,
        "TIME": 10,
        "TYPE": 20,
        "ZREM": 1,
    },
}

# What the clerk of a leading host asks in each round of five seconds, while all are idle.
CLERK: dict[str, dict[str, int]] = {
    "each round": {
        "-> beat": 1,
        "-> lead": 1,
    },
}
CLERK_SELDOM = {"-> SCAN": 1, "-> MGET": 1}  # once a minute: stray buckets, node-resque's workers
CLERK_A_MINUTE = 40

# -- instructions ------------------------------------------------------------------------------

COUNTED_ON = (3, 11)  # by this Python; on another the ratios are others
SLACK, SLACK_ELSEWHERE = 0.15, 0.6  # of the ratio, up or down

# What a thing takes, and of what: a loop of a hundred additions, json.dumps or json.loads of a job.
INSTRUCTIONS: dict[str, tuple[str, float]] = {
    "encode": ("dumps", 1.06),
    "encode with a float that JavaScript writes otherwise": ("dumps", 1.29),
    "encode_job": ("dumps", 1.18),
    "encode_job of a no-op": ("dumps", 0.341),
    "parse": ("loads", 0.928),
    "parse a no-op": ("loads", 0.551),
    "digest": ("loop", 0.193),
    "record_head": ("loop", 0.783),
    "ten fresh tokens": ("loop", 0.696),
    "fill": ("loop", 0.276),
    "by_digest": ("loop", 0.311),
    "failure_entry": ("dumps", 3.86),
    # A master does these in each turn of its loop, of which an idle one has a turn a second.
    "crew.plan of eight": ("loop", 15.2),
    "crew.next_step_at of eight": ("loop", 1.31),
    "judge a worker": ("loop", 0.528),
    "autoscaler, a second of work": ("loop", 4.26),
    "autoscaler, a second at rest": ("loop", 3.55),
    "expand": ("loop", 6.05),
    "expand a star": ("loop", 3.21),
    "ten times places, strict": ("loop", 0.563),
    "places, round robin": ("loop", 0.244),
    "places, by weight": ("loop", 0.72),
    "ten times backoff": ("loop", 1.33),
    "silence of fifty": ("loop", 3.61),
    # All that a worker without a master does between two of its jobs, redis-py included.
    "a worker's no-op job": ("loop", 3.76),
}

"""What everything may cost: the one place to change when a cost changes, with the reason beside it.

A test that counts something else shows its table as it has to stand here.
"""

# -- system calls ------------------------------------------------------------------------------

# Of a pool's worker for each job, from one answer of Redis to the next.
# One trip to Redis (sendto, recvfrom, and a poll before each), whether the master lives (getppid,
# before the trip and after it), and else what the job may have left behind: see aftermath.py.
SYSTEM_CALLS: dict[str, dict[str, int]] = {
    "noop": {
        "alarm": 1,
        "close": 1,
        "epoll_ctl": 3,
        "fcntl": 2,
        "getcwd": 1,
        "getegid": 1,
        "geteuid": 1,
        "getpid": 1,
        "getppid": 2,
        "getpriority": 1,
        "newfstatat": 4,
        "poll": 2,
        "prlimit64": 6,
        "recvfrom": 1,
        "rt_sigprocmask": 1,
        "sendto": 1,
        "setitimer": 2,
        "umask": 1,
        "waitid": 1,
    },
    "limited": {
        "alarm": 1,
        "close": 1,
        "epoll_ctl": 3,
        "fcntl": 2,
        "getcwd": 1,
        "getegid": 1,
        "geteuid": 1,
        "getpid": 1,
        "getppid": 2,
        "getpriority": 1,
        "newfstatat": 4,
        "poll": 2,
        "prlimit64": 6,
        "recvfrom": 1,
        "rt_sigprocmask": 1,
        "sendto": 1,
        "setitimer": 2,
        "umask": 1,
        "waitid": 1,
    },
    # The failure record looks for the source of a line of the traceback.
    "broken": {
        "alarm": 1,
        "close": 1,
        "epoll_ctl": 3,
        "fcntl": 2,
        "getcwd": 1,
        "getegid": 1,
        "geteuid": 1,
        "getpid": 1,
        "getppid": 2,
        "getpriority": 1,
        "newfstatat": 5,
        "poll": 2,
        "prlimit64": 6,
        "recvfrom": 1,
        "rt_sigprocmask": 1,
        "sendto": 1,
        "setitimer": 2,
        "umask": 1,
        "waitid": 1,
    },
}

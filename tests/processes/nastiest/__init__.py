"""The twenty-five nastiest failures of a supervisor, each with real processes.

A test's name begins with its failure's number, `pytest -k test_07` runs one of them:

    1  the master is killed                        test_deaths.py
    2  a child, or the master, is stopped          test_deaths.py
    3  fork fails                                  test_refusals.py
    4  no descriptors are left                     test_refusals.py
    5  Redis is down at boot                       test_redis.py
    6  Redis restarts, hangs, moves                test_redis.py
    7  Redis refuses                               test_redis.py
    8  clocks jump                                 test_redis.py
    9  storms of signals                           test_endings.py; in a reload: test_code.py
    10  a hundred children die at once             test_deaths.py
    11  children die in boot                       test_code.py
    12  a signal before its handler                test_deaths.py
    13  a job ignores all signals                  test_jobs.py
    14  a job is wedged in C with the GIL          test_jobs.py
    15  grandchildren                              test_jobs.py
    16  a job closes descriptors                   test_jobs.py
    17  a job fills its standard output            test_jobs.py
    18  a job exits by itself                      test_jobs.py
    19  a native crash                             test_jobs.py; OOM: ../test_out_of_memory.py
    20  code that cannot be imported               test_code.py
    21  disk full or read-only, log gone           test_refusals.py
    22  stale pidfile, reused pid, double start    test_refusals.py
    23  ^C, terminal closed, nohup                 test_endings.py
    24  the deadline of a drain                    test_endings.py
    25  a late time-out                            test_jobs.py

By default each runs as anybody's child, within three minutes for all; `-m full` runs each as PID 1
of a namespace of its own too, and in the long sizes. `harness.py` fails a test that leaves a
process, a zombie, a key in Redis or a file. A gap of ten minutes in monotonic time, which is part
of 8, is a unit test of the policies; 15 and 20 have more tests in `../test_escapes.py` and
`../test_reloading.py`.
"""

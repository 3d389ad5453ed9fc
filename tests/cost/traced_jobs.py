"""The jobs of `jobs`, for a pool whose system calls are traced: see `count_as` there."""

from tests.cost import jobs

jobs.is_traced = True
app = jobs.app

"""The questions that `bench/run` asks, in the order of the table of targets."""

QUESTIONS: tuple[str, ...] = (
    "throughput",
    "safety",
    "enqueue",
    "latency",
    "efficiency",
    "idle",
    "memory",
    "lifecycle",
    "fork_per_job",
    "kill_storm",
    "promotion",
)

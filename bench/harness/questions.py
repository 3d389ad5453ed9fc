"""The questions that `bench/run` asks, in the order of the table of targets."""

QUESTIONS: tuple[str, ...] = (
    "throughput",
    "safety",
    "enqueue",
)

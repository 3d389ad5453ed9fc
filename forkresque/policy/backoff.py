"""How long to wait before trying again."""

from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Delays that double from `first` to `most` seconds, with half of each left to chance."""

    first: float
    most: float
    attempts: int = 0

    def next(self, *, jitter: float) -> float:
        """Return the next delay. `jitter` is between 0 and 1, from whoever may throw dice."""
        delay = min(self.most, self.first * 2.0 ** min(self.attempts, 30))
        self.attempts += 1
        return delay * (0.5 + 0.5 * jitter)

    def reset(self) -> None:
        """Start over: something worked."""
        self.attempts = 0

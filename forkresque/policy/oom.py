"""Which deaths are the doing of the kernel's out-of-memory killer, which only counts its kills."""

from dataclasses import dataclass, field

FRESH = 5.0  # seconds for which a kill may explain a death: an exit with much memory takes a while
_MOST = 1000  # kills remembered at a time


@dataclass(slots=True)
class OomKills:
    """The kernel's kills that are not laid to a death yet. `counted` is what it has counted so far.

    Its victim may also be a process that a job has started, so what is left over is soon forgotten
    and will not explain a kill that an operator sends later.
    """

    counted: int
    _seen_at: list[float] = field(default_factory=list)

    def observe(self, counted: int, now: float) -> None:
        """Take note of what the kernel has counted by now."""
        news = min(max(0, counted - self.counted), _MOST)
        recent = [at for at in self._seen_at if now - at < FRESH]
        self._seen_at = [*recent, *[now] * news][-_MOST:]
        self.counted = counted

    def explain_one(self) -> bool:
        """Return whether a death by SIGKILL that nobody here has ordered was the kernel's doing.

        Each kill explains one. Observe before: the kernel counts before it kills.
        """
        if self._seen_at:
            self._seen_at.pop(0)
            return True
        return False

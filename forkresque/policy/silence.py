"""Who has given no sign of life for too long, by the watcher's own clock alone.

The clocks of two hosts are never compared: what counts is for how long one sign was seen
unchanged by somebody who looked all the while.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Silence:
    """Watches signs of life. After a gap of more than `patience` between looks it starts over."""

    timeout: float
    patience: float
    _since: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    _looked_at: float = float("-inf")

    def judge(self, now: float, signs: Mapping[str, bytes]) -> dict[str, float]:
        """Take note of all signs; return whose has not changed for `timeout`, and for how long."""
        if now - self._looked_at > self.patience:
            self._since.clear()  # nobody knows what happened meanwhile, or whether anybody could
        self._looked_at = now
        self._since = {name: self._seen(name, sign, now) for name, sign in signs.items()}
        silent = {name: now - since for name, (_, since) in self._since.items()}
        return {name: seconds for name, seconds in silent.items() if seconds >= self.timeout}

    def _seen(self, name: str, sign: bytes, now: float) -> tuple[bytes, float]:
        before = self._since.get(name)
        return before if before and before[0] == sign else (sign, now)

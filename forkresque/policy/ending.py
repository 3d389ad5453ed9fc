"""What asks a master to end, how fast, and with which exit code."""

import math
from dataclasses import dataclass

from forkresque.errors import ExitCode

_INT, _TERM = 2, 15  # by POSIX; what waits for us reads 128 + n as "ended by signal n"
REPEAT_GRACE = 2.0  # seconds in which a second TERM is the same TERM: managers signal everybody


@dataclass(slots=True)
class Ending:
    """The signals to stop that have come, and what else has ended a master."""

    first_term_at: float = math.inf
    interrupted: bool = False
    ended_by: int = 0
    failure: ExitCode = ExitCode.OK  # why it gave up by itself

    def term(self, now: float) -> bool:
        """Take note of a TERM; return whether it is to end at once."""
        if now - self.first_term_at > REPEAT_GRACE:
            self.ended_by = _TERM
            return True
        self.first_term_at = min(self.first_term_at, now)
        return False

    def interrupt(self) -> bool:
        """Take note of an INT; return whether it is to end at once."""
        if self.interrupted:
            self.ended_by = _INT
        self.interrupted = True
        return bool(self.ended_by)

    def exit_code(self, *, cuts: int) -> int:
        """Return what to tell the shell, `cuts` being how many jobs were not left to finish."""
        if self.ended_by:
            return 128 + self.ended_by
        return self.failure or (ExitCode.CUT if cuts else ExitCode.OK)

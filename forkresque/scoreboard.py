"""What every process of one master does now, in shared memory.

A seat for each child, a block of orders that the master fills, and blocks that the clerk fills:
one for all, and one for each pool of workers. One writer a word; readers never lock. A word is
64 bits wide and written in one go, so a reader sees it whole, though words of one seat may be of
different moments.
"""

import mmap
import os
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Final, TypeVar

# Raise it when a word changes its meaning, or what one image of a master leaves to the next.
LAYOUT: Final = 2
_WORD, _BLOCK_WORDS, _NAME_AT, _NAME_SIZE = 8, 32, 192, 64
_BLOCK = _WORD * _BLOCK_WORDS
MOST_POOLS: Final = 32
_FIRST_SEAT = 2 + MOST_POOLS


class Role(IntEnum):
    """What a child is for."""

    NONE = 0
    CLERK = 1
    WORKER = 2
    WATCHER = 3


class Phase(IntEnum):
    """Where a child is in its life."""

    EMPTY = 0  # nobody sits here
    BOOT = 1
    IDLE = 2  # waits for the baton
    CALL = 3  # claims, or waits for Redis to tell of a job
    RUN = 4
    SETTLE = 5
    DRAIN = 6  # takes nothing more
    LEFT = 7  # has put its books in order, and is about to exit


_RUN = int(Phase.RUN)  # an enum would be turned into a number anew each time


def _word(index: int, doc: str) -> property:
    """Return a property for one word of a block."""

    def read(block: "_Block") -> int:
        return block.words[index]

    def write(block: "_Block", value: int) -> None:
        block.words[index] = value

    return property(read, write, doc=doc)


class _Block:
    __slots__ = ("text", "words")

    def __init__(self, memory: memoryview) -> None:
        self.words = memory.cast("q")
        self.text = memory[_NAME_AT : _NAME_AT + _NAME_SIZE]


class Orders(_Block):
    """What the master wants; its children read it before each claim."""

    __slots__ = ()
    draining = _word(0, "1: claim nothing more, ever.")
    paused = _word(1, "1: claim nothing for now.")
    started_ns = _word(2, "Monotonic time at which the master started.")


class Books(_Block):
    """What the clerk knows."""

    __slots__ = ()
    reached_ns = _word(0, "Monotonic time since which Redis has answered, 0 while it does not.")
    leads = _word(1, "0 follows, 1 leads, 2 leads and promotes.")
    redials = _word(2, "Raised when connections to Redis should be made anew.")
    promoted = _word(3, "Delayed jobs promoted.")
    recovered = _word(4, "Jobs of dead workers brought back or failed.")
    trusted_ns = _word(5, "Monotonic time until which no other host takes our jobs, 0: not known.")
    refusals = _word(6, "How many of its duties Redis answers and refuses, at the last attempt.")
    lapses = _word(7, "How often the lease was renewed after that time, so too late to tell.")
    ahead_us = _word(8, "By how many microseconds Redis' clock is ahead of ours, 0: not known.")


class Depth(_Block):
    """What waits for the workers of one pool, as the clerk has seen it."""

    __slots__ = ()
    waiting = _word(0, "Jobs in queues that may be claimed from, at the last look.")
    standing_ns = _word(1, "Monotonic time since which jobs have waited, 0 for none.")
    seen_ns = _word(2, "Monotonic time of the last look, 0 for none over this connection.")
    rivals = _word(3, "Workers of the same queues under other masters.")


class Seat(_Block):
    """One child."""

    __slots__ = ()
    pid = _word(0, "0 while the seat is empty.")
    role = _word(1, "A Role.")
    state = _word(2, "A Phase; write it by `enter`.")
    epoch = _word(3, "Number of the job in hand or last in hand.")
    job_started_ns = _word(4, "Monotonic time at which the job in hand began, 0 between jobs.")
    soft_ns = _word(5, "Monotonic time at which the job is over its limit, 0 for none.")
    hard_ns = _word(6, "Monotonic time at which the job is killed, 0 for none.")
    beat_ns = _word(7, "Monotonic time of the last sign of life.")
    busy_ns = _word(8, "Time spent on jobs that are over.")
    done = _word(9, "Jobs that succeeded.")
    failed = _word(10, "Jobs that failed.")
    taken_ns = _word(11, "Monotonic time at which the child was forked.")
    turns = _word(12, "How often it has reached for the baton.")
    on_call = _word(13, "1 while it has the baton.")
    claim = _word(14, "Number of the token by which the job in hand was claimed.")
    pool = _word(15, "Number of its pool.")
    generation = _word(16, "Number of the code that it runs: each reload raises it.")
    held = _word(17, "1 while it must not claim; the master's word, until its predecessor is gone.")
    grown = _word(18, "Bytes by which its own memory had grown after the last job.")
    own_at_ready = _word(19, "Bytes of its own memory when it got ready, 0: not measured.")
    due_jobs = _word(20, "Jobs after which it is to be replaced, 0: never; the master's word.")
    last = _word(22, "1 once it has a job in hand after which it leaves: the one that it may do.")
    gone = _word(21, "1 once Redis has forgotten it in good order: its death leaves nothing to do.")

    @property
    def phase(self) -> Phase:
        """Return where the child is in its life."""
        return Phase(self.state)

    def enter(self, phase: Phase, now_ns: int) -> None:
        """Go on to `phase`; this is a sign of life."""
        self.words[2] = phase
        self.words[7] = now_ns

    def begin(self, claim: int, now_ns: int, soft_ns: int, hard_ns: int) -> None:
        """Begin a job: all its words at once, for this is done for each of them."""
        words = self.words
        words[14] = claim
        words[3] += 1
        words[5] = soft_ns
        words[6] = hard_ns
        words[4] = words[7] = now_ns
        words[2] = _RUN

    def end(self, now_ns: int, *, done: bool, failed: bool) -> int:
        """End the job in hand; return for how many nanoseconds it ran."""
        words = self.words
        took = now_ns - words[4]
        words[8] += took
        words[4] = 0
        words[5] = words[6] = 0
        if done:
            words[9] += 1
        elif failed:
            words[10] += 1
        return int(took)

    def take(self, role: Role, now_ns: int) -> None:
        """Make the seat ready for a new child."""
        for index in range(_NAME_AT // _WORD):
            self.words[index] = 0
        self.title = ""
        self.role = role
        self.taken_ns = now_ns
        self.enter(Phase.BOOT, now_ns)

    def leave(self) -> None:
        """Empty the seat."""
        self.words[0] = 0
        self.words[2] = Phase.EMPTY

    @property
    def title(self) -> str:
        """Return the name of the job in hand or last in hand, cut to 64 bytes."""
        return bytes(self.text).rstrip(b"\0").decode("utf-8", "replace")

    @title.setter
    def title(self, name: str) -> None:
        raw = name.encode("utf-8", "replace")[:_NAME_SIZE]
        self.text[:] = raw.ljust(_NAME_SIZE, b"\0")


_B = TypeVar("_B", bound=_Block)


class Scoreboard:
    """The shared memory of one master. `fd` outlives an `execve`; a fork inherits the mapping.

    One that is not `shared` is for a worker that stands alone.
    """

    def __init__(self, seats: int, *, shared: bool = True, fd: int = -1) -> None:
        size = _BLOCK * (_FIRST_SEAT + seats)
        self.fd = fd
        if shared and fd < 0:
            self.fd = os.memfd_create("forkresque-scoreboard")
            os.ftruncate(self.fd, size)
        self._map = mmap.mmap(self.fd, size)
        self.orders = self._block(0, Orders)
        self.books = self._block(1, Books)
        self.depths = [self._block(2 + index, Depth) for index in range(MOST_POOLS)]
        self.seats = [self._block(_FIRST_SEAT + index, Seat) for index in range(seats)]

    @classmethod
    def adopt(cls, fd: int) -> "Scoreboard":
        """Return the scoreboard that stands in the memory of a descriptor."""
        return cls(os.fstat(fd).st_size // _BLOCK - _FIRST_SEAT, fd=fd)

    def _block(self, index: int, kind: Callable[[memoryview], _B]) -> _B:
        start = index * _BLOCK
        return kind(memoryview(self._map)[start : start + _BLOCK])

    def taken(self, role: Role) -> Iterator[Seat]:
        """Yield the seats that children of `role` sit in."""
        return (seat for seat in self.seats if seat.pid and seat.role == role)

"""The master's children as processes: fork them, signal them, hear them, bury them.

Which child there should be is for `policy.crew` to say; this knows pids, descriptors and seats.
"""

import contextlib
import logging
import math
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from forkresque.policy.child import Child, Doing, Facts, Fault, Kind, Spawn
from forkresque.scoreboard import Phase, Role, Scoreboard
from forkresque.supervisor.child import (
    DUMP,
    ORPHANED,
    Cradle,
    Forked,
    Inheritance,
    refuse_threads,
    spawn_all,
)
from forkresque.supervisor.identity import Identity
from forkresque.supervisor.messages import Died, Message, Wake, receive, send

log = logging.getLogger("forkresque.master")

Body = Callable[[Inheritance], int]
Birth = tuple[Spawn, Body]

_FATAL = "Fatal Python error"  # how the stack of a crash begins
_DUMP_BYTES, _DUMP_LINES = 32 * 1024, 200  # it travels in one packet, as JSON
_ROLES = {Kind.CLERK: Role.CLERK, Kind.WORKER: Role.WORKER, Kind.WATCHER: Role.WATCHER}
_DOING = {
    Phase.EMPTY: Doing.BOOT,
    Phase.BOOT: Doing.BOOT,
    Phase.IDLE: Doing.IDLE,
    Phase.CALL: Doing.CALL,
    Phase.RUN: Doing.RUN,
    Phase.SETTLE: Doing.SETTLE,
    Phase.DRAIN: Doing.LEAVE,
    Phase.LEFT: Doing.LEAVE,
}


class Member(NamedTuple):
    """A child that was forked and not yet reaped."""

    seat: int
    kind: Kind
    pool: int
    forked: Forked

    def state(self) -> dict[str, int | str]:
        """Return what another image of this process needs in order to look after it."""
        forked = self.forked
        return {
            "seat": self.seat,
            "kind": str(self.kind),
            "pool": self.pool,
            "pid": forked.pid,
            "start": forked.start,
            "pair": forked.pair.fileno(),
            "dump": forked.dump,
        }


class Children:
    """All children of one master. In the selector their pairs carry their seats as data."""

    def __init__(
        self,
        board: Scoreboard,
        selector: selectors.BaseSelector,
        identity: Identity,
    ) -> None:
        self._board = board
        self._selector = selector
        self._identity = identity
        self._members: dict[int, Member] = {}

    def spawn(
        self, born: Sequence[Birth], generation: int, *, let_go: Callable[[], None]
    ) -> list[OSError | None]:
        """Fork children, all in one go; return for each the kernel's refusal, if it refused.

        `let_go` closes, in each child, what is the master's apart from its children. Raises
        ConfigError while another thread is alive.
        """
        refuse_threads()

        def leave_parent() -> None:
            let_go()
            self._close_all()

        cradles = [self._make_cradle(each, generation) for each in born]
        ready = [each for each in cradles if isinstance(each, Cradle)]
        forked = iter(spawn_all(ready, let_go=leave_parent))
        found = [next(forked) if isinstance(each, Cradle) else each for each in cradles]
        return [self._welcome(*each) for each in zip(born, found, strict=True)]

    def _make_cradle(self, birth: Birth, generation: int) -> Cradle | OSError:
        wanted, body = birth
        seat = self._board.seats[wanted.seat]
        seat.take(_ROLES[wanted.kind], time.monotonic_ns())
        seat.pool, seat.generation = wanted.pool, generation
        seat.held = int(wanted.replaces is not None)
        death_signal = ORPHANED if wanted.kind is Kind.CLERK else signal.SIGTERM
        try:
            return Cradle.make(seat, body, death_signal=death_signal)
        except OSError as error:
            return error

    def _welcome(self, birth: Birth, forked: Forked | OSError) -> OSError | None:
        wanted, _ = birth
        if isinstance(forked, OSError):
            self._board.seats[wanted.seat].leave()
            return forked
        self.admit(Member(wanted.seat, wanted.kind, wanted.pool, forked))
        return None

    def admit(self, member: Member) -> None:
        """Look after a child from now on: a new one, or one of the image before this one."""
        self._members[member.seat] = member
        self._selector.register(member.forked.pair, selectors.EVENT_READ, member.seat)
        if member.forked.pidfd is not None:
            self._selector.register(member.forked.pidfd, selectors.EVENT_READ)

    @property
    def members(self) -> list[Member]:
        """Return all children that are not reaped yet."""
        return list(self._members.values())

    def reap(self, stranger: Callable[[int, int], None]) -> Iterator[tuple[Member, int]]:
        """Yield whoever has died, with the wait status; `stranger` is told of all others.

        What a child's job has left in its process group is killed.
        """
        while True:
            try:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if dead is None:
                return
            pid = dead.si_pid
            member = next((each for each in self.members if each.forked.pid == pid), None)
            if member is not None:  # while it is not collected, its group is nobody else's
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            if member is None:
                stranger(pid, status)
            else:
                yield member, status

    def bury(self, member: Member, child: Child, status: int) -> Died:
        """Let go of a dead child, and say what happened."""
        died = self._obituary(member, child, status)
        del self._members[member.seat]
        self._unwatch(member)
        member.forked.close()
        self._board.seats[member.seat].leave()
        return died

    def hear(self, number: int) -> list[Message]:
        """Return what a child has said."""
        member = self._members.get(number)
        if member is None:
            return []
        messages = receive(member.forked.pair)
        if not messages:  # the end of the pair proves nothing, but need not be watched
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(member.forked.pair)
        return messages

    def tell(self, number: int, message: Message) -> None:
        """Say something to one child."""
        send(self._members[number].forked.pair, message)

    def tell_all(self, kind: Kind, message: Message) -> None:
        """Say something to all children of a kind."""
        for member in self._members.values():
            if member.kind is kind:
                send(member.forked.pair, message)

    def wake_workers(self) -> None:
        """Have workers read their orders. Whoever has a job in hand does that after it.

        A pair that nobody reads meanwhile must keep its room for an order about the job.
        """
        for member in self._members.values():
            busy = self._board.seats[member.seat].phase is Phase.RUN
            if member.kind is Kind.WORKER and not busy:
                send(member.forked.pair, Wake())

    def signal(self, number: int, signum: int) -> None:
        """Signal a child; a kill takes with it what its job has started."""
        pid = self._members[number].forked.pid  # not reaped yet, so the pid is nobody else's
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)
            if signum == signal.SIGKILL:
                os.killpg(pid, signum)

    def describe(self, number: int) -> str:
        """Return how logs name a child."""
        return f"child={number} pid={self._members[number].forked.pid}"

    def facts(self, growth: Mapping[int, int] | None = None) -> dict[int, Facts]:
        """Return what the scoreboard says of each child now.

        `growth` is by how many bytes the memory of children has grown since they were ready.
        """
        growth = growth or {}
        now = time.monotonic_ns()
        found = {}
        for number in self._members:
            seat = self._board.seats[number]
            found[number] = Facts(
                doing=_DOING[seat.phase],
                silent=(now - seat.beat_ns) / 1e9,
                epoch=seat.epoch,
                soft_in=(seat.soft_ns - now) / 1e9 if seat.soft_ns else math.inf,
                hard_in=(seat.hard_ns - now) / 1e9 if seat.hard_ns else math.inf,
                jobs=seat.done + seat.failed,
                grown=seat.grown,
                grows=growth.get(number, 0),
                last=bool(seat.last),
                gone=bool(seat.gone),
            )
        return found

    @property
    def begun(self) -> int:
        """Return how many jobs workers have begun, in all their lives."""
        return sum(self._board.seats[number].epoch for number in self._members)

    def turns(self) -> int:
        """Return how often children have reached for a baton."""
        return sum(self._board.seats[number].turns for number in self._members)

    def release(self, number: int) -> None:
        """Let a child claim that was held."""
        self._board.seats[number].held = 0
        self.tell(number, Wake())

    def dump(self, number: int) -> None:
        """Have one child write its stacks down."""
        dump = self._members[number].forked.dump
        os.ftruncate(dump, 0)
        os.lseek(dump, 0, os.SEEK_SET)
        self.signal(number, DUMP)

    def dumps(self, numbers: Iterable[int]) -> Iterator[tuple[str, str]]:
        """Yield the lines that children have written down, each with its child's name."""
        for number in numbers:
            if number in self._members:
                for line in _dumped(self._members[number].forked.dump):
                    yield self.describe(number), line

    def _obituary(self, member: Member, child: Child, status: int) -> Died:
        seat, forked = self._board.seats[member.seat], member.forked
        post = self._identity.post(forked.pid, forked.start, member.pool)
        code = os.waitstatus_to_exitcode(status)
        return Died(
            worker=str(post.worker),
            owner=str(post.owner),
            pid=forked.pid,
            signum=max(-code, 0),
            status=max(code, 0),
            working=seat.phase in (Phase.RUN, Phase.SETTLE),
            claim=seat.claim,
            cut=child.cut,
            fault=child.fault,
            job=seat.title,
            dump=_last_words(forked.dump, crashed=child.fault in (Fault.NONE, Fault.OOM)),
        )

    def _unwatch(self, member: Member) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(member.forked.pair)
        if member.forked.pidfd is not None:
            self._selector.unregister(member.forked.pidfd)

    def _close_all(self) -> None:
        for member in self._members.values():
            member.forked.close()


def _last_words(dump: int, *, crashed: bool) -> tuple[str, ...]:
    """Return the stacks that were asked for, or those that a crash has left behind."""
    lines = _dumped(dump)
    if not crashed:
        return lines
    fatal = [number for number, line in enumerate(lines) if line.startswith(_FATAL)]
    return lines[fatal[-1] :] if fatal else ()


def _dumped(dump: int) -> tuple[str, ...]:
    raw = os.pread(dump, _DUMP_BYTES, 0)
    return tuple(raw.decode("utf-8", "replace").splitlines()[:_DUMP_LINES])

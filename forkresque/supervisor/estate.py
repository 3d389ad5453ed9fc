"""What a master stands on: new, or as the image before this one has left it."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from forkresque.errors import ConfigError
from forkresque.options import PoolSpec, SupervisorOptions
from forkresque.policy.child import Child, Fault, Kind
from forkresque.policy.crew import Crew
from forkresque.policy.judgement import Judge
from forkresque.policy.pool import Pool
from forkresque.policy.renewal import Renewal
from forkresque.scoreboard import MOST_POOLS, Scoreboard
from forkresque.supervisor.child import Forked
from forkresque.supervisor.children import Member
from forkresque.supervisor.control import Listening
from forkresque.supervisor.hand import Pipe
from forkresque.supervisor.handover import State
from forkresque.supervisor.identity import Identity
from forkresque.supervisor.messages import Died
from forkresque.supervisor.strays import StrayState

HEADROOM = 64  # seats beyond those wanted at the start, for TTIN and for replacements


@dataclass(slots=True)
class Estate:
    """Everything of a master that outlives its code. Descriptors in it are this process' own."""

    board: Scoreboard
    identity: Identity
    crew: Crew
    batons: list[Pipe]
    members: list[Member] = field(default_factory=list)
    deaths: list[Died] = field(default_factory=list)
    control: Listening | None = None
    announced: bool = False  # to the service manager, that it is ready
    pidfile: int | None = None
    strays: StrayState | None = None
    mask: list[int] | None = None  # of signals, to go back to

    @classmethod
    def new(cls, options: SupervisorOptions, specs: Sequence[PoolSpec]) -> "Estate":
        """Return what a master begins with."""
        if len(specs) > MOST_POOLS:
            raise ConfigError(f"there can be {MOST_POOLS} pools, got {len(specs)}")
        seats = sum(spec.most for spec in specs) + HEADROOM
        pools = [Pool(spec.queues, spec.least, spec.most) for spec in specs]
        identity = Identity.of_this_process(options, [pool.queues for pool in pools])
        batons = [Pipe.create() for _ in pools]
        return cls(Scoreboard(seats), identity, _crew(options, seats, pools), batons)

    @classmethod
    def inherited(
        cls, state: State, options: SupervisorOptions, specs: Sequence[PoolSpec], *, renewed: bool
    ) -> "Estate":
        """Return what the image before this one has left, with the pools of `specs`.

        `renewed` says that this image has newer code, to which the children are to be rolled.
        """
        board = Scoreboard.adopt(_kept(state["board"]))
        pools = pools_after(state["pools"], specs)
        batons = [Pipe(*map(_kept, each["baton"])) for each in state["pools"]]
        batons += [Pipe.create() for _ in pools[len(batons) :]]
        crew = _crew(options, len(board.seats), pools)
        crew.generation = state["generation"] + renewed
        crew.counts.update(state["counts"])
        crew.children = {child.seat: child for child in map(_child, state["children"])}
        crew.paused, crew.ever_ready = bool(board.orders.paused), True
        identity = Identity.of_this_process(
            options, [pool.queues for pool in pools], nonce=state["nonce"]
        )
        return cls(
            board,
            identity,
            crew,
            batons,
            members=[_member(each) for each in state["members"]],
            deaths=[Died(**each | {"dump": tuple(each["dump"])}) for each in state["deaths"]],
            control=_listening(Listening(*state["control"])),
            announced=state["announced"],
            pidfile=state["pidfile"],
            strays=state["strays"],
            mask=state["mask"],
        )

    def state(self, **more: Any) -> State:
        """Return all that the next image needs to know, as JSON can carry it."""
        crew = self.crew
        return {
            "generation": crew.generation,
            "nonce": self.identity.nonce,
            "board": self.board.fd,
            "pools": [
                {
                    "queues": list(pool.queues),
                    "target": pool.target,
                    "baton": [pipe.reader, pipe.writer],
                }
                for pool, pipe in zip(crew.pools, self.batons, strict=True)
            ],
            "counts": dict(crew.counts),
            "children": [asdict(child) for child in crew.children.values()],
            **more,
        }


def pools_after(before: Sequence[dict[str, Any]], specs: Sequence[PoolSpec]) -> list[Pool]:
    """Return the pools after a reload.

    Those of before keep their numbers, which children know; one that is no longer configured
    wants nobody, and new ones come after them.
    """
    wanted = {tuple(spec.queues): spec for spec in specs}
    pools = []
    for each in before:
        spec = wanted.pop(tuple(each["queues"]), None)
        bounds = (spec.least, spec.most) if spec else (0, 0)
        pools.append(Pool(tuple(each["queues"]), *bounds, target=each["target"]))
    return pools + [Pool(spec.queues, spec.least, spec.most) for spec in wanted.values()]


def _crew(options: SupervisorOptions, seats: int, pools: Sequence[Pool]) -> Crew:
    return Crew(
        seats,
        pools,
        judge=Judge(options.boot_timeout, options.heartbeat_timeout, options.max_memory),
        renewal=Renewal(options.max_jobs, options.max_age, options.max_memory),
        watched=options.reload,
    )


def _listening(before: Listening) -> Listening:
    for number in (before.server, before.lock):
        _kept(number)
    return before


def _kept(number: int) -> int:
    """Return a descriptor that came over an exec, from now on ours alone."""
    os.set_inheritable(number, False)
    return number


def _child(fields: dict[str, Any]) -> Child:
    return Child(**fields | {"kind": Kind(fields["kind"]), "fault": Fault(fields["fault"])})


def _member(told: dict[str, Any]) -> Member:
    forked = Forked.adopt(told["pid"], told["start"], told["pair"], told["dump"])
    return Member(told["seat"], Kind(told["kind"]), told["pool"], forked)

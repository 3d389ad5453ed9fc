"""How a process becomes a master: as a new one, as the next image of one, or as a trial of that."""

import logging
import os
from collections.abc import Callable

from forkresque.app import Forkresque
from forkresque.errors import ExitCode, ForkresqueError
from forkresque.events import Emitter
from forkresque.options import SupervisorOptions
from forkresque.scoreboard import LAYOUT
from forkresque.supervisor import handover
from forkresque.supervisor.estate import Estate
from forkresque.supervisor.master import Master
from forkresque.supervisor.preload import preloaded
from forkresque.supervisor.reload import CHECK, Fitness
from forkresque.supervisor.resources import usable_cores
from forkresque.supervisor.watch import check_installed

log = logging.getLogger("forkresque.master")


def begin(
    load: Callable[[], Forkresque], options: SupervisorOptions, *, pinned: str, events: Emitter
) -> int:
    """Be a master to its end, or find out whether this code could be one; return the exit code."""
    specs = options.pool_specs(max(1, int(usable_cores())))
    if asked := os.environ.pop(CHECK, ""):
        load()
        most = sum(spec.most for spec in specs)
        Fitness.parse(asked).check(LAYOUT, most, len(specs))
        return ExitCode.OK
    if options.reload:
        check_installed()
    broken = ""
    if options.preload:
        load, broken = _imported(load)
    state = handover.found()
    if state is None:
        estate = Estate.new(options, specs)
    else:
        estate = Estate.inherited(state, options, specs, renewed=not broken)
    return Master(load, options, estate, events, pinned=pinned, broken=broken).run()


def _imported(load: Callable[[], Forkresque]) -> tuple[Callable[[], Forkresque], str]:
    """Import the application here; return what gives it to children, and why it could not be.

    Raises ConfigError, unless children are waiting who know the old code and can go on with it.
    """
    try:
        return preloaded(load), ""
    except ForkresqueError as error:
        if not handover.is_left():
            raise
        log.error("the old workers go on, since the new code cannot be used: %s", error)  # noqa: TRY400
        return load, str(error)

"""From one image of a master to the next: what is handed over, and which descriptors stay open."""

from forkresque import embedded
from forkresque.supervisor import handover
from forkresque.supervisor.children import Children
from forkresque.supervisor.control import ControlServer
from forkresque.supervisor.estate import Estate
from forkresque.supervisor.obituaries import Obituaries
from forkresque.supervisor.pidfile import Pidfile
from forkresque.supervisor.reload import argv
from forkresque.supervisor.strays import Leftovers
from forkresque.supervisor.wakeups import Wakeups


def succeed(
    estate: Estate,
    children: Children,
    obituaries: Obituaries,
    leftovers: Leftovers,
    control: ControlServer,
    pidfile: Pidfile | None,
    wakeups: Wakeups,
    *,
    announced: bool,
) -> None:
    """Become the next image, under the same pid. Raises OSError with everything as it was.

    `announced` says that the service manager knows us to be ready.
    """
    members = [member.state() for member in children.members]
    lock, listening = pidfile.fd if pidfile else None, control.state
    state = estate.state(
        members=members,
        deaths=[died._asdict() for died in obituaries],
        strays=leftovers.state,
        control=list(listening),
        announced=announced,
        pidfile=lock,
    )
    kept = [estate.board.fd, listening.server, listening.lock, *embedded.holds()]
    kept += [number for pipe in estate.batons for number in (pipe.reader, pipe.writer)]
    kept += [int(member[name]) for member in members for name in ("pair", "dump")]
    kept += [] if lock is None else [lock]
    handover.execute(state, kept, argv(), heard=wakeups.take)

"""The masters of this machine, by their control sockets."""

from pathlib import Path
from typing import Any

import click

from forkresque.cli.parameters import declared
from forkresque.cli.session import Session
from forkresque.errors import ControlError
from forkresque.options import SupervisorOptions
from forkresque.supervisor import control


def which_master() -> list[click.Parameter]:
    """Return the parameters that say which local master is meant."""
    return [
        click.Option(["--pid"], type=int, metavar="N", help="The local master with this pid."),
        *declared(SupervisorOptions, only=["control"]),
    ]


def local_sockets(session: Session) -> list[Path]:
    """Return the control sockets of the running masters that this user may speak to."""
    found = control.sockets(control.runtime_directory(session.environ))
    elsewhere = session.chosen("control") or str(session.file().values.get("control", ""))
    if elsewhere and Path(elsewhere) not in found:
        found.append(Path(elsewhere))
    return found


def one_master(session: Session, *, pid: int | None, path: str | None) -> tuple[Path, int]:
    """Return the socket and the pid of the one master that is meant. Raises ControlError."""
    masters, mute = {}, None
    for socket in [Path(path)] if path else local_sockets(session):
        try:
            masters[int(control.ask(socket, "status")["pid"])] = socket
        except ControlError as error:
            mute = error
    if mute is not None and pid not in masters:  # it may be the one that is meant
        raise mute
    pids = ", ".join(map(str, sorted(masters)))
    if pid is not None and pid not in masters:
        raise ControlError(
            f"there is no master {pid} here",
            hint=f"there is {pids}" if pids else "forkresque status shows those there are",
        )
    if not masters:
        raise ControlError(
            "no master runs here",
            hint="one of another user or with another XDG_RUNTIME_DIR needs --control PATH",
        )
    if pid is None and len(masters) > 1:
        raise ControlError(f"{len(masters)} masters run here: {pids}", hint="say which: --pid N")
    pid = next(iter(masters)) if pid is None else pid
    return masters[pid], pid


def statuses(session: Session, *, path: str | None = None) -> list[dict[str, Any]]:
    """Return what each local master says of itself, or `socket` and `error` if it does not.

    With `path`, only the master behind that socket is asked.
    """
    found = []
    for socket in [Path(path)] if path else local_sockets(session):
        try:
            found.append({"socket": str(socket), **control.ask(socket, "status")})
        except ControlError as error:
            found.append({"socket": str(socket), "error": str(error)})
    return found

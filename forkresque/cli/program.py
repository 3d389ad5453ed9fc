"""`forkresque` itself: which commands there are, and what an error looks like to the shell."""

import atexit
import importlib
import io
import os
import sys
import threading
import traceback
from typing import Any, NamedTuple

import click

from forkresque import __version__
from forkresque.cli.importing import uncollected
from forkresque.cli.output import complain, show_trace
from forkresque.cli.parameters import Group
from forkresque.cli.session import Session
from forkresque.errors import ExitCode, ForkresqueError, RedisUnavailable

INTERRUPTED = 130


class Home(NamedTuple):
    """The module of this package that has a command under its name, and what the list says."""

    module: str
    summary: str  # one line, so that the list of all commands need not import them


COMMANDS = {
    "start": Home("start", "Run the jobs of an application in worker processes."),
    "scheduler": Home("scheduler", "Promote delayed jobs, and run none."),
    "demo": Home("demo", "Run sample jobs on an embedded server."),
    "status": Home("status", "Show what waits, who works, and the masters here."),
    "top": Home("top", "Watch the local master at work."),
    "enqueue": Home("enqueue", "Put a job on a queue, now or later."),
    "queues": Home("queues", "Show the queues, and the jobs that wait in one."),
    "workers": Home("workers", "Show the workers that are in Redis, or kill one here."),
    "failed": Home("failed", "Show failed jobs, retry them, remove them."),
    "pause": Home("control", "Let no new job start; those in hand go on."),
    "resume": Home("control", "Let jobs start again after a pause."),
    "drain": Home("control", "Let the local master finish the jobs in hand and end."),
    "scale": Home("control", "Let the local master have more or fewer workers."),
    "reload": Home("control", "Let the local master go on with new code and options."),
    "config": Home("config", "Look at the options that are in force, and why."),
}


class Program(Group):
    """The group of all commands. It imports the one that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of all commands, those that people type daily first."""
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """Import a command; return None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        with uncollected():
            module = importlib.import_module(f"forkresque.cli.{COMMANDS[cmd_name].module}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """List all commands, without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, home.summary) for name, home in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; whatever goes wrong becomes a message and an exit code."""
        session = ctx.ensure_object(Session)
        try:
            return super().invoke(ctx)
        except ForkresqueError as error:
            if session.verbose:
                show_trace(traceback.format_exc())
            complain(str(error), hint=error.hint or _hint(error))
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception:  # noqa: BLE001 - the last one who can tell the user
            show_trace(traceback.format_exc())
            complain("internal error; the traceback is above", hint="please report it")
            ctx.exit(ExitCode.INTERNAL)


def _hint(error: ForkresqueError) -> str:
    if isinstance(error, RedisUnavailable):
        return "is it up? Name another with -u URL or FORKRESQUE_REDIS_URL"
    return ""


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="forkresque", message="%(prog)s %(version)s")
def program() -> None:
    """Run, look after and feed background jobs that speak Resque."""


def main() -> None:
    """Run the command line. The console script and `python -m forkresque` call this."""
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal is no error
    try:
        program(prog_name="forkresque")
    except SystemExit as end:
        _leave(end)
        raise


def _leave(end: SystemExit) -> None:
    """End this process at once, if nobody would notice that the interpreter does not tidy up.

    To take apart all that an application has loaded takes longer than to stop its workers.
    """
    if not isinstance(end.code, int) or threading.active_count() > 1:
        return
    atexit._run_exitfuncs()  # noqa: SLF001 - there is no public way
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            return  # the interpreter knows what to say
    os._exit(end.code)


def _open_what_is_closed() -> None:
    """Have a standard input, output and error, if only the null device.

    Whoever starts us may have closed them. Then the next files and sockets get their numbers,
    and what is written for people goes into them.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115 - it lives as long as we do

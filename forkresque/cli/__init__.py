"""The command line: parse, hand over, report. A command's module is imported when it is used."""

from forkresque.cli.program import main

__all__ = ["main"]

"""Titles: what `ps` shows of our processes."""

from setproctitle import setproctitle


def set_title(text: str) -> None:
    """Set what `ps` shows.

    `resque-<digit>` in it keeps Ruby workers of this host from pruning ours, unless it holds
    `resque-web`, by which they know what is no worker.
    """
    from forkresque import __version__

    setproctitle(f"forkresque-{__version__}: {text.replace('resque-web', 'resque_web')}")

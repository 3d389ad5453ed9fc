"""How many files a master may have open."""

import resource

from forkresque.errors import ConfigError


def allow_descriptors(needed: int) -> None:
    """Raise the limit of open files to `needed`, if it is lower. Raises ConfigError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed or soft == resource.RLIM_INFINITY:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigError(
            f"so many workers need {needed} open files, and the limit is {hard}",
            hint="start fewer workers, or raise the limit: ulimit -Hn",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))

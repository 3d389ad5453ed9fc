"""What can be asked of a master over its control socket."""

from collections.abc import Callable
from typing import Any

from forkresque.errors import ConfigError
from forkresque.policy.pool import Pool
from forkresque.supervisor.helm import Helm

_MOST = 10_000


class Verbs:
    """The verbs, their arguments and their checks. Each is answered with the state."""

    def __init__(self, helm: Helm, report: Callable[[], dict[str, Any]]) -> None:
        self._helm = helm
        self._report = report
        self._known: dict[str, Callable[[dict[str, Any]], None]] = {
            "status": lambda _arguments: None,
            "pause": lambda _arguments: helm.pause(on=True),
            "resume": lambda _arguments: helm.pause(on=False),
            "drain": lambda arguments: helm.stop(_seconds(arguments, helm.patience)),
            "scale": self._scale,
            "reload": lambda _arguments: helm.reload(),
            "kill": self._kill,
        }

    def answer(self, verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Carry out a verb. Raises ConfigError for what is unknown or makes no sense."""
        if verb not in self._known:
            raise ConfigError(f"unknown verb {verb!r}; known are {', '.join(self._known)}")
        self._known[verb](arguments)
        return self._report()

    def _scale(self, arguments: dict[str, Any]) -> None:
        pool = self._pool(arguments.get("pool"))
        if "by" in arguments:
            most = pool.most + _whole(arguments, "by", least=-_MOST)
        else:
            most = _whole(arguments, "to", least=1)
        self._helm.scale(pool, most)

    def _pool(self, name: object) -> Pool:
        pools = self._helm.pools
        if name is None:
            return pools[0]
        for pool in pools:
            if pool.name == name:
                return pool
        known = ", ".join(pool.name for pool in pools)
        raise ConfigError(f"there is no pool {name!r}; there is {known}")

    def _kill(self, arguments: dict[str, Any]) -> None:
        pid = _whole(arguments, "pid", least=1)
        if not self._helm.kill(pid):
            raise ConfigError(f"there is no worker {pid} here")


def _whole(arguments: dict[str, Any], name: str, *, least: int) -> int:
    value = arguments.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 1 << 31:
        raise ConfigError(f"{name} must be a whole number from {least} on, got {value!r}")
    return value


def _seconds(arguments: dict[str, Any], default: float) -> float:
    value = arguments.get("timeout", default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:
        raise ConfigError(f"timeout must be a number of seconds, got {value!r}")
    return float(value)

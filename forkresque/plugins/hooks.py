"""Which plugins a job has, and in what order their hooks run. Resolved once for each job."""

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from forkresque.errors import ConfigError
from forkresque.plugins.base import Context, Performance, Plugin
from forkresque.plugins.locks import DelayQueueLock, JobLock, QueueLock
from forkresque.plugins.noop import Noop
from forkresque.plugins.retry import Retry

log = logging.getLogger("forkresque.plugins")

PluginLike = Plugin | type[Plugin] | str

HOOKS = (
    "before_enqueue",
    "after_enqueue",
    "after_delete",
    "before_perform",
    "around_perform",
    "on_failure",
    "after_perform",
)
BUILT_IN: Mapping[str, type[Plugin]] = {
    kind.__name__: kind for kind in (DelayQueueLock, JobLock, Noop, QueueLock, Retry)
}


def resolve(
    plugins: Sequence[PluginLike], options: Mapping[Any, Mapping[str, Any]] | None = None
) -> tuple[Plugin, ...]:
    """Return the plugins of one job.

    Each is a plugin, or a class or the name of one of ours, which then gets its part of `options`;
    that is found by the class or by its name. Raises ConfigError.
    """
    if isinstance(plugins, str) or not isinstance(plugins, Sequence):
        raise ConfigError(
            f"plugins must be a list, got {plugins!r}", hint="write plugins=[Retry(5)]"
        )
    given = {_label(key): value for key, value in (options or {}).items()}
    found = tuple(_made(plugin, given) for plugin in plugins)
    if unknown := given.keys() - {plugin.label() for plugin in found}:
        raise ConfigError(
            f"plugin_options for {sorted(unknown)}, but the job has no such plugin",
            hint="add it to plugins; a plugin that is an object has its options already",
        )
    return found


def _label(key: object) -> str:
    if isinstance(key, type) and issubclass(key, Plugin):
        return key.label()
    return str(key)


def _made(plugin: object, given: Mapping[str, Mapping[str, Any]]) -> Plugin:
    if isinstance(plugin, Plugin):
        return _plain(plugin)
    kind = BUILT_IN.get(plugin) if isinstance(plugin, str) else plugin
    if not (isinstance(kind, type) and issubclass(kind, Plugin)):
        raise ConfigError(
            f"{plugin!r} is no plugin",
            hint=f"give a Plugin, its class, or one of the names {', '.join(BUILT_IN)}",
        )
    return _plain(kind.from_options(given.get(kind.label(), {})))


def _plain(plugin: Plugin) -> Plugin:
    """Return `plugin`; refuse one whose answers would be coroutines that nobody awaits."""
    for hook in HOOKS:
        if inspect.iscoroutinefunction(getattr(plugin, hook)):
            raise ConfigError(
                f"{hook} of plugin {plugin.label()} is a coroutine function",
                hint="make it a plain function; only the job itself may be async",
            )
    return plugin


class Hooks:
    """The hooks of one job's plugins: only those that a plugin has made its own."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self._plugins = tuple(plugins)
        self._before_enqueue = [p.before_enqueue for p in plugins if _has(p, "before_enqueue")]
        self._after_enqueue = [p.after_enqueue for p in plugins if _has(p, "after_enqueue")]
        self._after_delete = [p.after_delete for p in plugins if _has(p, "after_delete")]
        self._around = [p.around_perform for p in plugins if _has(p, "around_perform")]
        self._on_failure = [p.on_failure for p in plugins if _has(p, "on_failure")]
        self.at_enqueue = bool(self._before_enqueue or self._after_enqueue)
        self.at_delete = bool(self._after_delete)

    def may_enqueue(self, context: Context) -> bool:
        """Return False as soon as a plugin does."""
        return all(hook(context) is not False for hook in self._before_enqueue)

    def after_enqueue(self, context: Context) -> None:
        """Tell the plugins that Redis has the job. What they raise cannot undo that."""
        for hook in self._after_enqueue:
            try:
                if hook(context) is False:
                    return
            except Exception:
                log.exception("job=%s a plugin failed after the job was enqueued", context.name)

    def after_delete(self, context: Context) -> None:
        """Tell the plugins that the job was deleted from its queue."""
        for hook in self._after_delete:
            try:
                hook(context)
            except Exception:
                log.exception("job=%s a plugin failed after the job was deleted", context.name)

    def begin(self, context: Performance) -> "Begun":
        """Return what leads one job through the hooks around its performance."""
        return Begun(self._plugins, self._around, self._on_failure, context)


def _has(plugin: Plugin, hook: str) -> bool:
    return getattr(type(plugin), hook) is not getattr(Plugin, hook)


class Begun:
    """One job on its way through the hooks. `passed` says whether it may be performed."""

    def __init__(
        self,
        plugins: Sequence[Plugin],
        around: Sequence[Callable[[Performance, Callable[[], object]], object]],
        on_failure: Sequence[Callable[[Performance, BaseException], None]],
        context: Performance,
    ) -> None:
        self._plugins = plugins
        self._around = around
        self._on_failure = on_failure
        self._blocked: set[int] = set()  # who did not let the job pass, or was never asked
        self.context = context

    def before(self) -> bool:
        """Ask the plugins in their order; return False as soon as one does."""
        asked = [plugin for plugin in self._plugins if _has(plugin, "before_perform")]
        self._blocked = set(map(id, asked))
        for plugin in asked:
            if plugin.before_perform(self.context) is False:
                return False
            self._blocked.discard(id(plugin))
        return True

    def perform(self, run: Callable[[], object]) -> object:
        """Run the job inside the plugins that go around it, the first outermost."""
        for around in reversed(self._around):
            run = partial(around, self.context, run)
        return run()

    def after(self) -> None:
        """Tell the plugins how it went. The first error stays, unless a plugin clears it."""
        context = self.context
        if context.error is not None:
            self._tell_of(context.error)
        for plugin in self._plugins:
            if id(plugin) in self._blocked or not _has(plugin, "after_perform"):
                continue
            try:
                if plugin.after_perform(context) is False:
                    return
            except BaseException as error:  # noqa: BLE001 - a hook's SystemExit ends no worker
                self._note(error)

    def _tell_of(self, error: BaseException) -> None:
        for hook in self._on_failure:
            try:
                hook(self.context, error)
            except BaseException:
                log.exception("job=%s a plugin failed on its failure", self.context.name)

    def _note(self, error: BaseException) -> None:
        """Make the error of a hook the job's, if that has come to no other end."""
        context = self.context
        if context.later is not None or context.error not in (None, error):
            log.error("job=%s a plugin failed after it", context.name, exc_info=error)
        else:
            context.error = error

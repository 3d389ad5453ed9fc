"""The upstream suite plugins/custom_plugins, mirrored.

* runs a custom plugin outside of the plugins directory
  -> test_runs_a_custom_plugin_outside_of_the_plugins_directory: a plugin extends our Plugin, and
  its hooks are given a context instead of attributes of its own
"""

from forkresque import Plugin
from forkresque.plugins import Context
from tests.conformance.stage import Stage, add, described


class CustomPlugin(Plugin):
    """Let nothing pass."""

    def before_enqueue(self, context: Context) -> bool:
        return False


def test_runs_a_custom_plugin_outside_of_the_plugins_directory(stage: Stage) -> None:
    queue = stage.queue({"jobby": described(add, CustomPlugin)})

    assert queue.enqueue("q", "jobby", [1, 2]) is False
    assert queue.length("q") == 0

"""The peers in other languages: node-resque by npm, Sidekiq by Debian's package."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from bench.harness.contestant import PEERS, Command, Contestant, Group

_NODE_BINARY = shutil.which("node") or "node"  # what is guarded is started without PATH
_NODE = [_NODE_BINARY, "bench/peers/node_resque.mjs"]
_RUBY_JOBS = "bench/peers/sidekiq_jobs.rb"


def _printed(*argv: str) -> str:
    return subprocess.check_output(argv, text=True).strip()


def _node_versions() -> dict[str, str]:
    packages = PEERS / "node" / "node_modules"
    found = {
        name: str(json.loads((packages / name / "package.json").read_text())["version"])
        for name in ("node-resque", "ioredis")
    }
    return {"node": _printed(_NODE_BINARY, "--version"), **found}


def _ruby_versions() -> dict[str, str]:
    said = "require 'sidekiq'; puts RUBY_VERSION, Sidekiq::VERSION, Redis::VERSION"
    found = _printed("ruby", "-e", said).split()
    return dict(zip(("ruby", "sidekiq", "redis"), found, strict=True))


def _node(name: str, role: str, *, setting: str, pace: float) -> Contestant:
    return Contestant(
        name=name,
        group=Group.OTHER,
        setting=setting,
        start=lambda workers: [[*_NODE, role]] * workers,
        produce=[*_NODE, "put"],
        kinds=[_NODE_BINARY, "bench/peers/kinds.mjs"],
        pace=pace,
        needs=PEERS / "node" / "node_modules" / "node-resque",
        versions=_node_versions,
    )


def _sidekiq(name: str, threads: int, *, setting: str, pace: float) -> Contestant:
    return Contestant(
        name=name,
        group=Group.OTHER,
        setting=setting,
        start=_sidekiq_start(threads),
        produce=["ruby", _RUBY_JOBS],
        kinds=["ruby", "bench/peers/kinds.rb"],
        pace=pace,
        bulk=True,
        needs=Path("/usr/bin/sidekiq"),
        versions=_ruby_versions,
    )


def _sidekiq_start(threads: int) -> Callable[[int], list[Command]]:
    process = ["/usr/bin/sidekiq", "-e", "production", "-q", "bench", "-c", str(threads)]
    return lambda workers: [[*process, "-r", f"./{_RUBY_JOBS}"]] * workers


FOREIGN_PEERS: tuple[Contestant, ...] = (
    _node("node-resque", "worker", setting="one Worker a process, defaults", pace=4_000),
    _node(
        *("node-multi", "multi"),
        setting="MultiWorker, defaults: up to 10 jobs at once a process",
        pace=5_000,
    ),
    _sidekiq("sidekiq", 1, setting="one thread a process", pace=7_000),
    _sidekiq("sidekiq-c10", 10, setting="10 threads a process", pace=7_000),
)

"""The files in contrib/, read as far as their tests need it."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

CONTRIB = Path(__file__).parents[2] / "contrib"
COMPOSE: dict[str, Any] = yaml.safe_load((CONTRIB / "docker" / "compose.yaml").read_text())
DEPLOYMENT: dict[str, Any] = yaml.safe_load(
    (CONTRIB / "kubernetes" / "deployment.yaml").read_text()
)
POD: dict[str, Any] = DEPLOYMENT["spec"]["template"]["spec"]
CONTAINER: dict[str, Any] = POD["containers"][0]
_WITH_COMMANDS = ("RUN", "CMD", "ENTRYPOINT", "HEALTHCHECK")


class Unit(dict[str, str]):
    """A systemd unit: its settings; of one that is given twice the last."""

    @classmethod
    def read(cls, name: str) -> "Unit":
        """Return a unit of contrib/systemd."""
        lines = (CONTRIB / "systemd" / name).read_text().splitlines()
        return cls(
            (key, value)
            for line in lines
            if not line.startswith("#") and "=" in line
            for key, _, value in [line.partition("=")]
        )


class Dockerfile:
    """A Dockerfile: its instructions in order, lines joined."""

    def __init__(self, path: Path) -> None:
        text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE)
        lines = re.sub(r"\\\n\s*", "", text).splitlines()
        self.instructions = [
            (name, rest) for name, _, rest in (line.partition(" ") for line in lines) if name
        ]

    @classmethod
    def read(cls) -> "Dockerfile":
        """Return that of contrib/docker."""
        return cls(CONTRIB / "docker" / "Dockerfile")

    def last(self, name: str) -> str:
        """Return what follows the last instruction of this name."""
        return next(rest for each, rest in reversed(self.instructions) if each == name)

    def words(self, name: str) -> list[str]:
        """Return the command of an instruction in exec form."""
        return _words(self.last(name))

    @property
    def env(self) -> dict[str, str]:
        """Return the environment that the image sets."""
        pairs = [pair for name, rest in self.instructions if name == "ENV" for pair in rest.split()]
        return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}

    @property
    def health(self) -> dict[str, str]:
        """Return the options of the health check."""
        return dict(re.findall(r"--([a-z-]+)=(\S+)", self.last("HEALTHCHECK").split("CMD")[0]))

    @property
    def health_command(self) -> list[str]:
        """Return the command of the health check."""
        return _words(self.last("HEALTHCHECK").partition("CMD ")[2])

    @property
    def shell_forms(self) -> list[str]:
        """Return the instructions that would have a shell run their command."""
        return [
            f"{name} {rest}"
            for name, rest in self.instructions
            if name in _WITH_COMMANDS and not re.fullmatch(r"(--\S+ +)*(CMD +)?\[.*\]", rest)
        ]


def _words(text: str) -> list[str]:
    words: list[str] = json.loads(text)
    return words
